"""How much is read of what others made, and how long anything is waited for: every bound in one place.

A bound is far above what honest input needs, and far below what a machine of 8 GB cannot hold or a person will not sit through.
The message of whoever meets one names it, so that a user who needs more knows which line to change.
"""

JSON_BYTES = 64 << 20
"""Of one JSON document: a record, a configuration, a results file."""
JSON_LINE_BYTES = 16 << 20
"""Of one line of JSONL."""
JSON_DEPTH = 100
"""Lists and objects within each other."""
INTEGER = 2**63 - 1
"""Largest magnitude of an integer in JSON: what a table's column holds."""
SAMPLES_BYTES = 4 << 30
"""Of one file of samples of lm-eval, which is read line by line."""
NAME_BYTES = 255
"""Of one part of a path, on every file system that we know."""
PATH_BYTES = 4095
"""Of a whole path."""
WORKERS = 1000
"""Processes of one driver."""
PLAN_BYTES = 256 << 10
"""Of a plan's YAML."""
PLAN_DEPTH = 50
"""Mappings and lists within each other in a plan; an alias counts where it is used."""
PLAN_VALUES = 100_000
"""Values in a plan, with what aliases stand for."""
CELLS = 20_000
"""Of a plan, counted before equal ones fall together."""
COUNT = 10**9
"""Of sentences, epochs and other things that a plan counts."""
SEED = 2**32 - 1
"""The largest that NumPy and PyTorch both take."""
HEAD_SECONDS = 10.0
"""That the head of a Ray cluster may take to answer at the start."""
