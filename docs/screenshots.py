"""Make the pictures of `docs/images/`: MLflow's pages and the report, of a simulated study, in headless Chromium.

    python docs/screenshots.py [FOLDER]        # or: make screenshots

The study is drawn from random numbers (`docs/examples/simulated_study.py`) and named so in every picture. Without Chromium or
Chrome on the PATH nothing is made, and the command says so. FOLDER keeps the study; else it is temporary.
"""

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from mlflow import MlflowClient
from PIL import Image, ImageDraw, ImageFont
from valueshift.core.records import find_records, read_record
from valueshift.harness_ext.comparison import compare
from valueshift.harness_ext.results import ProbeRun, read_probe_runs
from valueshift.tracking.publish import publish_missing
from valueshift.tracking.report.write import write_report
from valueshift.tracking.ui import ui_command, ui_environment, view_address

IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
EXPERIMENT = "simulated study"
LANGUAGES = ("de", "el", "fa", "tr", "vi")
LABEL = "A simulated study: random numbers, no model's answers"
HOST = "mlflow.internal"
"""Name under which the browser knows this machine: under its own, MLflow opens its chat over a quarter of each page."""
LOADING = 60_000
"""Virtual milliseconds that a page may take."""
COLOURS = 128


def main() -> None:
    """Simulate, compare, report, publish, and take the pictures."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no pictures made: none of {', '.join(BROWSERS)} is on the PATH")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        os.environ["VALUESHIFT_CACHE"] = str(folder / "cache")  # the packaged survey, on every machine
        os.environ["MLFLOW_EXPERIMENT_NAME"] = EXPERIMENT
        runs = folder / "runs"
        if not runs.exists():
            study(runs)
        publish_missing(runs)  # the report names the runs of MLflow
        if not (folder / "report").exists():
            write_report([runs], folder / "report", root=runs)
        publish_missing(runs)
        IMAGES.mkdir(exist_ok=True)
        with served(runs) as server:
            for name, (address, width, height) in pages(server, folder / "report").items():
                print(picture(browser, address, IMAGES / f"{name}.png", width, height))


def study(runs: Path) -> None:
    """Records of a small study: two corpora, two fine-tuning languages, two seeds, placebos, and their comparisons."""
    simulate = runpy.run_path(str(Path(__file__).parent / "examples" / "simulated_study.py"))["simulate"]
    simulate(runs, languages=LANGUAGES, tunings=("fa", "ru"), placebos=5, models=("simulated-small",))
    probed: dict[str, ProbeRun] = {}
    for path in find_records(runs, "probe"):
        (run,) = read_probe_runs(path)
        probed[run.inputs["model"]] = run
    for path in find_records(runs, "finetune"):
        made = read_record(path)
        compare(probed[made.inputs["model"]], probed[made.settings["checkpoint_digest"]], runs)


def pages(server: str, report: Path) -> dict[str, tuple[str, int, int]]:
    """Picture to address, width and height."""
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    compared = "tags.`valueshift.kind` = 'comparison' and params.`tuned_on.placebo` = 'false'"
    comparisons = client.search_runs([experiment], compared, order_by=["params.`tuned_on.size`"])
    chosen = [run.info.run_id for run in comparisons[:4]]
    ids, experiments = quote(json.dumps(chosen)), quote(json.dumps([experiment]))
    reports = client.search_runs([experiment], "tags.`valueshift.kind` = 'report'")
    layout = "workflowType=machine_learning"
    named = server.replace("127.0.0.1", HOST)
    return {
        "runs": (view_address(named, experiment, "shifts"), 1800, 900),
        "alignment": (view_address(named, experiment, "alignment"), 1800, 900),
        "charts": (view_address(named, experiment, "shifts") + "&compareRunsMode=CHART", 1800, 1100),
        "compare": (f"{named}/#/compare-runs?runs={ids}&experiments={experiments}&{layout}", 1600, 1400),
        "run": (f"{named}/#/experiments/{experiment}/runs/{chosen[0]}?{layout}", 1600, 1300),
        "report-run": (
            f"{named}/#/experiments/{experiment}/runs/{reports[0].info.run_id}/artifacts/report/index.html?{layout}",
            1600,
            1300,
        ),
        "report": ((report / "index.html").as_uri(), 1200, 1600),
        "report-phone": ((report / "index.html").as_uri(), 400, 900),
    }


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """MLflow's server on a free port of this machine, ended afterwards."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    environment = {**ui_environment(), "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}"}
    environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = f"127.0.0.1:{port},{HOST}:{port}"
    process = subprocess.Popen(ui_command(runs, port), env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()  # noqa: S310  (our own http address)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("no pictures made: MLflow's server did not start; its messages are above")
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def picture(browser: str, address: str, path: Path, width: int, height: int) -> str:
    """Write a picture of a page with few colours, and say how large it is."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en"]
        command += [f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
        command += ["--disable-features=IsolateSandboxedIframes"]  # else the report inside MLflow's page stays blank
        command += [f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        command += [f"--virtual-time-budget={LOADING}", f"--screenshot={path}", address]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=300)
    with Image.open(path) as image:
        labelled = Image.new("RGB", (image.width, image.height + 32), "#fff3c4")
        labelled.paste(image, (0, 32))
    ImageDraw.Draw(labelled).text((12, 7), LABEL, "black", ImageFont.load_default(15))
    labelled.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return f"{path} ({path.stat().st_size // 1000} kB)"


if __name__ == "__main__":
    main()
