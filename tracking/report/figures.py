"""The figure of each exhibit that deserves one, by the exhibit's name; columns are those listed in `exhibits`."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...core.languages import LANGUAGES
from .exhibit import Exhibit
from .heat import heat
from .marks import against, bars, dots, names
from .plane import arrows, points

GROUP = ("model", "source", "size", "training")
_WHICH = (*GROUP, "seed")
LEVEL = 0.05


def _arms(table: pd.DataFrame) -> dict[str, Any]:
    """Legend and panel of runs: seeds share an entry of the legend."""
    return {"legend": names(table, ("tuning", "placebo"), always=("tuning",)), "panel": names(table, GROUP)}


def _groups(table: pd.DataFrame) -> dict[str, Any]:
    """One panel; models, sources, sizes and trainings are told apart by the legend."""
    return {"legend": names(table, (*GROUP, "placebo")), "panel": names(table, ())}


def _staged(table: pd.DataFrame) -> "pd.Series[str]":
    """Pretrained models by name, fine-tuned ones by what they were tuned on and how."""
    tuned = table["stage"] == "fine-tuned"
    pretrained = "pretrained " + names(table[~tuned], ("model",), always=("model",))
    return pd.concat([pretrained, names(table[tuned], ("tuning", *_WHICH, "placebo"), always=("tuning",))]).loc[
        table.index
    ]


def _first_seeds_first(table: pd.DataFrame) -> pd.DataFrame:
    """Pretrained models before runs, placebos last: what is on the first page."""
    return table.sort_values(["placebo", "seed"], kind="stable", na_position="first", ignore_index=True)


def _both_ways(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of pairs, and again with first and second exchanged."""
    return pd.concat([table, table.rename(columns={"first": "second", "second": "first"})], ignore_index=True)


def _agreement(table: pd.DataFrame) -> Iterator[Figure]:
    pair = table["first"] + " and " + table["second"]
    panel = names(table, ("stage", "tuning", "source", "size", "training", "seed"), always=("stage",))
    return dots(table, "agreement", "language", legend=pair, panel=panel, label="same answers")


def _survey_similarity(table: pd.DataFrame) -> Iterator[Figure]:
    both = _both_ways(table)
    return heat(
        both,
        "cosine",
        "first",
        "second",
        panel=names(both, ()),
        label="cosine",
        limits=(float(table["cosine"].min()), 1.0),
        colours="Blues",
    )


def _survey_plane(table: pd.DataFrame) -> Iterator[Figure]:
    return points(table, "country")


def _unchanged(table: pd.DataFrame) -> Iterator[Figure]:
    return dots(table, "unchanged", "language", **_arms(table), label="unchanged answers")


def _spread(table: pd.DataFrame) -> Iterator[Figure]:
    over = "spread over " + table["over"]
    panel = over + names(table, GROUP).map(lambda name: f": {name}" if name else "")
    entry = names(table, ("tuning", "seed"))
    entry = entry.where(entry != "", "mean")
    table = table.assign(low=table["mean"] - table["deviation"], high=table["mean"] + table["deviation"])
    return dots(table, "mean", "language", legend=entry, panel=panel, label="unchanged, mean ± standard deviation")


def _unchanged_category(table: pd.DataFrame) -> Iterator[Figure]:
    return dots(table, "unchanged", "category_name", **_arms(table), label="unchanged answers")


def _category_consistency(table: pd.DataFrame) -> Iterator[Figure]:
    entry = "averaged " + table["averaging"] + " correlating"
    panel = table["first"] + " and " + table["second"]
    panel += names(table, ("model", "size", "training")).map(lambda name: f", {name}" if name else "")
    return dots(
        table,
        "pearson",
        "category_name",
        legend=entry,
        panel=panel,
        label="Pearson correlation over test languages",
        reference=0,
    )


def _unique_shifts(table: pd.DataFrame) -> Iterator[Figure]:
    table = table.assign(placebo=False)
    return dots(table, "unique", "language", **_groups(table), label="shifts under one fine-tuning language only")


def _sizes(table: pd.DataFrame) -> Iterator[Figure]:
    return dots(
        table,
        "difference",
        "language",
        legend=names(table, ("tuning",), always=("tuning",)),
        panel=_size_pair(table),
        label="difference of unchanged shares, second minus first",
        reference=0,
    )


def _size_pair(table: pd.DataFrame) -> "pd.Series[str]":
    pair = names(table, ("size_first",), always=("size_first",)) + " → "
    pair += names(table, ("size_second",), always=("size_second",))
    return pair + names(table, ("model", "source", "training")).map(lambda name: f", {name}" if name else "")


def _direction(table: pd.DataFrame) -> Iterator[Figure]:
    return arrows(table, panel=names(table, ("tuning", *_WHICH), always=("tuning",)))


def _parallelism(table: pd.DataFrame) -> Iterator[Figure]:
    label = "mean cosine between the changes of two languages"
    return dots(table, "cosine", "tuning", **_groups(table), label=label, reference=0)


def _alignment(table: pd.DataFrame) -> Iterator[Figure]:
    table = _first_seeds_first(table)
    return heat(
        table,
        "spearman",
        "language",
        "country",
        panel=_staged(table),
        label="Spearman ρ",
        limits=_symmetric(table["spearman"]),
        colours="RdBu",
        mark=table["adjusted"] <= LEVEL,
    )


def _symmetric(values: "pd.Series[float]") -> tuple[float, float]:
    """Limits around 0, so that white is no correlation."""
    largest = float(np.nanmax(values.abs())) if values.notna().any() else 1.0
    return -largest, largest


def _alignment_change(table: pd.DataFrame) -> Iterator[Figure]:
    """Every test language with its own country: the diagonal of Table 3."""
    own = {code: language.country for code, language in LANGUAGES.items()}
    table = table[table["country"] == table["language"].map(own)]
    table = table.assign(pair=table["language"] + " - " + table["country"])
    return dots(
        table,
        "change",
        "pair",
        **_arms(table),
        label="change in alignment with the language's own country",
        reference=0,
    )


def _alignment_change_mean(table: pd.DataFrame) -> Iterator[Figure]:
    table = _first_seeds_first(table)
    averaged = table["tuning"] == "mean"
    table = table[averaged] if averaged.any() else table
    return heat(
        table,
        "change",
        "language",
        "country",
        panel=names(table, ("tuning", *_WHICH, "placebo"), always=("tuning",)),
        label="change in ρ",
        limits=_symmetric(table["change"]),
        colours="RdBu",
        mark=table["adjusted"] <= LEVEL,
    )


def _dissimilarity(table: pd.DataFrame) -> Iterator[Figure]:
    table = _first_seeds_first(table)
    both = _both_ways(table)
    limits = (0.0, float(table["dissimilarity"].max()))
    return heat(
        both,
        "dissimilarity",
        "first",
        "second",
        panel=_staged(both),
        label="1 − cosine",
        limits=limits,
        colours="Blues",
    )


def _structure(table: pd.DataFrame) -> Iterator[Figure]:
    table = table.assign(which=table["tuning"].where(table["stage"] == "fine-tuned", "pretrained"))
    arms: dict[str, Any] = {
        "legend": names(table, (*GROUP, "placebo")),
        "panel": "likeness with " + table["other"].replace({"pretrained": "the pretrained", "survey": "the survey"}),
    }
    return dots(table, "spearman", "which", **arms, label="Spearman ρ of the dissimilarities", reference=0)


def _mean_dissimilarity(table: pd.DataFrame) -> Iterator[Figure]:
    return dots(
        table.assign(which=names(table, ("kind", "size"), always=("kind", "size"))),
        "dissimilarity",
        "which",
        legend=names(table, ("model", "source", "training")),
        panel=names(table, ()),
        label="mean 1 − cosine between languages",
    )


def _language_share(table: pd.DataFrame) -> Iterator[Figure]:
    panel = table["side"] + " examples"
    panel += names(table, ("tuning", *_WHICH)).map(lambda name: f", {name}" if name else "")
    return dots(
        table,
        "share",
        "language",
        legend=table["train_language"],
        panel=panel,
        label="share of examples",
        chance="base_rate",
    )


def _parallel_overlap(table: pd.DataFrame) -> Iterator[Figure]:
    table = table.assign(pair=(table["first"] + " - " + table["second"]).replace("all - all", "all"))
    return dots(table, "overlap", "pair", **_groups(table), label="overlap of the top examples", chance="chance")


def _cross_test_overlap(table: pd.DataFrame) -> Iterator[Figure]:
    table = _both_ways(table[table["first"] != "all"])
    chance = " to ".join(dict.fromkeys(f"{end:.3f}" for end in (table["chance"].min(), table["chance"].max())))
    return heat(
        table,
        "overlap",
        "first",
        "second",
        panel=names(table, ("tuning", *_WHICH, "placebo"), always=("tuning",)),
        label=f"overlap of the top examples (by chance {chance})",
        limits=(0.0, float(table["overlap"].max())),
        colours="Blues",
    )


def _placebo(table: pd.DataFrame) -> Iterator[Figure]:
    """The runs' shares, and the placebo runs of each fine-tuning language as mean ± two standard deviations."""
    cloud = table.drop_duplicates(["language", *GROUP, "tuning"]).assign(
        unchanged=lambda rows: rows["placebo_mean"],
        low=lambda rows: rows["placebo_mean"] - 2 * rows["placebo_deviation"].fillna(0),
        high=lambda rows: rows["placebo_mean"] + 2 * rows["placebo_deviation"].fillna(0),
        tuning="placebo runs, mean (bar: ± 2 sd)",
        seed=np.nan,
    )
    both = pd.concat([table, cloud], ignore_index=True)
    arms: dict[str, Any] = {"legend": both["tuning"], "panel": names(both, GROUP)}
    return dots(both, "unchanged", "language", **arms, label="unchanged answers")


def _placebo_shifts(table: pd.DataFrame) -> Iterator[Figure]:
    return bars(
        table,
        "language",
        (("shifted", "shifted"), ("beyond", "of them beyond the placebo runs")),
        panel=names(table, ("tuning", *_WHICH), always=("tuning",)),
        label="questions",
    )


def _ceiling(table: pd.DataFrame) -> Iterator[Figure]:
    entry = _staged(table)
    return dots(
        table,
        "ceiling",
        "language",
        legend=entry,
        panel=names(table, ()),
        label="largest alignment that two wordings allow",
        ends=("ceiling_low", "ceiling_high"),
    )


def _planted(table: pd.DataFrame) -> Iterator[Figure]:
    arms = _arms(table)
    arms["panel"] = (
        "towards the planted " + table["plant"] + arms["panel"].map(lambda name: f", {name}" if name else "")
    )
    return dots(table, "change", "language", **arms, label="change in ρ with the planted values", reference=0)


def _paper(table: pd.DataFrame) -> Iterator[Figure]:
    return against(table, "theirs", "ours", legend=table["table"], labels=("the paper's figure", "ours"))


FIGURES: dict[str, tuple[Callable[[pd.DataFrame], Iterator[Figure]], ...]] = {
    "agreement": (_agreement,),
    "survey_similarity": (_survey_similarity,),
    "survey_plane": (_survey_plane,),
    "unchanged": (_unchanged,),
    "spread": (_spread,),
    "unchanged_category": (_unchanged_category,),
    "category_consistency": (_category_consistency,),
    "unique_shifts": (_unique_shifts,),
    "sizes": (_sizes,),
    "direction": (_direction,),
    "parallelism": (_parallelism,),
    "alignment": (_alignment,),
    "alignment_change": (_alignment_change, _alignment_change_mean),
    "dissimilarity": (_dissimilarity,),
    "structure": (_structure,),
    "mean_dissimilarity": (_mean_dissimilarity,),
    "language_share": (_language_share,),
    "parallel_overlap": (_parallel_overlap,),
    "cross_test_overlap": (_cross_test_overlap,),
    "placebo": (_placebo,),
    "placebo_shifts": (_placebo_shifts,),
    "ceiling": (_ceiling,),
    "planted": (_planted,),
    "paper": (_paper,),
}
"""Drawings by exhibit; each takes its table and gives a figure a page, none where that has no value to draw."""


def figures(exhibit: Exhibit) -> Iterator[Iterator[Figure]]:
    """The drawings of an exhibit, each in pages, in the style of the moment; none where it has no table or deserves none.

    A page is made when it is asked for: all of them together take hundreds of megabytes.
    """
    if exhibit.table.empty:
        return
    for draw in FIGURES.get(exhibit.name, ()):
        pages = draw(exhibit.table)
        if (first := next(pages, None)) is not None:
            yield chain([first], pages)


def file_name(exhibit: str, drawing: int, page: int) -> str:
    """What the file of a figure is called, without its ending; `drawing` and `page` count from 0."""
    return exhibit + (f"_{drawing + 1}" if drawing else "") + (f"_page{page + 1}" if page else "")


def formats(page: int) -> tuple[str, ...]:
    """The formats of a page, which counts from 0: further ones are SVG alone, for a PNG takes as long as the rest of its page."""
    return ("svg",) if page else ("svg", "png")
