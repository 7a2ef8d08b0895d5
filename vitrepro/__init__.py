"""Check the claims of a paper: declarative experiments, real runs, honest verdicts."""

__version__ = "0.1.0"
