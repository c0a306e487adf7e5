"""Exhibits of how alike profiles are and where they move [paper 3.5, 5.2.1, 6; Fig. 4, 5, 11-13]."""

from collections.abc import Mapping

import pandas as pd

from ...analysis.direction import parallelism as parallelism_of
from ...analysis.direction import plane
from ...analysis.profiles import spoken
from ...analysis.similarity import dissimilarities
from ...analysis.similarity import mean_dissimilarity as mean_of
from ...analysis.similarity import structure as structure_of
from ...core.languages import LANGUAGES, TEST_LANGUAGES
from .arms import Arm, Study
from .exhibit import Exhibit
from .rows import ARM, GROUP, INTERVAL, Rows, chosen, groups, staged

NO_SURVEY = "There is no survey truth for this probe set: run `valueshift survey import FILE`."
_UNRELATED = "Profiles drawn evenly from 0 to 1 without regard to each other have .25."


def people(study: Study, *others: str) -> pd.DataFrame:
    """The survey's profiles of the countries of the study's languages and of others; all of a user's own survey."""
    if study.truth is None:
        return pd.DataFrame()
    profile = study.truth.profile
    if study.truth.source == "own":
        return profile
    wanted = dict.fromkeys([*(LANGUAGES[code].country for code in study.languages if code in LANGUAGES), *others])
    return profile[[country for country in wanted if country in profile.columns]]


def _countries(study: Study) -> pd.DataFrame:
    """With those of the paper's test languages."""
    return people(study, *(LANGUAGES[code].country for code in TEST_LANGUAGES))


def survey_similarity(study: Study) -> Exhibit:
    """How alike the people of two countries answer."""
    rows = Rows()
    if study.truth is not None:
        rows.add({}, (), _cosines, study)
    return rows.exhibit(
        "survey_similarity",
        "Similarity of countries",
        "3.5, Fig. 13",
        "Cosine of the survey profiles of two countries. Profiles drawn evenly from 0 to 1 without regard to each "
        f"other have .75. {INTERVAL} {_source(study)}",
        NO_SURVEY,
        ["first", "second", "cosine", "low", "high", "n", "reason"],
    )


def _cosines(study: Study) -> pd.DataFrame:
    table = dissimilarities(_countries(study), study.items, study.selection)
    return table.assign(cosine=1 - table["dissimilarity"], low=1 - table["high"], high=1 - table["low"])


def _source(study: Study) -> str:
    return f"Survey: {study.truth.provenance}." if study.truth else ""


def survey_plane(study: Study) -> Exhibit:
    """Countries in the plane of their two principal components."""
    rows = Rows()
    if study.truth is not None:
        rows.add({}, (), _points, {"survey": _countries(study)}, study)
        rows.tables = [table.rename(columns={"language": "country"}) for table in rows.tables]
    return rows.exhibit(
        "survey_plane",
        "Countries in a plane",
        "3.5, Fig. 13",
        f"Survey profiles of countries on their two principal components. {_source(study)}",
        NO_SURVEY,
        ["country", "x", "y", "explained_x", "explained_y", "n", "dropped"],
    )


def _points(models: Mapping[str, pd.DataFrame], study: Study) -> pd.DataFrame:
    """The points of a plane with what holds for all of it in every row."""
    found = plane(models, study.items, study.selection)
    x, y = found.explained
    return found.points.assign(explained_x=x, explained_y=y, n=found.n, dropped=found.dropped)


def direction(study: Study) -> Exhibit:
    """Arrows from before to after fine-tuning, one plane a source, size and seed."""
    rows = Rows()
    for cells, arms in groups(study.real, lambda arm: chosen(arm, *GROUP, "seed")):
        runs = dict.fromkeys(run for arm in arms for run in arm.runs)
        rows.add(cells, runs, _arrows, arms, study)
    return rows.exhibit(
        "direction",
        "Direction of change",
        "Fig. 4, 11",
        "Profiles before and after fine-tuning on the two principal components of all profiles of a panel, an arrow a "
        "test language. Two axes show part of the change only: the shares of variance are given, and the table of "
        "parallelism counts all questions.",
        "There is no fine-tuned model: run `valueshift finetune` and `valueshift probe` on its checkpoint.",
        [
            *GROUP,
            "seed",
            "tuning",
            "language",
            "x_base",
            "y_base",
            "x",
            "y",
            "explained_x",
            "explained_y",
            "n",
            "dropped",
            "run",
        ],
    )


def _arrows(arms: list[Arm], study: Study) -> pd.DataFrame:
    """Points of the tuned models beside that of their base."""
    base = arms[0].base.profile
    shared = [code for code in base.columns if all(code in arm.tuned.profile.columns for arm in arms)]
    points = _points({"": base[shared], **{arm.tuned.run: arm.tuned.profile[shared] for arm in arms}}, study)
    start = points[points["model"] == ""].set_index("language")[["x", "y"]].add_suffix("_base")
    tuned = points[points["model"] != ""].rename(columns={"model": "run"}).join(start, on="language")
    return tuned.assign(tuning=tuned["run"].map({arm.tuned.run: arm.tuning for arm in arms}))


def parallelism(study: Study) -> Exhibit:
    """Whether the test languages change alike, all questions counted."""
    rows = Rows()
    for arm in study.arms:
        rows.add(arm.cells, arm.runs, parallelism_of, arm.base.profile, arm.tuned.profile, study.items, study.selection)
    return rows.exhibit(
        "parallelism",
        "Whether languages move in one direction",
        "Fig. 4, 11",
        "Mean cosine between the changes of every two test languages, all questions counted: 1 were all to change "
        f"alike, 0 were their changes to have nothing in common. {INTERVAL}",
        "There is no fine-tuned model: run `valueshift finetune` and `valueshift probe` on its checkpoint.",
        [*ARM, "cosine", "low", "high", "languages", "n", "dropped", "reason"],
    )


def dissimilarity(study: Study) -> Exhibit:
    """How differently a model answers in two languages."""
    rows = Rows()
    for cells, model, _ in staged(study):
        rows.add(cells, model.records, dissimilarities, model.profile, study.items, study.selection)
    return rows.exhibit(
        "dissimilarity",
        "Dissimilarity of languages",
        "Fig. 5, 12",
        f"1 - cosine between a model's profiles in two test languages. 0 is the same profile. {_UNRELATED} {INTERVAL}",
        "There is no probe record: run `valueshift probe MODEL`.",
        ["stage", *ARM, "first", "second", "dissimilarity", "low", "high", "n", "reason"],
    )


def structure(study: Study) -> Exhibit:
    """Whether languages that were alike stay alike, and are those whose people are alike."""
    rows = Rows()
    spoken_by = spoken(people(study), study.languages)
    for cells, model, arm in staged(study):
        others = [] if arm is None else [("pretrained", arm.base.profile)]
        others += [("survey", spoken_by)] if len(spoken_by.columns) else []
        for name, other in others:
            named = {**cells, "other": name}
            rows.add(named, model.records, structure_of, other, model.profile, study.items, study.selection)
    return rows.exhibit(
        "structure",
        "Similarity structure",
        "Fig. 5, 12",
        "Spearman correlation between the dissimilarities of all pairs of test languages in a model and those before "
        "fine-tuning, or those of the countries' people. 0 is what chance gives; p from Mantel's permutation of "
        f"languages, adjusted over the table. {INTERVAL} Few questions pull the value towards 0: read it as a lower "
        "bound.",
        f"There is nothing to compare a model's structure with. {NO_SURVEY}",
        [
            "stage",
            *ARM,
            "other",
            "spearman",
            "low",
            "high",
            "p",
            "adjusted",
            "profiles",
            "pairs",
            "n",
            "dropped",
            "reason",
        ],
    )


def mean_dissimilarity(study: Study) -> Exhibit:
    """Whether fine-tuning brings the languages of a model together."""
    rows = Rows()
    for cells, arms in groups(study.real, lambda arm: chosen(arm, "model", "source", "training", "seed")):
        kinds: dict[str, list[pd.DataFrame]] = {"pretrained": [arms[0].base.profile]}
        named: dict[str, tuple[str, int | None]] = {"pretrained": ("pretrained", None)}
        for arm in sorted(arms, key=lambda arm: (arm.multilingual, arm.size)):
            kind = "multilingual" if arm.multilingual else "monolingual"
            named[f"{kind} {arm.size}"] = (kind, arm.size)
            kinds.setdefault(f"{kind} {arm.size}", []).append(arm.tuned.profile)
        runs = dict.fromkeys(run for arm in arms for run in arm.runs)
        rows.add(cells, runs, _means, kinds, named, study)
    return rows.exhibit(
        "mean_dissimilarity",
        "Mean dissimilarity of languages",
        "5.2.1, 6",
        "1 - cosine, averaged over all pairs of test languages (and over monolingual models), before and after "
        f"fine-tuning; the change is against the pretrained model, paired. A change of 0 is no effect. {_UNRELATED} "
        f"{INTERVAL}",
        "There is no fine-tuned model: run `valueshift finetune` and `valueshift probe` on its checkpoint.",
        [
            *("model", "source", "training", "seed", "kind", "size", "dissimilarity", "low", "high"),
            *("change", "change_low", "change_high", "models", "languages", "n", "dropped", "reason"),
        ],
    )


def _means(
    kinds: Mapping[str, list[pd.DataFrame]], named: Mapping[str, tuple[str, int | None]], study: Study
) -> pd.DataFrame:
    table = mean_of(kinds, study.items, study.selection).rename(columns={"model": "name"})
    table["kind"] = [named[name][0] for name in table["name"]]
    table["size"] = pd.array([named[name][1] for name in table["name"]], dtype="Int64")
    return table
