"""`make test-machines`: the tests that compare numbers, with the kernels and thread counts of other machines.

A sum of floating-point numbers depends on its order, and that on the width of vectors and the number of threads, which the
libraries choose by the processor. They can be told to choose otherwise: all as on a class of processors, then one at a time.
A setting that changes nothing here, or that this processor cannot, is left out and named.

    python tests/machines.py [--short] [arguments of pytest]
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
MARKS = "numeric and not slow and not real_shape and not full"
LIBRARIES = """
import json, numpy, torch
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from threadpoolctl import threadpool_info
numpy.ones((64, 64)) @ numpy.ones((64, 64))
print(json.dumps({
    "NumPy": " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name]) or "baseline",
    "OpenBLAS": " ".join(sorted({one.get("architecture") or "" for one in threadpool_info()} - {""})),
    "ATen": torch.backends.cpu.get_cpu_capability(),
    "threads": torch.get_num_threads(),
}), flush=True)
a = torch.ones(8, 8)
with torch.backends.mkl.verbose(1):
    a @ a
with torch.backends.mkldnn.verbose(1):
    torch.nn.functional.conv2d(a[None, None], a[None, None])
"""


def kernels(variables: dict[str, str]) -> dict[str, str]:
    """What each numeric library says that it uses under these environment variables; nothing where it ends by a signal."""
    command = [sys.executable, "-c", LIBRARIES]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode < 0:
        return {}
    done.check_returncode()
    said, _, verbose = done.stdout.partition("\n")
    mkl = re.search(
        r"^MKL_VERBOSE .*architecture (.*?)(?: with support| instructions| enabled| processors|,? Lnx)", verbose
    )
    onednn = re.search(r"info,cpu,isa:(.*)", verbose)
    found = {**json.loads(said), "MKL": mkl and mkl[1], "oneDNN": onednn and onednn[1]}
    return {name: str(value) for name, value in found.items() if value}


def settings(plain: dict[str, str], short: bool) -> dict[str, dict[str, str]]:
    """Environment variables by the name of the setting."""
    vectors = plain["NumPy"].split()
    wide = [name for name in vectors if re.search("512|V4", name)]
    classes = {
        "all as with SSE4.2 alone": {
            "OPENBLAS_CORETYPE": "Nehalem",
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_CBWR": "COMPATIBLE",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "NPY_DISABLE_CPU_FEATURES": " ".join(vectors),
        },
        "all as with AVX2": {
            "OPENBLAS_CORETYPE": "Haswell",
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "NPY_DISABLE_CPU_FEATURES": " ".join(wide),
        },
    }
    two = {
        **{f"{library}_NUM_THREADS": "2" for library in ("OMP", "MKL", "OPENBLAS")},
        **{
            "OMP_WAIT_POLICY": "PASSIVE",
            "KMP_BLOCKTIME": "0",
        },  # waiting threads do not spin: two workers share two cores
    }
    both = {f"two threads, {name}": {**two, **variables} for name, variables in classes.items()}
    if short:
        oldest = next(iter(both))
        return {oldest: both[oldest]}
    one_by_one = [
        *(("OPENBLAS_CORETYPE", value) for value in ("Nehalem", "Haswell", "Zen", "SkylakeX")),
        *(("ATEN_CPU_CAPABILITY", value) for value in ("default", "avx2")),
        *(("MKL_CBWR", value) for value in ("COMPATIBLE", "AVX2")),
        ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
        *(("ONEDNN_MAX_CPU_ISA", value) for value in ("SSE41", "AVX2")),
        ("NPY_DISABLE_CPU_FEATURES", " ".join(vectors)),
    ]
    alone = {f"{name}={value}": {name: value} for name, value in one_by_one}
    return {"as it is": {}, "two threads": two, **classes, **both, **alone}


def main(arguments: list[str]) -> int:
    """Print a table of settings and how the tests went, and return how many settings failed."""
    short = "--short" in arguments
    options = ["-n", "2", "--dist", "loadgroup", "-q", "-m", MARKS, *(one for one in arguments if one != "--short")]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the tests
    plain = kernels({})
    print("this machine: " + ", ".join(f"{library} {used}" for library, used in plain.items()), flush=True)
    logs, seen, failed = Path(tempfile.mkdtemp(prefix="test-machines-")), {}, 0
    for number, (name, variables) in enumerate(settings(plain, short).items()):
        found = tuple(kernels(variables).items())
        if not found or found in seen:
            print(f"{name:<45} left out: {f'same as {seen[found]}' if found else 'not on this processor'}", flush=True)
            continue
        seen[found] = name
        with (logs / f"{number}.log").open("w+", encoding="utf-8") as log:
            command = [sys.executable, "-m", "pytest", *options, str(TESTS)]
            status = subprocess.run(
                command, env={**os.environ, **variables}, stdout=log, stderr=subprocess.STDOUT
            ).returncode
            log.seek(0)
            lines = log.read().splitlines()
        print(f"{name:<45} {'FAILED' if status else 'passed'}: {lines[-1].strip('= ')}", flush=True)
        if status:
            failed += 1
            print(
                "\n".join(line for line in lines if line.startswith(("FAILED", "ERROR"))), f"\n(all of it: {log.name})"
            )
    print(f"{failed} of {len(seen)} settings failed")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
