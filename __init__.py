"""valueshift: ask language models the World Values Survey, fine-tune them, and explain what shifted."""

try:
    import valueshift_lm_eval
except ImportError:  # a source tree that is not installed
    pass
else:
    valueshift_lm_eval.install()  # at the start of Python already, unless that was before the package was there

__version__ = "0.1.0"
