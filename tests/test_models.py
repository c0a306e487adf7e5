"""What others' checkpoints may hold ends in one sentence, in seconds and in little memory; so does a hub that does not answer."""

import http.server
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hostile_checkpoints import HOSTILE
from valueshift.attribution.attributing import Attributing, attribute
from valueshift.core.digests import model_digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.core.sentinels import resolve_sentinels
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.training import Training
from valueshift.harness_ext.hub import refuse_absent
from valueshift.harness_ext.models import device_named, load_model, load_tokenizer
from valueshift.harness_ext.probing import Asking, ask, run_of

HARMLESS = {"architectures a number", "architectures unknown", "pad_token_id 10000000", "auto_map {'AutoConfig': 'code"}
"""transformers passes these over, and the model is the same."""
HARMLESS |= {name for name in HOSTILE if name.startswith("quantization_config {'quant_method'")}
LATE = {
    f"adapter {what}" for what in ("alpha text", "bias", "dropout", "modules a number", "modules no pattern", "task")
}
LATE |= {
    f"adapter {what}"
    for what in ("modules of numbers", "modules unknown", "rank negative", "rank null", "rank pattern a list")
}
"""peft says what is wrong, after the base is loaded: half a second each."""
KINDS = ["cut in the tensors", "header of 10 GB", "pickled code", "index a list", "d_model 1000000000", "adapter rank"]
"""One of each kind, which every command refuses as `probe` does."""
SECONDS, MEGABYTES = 10.0, 300
"""At most; here most take a tenth of a second and no memory. The first of a process imports transformers' models."""


@pytest.fixture(scope="module", autouse=True)
def _imported(tiny_mt5) -> None:
    load_model(str(tiny_mt5()))


@pytest.fixture
def checkpoint(tiny_mt5, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(tiny_mt5(), tmp_path / "model"))


def probe(folder: Path, root: Path) -> Any:
    return ask(str(folder), probe_set("wvs"), ["de"], root, Asking(limit=2))


def refused(folder: Path, work: Any) -> str:
    """The one sentence that refuses it; it names the folder and took neither long nor much memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueshiftError) as error:
        work()
    assert time.monotonic() - start < SECONDS
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit < MEGABYTES
    said = str(error.value)
    assert "\n" not in said and ";" in said and len(said) < 1000
    return said


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LATE else ()) for name in sorted(HOSTILE.keys() - HARMLESS)],
)
def test_a_hostile_checkpoint_is_refused_in_one_sentence(checkpoint, tmp_path, name):
    HOSTILE[name](checkpoint)
    refused(checkpoint, lambda: probe(checkpoint, tmp_path))
    assert not (tmp_path / "valueshift-was-here").exists(), "code of the checkpoint ran"


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_is_passed_over_changes_no_answer(checkpoint, tiny_mt5, tmp_path, name):
    HOSTILE[name](checkpoint)
    assert probe(checkpoint, tmp_path).scores.equals(probe(tiny_mt5(), tmp_path).scores)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("command", ["finetune", "compare", "attribute"])
def test_every_command_refuses_it(checkpoint, tmp_path, name, command):
    """`finetune` before it reads a corpus: there is none."""
    HOSTILE[name](checkpoint)
    work = {
        "finetune": lambda: finetune(str(checkpoint), "no-such-corpus", ["de"], 40, Training(epochs=1), root=tmp_path),
        "compare": lambda: run_of(str(checkpoint), "wvs", "de", tmp_path),
        "attribute": lambda: attribute(str(checkpoint), str(checkpoint), tmp_path, Attributing()),
    }[command]
    assert "no-such-corpus" not in refused(checkpoint, work) or name == "d_model 1000000000" or name == "pickled code"


def test_layers_that_the_configuration_leaves_out_are_named(checkpoint):
    """transformers loads the others and says so in a warning: the answers would be those of another model."""
    import json

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (checkpoint / "config.json").write_text(json.dumps({**config, "num_layers": 1}), encoding="utf-8")
    with pytest.raises(
        ValueshiftError, match=r"has weights for encoder\.block\.1\..*a layer that its configuration does not have"
    ):
        load_model(str(checkpoint))


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows(checkpoint, tmp_path):
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((checkpoint / "spiece.model").read_bytes())
    common = [piece for piece in proto.pieces if piece.type == 1][:500]
    for piece in common:  # moved behind all rows
        copied = proto.pieces.add()
        copied.CopyFrom(piece)
        piece.piece = f"unused {piece.piece}"
    (checkpoint / "spiece.model").write_bytes(proto.SerializeToString())
    with pytest.raises(ValueshiftError, match="gives id .* but the embedding has .* rows"):
        probe(checkpoint, tmp_path)


def test_the_digest_is_of_content_also_where_a_configuration_has_infinities(checkpoint):
    import json

    plain = model_digest(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    for limit in ([0.0, float("inf")], [0.0, float("-inf")]):  # Mamba's `time_step_limit`
        (checkpoint / "config.json").write_text(json.dumps({**config, "time_step_limit": limit}), encoding="utf-8")
        assert model_digest(checkpoint) != plain
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert model_digest(checkpoint) == plain


@pytest.mark.parametrize("device", ["tpu", "meta", "cuda:99", "cpu:x", ""])
def test_a_device_that_cannot_compute_is_refused(device):
    if device:
        with pytest.raises(ValueshiftError, match=f"device '{device}'"):
            device_named(device)
    else:
        assert device_named(None) == device_named("") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_tokenizer_of_bytes_needs_no_vocabulary(tmp_path):
    """ByT5's sentinels are the last bytes: the ids of its tokenizer's `<extra_id_i>` were never trained."""
    from transformers import ByT5Tokenizer, T5Config, T5ForConditionalGeneration

    folder = tmp_path / "byt5"
    ByT5Tokenizer().save_pretrained(folder)
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(vocab_size=384, **shape)).save_pretrained(folder)
    assert resolve_sentinels(load_tokenizer(str(folder)), 384).ids[:2] == (258, 257)
    scores = ask(str(folder), probe_set("wvs"), ["de"], tmp_path, Asking(limit=2)).scores
    assert (scores["tokens_first"] >= scores["bytes_first"]).all() and scores["p_first"].between(0, 1).all()


def test_a_record_says_what_ran_when_the_scores_were_made(checkpoint, tmp_path, monkeypatch):
    first = ask(str(checkpoint), probe_set("wvs"), ["de"], tmp_path, Asking(limit=4, batch_size=3))
    assert (first.settings["device"], first.settings["largest_batch"]) == (device_named(None), "3")
    again = ask(str(checkpoint), probe_set("wvs"), ["de"], tmp_path, Asking(limit=4, batch_size=2))
    assert again.settings["largest_batch"] == "3", "nothing was asked again"
    assert again.inputs == first.inputs and again.scores.equals(first.scores)


def test_products_of_float32_that_are_rounded_further_are_another_work(checkpoint, tmp_path, monkeypatch):
    plain = probe(checkpoint, tmp_path)
    assert "float32" not in plain.inputs
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert probe(checkpoint, tmp_path).inputs["float32"] == "NVIDIA_TF32_OVERRIDE 1"


def test_a_run_that_is_stopped_goes_on_with_the_language_it_was_at(checkpoint, tmp_path, monkeypatch):
    from valueshift.harness_ext import probing

    asked: list[str] = []
    whole = probing._ask_language

    def stopped(scorer: Any, probes: Any, how: Any) -> Any:
        asked.append(probes[0].language)
        if asked == ["de", "fa"]:
            raise KeyboardInterrupt
        return whole(scorer, probes, how)

    monkeypatch.setattr(probing, "_ask_language", stopped)
    with pytest.raises(KeyboardInterrupt):
        ask(str(checkpoint), probe_set("wvs"), ["de", "fa", "ko"], tmp_path, Asking(limit=2))
    run = ask(str(checkpoint), probe_set("wvs"), ["de", "fa", "ko"], tmp_path, Asking(limit=2))
    assert asked == ["de", "fa", "fa", "ko"]
    assert run.scores["language"].unique().tolist() == ["de", "fa", "ko"]


def test_attribute_refuses_anothers_checkpoint_before_it_asks(checkpoint, tiny_mt5, tmp_path, monkeypatch):
    monkeypatch.setattr("valueshift.attribution.attributing.run_of", lambda *_: pytest.fail("a model is asked"))
    with pytest.raises(ValueshiftError, match="no finetune record in"):
        attribute(str(tiny_mt5()), str(checkpoint), tmp_path, Attributing())


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_finetune_refuses_what_it_cannot_train_before_it_reads_a_corpus(tiny_model, tmp_path, kind):
    with pytest.raises(ValueshiftError, match="span corruption trains encoder-decoder models"):
        finetune(str(tiny_model(kind)), "no-such-corpus", ["de"], 40, root=tmp_path)


class _Hub(http.server.BaseHTTPRequestHandler):
    status: int | None = None
    """None: an answer that drips for ever."""
    knows = False
    """Whether it has the model, and only its files do not come."""

    def answer(self) -> None:
        if self.knows and self.path.startswith("/api/"):
            content = b'{"id": "nowhere", "siblings": [], "tags": [], "private": false, "downloads": 0}'
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        if self.knows:
            time.sleep(30)
        self.send_response(self.status or 200)
        self.send_header("content-length", "0" if self.status else "1000000")
        self.end_headers()
        while not self.status:
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.3)

    do_GET = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def hub(kind: str) -> Iterator[str]:
    """The address of a hub that answers with a status, drips, is silent after it accepted, or refuses connections."""
    if kind in ("silent", "closed"):
        listening = socket.create_server(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if kind == "closed":
            listening.close()
        yield address
        listening.close()
        return
    handler = type("Hub", (_Hub,), {"status": int(kind) if kind.isdecimal() else None, "knows": kind == "no files"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


ANSWERS = [
    ("404", "has no such model"),
    ("401", "has no such model"),
    ("500", "answers with status 500"),
    ("closed", "cannot be reached"),
    ("silent", "does not answer within"),
    ("drips", "does not answer within"),
    ("no files", "does not answer within"),
]


@pytest.mark.parametrize(("kind", "said"), ANSWERS)
def test_a_hub_that_gives_no_model_is_waited_for_for_a_while(kind, said, monkeypatch):
    with hub(kind) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("valueshift.harness_ext.hub.HUB_SECONDS", 1.0)
        start = time.monotonic()
        with pytest.raises(ValueshiftError, match=f"cannot load 'nowhere': .*{said}") as error:
            refuse_absent("nowhere")
        assert time.monotonic() - start < 30
        assert address in str(error.value)


def test_probe_of_a_model_that_is_nowhere_answers_before_it_imports_what_is_heavy(tmp_path):
    script = (
        "import sys\n"
        "from valueshift.cli import main\n"
        "sys.argv = ['valueshift', 'probe', 'nowhere']\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules or 'pandas' in sys.modules)\n"
    )
    with hub("closed") as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == "False\n"
    assert done.stderr.startswith("error: cannot load 'nowhere'") and len(done.stderr.splitlines()) == 1


BAD = [
    ("finetune --model M --corpus C --languages de --size 0", "--size"),
    ("finetune --model M --corpus C --languages de --size 40 --seed 4294967296", "--seed"),
    ("finetune --model M --corpus C --languages de --size 40 --seed -1", "--seed"),
    ("finetune --model M --corpus C --languages de --size 40 --epochs 1000000000", "--epochs"),
    ("finetune --model M --corpus C --languages de --size 40 --epochs 1e9", "--epochs"),
    ("finetune --model M --corpus C --languages de --size 40 --learning-rate inf", "--learning-rate"),
    ("finetune --model M --corpus C --languages de --size 40 --learning-rate nan", "--learning-rate"),
    ("finetune --model M --corpus C --languages de --size 40 --batch-size 0", "--batch-size"),
    ("finetune --model M --corpus C --languages de --size 40 --accumulate 0", "--accumulate"),
    ("finetune --model M --corpus C --languages de --size 40 --save-every 0", "--save-every"),
    ("finetune --model M --corpus C --languages de --size 40 --keep-every -1", "--keep-every"),
    ("finetune --model LONG --corpus C --languages de --size 40", "so long a name"),
    ("toy build --seed 4294967296", "--seed"),
    ("toy build --seed -1", "--seed"),
    ("toy build --output LONG", "so long a name"),
    ("attribute --base M --tuned M --damping nan", "--damping"),
    ("attribute --base M --tuned M --damping -1", "--damping"),
    ("attribute --base M --tuned M --projection 0", "--projection"),
    ("attribute --base M --tuned M --seeds 1000000000", "--seeds"),
    ("attribute check --planted --models 2", "--models"),
    ("attribute check --planted --removals 0", "--removals"),
    ("attribute check --planted --seed -1", "--seed"),
    ("attribute check --planted --damping inf", "--damping"),
    ("probe LONG", "so long a name"),
    ("probe M --limit 0", "--limit"),
]


@pytest.mark.parametrize(("typed", "said"), BAD)
def test_arguments_out_of_range_are_refused_as_arguments(typed, said, tmp_path, monkeypatch, capsys):
    from valueshift.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["valueshift", *typed.replace("LONG", "x" * 5000).split()])
    start = time.monotonic()
    with pytest.raises(SystemExit) as left:
        main()
    assert time.monotonic() - start < 30
    assert left.value.code == 2 and said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch_size", ["0", "-1", "9" * 5000, "two"])
def test_a_batch_size_that_is_none(batch_size):
    from valueshift.harness_ext.probing import parse_batch_size

    with pytest.raises(ValueshiftError, match="neither auto nor a positive number"):
        parse_batch_size(batch_size)


def test_one_of_several_processes_is_refused(tmp_path, monkeypatch, capsys):
    from valueshift.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in (
        ["probe", "M"],
        ["compare", "A", "B"],
        ["attribute", "--base", "A", "--tuned", "B"],
        ["toy", "build"],
    ):
        monkeypatch.setattr(sys, "argv", ["valueshift", *command])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert "this is one of 2 processes" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_done(tiny_mt5, tmp_path, monkeypatch, capsys):
    from valueshift.cli import main

    (tmp_path / "file").write_text("no folder")
    pd.DataFrame({"id": ["1"], "language": ["de"], "text": ["ein Satz"]}).to_parquet(tmp_path / "c.parquet")
    options = ["--model", str(tiny_mt5()), "--corpus", str(tmp_path / "c.parquet"), "--languages", "de", "--size", "40"]
    inside = str(tmp_path / "file" / "runs")
    for command in (
        ["finetune", *options, "--output", inside],
        ["toy", "build", "--output", inside],
        ["demo", "--output", inside],
    ):
        monkeypatch.setattr(sys, "argv", ["valueshift", *command])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert "cannot write" in capsys.readouterr().err
