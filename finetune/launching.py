"""The processes and the precision of a training run, and what of a launcher's settings holds in here.

`accelerate launch` and torchrun speak to the libraries through the environment. Where a run is computed and by how many processes
is theirs to say. How it is computed is said by the run's settings, which its record states.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState

from ..core.errors import ValueshiftError

log = logging.getLogger("valueshift.finetune")

_COMPUTING = (
    "ACCELERATE_MIXED_PRECISION",
    "ACCELERATE_DOWNCAST_BF16",
    "ACCELERATE_FP8_",
    "ACCELERATE_DYNAMO_",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "ACCELERATE_GRADIENT_CLIPPING",
)
"""Beginnings of variables that would change what is computed."""
_ENGINES = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "TP", "PARALLELISM_CONFIG", "SAGEMAKER")
"""`ACCELERATE_USE_<engine>`: another engine than the Trainer's, with settings of its own."""
_NOTHING = ("", "no", "false", "0", "1")


def processes() -> PartialState:
    """The processes that share this run: one, or those of torchrun or accelerate, on CUDA where there is any, else the CPU."""
    return PartialState(cpu=not torch.cuda.is_available())


def precision() -> str:
    """What is computed in here: bfloat16 (weights stay float32) where the device has it, else float32.

    float16 is no choice: T5's activations overflow it.
    """
    return "bfloat16" if processes().device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def refuse_other_engines() -> None:
    """Refuse a launcher's configuration under which something else than the Trainer trains.

    Raises:
        ValueshiftError: names the variable.
    """
    for engine in _ENGINES:
        if os.environ.get(name := f"ACCELERATE_USE_{engine}", "").lower() == "true":
            raise ValueshiftError(
                f"{name} is set: training under it is not what a record states; launch without it (several processes are fine)"
            )


@contextmanager
def own_settings() -> Iterator[None]:
    """Take no setting from the environment that changes what is computed, and say which would have."""
    aside = {name: value for name, value in os.environ.items() if name.startswith(_COMPUTING)}
    meant = {name: value for name, value in aside.items() if value.lower() not in _NOTHING}
    if meant and processes().is_main_process:
        log.warning(
            "the launcher's %s is not taken: this run computes in %s, as its record says",
            ", ".join(f"{name}={value}" for name, value in sorted(meant.items())),
            precision(),
        )
    for name in aside:
        del os.environ[name]
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith(_COMPUTING)]:
            del os.environ[name]  # the Trainer sets them, too
        os.environ.update(aside)
