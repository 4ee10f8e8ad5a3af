"""Numbers and counts as words, in plain Unicode, the same in captions, alternative texts and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MISSING = "–"


def number(value: float, digits: int = 2) -> str:
    """Return ``value`` with ``digits`` significant digits, in powers of ten outside [10⁻³, 10⁴).

    Args:
        value: Any float; NaN and None read as a dash.
        digits: Significant digits, at least 1.

    Returns:
        For example ``0.25``, ``1,800``, ``3.2×10⁻⁵``, ``−0.01`` (with a true minus sign).
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -3 <= power < 4:
        text = f"{float(f'{mantissa}e{power}'):,.{max(digits - 1 - power, 0)}f}"
    else:
        text = f"{mantissa}×10{str(power).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


def plain(value: float) -> str:
    """Return a number that a person chose, such as a radius, as it was written: ``0.25``, ``1``."""
    return f"{value:g}".replace("-", "−")


def percent(share: float, digits: int = 0) -> str:
    """Return a share in [0, 1] as a percentage with ``digits`` decimals; NaN reads as a dash."""
    if share is None or math.isnan(share):
        return MISSING
    return f"{100 * share:.{digits}f}%"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 image``, ``12 images``, ``1,200 images``."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def listing(items: Iterable[object]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    words = [str(item) for item in items]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1] if words else ""]))


def duration(seconds: float) -> str:
    """Return ``0.4 s``, ``12 s``, ``2 min 13 s`` or ``3 h 05 min``; NaN reads as a dash."""
    if math.isnan(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def sentences(*parts: str) -> str:
    """Join the non-empty parts with spaces."""
    return " ".join(part for part in parts if part)


def shortened(name: str, room: int) -> str:
    """Return a name in at most ``room`` letters, its middle left out where it is longer."""
    return name if len(name) <= room else f"{name[: room // 2]}…{name[len(name) - (room - 1) // 2 :]}"


def spread(values: Sequence[float]) -> str:
    """Return ``0.4 to 1.2``, or the single number where both ends read the same."""
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"
