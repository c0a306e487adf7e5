"""The typer application, its groups, and the options that several commands share."""

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


def main() -> None:
    """Run the command; bad input ends with one sentence and status 2."""
    try:
        app()
    except ValueshiftError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
