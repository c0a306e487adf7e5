"""What the hook costs an unrelated Python process: `python benchmarks/startup.py`.

Starts `python -c pass` many times, in turn with the hook as installed and without it (`-S` is no peer: it drops all of
site-packages), and prints the medians and the modules that the hook adds.
"""

import statistics
import subprocess
import sys
import time

STARTS = 60
HOOK = "import valueshift_lm_eval as hook; hook.install()"


def main() -> None:
    """Print the table."""
    timings: dict[str, list[float]] = {"python -c pass": [], "python -c 'import json'": []}
    for _ in range(STARTS):
        for name, code in (("python -c pass", "pass"), ("python -c 'import json'", "import json")):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            timings[name].append(time.perf_counter() - start)
    code = (
        "import sys, time\n"
        "for name in [n for n in sys.modules if n.startswith('valueshift')]: del sys.modules[name]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'Hook']\n"
        f"start = time.perf_counter(); {HOOK}; print(time.perf_counter() - start)"
    )
    hook = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout) for _ in range(20)
    ]
    whole = statistics.median(timings["python -c pass"])
    print(f"start of Python with the hook   {1000 * whole:7.2f} ms (median of {STARTS})")
    print(
        f"of which the hook               {1000 * statistics.median(hook):7.2f} ms ({statistics.median(hook) / whole:.1%})"
    )
    extra = statistics.median(timings["python -c 'import json'"]) - whole
    print(f"for comparison, `import json`   {1000 * extra:7.2f} ms")


if __name__ == "__main__":
    main()
