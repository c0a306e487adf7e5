"""How figures look: colours that colour-blind readers tell apart, markers beside colours, equal files for equal data."""

import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6000")
"""Okabe and Ito (2008), but for the yellow, which is too faint for dots, a brown; black is text."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#8A8A8E"
"""Placebo runs and references."""

INK = "#1B1B1D"
RULE = "#D9D9DC"
"""Text and grid lines. In their place, and in that of the first colour, the page puts its own for dark or light mode."""

WIDTH = 7.0
"""Inches."""
PNG_DPI = 200
PNG_LEVEL = 3
"""Of compression: files a little larger than at the usual 6, in less time."""

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same widths on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # the usual place; else every draw looks for ticks above the panel, of which there are none
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2,
    "ytick.major.size": 0,
    "ytick.left": False,
    "lines.linewidth": 1.0,
    "text.parse_math": False,  # a dollar sign in a model's name is a dollar sign
    "svg.fonttype": "none",  # text stays text: small, searchable, read by screen readers
    "svg.hashsalt": "valueshift",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def styled() -> Iterator[None]:
    """Within: figures are made and saved in our style, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def colour(place: int) -> str:
    """Colour of the series at `place`; beyond the palette markers alone differ."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """Marker of the series at `place`."""
    return MARKERS[place % len(MARKERS)]


def panels(titles: Sequence[str], columns: int, height: float, *, labelled: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of titled panels of equal axes, `columns` in a row, each `height` inches high.

    `labelled` says that the axes of each have labels, which are then kept clear of what is written at the ticks.
    """
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    # The layout measures texts at these dots per inch: at fewer, rounding cuts some off
    figure = Figure(figsize=(WIDTH, rows * height), dpi=PNG_DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    axes = [axis for row in grid for axis in row]
    for axis in axes[len(titles) :]:
        axis.remove()
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title("\n".join(wrap(title, round(13 * WIDTH / columns))))
        axis.tick_params(labelbottom=True)
        if not labelled:  # a place is looked for, whether there is a label or not, unless it is given
            axis.xaxis.set_label_coords(0, 0)
            axis.yaxis.set_label_coords(0, 0)
    return figure, axes[: len(titles)]


def save(figure: Figure, folder: Path, name: str, formats: Collection[str] = ("svg", "png")) -> str:
    """Write `<name>.svg` and, where it is among the `formats`, `<name>.png`; the SVG's text is returned."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine(None)  # with one, each `savefig` draws twice: once only to find what is found here
    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    text = stream.getvalue()
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    if "png" in formats:
        level = {"compress_level": PNG_LEVEL}
        figure.savefig(folder / f"{name}.png", metadata={"Software": None}, pil_kwargs=level)
    return text
