"""Whether to believe an attribution: what it predicts is compared with models that are trained again.

    LDS             Spearman, over models trained on random halves, of a query's contrast with the sum of the scores of the
                    sentences kept (linear datamodeling score: Park et al. 2023, section 4.1)
    removal         how much a contrast falls when the sentences that are said to have pushed it are left out, against as many
                    random ones
    randomisation   how far the ranking is the same when the weights are shuffled (Adebayo et al. 2018). What is the same was not
                    read from what the model learned; the LDS of the shuffled ranking says how far one gets without that
    recall          share of the planted contradicting sentences among as many bottom ones, and of the supporting at the top.
                    It stands beside LDS because it proves nothing alone: token overlap finds what was planted, too

Models are trained again as the tuned one was. A retraining that is done is kept and not done again.
"""

import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from tqdm import tqdm

from ..analysis import intervals
from ..analysis.bootstrap import mean
from ..analysis.influences import overlaps
from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.files import whole_file
from ..core.outside import read_json
from .features import Floats, batched, frozen, token_outputs
from .measurement import Example, Query, query_items
from .results import length, ranked
from .scoring import Method, influence

log = logging.getLogger("valueshift.attribution")

Kept = NDArray[np.bool_]
"""Which sentences are trained on, (sentences,) or (models, sentences)."""
Doubles = NDArray[np.float64]
SHUFFLED = "shuffled weights"
RESAMPLES = 2_000
_QUERIES = 8  # at a time
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} models, {rate_fmt}, done at {eta:%H:%M:%S}"


@dataclass(frozen=True)
class Subject:
    """A tuned model that can be trained again on some of its sentences."""

    tuned: Any
    tokenizer: Any
    examples: Sequence[Example]
    queries: Sequence[Query]
    token_overlap: Floats
    """Scores of the baseline, (sentences, queries)."""
    retrain: Callable[[Kept], Any]
    """The model trained on the kept sentences."""
    identity: str
    """Digest of what determines the retrained models and their contrasts."""


@dataclass(frozen=True)
class Trial:
    """Models of one subject trained on random halves, and what each method says of its sentences."""

    kept: Kept
    outcomes: Floats
    """Contrast of each query in each model, (models, queries)."""
    scores: Mapping[str, Floats]
    """Method to (sentences, queries)."""


def contrasts(model: Any, tokenizer: Any, queries: Sequence[Query]) -> Floats:
    """log p(tuned answer) - log p(base answer) of each query, (queries,)."""
    rows = model.get_input_embeddings().weight.shape[0]
    items = query_items(queries, Method(), tokenizer, rows)
    found = []
    for start in range(0, len(items), _QUERIES):
        batch = batched(items[start : start + _QUERIES], model)
        with frozen(model), torch.no_grad():
            logits = model(
                input_ids=batch.inputs,
                attention_mask=batch.mask,
                decoder_input_ids=batch.decoder_inputs,
                use_cache=False,
            ).logits
        values, _ = token_outputs(logits[batch.counted].float(), batch.labels[batch.counted], "log_prob")
        owners = batch.items[:, None].expand_as(batch.labels)[batch.counted]
        sums = values.new_zeros(len(items[start : start + _QUERIES]))
        found.append(sums.index_add_(0, owners, values * batch.weights[batch.counted]).cpu().numpy())
    return np.concatenate(found)


def outcomes(subject: Subject, kept: Kept, folder: Path | None, title: str) -> Floats:
    """Contrasts of the models trained on each row of `kept`, (models, queries); those in `folder` are read."""
    found = []
    for row in tqdm(kept, desc=title, bar_format=_BAR, disable=None):
        path = folder / f"{digest([subject.identity, np.flatnonzero(row).tolist()])}.json" if folder else None
        if path and path.is_file() and (kept_before := _contrasts_in(path, len(subject.queries))) is not None:
            found.append(kept_before)
            continue
        found.append(contrasts(subject.retrain(row), subject.tokenizer, subject.queries))
        if path:
            with whole_file(path) as temporary:
                temporary.write_text(json.dumps(found[-1].tolist()) + "\n", encoding="utf-8")
    return np.stack(found)


def _contrasts_in(path: Path, queries: int) -> Floats | None:
    """The contrasts that a retraining left, (queries,); None where they are damaged, and it is done again."""
    try:
        found = np.array(read_json(path, "the model is trained again"), dtype=np.float32)
        if found.shape != (queries,) or not np.isfinite(found).all():
            raise ValueError(f"{found.shape} finite numbers are not {queries}")
    except (ValueshiftError, ValueError, TypeError) as error:
        log.warning("%s is damaged (%s); the model is trained again", path, error)
        return None
    return found


def check(
    subject: Subject,
    methods: Mapping[str, Method],
    *,
    models: int,
    removals: int,
    seed: int = 0,
    folder: Path | None = None,
) -> tuple[dict[str, pd.DataFrame], Trial]:
    """The tables `lds`, `removal` and `randomisation` of a subject, and the trial behind the first.

    Args:
        subject: what is checked.
        methods: name to method; the first is the one that is checked, the others stand beside it.
        models: trained on random halves.
        removals: queries whose top sentences are left out, two models each.
        seed: of all draws.
        folder: of retrainings that are done.
    """
    name = next(iter(methods))
    found = trial(subject, methods, models, seed, folder)
    k = length(len(subject.examples))
    return {
        "lds": lds_table([found], seed),
        "removal": removal(subject, found.scores[name], k, removals, seed, folder),
        "randomisation": randomisation(found.scores[name], found.scores[SHUFFLED], k),
    }, found


def trial(subject: Subject, methods: Mapping[str, Method], models: int, seed: int, folder: Path | None = None) -> Trial:
    """Train models on random halves, and score the sentences by each method, by the first with shuffled weights, and by none."""
    n = len(subject.examples)
    generator = np.random.default_rng(seed)
    kept = np.stack([generator.permutation(n) < n // 2 for _ in range(models)])
    given = subject.tokenizer, subject.examples, subject.queries
    scores = {name: influence(subject.tuned, *given, method) for name, method in methods.items()}
    scores[SHUFFLED] = influence(shuffled(subject.tuned, seed), *given, next(iter(methods.values())))
    scores["token overlap"] = subject.token_overlap
    scores["random"] = generator.random(subject.token_overlap.shape, dtype=np.float32)
    return Trial(kept, outcomes(subject, kept, folder, "random halves"), scores)


def lds(kept: Kept, found: Floats, scores: Floats) -> Doubles:
    """Linear datamodeling score of each query, (queries,).

    Args:
        kept: (models, sentences).
        found: contrast of each query in each model, (models, queries).
        scores: (sentences, queries).
    """
    return _spearman(_predicted(kept, scores), found.astype(np.float64))


def _predicted(kept: Kept, scores: Floats) -> Doubles:
    """Sum of the scores of the sentences that each model was trained on, (models, queries)."""
    return np.asarray(kept.astype(np.float64) @ scores)


def _spearman(predicted: Doubles, found: Doubles) -> Doubles:
    """Over models, of (models, queries) with (models, queries)."""
    both = stats.rankdata(np.concatenate([predicted, found], axis=1), axis=0)
    x, y = np.split(both - both.mean(axis=0), 2, axis=1)
    with np.errstate(invalid="ignore"):
        result = (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.asarray(np.nan_to_num(result))  # one prediction for all models says nothing


def lds_table(trials: Sequence[Trial], seed: int = 0, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Mean LDS of each method over the queries of all trials, and how much the first method is better.

    Returns:
        One row a method: method, lds, low, high, difference (the first method less this one), difference_low,
        difference_high, queries, models. Intervals are of 95%, by a bootstrap over models and queries that is the same for
        all methods.
    """
    names = list(trials[0].scores)
    pairs = [
        (np.stack([_predicted(one.kept, one.scores[name]) for name in names]), one.outcomes.astype(np.float64))
        for one in trials
    ]
    generator = np.random.default_rng(seed)
    draws = np.array([_mean_lds(_drawn(pairs, generator)) for _ in range(resamples)])
    value = _mean_lds(pairs)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    below, above = np.percentile(draws[:, :1] - draws, [2.5, 97.5], axis=0)
    return pd.DataFrame(
        {
            "method": names,
            "lds": value,
            "low": low,
            "high": high,
            "difference": value[0] - value,
            "difference_low": below,
            "difference_high": above,
            "queries": sum(one.outcomes.shape[1] for one in trials),
            "models": sum(len(one.outcomes) for one in trials),
        }
    )


def _drawn(pairs: Sequence[tuple[Doubles, Doubles]], generator: np.random.Generator) -> list[tuple[Doubles, Doubles]]:
    """Predictions and outcomes of models and queries drawn with replacement."""
    drawn = []
    for predicted, found in pairs:
        places = np.ix_(*(generator.integers(size, size=size) for size in found.shape))
        drawn.append((np.stack([part[places] for part in predicted]), found[places]))
    return drawn


def _mean_lds(pairs: Sequence[tuple[Doubles, Doubles]]) -> Doubles:
    """Mean over queries, then over trials, of each method, (methods,); of (methods, models, queries) predictions."""
    means = []
    for predicted, found in pairs:
        methods = len(predicted)
        each = _spearman(np.concatenate(list(predicted), axis=1), np.tile(found, methods))
        means.append(each.reshape(methods, -1).mean(axis=1))
    return np.asarray(np.mean(means, axis=0))


def removal(
    subject: Subject, scores: Floats, k: int, asked: int, seed: int = 0, folder: Path | None = None
) -> pd.DataFrame:
    """Leave out the top k sentences of some queries, or k random ones, and train again: two models a query.

    Args:
        subject: what is trained again.
        scores: (sentences, queries).
        k: sentences to leave out.
        asked: queries, drawn by seed; all where there are fewer.
        seed: of both draws.
        folder: of retrainings that are done.

    Returns:
        One row: removed (k), top and random (mean change of the contrast against the model trained on all), difference,
        low, high (top less random, 95% over queries), queries. Below zero, the sentences did push.
    """
    n = len(scores)
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(scores.shape[1])[:asked]
    queries, own = len(chosen), np.arange(len(chosen))
    drawn = np.stack([generator.choice(n, k, replace=False) for _ in chosen])
    before = outcomes(subject, np.ones((1, n), dtype=np.bool_), folder, "all sentences")[0, chosen]
    changes = {}
    for name, removed in (("top", ranked(scores[:, chosen], k, "top")), ("random", drawn)):
        kept = np.ones((queries, n), dtype=np.bool_)
        np.put_along_axis(kept, removed, False, axis=1)
        changes[name] = outcomes(subject, kept, folder, f"without {name} {k}")[own, chosen] - before
    differences = (changes["top"] - changes["random"]).astype(np.float64)
    value, low, high = (float(part) for part in intervals.symmetric(mean(differences), own))
    row = {"removed": k, "top": float(changes["top"].mean()), "random": float(changes["random"].mean())}
    return pd.DataFrame([row | {"difference": value, "low": low, "high": high, "queries": queries}])


def shuffled(model: Any, seed: int = 0) -> Any:
    """A copy of a model with the entries of each of its tensors in random order: the same weights, and nothing learned."""
    found = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return found


def randomisation(scores: Floats, without: Floats, k: int) -> pd.DataFrame:
    """What remains of a ranking when the weights are shuffled; both (sentences, queries).

    Returns:
        One row: spearman (mean over queries), overlap (of the top k), chance (k / sentences), queries.
    """
    pairs = zip(scores.T, without.T, strict=True)
    spearman = float(np.mean([stats.spearmanr(learned, other).statistic for learned, other in pairs]))
    overlap = float(overlaps(ranked(scores, k, "top"), ranked(without, k, "top")).mean())
    chance = k / len(scores)
    return pd.DataFrame([{"spearman": spearman, "overlap": overlap, "chance": chance, "queries": scores.shape[1]}])


def recall(scores: Floats, supporting: Kept, contradicting: Kept) -> dict[str, float]:
    """Share of the planted sentences at their end of the ranking, among as many as were planted, mean over queries.

    Args:
        scores: (sentences, queries).
        supporting: which sentences are planted for a query, (sentences, queries).
        contradicting: which are planted against it.
    """
    found: dict[str, float] = {}
    for name, planted, side in (("supporting", supporting, "top"), ("contradicting", contradicting, "bottom")):
        shares = [
            mine[ranked(scores[:, [query]], int(mine.sum()), side)[0]].mean() for query, mine in enumerate(planted.T)
        ]
        found[name] = float(np.mean(shares))
    return found
