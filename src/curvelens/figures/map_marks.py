"""How explanation methods look in charts, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable

from curvelens.figures.maps import NAMES as _EXPLANATIONS
from curvelens.figures.style import BLUE, GREEN, INK, ORANGE, PURPLE, QUIET, SKY, VERMILLION, Mark
from curvelens.summaries.judging import RANDOM

NAMES = {**_EXPLANATIONS, RANDOM: "random map"}

# Colour: slopes blue, context-aware orange and red, class-activation green, of regions purple.
_MARKS = {
    "gradient": Mark(BLUE, "o", "-", True),
    "smoothgrad": Mark(BLUE, "s", "--", False),
    "vargrad": Mark(SKY, "D", ":", True),
    "smoothhess": Mark(SKY, "P", "-.", True),
    "integrated_gradients": Mark(INK, "^", "-", True),
    "cafo": Mark(ORANGE, "v", "--", False),
    "caso": Mark(VERMILLION, "v", "-", True),
    "smoothcafo": Mark(ORANGE, "d", ":", False),
    "smoothcaso": Mark(VERMILLION, "d", "-.", True),
    "cam": Mark(GREEN, "X", "-", True),
    "gradcam": Mark(GREEN, "p", "--", False),
    "gradcam_plus_plus": Mark(GREEN, "*", ":", True),
    "lime": Mark(PURPLE, "h", "--", False),
    "occlusion": Mark(PURPLE, "H", "-", True),
    RANDOM: Mark(QUIET, "x", ":", True),
}
_SPARE = [Mark(colour, "8", "-.", True) for colour in (INK, SKY, ORANGE, PURPLE)]


def order(methods: Iterable[str]) -> list[str]:
    """Return the method names present, the known ones first and always in the same order."""
    present = set(methods)
    return [name for name in _MARKS if name in present] + sorted(present - set(_MARKS))


def mark(method: str, methods: Iterable[str]) -> Mark:
    """Return how ``method`` is drawn among ``methods``; unknown names get spare marks in order."""
    if method in _MARKS:
        return _MARKS[method]
    unknown = [name for name in order(methods) if name not in _MARKS]
    return _SPARE[unknown.index(method) % len(_SPARE)]


def title(method: str) -> str:
    """Return a method's name for people."""
    return NAMES.get(method, method)
