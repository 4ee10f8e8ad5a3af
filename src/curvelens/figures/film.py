"""A film of explanations along a path: image, explanations, and below the growing curves of prediction and
of change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from curvelens.errors import ArgumentError
from curvelens.figures import style
from curvelens.writing import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

QUANTILE = 0.99
NAMES = {"gradient": "gradient", "smoothgrad": "SmoothGrad", "vargrad": "VarGrad"}
MARKS = {
    "gradient": (style.GREEN, "^-."),
    "smoothgrad": (style.ORANGE, "D-"),
    "vargrad": (style.PURPLE, "v:"),
}
_SIGNED, _MAGNITUDE = "RdBu_r", "Purples"
_ABOVE: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, "columnspacing": 1.2}
_SIZE, _DPI = (9.6, 5.4), 100  # 960 × 540 pixels: even numbers, as H.264 wants them


class Content(NamedTuple):
    """What a film shows; T frames.

    Attributes:
        images: ``[T, C, H, W]`` in [0, 1], one or three channels.
        maps: Explanations ``[T, C, H, W]`` by name.
        t: Positions on the path ``[T]``, ascending.
        curves: Values in [0, 1], ``[T]`` by label: class probabilities.
        changes: Change of each explanation since the frame before, ``[T]`` by name, >= 0, NaN where there is
            none; may be empty.
        jumps: Which of the changes are marked, bool ``[T]`` by name.
        titles: A line above each frame, e.g. the prediction.
    """

    images: np.ndarray
    maps: Mapping[str, np.ndarray]
    t: np.ndarray
    curves: Mapping[str, np.ndarray]
    changes: Mapping[str, np.ndarray] = {}
    jumps: Mapping[str, np.ndarray] = {}
    titles: Sequence[str] | None = None

    def lengths(self) -> set[int]:
        """Return the numbers of frames that the parts have: one where they fit."""
        parts = (self.maps, self.curves, self.changes, self.jumps)
        series = [self.images, self.t, *(values for part in parts for values in part.values())]
        return {len(values) for values in series} | ({len(self.titles)} if self.titles is not None else set())


def picture(images: np.ndarray) -> np.ndarray:
    """Return images ``[..., C, H, W]`` as matplotlib shows them, ``[..., H, W, 3]`` or ``[..., H, W]``."""
    pixels = np.moveaxis(images, -3, -1).clip(0, 1)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def scale(values: np.ndarray) -> tuple[str, float, float]:
    """Return colour map and limits that all maps of a film share.

    Args:
        values: ``[T, H, W]``, channels summed.

    Returns:
        Name of the colour map; smallest and largest value: the 99 % quantile of the magnitudes over all
        frames, about zero for signed maps.
    """
    signed = bool((values < 0).any())
    cap = float(np.quantile(np.abs(values), QUANTILE)) or float(np.abs(values).max()) or 1.0
    return (_SIGNED if signed else _MAGNITUDE), (-cap if signed else 0.0), cap


def write_film(
    output: str | Path,
    content: Content,
    seconds: float = 5.0,
    poster: str | Path | None = None,
    poster_frame: int = 0,
) -> Path:
    """Render frames and write them as an MP4 (H.264) that browsers play.

    Every map keeps one colour scale over the whole film, see :func:`scale`.

    Args:
        output: File name ending in ``.mp4``; it appears when it is complete.
        content: What is shown.
        seconds: Length of the film; T/seconds must be at least 5 frames a second.
        poster: PNG that gets one of the frames, to be shown before the film plays.
        poster_frame: Which one.

    Returns:
        The file name.

    Raises:
        ArgumentError: Arrays of different length, too few frames, or a suffix other than ``.mp4``.
    """
    from matplotlib.image import imsave
    from moviepy import ImageSequenceClip

    output, count = Path(output), len(content.t)
    if len(lengths := content.lengths()) != 1:
        raise ArgumentError(
            f"{output}: arrays of {sorted(lengths)} frames; give every array one entry a frame"
        )
    if output.suffix != ".mp4":
        raise ArgumentError(f"{output}: the film is an MP4; give a name that ends in .mp4")
    if count < 5 * seconds:
        raise ArgumentError(
            f"{output}: {count} frames are too few for {seconds:g} s; give {5 * seconds:g} or more"
        )
    frames = list(render_frames(content))
    with atomic(output) as temporary:
        ImageSequenceClip(frames, fps=count / seconds).write_videofile(
            str(temporary),
            codec="libx264",
            audio=False,
            threads=1,
            logger=None,
            pixel_format="yuv420p",
            ffmpeg_params=["-movflags", "+faststart", "-bitexact", "-map_metadata", "-1"],
        )
    if poster is not None:
        with atomic(Path(poster)) as temporary:
            imsave(temporary, frames[poster_frame], format="png")
    return output


def render_frames(content: Content) -> Iterator[np.ndarray]:
    """Yield the film's frames, uint8 ``[540, 960, 3]``.

    Args:
        content: What is shown.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with mpl.rc_context(style.RC):
        figure, update = _stage(content)
        canvas = FigureCanvasAgg(figure)
        for frame in range(len(content.t)):
            update(frame)
            canvas.draw()
            figure.set_layout_engine("none")  # nothing moves after the first frame
            yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _stage(content: Content) -> tuple[Figure, Callable[[int], None]]:
    """Return the figure at its first frame, and a function that turns it into another frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.35, 1))[:, 0]
    grid = above.add_gridspec(2, 1 + len(content.maps), height_ratios=(1.25, 0.05))
    top = [above.add_subplot(grid[0, column]) for column in range(1 + len(content.maps))]
    for axes in top:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    pictures = picture(content.images)
    shown = [(pictures, top[0].imshow(pictures[0], cmap="gray", vmin=0, vmax=1))]
    top[0].set_title("image")
    title = above.suptitle("t", x=0.01, ha="left", fontsize=13)
    for column, (name, values) in enumerate(content.maps.items(), 1):
        summed = values.sum(1)
        cmap, low, high = scale(summed)
        drawn = top[column].imshow(summed[0], cmap=cmap, vmin=low, vmax=high)
        above.colorbar(drawn, cax=above.add_subplot(grid[1, column]), orientation="horizontal")
        top[column].set_title(NAMES.get(name, name))
        shown.append((summed, drawn))
    panels = below.subplots(1, 2 if content.changes else 1, squeeze=False)[0]
    lines = _curves(panels[0], content)
    if content.changes:
        lines += _changes(panels[1], content)

    def update(frame: int) -> None:
        for values, drawn in shown:
            drawn.set_data(values[frame])
        titles = content.titles
        title.set_text(style.literal(titles[frame]) if titles else f"t = {content.t[frame]:.2f}")
        for line, values in lines:
            line.set_data(content.t[: frame + 1], values[: frame + 1])

    update(0)
    return figure, update


def _curves(axes: Axes, content: Content) -> list[tuple[Line2D, np.ndarray]]:
    """Return empty lines with their values, one for each curve, in axes that hold all of them."""
    styles = cycle([(style.BLUE, "o-"), (style.VERMILLION, "s--"), (style.QUIET, "x:")])
    lines = [
        (axes.plot([], [], marks, color=colour, label=style.literal(label), markersize=4)[0], values)
        for (label, values), (colour, marks) in zip(content.curves.items(), styles, strict=False)
    ]
    _frame(axes, content.t, 1.03)
    axes.set(ylabel="SoftMax probability")
    axes.legend(**_ABOVE)
    return lines


def _changes(axes: Axes, content: Content) -> list[tuple[Line2D, np.ndarray]]:
    """Return empty lines with their values: the change of every explanation, and its jumps as rings."""
    lines, marked = [], []
    for name, values in content.changes.items():
        colour, marks = MARKS.get(name, (style.INK, "o-"))
        label = NAMES.get(name, name)
        lines.append((axes.plot([], [], marks, color=colour, label=label, markersize=3.5)[0], values))
        at_jumps = np.where(content.jumps.get(name, False), values, np.nan)
        ring: Any = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "linestyle": "none"}
        marked.append((axes.plot([], [], color=style.INK, **ring)[0], at_jumps))
    largest = max(float(np.nanmax(values, initial=0)) for values in content.changes.values())
    _frame(axes, content.t, 1.1 * (largest or 1.0))
    axes.set(ylabel="change since last frame\n(share of the map's norm)")
    if any(np.any(values) for values in content.jumps.values()):
        marked[0][0].set_label("jump")
    axes.legend(**_ABOVE)
    return lines + marked


def _frame(axes: Axes, t: np.ndarray, top: float) -> None:
    margin = 0.02 * float(t[-1] - t[0])
    axes.set(xlim=(t[0] - margin, t[-1] + margin), ylim=(-0.03 * top, top))
    axes.set(xlabel="position t on the straight path")
