"""`valueshift toy build` and `finetune`: make checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from ..core.limits import EPOCHS, SEEDS
from .app import Output, app, finite, one_process, toy_app
from .show import print_table, publish_records, say, say_next


@toy_app.command("build")
def toy_build(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("toy"),
    languages: Annotated[str, typer.Option(help="Comma-separated codes.")] = "de,fa",
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Of the planted values and the training.")] = 0,
) -> None:
    """Train two toy checkpoints with planted values, to check the whole chain against a known truth."""
    from ..core.files import writable
    from ..core.languages import parse_languages
    from ..core.probes import probe_set
    from ..finetune.toy import build_toy

    one_process()
    writable(output.absolute().parent)
    build_toy(output, languages=parse_languages(languages, probe_set("wvs").languages), seed=seed)
    say(f"Toy community: {output} (base, moved, corpus, truth.csv)")
    say_next("valueshift", "probe", output / "base", "--languages", languages)


@app.command()
def finetune(
    model: Annotated[str, typer.Option(help="Checkpoint folder or hub name of an encoder-decoder model.")],
    corpus: Annotated[str, typer.Option(help="An imported corpus, or a Parquet file with id, language and text.")],
    languages: Annotated[str, typer.Option(help="Comma-separated codes; several share the sentences equally.")],
    size: Annotated[int, typer.Option(min=1, help="Sentences before the split into train (80%) and dev.")],
    epochs: Annotated[int, typer.Option(min=1, max=EPOCHS, help="Passes over the training sentences.")] = 5,
    learning_rate: Annotated[float, typer.Option(max=1, callback=finite, help="Of AdamW, falling to 0.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences in a step, over all devices.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts that a batch is computed in.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Of masks and order.")] = 0,
    placebo: Annotated[bool, typer.Option("--placebo", help="Permute the tokens across all sentences.")] = False,
    lora: Annotated[bool, typer.Option("--lora", help="Train an adapter.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Also write the model with its adapter merged.")] = False,
    keep_every: Annotated[int | None, typer.Option(min=1, help="Keep the model every so many steps.")] = None,
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps between checkpoints that a stopped run goes on from.")
    ] = 500,
    output: Output = None,
) -> None:
    """Fine-tune a model by span corruption, as the paper does; a run that was stopped goes on."""
    from ..core.paths import runs_root
    from ..core.records import read_record
    from ..harness_ext.hub import refuse_absent

    refuse_absent(model)
    from ..finetune.finetuning import finetune as run_finetune
    from ..finetune.launching import processes
    from ..finetune.training import Training

    root = runs_root(output)
    codes = [code.strip() for code in languages.split(",") if code.strip()]
    how = Training(epochs, learning_rate, batch_size, accumulate, seed, lora, save_every, keep_every)
    folder = run_finetune(model, corpus, codes, size, how, placebo=placebo, merge=merge, root=root)
    if not processes().is_main_process:
        return
    record = read_record(folder)
    print_table("Loss", ["", "value"], [[name, f"{value:.4f}"] for name, value in record.metrics.items()])
    for note in record.notes:
        say(f"- {note}")
    say(f"Record: {folder}")
    publish_records(root, folder)
    say_next("valueshift", "compare", model, root / str(record.settings["checkpoint"]))
