"""What the rankings of training examples say: language shares, overlap of parallel sentences and across test languages.

Tables are those of an attribution record. `influence` has one row per shifted probe, side (`top`: pushed towards the new
answer; `bottom`: against it) and rank: language, question, side, rank, example, train_language. `training` has one row per
training example: example (`<corpus>:<language>:<id>`), language. What is counted for one probe is a cluster: the examples
at the top of one list are not independent of each other, nor are the lists of one question in several languages.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.errors import ValueshiftError
from . import intervals
from .bootstrap import Floats
from .significance import adjusted, randomised_p

SIDES = ("top", "bottom")
PERMUTATIONS = 9_999
ALL = "all"
_ROWS = 250  # permutations made at once: bounds memory, not results


@dataclass(frozen=True)
class Attributed:
    """The attribution of one fine-tuned model: `queries` (language, question, answer_tuned), `influence`, `training`."""

    queries: pd.DataFrame
    influence: pd.DataFrame
    training: pd.DataFrame


def overlaps(first: NDArray[np.intp], second: NDArray[np.intp]) -> Floats:
    """Share of each row of `first` that is also in that row of `second`; both (queries, k), each row without repeats."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    result: Floats = (both[:, 1:] == both[:, :-1]).sum(axis=1) / first.shape[1]
    return result


def stability(lists: NDArray[np.intp]) -> Floats:
    """Mean overlap of the top-k between every two rankings of the same queries, such as those of projection seeds.

    Args:
        lists: the top-k of each ranking, (rankings, queries, k).

    Returns:
        (queries,), NaN where there is one ranking only. Of two random rankings of n examples it is k / n.
    """
    pairs = [overlaps(first, second) for first, second in combinations(lists, 2)]
    return np.mean(pairs, axis=0) if pairs else np.full(lists.shape[1], np.nan)


def language_shares(
    influence: pd.DataFrame, training: pd.DataFrame, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> pd.DataFrame:
    """Share of each fine-tuning language among the top and bottom examples of the shifted probes [Fig. 6, 14].

    Args:
        influence: rows of the shifted probes.
        training: the examples that were ranked.
        permutations: of the languages over the training examples. Both the number of examples of each language and the
            lists stay as they are, so that what several probes share in their lists is in the null distribution too.
        seed: of the permutations.

    Returns:
        One row per test language, side and fine-tuning language: language, side, train_language; share, averaged over
        the probes; low, high (clustered by probe; missing where there are fewer than three); base_rate, the language's
        share of the training examples; odds_ratio of share against base rate; p that the ranking does not know the
        language, adjusted (Benjamini-Hochberg over the table); n (probes).

    Raises:
        ValueshiftError: there is no row, or an example that was not trained on.
    """
    if influence.empty:
        raise ValueshiftError("no probe shifted, so no example has an influence; there is no share to compute")
    places = pd.Series(np.arange(len(training)), index=training["example"])
    if len(unknown := influence.loc[~influence["example"].isin(places.index), "example"]):
        raise ValueshiftError(f"example {unknown.iloc[0]} is not among the training examples of the finetune record")
    names = list(dict.fromkeys(training["language"]))
    labels = training["language"].map({name: number for number, name in enumerate(names)}).to_numpy(dtype=np.int16)
    rates = np.bincount(labels, minlength=len(names)) / len(labels)
    cells = list(influence.groupby(["language", "side"], sort=False))
    times = np.stack([np.bincount(places[cell["example"]], minlength=len(places)) for _, cell in cells])
    p = _permutation_p(times, labels, rates, permutations, seed)
    rows: list[dict[str, object]] = []
    for place, ((language, side), cell) in enumerate(cells):
        probes = pd.factorize(cell["question"])[0]
        for number, name in enumerate(names):
            found = intervals.share((cell["train_language"] == name).to_numpy(dtype=np.bool_), probes)
            row: dict[str, object] = {"language": language, "side": side, "train_language": name}
            row |= {"share": found.value, "low": found.low, "high": found.high, "base_rate": rates[number]}
            row |= {"odds_ratio": _odds_ratio(found.value, rates[number]), "p": p[place, number]}
            rows.append(row | {"n": int(probes.max()) + 1})
    table = pd.DataFrame(rows)
    table.insert(list(table.columns).index("p") + 1, "adjusted", adjusted(table["p"]))
    return table


def parallel_overlap(models: Mapping[str, Attributed]) -> pd.DataFrame:
    """Share of the top examples that are translations of each other, between fine-tuning languages [section 7].

    Compared are probes of the same test language, question and new answer.

    Args:
        models: fine-tuning language to the attribution of the model that was tuned on it alone, on parallel sentences.

    Returns:
        As `cross_test_overlap`; `first` and `second` are fine-tuning languages.

    Raises:
        ValueshiftError: fewer than two models.
    """
    if len(models) < 2:
        raise ValueshiftError("parallel sentences are compared between fine-tuning languages; give two models or more")
    lists = {name: _lists(model, translations=True) for name, model in models.items()}
    keys = ["language", "question", "answer_tuned"]
    moved = {name: set(model.queries[keys].itertuples(index=False, name=None)) for name, model in models.items()}
    pairs = {
        (a, b): [
            _Pair(question, lists[a][language, question], lists[b][language, question])
            for language, question, _ in sorted(moved[a] & moved[b])
        ]
        for a, b in combinations(models, 2)
    }
    examples = {name: _sentences(model.training["example"]) for name, model in models.items()}
    common = {(a, b): len(set(examples[a]) & set(examples[b])) / len(examples[a]) / len(examples[b]) for a, b in pairs}
    return _overlap_table(pairs, common)


def cross_test_overlap(model: Attributed) -> pd.DataFrame:
    """Share of the top examples that are the same for a question in two test languages that both shifted [section 7].

    Returns:
        One row per pair of test languages, and last the pooled one, `all`: first, second; overlap, averaged over probes;
        low, high (clustered by question; missing where there are fewer than three); maximum over probes; chance, the
        overlap of random lists; n (pairs of probes). Overlaps are missing where no question shifted in both.
    """
    lists = _lists(model, translations=False)
    questions: dict[str, set[str]] = {}
    for language, question in lists:
        questions.setdefault(language, set()).add(question)
    pairs = {
        (a, b): [_Pair(name, lists[a, name], lists[b, name]) for name in sorted(questions[a] & questions[b])]
        for a, b in combinations(questions, 2)
    }
    return _overlap_table(pairs, dict.fromkeys(pairs, 1 / len(model.training)))


@dataclass(frozen=True)
class _Pair:
    """The top lists of one question under two conditions."""

    question: str
    first: list[str]
    second: list[str]

    @property
    def hits(self) -> list[bool]:
        """Whether each of the shorter list is in the longer."""
        shorter, longer = sorted((self.first, self.second), key=len)
        known = set(longer)
        return [example in known for example in shorter]


def _overlap_table(
    pairs: Mapping[tuple[str, str], list[_Pair]], common: Mapping[tuple[str, str], float]
) -> pd.DataFrame:
    """Rows of all pairs and of what they are together; `common` is the chance that two random draws are the same."""
    rows = [{"first": a, "second": b} | _overlap(found, common[a, b]) for (a, b), found in pairs.items()]
    pooled = [pair for found in pairs.values() for pair in found]
    chance = [common[names] for names, found in pairs.items() for _ in found]
    rows.append({"first": ALL, "second": ALL} | _overlap(pooled, float(np.mean(chance)) if chance else np.nan))
    return pd.DataFrame(rows)


def _overlap(pairs: list[_Pair], common: float) -> dict[str, Any]:
    if not pairs:
        return dict.fromkeys(("overlap", "low", "high", "maximum", "chance"), np.nan) | {"n": 0}
    hits = [pair.hits for pair in pairs]
    groups = np.repeat(pd.factorize(np.array([pair.question for pair in pairs]))[0], [len(each) for each in hits])
    found = intervals.share(np.concatenate(hits), groups)
    longest = float(np.mean([max(len(pair.first), len(pair.second)) for pair in pairs]))
    return {
        "overlap": found.value,
        "low": found.low,
        "high": found.high,
        "maximum": max(float(np.mean(each)) for each in hits),
        "chance": longest * common,
        "n": len(pairs),
    }


def _lists(model: Attributed, *, translations: bool) -> dict[tuple[str, str], list[str]]:
    """The top examples of each test language and question, or the sentences that they are a translation of."""
    top = model.influence[model.influence["side"] == "top"].sort_values("rank")
    return {
        (str(language), str(question)): _sentences(found["example"]) if translations else found["example"].tolist()
        for (language, question), found in top.groupby(["language", "question"], sort=False)
    }


def _sentences(examples: Iterable[str]) -> list[str]:
    """`<corpus>:<id>` of each `<corpus>:<language>:<id>`."""
    parts = (example.split(":", 2) for example in examples)
    return [f"{corpus}:{sentence}" for corpus, _, sentence in parts]


def _permutation_p(
    times: NDArray[np.intp], labels: NDArray[np.int16], rates: Floats, permutations: int, seed: int
) -> Floats:
    """p-values, (cells, languages), of shares whose labels are permuted over the examples.

    `times` is how often each example is in the lists of each cell, (cells, examples); `labels` numbers their languages.
    """
    generator = np.random.default_rng(seed)
    shares = [_shares(times, labels[None], len(rates))]
    for start in range(0, permutations, _ROWS):
        rows = np.broadcast_to(labels, (min(_ROWS, permutations - start), len(labels)))
        shares.append(_shares(times, generator.permuted(rows, axis=1), len(rates)))
    return randomised_p(np.concatenate(shares) - rates)


def _shares(times: NDArray[np.intp], labels: NDArray[np.int16], languages: int) -> Floats:
    """(rows, cells, languages) of (rows, examples) labels."""
    counts = [(labels == language).astype(np.float64) @ times.T.astype(np.float64) for language in range(languages)]
    result: Floats = np.stack(counts, axis=-1) / times.sum(axis=1)[:, None]
    return result


def _odds_ratio(share: float, rate: float) -> float:
    """Odds of the share over odds of the base rate: infinite at a share of 1, missing where there is one language."""
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.array([share, rate]) / (1 - np.array([share, rate]))
        return float(odds[0] / odds[1])
