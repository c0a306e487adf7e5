"""Where results go: MLflow, figures, the report."""
