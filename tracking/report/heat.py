"""Heat maps with the values printed in their cells."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from .marks import pages
from .style import panels

MOST_PRINTED = 20
"""Wider heat maps have no figures in their cells."""


def heat(
    table: pd.DataFrame,
    value: str,
    rows: str,
    columns: str,
    *,
    panel: "pd.Series[str]",
    label: str,
    limits: tuple[float, float],
    colours: str,
    mark: "pd.Series[bool] | None" = None,
) -> Iterator[Figure]:
    """Heat maps with the values printed in their cells, one panel below the other or two in a row where they are narrow.

    Args:
        table: rows with an estimate, one a cell of a panel.
        value: the estimate's column.
        rows: column of the lines.
        columns: column of the columns.
        panel: the panel of each row.
        label: of the colour bar.
        limits: values at the ends of the colour map.
        colours: name of a colour map.
        mark: cells to print with an asterisk.
    """
    table = table.assign(_panel=panel, _mark=False if mark is None else mark)
    if table[value].isna().all():
        return
    lines, across = (list(dict.fromkeys(table[name])) for name in (rows, columns))
    if set(lines) == set(across):
        across = lines
    digits = 2 if table[value].abs().max() >= 0.1 else 3
    for shown, note in pages(table["_panel"]):
        in_row = 1 if len(shown) == 1 or len(across) > 16 else 2
        figure, axes = panels(shown, in_row, 0.5 + (0.26 if in_row == 1 else 0.21) * len(lines))
        mesh: Any = None
        for axis, name in zip(axes, shown, strict=True):
            axis.tick_params(length=0, bottom=False)
            axis.tick_params("x", labelsize=6.5 if in_row == 2 else 7.5)
            here = table[table["_panel"] == name]
            cells, marks = (
                here.pivot(index=rows, columns=columns, values=column).reindex(index=lines, columns=across)
                for column in (value, "_mark")
            )
            values = np.ma.masked_invalid(cells.to_numpy(dtype=np.float64))
            mesh = axis.pcolormesh(values, cmap=colours, vmin=limits[0], vmax=limits[1], edgecolors="none")
            axis.spines[:].set_visible(False)
            if len(across) <= MOST_PRINTED:
                texts = _texts(values, marks.eq(True).to_numpy(), digits)
                axis.add_artist(_Printed(mesh, values, texts, 5.5 if in_row == 2 else 6.5))
        axes[0].set_xticks(np.arange(len(across)) + 0.5, across)  # shared
        axes[0].set_yticks(np.arange(len(lines)) + 0.5, lines)
        axes[0].set_ylim(len(lines), 0)
        bar = figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.4, aspect=30, pad=0.02)
        bar.set_label(label + note)
        bar.outline.set_visible(False)  # type: ignore[operator]
        yield figure


def _texts(values: "np.ma.MaskedArray[Any, Any]", marks: Any, digits: int) -> list[str]:
    """What is printed in the cells that have a value."""
    written = [f"{round(value, digits) + 0.0:.{digits}f}" for value in values.compressed().tolist()]
    short = [text.replace("0.", ".", 1).replace("-", "−") for text in written]
    return [text + "*" * bool(mark) for text, mark in zip(short, marks[~np.ma.getmaskarray(values)], strict=True)]


class _Printed(Artist):
    """Texts in the middle of the cells of a mesh, white on dark ones.

    One text is drawn in all of them: a text of its own for each takes three times as long.
    """

    zorder = 3

    def __init__(self, mesh: Any, values: "np.ma.MaskedArray[Any, Any]", texts: Sequence[str], size: float) -> None:
        super().__init__()
        self.set_in_layout(False)  # what lies inside the panel need not be measured
        self._text = Text(ha="center", fontsize=size, transform=mesh.axes.transData)
        self._at = np.argwhere(~np.ma.getmaskarray(values))[:, ::-1] + 0.5  # across, down
        dark = mesh.to_rgba(values.compressed())[:, :3] @ (0.299, 0.587, 0.114) < 0.55
        self._drawn = list(zip(texts, np.where(dark, "#FFFFFF", "#000000"), strict=True))

    def draw(self, renderer: RendererBase) -> None:
        font = self._text.get_fontproperties()
        measured = cache(lambda text: renderer.get_text_width_height_descent(text, font, False))
        _, top = renderer.get_canvas_width_height()
        _, height, _ = measured("0")
        gc = renderer.new_gc()
        points = self._text.get_transform().transform(self._at)
        for place, (x, y), (text, colour) in zip(self._at, points, self._drawn, strict=True):
            self._text.set_position(place)  # where an SVG file anchors its middle
            gc.set_foreground(colour)
            left, base = x - measured(text)[0] / 2, y - height / 2
            renderer.draw_text(gc, left, top - base if renderer.flipy() else base, text, font, 0.0, mtext=self._text)
        gc.restore()
