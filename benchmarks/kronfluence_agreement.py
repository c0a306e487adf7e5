"""Whether kronfluence ranks training sentences as we do: `python benchmarks/kronfluence_agreement.py [--seed N]`.

kronfluence (Grosse et al. 2023) asks for torchvision, which nothing here imports; beside this package it needs no more than

    pip install --no-deps kronfluence einconv einops opt-einsum

It is given our measurements of a planted community (the fine-tuned toy, 240 sentences, 6 queries): as training loss the weighted
sum of log p that `training_items` says, with its sign, and as measurement the contrast of `query_items`. Both are linear in
passes, so each pass is one of its examples and the scores of an item's passes are added. Strategy `identity` is the inner
product of gradients, `ekfac` its influence function with the library's damping heuristic (a tenth of a matrix's mean
eigenvalue), the curvature fitted on every sentence under its first mask, labels sampled from the model (true Fisher) or as they
are (empirical Fisher).

It covers linear layers; embedding, norms and position biases are ours only. Printed are the share of planted sentences that each
finds, with the median size of the other scores relative to theirs; and of ours with each of theirs: Spearman correlation over
all sentences, over those planted for a query and over the others, and the share of the top 20 in common; mean over queries and
range. Takes about two minutes and 2.5 GB on one core.
"""

import argparse
import copy
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor, nn
from valueshift.attribution.checks import recall
from valueshift.attribution.exact import ExactFeatures
from valueshift.attribution.features import batched
from valueshift.attribution.measurement import Item, Row, query_items, training_items
from valueshift.attribution.planted import Planted, plant
from valueshift.attribution.scoring import Method, influence
from valueshift.attribution.solver import dual
from valueshift.attribution.store import InMemory, in_memory
from valueshift.attribution.subjects import of_planted

try:
    from kronfluence.analyzer import Analyzer, prepare_model  # type: ignore[import-not-found]
    from kronfluence.arguments import FactorArguments, ScoreArguments  # type: ignore[import-not-found]
    from kronfluence.task import Task  # type: ignore[import-not-found]
except ModuleNotFoundError as error:
    print(
        f"{error.name} is not installed; run `pip install --no-deps kronfluence einconv einops opt-einsum`",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

Scores = NDArray[np.float64]
warnings.filterwarnings("ignore", category=FutureWarning, module="kronfluence")

TOP = 20

THEIRS: dict[str, dict[str, Any]] = {
    "identity": {"strategy": "identity"},
    "ekfac": {"strategy": "ekfac"},
    "ekfac, empirical Fisher": {"strategy": "ekfac", "use_empirical_fisher": True},
}


class WeightedLogProb(Task):
    """The weighted sum of log p over the targets of a batch of passes, of training sentences and queries alike."""

    def compute_train_loss(self, batch: dict[str, Tensor], model: nn.Module, sample: bool = False) -> Tensor:
        log_probs = model(
            input_ids=batch["inputs"],
            attention_mask=batch["mask"],
            decoder_input_ids=batch["decoder_inputs"],
            use_cache=False,
        ).logits.log_softmax(-1)
        labels = batch["labels"]
        if sample:
            labels = torch.distributions.Categorical(logits=log_probs.detach()).sample()  # type: ignore[no-untyped-call]
        total: Tensor = (batch["weights"] * log_probs.gather(-1, labels[..., None])[..., 0]).sum()
        return total

    def compute_measurement(self, batch: dict[str, Tensor], model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)


def kronfluence_scores(model: Any, sentences: Sequence[Item], queries: Sequence[Item], seed: int) -> dict[str, Scores]:
    """Scores of each strategy, shape (sentences, queries)."""
    task = WeightedLogProb()
    train, asked, fitted = (
        passes(items, model) for items in (sentences, queries, [first_mask(one) for one in sentences])
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_model(copy.deepcopy(model), task)
        analyzer = Analyzer("agreement", prepared, task, cpu=True, disable_tqdm=True, output_dir=folder)
        for name, arguments in THEIRS.items():
            torch.manual_seed(seed)  # of the sampled labels
            analyzer.fit_all_factors(name, fitted, per_device_batch_size=1, factor_args=FactorArguments(**arguments))
            analyzer.compute_pairwise_scores(
                name,
                name,
                query_dataset=asked,
                train_dataset=train,
                per_device_query_batch_size=1,
                per_device_train_batch_size=1,
                score_args=ScoreArguments(damping_factor=None, query_gradient_accumulation_steps=len(asked)),
            )
            scores = analyzer.load_pairwise_scores(name)["all_modules"]  # (passes of queries, passes of sentences)
            found[name] = owners(sentences).T @ scores.double().numpy().T @ owners(queries)
    return found


def passes(items: Sequence[Item], model: Any) -> list[dict[str, Tensor]]:
    """Every pass of some items, as the model takes it."""
    rows = [batched([Item("", (row,))], model) for item in items for row in item.rows]
    return [
        {name: getattr(row, name)[0] for name in ("inputs", "mask", "decoder_inputs", "labels", "weights")}
        for row in rows
    ]


def owners(items: Sequence[Item]) -> Scores:
    """1 where a pass is an item's, shape (passes, items)."""
    return np.repeat(np.eye(len(items)), [len(item.rows) for item in items], axis=0)


def first_mask(item: Item) -> Item:
    """A sentence under its first mask, as training saw it: each counted target once."""
    row = item.rows[0]
    return Item(item.name, (Row(row.encoder, row.labels, tuple(float(weight != 0) for weight in row.weights)),))


def our_scores(subject: Any, sentences: Sequence[Item], queries: Sequence[Item]) -> dict[str, Scores]:
    """Inner products of exact gradients, the same damped, and the default, shape (sentences, queries)."""
    model = subject.tuned
    exact = ExactFeatures(model, "log_prob")
    train, asked = (in_memory(exact, items, 32, "exact").values for items in (sentences, queries))
    sizes = [parameter.numel() for parameter in exact.parameters.values()]
    linear = np.repeat([of_linear(model, name) for name in exact.parameters], sizes)
    print(f"linear layers hold {linear.mean():.0%} of {len(linear):,} parameters")
    return {
        "gradient products, linear layers": (train[:, linear] @ asked[:, linear].T).astype(np.float64),
        "gradient products": (train @ asked.T).astype(np.float64),
        "damped": dual(whole(train), whole(asked), Method().damping),
        "default": influence(model, subject.tokenizer, subject.examples, subject.queries).astype(np.float64),
    }


def whole(values: Any) -> InMemory:
    """Exact features as the solver takes them; Q is of no account with log-probabilities."""
    return InMemory(values, np.ones(len(values), np.float32))


def of_linear(model: Any, name: str) -> bool:
    """Whether a parameter is a linear layer's."""
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Linear)


def spearman(one: Scores, two: Scores) -> float:
    return float(spearmanr(one, two).statistic)


def top_shared(one: Scores, two: Scores) -> float:
    tops = [set(np.argsort(-scores)[:TOP]) for scores in (one, two)]
    return len(tops[0] & tops[1]) / TOP


def others_size(scores: Scores, stated: NDArray[np.bool_]) -> float:
    sizes = np.abs(scores)
    return float(np.median(sizes[~stated]) / np.median(sizes[stated]))


def compared(planted: Planted, ours: dict[str, Scores], theirs: dict[str, Scores]) -> None:
    """Print both tables."""
    roles = planted.role("supporting"), planted.role("contradicting")
    everything, stated = np.ones_like(roles[0]), roles[0] | roles[1]
    found = Table("planted found", "supporting", "contradicting", "size of others")
    for name, scores in (theirs | ours).items():
        shares = recall(scores.astype(np.float32), *roles).values()
        sizes = [others_size(*pair) for pair in by_query(scores, stated, everything)]
        found.add_row(name, *(f"{share:.2f}" for share in shares), f"{min(sizes):.3f} to {max(sizes):.3f}")
    table = Table("", "ours", *theirs)
    measures: tuple[tuple[str, Callable[[Scores, Scores], float], NDArray[np.bool_]], ...] = (
        ("Spearman, all sentences", spearman, everything),
        ("Spearman, planted ones", spearman, stated),
        ("Spearman, all others", spearman, ~stated),
        (f"top {TOP} in common", top_shared, everything),
    )
    for title, measure, over in measures:
        for name, mine in ours.items():
            values = [[measure(*pair) for pair in by_query(mine, other, over)] for other in theirs.values()]
            table.add_row(title, name, *(f"{np.mean(one):.3f} ({min(one):.3f} to {max(one):.3f})" for one in values))
        table.add_section()
    console = Console(width=150, highlight=False)
    console.print(found)
    console.print(table)


def by_query(one: Any, two: Any, over: NDArray[np.bool_]) -> list[tuple[Any, Any]]:
    """Both values of each query over some sentences."""
    return [(one[chosen, query], two[chosen, query]) for query, chosen in enumerate(over.T)]


def main() -> None:
    """Print what is compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the community and of sampled labels")
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    planted = plant(seed=seed)
    subject = of_planted(planted, seed)
    rows = subject.tuned.get_input_embeddings().weight.shape[0]
    sentences = training_items(subject.examples, Method(), subject.tokenizer, rows)
    queries = query_items(subject.queries, Method(), subject.tokenizer, rows)
    print(f"{len(sentences)} sentences, {len(queries)} queries, seed {seed}")
    theirs = kronfluence_scores(subject.tuned, sentences, queries, seed)
    compared(planted, our_scores(subject, sentences, queries), theirs)


if __name__ == "__main__":
    main()
