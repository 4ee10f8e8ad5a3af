"""A film of explanations along a path: image, explanations, and the prediction curve growing below."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curvelens.errors import ArgumentError
from curvelens.figures import style
from curvelens.store import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

QUANTILE = 0.99
NAMES = {"gradient": "gradient", "smoothgrad": "SmoothGrad", "vargrad": "VarGrad"}
_SIGNED, _MAGNITUDE = "RdBu_r", "Purples"
_SIZE, _DPI = (9.6, 5.4), 100  # 960 × 540 pixels: even numbers, as H.264 wants them


def write_film(
    output: str | Path,
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    t: np.ndarray,
    curves: Mapping[str, np.ndarray],
    titles: Sequence[str] | None = None,
    seconds: float = 5.0,
    strip: str | Path | None = None,
) -> Path:
    """Render frames and write them as an MP4 (H.264) that browsers play.

    Every map keeps one colour scale over the whole film: the 99 % quantile of its magnitudes over all frames,
    channels summed; signed maps diverge from white, others rise from white to purple.

    Args:
        output: File name ending in ``.mp4``; it appears when it is complete.
        images: ``[T, C, H, W]`` in [0, 1], one or three channels.
        maps: Explanations ``[T, C, H, W]`` by name.
        t: Positions on the path ``[T]``, ascending.
        curves: Values in [0, 1], ``[T]`` by label: class probabilities.
        titles: A line above each frame's image, e.g. the prediction.
        seconds: Length of the film; T/seconds must be at least 5 frames a second.
        strip: PNG that gets a few of the frames, see :func:`write_strip`.

    Returns:
        The file name.

    Raises:
        ArgumentError: Arrays of different length, too few frames, or a suffix other than ``.mp4``.
    """
    from moviepy import ImageSequenceClip

    output = Path(output)
    lengths = {len(array) for array in (images, t, *maps.values(), *curves.values(), *filter(None, [titles]))}
    if len(lengths) != 1:
        raise ArgumentError(
            f"{output}: arrays of {sorted(lengths)} frames; give every array one entry a frame"
        )
    if output.suffix != ".mp4":
        raise ArgumentError(f"{output}: the film is an MP4; give a name that ends in .mp4")
    if len(t) < 5 * seconds:
        raise ArgumentError(
            f"{output}: {len(t)} frames are too few for {seconds:g} s; give {5 * seconds:g} or more"
        )
    frames = list(render_frames(images, maps, t, curves, titles))
    with atomic(output) as temporary:
        ImageSequenceClip(frames, fps=len(t) / seconds).write_videofile(
            str(temporary),
            codec="libx264",
            audio=False,
            threads=1,
            logger=None,
            pixel_format="yuv420p",
            ffmpeg_params=["-movflags", "+faststart", "-bitexact", "-map_metadata", "-1"],
        )
    if strip is not None:
        write_strip(strip, frames)
    return output


def render_frames(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    t: np.ndarray,
    curves: Mapping[str, np.ndarray],
    titles: Sequence[str] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the film's frames, uint8 ``[540, 960, 3]``; the arguments are those of :func:`write_film`."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with mpl.rc_context(style.RC):
        figure, update = _stage(images, maps, t, curves, titles)
        canvas = FigureCanvasAgg(figure)
        for frame in range(len(t)):
            update(frame)
            canvas.draw()
            figure.set_layout_engine("none")  # nothing moves after the first frame
            yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _stage(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    t: np.ndarray,
    curves: Mapping[str, np.ndarray],
    titles: Sequence[str] | None,
) -> tuple[Figure, Callable[[int], None]]:
    """Return the figure at its first frame, and a function that turns it into another frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(3, 1 + len(maps), height_ratios=(1.25, 0.05, 0.9))
    top = [figure.add_subplot(grid[0, column]) for column in range(1 + len(maps))]
    for axes in top:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    pictures = np.moveaxis(images, 1, -1).clip(0, 1)
    pictures = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
    shown = [(pictures, top[0].imshow(pictures[0], cmap="gray", vmin=0, vmax=1))]
    for column, (name, values) in enumerate(maps.items(), 1):
        summed = values.sum(1)
        signed = bool((summed < 0).any())
        cap = float(np.quantile(np.abs(summed), QUANTILE)) or float(np.abs(summed).max()) or 1.0
        cmap = _SIGNED if signed else _MAGNITUDE
        picture = top[column].imshow(summed[0], cmap=cmap, vmin=-cap if signed else 0, vmax=cap)
        figure.colorbar(picture, cax=figure.add_subplot(grid[1, column]), orientation="horizontal")
        top[column].set_title(NAMES.get(name, name))
        shown.append((summed, picture))
    lines = _curves(figure.add_subplot(grid[2, :]), t, curves)

    def update(frame: int) -> None:
        for values, picture in shown:
            picture.set_data(values[frame])
        top[0].set_title(style.literal(titles[frame]) if titles else f"t = {t[frame]:.2f}")
        for line, values in zip(lines, curves.values(), strict=True):
            line.set_data(t[: frame + 1], values[: frame + 1])

    update(0)
    return figure, update


def _curves(axes: Axes, t: np.ndarray, curves: Mapping[str, np.ndarray]) -> list[Line2D]:
    """Return one empty line for each curve, in axes that hold all of them."""
    styles = cycle(
        [(style.BLUE, "o-"), (style.VERMILLION, "s--"), (style.GREEN, "^-."), (style.PURPLE, "v:")]
    )
    lines = [
        axes.plot([], [], marks, color=colour, label=style.literal(label), markersize=4)[0]
        for label, (colour, marks) in zip(curves, styles, strict=False)
    ]
    margin = 0.02 * float(t[-1] - t[0])
    axes.set(xlim=(t[0] - margin, t[-1] + margin), ylim=(-0.03, 1.03))
    axes.set(xlabel="position t on the straight path", ylabel="SoftMax probability")
    axes.legend(loc="center left")
    return lines


def write_strip(output: str | Path, frames: Sequence[np.ndarray], count: int = 3) -> Path:
    """Write evenly spaced frames of a film below each other, for readers who cannot play it.

    Args:
        output: File name ending in ``.png``.
        frames: uint8 ``[H, W, 3]`` each, from :func:`render_frames`.
        count: Number of frames shown, at least 1; never more than the film has.

    Returns:
        The file name.
    """
    from matplotlib.image import imsave

    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    path = Path(output)
    with atomic(path) as temporary:
        imsave(temporary, np.concatenate([frames[index] for index in chosen]), format="png")
    return path
