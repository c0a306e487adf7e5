"""How fast probes are scored at mT5-small's real shape: `python benchmarks/scoring.py [--probes N] [--tokenizer FOLDER]`.

Random untied weights of 300M parameters (1.2 GB). In one process, on the same threads and with the same batch size: a plain
loop (one forward an option), the stock path of lm-eval (`--model hf`), and ours by token ids. Also the share of the machine's
measured matrix-multiply rate that ours reaches, and the peak memory of each above the model's. Time is processor time a
thread, so that other work on the machine does not count.
"""

import argparse
import ctypes
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from transformers import MT5Config, MT5ForConditionalGeneration
from valueshift.core.probes import Probe, probe_set
from valueshift.core.sentinels import Sentinels, resolve_sentinels
from valueshift.finetune.toy_tokenizer import train_tokenizer
from valueshift.harness_ext.encoder_decoder import EncoderDecoderScorer
from valueshift.harness_ext.formats import EncoderDecoderIds, encoder_decoder_ids, strings
from valueshift.harness_ext.models import load_tokenizer
from valueshift.harness_ext.scoring import score_probes

ROWS = 250_112
SHAPE = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
LENGTHS = {"both 1": (1, 1), "longer 2-3": (2, 3), "longer 4+": (4, 99), "all": (1, 99)}
PLAIN, STOCK, CLOSED, SCORED, QUICK = (
    "plain loop, one forward an option",
    "lm-eval --model hf",
    "ids: log-probs and closing",
    "ids: log-probs",
    "ids: p_first only",
)


@dataclass
class Measured:
    """The best of several runs of one method over the same probes."""

    seconds: float = float("inf")
    megabytes: float = 0.0


def real_shape() -> Any:
    """A random mT5-small whose head is its own, as in the real one."""
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(MT5Config(vocab_size=ROWS, decoder_start_token_id=0, **SHAPE))
    model.lm_head = torch.nn.Linear(SHAPE["d_model"], ROWS, bias=False)
    model.config.tie_word_embeddings = False
    return model.eval()


def tokenizer_of(folder: Path | None) -> Any:
    """The tokenizer of a folder, or one trained on the packaged probes."""
    if folder is not None:
        return load_tokenizer(str(folder))
    packaged = probe_set("wvs")
    sentences = [
        p.filled(pole) for code in packaged.languages for p in packaged.probes(code) for pole in ("first", "second")
    ]
    with tempfile.TemporaryDirectory() as temporary:
        return train_tokenizer(sentences, Path(temporary))


def chosen(tokenizer: Any, sentinels: Sentinels, shortest: int, longest: int, number: int) -> list[Probe]:
    """Some probes of all languages whose longer option has so many tokens."""
    packaged = probe_set("wvs")
    probes = [probe for code in packaged.languages for probe in packaged.probes(code)]
    random.Random(0).shuffle(probes)
    fitting = (p for p in probes if shortest <= max(encoder_decoder_ids(p, tokenizer, sentinels).scored) <= longest)
    return [probe for _, probe in zip(range(number), fitting, strict=False)]


def plain_loop(model: Any, sentinel: int, ids: Sequence[EncoderDecoderIds]) -> None:
    """One forward for each option, as a first script would."""
    for one in ids:
        for option in (one.first, one.second):
            target = torch.tensor([[sentinel, *option]])
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([one.encoder]), labels=target).logits
                logits.log_softmax(-1).gather(2, target[..., None]).sum()


def measured(work: Callable[[], object], into: Measured) -> None:
    """Run once; keep the least processor time a thread and the peak of memory above what was held before."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back what earlier runs freed, which would hide new memory
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    start = time.process_time()
    work()
    into.seconds = min(into.seconds, (time.process_time() - start) / torch.get_num_threads())
    into.megabytes = max(into.megabytes, memory("VmHWM") - before)


def memory(field: str) -> float:
    """A field of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def matmul_rate() -> float:
    """Floating-point operations a second of the vocabulary projection and of a square product, the better of the two."""
    rates = []
    for left, inner, right in ((64, 512, ROWS), (2048, 2048, 2048)):
        a, b = torch.randn(left, inner), torch.randn(right, inner)
        for _ in range(4):
            start = time.process_time()
            torch.nn.functional.linear(a, b)
            rates.append(2 * left * inner * right * torch.get_num_threads() / (time.process_time() - start))
    return max(rates)


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products in one run."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def main() -> None:
    """Measure and print one table for each length of options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=64, help="probes of each length")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--tokenizer", type=Path, help="folder of a mT5-like tokenizer; else one is trained on the probes"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = real_shape(), tokenizer_of(options.tokenizer)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=options.batch_size, max_length=512)
    assert not torch.equal(model.lm_head.weight[:2], model.shared.weight[:2])  # the hook kept the head
    sentinels = resolve_sentinels(tokenizer, ROWS)
    scorers = {
        CLOSED: EncoderDecoderScorer(model, tokenizer, closing=True),
        SCORED: EncoderDecoderScorer(model, tokenizer),
        QUICK: EncoderDecoderScorer(model, tokenizer, log_probs=False),
    }
    rate = matmul_rate()
    print(f"{options.threads} thread(s), batch size {options.batch_size}, {rate / 1e9:.0f} GFLOP/s in matrix products")
    for name, (shortest, longest) in LENGTHS.items():
        probes = chosen(tokenizer, sentinels, shortest, longest, options.probes)
        few = [encoder_decoder_ids(probe, tokenizer, sentinels) for probe in probes[: max(1, len(probes) // 4)]]
        requests = [
            Instance("loglikelihood", {}, (text.context, continuation), index, ("wvs", 0, 1))
            for text in (strings(probe, "encoder-decoder", sentinels) for probe in probes)
            for index, continuation in enumerate((text.first, text.second))
        ]
        work: dict[str, Callable[[], object]] = {
            PLAIN: lambda few=few: plain_loop(model, sentinels.ids[0], few),  # type: ignore[misc]
            STOCK: lambda requests=requests: lm.loglikelihood(requests, disable_tqdm=True),  # type: ignore[misc]
        }
        for title, scorer in scorers.items():
            work[title] = lambda scorer=scorer, probes=probes: score_probes(  # type: ignore[misc]
                scorer, probes, options.batch_size, quiet=True
            )
        found = {title: Measured() for title in work}
        for _ in range(options.repeats):
            for title, run in work.items():
                measured(run, found[title])
        print_table(name, probes, few, found, {title: operations(work[title]) / rate for title in scorers})


def print_table(
    name: str, probes: Sequence[Probe], few: Sequence[Any], found: dict[str, Measured], least: dict[str, float]
) -> None:
    """Probes a second, ratios, share of the matrix-multiply rate, memory."""
    rates = {title: (len(few) if title == PLAIN else len(probes)) / one.seconds for title, one in found.items()}
    table = Table(title=f"Tokens of the options: {name} ({len(probes)} probes)", title_justify="left")
    for column in ("", "probes/s", "x stock", "x plain loop", "of matmul rate", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    for title, one in found.items():
        share = f"{least[title] / one.seconds:.0%}" if title in least else ""
        ratios = [f"{rates[title] / rates[other]:.2f}" for other in (STOCK, PLAIN)]
        table.add_row(title, f"{rates[title]:.1f}", *ratios, share, f"{one.megabytes:.0f}")
    Console(width=110, highlight=False).print(table)


if __name__ == "__main__":
    main()
