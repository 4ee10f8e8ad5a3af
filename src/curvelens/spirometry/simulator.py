"""Simulated forced exhalations, with and without coughs. Nothing here was recorded from anyone.

An undisturbed effort empties two compartments, a fast and a slow one, through a muscle effort that sets in
with the time constant r. A compartment of volume v and time constant τ has emptied, t seconds after the
start,

    E(t; v, τ, r) = v [1 − (τ e^{−t/τ} − r e^{−t/r}) / (τ − r)],

which is exponential emptying, v(1 − e^{−t/τ}), as r → 0. A cough closes the glottis: the volume stands still
for 0.2 to 0.6 s (a plateau), and then flows faster for a moment (a transient). It is a matter of the clock:
V(t) = a · E(s(t)) with an inner clock s that stops during plateaus and runs ahead in transients, so that no
cough exhales air that is not there. Fluctuations of the flow and the end of the effort are on the same clock.

The ranges are those of :data:`RANGES`; docs/methods.md says where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from curvelens import seeds
from curvelens.errors import ConfigError
from curvelens.spirometry.indices import INTERVAL, SAMPLES, measure

if TYPE_CHECKING:
    import numpy as np

RANGES: dict[str, tuple[float, float]] = {
    "capacity": (1.2, 6.6),  # L, what both compartments hold
    "fast_share": (0.25, 1.0),  # of the capacity
    "fast": (0.3, 0.6),  # s, time constant of the fast compartment
    "slow": (0.8, 3.5),  # s, of the slow one
    "rise": (0.04, 0.10),  # s, of the muscle effort
    "effort": (0.85, 1.0),  # share of the volume that the rejected effort reaches
    "duration": (4.0, 15.0),  # s, of the exhalation
    "ripple": (0.0, 0.2),  # relative amplitude of the flow's fluctuations
    "frequency": (0.5, 2.0),  # Hz
    "phase": (0.0, 6.283185307179586),
    "first_cough": (0.25, 8.0),  # s after the start, drawn uniformly in the logarithm
    "gap": (0.3, 2.0),  # s between two coughs
    "plateau": (0.2, 0.6),  # s, glottis closed
    "burst": (0.05, 0.15),  # s, the transient after a plateau
    "gain": (0.5, 2.0),  # by how much the flow rises in it, relative
}
MOST_COUGHS = 3


@dataclass(frozen=True)
class Effort:
    """One simulated patient and effort; times in s from the start of the exhalation, volumes in L.

    Attributes:
        volumes: Volumes of the fast and the slow compartment.
        constants: Their time constants.
        rise: Time constant of the muscle effort, smaller than both.
        effort: Share of the volume that the disturbed effort reaches, in (0, 1].
        duration: When the exhalation ends.
        ripple, frequency, phase: Relative amplitude (below 1), Hz and phase of the flow's fluctuations.
        coughs: For each cough its time, the length of its plateau, that of its burst and the gain in it.
    """

    volumes: tuple[float, float]
    constants: tuple[float, float]
    rise: float
    effort: float = 1.0
    duration: float = 15.0
    ripple: float = 0.0
    frequency: float = 1.0
    phase: float = 0.0
    coughs: tuple[tuple[float, float, float, float], ...] = ()

    def clean(self, time: np.ndarray) -> np.ndarray:
        """Return the volume of the patient's undisturbed best effort, [n] -> [n]."""
        (fast, slow), (short, long) = self.volumes, self.constants
        return emptied(time, fast, short, self.rise) + emptied(time, slow, long, self.rise)

    def disturbed(self, time: np.ndarray) -> np.ndarray:
        """Return the volume of the effort as it is recorded, with its coughs, [n] -> [n]."""
        import numpy as np

        clock = cough_clock(np.minimum(time, self.duration), self.coughs)
        turn = 2 * np.pi * self.frequency
        clock = clock + self.ripple * (np.cos(self.phase) - np.cos(turn * clock + self.phase)) / turn
        return self.effort * self.clean(clock)

    @property
    def first_cough(self) -> float:
        """When the first plateau begins, s from the start; infinite without coughs."""
        return self.coughs[0][0] if self.coughs else float("inf")


@dataclass(frozen=True, eq=False)
class Simulated:
    """Simulated curves.

    Attributes:
        ids: N names.
        volumes: float32 [N, 300], L, 50 ms apart from time zero.
        fev1: float32 [N], L, of each patient's undisturbed best effort: the target.
        efforts: N efforts.
        time_zero: [N], s, time zero of each curve in the time of its effort.
    """

    ids: list[str]
    volumes: np.ndarray
    fev1: np.ndarray
    efforts: list[Effort]
    time_zero: np.ndarray

    def plateaus(self, index: int) -> list[tuple[float, float]]:
        """Return where the plateaus of one curve begin and end, s from its time zero."""
        zero = float(self.time_zero[index])
        coughs = self.efforts[index].coughs
        return [(start - zero, start - zero + plateau) for start, plateau, _, _ in coughs]

    def without_coughs(self, index: int) -> np.ndarray:
        """Return the volumes of one effort as they were without its coughs, float32 [300], L."""
        import numpy as np

        grid = self.time_zero[index] + INTERVAL * np.arange(SAMPLES)
        return replace(self.efforts[index], coughs=()).disturbed(grid).astype(np.float32)


def emptied(time: np.ndarray, volume: float, constant: float, rise: float) -> np.ndarray:
    """Return what a compartment has emptied, E(t; v, τ, r) of the module, in L.

    Args:
        time: [n], s, from the start; 0 before it.
        volume: v, L.
        constant: τ, s.
        rise: r, s, other than τ.
    """
    import numpy as np

    time = np.maximum(time, 0)
    left = (constant * np.exp(-time / constant) - rise * np.exp(-time / rise)) / (constant - rise)
    return volume * (1 - left)


def flow(time: np.ndarray, volume: float, constant: float, rise: float) -> np.ndarray:
    """Return dE/dt = v (e^{−t/τ} − e^{−t/r}) / (τ − r), in L/s; see :func:`emptied`."""
    import numpy as np

    time = np.maximum(time, 0)
    return volume * (np.exp(-time / constant) - np.exp(-time / rise)) / (constant - rise)


def cough_clock(time: np.ndarray, coughs: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Return the inner clock s(t): it stops in each plateau and is 1 + gain times as fast in each burst.

    Args:
        time: [n], s.
        coughs: (time, plateau, burst, gain), not overlapping.
    """
    import numpy as np

    clock = np.asarray(time, float).copy()
    for start, plateau, burst, gain in coughs:
        clock -= np.clip(time - start, 0, plateau)
        clock += gain * np.clip(time - start - plateau, 0, burst)
    return clock


def simulate(count: int, *, cough_share: float = 0.9, seed: int = 0, name: str = "simulated") -> Simulated:
    """Simulate curves; each depends on ``seed`` and its own name alone.

    Args:
        count: Curves, at least 1.
        cough_share: Share of the efforts that coughs disturb, in [0, 1].
        seed: Seed of the run.
        name: Prefix of the ids, ``name/00017``.

    Returns:
        The curves.

    Raises:
        ConfigError: ``count`` or ``cough_share`` is out of range.
    """
    import numpy as np

    if count < 1 or not 0 <= cough_share <= 1:
        raise ConfigError(
            f"simulate: {count} curves with a share of {cough_share} coughing cannot be made; "
            "give at least 1 curve and a share in [0, 1]"
        )
    ids = [f"{name}/{index:05d}" for index in range(count)]
    efforts = [_draw(curve, cough_share, seed) for curve in ids]
    fine = np.arange(0, 2.5, 0.002)
    grid = INTERVAL * np.arange(SAMPLES)
    zeros, targets, volumes = np.empty(count), np.empty(count), np.empty((count, SAMPLES), np.float32)
    for index, effort in enumerate(efforts):
        best = measure(fine, effort.clean(fine))
        # Coughs begin after the steepest part, so the recorded effort starts when the best one would have.
        zeros[index], targets[index] = best.time_zero, best.fev1
        volumes[index] = effort.disturbed(best.time_zero + grid)
    return Simulated(ids, volumes, targets.astype(np.float32), efforts, zeros)


def _draw(curve: str, cough_share: float, seed: int) -> Effort:
    """Draw one effort; every curve takes the same number of random numbers in the same order."""
    import torch

    width = len(RANGES) + 2 + 4 * (MOST_COUGHS - 1)
    random = seeds.generator(seed, curve, "spirometry")
    numbers = iter(torch.rand(width, generator=random, dtype=torch.float64).tolist())

    def within(name: str) -> float:
        low, high = RANGES[name]
        return low + (high - low) * next(numbers)

    capacity, share = within("capacity"), within("fast_share")
    constants = within("fast"), within("slow")
    rest = {key: within(key) for key in ("rise", "effort", "duration", "ripple", "frequency", "phase")}
    coughing, several = next(numbers) < cough_share, next(numbers)
    low, high = RANGES["first_cough"]
    start = low * (high / low) ** next(numbers)
    coughs = []
    for _ in range(1 + int(several * MOST_COUGHS) if coughing else 0):
        plateau, burst, gain = within("plateau"), within("burst"), within("gain")
        coughs.append((start, plateau, burst, gain))
        start += plateau + burst + within("gap")
    volumes = capacity * share, capacity * (1 - share)
    return Effort(volumes, constants, coughs=tuple(coughs), **rest)
