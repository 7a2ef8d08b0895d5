"""What a report is about: claims that were chosen, whether they have a verdict or not, and why some have none."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vitrepro.claims import Registry, select
from vitrepro.spec import Claim
from vitrepro.store import VerdictEntry


@dataclass(frozen=True)
class Scope:
    """Attributes:
    claims: papers before what others made of them, each in the order of the files.
    entries: stored verdicts about them, and about claims of theirs that are gone from the files.
    patterns: by which they were chosen; none for all claims of the sources that the store has verdicts of.
    """

    claims: tuple[Claim, ...]
    entries: tuple[VerdictEntry, ...]
    patterns: tuple[str, ...] = ()


def scope(registry: Registry, entries: Sequence[VerdictEntry], patterns: Sequence[str] = ()) -> Scope:
    """The claims that a report is about.

    Raises:
        UsageError: a pattern names no claim.
    """
    if patterns:
        wanted = names(registry, patterns)
        chosen = tuple(sorted(select(registry, patterns)[0], key=of_an_attempt))
        return Scope(chosen, tuple(e for e in entries if wanted(e.claim_id)), tuple(patterns))
    judged = {e.claim_id for e in entries}
    sources = {c.source.paper for c in registry.claims.values() if c.id in judged}
    chosen = tuple(sorted((c for c in registry.claims.values() if c.source.paper in sources), key=of_an_attempt))
    return Scope(chosen, tuple(entries))


def of_an_attempt(claim: Claim | None) -> bool:
    """Whether the source is no paper but what others made of one; nothing is known of a claim that is gone."""
    return claim is None or not claim.source.paper.startswith("arxiv:")


def names(registry: Registry, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether patterns mean a claim of this id; one that is gone from the files by its id alone."""
    chosen = {c.id for c in select(registry, patterns)[0]}
    return lambda claim_id: claim_id in chosen or any(fnmatch.fnmatchcase(claim_id, p) for p in patterns)


def unchecked(claim: Claim, judged: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Each scale of a claim that has no verdict, and why: it cannot be checked there, or it was not run.

    Args:
        judged: scales that have one.
    """
    for name, entry in claim.scales.entries().items():
        if entry.infeasible is not None:
            yield name, f"cannot be checked: {entry.infeasible}"
        elif name not in judged:
            yield name, "not run"
