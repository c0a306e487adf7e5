"""What attribution measures: the masks of training, which targets count, and that the contrast is a difference of log-probs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tolerances import CONTRAST
from valueshift.attribution.exact import ExactFeatures
from valueshift.attribution.features import batched, token_outputs
from valueshift.attribution.measurement import (
    Example,
    Masked,
    Query,
    masked_examples,
    query,
    query_items,
    training_items,
)
from valueshift.attribution.scoring import Method
from valueshift.core.probes import Probe, probe_set
from valueshift.core.sentinels import resolve_sentinels
from valueshift.finetune.span_corruption import IGNORED, SpanCorruptionCollator, sentence_tokens, span_corruption
from valueshift.harness_ext.encoder_decoder import EncoderDecoderScorer
from valueshift.harness_ext.models import load_model, load_tokenizer


@pytest.fixture(scope="module")
def loaded(tiny_mt5: Callable[..., Path]) -> tuple[Any, Any, int]:
    folder = str(tiny_mt5())
    model = load_model(folder)
    return model, load_tokenizer(folder), model.get_input_embeddings().weight.shape[0]


@pytest.fixture(scope="module")
def probes() -> list[Probe]:
    packaged = probe_set("wvs")
    return [probe for language in ("de", "fa", "bn", "ko") for probe in packaged.probes(language)[::60]]


def test_masks_are_those_that_training_saw(loaded: tuple[Any, Any, int], sentences: list[str]) -> None:
    _, tokenizer, rows = loaded
    corruption = span_corruption(tokenizer, rows, seed=5, roll=True)
    tokens, _ = sentence_tokens(sentences[:20], tokenizer, 100)
    given = [
        {"example": f"toy:de:{number}", "tokens": ids, "split": "train"}  # ids as the Trainer's collator gets them
        for number, ids in enumerate(tokens)
    ]
    found = masked_examples(given, corruption, epochs=3)
    collator = SpanCorruptionCollator(corruption)
    for collator.epoch in range(3):
        trained = collator(given)
        for one, inputs, mask, labels in zip(found, *trained.values(), strict=True):
            assert one.masks[collator.epoch].encoder == tuple(inputs[mask.bool()].tolist())
            assert one.masks[collator.epoch].labels == tuple(labels[labels != IGNORED].tolist())
    assert len({one.masks[0] for one in found} | {one.masks[1] for one in found}) > 20  # epochs differ
    assert [one.masks for one in masked_examples(given, corruption, 3, "one")] == [one.masks[:1] for one in found]


def test_targets_of_a_training_sentence(loaded: tuple[Any, Any, int]) -> None:
    _, tokenizer, rows = loaded
    first, second, last = resolve_sentinels(tokenizer, rows).ids[:3]
    end = tokenizer.eos_token_id
    mask = Masked((5, first, 6, second, end), (first, 7, 8, second, 9, last, end))
    once, twice = Example("a:de:1", (mask,)), Example("a:de:2", (mask, mask))
    (content,) = training_items([once], Method(), tokenizer, rows)
    assert content.rows[0].weights == (0, 1, 1, 0, 1, 0, 0)
    (halved,) = training_items([twice], Method(), tokenizer, rows)
    assert [row.weights for row in halved.rows] == [(0, 0.5, 0.5, 0, 0.5, 0, 0)] * 2
    (first_only,) = training_items([twice], Method(masks="one"), tokenizer, rows)
    assert first_only.rows == content.rows
    (everything,) = training_items([once], Method(targets="all"), tokenizer, rows)
    assert everything.rows[0].weights == (1,) * 7
    (papers,) = training_items([once], Method.paper(), tokenizer, rows)
    assert papers.rows[0].weights == pytest.approx((1 / 7,) * 7)


def test_the_contrast_is_the_difference_of_the_options_log_probabilities(
    loaded: tuple[Any, Any, int], probes: list[Probe]
) -> None:
    """Against our own scorer, which is checked against the harness; the answers have one to several tokens."""
    model, tokenizer, rows = loaded
    scorer = EncoderDecoderScorer(model, tokenizer)
    scores = scorer.score([scorer.ids(probe) for probe in probes])
    asked = [query(probe, "second", tokenizer, rows) for probe in probes]
    assert {len(one.tuned) for one in asked} >= {1, 3, 4}
    measured = values(model, query_items(asked, Method(), tokenizer, rows))
    expected = [second.logprob - first.logprob for first, second in scores]
    assert measured == pytest.approx(expected, **CONTRAST)
    turned = [query(probe, "first", tokenizer, rows) for probe in probes]
    assert values(model, query_items(turned, Method(), tokenizer, rows)) == pytest.approx(
        -np.array(expected), **CONTRAST
    )


def values(model: Any, items: list[Any]) -> list[float]:
    """The measured number of each item by the model's own forward."""
    found = []
    for item in items:
        total = 0.0
        for row in item.rows:
            decoder = torch.tensor([[0, *row.labels[:-1]]])
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([row.encoder]), decoder_input_ids=decoder).logits[0]
            log_probs = logits.log_softmax(-1)
            total += sum(weight * log_probs[t, row.labels[t]].item() for t, weight in enumerate(row.weights))
        found.append(total)
    return found


def test_the_papers_query_covers_every_target_of_the_filled_probe(loaded: tuple[Any, Any, int]) -> None:
    _, tokenizer, rows = loaded
    opening, closing = resolve_sentinels(tokenizer, rows).ids[:2]
    one = Query("de", "Q1", (9, opening, tokenizer.eos_token_id), tuned=(20, 21), base=(22,))
    (papers,) = query_items([one], Method.paper(), tokenizer, rows)
    assert papers.rows[0].labels == (opening, 20, 21, closing, tokenizer.eos_token_id)
    assert papers.rows[0].weights == pytest.approx((0.2,) * 5)
    (margin,) = query_items([one], Method(measurement="answer_margin"), tokenizer, rows)
    assert (margin.rows[0].labels, margin.rows[0].weights) == ((opening, 20, 21), (0, 0.5, 0.5))


def test_outputs_equal_the_plain_formulas() -> None:
    """log p and log p / (1 - p) in float64, and exact where p rounds to 1."""
    logits = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 6, 2])
    p = logits.softmax(-1)[torch.arange(4), labels]
    log_prob, wrong = token_outputs(logits, labels, "log_prob")
    margin, _ = token_outputs(logits, labels, "margin")
    assert torch.allclose(log_prob, p.log(), atol=1e-12)
    assert torch.allclose(margin, (p / (1 - p)).log(), atol=1e-12)
    assert torch.allclose(wrong, 1 - p, atol=1e-12)
    sure, _ = token_outputs(torch.tensor([[60.0, 0.0, 0.0]]), torch.tensor([0]), "margin")
    assert sure.item() == pytest.approx(60 - np.log(2), rel=1e-6)


def test_what_is_not_counted_is_not_computed(loaded: tuple[Any, Any, int], probes: list[Probe]) -> None:
    """The targets after the last counted one are cut off, and a sentence without content has gradient 0."""
    model, tokenizer, rows = loaded
    first, last = resolve_sentinels(tokenizer, rows).ids[:2]
    end = tokenizer.eos_token_id
    empty = Example("a:de:1", (Masked((5, end), (first, end)),))
    full = Example("a:de:2", (Masked((5, first, 6, end), (first, 7, last, end)),))
    items = training_items([empty, full], Method(), tokenizer, rows)
    assert batched(items, model).labels.shape == (2, 2)
    vectors, wrong = ExactFeatures(model, "log_prob").features(items)
    assert not vectors[0].any() and wrong[0] == 0
    assert vectors[1].any() and 0 < wrong[1] <= 1
