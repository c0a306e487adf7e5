"""Exhibits of answers that changed or stayed [paper 5.1, 5.2.1; Tables 1 and 2, Fig. 2, 3, 7-10]."""

from itertools import combinations

import pandas as pd

from ...analysis.shifts import agreement as agreement_of
from ...analysis.shifts import unchanged as unchanged_of
from ...analysis.shifts import unchanged_difference
from ...analysis.sources import category_consistency as consistency_of
from ...analysis.sources import spread as spread_of
from ...analysis.sources import unique_shifts as unique_of
from .arms import Arm, Model, Study
from .exhibit import Exhibit
from .rows import ARM, GROUP, INTERVAL, Rows, chosen, groups

_SHARE = ["low", "high", "plain_low", "plain_high", "n", "ties", "dropped", "reason"]
_TRAINED = ["source", "tuning", "size", "training", "seed"]
PAIRED = 12
"""Pretrained models that are compared in pairs: 66 of them."""
_FINETUNE = "run `valueshift finetune` and `valueshift probe` on its checkpoint"


def agreement(study: Study) -> Exhibit:
    """How alike models answer: pretrained ones, and those tuned on the same sentences, of each source's largest size.

    Pairs grow with the square of the models: of more than `PAIRED` only the first are compared, which the caption says.
    """
    rows = Rows()
    nothing = {"source": "", "tuning": "", "size": None, "training": "", "seed": None}
    paired = {model.digest for model in study.pretrained[:PAIRED]}
    for first, second in combinations(study.pretrained[:PAIRED], 2):
        _agree(rows, study, {"stage": "pretrained", **nothing}, first, second)
    found = [
        (cells, arms)
        for cells, arms in groups(study.real, lambda arm: chosen(arm, *_TRAINED))
        if len({arm.base.digest for arm in arms}) > 1
    ]
    for cells, arms in found:
        if cells["size"] == max(other["size"] for other, _ in found if other["source"] == cells["source"]):
            for one, two in combinations([arm for arm in arms if arm.base.digest in paired], 2):
                _agree(
                    rows, study, {"stage": "fine-tuned", **cells}, one.tuned, two.tuned, (one.base.name, two.base.name)
                )
    tuned = "" if found else " Fine-tune two models on the same sentences for their agreement after it."
    if (count := len(study.pretrained)) > PAIRED:
        tuned += f" Not all pairs are shown: of {count} pretrained models the first {PAIRED}; report the others by themselves."
    return rows.exhibit(
        "agreement",
        "Agreement of models",
        "Table 1, Fig. 7",
        "Share of questions that two models answer alike, before fine-tuning and, where both were tuned on the same "
        "sentences, after it on each source's largest size. Two models that answer at random agree on half of the "
        f"questions. {INTERVAL}{tuned}",
        "Agreement is between models: run `valueshift probe` on a second one.",
        ["stage", "first", "second", *_TRAINED, "language", "agreement", *_SHARE],
    )


def _agree(
    rows: Rows,
    study: Study,
    cells: dict[str, object],
    first: Model,
    second: Model,
    names: tuple[str, str] | None = None,
) -> None:
    labels = names or (first.name, second.name)
    pair = {labels[0]: first.answers, labels[1]: second.answers}
    runs = (*first.records, *second.records)
    rows.add({**cells, "language": "all"}, runs, agreement_of, pair, study.items, (), study.selection)
    rows.add(cells, runs, agreement_of, pair, study.items, "language", study.selection)


def unchanged(study: Study) -> Exhibit:
    """How many answers each run of fine-tuning left as they were, by test language."""
    rows = Rows()
    for arm in study.arms:
        pair = arm.base.answers, arm.tuned.answers, study.items
        rows.add({**arm.cells, "language": "all"}, arm.runs, unchanged_of, *pair, (), study.selection)
        rows.add(arm.cells, arm.runs, unchanged_of, *pair, "language", study.selection)
    return rows.exhibit(
        "unchanged",
        "Answers that stayed",
        "Fig. 2, 8, 9, 10, Table 2",
        "Share of questions with the same answer before and after fine-tuning. Answers given anew by chance would "
        f"keep half; what training as such changes is seen in the placebo runs. {INTERVAL}",
        f"There is no fine-tuned model: {_FINETUNE}.",
        [*ARM, "language", "unchanged", *_SHARE],
    )


def spread(stayed: Exhibit) -> Exhibit:
    """Mean and spread of the exhibit `unchanged` over seeds, and over fine-tuning languages."""
    table = stayed.table
    real = table[~table["placebo"]] if len(table) else table
    tables = []
    if len(real):
        alone = real[~real["tuning"].str.contains("+", regex=False)]
        for over, part, by in (
            ("seeds", real, [*GROUP, "tuning", "language"]),
            ("fine-tuning languages", alone, [*GROUP, "seed", "language"]),
        ):
            cells = spread_of(part, "unchanged", by)
            cells.insert(0, "over", over)
            tables.append(cells[cells["replicates"] > 1])
    columns = ["over", *GROUP, "tuning", "seed", "language", "mean", "deviation", "minimum", "maximum", "replicates"]
    made = pd.concat(tables, ignore_index=True).reindex(columns=columns) if tables else pd.DataFrame(columns=columns)
    made = made.fillna({"tuning": "", "language": ""})
    lacking = [
        sentence
        for over, sentence in (
            ("seeds", "For the spread over seeds repeat `valueshift finetune` with another --seed."),
            (
                "fine-tuning languages",
                "For the spread over languages repeat `valueshift finetune` with other --languages.",
            ),
        )
        if over not in set(made["over"])
    ]
    caption = (
        "Mean, sample standard deviation and range of the share of unchanged answers over replicates: the same "
        "training with other seeds, and the same source with other fine-tuning languages."
    )
    return Exhibit(
        "spread",
        "Spread over seeds and fine-tuning languages",
        "Table 2",
        made if len(made) else pd.DataFrame(),
        caption if len(made) else "",
        stayed.runs if len(made) else (),
        " ".join(lacking),
    )


def unchanged_category(study: Study) -> Exhibit:
    """How many answers stayed, by category of questions."""
    rows = Rows()
    for arm in study.arms:
        pair = arm.base.answers, arm.tuned.answers, study.items
        rows.add(arm.cells, arm.runs, unchanged_of, *pair, "category", study.selection)
    _name_categories(rows, study)
    return rows.exhibit(
        "unchanged_category",
        "Answers that stayed, by category",
        "Fig. 3",
        "Share of questions with the same answer before and after fine-tuning, all test languages together, by "
        f"category of the survey. Answers given anew by chance would keep half. {INTERVAL} A category of one or two "
        "batteries has no interval.",
        f"There is no fine-tuned model: {_FINETUNE}.",
        [*ARM, "category", "category_name", "unchanged", *_SHARE],
    )


def category_consistency(study: Study) -> Exhibit:
    """Whether two sources leave the same languages' answers alone, category by category."""
    rows = Rows()
    for cells, arms in groups(study.real, lambda arm: chosen(arm, "model", "size", "training")):
        alone = [arm for arm in arms if not arm.multilingual]
        sources = list(dict.fromkeys(arm.source for arm in alone))
        if len(sources) > 1:
            shares = _category_shares(study, alone)
        for first, second in combinations(sources, 2):
            runs = [run for arm in alone if arm.source in (first, second) for run in arm.runs]
            rows.add({**cells, "first": first, "second": second}, runs, consistency_of, shares, first, second)
    _name_categories(rows, study)
    return rows.exhibit(
        "category_consistency",
        "Consistency of categories between sources",
        "Fig. 3",
        "Pearson correlation over test languages of the unchanged shares of two sources, for each category; seeds are "
        "averaged first, fine-tuning languages before or after correlating (the paper does not say which). 0 is what "
        "chance gives; intervals are of 95%, over test languages.",
        "It needs two sources: repeat `valueshift finetune` with another --corpus and the same languages and size.",
        [
            *("model", "size", "training", "first", "second", "category", "category_name", "averaging"),
            *("pearson", "low", "high", "n", "reason"),
        ],
        over="test languages",
    )


def _category_shares(study: Study, arms: list[Arm]) -> pd.DataFrame:
    """Unchanged shares by source, fine-tuning language, test language and category, seeds averaged."""
    keys = ["source", "tuning_language", "language", "category"]
    tables = []
    for arm in arms:
        pair = arm.base.answers, arm.tuned.answers, study.items
        table = unchanged_of(*pair, ["language", "category"], study.selection)
        tables.append(table.assign(source=arm.source, tuning_language=arm.tuning).dropna(subset=["unchanged"]))
    shares: pd.DataFrame = pd.concat(tables).groupby(keys, sort=False, as_index=False)[["unchanged"]].mean()
    return shares


def _name_categories(rows: Rows, study: Study) -> None:
    """Add the categories' names to the rows."""
    names = {item.category: item.category_name for item in study.items.values()}
    rows.tables = [table.assign(category_name=table["category"].map(names).fillna("")) for table in rows.tables]


def unique_shifts(study: Study) -> Exhibit:
    """How many shifts one fine-tuning language brings about alone."""
    rows = Rows()
    alone = [arm for arm in study.real if not arm.multilingual]
    for cells, arms in groups(alone, lambda arm: chosen(arm, *GROUP, "seed")):
        tuned = {arm.tuning: arm.tuned.answers for arm in arms}
        if len(tuned) > 1:
            rows.add(
                {**cells, "tunings": len(tuned)},
                [run for arm in arms for run in arm.runs],
                unique_of,
                arms[0].base.answers,
                tuned,
                study.items,
                study.selection,
            )
    return rows.exhibit(
        "unique_shifts",
        "Shifts under one fine-tuning language only",
        "5.2.1",
        "Of the questions that shifted under any fine-tuning language, the share that shifted under exactly one; 0 "
        f"were all languages to shift the same questions, 1 were no two to share any. {INTERVAL}",
        "It needs two fine-tuning languages: repeat `valueshift finetune` with other --languages and the same source "
        "and size.",
        [*GROUP, "seed", "tunings", "language", "unique", "low", "high", "shifted", "n", "dropped", "reason"],
    )


def sizes(study: Study) -> Exhibit:
    """Whether more sentences leave fewer answers unchanged."""
    rows = Rows()
    for cells, arms in groups(study.real, lambda arm: chosen(arm, "model", "source", "tuning", "training", "seed")):
        for small, large in combinations(sorted(arms, key=lambda arm: arm.size), 2):
            rows.add(
                {**cells, "size_first": small.size, "size_second": large.size},
                dict.fromkeys((*small.runs, *large.runs)),
                unchanged_difference,
                small.base.answers,
                small.tuned.answers,
                large.tuned.answers,
                study.items,
                study.selection,
            )
    return rows.exhibit(
        "sizes",
        "Few and many sentences",
        "5.2.1, 6",
        "Share of unchanged answers after fine-tuning on few (first) and on many (second) sentences, and its paired "
        "difference; 0 where size does not matter. p from batteries changing sign, adjusted over the table. "
        f"{INTERVAL}",
        "It needs two sizes: repeat `valueshift finetune` with another --size.",
        [
            *("model", "source", "tuning", "training", "seed", "size_first", "size_second", "language"),
            *("first", "second", "difference", "low", "high", "p", "adjusted", "n", "dropped", "reason"),
        ],
    )
