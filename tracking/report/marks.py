"""Plots along one scale: dots with intervals, bars, and one value against another; how rows and panels are called."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import GREY, RULE, WIDTH, colour, marker, panels

MOST_PANELS = 6
"""A figure shows no more; the others are on further pages."""
MOST_PAGES = 3
"""A drawing has no more; what is not drawn is in the table, as the label of the last page says."""
LONG_LABEL = 16
"""Lines with longer names leave room for one or two panels in a row."""


def names(table: pd.DataFrame, columns: Sequence[str], *, always: Sequence[str] = ()) -> "pd.Series[str]":
    """What to call each row by those of `columns` that differ within the table, and by `always`."""

    told = [name for name in columns if name in always or table[name].replace("", np.nan).nunique() > 1]
    texts = []
    for name in told:
        codes, values = pd.factorize(table[name], use_na_sentinel=False)
        texts.append(np.array([_part(name, value) for value in values], dtype=object)[codes])
    joined = [", ".join(filter(None, row)) for row in zip(*texts, strict=True)] if texts else [""] * len(table)
    return pd.Series(joined, table.index, dtype="object")


def _part(name: str, value: Any) -> str:
    if pd.isna(value) or value == "":
        return ""
    if name == "placebo":
        return "placebo" if value else ""
    if name == "seed":
        return f"seed {int(value)}"
    if name in ("size", "size_first", "size_second"):
        thousands, rest = divmod(int(value), 1000)
        return f"{int(value):,}" if rest or not thousands else f"{thousands}K"
    return str(value)


def pages(keys: "pd.Series[str]") -> Iterator[tuple[list[str], str]]:
    """The panels of each page in order of appearance, and which of all they are, for its label."""
    found = list(dict.fromkeys(keys))
    drawn = found[: MOST_PAGES * MOST_PANELS]
    for start in range(0, len(drawn), MOST_PANELS):
        shown = drawn[start : start + MOST_PANELS]
        end = start + len(shown)
        rest = "; the others are in the table" if end == len(drawn) < len(found) else ""
        yield shown, f" (panels {start + 1} to {end} of {len(found)}{rest})" if len(found) > MOST_PANELS else ""


def dots(
    table: pd.DataFrame,
    value: str,
    rows: str,
    *,
    legend: "pd.Series[str]",
    panel: "pd.Series[str]",
    label: str,
    ends: tuple[str, str] | None = ("low", "high"),
    reference: float | None = None,
    chance: str | None = None,
) -> Iterator[Figure]:
    """Dots with intervals: one line a value of `rows`, in it one dot a row, coloured and marked by legend entry.

    Rows that agree in line and legend entry, such as seeds, are drawn close together. Placebo runs are a grey cloud.

    Args:
        table: rows with an estimate.
        value: the estimate's column.
        rows: the column whose values are the lines, from the top in order of appearance.
        legend: what each row is called in the legend.
        panel: the panel of each row.
        label: of the horizontal axis.
        ends: columns of the interval.
        reference: a value to mark by a line, such as no change.
        chance: a column whose value is marked by a tick beside each dot.
    """
    order = dict.fromkeys(table[rows])
    table = table.assign(_legend=legend, _panel=panel).dropna(subset=[value])
    valued = set(table[rows])
    lines = [line for line in order if line in valued]
    twins = table.groupby(["_panel", "_legend", rows], sort=False)[value]
    table = table.assign(
        _line=table[rows].map({line: place for place, line in enumerate(lines)}),
        _twin=twins.cumcount() - (twins.transform("size") - 1) / 2,
    )
    entries = list(dict.fromkeys(table["_legend"]))
    looks = _looks(entries)
    for shown, note in pages(table["_panel"]):
        present = {name: list(dict.fromkeys(table["_legend"][table["_panel"] == name])) for name in shown}
        most = max(map(len, present.values()))
        labels = [_wrapped(line) for line in lines]
        height = max(0.2, 0.34 if any("\n" in text for text in labels) else 0, 0.08 * most + 0.06)
        figure, axes = panels(shown, _in_row(len(shown), lines), 0.75 + len(lines) * height)
        for axis, name in zip(axes, shown, strict=True):
            stripes = np.add.outer(np.arange(1, len(lines), 2), (-0.5, 0.5, np.nan)).ravel()
            across = axis.get_yaxis_transform()
            axis.fill_betweenx(stripes, 0, 1, color=RULE, alpha=0.25, lw=0, transform=across)
            if reference is not None:
                axis.axvline(reference, color=GREY, lw=0.9, ls=(0, (4, 2)), zorder=1)
            step = 0.84 / len(present[name])
            for entry, group in table[table["_panel"] == name].groupby("_legend", sort=False):
                offset = (present[name].index(str(entry)) - (len(present[name]) - 1) / 2) * step
                apart = min(0.3 * step, 0.8 * step / (group["_twin"].max() * 2 + 1))
                at = group["_line"] + offset + group["_twin"] * apart
                look = looks[str(entry)]
                if ends and not (_is_placebo(str(entry)) and group["_twin"].any()):  # a cloud needs none
                    _intervals(axis, group[ends[0]], group[ends[1]], at, color=look["color"])
                if chance:
                    axis.plot(group[chance], at, "|", color=GREY, ms=7, mew=1.3, zorder=2)
                axis.plot(group[value], at, ls="", ms=3.4, mew=0.8, zorder=3, **look)
            axis.grid(axis="x")
        axes[0].set_yticks(range(len(lines)), labels)  # shared
        axes[0].set_ylim(len(lines) - 0.4, -0.6)
        axes[0].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        figure.supxlabel(label + note, fontsize=8)
        if len(entries) > 1 or chance:
            told = entries if len(entries) > 1 else []
            handles = [Line2D([], [], ls="", ms=4.5, label=entry, **looks[entry]) for entry in told]
            if chance:
                handles.append(Line2D([], [], color=GREY, marker="|", ls="", ms=7, label=chance.replace("_", " ")))
            figure.legend(handles=handles, loc="outside upper left", ncols=_columns(entries), handletextpad=0.2)
        yield figure


def _intervals(
    axis: Axes, low: "pd.Series[float]", high: "pd.Series[float]", at: "pd.Series[float]", color: str
) -> None:
    """Horizontal lines, as one line with gaps: hundreds of lines of their own take long to draw."""
    gap = np.full(len(at), np.nan)
    ends = np.column_stack([low, high, gap]).ravel()
    axis.plot(ends, np.repeat(at, 3), color=color, lw=1.1, alpha=0.7, solid_capstyle="butt")


def _in_row(count: int, lines: Sequence[object]) -> int:
    """Panels in a row."""
    if max(len(str(line)) for line in lines) > LONG_LABEL:
        return 1 if count < 3 else 2
    return count if count <= 4 else 3


def _looks(entries: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each legend entry."""
    looks: dict[str, dict[str, Any]] = {}
    for entry in entries:
        place = len(looks) - sum(map(_is_placebo, looks))
        grey = {"color": GREY, "marker": "o", "mfc": "none"}
        looks[entry] = grey if _is_placebo(entry) else {"color": colour(place), "marker": marker(place)}
    return looks


def _columns(entries: Sequence[str]) -> int:
    """Legend columns that fit the figure's width."""
    return max(1, min(len(entries) + 1, int(WIDTH * 14 / (max(map(len, entries)) + 6))))


def _is_placebo(entry: str) -> bool:
    return "placebo" in entry


def _wrapped(text: object, width: int = 26) -> str:
    return "\n".join(wrap(str(text), width)[:2]) or str(text)


def against(
    table: pd.DataFrame, x: str, y: str, *, legend: "pd.Series[str]", labels: tuple[str, str]
) -> Iterator[Figure]:
    """Two values of the same thing against each other, with the line on which they are equal."""
    table = table.assign(_legend=legend).dropna(subset=[x, y])
    if table.empty:
        return
    figure, (axis,) = panels([""], 1, 4.6, labelled=True)
    entries = list(dict.fromkeys(table["_legend"]))
    for entry, look in _looks(entries).items():
        here = table[table["_legend"] == entry]
        axis.vlines(here[x], here["low"], here["high"], color=look["color"], lw=0.9, alpha=0.6)
        axis.plot(here[x], here[y], ls="", ms=4, label=entry, **look)
    low, high = float(table[[x, y]].min().min()), float(table[[x, y]].max().max())
    room = max(0.15 * (high - low), 0.05)
    axis.axline((low, low), slope=1, color=GREY, lw=0.9, ls=(0, (4, 2)), zorder=1)
    axis.set(xlim=(low - room, high + room), ylim=(low - room, high + room), aspect="equal")
    axis.grid()
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    if len(entries) > 1:
        figure.legend(loc="outside upper left", ncols=_columns(entries), handletextpad=0.2)
    yield figure


def bars(
    table: pd.DataFrame, rows: str, parts: Sequence[tuple[str, str]], *, panel: "pd.Series[str]", label: str
) -> Iterator[Figure]:
    """Horizontal bars, each of the two `parts` (column, name) drawn over the one before, which contains it."""
    table = table.assign(_panel=panel).dropna(subset=[parts[0][0]])
    lines = list(dict.fromkeys(table[rows]))
    for shown, note in pages(table["_panel"]):
        figure, axes = panels(shown, 2, 0.75 + 0.2 * len(lines))
        for axis, name in zip(axes, shown, strict=True):
            here = table[table["_panel"] == name]
            at = here[rows].map(lines.index)
            for (column, entry), shade in zip(parts, (GREY, colour(0)), strict=True):
                if here[column].notna().any():
                    axis.barh(at, here[column].astype("float64").fillna(0), 0.7, color=shade, label=entry)
            axis.grid(axis="x")
        axes[0].set_yticks(range(len(lines)), lines)  # shared
        axes[0].set_ylim(len(lines) - 0.4, -0.6)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
        figure.supxlabel(label + note, fontsize=8)
        yield figure
