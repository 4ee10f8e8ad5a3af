"""Randomness derived from (seed, identity, purpose), never from the order of work.

Two runs that differ in core count, shard size, chunk size or executor draw the same numbers for the same
image and the same purpose, because nothing here depends on what was drawn before.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed that depends on ``seed`` and on every part of ``purpose``.

    Args:
        seed: The run's seed, any integer.
        purpose: What the randomness is for, e.g. ``("test/17", "smoothgrad")``. The parts are told apart:
            ``("ab",)`` and ``("a", "b")`` give different seeds.

    Returns:
        An integer in ``[0, 2**63)``.
    """
    parts = "\x1f".join(f"{len(str(part))}:{part}" for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(parts.encode(), digest_size=8).digest()) >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator seeded by :func:`derive`; it draws the same numbers whatever device computes."""
    import torch

    return torch.Generator(device="cpu").manual_seed(derive(seed, *purpose))
