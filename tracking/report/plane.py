"""Profiles in the plane of two principal components: points, and arrows from before to after."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .marks import pages
from .style import GREY, colour, panels


def arrows(table: pd.DataFrame, *, panel: "pd.Series[str]") -> Iterator[Figure]:
    """Arrows from (x_base, y_base) to (x, y), each with its language at the tail, in the plane of two components."""
    table = table.assign(_panel=panel).dropna(subset=["x_base", "y_base", "x", "y"])
    for shown, note in pages(table["_panel"]):
        figure, axes = panels(shown, 2, 2.9 if len(shown) > 1 else 4.2, labelled=True)
        for axis, name in zip(axes, shown, strict=True):
            here = table[table["_panel"] == name]
            start, end = here[["x_base", "y_base"]].to_numpy(), here[["x", "y"]].to_numpy()
            axis.plot(start[:, 0], start[:, 1], "o", color=GREY, mfc="none", ms=3.5, mew=0.9)
            for code, tail, head in zip(here["language"], start, end, strict=True):
                look = {"arrowstyle": "-|>,head_width=0.25,head_length=0.5", "color": colour(0), "lw": 1.1}
                look |= {"shrinkA": 0, "shrinkB": 0}
                # Both lie within the panel's margins, so that the layout need not measure them
                axis.annotate("", tuple(head), tuple(tail), arrowprops=look, in_layout=False)
                away = (tail - head) / max(float(np.hypot(*(tail - head))), 1e-9)
                axis.annotate(
                    code,
                    tuple(tail),
                    tuple(8 * away),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=7,
                    zorder=4,
                    in_layout=False,
                )
            axis.update_datalim(end)  # arrows are annotations, which the limits do not know
            axis.margins(0.1)
            axis.autoscale_view()
            axis.grid()
            axis.set_xlabel(_component("first", here["explained_x"]))
            axis.set_ylabel(_component("second", here["explained_y"]))
        if note:
            figure.supxlabel(note.strip(), fontsize=8)
        yield figure


def _component(order: str, explained: "pd.Series[float]") -> str:
    return f"{order} component, {100 * explained.iloc[0]:.0f}% of variance"


def points(table: pd.DataFrame, text: str) -> Iterator[Figure]:
    """Points at (x, y), each with its name beside it, in the plane of two components."""
    figure, (axis,) = panels([""], 1, 4.2, labelled=True)
    axis.plot(table["x"], table["y"], "o", color=colour(0), ms=4)
    for name, x, y in zip(table[text], table["x"], table["y"], strict=True):
        axis.annotate(name, (x, y), (4, 3), textcoords="offset points", fontsize=7.5)
    axis.margins(0.1)
    axis.grid()
    axis.set_xlabel(_component("first", table["explained_x"]))
    axis.set_ylabel(_component("second", table["explained_y"]))
    yield figure
