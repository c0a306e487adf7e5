"""Facts about finetune/span_corruption.py: T5's rule, its statistics, and masks that depend on the example alone."""

import itertools
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils.data import DataLoader
from valueshift.core.errors import ValueshiftError
from valueshift.core.sentinels import resolve_sentinels
from valueshift.finetune.span_corruption import (
    SpanCorruption,
    SpanCorruptionCollator,
    noise_counts,
    sentence_tokens,
    span_corruption,
)

EOS, PAD = 1, 0
SENTINELS = tuple(range(250_099, 249_999, -1))
RULE = SpanCorruption(SENTINELS, EOS, PAD)
ROLLED = SpanCorruption(SENTINELS, EOS, PAD, roll=True)
tokens_of_a_sentence = st.lists(st.integers(3, 249_000), min_size=1, max_size=200)


def mask_of(rule: SpanCorruption, length: int, seed: int) -> list[bool]:
    return rule.noise_mask(length, np.random.default_rng(seed)).tolist()


def slow_corruption(tokens: list[int], noise: list[bool]) -> tuple[list[int], list[int]]:
    """Token by token: a sentinel opens each span in both, the span's tokens go to the target, all others to the input."""
    inputs: list[int] = []
    target: list[int] = []
    used = 0
    previous = False
    for token, is_noise in zip(tokens, noise, strict=True):
        if is_noise and not previous:
            inputs.append(SENTINELS[used])
            target.append(SENTINELS[used])
            used += 1
        (target if is_noise else inputs).append(token)
        previous = is_noise
    return [*inputs, EOS], [*target, SENTINELS[used], EOS]


def slow_masks(length: int) -> set[tuple[bool, ...]]:
    """All masks that the rule allows, by trying every mask: the noise it asks for, in spans that end with the sentence."""
    noise, spans = noise_counts(length)
    masks = set()
    for places in itertools.combinations(range(length), noise):
        mask = tuple(place in places for place in range(length))
        runs = [value for value, _ in itertools.groupby(mask)]
        if not mask[0] and mask[-1] and sum(runs) == spans:
            masks.add(mask)
    return masks


def filled_in(inputs: list[int], target: list[int]) -> list[int]:
    """The sentence: every sentinel of the input replaced by what follows it in the target."""
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in SENTINELS:
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    return [one for token in inputs[:-1] for one in (spans[token] if token in SENTINELS else [token])]


@given(tokens_of_a_sentence, st.text(max_size=8), st.integers(0, 5), st.booleans())
def test_the_fast_version_is_the_slow_one_and_loses_no_token(
    tokens: list[int], example: str, epoch: int, roll: bool
) -> None:
    rule = ROLLED if roll else RULE
    inputs, target = (found.tolist() for found in rule(example, tokens, epoch))
    noise = rule.noise_mask(len(tokens), rule._generator(example, epoch)).tolist()
    assert (inputs, target) == slow_corruption(tokens, noise)
    assert filled_in(inputs, target) == tokens


def test_an_example_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.array([False, False, True, True, False, True, True])
    monkeypatch.setattr(SpanCorruption, "noise_mask", lambda *_: noise)
    inputs, target = RULE("x", [10, 11, 12, 13, 14, 15, 16], 0)
    assert inputs.tolist() == [10, 11, 250_099, 14, 250_098, EOS]
    assert target.tolist() == [250_099, 12, 13, 250_098, 15, 16, 250_097, EOS]


@pytest.mark.parametrize(
    ("length", "noise", "spans"),
    [(2, 1, 1), (3, 1, 1), (10, 2, 1), (13, 2, 1), (20, 3, 1), (30, 4, 1), (31, 5, 2), (100, 15, 5), (568, 85, 28)],
)
def test_numbers_of_noise_tokens_and_spans(length: int, noise: int, spans: int) -> None:
    assert noise_counts(length) == (noise, spans)
    mask = mask_of(RULE, length, 0)
    assert sum(mask) == noise and sum(1 for value, _ in itertools.groupby(mask) if value) == spans


@given(st.integers(3, 2000), st.integers(0, 2**32))
def test_density_and_spans_are_those_of_the_rule(length: int, seed: int) -> None:
    mask = mask_of(RULE, length, seed)
    runs = [(value, len(list(run))) for value, run in itertools.groupby(mask)]
    spans = [size for value, size in runs if value]
    assert abs(sum(mask) - 0.15 * length) <= 0.5 or sum(mask) == 1
    assert abs(len(spans) - sum(mask) / 3) <= 0.5 or len(spans) == 1
    assert not mask[0] and mask[-1] and len(runs) == 2 * len(spans)
    rolled = mask_of(ROLLED, length, seed)
    assert sum(rolled) == sum(mask)


def test_density_is_15_percent_and_spans_are_3_long_on_average() -> None:
    masks = [mask_of(RULE, length, seed) for seed, length in enumerate(range(60, 460))]
    noise = sum(map(sum, masks))
    spans = sum(sum(value for value, _ in itertools.groupby(mask)) for mask in masks)
    assert noise / sum(map(len, masks)) == pytest.approx(0.15, abs=0.001)
    assert noise / spans == pytest.approx(3, abs=0.05)


def test_every_mask_of_the_rule_is_equally_likely() -> None:
    allowed = slow_masks(34)
    # 5 noise tokens in 2 spans: 4 ways to cut them, and 28 ways to cut the other 29.
    assert len(allowed) == math.comb(4, 1) * math.comb(28, 1)
    draws = 20 * len(allowed)
    drawn = Counter(tuple(RULE.noise_mask(34, RULE._generator(f"e{number}", 0)).tolist()) for number in range(draws))
    assert set(drawn) == allowed
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_without_roll_the_end_is_always_noise_with_it_every_position_equally_often() -> None:
    draws = 6000
    plain = np.mean([mask_of(RULE, 20, seed) for seed in range(draws)], axis=0)
    assert plain.tolist() == [0.0] * 17 + [1.0] * 3
    rolled = np.mean([mask_of(ROLLED, 20, seed) for seed in range(draws)], axis=0)
    error = math.sqrt(0.15 * 0.85 / draws)
    assert np.abs(rolled - 3 / 20).max() < 4.5 * error


def test_very_short_sentences() -> None:
    assert [found.tolist() for found in RULE("x", [7], 0)] == [[7, EOS], [250_099, EOS]]
    assert [found.tolist() for found in RULE("x", [7, 8], 0)] == [[7, 250_099, EOS], [250_099, 8, 250_098, EOS]]
    rolled = {tuple(map(tuple, map(np.ndarray.tolist, ROLLED(f"e{n}", [7, 8], 0)))) for n in range(40)}
    assert rolled == {
        ((7, 250_099, EOS), (250_099, 8, 250_098, EOS)),
        ((250_099, 8, EOS), (250_099, 7, 250_098, EOS)),
    }
    with pytest.raises(ValueshiftError, match="example pbc:fa:1 has no token; leave it out"):
        RULE("pbc:fa:1", [], 0)


def test_masks_depend_on_seed_epoch_and_example() -> None:
    tokens = np.arange(10, 110)

    def target(example: str = "a", epoch: int = 0, seed: int = 0) -> list[int]:
        return SpanCorruption(SENTINELS, EOS, PAD, seed)(example, tokens, epoch)[1].tolist()

    assert target() == target()
    different = [
        target(),
        target(example="b"),
        target(epoch=1),
        target(seed=1),
        target(seed=1, epoch=10),
        target(seed=11),
    ]
    assert len(set(map(tuple, different))) == len(different)


@given(st.integers(4, 600), st.integers(2, 40), st.booleans())
def test_the_longest_sentence_is_the_longest_that_fits(most: int, sentinels: int, roll: bool) -> None:
    rule = SpanCorruption(SENTINELS[:sentinels], EOS, PAD, roll=roll)
    longest = rule.longest(most)

    def fits(length: int) -> bool:
        if length == 1:
            return True
        noise, spans = noise_counts(length)
        return length - noise + spans + roll + 1 <= most and spans + roll + 1 <= sentinels

    assert longest == 1 or fits(longest)
    assert not any(map(fits, range(longest + 1, longest + 50)))
    for seed in range(5):
        assert len(rule(f"e{seed}", np.arange(10, 10 + longest), 0)[0]) <= most


def test_an_input_of_512_tokens_holds_568_as_in_t5() -> None:
    assert RULE.longest(512) == 568
    inputs, target = RULE("x", np.arange(10, 578), 0)
    assert (len(inputs), len(target)) == (512, 115)  # T5's 114 and the final sentinel


def test_more_spans_than_sentinels_are_refused() -> None:
    few = SpanCorruption(SENTINELS[:3], EOS, PAD)
    with pytest.raises(
        ValueshiftError, match="example x has 100 tokens and 5 noise spans, the tokenizer has 3 sentinels"
    ):
        few("x", np.arange(10, 110), 0)


def features(number: int = 24) -> list[dict[str, Any]]:
    generator = random.Random(0)
    return [
        {
            "example": f"made:fa:{place}",
            "tokens": np.array([generator.randrange(10, 9000) for _ in range(generator.randrange(1, 120))]),
            "split": "dev" if place % 5 == 0 else "train",
        }
        for place in range(number)
    ]


def unpadded(batch: dict[str, torch.Tensor]) -> list[tuple[list[int], list[int]]]:
    return [
        (inputs[attended.bool()].tolist(), labels[labels != -100].tolist())
        for inputs, attended, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
    ]


def test_a_batch_is_padded_and_says_where() -> None:
    batch = SpanCorruptionCollator(RULE)(features(8))
    assert {name: tensor.dtype for name, tensor in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "labels"), torch.int64
    )
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert (batch["input_ids"][batch["attention_mask"] == 0] == PAD).all()
    assert max(len(inputs) for inputs, _ in unpadded(batch)) == batch["input_ids"].shape[1]
    for one, (inputs, labels) in zip(features(8), unpadded(batch), strict=True):
        assert [inputs, labels] == [found.tolist() for found in RULE(one["example"], one["tokens"], 0)]


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (2, 5), (0, 24)])
def test_batches_and_workers_change_no_mask(workers: int, batch_size: int) -> None:
    collator = SpanCorruptionCollator(RULE, epoch=3)
    loader = DataLoader(features(), batch_size=batch_size, num_workers=workers, collate_fn=collator)  # type: ignore[arg-type]
    seen = [pair for batch in loader for pair in unpadded(batch)]
    assert seen == unpadded(collator(features()))


def test_train_sentences_are_masked_anew_in_each_epoch_and_dev_sentences_never() -> None:
    collator = SpanCorruptionCollator(ROLLED)
    first = unpadded(collator(features()))
    collator.epoch = 1
    second = unpadded(collator(features()))
    for one, before, after in zip(features(), first, second, strict=True):
        if one["split"] == "dev":
            assert before == after
    train = [place for place, one in enumerate(features()) if one["split"] == "train" and len(one["tokens"]) > 10]
    assert sum(first[place] != second[place] for place in train) > 0.8 * len(train)


@pytest.mark.parametrize("appended", [False, True])
def test_sentinels_are_those_of_the_tokenizer(tiny_mt5: Any, appended: bool) -> None:
    from valueshift.harness_ext.models import load_config, load_tokenizer

    folder: Path = tiny_mt5(appended=appended)
    tokenizer, rows = load_tokenizer(str(folder)), load_config(str(folder)).vocab_size
    rule = span_corruption(tokenizer, rows, seed=5, roll=True)
    assert rule.sentinels == resolve_sentinels(tokenizer, rows).ids and len(rule.sentinels) >= 10
    assert (rule.eos, rule.pad, rule.seed, rule.roll) == (tokenizer.eos_token_id, tokenizer.pad_token_id, 5, True)
    with pytest.raises(ValueshiftError, match="sentinel|embedding"):
        span_corruption(tokenizer, 10)


def test_sentences_are_tokenised_without_specials_and_truncations_are_counted(
    tiny_mt5: Any, sentences: list[str]
) -> None:
    from valueshift.harness_ext.models import load_tokenizer

    tokenizer = load_tokenizer(str(tiny_mt5()))
    whole, truncated = sentence_tokens(sentences[:50], tokenizer, 10_000)
    assert truncated == 0 and not any(tokenizer.eos_token_id in tokens for tokens in whole)
    assert [tokens.tolist() for tokens in whole] == [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in sentences[:50]
    ]
    longest = sorted(map(len, whole))[25]
    cut, truncated = sentence_tokens(sentences[:50], tokenizer, longest)
    assert truncated == sum(len(tokens) > longest for tokens in whole) > 0
    assert all((short == tokens[:longest]).all() for short, tokens in zip(cut, whole, strict=True))
    assert sentence_tokens([], tokenizer, 5) == ([], 0)


def test_a_model_learns_from_a_batch(tiny_mt5: Any, sentences: list[str]) -> None:
    from valueshift.harness_ext.models import load_model, load_tokenizer

    torch.set_num_threads(1)
    folder = str(tiny_mt5())
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    rule = span_corruption(tokenizer, model.get_input_embeddings().num_embeddings)
    tokens, _ = sentence_tokens(sentences[:8], tokenizer, rule.longest(64))
    batch = SpanCorruptionCollator(rule)(
        [{"example": str(place), "tokens": one, "split": "train"} for place, one in enumerate(tokens)]
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = model(**batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
