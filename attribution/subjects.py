"""What can be checked: a run of `valueshift finetune`, or the planted community."""

from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..finetune.finetuning import examples_of
from ..finetune.training import Training, train, with_adapter
from ..harness_ext.families import pretrained_digest
from ..harness_ext.models import device_named, load_model, load_tokenizer
from .attributing import Attributing, Prepared, loaded
from .baselines import token_overlap
from .checks import Kept, Subject
from .planted import BATCH, EPOCHS, LEARNING_RATE, Planted, finetuned
from .scoring import weights_digest


def of_run(ready: Prepared, root: Path, how: Attributing) -> Subject:
    """A finetune run whose answers shifted; models are trained again with its settings, from the model it began with.

    Raises:
        ValueshiftError: that model is gone or has changed.
    """
    member = ready.members[0]
    given, base = member.record.inputs, str(member.record.settings["model"])
    if pretrained_digest(base) != given["model"]:
        raise ValueshiftError(
            f"{base} is no longer the model that {member.checkpoint} was tuned from; put that one back"
        )
    rows, corruption = examples_of(root / member.record.name)
    sentences = [
        {"example": example, "tokens": tokens, "split": "train"}
        for example, tokens in zip(rows["example"], rows["tokens"], strict=True)
    ]
    names = {field.name for field in fields(Training)} & set(given)
    settings = Training(**{name: given[name] for name in names} | {"lora": bool(given["lora"])})
    tokenizer = load_tokenizer(str(member.checkpoint))
    tuned = loaded(member.checkpoint, how.method.dtype, device_named(how.device))

    def retrain(kept: Kept) -> Any:
        model = load_model(base)
        if settings.lora:
            model = with_adapter(model, settings.seed)
        chosen = [sentences[place] for place in np.flatnonzero(kept)]
        dev = [{**chosen[0], "split": "dev"}]  # training wants one; its loss is not used
        with TemporaryDirectory() as work:
            train(model, tokenizer, {"train": chosen, "dev": dev}, corruption, settings, Path(work) / "work")
        return model

    filled = [probe.filled(new) for probe, new in zip(ready.probes, ready.shifts["answer_tuned"], strict=True)]
    queries = ready.queries(tokenizer, tuned.get_input_embeddings().weight.shape[0])
    return Subject(
        tuned=tuned,
        tokenizer=tokenizer,
        examples=member.examples,
        queries=queries,
        token_overlap=token_overlap(rows["tokens"].tolist(), tokenizer(filled, add_special_tokens=False)["input_ids"]),
        retrain=retrain,
        identity=digest([member.record.digest, [[one.name, one.tuned, one.base] for one in queries]]),
    )


def of_planted(planted: Planted, seed: int = 0) -> Subject:
    """The planted community, its base model fine-tuned on all of its sentences."""
    tokenised = planted.tokenizer(planted.sentences["text"].tolist(), add_special_tokens=False)["input_ids"]
    filled = [probe.filled(new) for probe, new in zip(planted.probes, planted.new, strict=True)]
    trained = [EPOCHS, BATCH, LEARNING_RATE, seed, weights_digest(planted.base)]
    return Subject(
        tuned=finetuned(planted, np.ones(len(planted.examples), dtype=np.bool_), seed),
        tokenizer=planted.tokenizer,
        examples=planted.examples,
        queries=planted.queries,
        token_overlap=token_overlap(tokenised, planted.tokenizer(filled, add_special_tokens=False)["input_ids"]),
        retrain=lambda kept: finetuned(planted, kept, seed),
        identity=digest([trained, planted.sentences["text"].tolist()]),
    )
