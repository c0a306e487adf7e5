"""Commands at a terminal that closes, is full, lacks letters, or is to be deceived by names; and arguments that cannot be."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from valueshift.cli import app, main, show
from valueshift.core.shown import LENGTH, shown

SCRIPT = shutil.which("valueshift", path=str(Path(sys.executable).parent)) or "valueshift"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


def ran(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a shell runs, with `valueshift` as the installed script."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; valueshift() {{ {shlex.quote(SCRIPT)} "$@"; }}; {command}'],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


# Nobody reads, or there is no room


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("valueshift probes check | true", 0, ""),
        ("valueshift probes check >&-", 0, ""),
        ("valueshift probes check >&- 2>&-", 0, ""),
        ("valueshift probes check <&-", 0, ""),
        (
            "valueshift probes check > /dev/full",
            2,
            "what was printed is not whole ([Errno 28] No space left on device)",
        ),
        ("valueshift probes check 2> /dev/full", 0, ""),
        ("valueshift --help > /dev/full", 2, "what was printed is not whole"),
        ("valueshift ui --output nowhere 2> /dev/full", 2, ""),
    ],
)
def test_output_that_goes_nowhere_ends_nothing(command: str, status: int, said: str, tmp_path: Path) -> None:
    done = ran(command, tmp_path)
    assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (status, False, False), (
        done.stderr
    )
    assert said in done.stderr


def test_work_goes_on_when_its_reader_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command does after its first line is done: the pipe is closed before that line."""
    reading, writing = os.pipe()
    os.close(reading)
    done: list[int] = []

    def work() -> None:
        for step in range(3):
            print("line " * 10_000, flush=True)
            sys.stderr.write("progress")
            done.append(step)

    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(app, "app", work)
        monkeypatch.setattr(sys, "argv", ["valueshift"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code, done) == (0, [0, 1, 2])


# Letters


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C.UTF-8"},
    ],
)
def test_an_urdu_path_is_printed_or_refused_in_any_encoding(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "اردو"
    folder.mkdir()
    shutil.copy(Path(__file__).parents[1] / "tasks" / "wvs" / "probes" / "ur.csv", folder)
    done = ran(f"valueshift probes check {folder}", tmp_path, **environment)
    assert "Traceback" not in done.stderr
    if environment.get("PYTHONUTF8") == "0":  # the system itself cannot name it
        assert done.returncode == 2 and "set PYTHONUTF8=1" in done.stderr
    else:
        assert done.returncode == 0 and ("اردو" in done.stdout or "\\u0627\\u0631" in done.stdout)


def test_a_path_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    done = ran("valueshift probes check $'bad\\xff'", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'bad\\udcff' is no text in the encoding of this locale")


# What a terminal would obey

HOSTILE = "a\x1b[2Jb\nc\rd\u202ee\u2066f\x9bg\u2028h\ud800i\x00"


def test_what_a_terminal_would_obey_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    said = "a\\x1b[2Jb\\nc\\rd\\u202ee\\u2066f\\x9bg\\u2028h\\ud800i\\x00"
    assert shown(HOSTILE) == said
    show.say(HOSTILE)
    show.print_table(HOSTILE, [HOSTILE], [[HOSTILE]])
    printed = capsys.readouterr().out
    assert printed.startswith(said + "\n") and not set(printed) & set(HOSTILE) - set("\nabcdefghi[2J")
    zwnj = "می‌خواهم\u200f"
    assert shown(zwnj) == zwnj, "what scripts need stays"


@given(st.text(max_size=3000))
def test_shown_text_is_one_bounded_line_of_any_encoding(text: str) -> None:
    line = shown(text)
    assert len(line.encode()) >= 0 and len(line.splitlines()) <= 1 and len(line) <= LENGTH + 5
    assert shown(line) == line or len(line) > LENGTH


@pytest.mark.parametrize(
    "name", ["plain", "a b", "it's", "$(touch x)", "`id`", "a\x1b[2Jb", "back\\slash\n'\x1b", "-rf", "اردو", "a;b", "*"]
)
def test_a_shell_reads_the_next_command_as_it_was_meant(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show.say_next("printf", "%s\\0", Path(name), before="look, then: ")
    line = capsys.readouterr().out
    assert line.startswith("Next: look, then: printf") and line.isprintable() is False and line.count("\n") == 1
    assert "\x1b" not in line
    done = subprocess.run(["bash", "-c", line.removeprefix("Next: look, then: ")], cwd=tmp_path, capture_output=True)
    given = done.stdout.decode().rstrip("\0")
    assert Path(given) == Path(name) and not given.startswith("-")


def test_errors_are_one_line_whatever_the_name(tmp_path: Path) -> None:
    done = ran("valueshift ui --output $'x\\e[2J\\ny'", tmp_path)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: ")
    assert "\x1b" not in done.stderr and "x\\x1b[2J\\ny" in done.stderr


# Arguments that cannot be, refused before anything is imported


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ui", "--port", "99999"], "--port"),
        (["ui", "--port", "0"], "--port"),
        (["ui", "--port", "-1"], "--port"),
        (["probe", "m", "--limit", "0"], "--limit"),
        (["probe", "m", "--limit", "x"], "--limit"),
        (["grid", "run", "toy", "--workers", "1000000000"], "--workers"),
        (["grid", "run", "toy", "--workers", "0"], "--workers"),
        (["grid", "run", "toy", "--executor", "slurm"], "--executor is local or ray, not 'slurm'"),
        *[
            (["grid", "run", "toy", "--executor", "ray", "--address", address], "--address is local, auto or HOST:PORT")
            for address in (
                "nonsense",
                "host:99999",
                "host:",
                ":6379",
                "http://host:80",
                "ray://host:10001",
                "a b:1",
                "",
            )
        ],
        *[
            ([*words, "x" * 5000, *rest], "no file or model has so long a name")
            for words, rest in [
                (["probe"], []),
                (["probe", "m", "--output"], []),
                (["compare"], ["b"]),
                (["compare", "a"], []),
                (["report"], []),
                (["report", "--truth"], []),
                (["publish"], []),
                (["ui", "--output"], []),
                (["demo", "--output"], []),
                (["toy", "build", "--output"], []),
                (["grid", "plan"], []),
                (["grid", "run", "toy", "--copy-to"], []),
                (["attribute", "--base"], ["--tuned", "b"]),
                (["finetune", "--model", "m", "--languages", "fa", "--size", "10", "--corpus"], []),
                (["probes", "check"], []),
                (["probes", "new"], ["--items", "a", "--probes", "b"]),
                (["survey", "import"], []),
                (["corpus", "import", "pbc"], []),
            ]
        ],
        (["report", "/".join(["x" * 200] * 30)], "no file or model has so long a name"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["valueshift", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr().err
    assert (ended.value.code, said in printed) == (2, True), printed
    assert len(printed) < 1000 and list(tmp_path.iterdir()) == []


def test_a_long_list_is_no_long_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "app", lambda: None)
    monkeypatch.setattr(sys, "argv", ["valueshift", "--questions", ",".join(f"Q{number}" for number in range(2000))])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


def test_a_refusal_takes_no_second(tmp_path: Path) -> None:
    began = time.monotonic()
    done = ran(f"valueshift probe {'x' * 5000}; valueshift grid run toy --executor ray --address x", tmp_path)
    assert done.returncode == 2 and time.monotonic() - began < 60, (
        "two starts of Python, on a machine that does other things"
    )


# How else a command may end


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "Stopped. What was done is whole"),
        (OSError(28, "No space left on device"), 2, "error: the system refuses to write: No space left on device"),
        (
            PermissionError(13, "Permission denied", "runs/x\n"),
            2,
            "error: the system refuses runs/x\\n: Permission denied",
        ),
        (FileNotFoundError(2, "No such file or directory", b"x"), 2, "error: the system refuses x: No such file"),
        (MemoryError(), 2, "error: the memory of this machine is not enough"),
        (UnicodeEncodeError("ascii", "ار", 0, 1, "ordinal"), 2, "error: 'ار' cannot be written in ascii"),
        (SystemExit(1), 1, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_what_the_machine_refuses_is_a_sentence(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(app, "app", raising(error))
    monkeypatch.setattr(sys, "argv", ["valueshift"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [OSError("of a library"), ValueError("x"), RecursionError(), ConnectionError(104, "reset")]
)
def test_a_bug_is_not_hidden(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "app", raising(error))
    monkeypatch.setattr(sys, "argv", ["valueshift"])
    with pytest.raises(type(error)):
        main()


def raising(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


WAITING = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in the background of a script
from valueshift.cli.app import app, main
@app.command()
def wait() -> None:
    print("ready", flush=True)
    time.sleep(60)
main()
"""


def test_ctrl_c_ends_with_a_word() -> None:
    command = [sys.executable, "-c", WAITING, "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[1]
    assert (running.returncode, said) == (130, "\nStopped. What was done is whole; the same command goes on.\n")


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = ran(f"rmdir {shlex.quote(str(gone))}; valueshift probes check", gone)
    assert done.returncode == 2 and "the working directory does not exist any more" in done.stderr


@pytest.mark.parametrize("command", ["grid run plan.yaml", "demo"])
def test_a_folder_that_cannot_be_written_is_said_before_the_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "plan.yaml").write_text("models: {small: google/mt5-small}\nprobe: {languages: [de]}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["valueshift", *command.split(), "--output", str(tmp_path / "file" / "runs")])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert printed == f"error: cannot write {tmp_path}/file/runs: Not a directory; choose another folder\n"
