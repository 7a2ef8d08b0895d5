"""All claims at hand, where each came from, and which of them a word names."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vitrepro.errors import UsageError, did_you_mean
from vitrepro.spec import AnalyticExperiment, Cell, Claim, Group, Paper, TrainExperiment


@dataclass(frozen=True)
class Place:
    """Where something is defined: its file, and `file:line:column` as messages show it."""

    path: str
    shown: str


@dataclass(frozen=True)
class Registry:
    """All claims at hand, and where each came from.

    Attributes:
        claims, experiments, groups: by id or name, in the order of the files.
        files: the file that holds a claim, an experiment or a source, as messages show it.
        problems: faults of the files that could not be used, one line each.
        papers: what is known of the sources of claims, by `source.paper`.
        warnings: what was left out without being at fault itself, such as an installed package that does not load.
        places: by what it is (claim, experiment, group or source) and its id or name.
        broken: ids of claims and experiments whose files have faults.
    """

    claims: Mapping[str, Claim]
    experiments: Mapping[str, TrainExperiment | AnalyticExperiment]
    groups: Mapping[str, Group]
    files: Mapping[str, str]
    problems: tuple[str, ...] = ()
    papers: Mapping[str, Paper] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()

    def experiment(self, name: str) -> TrainExperiment | AnalyticExperiment:
        return self.experiments[name]

    def cells(self, claim: Claim) -> Callable[[str], Cell]:
        """How formulas of a claim find a cell by its address; see `find_cell`."""
        return lambda address: find_cell(self.claims, claim, address)


def find_cell(claims: Mapping[str, Claim], claim: Claim, address: str) -> Cell:
    """A reported cell as formulas name it.

    Args:
        address: `@cell` of the claim itself; `claim/cell` of the same source; or with the source in front.

    Raises:
        KeyError: there is no such cell; says what is near.
    """
    if address.startswith("@"):
        own = claim.reported.cells if claim.reported else {}
        if address[1:] not in own:
            raise KeyError(f"{address}: neither a cell of this claim nor a definition{did_you_mean(address[1:], own)}")
        return own[address[1:]]
    claim_id, _, cell = address.rpartition("/")
    other = next((claims[name] for name in addressed(claim, address) if name in claims), None)
    if other is None:
        near = did_you_mean(addressed(claim, address)[0], claims)
        raise KeyError(f"{address}: no claim {claim_id!r}{near}")
    cells = other.reported.cells if other.reported else {}
    if cell not in cells:
        raise KeyError(f"{address}: {other.id} reports no cell {cell!r}{did_you_mean(cell, cells)}")
    return cells[cell]


def addressed(claim: Claim, address: str) -> tuple[str, str]:
    """Ids of claims that an address in a formula of a claim may mean: of the same source, or with another in front."""
    claim_id = address.rpartition("/")[0]
    return f"{claim.id.rpartition('/')[0]}/{claim_id}", claim_id


def select(registry: Registry, patterns: Sequence[str]) -> tuple[list[Claim], Group | None]:
    """The claims that ids, globs and groups name, without doubles, in the order of the files.

    Returns:
        The claims, and the group if one group alone was named (it brings its own scale).

    Raises:
        UsageError: a pattern names nothing; with the nearest names. No pattern at all is an error too.
    """
    if not patterns:
        raise UsageError("no claim is named; try `vitrepro list-claims`, or `vitrepro verify quickstart`")
    chosen: dict[str, Claim] = {}
    for pattern in patterns:
        globs = registry.groups[pattern].claims if pattern in registry.groups else (pattern,)
        hits = [c for c in registry.claims.values() if any(matches(c, g) for g in globs)]
        if not hits:
            known = [*registry.claims, *registry.groups]
            claim_id, _, _ = pattern.rpartition("/")
            if claim_id in registry.claims:
                known = [f"{claim_id}/{cell}" for cell in _cells(registry.claims[claim_id])] or [claim_id]
            hint = did_you_mean(pattern, known, cutoff=0.3) or f"; known groups: {', '.join(registry.groups)}"
            if pattern in registry.broken:
                hint = ", for its file has faults"
            broken = f" ({len(registry.problems)} faults in claim files, see `vitrepro validate`)"
            raise UsageError(f"no claim matches {pattern!r}{hint}{broken if registry.problems else ''}")
        chosen.update({c.id: c for c in hits})
    group = registry.groups.get(patterns[0]) if len(patterns) == 1 else None
    return [c for c in registry.claims.values() if c.id in chosen], group


def one(registry: Registry, name: str) -> tuple[Claim, str | None]:
    """The claim of an id, or of `claim/cell`, with the cell.

    Raises:
        UsageError: nothing has this name, or several claims have.
    """
    chosen, _ = select(registry, [name])
    if len(chosen) > 1:
        raise UsageError(f"{name} names {len(chosen)} claims; one is needed")
    claim = chosen[0]
    return claim, None if claim.id == name or not name.startswith(f"{claim.id}/") else name.rpartition("/")[2]


def matches(claim: Claim, pattern: str) -> bool:
    """A claim's id, a glob over ids, or a cell of the claim (`paper/claim/cell`)."""
    claim_id, _, cell = pattern.rpartition("/")
    return fnmatch.fnmatchcase(claim.id, pattern) or (claim_id == claim.id and cell in _cells(claim))


def _cells(claim: Claim) -> tuple[str, ...]:
    return tuple(claim.reported.cells) if claim.reported else ()
