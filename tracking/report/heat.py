"""Heat maps with the values printed in their cells."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
            here = table[table["_panel"] == name]
            cells, marks = (
                here.pivot(index=rows, columns=columns, values=column).reindex(index=lines, columns=across)
                for column in (value, "_mark")
            )
            values = np.ma.masked_invalid(cells.to_numpy(dtype=np.float64))
            mesh = axis.pcolormesh(values, cmap=colours, vmin=limits[0], vmax=limits[1], edgecolors="none")
            axis.set_xticks(np.arange(len(across)) + 0.5, across, fontsize=6.5 if in_row == 2 else 7.5)
            axis.set_yticks(np.arange(len(lines)) + 0.5, lines)
            axis.set_ylim(len(lines), 0)
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
            if len(across) <= MOST_PRINTED:
                _print_cells(axis, values, marks.eq(True).to_numpy(), mesh, 5.5 if in_row == 2 else 6.5, digits)
        bar = figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.4, aspect=30, pad=0.02)
        bar.set_label(label + note)
        bar.outline.set_visible(False)  # type: ignore[operator]
        yield figure


def _print_cells(
    axis: Axes, values: "np.ma.MaskedArray[Any, Any]", marks: Any, mesh: Any, size: float, digits: int
) -> None:
    for (line, place), number in np.ndenumerate(values):
        if values[line, place] is np.ma.masked:
            continue
        red, green, blue, _ = mesh.cmap(mesh.norm(number))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        text = f"{round(float(number), digits) + 0.0:.{digits}f}".replace("0.", ".", 1).replace("-", "−")
        text += "*" if marks[line, place] else ""
        shade = "#FFFFFF" if dark else "#000000"
        # the layout need not measure what lies inside the panel
        axis.text(place + 0.5, line + 0.5, text, ha="center", va="center", fontsize=size, color=shade, in_layout=False)
