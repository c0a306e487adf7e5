"""From features to scores."""

from typing import Literal

Solver = Literal["dual", "primal"]
