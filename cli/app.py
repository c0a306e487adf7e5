"""The typer application, its groups, the options that several commands share, and how every command ends."""

import errno
import math
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import ValueshiftError
from ..core.limits import NAME_BYTES, PATH_BYTES
from ..core.shown import shown
from .terminal import is_lost, lasting_output

app = typer.Typer(
    name="valueshift",
    help="Ask language models the World Values Survey in their own languages, and see what shifts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
toy_app = typer.Typer(help="The toy community: small checkpoints whose values are planted.", no_args_is_help=True)
tasks_app = typer.Typer(help="The lm-eval tasks.", no_args_is_help=True)
probes_app = typer.Typer(help="Probe sets: import a release, check a wording.", no_args_is_help=True)
corpus_app = typer.Typer(help="Parallel corpora for fine-tuning.", no_args_is_help=True)
survey_app = typer.Typer(help="What people answered.", no_args_is_help=True)
app.add_typer(toy_app, name="toy")
app.add_typer(tasks_app, name="tasks")
app.add_typer(probes_app, name="probes")
app.add_typer(survey_app, name="survey")
app.add_typer(corpus_app, name="corpus")

Output = Annotated[Path | None, typer.Option(help="Folder of run records; else VALUESHIFT_RUNS, else ./runs.")]
Languages = Annotated[str | None, typer.Option(help="Comma-separated codes, such as de,fa; else all there are.")]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
"""Faults of a disk, which writing to an open file raises without the file's name."""


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinities, which compare with no bound."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number")
    return value


def one_process() -> None:
    """Refuse a launcher's several processes, each of which would do the same work and write the same records.

    Raises:
        ValueshiftError: this is one of several.
    """
    from ..core.paths import launched_processes

    if (number := launched_processes()) > 1:
        raise ValueshiftError(
            f"this is one of {number} processes, and only `valueshift finetune` can share its work; start it without "
            f"`accelerate launch` or torchrun"
        )


def main() -> None:
    """Run the command; bad input, and what the machine refuses, ends with one sentence and status 2."""
    with lasting_output() as output:
        status = _run()
        sys.stdout.flush()
        if is_lost(output):
            sys.stderr.write(f"error: what was printed is not whole ({output.fault}); what was computed is\n")
            status = status or 2
    sys.exit(status)


def _run() -> int:
    """The status that the command ends with."""
    try:
        _refuse_impossible_words()
        app()
        return 0
    except (SystemExit, KeyboardInterrupt) as ended:
        if isinstance(ended, SystemExit) and not _was_interrupted(ended):
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        sys.stderr.write("\nStopped. What was done is whole; the same command goes on.\n")
        return 130
    except ValueshiftError as error:
        message = str(error)
    except UnicodeEncodeError as error:
        message = f"'{error.object}' cannot be written in {error.encoding}; set PYTHONUTF8=1, or rename it"
    except MemoryError:
        message = "the memory of this machine is not enough; what was done is whole: ask for less at a time"
    except OSError as error:
        if error.filename is None and error.errno not in _DISK:
            raise
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename or "to write"
        message = f"the system refuses {name}: {error.strerror}; mend it or choose another folder"
    sys.stderr.write(f"error: {shown(message)}\n")
    return 2


def _refuse_impossible_words() -> None:
    """Refuse what can be no file, model or option, before anything is imported.

    Raises:
        ValueshiftError: an argument, or the working directory, is no text in this locale; an argument is too long; the
            working directory is gone.
    """
    try:
        words = [*sys.argv[1:], os.getcwd()]  # noqa: PTH109
    except FileNotFoundError:
        raise ValueshiftError("the working directory does not exist any more; change to another") from None
    for word in words:
        try:
            length = len(word.encode())
        except UnicodeEncodeError:
            raise ValueshiftError(
                f"'{word}' is no text in the encoding of this locale ({sys.getfilesystemencoding()}); set PYTHONUTF8=1, "
                "or rename it"
            ) from None
        parts = word.replace(",", "/").split("/")
        longest = max(len(part.encode()) for part in parts)
        if longest > NAME_BYTES or (length > PATH_BYTES and "," not in word):
            raise ValueshiftError(f"'{word[:40]}...' has {length:,} bytes; no file or model has so long a name")


def _was_interrupted(ended: BaseException | None) -> bool:
    """Whether Ctrl-C is among the causes: typer ends the command itself, its releases with different statuses."""
    while ended is not None:
        if isinstance(ended, KeyboardInterrupt):
            return True
        ended = ended.__cause__ or ended.__context__
    return False
