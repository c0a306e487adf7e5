"""Which sentences are selected and split: the same ids in every language, a fifth of them dev; a placebo permutes tokens."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import numpy as np
import pandas as pd
import pytest
from corpora_files import FOUR
from hypothesis import given
from hypothesis import strategies as st
from valueshift.core.errors import ValueshiftError
from valueshift.finetune.corpora.placebo import permuted_tokens
from valueshift.finetune.corpora.selection import select, split_by_id
from valueshift.finetune.corpora.store import Corpus


def made_corpus(
    number: int, languages: Sequence[str] = (*FOUR, "en"), lacking: dict[str, set[int]] | None = None
) -> Corpus:
    rows = [
        (f"s{sentence}", code, f"{code} {sentence}")
        for sentence in range(number)
        for code in languages
        if sentence not in (lacking or {}).get(code, set())
    ]
    return Corpus("made", pd.DataFrame(rows, columns=["id", "language", "text"]))


def test_a_selection_is_the_first_sentences_that_all_languages_have() -> None:
    corpus = made_corpus(60, lacking={"ko": {0, 3}, "ru": {5}, "en": {1}})
    chosen = {code: select(corpus, [code], 50) for code in FOUR}
    ids = [f"s{number}" for number in range(60) if number not in (0, 3, 5)][:50]
    for code, examples in chosen.items():
        assert list(examples.columns) == ["example", "id", "language", "text", "split"]
        assert examples["id"].tolist() == ids
        assert examples["text"].tolist() == [f"{code} {one[1:]}" for one in ids]
        assert examples["example"].tolist() == [f"made:{code}:{one}" for one in ids]
        assert examples["split"].tolist() == chosen["fa"]["split"].tolist()
        assert examples["split"].value_counts().to_dict() == {"train": 40, "dev": 10}


def test_languages_outside_the_papers_are_needed_only_where_they_are_chosen() -> None:
    corpus = made_corpus(20, lacking={"en": {1}})
    assert "s1" in select(corpus, ["fa"], 10)["id"].tolist()
    assert "s1" not in select(corpus, ["en"], 10)["id"].tolist()
    assert "s1" not in select(corpus, ["fa"], 10, parallel=["en"])["id"].tolist()
    assert select(made_corpus(10, ["en"]), ["en"], 10)["language"].unique().tolist() == ["en"]


def test_a_multilingual_selection_has_the_same_few_sentences_from_each_language() -> None:
    corpus = made_corpus(100)
    one = select(corpus, FOUR, 80, seed=1)
    by_language = {code: set(group["id"]) for code, group in one.groupby("language")}
    assert set(by_language) == set(FOUR) and set(map(frozenset, by_language.values())) == {
        frozenset(f"s{n}" for n in range(20))
    }
    assert one.groupby("id")["split"].nunique().eq(1).all()
    assert one.groupby(["language", "split"]).size().to_dict() == {
        (code, split): number for code in FOUR for split, number in (("dev", 4), ("train", 16))
    }
    # Shuffled by the seed alone: same rows, same split, another order.
    two = select(corpus, FOUR, 80, seed=2)
    assert one["example"].tolist() == select(corpus, FOUR, 80, seed=1)["example"].tolist() != two["example"].tolist()
    assert dict(zip(one["example"], one["split"], strict=True)) == dict(zip(two["example"], two["split"], strict=True))
    assert one["language"].tolist()[:20] != ["fa"] * 20


def test_impossible_selections_say_what_is_possible() -> None:
    corpus = made_corpus(30, lacking={"ko": {2}})
    with pytest.raises(ValueshiftError, match="has 29 sentences in fa, ko, hi, ru, 40 are needed; ask for 29 at most"):
        select(corpus, ["fa"], 40)
    with pytest.raises(ValueshiftError, match="ask for 116 at most"):
        select(corpus, FOUR, 400)
    with pytest.raises(ValueshiftError, match="has no language 'de'; it has fa, ko, en, hi, ru"):
        select(corpus, ["de"], 10)
    with pytest.raises(ValueshiftError, match="10 sentences cannot be shared evenly by 4 languages"):
        select(corpus, FOUR, 10)
    with pytest.raises(ValueshiftError, match="0 sentences cannot be shared"):
        select(corpus, ["fa"], 0)
    with pytest.raises(ValueshiftError, match="2 sentences per language leave the dev split empty; take 5 or more"):
        select(corpus, ["fa"], 2)


@given(st.integers(3, 300), st.randoms())
def test_dev_is_a_fifth_of_the_ids_in_whatever_order_they_come(number: int, random: Random) -> None:
    ids = [f"s{one}" for one in range(number)]
    splits = split_by_id(ids)
    assert sum(split == "dev" for split in splits.values()) == round(0.2 * number) >= 1
    random.shuffle(ids)
    assert split_by_id(ids) == splits


def test_dev_is_spread_over_the_corpus() -> None:
    places = [
        place
        for place, split in enumerate(split_by_id([f"b.MAT.1.{n}" for n in range(1000)]).values())
        if split == "dev"
    ]
    # 200 of 1,000 without replacement: the mean place has a standard deviation of 18.3.
    assert abs(np.mean(places) - 499.5) < 4 * 18.3


@given(st.lists(st.lists(st.integers(0, 250_000), max_size=12), max_size=12), st.integers(0, 2**32))
def test_a_placebo_keeps_tokens_and_lengths(sentences: list[list[int]], seed: int) -> None:
    permuted = permuted_tokens(sentences, seed)
    assert [len(one) for one in permuted] == [len(one) for one in sentences]
    assert Counter(np.concatenate([[], *permuted]).tolist()) == Counter(token for one in sentences for token in one)
    assert all((one == two).all() for one, two in zip(permuted, permuted_tokens(sentences, seed), strict=True))


def test_a_placebo_moves_tokens_between_sentences() -> None:
    sentences = [[sentence * 10 + place for place in range(10)] for sentence in range(100)]
    stayed = [sum(token // 10 == place for token in one) for place, one in enumerate(permuted_tokens(sentences, 0))]
    # Expected 10 x 10 / 1000 tokens of its own in each sentence: 10 in all, with a standard deviation of about 3.
    assert sum(stayed) < 25
