"""What is measured on a volume-time curve, and the grid on which a network sees it.

Time zero is found by back-extrapolation, as the standards of the American Thoracic and European Respiratory
Societies say (Miller et al. 2005, European Respiratory Journal 26:319; Graham et al. 2019): the tangent at
the steepest part, the slope being averaged over 80 ms, is followed back to volume zero. FEV1 is the volume
one second later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curvelens.errors import DataError

if TYPE_CHECKING:
    import numpy as np

INTERVAL = 0.05
"""Seconds between two samples of a curve."""

SAMPLES = 300
"""Samples of a curve: 15 s."""

WINDOW = 0.08
"""Seconds over which the steepest slope is averaged."""


@dataclass(frozen=True)
class Indices:
    """What a curve measures.

    Attributes:
        time_zero: Back-extrapolated start of the effort, s, in the time of the curve.
        fev1: Volume at one second after time zero, L.
        fvc: Largest volume, L.
        peak_flow: Steepest slope over 80 ms, L/s.
        extrapolated_volume: Volume exhaled before time zero, L.
    """

    time_zero: float
    fev1: float
    fvc: float
    peak_flow: float
    extrapolated_volume: float


def measure(time: np.ndarray, volume: np.ndarray) -> Indices:
    """Measure one curve.

    Args:
        time: [n], s, increasing; at most 80 ms apart around the steepest part.
        volume: [n], L, 0 at the start.

    Returns:
        The indices.

    Raises:
        DataError: Nothing is exhaled, or the curve ends before one second after time zero.
    """
    import numpy as np

    middle = time[(time >= time[0] + WINDOW / 2) & (time <= time[-1] - WINDOW / 2)]
    if not len(middle):
        raise DataError(f"{len(time)} samples are no curve; give the whole exhalation")
    ahead, behind = (np.interp(middle + side * WINDOW / 2, time, volume) for side in (1, -1))
    slope = (ahead - behind) / WINDOW
    steepest = int(slope.argmax())
    peak = float(slope[steepest])
    if not peak > 0:
        raise DataError("no air is exhaled; give the volume exhaled, which grows, or the flow, positive")
    at = float(middle[steepest])
    time_zero = max(at - float(np.interp(at, time, volume)) / peak, float(time[0]))
    if time[-1] < time_zero + 1:
        raise DataError(
            f"it ends {time[-1] - time_zero:.2f} s after the effort begins, too short for FEV1; "
            "give the whole exhalation"
        )
    return Indices(
        time_zero=time_zero,
        fev1=float(np.interp(time_zero + 1, time, volume)),
        fvc=float(volume.max()),
        peak_flow=peak,
        extrapolated_volume=float(np.interp(time_zero, time, volume)),
    )


def on_grid(time: np.ndarray, volume: np.ndarray, time_zero: float) -> np.ndarray:
    """Return the volumes at ``time_zero + 0.05 k`` for k = 0..299, float32 [300], L.

    Between samples the curve is interpolated linearly; after its end the last volume is held.
    """
    import numpy as np

    return np.interp(time_zero + INTERVAL * np.arange(SAMPLES), time, volume).astype(np.float32)
