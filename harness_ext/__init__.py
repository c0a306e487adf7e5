"""How a probe is asked: formats, the two-option metric, model loading and scoring, harness patches."""
