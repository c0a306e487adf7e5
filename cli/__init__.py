"""The `valueshift` command: one short function a command; the work is done in the rooms, imported when a command runs.

A module holds one group of commands, which register themselves with `app` when it is imported here.
"""

from . import attribute, checkpoints, grid, inputs, probing, report, results
from .app import main

__all__ = ["attribute", "checkpoints", "grid", "inputs", "main", "probing", "report", "results"]
