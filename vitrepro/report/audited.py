"""The audit of reported numbers: every accuracy of the registry, rows among themselves, and tables given as files."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console

from vitrepro.audit.numbers import Audit, Copy, Number, audit, copies, shown_decimals
from vitrepro.audit.tables import Comparison, compare_table, read_table
from vitrepro.report.terminal import all_digits, table
from vitrepro.spec import Cell, Claim, Reported


@dataclass(frozen=True)
class Apart:
    """A number of a claim that is stated elsewhere too, with another value."""

    name: str
    value: float
    by: str
    others: tuple[float, ...]


@dataclass(frozen=True)
class Audited:
    """What the printed numbers say of themselves.

    Attributes:
        tables: file -> what it restates, and where it differs.
    """

    numbers: tuple[Audit, ...]
    copies: tuple[Copy, ...]
    elsewhere: tuple[Apart, ...]
    tables: Mapping[str, Comparison]


def audited(chosen: Sequence[Claim], files: Sequence[Path]) -> Audited:
    """Audit the accuracies of claims, and tables against all of their cells.

    Raises:
        ClaimFileError: a file that is no table.
    """
    read = {str(path): read_table(path) for path in files}
    candidates = dict(_candidates(chosen)) if files else {}
    return Audited(
        tuple(audit(n) for c in chosen for n in _numbers(c)),
        tuple(_copies(chosen)),
        tuple(_elsewhere(chosen)),
        {path: compare_table(found, candidates) for path, found in read.items()},
    )


def percent(reported: Reported) -> float | None:
    """What turns a reported accuracy into percent; None where the unit is none of an accuracy."""
    unit = reported.unit.lower()
    if "%" in unit or "percent" in unit:
        return 1.0
    return 100.0 if "accuracy" in unit and "fraction" in unit else None


def _numbers(claim: Claim) -> Iterator[Number]:
    """The accuracies of a claim, in percent."""
    if claim.reported is None or (scale := percent(claim.reported)) is None:
        return
    moved = 2 if scale == 100 else 0
    for name, cell in claim.reported.cells.items():
        if cell.n is not None and 0 <= cell.value * scale <= 100:
            value = float(Decimal(repr(cell.value)) * Decimal(scale))
            decimals = None if cell.decimals is None else cell.decimals - moved
            yield Number(f"{claim.id}/{name}", value, decimals, cell.n, cell.runs)


# --- rows ---------------------------------------------------------------------------------------


def rows(claim: Claim) -> dict[str, dict[str, Cell]]:
    """Row -> column -> cell, as the globs of `reported.n` divide the names of the cells into the two."""
    made: dict[str, dict[str, Cell]] = defaultdict(dict)
    if claim.reported is None:
        return made
    for name, cell in claim.reported.cells.items():
        glob = next((g for g in claim.reported.n or {} if fnmatch.fnmatchcase(name, g)), None)
        start = glob.strip("*").lstrip("-") if glob and glob.startswith("*") else ""
        at = name.rfind(start) if start else len(name)
        made[name[:at].rstrip("-")][name[at:]] = cell
    return made


def _copies(chosen: Sequence[Claim]) -> Iterator[Copy]:
    """Rows that repeat another one: whole rows anywhere, single numbers within their own source and test set."""
    whole: dict[str, dict[str, float]] = {}
    single: dict[tuple[str, int], dict[str, dict[str, float]]] = defaultdict(dict)
    for claim in chosen:
        for row, columns in rows(claim).items():
            cells = {column: cell for column, cell in columns.items() if cell.n is not None}
            name = "/".join(part for part in (claim.id, row) if part)
            if len(cells) > 1:
                whole[name] = {column: cell.value for column, cell in cells.items()}
            for cell in cells.values() if len(cells) == 1 else ():
                if shown_decimals(cell.value) > 2:  # or chance explains it
                    single[claim.source.paper, cell.n or 0][name] = {"value": cell.value}
    for numbers in single.values():
        yield from copies(numbers)
    yield from copies(whole)


def _elsewhere(chosen: Sequence[Claim]) -> Iterator[Apart]:
    for claim in chosen:
        for other in claim.elsewhere:
            for name, values in other.cells.items():
                assert claim.reported is not None
                value = claim.reported.cells[name].value
                if any(v != value for v in values):
                    yield Apart(f"{claim.id}/{name}", value, other.by, values)


def _candidates(chosen: Sequence[Claim]) -> Iterator[tuple[str, dict[str, float]]]:
    """What a table may restate: each claim's cells, and those of all claims of one table of a source together."""
    by_place: dict[str, list[Claim]] = defaultdict(list)
    for claim in chosen:
        if claim.reported is None:
            continue
        yield claim.id, {name: cell.value for name, cell in claim.reported.cells.items()}
        for place in dict.fromkeys(re.findall(r"Table \d+", claim.source.where)):
            by_place[f"{claim.source.paper}, {place}"].append(claim)
    for place, claims in by_place.items():
        if len(claims) > 1:
            yield place, _together(claims)


def _together(claims: Sequence[Claim]) -> dict[str, float]:
    """The cells of several claims; where names collide, what tells the claims apart stands after the row."""
    names = Counter(name for c in claims for name in (c.reported.cells if c.reported else ()))
    letters = zip(*(c.id for c in claims), strict=False)
    common = "".join(same[0] for same in itertools.takewhile(lambda same: len(set(same)) == 1, letters))
    made: dict[str, float] = {}
    for claim in claims:
        apart = claim.id.removeprefix(common)
        for row, columns in rows(claim).items():
            for column, cell in columns.items():
                name = "-".join(part for part in (row, column) if part)
                key = name if names[name] == 1 else "-".join(part for part in (row, apart, column) if part)
                made.setdefault(key, cell.value)
    return made


# --- for people, and as JSON --------------------------------------------------------------------


def print_audit(out: Console, found: Audited, *, everything: bool) -> None:
    """What stands out, then how much the checks could have found.

    Args:
        everything: every number, not only those that are no count of their test images.
    """

    def say(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    lines: list[tuple[str, ...]]
    shown = [a for a in found.numbers if everything or a.status != "possible as k/n"]
    if shown:
        lines = [
            (a.number.name, _value(a.number), f"{a.number.n:,}" if a.number.n else "", a.status, a.because)
            for a in shown
        ]
        out.print(table(("number", "value", "n", "audit", "because"), lines))
    if found.copies:
        lines = [(c.rows[1], c.rows[0], str(len(c.values)), c.because) for c in found.copies]
        out.print(table(("row", "repeats", "numbers", "because"), lines))
    if found.elsewhere and everything:
        lines = [(a.name, all_digits(a.value), ", ".join(map(all_digits, a.others)), a.by) for a in found.elsewhere]
        out.print(table(("number", "reported", "elsewhere", "by"), lines))
    for path, comparison in found.tables.items():
        _print_table(out, path, comparison)
    if found.numbers:
        out.print(table(("n", "digits", "numbers", "no k/n", "rejects"), _power(found.numbers), title="Power of k/n"))
    statuses = Counter(a.status for a in found.numbers)
    say(
        f"{len(found.numbers)} accuracies with a known number of test images: "
        + (", ".join(f"{count} {status}" for status, count in statuses.items()) or "none")
        + ". This is information about the printed numbers; no verdict depends on it."
    )
    if found.elsewhere and not everything:
        count = len(found.elsewhere)
        say(f"{count} number{'s are' if count > 1 else ' is'} stated elsewhere with another value; --all lists them.")


def _value(number: Number) -> str:
    """In percent, with the digits that were printed."""
    return all_digits(number.value) if number.decimals is None else f"{number.value:.{max(0, number.decimals)}f}"


def _power(numbers: Sequence[Audit]) -> list[tuple[str, ...]]:
    """By test images and digits: how many numbers, how many are no k/n, and what share of any numbers would not be."""
    groups: dict[tuple[int, int | None], list[Audit]] = defaultdict(list)
    for a in numbers:
        if a.number.n:
            groups[a.number.n, a.decimals].append(a)
    lines: list[tuple[str, ...]] = []
    for (n, decimals), members in sorted(groups.items(), key=lambda g: (g[0][0], -1 if g[0][1] is None else g[0][1])):
        single = [c for a in members for c in a.checks if c.how == "k/n"]
        no = sum(c.counts is None for c in single)
        digits = "not rounded" if decimals is None else str(decimals)
        lines.append((f"{n:,}", digits, str(len(members)), str(no), f"{100 * single[0].rejected:.1f}% of any numbers"))
    return lines


def _print_table(out: Console, path: str, comparison: Comparison) -> None:
    def say(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    if comparison.candidate is None:
        say(f"{path}: restates no cells that are known here")
    else:
        tied = f" (as well as {', '.join(comparison.tied)})" if comparison.tied else ""
        differing = len(comparison.differences)
        say(
            f"{path}: restates {comparison.candidate}{tied}: {len(comparison.matched)} cells, {differing} "
            f"differ{'s' if differing == 1 else ''}, {len(comparison.absent)} of its cells are not stated"
        )
    if comparison.differences:
        lines = [
            (d.row, d.column, d.cell, all_digits(d.value), all_digits(d.source), d.because)
            for d in comparison.differences
        ]
        out.print(table(("row", "column", "cell", "table", "source", "because"), lines))
    for line in comparison.unmatched:
        say(f"  not matched: {line}")


def as_json(found: Audited) -> dict[str, Any]:
    """Plain values."""
    return {
        "numbers": [asdict(a) for a in found.numbers],
        "copies": [asdict(c) for c in found.copies],
        "elsewhere": [asdict(a) for a in found.elsewhere],
        "tables": {path: asdict(c) for path, c in found.tables.items()},
    }
