"""The tables of an attribution record, the figures that say whether to believe them, and what a reader must be told."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.influences import SIDES, language_shares, overlaps, stability
from ..core.probes import Probe
from .baselines import same_language_random, token_overlap
from .features import Floats
from .scoring import Method, Parts, combined

TOP = 100
"""Sentences at either end of a ranking that are kept, as the paper does; see `length`."""
UNSTABLE = 0.7
"""A top-k that overlaps less than this between projections is not to be read sentence by sentence."""


def ranked(scores: Floats, k: int, side: str) -> NDArray[np.intp]:
    """The k sentences of the highest (`top`) or lowest (`bottom`) scores of each query, first the most extreme: (queries, k)."""
    sign = -1 if side == "top" else 1
    return np.stack([np.argsort(sign * column, kind="stable")[:k] for column in scores.T])


def length(sentences: int) -> int:
    """Length of the lists at either end: 100, or a tenth of the sentences if that is less; lists then share little by chance."""
    return min(TOP, max(1, sentences // 10))


def tables_of(
    shifts: pd.DataFrame,
    probes: Sequence[Probe],
    rows: pd.DataFrame,
    tokenizer: Any,
    computed: Sequence[Parts],
    count: int,
) -> dict[str, pd.DataFrame]:
    """The tables `queries`, `influence` and `shares`.

    Args:
        shifts: one row a query: language, question, category, answer_base, answer_tuned.
        probes: of the same rows.
        rows: one row a training sentence: example, language, tokens.
        tokenizer: the model's own.
        computed: what each checkpoint and projection gives, the projections of a checkpoint together; shapes
            (sentences, queries).
        count: of projections.
    """
    scores = combined(computed)
    k = length(len(rows))
    lists = {side: ranked(scores, k, side) for side in SIDES}
    filled = [probe.filled(new) for probe, new in zip(probes, shifts["answer_tuned"], strict=True)]
    asked = tokenizer(filled, add_special_tokens=False)["input_ids"]
    baselines = {
        "token_overlap": token_overlap(rows["tokens"].tolist(), asked),
        "random_overlap": same_language_random(rows["language"].tolist(), shifts["language"].tolist()),
    }
    alone = [combined(computed[place::count]) for place in range(count)]  # each projection over all checkpoints
    queries = shifts.assign(
        stability=stability(np.stack([ranked(one, k, "top") for one in alone])),
        **{name: overlaps(lists["top"], ranked(found, k, "top")) for name, found in baselines.items()},
    )
    influence = pd.concat([_influence(shifts, rows, scores, lists[side], side) for side in SIDES], ignore_index=True)
    return {"queries": queries, "influence": influence, "shares": language_shares(influence, rows)}


def _influence(
    shifts: pd.DataFrame,
    rows: pd.DataFrame,
    scores: Floats,
    lists: NDArray[np.intp],
    side: str,
) -> pd.DataFrame:
    places, asked = lists.ravel(), np.repeat(np.arange(len(lists)), lists.shape[1])
    return pd.DataFrame(
        {
            "language": shifts["language"].to_numpy()[asked],
            "question": shifts["question"].to_numpy()[asked],
            "side": side,
            "rank": np.tile(np.arange(1, lists.shape[1] + 1), len(lists)),
            "example": rows["example"].to_numpy()[places],
            "train_language": rows["language"].to_numpy()[places],
            "score": scores[places, asked].astype(np.float64),
        }
    )


def metrics_of(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Bare names: number of shifts, means over them; `share/<test language>.<fine-tuning language>` of the top."""
    queries, shares = tables["queries"], tables["shares"]
    means = queries[["stability", "token_overlap", "random_overlap"]].mean().dropna()
    metrics = {"shifted": float(len(queries))}
    metrics |= {str(name): float(value) for name, value in means.items()}
    top = shares[shares["side"] == "top"]
    members = zip(top["language"], top["train_language"], top["share"], strict=True)
    return metrics | {f"share/{language}.{trained}": float(share) for language, trained, share in members}


def notes_of(tables: Mapping[str, pd.DataFrame], sentences: int, method: Method) -> list[str]:
    """What a reader of the tables must know."""
    queries, k = tables["queries"], int(tables["influence"]["rank"].max())
    notes = []
    if method.backend == "exact":
        notes.append("Gradients are not projected: there is no projection whose choice could change the ranking.")
    elif queries["stability"].isna().all():
        notes.append("One projection was made, so stability is not known; give two seeds or more.")
    elif (value := queries["stability"].mean()) < UNSTABLE:
        notes.append(
            f"UNSTABLE: the top {k} of two projections overlap by {value:.2f} on average, less than {UNSTABLE}. Do not read "
            f"single sentences; project to more dimensions, or average more seeds."
        )
    if method.measurement != "contrast":
        notes.append(
            f"Measured is `{method.measurement}`, not what changed between the answers: bottom sentences need not contradict."
        )
    if method.paper_strict:
        notes.append("Run as published on request, also where the inverse does not exist.")
    notes.append(
        f"Kept are {k} of {sentences:,} sentences at either end; two random lists overlap by {k / sentences:.3f}."
    )
    return notes
