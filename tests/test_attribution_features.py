"""Features against autograd: the factorised backend, the exact one, and the traker library."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tolerances import GRADIENT, PROBABILITY
from valueshift.attribution.exact import ExactFeatures
from valueshift.attribution.factorised import BUDGET, FactorisedFeatures
from valueshift.attribution.features import batched
from valueshift.attribution.measurement import (
    Item,
    Measurement,
    Output,
    masked_examples,
    output_of,
    query,
    query_items,
    training_items,
)
from valueshift.attribution.scoring import Method
from valueshift.attribution.traker_backend import TrakerFeatures
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.finetune.span_corruption import sentence_tokens, span_corruption
from valueshift.finetune.training import with_adapter
from valueshift.harness_ext.models import load_model, load_tokenizer

WHOLE = 10**6
"""A k at which nothing is projected."""


def double(folder: Path) -> Any:
    """In float64, in which rounding does not hide a mistake."""
    return load_model(str(folder), dtype=torch.float64)


def items_of(folder: Path, sentences: Sequence[str], how: Method, epochs: int = 2) -> tuple[list[Item], list[Item]]:
    """Five sentences of different lengths under `epochs` masks, and three queries."""
    tokenizer, rows = load_tokenizer(str(folder)), 2032
    tokens, _ = sentence_tokens([*sentences[:400:100], " ".join(sentences[:4])], tokenizer, 100)
    given = [{"example": f"toy:de:{number}", "tokens": ids} for number, ids in enumerate(tokens)]
    examples = masked_examples(given, span_corruption(tokenizer, rows, roll=True), epochs, how.masks)
    queries = [query(probe, "second", tokenizer, rows) for probe in probe_set("wvs").probes("bn")[:3]]
    return training_items(examples, how, tokenizer, rows), query_items(queries, how, tokenizer, rows)


def by_autograd(model: Any, item: Item, output: Output) -> dict[int, npt.NDArray[np.float64]]:
    """Gradient of the measured number by every parameter, one row at a time and without padding."""
    found: dict[int, npt.NDArray[np.float64]] = {}
    for row in item.rows:
        model.zero_grad()
        decoder = torch.tensor([[model.config.decoder_start_token_id, *row.labels[:-1]]])
        logits = model(input_ids=torch.tensor([row.encoder]), decoder_input_ids=decoder).logits[0]
        p = logits.softmax(-1)[torch.arange(len(row.labels)), torch.tensor(row.labels)]
        measured = p.log() if output == "log_prob" else (p / (1 - p)).log()
        (torch.tensor(row.weights) * measured).sum().backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                found[id(parameter)] = found.get(id(parameter), 0.0) + parameter.grad.double().numpy()
    return found


@pytest.mark.parametrize("measurement", ["contrast", "answer_margin", "paper"])
@pytest.mark.parametrize("untied", [True, False])
def test_factorised_equals_autograd_at_full_rank(
    tiny_mt5: Callable[..., Path], sentences: list[str], measurement: Measurement, untied: bool
) -> None:
    folder, how = tiny_mt5(untied=untied), Method(measurement=measurement)
    model = double(folder)
    backend = FactorisedFeatures(model, output_of(how), k=WHOLE)
    covered = [parameter for parameter in model.parameters() if id(parameter) in backend.blocks]
    assert len(backend.blocks) == 2 * 7 + 2 * 11 + (2 if untied else 1)  # two layers of each stack, embedding, head
    assert sum(map(torch.numel, covered)) > 0.99 * model.num_parameters()
    for side in items_of(folder, sentences, how):
        found, _ = backend.features(side)
        for item, vector in zip(side, found, strict=True):
            expected = by_autograd(model, item, output_of(how))
            whole = np.concatenate([expected[key].ravel() for key in backend.blocks])
            assert np.linalg.norm(vector - whole) <= 1e-6 * np.linalg.norm(whole)
    assert all(parameter.requires_grad for parameter in model.parameters())  # the model is as it was


def test_a_projection_is_applied_to_both_sides(tiny_mt5: Callable[..., Path], sentences: list[str]) -> None:
    """A block's features are R' G C of its autograd gradient G, also where embedding and head share it."""
    folder, how = tiny_mt5(untied=False), Method()
    model = double(folder)
    backend = FactorisedFeatures(model, "log_prob", k=8, seed=3)
    items, _ = items_of(folder, sentences, how)
    found, _ = backend.features(items[:1])
    gradients = by_autograd(model, items[0], "log_prob")
    start = 0
    for key, block in backend.blocks.items():
        expected = block.rows.numpy().T @ gradients[key] @ block.columns.numpy()
        part = found[0, start : start + block.dimension].reshape(expected.shape)
        assert np.abs(part - expected).max() <= 1e-5 * np.abs(expected).max()
        start += block.dimension
    assert start == backend.dimension == found.shape[1]
    for block in backend.blocks.values():  # orthonormal columns, scaled
        gram = block.columns.T @ block.columns * 8 / len(block.columns)
        assert (gram - torch.eye(8)).abs().max() < 1e-5


def test_projections_keep_inner_products_in_expectation(tiny_mt5: Callable[..., Path], sentences: list[str]) -> None:
    folder = tiny_mt5()
    model = load_model(str(folder))
    items, _ = items_of(folder, sentences, Method())
    whole, _ = FactorisedFeatures(model, "log_prob", k=WHOLE).features(items)
    projected = [FactorisedFeatures(model, "log_prob", k=16, seed=seed).features(items)[0] for seed in range(40)]
    products = np.array([one @ one.T for one in projected])
    standard_error = products.std(0) / np.sqrt(len(products))
    assert (np.abs(products.mean(0) - whole @ whole.T) < 4.5 * standard_error).all()  # 15 products, p < 1e-4


def test_a_batch_and_its_padding_do_not_matter(tiny_mt5: Callable[..., Path], sentences: list[str]) -> None:
    folder = tiny_mt5()
    model = double(folder)
    items, queries = items_of(folder, sentences, Method())
    backend = FactorisedFeatures(model, "log_prob", k=8)
    together, wrong = backend.features([*items, *queries])
    for number, item in enumerate([*items, *queries]):
        alone, one = backend.features([item])
        assert np.abs(alone[0] - together[number]).max() <= 1e-6 * np.abs(alone).max()
        assert one[0] == pytest.approx(wrong[number], abs=1e-6)


def test_exact_equals_autograd_and_q_is_the_mean_of_one_minus_p(
    tiny_mt5: Callable[..., Path], sentences: list[str]
) -> None:
    folder, how = tiny_mt5(), Method(measurement="paper")
    model = double(folder)
    items, _ = items_of(folder, sentences, how)
    exact = ExactFeatures(model, "margin")
    found, wrong = exact.features(items)
    assert exact.dimension == model.num_parameters()
    for item, vector, one in zip(items, found, wrong, strict=True):
        expected = by_autograd(model, item, "margin")
        whole = np.concatenate([expected[id(parameter)].ravel() for parameter in exact.parameters.values()])
        assert np.linalg.norm(vector - whole) <= 1e-6 * np.linalg.norm(whole)
        assert one == pytest.approx(mean_wrong(model, item), abs=1e-6)
    _, factorised = FactorisedFeatures(model, "margin", k=8).features(items)
    assert factorised == pytest.approx(wrong, abs=1e-6)


def mean_wrong(model: Any, item: Item) -> float:
    """Mean over masks of the mean over counted targets of 1 - p."""
    means = []
    for row in item.rows:
        batch = batched([Item("one", (row,))], model)
        with torch.inference_mode():
            logits = model(input_ids=batch.inputs, decoder_input_ids=batch.decoder_inputs).logits[batch.counted]
        p = logits.softmax(-1).gather(-1, batch.labels[batch.counted][:, None])
        means.append(float((1 - p).mean()))
    return float(np.mean(means))


@pytest.mark.parametrize("how", [Method.paper(), Method()], ids=["paper", "contrast"])
def test_traker_features_are_autograd_times_the_librarys_matrix(
    tiny_mt5: Callable[..., Path], sentences: list[str], how: Method
) -> None:
    folder = tiny_mt5()
    model = load_model(str(folder))
    traker = TrakerFeatures(model, output_of(how), k=250, seed=4)
    exact = ExactFeatures(model, output_of(how))
    matrix = []
    for state in traker.traker.projector.generator_states:  # three blocks of 100 columns, made anew for every batch
        traker.traker.projector.generate_sketch_matrix(state)
        matrix.append(traker.traker.projector.proj_matrix.numpy().copy())
    projection = np.concatenate(matrix, axis=1)[:, :250] / np.sqrt(model.num_parameters())
    for side in items_of(folder, sentences, how):
        gradients, wrong = exact.features(side)
        found, theirs = traker.features(side)
        expected = gradients.astype(np.float64) @ projection
        assert np.abs(found - expected).max() <= GRADIENT * np.abs(expected).max()
        assert theirs == pytest.approx(wrong, **PROBABILITY)


def test_an_adapters_weights_alone_are_attributed(tiny_mt5: Callable[..., Path], sentences: list[str]) -> None:
    folder, how = tiny_mt5(), Method()
    model = with_adapter(double(folder), seed=1).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero in a new adapter, whose gradients by lora_A would then be zero too
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    items, _ = items_of(folder, sentences, how)
    backend = FactorisedFeatures(model, "log_prob", k=WHOLE)
    trained = {id(parameter) for name, parameter in model.named_parameters() if "lora_" in name}
    assert set(backend.blocks) == trained and len(trained) == 24  # A and B of q and v in six attentions
    exact = ExactFeatures(model, "log_prob")
    assert exact.dimension == backend.dimension
    found, _ = backend.features(items)
    expected, _ = exact.features(items)
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    traker = TrakerFeatures(model.float(), "log_prob", k=20)
    assert traker.traker.num_params_for_grad == exact.dimension
    assert np.isfinite(traker.features(items)[0]).all()


def test_k_is_the_most_that_the_budget_allows(tiny_mt5: Callable[..., Path]) -> None:
    model = load_model(str(tiny_mt5()))
    assert FactorisedFeatures(model, "log_prob").k == 64
    shapes = [torch.Size((512, 512))] * 100
    from valueshift.attribution.factorised import _affordable

    assert _affordable(shapes) == 40 and 100 * 40**2 <= BUDGET < 100 * 48**2
    assert _affordable(shapes * 1000) == 8


def test_bfloat16_keeps_the_direction(tiny_mt5: Callable[..., Path], sentences: list[str]) -> None:
    folder = tiny_mt5()
    items, _ = items_of(folder, sentences, Method())
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(str(folder), dtype=dtype)
        with torch.no_grad():  # these random weights amplify rounding; at a third of their size they do not
            for parameter in model.parameters():
                parameter.mul_(1 / 3 if parameter.dim() > 1 else 1)
        found.append(FactorisedFeatures(model, "log_prob", k=16).features(items)[0])
    for full, half in zip(*found, strict=True):
        assert full @ half / np.linalg.norm(full) / np.linalg.norm(half) > 0.999


def test_a_gradient_that_is_no_number_names_its_sentence(tiny_mt5: Callable[..., Path], sentences: list[str]) -> None:
    folder = tiny_mt5()
    model = load_model(str(folder))
    items, _ = items_of(folder, sentences, Method())
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    for backend in (FactorisedFeatures(model, "log_prob", k=8), ExactFeatures(model, "log_prob")):
        with pytest.raises(ValueshiftError, match="toy:de:0 is no number.*finite"):
            backend.features(items)


def test_traker_takes_sentences_with_different_numbers_of_masks(
    tiny_mt5: Callable[..., Path], sentences: list[str]
) -> None:
    folder = tiny_mt5()
    model = load_model(str(folder))
    (first, second, *_), _ = items_of(folder, sentences, Method())
    uneven = [first, Item("toy:de:9", second.rows[:1])]
    traker = TrakerFeatures(model, "log_prob", k=20)
    together, wrong = traker.features(uneven)
    for number, item in enumerate(uneven):
        alone, one = traker.features([item])
        assert np.abs(together[number] - alone[0]).max() <= GRADIENT * np.abs(alone).max()
        assert wrong[number] == pytest.approx(one[0], **PROBABILITY)


def test_traker_refuses_what_it_cannot_hold(tiny_mt5: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(str(tiny_mt5()))
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10_000}[name])
    with pytest.raises(ValueshiftError, match="0 GB, and this machine has 0; use the factorised backend"):
        TrakerFeatures(model, "log_prob", k=4096)
