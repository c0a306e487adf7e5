"""How `valueshift compare` prints a comparison: what was kept, what moved, and the answers that flipped."""

from typing import Any

from .show import figure, interval, print_table, say


def print_comparison(base: str, tuned: str, tables: dict[str, Any], notes: tuple[str, ...]) -> None:
    """The tables of a comparison record, as far as they are there."""
    _print_kept(f"Unchanged answers: {base} -> {tuned}", tables["kept"])
    if "ceiling" in tables:
        _print_ceiling(tables["ceiling"])
    if "alignment_change" in tables:
        _print_alignment_change(tables["alignment_change"])
    _print_profiles(tables)
    if "direction" in tables:
        _print_direction(tables["direction"])
    _print_flips(tables["flipped"])
    for note in notes:
        say(f"- {note}")


def _print_kept(title: str, kept: Any) -> None:
    print_table(
        title,
        ["language", "unchanged", "95% interval", "n", "ties", "dropped"],
        [
            [
                str(row.language),
                str(row.reason) or f"{100 * row.unchanged:.1f} %",
                "" if row.reason else interval(100 * row.low, 100 * row.high, ".1f", "", " - "),
                *map(str, (row.n, row.ties, row.dropped)),
            ]
            for row in kept.itertuples()
        ],
    )


def _print_ceiling(ceiling: Any) -> None:
    print_table(
        "Two wordings of the same questions: correlation of the profiles, and the alignment one can reach at most",
        ["language", "correlation", "95% interval", "ceiling", "n"],
        [
            [
                str(row.language),
                str(row.reason) or f"{row.reliability:+.2f}",
                "" if row.reason else interval(row.low, row.high),
                "" if row.reason else figure(row.ceiling, ".2f"),
                str(row.n),
            ]
            for row in ceiling.itertuples()
        ],
    )


def _print_alignment_change(changes: Any) -> None:
    own = [row for row in changes.itertuples() if row.own]
    print_table(
        f"Alignment with the people of each language, Spearman (record: {len(changes)} pairs, p adjusted over them)",
        ["language", "country", "base", "tuned", "change", "95% interval", "adjusted p", "n"],
        [
            [
                str(row.language),
                str(row.country),
                *(
                    ["", "", str(row.reason), "", ""]
                    if row.reason
                    else [
                        f"{row.base:+.2f}",
                        f"{row.tuned:+.2f}",
                        f"{row.change:+.2f}",
                        interval(row.low, row.high),
                        figure(row.adjusted, ".3f"),
                    ]
                ),
                str(row.n),
            ]
            for row in own
        ],
    )


def _print_profiles(tables: dict[str, Any]) -> None:
    """What is said of all languages together, one row a figure."""
    rows = []
    for row in _rows(tables, "similarity"):
        rows.append(["similarity structures alike, Spearman", *_estimate(row, row.spearman, row.low, row.high, row.p)])
    for row in _rows(tables, "mean_dissimilarity"):
        name = "mean dissimilarity of languages"
        rows.append([f"{name}, {row.model}", *_estimate(row, row.dissimilarity, row.low, row.high)])
        if row.model != "base":
            rows.append([f"{name}, change", *_estimate(row, row.change, row.change_low, row.change_high)])
    for row in _rows(tables, "parallelism"):
        rows.append(["languages change in one direction, cosine", *_estimate(row, row.cosine, row.low, row.high)])
    if rows:
        print_table("Profiles of all languages together", ["", "value", "95% interval", "p", "n"], rows)


def _rows(tables: dict[str, Any], name: str) -> Any:
    return tables[name].itertuples() if name in tables else ()


def _estimate(row: Any, value: float, low: float, high: float, p: float | None = None) -> list[str]:
    if row.reason:
        return [str(row.reason), "", "", str(row.n)]
    return [f"{value:+.3f}", interval(low, high, "+.3f"), "" if p is None else figure(p, ".3f"), str(row.n)]


def _print_direction(direction: Any) -> None:
    shown = 100 * (direction["explained_x"].iloc[0] + direction["explained_y"].iloc[0])
    points = {(row.model, row.language): f"{row.x:+.2f}, {row.y:+.2f}" for row in direction.itertuples()}
    print_table(
        f"Two principal components: {shown:.0f} % of variance",
        ["language", "base", "tuned"],
        [
            [code, points["base", code], points["tuned", code]]
            for code in direction.loc[direction["model"] == "base", "language"]
        ],
    )


def _print_flips(flips: Any) -> None:
    """The largest flips as lines, not as a table: statements are long, and a script from right to left keeps its line."""
    largest = flips.assign(by=(flips["p_first_tuned"] - flips["p_first_base"]).abs()).nlargest(10, "by")
    for side in ("base", "tuned"):
        largest[side] = largest[f"statement_{side}"].fillna(largest[f"answer_{side}"])
    say(f"Answers that flipped: {len(flips)}" + (", the largest ten" if len(flips) > len(largest) else ""))
    for row in largest.itertuples():
        say(f"{row.question} {row.language}: p_first {row.p_first_base:.2f} -> {row.p_first_tuned:.2f}")
        say(f"    base   {row.base}")
        say(f"    tuned  {row.tuned}")
