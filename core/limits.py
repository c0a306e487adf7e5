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
