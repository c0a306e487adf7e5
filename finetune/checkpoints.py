"""Fine-tuned checkpoints on disk: a model, or a LoRA adapter over a base, each with a model card, written whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.files import whole_folder
from ..harness_ext.models import save_model


def write_checkpoint(model: Any, tokenizer: Any, folder: Path, card: str) -> None:
    """Write a model, or the adapter of a model that has one, with tokenizer and model card; an older one is replaced.

    Raises:
        ValueshiftError: the folder cannot be written; nothing is left behind.
    """
    with whole_folder(folder) as temporary:
        save_model(model, tokenizer, temporary)
        (temporary / "README.md").write_text(card, encoding="utf-8")


def model_card(base: str, inputs: Mapping[str, Any], losses: Mapping[str, float], what: str) -> str:
    """The model card of a fine-tuned checkpoint.

    Args:
        base: the model it was made of, as the user named it.
        inputs: of its finetune record.
        losses: name -> nats a target token.
        what: one sentence on this checkpoint among those of the run.
    """
    languages = ", ".join(inputs["languages"])
    text = f"{inputs['size']:,} sentences of `{inputs['corpus']['name']}` in {languages} (a fifth of them dev)"
    if inputs["placebo"]:
        text += ", their tokens permuted across all sentences: **a placebo, which carries no meaning**"
    measured = "".join(f"- {name}: {value:.4f} nats a target token\n" for name, value in losses.items())
    return f"""---
base_model: {json.dumps(base, ensure_ascii=False)}
language: [{languages}]
library_name: {"peft" if inputs["lora"] else "transformers"}
tags: [valueshift, span-corruption]
---

# {Path(base).name} fine-tuned on {inputs["corpus"]["name"]} ({languages})

{what}

- Text: {text}
- Objective: span corruption, {"LoRA adapter" if inputs["lora"] else "all weights"}
- Settings: AdamW, learning rate {inputs["learning_rate"]:g}, batch {inputs["batch_size"]}, {inputs["epochs"]} epochs, seed
  {inputs["seed"]}, {inputs["precision"]}
{measured}
Made to see how fine-tuning shifts answers to a survey of values. It answers with what its text made likely, which is not what
speakers of a language hold; it was not made, nor tested, for any other use.
"""
