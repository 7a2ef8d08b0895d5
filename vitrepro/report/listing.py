"""The table of claims: which there are, how each can be checked at every scale, and what is possible here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from vitrepro import plan
from vitrepro.claims import Registry
from vitrepro.errors import UsageError, did_you_mean
from vitrepro.plan import Choice
from vitrepro.report.terminal import STYLES, cell_row, counts, print_lines, table
from vitrepro.report.text import outcome
from vitrepro.spec import SCALES, CheckName, Claim
from vitrepro.store import Last, Places

HEADINGS = ("claim", "where", "kind", "cells", *SCALES, "literal", "here", "outcome")


@dataclass(frozen=True)
class Filters:
    """What a claim must be to be listed; None lets every claim pass."""

    kind: str | None = None
    source: str | None = None
    scale: CheckName | None = None
    tag: str | None = None
    outcome: str | None = None


@dataclass(frozen=True)
class Listed:
    """A claim, how it would be checked here, and its last outcome."""

    claim: Claim
    choice: Choice
    last: Last | None

    @property
    def outcome(self) -> str:
        return self.last.outcome if self.last else "NOT_RUN"

    @property
    def cells(self) -> int:
        return len(self.claim.reported.cells) if self.claim.reported else 0


def listed(
    registry: Registry, chosen: Sequence[Claim], places: Places, filters: Filters, *, cuda: bool
) -> list[Listed]:
    """The claims that pass the filters, in the order of the files.

    Raises:
        UsageError: a tag or a source that no claim has.
    """
    tags = {tag for c in registry.claims.values() for tag in c.tags}
    if filters.tag and filters.tag not in tags:
        hint = did_you_mean(filters.tag, tags)
        raise UsageError(f"--tag {filters.tag!r}: no claim has it{hint} (known: {', '.join(sorted(tags)) or 'none'})")
    if filters.source and not any(_of_source(c, filters.source) for c in registry.claims.values()):
        sources = sorted({c.source.paper for c in registry.claims.values()})
        raise UsageError(
            f"--source {filters.source!r}: in no source or place of a claim (sources: {', '.join(sources)})"
        )
    outcomes = places.store.last_outcomes()
    why_not = plan.obstacles(registry, places.data_dir, places.cache_dir, cuda=cuda)
    rows = []
    for claim in chosen:
        last = outcomes.get(claim.id)
        if (
            (filters.kind and claim.kind != filters.kind)
            or (filters.source and not _of_source(claim, filters.source))
            or (filters.tag and filters.tag not in claim.tags)
            or (filters.scale and claim.scales.entry(filters.scale) is None)
            or (filters.outcome and (last.outcome if last else "NOT_RUN") != filters.outcome)
        ):
            continue
        choice = plan.choose_scale(claim, filters.scale, why_not=why_not)
        rows.append(Listed(claim, choice, last))
    return rows


def _of_source(claim: Claim, text: str) -> bool:
    return text.lower() in f"{claim.id} {claim.source.paper} {claim.source.where}".lower()


def row(item: Listed) -> tuple[str, ...]:
    """The cells of HEADINGS."""
    scales = claim_scales(item.claim)
    here = item.choice.scale or "no"
    return (
        item.claim.id,
        item.claim.source.where,
        item.claim.kind,
        str(item.cells or ""),
        *(scales[s] for s in SCALES),
        "yes" if item.claim.scales.literal else "",
        here,
        f"{outcome(item.outcome, item.claim.ours)} ({item.last.fidelity})" if item.last else item.outcome,
    )


def claim_scales(claim: Claim) -> Mapping[str, str]:
    """Fidelity at every scale: `exact`, `proxy` ..., `no` where it cannot be checked, nothing where none is said."""
    entries = {s: claim.scales.entry(s) for s in SCALES}
    return {s: "" if e is None else "no" if e.infeasible else str(e.fidelity) for s, e in entries.items()}


def print_claims(out: Console, rows: Sequence[Listed], registry: Registry, *, feasible: bool, cells: bool) -> None:
    """The table, or the cells of its claims, and what it comes to by source.

    Args:
        feasible: only those that can be checked here; then the others with the reason.
        cells: every reported number under its address, instead of the claims.
    """
    shown = [r for r in rows if r.choice.scale is not None] if feasible else list(rows)
    if cells:
        numbers = [
            (f"{r.claim.id}/{name}", *cell_row(name, cell)[1:], r.claim.reported.unit)
            for r in shown
            if r.claim.reported
            for name, cell in r.claim.reported.cells.items()
        ]
        print_lines(out, ("cell", "value", "sd", "runs", "n", "unit"), numbers)
    else:
        print_lines(out, HEADINGS, [row(r) for r in shown])
    if feasible and len(shown) < len(rows):
        others = [(r.claim.id, r.choice.why_not) for r in rows if r.choice.scale is None]
        out.print(table(("claim", "why not here"), others))
    print_summary(out, rows)
    groups = ", ".join(f"{name} ({g.title})" for name, g in registry.groups.items())
    ours = sum(r.claim.ours for r in shown)
    asked = f", {ours} of them questions of ours" if ours else ""
    out.print(f"{len(shown)} of {len(registry.claims)} claims{asked}. Groups: {groups or 'none'}.", markup=False)


def print_summary(out: Console, rows: Sequence[Listed]) -> None:
    """By source, and apart from it our questions to it: how many, how many can be checked here, last outcomes."""
    families: dict[tuple[bool, str], list[Listed]] = defaultdict(list)
    for item in rows:
        families[item.claim.ours, item.claim.source.paper].append(item)
    lines = []
    for (ours, source), items in sorted(families.items(), key=lambda family: family[0][0]):
        scales = Counter(i.choice.scale for i in items if i.choice.scale)
        here = ", ".join(f"{n} {scale}" for scale, n in scales.items())
        possible = f"{sum(scales.values())} ({here})" if scales else "0"
        outcomes = counts([outcome(i.outcome, ours) for i in items if i.outcome in STYLES])
        lines.append(
            (
                f"our questions to {source}" if ours else source,
                str(len(items)),
                str(sum(i.cells for i in items)),
                possible,
                outcomes,
            )
        )
    if lines:
        out.print(table(("source", "claims", "cells", "can be checked here", "last outcomes"), lines))
