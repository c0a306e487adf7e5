"""A run that is killed without warning goes on from its last checkpoint and ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from valueshift.core.probes import probe_set
from valueshift.core.records import find_records, read_record, read_table
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.training import Training

COMMAND = Path(sys.executable).with_name("valueshift")
EPOCHS, EVERY = 10, 2


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
def test_killed_and_run_again(tiny_mt5, tmp_path, lora):
    base, corpus, root = str(tiny_mt5()), tmp_path / "small.parquet", tmp_path / "killed"
    probes = probe_set("wvs").probes("fa")[:40]
    rows = [(str(number), "fa", probe.filled("first")) for number, probe in enumerate(probes)]
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(corpus)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the commands below; sums depend on it
    how = Training(EPOCHS, 1e-3, lora=lora, save_every=EVERY, keep_every=EVERY)
    whole = finetune(base, str(corpus), ["fa"], 40, how, root=tmp_path / "undisturbed")
    torch.set_num_threads(threads)

    command = [COMMAND, "finetune", "--model", base, "--corpus", corpus, "--languages", "fa", "--size", "40"]
    command += ["--epochs", EPOCHS, "--learning-rate", "1e-3", "--save-every", EVERY, "--keep-every", EVERY]
    command = [*map(str, command), *(["--lora"] if lora else []), "--output", str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not (saved := list(root.glob("checkpoints/*.training/checkpoint-*/trainer_state.json"))):
            assert process.poll() is None, process.stdout.read().decode()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert find_records(root) == []
    early = list(root.glob("checkpoints/*-step2/*.safetensors"))
    assert saved and len(early) == 1
    written = early[0].stat().st_mtime_ns

    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    (resumed,) = find_records(root)
    assert early[0].stat().st_mtime_ns == written  # steps that were saved are not made again
    assert resumed.name == whole.name
    expected, found = read_table(whole, "losses"), read_table(resumed, "losses")
    assert len(found[found["split"] == "train"]) == EPOCHS * 4
    assert found[["step", "split"]].equals(expected[["step", "split"]])
    assert found["loss"].tolist() == pytest.approx(expected["loss"].tolist())
    file = "adapter_model.safetensors" if lora else "model.safetensors"
    one, other = (load_file(r.parent / read_record(r).settings["checkpoint"] / file) for r in (whole, resumed))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert not list(root.glob("checkpoints/*.training"))
