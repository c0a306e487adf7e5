"""The processes of a grid, for tests that watch and kill them: drivers, their workers, and the nodes of a Ray cluster."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}
"""What a node of a Ray cluster on this machine has."""


def workers_of(driver: int) -> list[int]:
    """Worker processes of a local driver."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(driver)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def at_work(root: Path) -> list[int]:
    """Processes in which a cell's heart beats, whatever the executor."""
    found = []
    for path in (root / "running").glob("*.json"):
        try:
            if time.time() - path.stat().st_mtime < 11:
                found.append(int(json.loads(path.read_text())["pid"]))
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return "Z" not in (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def cluster_of(nodes: int) -> Any:
    """A Ray cluster of so many node processes, of one CPU each; the first is the head."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE)
    for _ in range(nodes - 1):
        made.add_node(**NODE)
    return made
