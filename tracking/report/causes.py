"""Exhibits of what attribution says about the sentences behind the shifts [paper 7; Fig. 6, 14]."""

import pandas as pd

from ...analysis.influences import cross_test_overlap as cross_of
from ...analysis.influences import language_shares
from ...analysis.influences import parallel_overlap as parallel_of
from .arms import Attribution, Study
from .exhibit import Exhibit
from .rows import ARM, GROUP, Rows, chosen, groups

_MISSING = "There is no attribution: run `valueshift attribute --base BASE --tuned TUNED`."
_OVERLAP = ["first", "second", "overlap", "low", "high", "maximum", "chance", "n"]


def language_share(study: Study) -> Exhibit:
    """Which fine-tuning languages the examples come from that pushed the shifted answers, or held them back."""
    rows = Rows()
    for one in study.attributions:
        if one.arm.multilingual:
            rows.add({**one.arm.cells, "attribution": one.record}, _runs([one]), _shares, one)
    return rows.exhibit(
        "language_share",
        "Languages of the influential sentences",
        "Fig. 6, 14",
        "Share of each fine-tuning language among the sentences that pushed most towards the new answer (top) and "
        "against it (bottom), averaged over the shifted probes of a test language. By chance it is the language's "
        "share of the training sentences (base_rate); p from permuting languages over sentences, adjusted over the "
        "table. Intervals are of 95%, over probes.",
        f"{_MISSING} It must be of a multilingual model.",
        [
            *(*ARM, "attribution", "language", "side", "train_language", "share", "low", "high"),
            *("base_rate", "odds_ratio", "p", "adjusted", "n"),
        ],
        over="probes",
    )


def _shares(one: Attribution) -> pd.DataFrame:
    return one.shares if one.shares is not None else language_shares(one.found.influence, one.found.training)


def parallel_overlap(study: Study) -> Exhibit:
    """Whether translations of the same sentences bring about the same shift under two fine-tuning languages."""
    rows = Rows()
    by_arm = {one.arm: one for one in study.attributions}
    for cells, arms in groups(
        (arm for arm in by_arm if not arm.multilingual), lambda arm: chosen(arm, *GROUP, "seed", "placebo")
    ):
        if len(arms) > 1:
            models = {arm.tuning: by_arm[arm].found for arm in arms}
            rows.add(cells, _runs([by_arm[arm] for arm in arms]), parallel_of, models)
    return rows.exhibit(
        "parallel_overlap",
        "Translations among the influential sentences",
        "7",
        "For a question that shifted to the same answer under two fine-tuning languages: the share of the sentences "
        "that pushed most that are translations of each other. chance is the overlap of random sentences. Intervals "
        "are of 95%, over questions.",
        f"{_MISSING} It takes two monolingual models that were tuned on parallel sentences.",
        [*GROUP, "seed", "placebo", *_OVERLAP],
        over="pairs of probes",
    )


def cross_test_overlap(study: Study) -> Exhibit:
    """Whether the same sentences shift a question in two test languages."""
    rows = Rows()
    for one in study.attributions:
        rows.add({**one.arm.cells, "attribution": one.record}, _runs([one]), cross_of, one.found)
    return rows.exhibit(
        "cross_test_overlap",
        "The same sentences behind a shift in two test languages",
        "7",
        "For a question that shifted in two test languages: the share of the sentences that pushed most that are the "
        "same. chance is the overlap of random sentences. Intervals are of 95%, over questions.",
        _MISSING,
        [*ARM, "attribution", *_OVERLAP],
        over="pairs of probes",
    )


def _runs(attributions: list[Attribution]) -> list[str]:
    return list(dict.fromkeys(run for one in attributions for run in (*one.arm.runs, one.record)))
