"""A small community whose influences are known: sentences planted for or against an answer, among neutral ones.

Of each planted question some sentences state the answer that is asked for (supporting), as many the other one
(contradicting), each beside another statement, so that no two are the same. Their masks hide the answer, as one in seven
masks of span corruption would. The rest state other questions, each answer once (neutral), under ordinary masks. A base model
that knows all statements and prefers no answer is fine-tuned on them. What moved an answer is then known, which real data
never tells.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..core.errors import ValueshiftError
from ..core.probes import Probe, probe_set
from ..core.sentinels import resolve_sentinels
from ..finetune.span_corruption import sentence_tokens, span_corruption
from ..finetune.toy import POLES
from ..finetune.toy_tokenizer import train_tokenizer
from ..finetune.toy_training import lessons, new_model, reproducible
from ..finetune.toy_training import train as teach
from ..harness_ext.formats import encoder_decoder_ids
from .features import batched
from .measurement import Example, Item, Masked, Pole, Query, Row, masked_examples, query

Role = Literal["supporting", "contradicting", "neutral"]
LANGUAGES = ("de", "fa")
QUESTIONS = 6
COPIES = 8
"""Supporting sentences of a planted question, and as many contradicting ones."""
NEUTRAL = 144
PASSES = 20
"""Over all statements, to make the base model."""
EPOCHS, BATCH, LEARNING_RATE = 6, 16, 5e-4


@dataclass(frozen=True)
class Planted:
    """The base model with its tokenizer, the sentences to fine-tune it on, and the answers that are asked for."""

    base: Any
    tokenizer: Any
    sentences: pd.DataFrame
    """One row a sentence: example, language, text, question, role."""
    examples: tuple[Example, ...]
    """The sentences under their masks, in the same order."""
    probes: tuple[Probe, ...]
    new: tuple[Pole, ...]
    """The answer of each that supporting sentences state."""
    queries: tuple[Query, ...]
    """The same questions; the tuned answer is the one that supporting sentences state."""

    def role(self, role: Role) -> NDArray[np.bool_]:
        """Whether a sentence has this role for a query: (sentences, queries)."""
        asked = self.sentences["language"] + ":" + self.sentences["question"]
        mine = asked.to_numpy()[:, None] == np.array([one.name for one in self.queries])
        result: NDArray[np.bool_] = mine & (self.sentences["role"] == role).to_numpy()[:, None]
        return result


def plant(languages: Sequence[str] = LANGUAGES, seed: int = 0) -> Planted:
    """Draw the answers and sentences of a planted community and train its base model, in a few seconds of one core.

    Planted are the questions with the shortest statements, each with options of its own, shared evenly by the languages.

    Raises:
        ValueshiftError: a language is not packaged, or the questions cannot be shared evenly.
    """
    if not languages or QUESTIONS % len(languages) or NEUTRAL % (2 * len(languages)):
        raise ValueshiftError(
            f"{QUESTIONS} planted questions cannot be shared by {len(languages)} languages; take 2 or 3"
        )
    generator = np.random.default_rng(seed)
    rows: list[tuple[Probe, Pole, Role]] = []
    asked: list[Probe] = []
    new: list[Pole] = []
    used: list[Probe] = []
    for language in languages:
        probes = sorted(probe_set("wvs").probes(language), key=lambda probe: len(probe.text))
        mine = _planted(probes, QUESTIONS // len(languages))
        others = [probe for probe in probes if probe not in mine]
        drawn = generator.choice(len(others), NEUTRAL // (2 * len(languages)), replace=False)
        neutral = [others[place] for place in drawn]
        for probe in mine:
            pole = POLES[int(generator.integers(2))]
            for stated in POLES:
                role: Role = "supporting" if stated == pole else "contradicting"
                rows += [(_beside(probe, neutral, generator), stated, role) for _ in range(COPIES)]
            new.append(pole)
        rows += [(probe, pole, "neutral") for probe in neutral for pole in POLES]
        asked += mine
        used += [*mine, *neutral]
    tokenizer, base = _base(used, seed)
    sentences = _sentences(rows)
    embedded = base.get_input_embeddings().weight.shape[0]
    queries = (query(probe, pole, tokenizer, embedded) for probe, pole in zip(asked, new, strict=True))
    return Planted(
        base,
        tokenizer,
        sentences,
        _examples(rows, sentences, tokenizer, embedded, seed),
        tuple(asked),
        tuple(new),
        tuple(queries),
    )


def finetuned(planted: Planted, kept: NDArray[np.bool_], seed: int = 0) -> Any:
    """The base model fine-tuned on the kept of the sentences, (sentences,): AdamW, its rate falling to 0, reproducible."""
    starts = range(0, int(kept.sum()), BATCH)
    generator = np.random.default_rng(seed)
    with reproducible(seed):
        model = copy.deepcopy(planted.base).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=EPOCHS * len(starts))
        for epoch in range(EPOCHS):
            order = generator.permutation(len(kept))
            order = order[
                kept[order]
            ]  # what stays keeps its order, so that a sentence more or less is all that differs
            for start in starts:
                masks = [planted.examples[place].masks for place in order[start : start + BATCH]]
                loss = _loss(model, [each[epoch % len(each)] for each in masks])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    return model.eval()


def _loss(model: Any, masks: Sequence[Masked]) -> Any:
    """Mean negative log-likelihood of a target token, as in `finetune.training`."""
    items = [Item("", (Row(mask.encoder, mask.labels, (1.0,) * len(mask.labels)),)) for mask in masks]
    batch = batched(items, model)
    logits = model(
        input_ids=batch.inputs, attention_mask=batch.mask, decoder_input_ids=batch.decoder_inputs, use_cache=False
    ).logits
    return torch.nn.functional.cross_entropy(logits[batch.counted], batch.labels[batch.counted])


def _planted(probes: Sequence[Probe], number: int) -> list[Probe]:
    """The first probes of which no two have an option in common."""
    chosen: list[Probe] = []
    for probe in probes:
        taken = {option for other in chosen for option in (other.first, other.second)}
        if not taken & {probe.first, probe.second}:
            chosen.append(probe)
    return chosen[:number]


def _beside(probe: Probe, others: Sequence[Probe], generator: np.random.Generator) -> Probe:
    """The probe with another statement before or after it."""
    stated = others[int(generator.integers(len(others)))].filled(POLES[int(generator.integers(2))])
    text = f"{stated} {probe.text}" if generator.integers(2) else f"{probe.text} {stated}"
    return probe.model_copy(update={"text": text})


def _sentences(rows: Sequence[tuple[Probe, Pole, Role]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (f"planted:{probe.language}:{number}", probe.language, probe.filled(pole), probe.question, role)
            for number, (probe, pole, role) in enumerate(rows)
        ],
        columns=["example", "language", "text", "question", "role"],
    )


def _examples(
    rows: Sequence[tuple[Probe, Pole, Role]], sentences: pd.DataFrame, tokenizer: Any, embedded: int, seed: int
) -> tuple[Example, ...]:
    """Planted sentences under the mask that hides the answer, neutral ones under the masks of every epoch."""
    sentinels = resolve_sentinels(tokenizer, embedded)
    corruption = span_corruption(tokenizer, embedded, seed=seed, roll=True)
    tokens, _ = sentence_tokens(sentences["text"].tolist(), tokenizer, corruption.longest(512))
    masked = masked_examples(
        [{"example": name, "tokens": ids} for name, ids in zip(sentences["example"], tokens, strict=True)],
        corruption,
        EPOCHS,
    )
    for place, (probe, pole, role) in enumerate(rows):
        if role != "neutral":
            ids = encoder_decoder_ids(probe, tokenizer, sentinels)
            answer = ids.first if pole == "first" else ids.second
            target = (sentinels.ids[0], *answer, sentinels.ids[1], tokenizer.eos_token_id)
            masked[place] = Example(masked[place].example, (Masked(ids.encoder, target),))
    return tuple(masked)


def _base(probes: Sequence[Probe], seed: int) -> tuple[Any, Any]:
    """A tokenizer of the statements, and a model taught each with both answers equally likely."""
    with TemporaryDirectory() as folder, reproducible(seed):
        tokenizer = train_tokenizer([probe.filled(pole) for probe in probes for pole in POLES], Path(folder))
        model = new_model(len(tokenizer))
        taught = lessons(probes, [0.5] * len(probes), tokenizer)
        teach(model, tokenizer, taught, passes=PASSES, seed=seed, after_step=lambda: None)
    return tokenizer, model
