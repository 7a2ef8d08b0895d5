"""Whether a verdict could have come out otherwise: the same measurements, held against a claim that reads otherwise.

To move a reported number up is to move what was measured down: both come to the same difference. So for every kind of
claim alike a margin moves the region in which the estimate must lie, and a change counts only where another measurement
could have led there. A decided verdict that nothing changes is no result but a defect of its claim.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from vitrepro.audit.numbers import shown_decimals
from vitrepro.formula import Formula
from vitrepro.judge.finding import INCONCLUSIVE, Finding, Outcome, Region
from vitrepro.judge.printed import judge_literal
from vitrepro.judge.verdict import Verdict, together
from vitrepro.literal import Checked, FormulaError, evaluate
from vitrepro.metrics import limits
from vitrepro.spec import (
    Bound,
    Cell,
    Claim,
    Comparison,
    Expect,
    LiteralExpect,
    OrderingExpect,
    TrendExpect,
)

STEPS = (-3, -2, -1, 1, 2, 3)  # margins
Kind = Literal["margins", "reversed", "far"]
Find: TypeAlias = Callable[[str], Cell]
_NEAREST_FIRST: tuple[Kind, ...] = ("margins", "reversed", "far")


@dataclass(frozen=True)
class Trial:
    """What a verdict would be of a claim that reads otherwise.

    Attributes:
        step: by how many margins it is moved, if it is; up is harder to meet for a gap or a bound.
        counts: another measurement could have led there; an accuracy above 100% could not.
    """

    name: str
    kind: Kind
    step: int | None
    outcome: Outcome
    counts: bool = True


@dataclass(frozen=True)
class Examined:
    """A verdict, and what it would have been of a claim that reads otherwise."""

    verdict: Verdict
    trials: tuple[Trial, ...]

    @property
    def nearest(self) -> Trial | None:
        """The smallest perturbation that changes the outcome, of those that count."""
        changes = [t for t in self.trials if t.counts and t.outcome is not self.verdict.outcome]
        return min(changes, key=lambda t: (_NEAREST_FIRST.index(t.kind), abs(t.step or 0)), default=None)

    @property
    def fixed(self) -> bool:
        """It is decided, and could not have come out otherwise."""
        return self.verdict.outcome.decided and self.nearest is None

    def at(self, step: int) -> Trial | None:
        """What moving by so many margins comes to: a change that counts, else any change, else no change."""
        return self._telling(t for t in self.trials if t.step == step)

    @property
    def reversed(self) -> Trial | None:
        """The same for the orders reversed, one by one and all together."""
        return self._telling(t for t in self.trials if t.kind == "reversed")

    def _telling(self, trials: Iterable[Trial]) -> Trial | None:
        return max(trials, key=lambda t: (t.outcome is not self.verdict.outcome, t.counts), default=None)


# --- measured -----------------------------------------------------------------------------------


def examine(claim: Claim, found: Verdict) -> Examined:
    """A verdict on runs, with its regions moved by three margins both ways, reversed, and onto what was measured."""
    assert found.scale is not None
    possible = _can_hold(claim.scales.entries()[found.scale].expect)
    trials = [
        Trial(name, kind, step, _outcome(found, moved), possible and all(map(_possible, found.findings, moved)))
        for name, kind, step, moved in _moves(found.findings)
    ]
    return Examined(found, tuple(trials))


def _outcome(found: Verdict, findings: Sequence[Finding]) -> Outcome:
    outcome, _ = together(findings)
    return INCONCLUSIVE if found.caps and outcome.decided else outcome


def _moves(findings: Sequence[Finding]) -> Iterator[tuple[str, Kind, int | None, list[Finding]]]:
    for step in STEPS:
        name = f"{step:+d} margin{'s' if abs(step) > 1 else ''}"
        yield name, "margins", step, [f.moved(_harder(f) * step * f.region.unit) for f in findings]
    turned = [_turned(f) for f in findings]
    ways = [i for i, f in enumerate(findings) if turned[i] is not f]
    for i in ways:
        yield f"{findings[i].label} reversed", "reversed", None, [*findings[:i], turned[i], *findings[i + 1 :]]
    if len(ways) > 1:
        yield "all reversed", "reversed", None, turned
    for name, place in _PLACES.items():
        yield name, "far", None, [f.moved(place(*_ends(f), f.region)) for f in findings]


def _harder(f: Finding) -> int:
    """In which direction the region of a gap or bound is harder to meet; up for a reported number."""
    return -1 if math.isinf(f.region.low) and not f.equality else 1


def _ends(f: Finding) -> tuple[float, float]:
    """The interval that decides, with a tenth of its width more on each side."""
    low, high = map(float, f.estimate.ends(f.region.tail))
    room = 0.1 * (high - low) + 1e-9 * max(1.0, abs(low))
    return low - room, high + room


def _inside(low: float, high: float, r: Region) -> float:
    if math.isfinite(r.low) and math.isfinite(r.high):
        return (low + high) / 2 - (r.low + r.high) / 2
    return low - r.low if math.isfinite(r.low) else high - r.high


_PLACES: dict[str, Callable[[float, float, Region], float]] = {
    "moved onto what was measured": _inside,
    "moved above what was measured": lambda _, high, r: high - r.low if math.isfinite(r.low) else 0.0,
    "moved below what was measured": lambda low, _, r: low - r.high if math.isfinite(r.high) else 0.0,
}


def _possible(f: Finding, moved: Finding) -> bool:
    """Whether a measurement could have stood to the region as this one does to the moved one."""
    by = float(f.estimate.centre - moved.estimate.centre)
    if f.form == "exact":  # a count of nothing is the least there is
        return f.measured - by >= 0
    return f.limits[0] <= float(f.estimate.centre) - by <= f.limits[1]


def _turned(f: Finding) -> Finding:
    """The opposite order; of "falls short by less than so much" that is none, for both may hold, so itself."""
    low, high = f.region.low, f.region.high
    if f.equality or (f.form == "gap" and low < 0):
        return f
    if f.form == "gap" or " - " in f.label:
        return replace(f, region=replace(f.region, low=-math.inf, high=-low))
    swapped = (high, math.inf) if math.isinf(low) else (-math.inf, low)
    return replace(f, region=replace(f.region, low=swapped[0], high=swapped[1]))


def _can_hold(expect: Expect | None) -> bool:
    """Whether any measurement meets every order at once, as `a > b` with `b > a` none does."""
    from scipy.optimize import linprog

    orders: list[Comparison | Bound] = list(expect.all) if isinstance(expect, OrderingExpect) else []
    if isinstance(expect, TrendExpect) and expect.increasing and expect.dip is None:
        orders = [Comparison(greater=b, than=a, by=expect.by) for a, b in itertools.pairwise(expect.increasing)]
    for metric in {c.metric for c in orders}:
        lines = [_line(c) for c in orders if c.metric == metric]
        names = list(dict.fromkeys(name for signs, _ in lines for name in signs))
        between = tuple(None if math.isinf(v) else v for v in limits(metric))
        at_least = [-(least + 1e-6) for _, least in lines]
        rows = [[-signs.get(name, 0) for name in names] for signs, _ in lines]
        if linprog([0] * len(names), rows, at_least, bounds=[between] * len(names)).status == 2:
            return False
    return True


def _line(c: Comparison | Bound) -> tuple[dict[str, int], float]:
    """Signs of the arms' values whose sum must be above a number."""
    if isinstance(c, Comparison):
        return {c.greater: 1, c.than: -1}, c.by
    return ({c.arm: 1}, c.above) if c.above is not None else ({c.arm: -1}, -(c.below or 0.0))


# --- printed numbers ----------------------------------------------------------------------------


def examine_literal(claim: Claim, found: Verdict, find: Find) -> Examined:
    """A verdict on printed numbers, had others been printed.

    Every cell is moved by three margins both ways, a margin being `within` of its check or a unit of its last printed
    digit; then as far as it takes for each comparison to come out otherwise.

    Args:
        find: the cell at an address.
    """
    assert claim.scales.literal is not None
    expect = claim.scales.literal.expect
    assert isinstance(expect, LiteralExpect)
    return Examined(found, (*_cells_moved(claim, expect, find), *_moved_far(claim, expect, find)))


def _cells_moved(claim: Claim, expect: LiteralExpect, find: Find) -> Iterator[Trial]:
    for address, unit in _units(expect, find).items():
        for step in STEPS:
            to = find(address).value + step * unit
            checked = _evaluated(expect, find, address, to)
            if checked is not None:
                name = f"{address.lstrip('@')} at {to:.10g}"
                yield Trial(name, "margins", step, judge_literal(claim, checked).outcome)


def _evaluated(expect: LiteralExpect, find: Find, address: str, to: float) -> tuple[Checked, ...] | None:
    """With one cell at another value; None where the numbers have none, such as a quotient by zero."""
    moved = find(address)
    other = moved.model_copy(update={"value": to})
    try:
        return evaluate(expect, lambda asked: other if find(asked) is moved else find(asked))
    except FormulaError:
        return None


def _units(expect: LiteralExpect, find: Find) -> dict[str, float]:
    """One margin of every cell that is looked at, those of definitions included, by its address."""
    behind: dict[str, list[str]] = {}  # a definition -> the cells that it is made of

    def cells(formula: Formula) -> list[str]:
        return [cell for address in formula.addresses for cell in behind.get(address, [address])]

    for name, formula in expect.definitions().items():  # each names earlier ones only
        behind[f"@{name}"] = cells(formula)
    units: dict[str, float] = {}
    for check in expect.checks.values():
        for address in [address for _, formula in check.formulas() for address in cells(formula)]:
            units.setdefault(address, check.within or _last_digit(find(address)))
    return units


def _last_digit(cell: Cell) -> float:
    """A unit of the last digit that is printed, or shown where nothing says how many were."""
    decimals = shown_decimals(cell.value) if cell.decimals is None else cell.decimals
    return float(10.0**-decimals)


def _moved_far(claim: Claim, expect: LiteralExpect, find: Find) -> Iterator[Trial]:
    """Comparisons that come out otherwise, each with one of its cells moved as far as it takes."""
    base = evaluate(expect, find)
    holding = {name: [c for c in base if c.check == name and c.comparison.holds] for name in expect.checks}
    changes = {f"a cell moved until {name} does not hold": (cases, False) for name, cases in holding.items() if cases}
    changes["a cell moved in each that does not hold"] = ([c for c in base if not c.comparison.holds], True)
    for name, (cases, wanted) in changes.items():
        others = {(c.check, c.case): other for c in cases if (other := _otherwise(expect, c, find, wanted))}
        if others:
            checked = [others.get((c.check, c.case), c) for c in base]
            yield Trial(name, "far", None, judge_literal(claim, checked).outcome)


def _otherwise(expect: LiteralExpect, case: Checked, find: Find, wanted: bool) -> Checked | None:
    """A comparison with one of its cells moved until it holds, or does not; None if no cell matters."""
    check = expect.checks[case.check].model_copy(update={"that": case.text, "each": {}})
    alone = expect.model_copy(update={"checks": {case.check: check}})
    for address, unit in _units(alone, find).items():
        for value in _places(alone, address, unit, find):
            made = _evaluated(alone, find, address, value)
            if made and made[0].comparison.holds is wanted:
                return made[0]
    return None


def _places(alone: LiteralExpect, address: str, unit: float, find: Find) -> Iterator[float]:
    """Where a cell might have stood for a comparison to come out otherwise: nearby, far, and where its sides meet."""

    def apart(value: float) -> float:
        made = _evaluated(alone, find, address, value)
        return made[0].comparison.left.value - made[0].comparison.right.value if made else math.nan

    now = find(address).value
    away = [sign * unit * size for size in (1, 2, 3, 10, 100, 1e3, 1e4, 1e5, 1e6) for sign in (1, -1)]
    yield from (now + a for a in away)
    x0, x1 = now, now + unit
    y0, y1 = apart(x0), apart(x1)
    for _ in range(8):  # secants
        if not (math.isfinite(y0) and math.isfinite(y1)) or y0 == y1:
            break
        x0, y0, x1 = x1, y1, x1 - y1 * (x1 - x0) / (y1 - y0)
        y1 = apart(x1)
    if math.isfinite(y1) and x1 != now + unit:
        yield from (x1 + a for a in (0.0, *away))
