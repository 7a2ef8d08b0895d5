"""Read the claim files, check each alone and all against each other, and select from them.

A directory of claims holds claim files (one claim, or a family under `claims:`), `experiments/`, optionally
`groups.yaml`, and files about the sources. A broken file costs its own claims, and those that need them, only; its
faults are kept and named.
"""

from vitrepro.claims.arms import arm_names, arms_of, merge, recipes
from vitrepro.claims.files import builtin_dir, check_files, json_schema, load
from vitrepro.claims.registry import Place, Registry, find_cell, one, select

__all__ = [
    "Place",
    "Registry",
    "arm_names",
    "arms_of",
    "builtin_dir",
    "check_files",
    "find_cell",
    "json_schema",
    "load",
    "merge",
    "one",
    "recipes",
    "select",
]
