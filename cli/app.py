"""The typer application, its groups, and the options that several commands share."""

import errno
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import ValueshiftError

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
    """Run the command; bad input ends with one sentence and status 2."""
    try:
        app()
    except ValueshiftError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        sys.stderr.write(
            f"error: {str(error.filename)[:60]}... is too long a name for a file or model; give a shorter one\n"
        )
        sys.exit(2)
