"""The command line: parse, call one function, print.

Only the commands that compute import torch, inside the command; `--help`, `list-claims` and `report` stay light.
"""

# each adds its commands, in the order of --help
from vitrepro.cli import registry, verdicts, results, machine, authoring, downloads  # noqa: F401, I001
from vitrepro.cli.main import app, run

__all__ = ["app", "run"]
