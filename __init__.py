"""valueshift: ask language models the World Values Survey, fine-tune them, and explain what shifted."""

__version__ = "0.1.0"
