"""Scores against formulas by hand, the traker library run as published, and planted sentences; what is refused."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import ValidationError
from tolerances import GRADIENT
from valueshift.attribution.exact import ExactFeatures
from valueshift.attribution.features import batched
from valueshift.attribution.measurement import (
    Example,
    Masked,
    Query,
    masked_examples,
    output_of,
    query,
    query_items,
    training_items,
)
from valueshift.attribution.scoring import Method, Parts, combined, influence, parts
from valueshift.attribution.solver import dual, kernels, primal, solved
from valueshift.attribution.store import InMemory
from valueshift.attribution.traker_backend import ItemOutput, by_item
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.core.sentinels import resolve_sentinels
from valueshift.finetune.span_corruption import sentence_tokens, span_corruption
from valueshift.finetune.training import with_adapter
from valueshift.harness_ext.models import load_model, load_tokenizer

Loaded = tuple[Any, Any, list[Example], list[Query]]


@pytest.fixture(scope="module")
def loaded(tiny_mt5: Callable[..., Path], sentences: list[str]) -> Loaded:
    """A random untied mT5 with 24 sentences under two masks, and 5 queries."""
    folder = str(tiny_mt5())
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    rows = model.get_input_embeddings().weight.shape[0]
    tokens, _ = sentence_tokens(sentences[:240:10], tokenizer, 100)
    given = [{"example": f"toy:ro:{number}", "tokens": ids} for number, ids in enumerate(tokens)]
    examples = masked_examples(given, span_corruption(tokenizer, rows, roll=True), epochs=2)
    return (
        model,
        tokenizer,
        examples,
        [query(probe, "second", tokenizer, rows) for probe in probe_set("wvs").probes("de")[:5]],
    )


def random(n: int, queries: int, dimension: int, seed: int = 0) -> tuple[InMemory, InMemory]:
    generator = np.random.default_rng(seed)
    left, right = (generator.normal(size=(size, dimension)).astype(np.float32) for size in (n, queries))
    return InMemory(left, np.ones(n, np.float32)), InMemory(right, np.ones(queries, np.float32))


def gradients(
    loaded: Loaded, method: Method
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Exact gradients of sentences and queries, and Q."""
    model, tokenizer, examples, queries = loaded
    backend, rows = ExactFeatures(model, output_of(method)), model.get_input_embeddings().weight.shape[0]
    train, wrong = backend.features(training_items(examples, method, tokenizer, rows))
    asked, _ = backend.features(query_items(queries, method, tokenizer, rows))
    return train.astype(np.float64), asked.astype(np.float64), wrong


def test_the_default_equals_its_formula_by_hand(loaded: Loaded) -> None:
    """(Phi Phi' + lambda I)^-1 Phi phi, lambda the mean eigenvalue; for contrasts there is no Q."""
    train, asked, _ = gradients(loaded, Method())
    kernel = train @ train.T
    lam = np.linalg.eigvalsh(kernel).mean()
    expected = np.linalg.inv(kernel + lam * np.eye(len(kernel))) @ train @ asked.T
    found = influence(*loaded, Method(backend="exact"))
    assert found.dtype == np.float32 and found.shape == (24, 5)
    assert np.abs(found - expected).max() <= GRADIENT * np.abs(expected).max()


def test_margins_are_multiplied_by_q_as_trak_does(loaded: Loaded) -> None:
    method = Method(measurement="paper", targets="all", backend="exact", damping=0.3)
    train, asked, wrong = gradients(loaded, method)
    kernel = train @ train.T
    lam = 0.3 * np.trace(kernel) / len(kernel)
    expected = np.linalg.inv(kernel + lam * np.eye(len(kernel))) @ train @ asked.T * wrong[:, None]
    assert np.abs(influence(*loaded, method) - expected).max() <= GRADIENT * np.abs(expected).max()
    assert wrong.min() > 0 and np.ptp(wrong) > 0


def test_paper_mode_equals_the_library_run_from_beginning_to_end(loaded: Loaded, tmp_path: Path) -> None:
    """featurize, finalize_features, score and finalize_scores of traker with its defaults, 16 dimensions for 24 sentences."""
    from trak import TRAKer

    model, tokenizer, examples, queries = loaded
    method, rows = Method.paper(k=16, seeds=(7,)), model.get_input_embeddings().weight.shape[0]
    one_mask = [Example(one.example, one.masks[:1]) for one in examples]

    def traker() -> Any:
        return TRAKer(
            model=model,
            task=ItemOutput("margin"),
            train_set_size=len(examples),
            save_dir=str(tmp_path),
            device="cpu",
            proj_dim=16,
            projector_seed=7,
            use_half_precision=False,
            logging_level=50,
        )

    weights = model.state_dict()
    featurizing = traker()
    featurizing.load_checkpoint(weights, model_id=0)
    train = by_item(training_items(one_mask, method, tokenizer, rows), model)
    featurizing.featurize(train, num_samples=len(examples))
    featurizing.finalize_features()
    scoring = traker()  # after finalize_features the first one's projection is gone
    scoring.start_scoring_checkpoint("all", weights, model_id=0, num_targets=len(queries))
    scoring.score(by_item(query_items(queries, method, tokenizer, rows), model), num_samples=5)
    expected = np.array(scoring.finalize_scores("all"))
    found = influence(model, tokenizer, one_mask, queries, method)
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("dimension", [10, 60])
def test_primal_and_dual_are_the_same_function(dimension: int) -> None:
    """Up to the constant that the library divides its inverse by."""
    train, asked = random(40, 6, dimension)
    left, right = dual(train, asked, damping=0.3), primal(train, asked, damping=0.3)
    constant = (left * right).sum() / (left**2).sum()
    assert constant > 0 and np.abs(right - constant * left).max() < 1e-4 * np.abs(right).max()


def test_kernels_in_blocks_are_the_plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    from valueshift.attribution import solver

    train, asked = random(50, 7, 93)
    monkeypatch.setattr(solver, "_CHUNK", 600)  # ten dimensions at a time
    monkeypatch.setattr(solver, "_STRIP", 16)
    kernel, cross = kernels(train, asked)
    exact = train.values.astype(np.float64)
    expected = exact @ exact.T
    rounding = 1e-5 * np.abs(expected).max()  # of sums of ten products in float32; one and its mirror image may differ
    assert np.abs(kernel - expected).max() < rounding
    assert np.abs(cross - exact @ asked.values.T).max() < rounding


def test_scores_of_several_are_mean_scores_times_mean_q() -> None:
    """By hand, and with one zero Q: not the mean of products."""
    one = Parts(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.5, 0.0], np.float32))
    two = Parts(np.array([[3.0, 0.0], [1.0, 2.0]]), np.array([0.1, 1.0], np.float32))
    assert combined([one, two]) == pytest.approx(np.array([[0.6, 0.3], [1.0, 1.5]]))
    with pytest.raises(ValueshiftError, match="different sentences or queries"):
        combined([one, Parts(np.zeros((3, 2)), np.ones(3, np.float32))])
    with pytest.raises(ValueshiftError, match="none"):
        combined([])


def test_several_seeds_are_averaged_and_come_nearer_to_exact_scores(loaded: Loaded) -> None:
    members = [influence(*loaded, Method(k=8, seeds=(seed,))) for seed in range(6)]
    together = influence(*loaded, Method(k=8, seeds=tuple(range(6))))
    assert np.abs(together - np.mean(members, axis=0)).max() <= GRADIENT * np.abs(members).max()
    exact = influence(*loaded, Method(backend="exact"))
    near = [np.corrcoef(scores.ravel(), exact.ravel())[0, 1] for scores in (together, *members)]
    assert near[0] > max(near[1:])


@pytest.mark.parametrize("shift", list(itertools.product(("factorised", "exact"), ("first", "second"))))
def test_top_is_what_pushed_towards_the_new_answer_in_either_direction(loaded: Loaded, shift: tuple[Any, Any]) -> None:
    """The probe filled with its tuned answer comes first, with its base answer last, whichever option that is."""
    backend, tuned = shift
    model, tokenizer, examples, _ = loaded
    rows = model.get_input_embeddings().weight.shape[0]
    asked = [query(probe, tuned, tokenizer, rows) for probe in probe_set("wvs").probes("de")[:5]]
    opening, closing = resolve_sentinels(tokenizer, rows).ids[:2]

    def filled(name: str, one: Query, answer: tuple[int, ...]) -> Example:
        return Example(name, (Masked(one.encoder, (opening, *answer, closing, tokenizer.eos_token_id)),))

    for one in asked:
        planted = [filled("new", one, one.tuned), filled("old", one, one.base)]
        scores = influence(model, tokenizer, [*planted, *examples], [one], Method(backend=backend))[:, 0]
        assert scores[0] > 0 > scores[1]
        assert scores.argmax() == 0 and scores.argmin() == 1


def test_a_step_along_a_gradient_moves_the_answer_as_its_influence_says(
    tiny_mt5: Callable[..., Path], loaded: Loaded
) -> None:
    """A small step of training on one sentence changes each contrast by rate times the inner product of their gradients."""
    model, tokenizer, examples, queries = loaded
    train, asked, _ = gradients(loaded, Method(targets="all"))
    rows, rate = model.get_input_embeddings().weight.shape[0], 1e-7
    moved = load_model(str(tiny_mt5()), dtype=torch.float64)
    before = contrasts(moved, tokenizer, queries, rows)
    for mask in examples[3].masks:  # training's own loss, the mean over tokens, times their number
        labels = torch.tensor([mask.labels])
        loss = (
            moved(input_ids=torch.tensor([mask.encoder]), labels=labels).loss * labels.numel() / len(examples[3].masks)
        )
        loss.backward()
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter -= rate * parameter.grad
    expected = rate * asked @ train[3]
    assert contrasts(moved, tokenizer, queries, rows) - before == pytest.approx(
        expected, abs=0.01 * np.abs(expected).max()
    )


def contrasts(model: Any, tokenizer: Any, queries: list[Query], rows: int) -> npt.NDArray[np.float64]:
    batch = batched(query_items(queries, Method(), tokenizer, rows), model)
    with torch.inference_mode():
        logits = model(input_ids=batch.inputs, attention_mask=batch.mask, decoder_input_ids=batch.decoder_inputs).logits
    log_probs = logits.log_softmax(-1).gather(-1, batch.labels[..., None])[..., 0]
    sums = (log_probs * batch.weights).sum(1)
    found = torch.zeros(len(queries), dtype=sums.dtype).index_add_(0, batch.items, sums)
    return found.double().numpy()


def test_an_adapter_is_attributed_by_its_own_weights(tiny_mt5: Callable[..., Path], loaded: Loaded) -> None:
    _, *rest = loaded
    model = with_adapter(load_model(str(tiny_mt5())), seed=0)
    found, expected = (influence(model, *rest, Method(backend=backend)) for backend in ("factorised", "exact"))
    assert (
        np.abs(found - expected).max() <= GRADIENT * np.abs(expected).max()
    )  # its sides are small: nothing is projected


class TestRefusals:
    def test_as_many_dimensions_as_sentences_without_damping(self, loaded: Loaded) -> None:
        with pytest.raises(
            ValueshiftError, match="4,096 projected dimensions are not fewer than the 24 training.*such as 1 or fewer"
        ):
            influence(*one_mask(loaded), Method.paper())
        method = Method.paper(k=30, paper_strict=True)
        with pytest.warns(UserWarning, match="30 projected dimensions.*the scores mean nothing"):
            assert influence(*one_mask(loaded), method).shape == (24, 5)

    def test_fewer_dimensions_than_sentences_in_an_undamped_dual(self) -> None:
        train, asked = random(12, 2, 5)
        with pytest.raises(ValueshiftError, match="no inverse at damping 0"):
            dual(train, asked, damping=0)

    def test_no_gradient_at_all(self) -> None:
        nothing = InMemory(np.zeros((3, 4), np.float32), np.ones(3, np.float32))
        for solver in ("dual", "primal"):
            with pytest.raises(ValueshiftError, match="gradient of every training sentence is zero"):
                solved(nothing, nothing, solver, 0.1)

    def test_a_primal_too_large(self, loaded: Loaded) -> None:
        with pytest.raises(ValueshiftError, match="use the dual"):
            influence(*loaded, Method(solver="primal"))

    def test_another_dtype_no_sentence_and_a_projection_of_exact(self, loaded: Loaded) -> None:
        model, tokenizer, examples, queries = loaded
        with pytest.raises(ValueshiftError, match="float32, the method says bfloat16"):
            influence(*loaded, Method(dtype="bfloat16"))
        with pytest.raises(ValueshiftError, match="at least one training sentence"):
            parts(model, tokenizer, [], queries, Method(), seed=0)
        with pytest.raises(ValueshiftError, match="leave k out"):
            influence(model, tokenizer, examples, queries, Method(backend="exact", k=8))

    def test_a_setting_that_does_not_exist(self) -> None:
        for settings in ({"lamda": 1}, {"damping": -1}, {"k": 0}, {"seeds": ()}, {"backend": "trak"}):
            with pytest.raises(ValidationError):
                Method(**settings)
        assert Method.paper(seeds=(3,)).seeds == (3,) and Method.paper().damping == 0


def one_mask(loaded: Loaded) -> Loaded:
    model, tokenizer, examples, queries = loaded
    return model, tokenizer, [Example(one.example, one.masks[:1]) for one in examples], queries
