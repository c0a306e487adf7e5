"""Exhibits of alignment with people, or with what was planted, and how fine-tuning changes it [paper 3.5, Table 3]."""

import pandas as pd

from ...analysis.alignment import alignment_change as change_of
from ...analysis.alignment import best_aligned, each_alignment, each_alignment_change
from ...analysis.alignment import influence as influence_of
from ...analysis.bootstrap import batteries
from ...analysis.profiles import selected
from ...analysis.wordings import noise_ceiling
from ...core.languages import LANGUAGES
from .arms import Arm, Study
from .exhibit import Exhibit
from .likeness import NO_SURVEY, people
from .rows import ARM, GROUP, INTERVAL, Rows, chosen, groups, staged

_CHANGE = ["base", "tuned", "change", "low", "high", "p", "adjusted", "n", "dropped", "reason"]

FEW_BATTERIES = 12
"""From as many on the smallest p, 1/2^batteries, leaves room for the cells of a table."""
SHOWN = ("DEU", "PAK", "SRB", "VNM")
"""The countries of the paper's Table 3, beside those of the languages that were asked."""


def alignment(study: Study) -> Exhibit:
    """How a model's answers in each language go with those of each country's people."""
    rows, truth = Rows(), people(study, *SHOWN)
    cases = [(cells, model.records, model.profile) for cells, model, _ in staged(study)] if study.truth else []
    rows.add_each(cases, lambda profiles: _aligned(profiles, truth, study))
    return rows.exhibit(
        "alignment",
        "Alignment with people",
        "Table 3",
        "Spearman correlation of a model's answers in a language with those of a country's people, over their common "
        "questions; 0 is no alignment, p against it from batteries changing sign, adjusted over the table. Which pole "
        "of a question is called the first is a convention: turned_low and turned_high are the range when random "
        "batteries have theirs turned on both sides, and the correlation within option pairs (within), the "
        f"Jensen-Shannon and the Wasserstein distance of the answers do not depend on it. Some country always is the best "
        "of its row: `best` is how often this one is, of resamples of the batteries. "
        f"{INTERVAL} {_survey(study)}",
        NO_SURVEY,
        [
            "stage",
            *ARM,
            *("language", "country", "spearman", "low", "high", "plain_low", "plain_high", "p", "adjusted"),
            *("turned_low", "turned_high", "within", "within_low", "within_high", "jensen_shannon", "wasserstein"),
            *("best", "n", "dropped", "reason"),
        ],
    )


def _aligned(profiles: list[pd.DataFrame], truth: pd.DataFrame, study: Study) -> list[pd.DataFrame]:
    tables = each_alignment(profiles, truth, study.items, study.selection)
    best = best_aligned(profiles, truth, study.items, study.selection)
    return [
        table.assign(best=certain["best"].where(table["spearman"].notna()))
        for table, certain in zip(tables, best, strict=True)
    ]


def _survey(study: Study) -> str:
    if study.truth is None:
        return ""
    stated = f"Survey: {study.truth.provenance}."
    if study.truth.source == "packaged":
        stated += " Over the packaged questions it is not comparable with the paper's."
    asked = [question for question in selected(study.items, study.selection) if question in study.truth.profile.index]
    if 0 < (count := len(set(batteries(asked, study.items)))) < FEW_BATTERIES:
        stated += (
            f" The questions are of {count} batteries, so that p is {0.5**count:.1g} or more, and over many cells no adjusted p "
            "can be small."
        )
    return stated


def alignment_change(study: Study) -> Exhibit:
    """How fine-tuning changes alignment, each run for itself and averaged over monolingual runs."""
    rows, truth = Rows(), people(study, *SHOWN)
    arms = study.arms if study.truth else ()
    rows.add_each(
        [({**arm.cells, "models": 1}, arm.runs, [arm]) for arm in arms], lambda each: _changes(each, truth, study)
    )
    alone = [arm for arm in arms if not arm.multilingual]
    together = [
        ({**cells, "tuning": "mean", "run": "", "models": len(some)}, [run for arm in some for run in arm.runs], some)
        for cells, some in groups(alone, lambda arm: chosen(arm, *GROUP, "seed", "placebo"))
        if len(some) > 1
    ]
    rows.add_each(together, lambda each: _changes(each, truth, study))
    return rows.exhibit(
        "alignment_change",
        "Change in alignment",
        "Table 3",
        "Alignment after fine-tuning minus before it, over the same questions; `mean` is over fine-tuning languages, "
        "each run alone. 0 is no change, p against it from base and tuned answers of whole batteries changing places, "
        f"adjusted over the table. {INTERVAL} {_survey(study)}",
        NO_SURVEY
        if study.arms
        else "There is no fine-tuned model: run `valueshift finetune` and probe its checkpoint.",
        [*ARM, "models", "language", "country", *_CHANGE],
    )


def _changes(each: list[list[Arm]], truth: pd.DataFrame, study: Study) -> list[pd.DataFrame]:
    pairs = [(arms[0].base.profile, [arm.tuned.profile for arm in arms]) for arms in each]
    return each_alignment_change(pairs, truth, study.items, study.selection)


def influence(study: Study) -> Exhibit:
    """The questions on which the alignment of each language with its own country hangs most."""
    rows, truth = Rows(), people(study)
    cases = [
        (cells, model.records, model.profile)
        for cells, model, arm in (staged(study) if study.truth else ())
        if arm is None or not arm.placebo
    ]
    rows.add_each(cases, lambda profiles: _own_country(profiles, truth, study))
    return rows.exhibit(
        "influence",
        "Questions on which alignment hangs",
        "ours",
        "For each language and its country the five questions whose omission changes the alignment most: the "
        "alignment without the question, and with it minus without it. Were all questions to count alike, none would "
        "differ from the others.",
        NO_SURVEY,
        ["stage", *ARM, "language", "country", "question", "without", "difference"],
    )


def _own_country(profiles: list[pd.DataFrame], truth: pd.DataFrame, study: Study) -> list[pd.DataFrame]:
    countries = {code: language.country for code, language in LANGUAGES.items()}
    tables = influence_of(profiles, truth, study.items, study.selection)
    return [table[table["country"] == table["language"].map(countries)] for table in tables]


def ceiling(study: Study) -> Exhibit:
    """How far answers depend on the wording, and the alignment that one wording can be expected to reach."""
    rows = Rows()
    cells = {model.digest: named for named, model, _ in staged(study)}
    for model, again in study.wordings:
        rows.add(
            cells[model.digest],
            (*model.records, *again.records),
            noise_ceiling,
            model.profile,
            again.profile,
            study.items,
            study.selection,
        )
    return rows.exhibit(
        "ceiling",
        "Noise ceiling of two wordings",
        "ours",
        "Spearman correlation of a model's answers to two wordings of the same questions, the alignment that one "
        "wording can at most be expected to reach, and the share of questions answered alike. Wordings without "
        f"anything in common would give 0, 0 and half. {INTERVAL}",
        "It needs two wordings: run `valueshift probe MODEL --paraphrase`.",
        [
            *("stage", *ARM, "language", "reliability", "low", "high", "ceiling", "ceiling_low", "ceiling_high"),
            *("same", "same_low", "same_high", "n", "dropped", "reason"),
        ],
    )


def planted(study: Study) -> Exhibit:
    """Whether fine-tuning moves a toy's answers towards the profile planted in its sentences."""
    rows = Rows()
    for arm in study.arms if study.plant is not None else ():
        rows.add(arm.cells, arm.runs, _planted, arm, study)
    return rows.exhibit(
        "planted",
        "Movement towards what was planted",
        "ours",
        "A toy study: Spearman correlation of the answers before and after fine-tuning with each planted profile, and its "
        "change. 0 is no change, p against it from base and tuned answers of whole batteries changing places, adjusted "
        "over the table. Any training may lead away from the profile of the base; only fine-tuning on sentences of a "
        f"profile must lead towards it, and a placebo must not. {INTERVAL}",
        "Only a toy study has planted values: name its truth.csv."
        if study.plant is None
        else "There is no fine-tuned model: run `valueshift finetune` and probe its checkpoint.",
        [*ARM, "language", "plant", *_CHANGE],
    )


def _planted(arm: Arm, study: Study) -> pd.DataFrame:
    assert study.plant is not None
    tables = []
    for code, plant in study.plant.groupby("language", sort=False):
        if code in arm.base.profile.columns and code in arm.tuned.profile.columns:
            truth = plant.pivot(index="question", columns="checkpoint", values="p_first")
            profiles = arm.base.profile[[code]], [arm.tuned.profile[[code]]]
            tables.append(change_of(*profiles, truth, study.items, study.selection))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return table.rename(columns={"country": "plant"})
