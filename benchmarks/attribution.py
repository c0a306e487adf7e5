"""What attribution costs: `python benchmarks/attribution.py [--real-shape] [--streaming]`.

On the planted community (a fine-tuned mT5 of 0.9M parameters, untied; `--models N` adds the LDS of each backend by retraining on
N random halves) or, with `--real-shape`, on random untied weights of mT5-small's shape (300M parameters, 1.2 GB), every backend
makes features of the same sentences: processor time a sentence under one mask, peak memory above the model's, and how many
times the FLOP floor, which is one forward and one backward without gradients of weights, at the machine's measured rate of
matrix products. Beside it the stability of the top 20 over two projections and the Spearman correlation with exact gradients.
`--streaming` scores 10,000 sentences and 3,000 queries from disk, of random features (8 GB at mT5-small's dimension).

Time is processor time a thread, so that other work on the machine does not count.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from scoring import Measured, matmul_rate, measured, memory, operations, real_shape, tokenizer_of
from valueshift.attribution.checks import lds, outcomes
from valueshift.attribution.factorised import FactorisedFeatures
from valueshift.attribution.measurement import Example, Query, masked_examples, query, training_items
from valueshift.attribution.planted import plant
from valueshift.attribution.scoring import Method, influence, made
from valueshift.attribution.solver import dual
from valueshift.attribution.store import in_memory, on_disk
from valueshift.attribution.subjects import of_planted
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.finetune.span_corruption import sentence_tokens, span_corruption

TOP = 20


@dataclass(frozen=True)
class Case:
    """What is attributed."""

    model: Any
    tokenizer: Any
    examples: Sequence[Example]
    queries: Sequence[Query]
    lds: Callable[[Any], float] | None = None
    """Of some scores, by models trained again."""

    @property
    def rows(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])


def toy(models: int) -> Case:
    """The planted community, fine-tuned on all its sentences, and so many models fine-tuned on random halves."""
    subject, score = of_planted(plant()), None
    if models:
        generator = np.random.default_rng(0)
        kept = np.stack(
            [generator.permutation(len(subject.examples)) < len(subject.examples) // 2 for _ in range(models)]
        )
        found = outcomes(subject, kept, None, "random halves")

        def score(scores: Any) -> float:
            return float(lds(kept, found, scores).mean())

    return Case(subject.tuned, subject.tokenizer, subject.examples, subject.queries, score)


def mt5_small(sentences: int) -> Case:
    """Random weights; sentences are two filled probes, about 50 tokens."""
    model, tokenizer, packaged = real_shape(), tokenizer_of(None), probe_set("wvs")
    rows = int(model.get_input_embeddings().weight.shape[0])
    probes = [packaged.probes(code)[number] for number in range(0, 200, 2) for code in packaged.languages]
    texts = [f"{one.filled('first')} {two.filled('second')}" for one, two in itertools.pairwise(probes)][:sentences]
    tokens, _ = sentence_tokens(texts, tokenizer, 500)
    given = [{"example": f"text:xx:{number}", "tokens": ids} for number, ids in enumerate(tokens)]
    examples = masked_examples(given, span_corruption(tokenizer, rows, roll=True), epochs=1)
    return Case(model, tokenizer, examples, [query(probe, "first", tokenizer, rows) for probe in probes[:10]])


def compared(case: Case, methods: dict[str, Method], most: dict[str, int]) -> None:
    """Print one line a method; features of a name in `most` are made of so many sentences only."""
    rate = matmul_rate()
    items = training_items(case.examples, Method(masks="one"), case.tokenizer, case.rows)
    floor = operations(lambda: FactorisedFeatures(case.model, "log_prob", k=1).features(items)) / rate / len(items)
    tokens = np.mean([len(row.encoder) for item in items for row in item.rows])
    print(
        f"{case.model.num_parameters():,} parameters, {len(items)} sentences of {tokens:.0f} tokens, {len(case.queries)} "
        f"queries, {rate / 1e9:.0f} GFLOP/s in matrix products; FLOP floor {1e3 * floor:.2f} ms a sentence"
    )
    table = Table(title_justify="left")
    for column in (
        "backend",
        "dimensions",
        "ms",
        "x floor",
        "peak MB",
        f"top {TOP} stable",
        "Spearman to exact",
        "LDS",
    ):
        table.add_column(column, justify="left" if column == "backend" else "right")
    exact = scores(case, methods.get("exact"))
    for name, method in methods.items():
        once = method.model_copy(update={"masks": "one"})
        few = training_items(case.examples[: most.get(name, len(items))], once, case.tokenizer, case.rows)
        try:
            backend, found = made(case.model, method, seed=0), Measured()
        except ValueshiftError as error:
            print(f"{name}: {error}")
            continue
        for _ in range(1 if name in most else 2):
            measured(partial(in_memory, backend, few, method.batch_size, name), found)
        seconds = found.seconds / len(few)
        cells = [f"{backend.dimension:,}", f"{1e3 * seconds:.2f}", f"{seconds / floor:.1f}", f"{found.megabytes:.0f}"]
        if exact is not None and name not in most:
            one, two = (scores(case, method.model_copy(update={"seeds": (seed,)})) for seed in (0, 1))
            cells += [
                f"{stable(one, two):.2f}",
                f"{agreement(one, exact):.2f}",
                f"{case.lds(one):.2f}" if case.lds else "",
            ]
        table.add_row(name, *cells)
    Console(width=130, highlight=False).print(table)


def scores(case: Case, method: Method | None) -> Any:
    if method is None:
        return None
    return influence(case.model, case.tokenizer, case.examples, case.queries, method)


def stable(one: Any, two: Any) -> float:
    """Share of the top that two projections have in common, mean over queries."""
    tops = [[set(np.argsort(-column)[:TOP]) for column in found.T] for found in (one, two)]
    return float(np.mean([len(left & right) / TOP for left, right in zip(*tops, strict=True)]))


def agreement(one: Any, two: Any) -> float:
    """Spearman correlation, mean over queries."""
    return float(np.mean([spearmanr(left, right).statistic for left, right in zip(one.T, two.T, strict=True)]))


def float16(case: Case) -> None:
    """What is lost in ranks where features are stored in float16."""
    with tempfile.TemporaryDirectory() as folder:
        full, half = (
            influence(
                case.model, case.tokenizer, case.examples, case.queries, Method(stored=stored), Path(folder) / stored
            )
            for stored in ("float32", "float16")
        )
    moved = np.abs(np.argsort(np.argsort(full, axis=0), axis=0) - np.argsort(np.argsort(half, axis=0), axis=0))
    print(
        f"float16 on disk: Spearman {agreement(full, half):.6f}, ranks move by {moved.max()} at most, {moved.mean():.3f} in mean"
    )


@dataclass(frozen=True)
class Random:
    """Features of a given length, the same for the same item."""

    dimension: int

    def features(self, items: Sequence[Any]) -> tuple[Any, Any]:
        made = [
            np.random.default_rng([*item.name.encode()]).standard_normal(self.dimension, dtype=np.float32)
            for item in items
        ]
        return np.stack(made), np.ones(len(items), np.float32)


@dataclass(frozen=True)
class Named:
    """An item of which the backend needs the name only."""

    name: str
    rows: tuple[()] = ()


def streaming(sentences: int, queries: int, dimension: int) -> None:
    """Score from disk, and print time and peak memory."""
    found, backend = Measured(), Random(dimension)
    with tempfile.TemporaryDirectory() as folder:
        train, asked = (
            on_disk(Path(folder) / side, {}, backend, [Named(f"{side}{n}") for n in range(number)], 8, side)  # type: ignore[misc, arg-type]
            for side, number in (("sentences", sentences), ("queries", queries))
        )
        measured(lambda: dual(train, asked, 0.1), found)
    print(
        f"{sentences:,} sentences x {queries:,} queries of {dimension:,} dimensions from disk: {found.seconds:.0f} s, "
        f"peak {found.megabytes:.0f} MB above {memory('VmRSS'):.0f} MB"
    )


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real-shape", action="store_true", help="mT5-small's shape instead of the toy")
    parser.add_argument("--sentences", type=int, help="at the real shape", default=16)
    parser.add_argument("--models", type=int, default=0, help="to train again on halves of the toy")
    parser.add_argument("--streaming", action="store_true", help="score 10,000 x 3,000 from disk instead")
    parser.add_argument("--dimension", type=int, default=149_504, help="of the vectors that are streamed")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.streaming:
        streaming(10_000, 3_000, options.dimension)
    elif options.real_shape:
        methods = {f"factorised, k = {k}": Method(k=k) for k in (64, 32, 16)}
        methods |= {"traker, 4,096": Method(backend="traker", batch_size=1)}
        compared(mt5_small(options.sentences), methods, {})
    else:
        case = toy(options.models)
        methods = {"exact": Method(backend="exact")}
        methods |= {f"factorised, k = {k}": Method(k=k) for k in (64, 32, 16)}
        methods |= {"traker, 128": Method(backend="traker", k=128, batch_size=32)}
        methods |= {"traker, 128, as published": Method.paper(k=128, batch_size=32)}
        methods |= {"traker, 4,096": Method(backend="traker", batch_size=64)}
        compared(case, methods, {"traker, 4,096": 64})
        float16(case)


if __name__ == "__main__":
    main()
