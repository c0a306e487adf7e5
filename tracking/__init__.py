"""Where results go: MLflow, figures, the report."""

import os

# MLflow reads these while it is imported: what we start reports nothing home and unpickles nothing.
MLFLOW_SWITCHES = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
for _name, _value in MLFLOW_SWITCHES.items():
    os.environ.setdefault(_name, _value)
