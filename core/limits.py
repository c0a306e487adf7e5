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
TENSOR_FILE_BYTES = 1 << 42
"""Of one file of a model's weights."""
CONFIG_INTEGER = 10**40
"""Largest magnitude of an integer in a model's or tokenizer's configuration: `model_max_length` is 10**30 where none is meant."""
CONFIG_COUNT = 10_000
"""Heads, experts, labels or added sentinels that a configuration may ask for, each of which is built one by one."""
CONFIG_LAYERS = 1_000
"""Layers that a configuration may ask for."""
PARAMETERS_PER_BYTE = 16
"""Parameters that a model is built with for each byte of its weight files; quantised weights hold up to five."""
ADAPTERS_DEEP = 8
"""Adapters over each other."""
HUB_SECONDS = 3.0
"""Until the hub answers whether a model is there."""
EPOCHS = 10_000
"""Passes over the training sentences."""
SEEDS = 2**32
"""Seeds are below this: numpy takes no other."""
PROJECTIONS = 100
"""Whose scores an attribution averages."""
DIMENSIONS = 1 << 16
"""Of a projection."""
RETRAININGS = 10_000
"""Models that a check of an attribution trains."""
