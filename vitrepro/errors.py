"""Every error a user can meet, with the exit code it leads to.

A message says where the fault is, what was found, what is allowed and what to do next. Only `cli`
prints it and exits; everything below raises.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VitreproError(Exception):
    """Something the user must fix."""

    exit_code = 2


class UsageError(VitreproError):
    """A command line that cannot be carried out: unknown claim, device, dataset or setting."""


class ClaimFileError(VitreproError):
    """Faults of claim files, all of them at once.

    Args:
        problems: one line each, as `file:line:column: key path: what is wrong`.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataMissing(VitreproError):
    """A data set that is not on this machine and may not be, or could not be, fetched."""

    exit_code = 3


class DataError(VitreproError):
    """Data that is there and wrong: truncated, another size than declared, labels out of range."""

    exit_code = 4


class StoreError(VitreproError):
    """A store that cannot be read or written, or an entry of it that is damaged."""

    exit_code = 4


class RunError(VitreproError):
    """A run that could not finish: non-finite loss, no memory, a crash."""

    exit_code = 4


def did_you_mean(word: str, known: Iterable[str], n: int = 3, cutoff: float = 0.5) -> str:
    """`; did you mean a, b?` for the nearest of the known words, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=n, cutoff=cutoff)
    return f"; did you mean {', '.join(repr(w) for w in near)}?" if near else ""
