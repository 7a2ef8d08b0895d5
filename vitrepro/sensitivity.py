"""Whether a verdict could have come out otherwise: the same measurements, held against a claim that reads otherwise.

A decided verdict that nothing changes is no result but a defect of its claim. To move a reported number up is to move
what was measured down: both come to the same difference. So a perturbation counts only where another measurement could
have led there.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from vitrepro.literal import Checked, FormulaError, evaluate
from vitrepro.metrics import TOP1, is_accuracy, limits
from vitrepro.rules import Finding, Outcome
from vitrepro.spec import (
    Bound,
    Cell,
    Claim,
    Comparison,
    EquivalenceExpect,
    ExactExpect,
    Expect,
    LiteralCheck,
    LiteralExpect,
    OrderingExpect,
    TrendExpect,
    ValueExpect,
)
from vitrepro.verdict import Verdict, judge_literal

STEPS = (-3, -2, -1, 1, 2, 3)  # margins
Kind = Literal["margins", "reversed", "far"]
Find: TypeAlias = Callable[[str], Cell]
_NEAREST_FIRST: tuple[Kind, ...] = ("margins", "reversed", "far")


@dataclass(frozen=True)
class Perturbation:
    """One way in which a claim could read otherwise.

    Attributes:
        claim: as it would read.
        step: by how many margins it is moved, if it is; for a gap or a bound, up is harder to meet.
        moved: see `rules.findings`.
        counts: another measurement could have led there; an accuracy above 100% could not.
    """

    name: str
    kind: Kind
    claim: Claim
    step: int | None = None
    moved: float = 0.0
    counts: bool = True


@dataclass(frozen=True)
class Trial:
    """What a perturbation comes to; the attributes are those of `Perturbation`."""

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


def examine(claim: Claim, found: Verdict, judge: Callable[[Claim, float], Verdict]) -> Examined:
    """A verdict on runs under each perturbation of its claim.

    Args:
        found: what `judge(claim, 0.0)` gives.
        judge: the verdict of the same runs on a claim whose reported numbers are moved by so many margins.
    """
    trials = [
        Trial(p.name, p.kind, p.step, judge(p.claim, p.moved).outcome, p.counts) for p in perturbations(claim, found)
    ]
    return Examined(found, tuple(trials))


def perturbations(claim: Claim, found: Verdict) -> Iterator[Perturbation]:
    """Every way in which a claim that is judged by runs could read otherwise, at the scale of its verdict.

    By three margins both ways, with its orders reversed, and as far as what was measured, so that a FAIL far from the
    margin can become a PASS. A margin of a gap is the gap that is asked for, or one point; of a measure it is the
    bound, or half of its interval.
    """
    assert found.scale is not None
    expect = claim.scales.entries()[found.scale].expect
    expecting = partial(_expecting, claim, found.scale)
    made: Iterator[Perturbation]
    match expect:
        case ExactExpect() | ValueExpect():
            made = _numbers(claim, expect, found)
        case OrderingExpect():
            made = _orders(expect, found, expecting)
        case TrendExpect():
            made = _trend(expect, found, expecting)
        case EquivalenceExpect():
            made = _equality(claim, expect, found, expecting)
        case _:
            raise ValueError(f"{claim.id}: the verdict at scale {found.scale} rests on no runs")
    possible = _can_hold(expect)
    for p in made:
        yield p if possible else dataclasses.replace(p, counts=False)


def _expecting(claim: Claim, scale: str, expect: Expect) -> Claim:
    entry = claim.scales.entries()[scale].model_copy(update={"expect": expect})
    return claim.model_copy(update={"scales": claim.scales.model_copy(update={scale: entry})})


def _by_margins(step: int) -> str:
    return f"{step:+d} margin{'s' if abs(step) > 1 else ''}"


# --- reported numbers ---------------------------------------------------------------------------


def _numbers(claim: Claim, expect: ExactExpect | ValueExpect, found: Verdict) -> Iterator[Perturbation]:
    ranges = [limits(expect.cells[f.label].metric) if isinstance(expect, ValueExpect) else (0.0, math.inf)
              for f in found.findings]  # fmt: skip
    for step in STEPS:
        shown = [f.measured - step * _tolerance(f) for f in found.findings]
        counts = all(low <= value <= high for value, (low, high) in zip(shown, ranges, strict=True))
        yield Perturbation(_by_margins(step), "margins", claim, step, float(step), counts)
    moved_to = partial(_reporting, claim, expect, found)
    yield Perturbation("moved onto what was measured", "far", moved_to([f.measured for f in found.findings]))
    high = {
        f.label: min(most, 10 * max(f.measured, abs(f.reported or 0.0), f.bound, 1.0))
        for f, (_, most) in zip(found.findings, ranges, strict=True)
    }
    far = "100" if set(high.values()) == {100.0} else "far more"
    for name, end in {"0": dict.fromkeys(high, 0.0), far: high}.items():
        reported = [(f.reported or 0.0) + f.measured - end[f.label] for f in found.findings]
        yield Perturbation(f"as if ours were {name}", "far", moved_to(reported))


def _tolerance(f: Finding) -> float:
    """One margin, as `rules.findings` moves a reported number by it."""
    return f.bound or abs(f.reported or 0.0) or 1.0


def _reporting(claim: Claim, expect: ExactExpect | ValueExpect, found: Verdict, reported: Sequence[float]) -> Claim:
    """The claim with other reported numbers, and the same tolerances: a share of another number would be another."""
    assert claim.reported is not None
    assert found.scale is not None
    numbers = {f.label: value for f, value in zip(found.findings, reported, strict=True)}
    cells = {k: c.model_copy(update={"value": numbers.get(k, c.value)}) for k, c in claim.reported.cells.items()}
    moved = claim.model_copy(update={"reported": claim.reported.model_copy(update={"cells": cells})})
    if isinstance(expect, ValueExpect):
        return moved
    bounds = {f.label: {"tolerance": f.bound, "relative_tolerance": None} for f in found.findings}
    checks = {name: check.model_copy(update=bounds[name]) for name, check in expect.cells.items()}
    return _expecting(moved, found.scale, expect.model_copy(update={"cells": checks}))


# --- orders -------------------------------------------------------------------------------------

_Expecting: TypeAlias = Callable[[Expect], Claim]


def _orders(expect: OrderingExpect, found: Verdict, expecting: _Expecting) -> Iterator[Perturbation]:
    findings = found.findings
    pairs = list(zip(expect.all, findings, strict=True))
    units = [_unit(c, f) for c, f in pairs]

    def wanting(comparisons: Iterable[Comparison | Bound]) -> Claim:
        return expecting(expect.model_copy(update={"all": tuple(comparisons)}))

    def asking(edges: Iterable[float]) -> Claim:
        return wanting(_at(c, e) for c, e in zip(expect.all, edges, strict=True))

    for step in STEPS:
        harder = [step * unit * _sign(c) for (c, _), unit in zip(pairs, units, strict=True)]
        edges = [_edge(c) + h for (c, _), h in zip(pairs, harder, strict=True)]
        counts = _could_change(found, step) and all(
            _possible(c, f.measured - h) for (c, f), h in zip(pairs, harder, strict=True)
        )
        yield Perturbation(_by_margins(step), "margins", asking(edges), step, counts=counts)
    turned = [_reversed(c) for c in expect.all]
    for i, (f, other) in enumerate(zip(findings, turned, strict=True)):
        if other is not expect.all[i]:
            one = (*expect.all[:i], other, *expect.all[i + 1 :])
            yield Perturbation(f"{f.label} reversed", "reversed", wanting(one))
    if len(turned) > 1 and tuple(turned) != expect.all:
        yield Perturbation("all reversed", "reversed", wanting(turned))
    for name, sign in _BESIDE.items():
        claim = asking(_beside(f, sign * _sign(c), _edge(c)) for c, f in pairs)
        yield Perturbation(name, "far", claim, counts=_could_change(found, sign))


_BESIDE = {"asked for less than was measured": -1, "asked for more than was measured": 1}


def _could_change(found: Verdict, harder: int) -> bool:
    """A PASS is lost to what is harder to meet and a FAIL to what is easier; the rest makes an empty claim at most."""
    return found.outcome is not (Outcome.FAIL if harder > 0 else Outcome.PASS)


def _beside(f: Finding, sign: int, otherwise: float) -> float:
    """An edge just below (-1) or above (1) the interval that decides."""
    if f.deciding is None:
        return otherwise
    room = 0.1 * (f.deciding.high - f.deciding.low) + 1e-9
    return f.deciding.low - room if sign < 0 else f.deciding.high + room


def _possible(c: Comparison | Bound, value: float) -> bool:
    """Whether it could have been measured: by what accuracies, losses and the like can be, and differences of them."""
    low, high = limits(c.metric)
    return low - high <= value <= high - low if isinstance(c, Comparison) else low <= value <= high


def _of_accuracies(c: Comparison | Bound) -> bool:
    return isinstance(c, Comparison) and is_accuracy(c.metric)


def _edge(c: Comparison | Bound) -> float:
    if isinstance(c, Comparison):
        return c.by
    edge = c.above if c.above is not None else c.below
    assert edge is not None
    return edge


def _sign(c: Comparison | Bound) -> int:
    """In which direction it becomes harder to meet."""
    return -1 if isinstance(c, Bound) and c.below is not None else 1


def _unit(c: Comparison | Bound, f: Finding) -> float:
    """One margin."""
    if _of_accuracies(c):
        return max(abs(_edge(c)), 1.0) if _edge(c) <= 0 else _edge(c)
    half = 0.5 * (f.deciding.high - f.deciding.low) if f.deciding else 0.0
    return abs(_edge(c)) or half or 1.0


def _at(c: Comparison | Bound, edge: float) -> Comparison | Bound:
    """The same against another edge."""
    key = "by" if isinstance(c, Comparison) else "above" if c.above is not None else "below"
    return c.model_copy(update={key: edge})


def _reversed(c: Comparison | Bound) -> Comparison | Bound:
    """The opposite; of "falls short by less than so much" that is none, for both may hold, so itself."""
    if isinstance(c, Bound):
        return c.model_copy(update={"above": c.below, "below": c.above})
    return c if c.by < 0 else c.model_copy(update={"greater": c.than, "than": c.greater})


def _can_hold(expect: Expect) -> bool:
    """Whether anything that could be measured would meet every order at once; `a > b` with `b > a` nothing does."""
    graphs: dict[str, list[tuple[str, str, float]]] = defaultdict(list)  # lower, upper, by how much at least
    if isinstance(expect, TrendExpect) and expect.increasing and expect.dip is None:
        graphs[TOP1] = [(a, b, expect.by) for a, b in itertools.pairwise(expect.increasing)]
    for c in expect.all if isinstance(expect, OrderingExpect) else ():
        if isinstance(c, Comparison):
            graphs[c.metric].append((c.than, c.greater, c.by))
        else:
            graphs[c.metric].append((_ZERO, c.arm, c.above) if c.above is not None else (c.arm, _ZERO, -_edge(c)))
    return not any(_endless([*edges, *_within(metric, edges)]) for metric, edges in graphs.items())


def _within(metric: str, edges: Sequence[tuple[str, str, float]]) -> Iterator[tuple[str, str, float]]:
    """That every arm's value lies within what the metric can be."""
    low, high = limits(metric)
    for arm in {arm for edge in edges for arm in edge[:2]} - {_ZERO}:
        yield from ([(_ZERO, arm, low)] if math.isfinite(low) else [])
        yield from ([(arm, _ZERO, -high)] if math.isfinite(high) else [])


_ZERO = ""  # beside the arms, the number 0


def _endless(edges: Sequence[tuple[str, str, float]]) -> bool:
    """Whether the orders lead around a circle to more than where they began (Bellman and Ford)."""
    height: dict[str, float] = defaultdict(float)
    for _ in range(len(edges) + 1):
        risen = False
        for lower, upper, by in edges:
            if height[upper] < height[lower] + by + 1e-9:  # more than by, and floats
                height[upper], risen = height[lower] + by + 2e-9, True
        if not risen:
            return False
    return True


def _trend(expect: TrendExpect, found: Verdict, expecting: _Expecting) -> Iterator[Perturbation]:
    findings = found.findings
    unit, widest = expect.by or 1.0, 200.0 if expect.larger_gain else 100.0
    # where a dip is allowed, the first finding is of the line and the others are of the steps
    line, steps = (findings[:1], findings[1:]) if expect.dip is not None else (findings, ())

    def asking(by: float, dip: float) -> Claim:
        return expecting(expect.model_copy(update={"by": by, "dip": None if expect.dip is None else dip}))

    dip = expect.dip or 0.0
    for step in STEPS:
        moved = [f.measured - step * unit for f in line] + [f.measured - step * dip for f in steps]
        counts = _could_change(found, step) and all(abs(m) <= widest for m in moved)
        claim = asking(expect.by + step * unit, dip - step * dip)
        yield Perturbation(_by_margins(step), "margins", claim, step, counts=counts)
    turned: dict[str, tuple[str, ...] | None] = {"larger_gain": expect.than, "than": expect.larger_gain}
    if expect.increasing is not None:
        turned = {"increasing": expect.increasing[::-1]}
    yield Perturbation("reversed", "reversed", expecting(expect.model_copy(update=turned)))
    for name, sign in _BESIDE.items():
        choose = min if sign < 0 else max
        by = choose(_beside(f, sign, expect.by) for f in line)
        claim = asking(by, -choose((_beside(f, sign, -dip) for f in steps), default=-dip))
        yield Perturbation(name, "far", claim, counts=_could_change(found, sign))


def _equality(claim: Claim, expect: EquivalenceExpect, found: Verdict, expecting: _Expecting) -> Iterator[Perturbation]:
    findings = found.findings
    for step in STEPS:
        counts = all(abs(f.measured - step * expect.within) <= 100 for f in findings)
        yield Perturbation(_by_margins(step), "margins", claim, step, float(step), counts)
    for f in findings:
        name = f"the difference moved onto that of {f.label}"
        yield Perturbation(name, "far", claim, moved=f.measured / expect.within)
    ends = [abs(end) for f in findings if f.deciding for end in (f.deciding.low, f.deciding.high)]
    if ends:
        wider = expect.model_copy(update={"within": 1.1 * max(*ends, expect.within)})
        counts = _could_change(found, -1)
        yield Perturbation("a margin wider than what was measured", "far", expecting(wider), counts=counts)


# --- printed numbers ----------------------------------------------------------------------------


def examine_literal(claim: Claim, found: Verdict, find: Find) -> Examined:
    """A verdict on printed numbers, had others been printed.

    Every cell is moved by three margins both ways, a margin being `within` of its check or a unit of its last printed
    digit; then as far as it takes for each comparison to come out otherwise. Relations reversed are told beside them
    and do not count: `@a + 1 > @a` would then fail, and yet says nothing of what is printed.

    Args:
        find: the cell at an address.
    """
    entry = claim.scales.literal
    assert entry is not None
    assert isinstance(entry.expect, LiteralExpect)
    trials = [
        *_cells_moved(claim, entry.expect, find),
        *_relations_reversed(claim, entry.expect, find),
        *_moved_far(claim, entry.expect, find),
    ]
    return Examined(found, tuple(trials))


def _cells_moved(claim: Claim, expect: LiteralExpect, find: Find) -> Iterator[Trial]:
    for address, unit in _units(expect, find).items():
        for step in STEPS:
            to = find(address).value + step * unit
            checked = _evaluated(expect, _with(find, address, to))
            if checked is not None:
                yield Trial(_named(address, to), "margins", step, judge_literal(claim, checked).outcome)


def _named(address: str, value: float) -> str:
    return f"{address.lstrip('@')} at {value:.10g}"


def _with(find: Find, address: str, value: float) -> Find:
    """The same cells but for one, under whichever address it is asked for."""
    moved = find(address)
    other = moved.model_copy(update={"value": value})

    def found(asked: str) -> Cell:
        cell = find(asked)
        return other if cell is moved else cell

    return found


def _evaluated(expect: LiteralExpect, find: Find) -> tuple[Checked, ...] | None:
    """None where the numbers have no value, such as a quotient by zero: nobody would have printed them."""
    try:
        return evaluate(expect, find)
    except FormulaError:
        return None


def _units(expect: LiteralExpect, find: Find) -> dict[str, float]:
    """One margin of every cell that is looked at, by its address."""
    units: dict[str, float] = {}
    for check in expect.checks.values():
        for address in _addresses(expect, check):
            units.setdefault(address, check.within or _last_digit(find(address)))
    return units


def _addresses(expect: LiteralExpect, check: LiteralCheck) -> dict[str, None]:
    """The cells behind a check, those of its definitions included."""
    made = expect.definitions()
    left = [a for _, formula in check.formulas() for a in formula.addresses]
    cells: dict[str, None] = {}
    seen: set[str] = set()
    while left:
        address = left.pop(0)
        if address.startswith("@") and address[1:] in made:
            left += made[address[1:]].addresses if address not in seen else ()
        else:
            cells[address] = None
        seen.add(address)
    return cells


def _last_digit(cell: Cell) -> float:
    """A unit of the last digit that is printed, or shown where nothing says how many were."""
    if cell.decimals is not None:
        return float(10.0**-cell.decimals)
    mantissa, _, exponent = f"{cell.value!r}".removesuffix(".0").partition("e")
    return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))


_RELATION = re.compile(r">=|<=|==|>|<")
_OPPOSITE = {">": "<", "<": ">", ">=": "<=", "<=": ">="}  # what is not equal has no relation of its own


def _relations_reversed(claim: Claim, expect: LiteralExpect, find: Find) -> Iterator[Trial]:
    turned = {name: _turned(check) for name, check in expect.checks.items()}
    changes = {f"{name} reversed": {name: check} for name, check in turned.items() if check != expect.checks[name]}
    if len(changes) > 1:
        changes["all reversed"] = turned
    for name, checks in changes.items():
        checked = _evaluated(expect.model_copy(update={"checks": {**expect.checks, **checks}}), find)
        if checked is not None:
            yield Trial(name, "reversed", None, judge_literal(claim, checked).outcome, counts=False)


def _turned(check: LiteralCheck) -> LiteralCheck:
    that = _RELATION.sub(lambda m: _OPPOSITE.get(m[0], m[0]), check.that)
    return check if that == check.that else check.model_copy(update={"that": that})


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
            made = _evaluated(alone, _with(find, address, value))
            if made and made[0].comparison.holds is wanted:
                return made[0]
    return None


def _places(alone: LiteralExpect, address: str, unit: float, find: Find) -> Iterator[float]:
    """Where a cell might have stood for a comparison to come out otherwise: nearby, where its sides meet, and far."""
    now = find(address).value
    away = [sign * unit * size for size in (1, 2, 3, 10, 100, 1e3, 1e4, 1e5, 1e6) for sign in (1, -1)]
    yield from (now + a for a in away)
    meeting = _meeting(alone, address, now, unit, find)
    if meeting is not None:
        yield from (meeting + a for a in (0.0, *away))


def _meeting(alone: LiteralExpect, address: str, now: float, unit: float, find: Find) -> float | None:
    """Where the two sides are equal, by secants; None where the cell does not move them, or not in so few steps."""

    def apart(value: float) -> float:
        made = _evaluated(alone, _with(find, address, value))
        return made[0].comparison.left.value - made[0].comparison.right.value if made else math.nan

    x0, x1 = now, now + unit
    y0, y1 = apart(x0), apart(x1)
    for _ in range(8):
        if not (math.isfinite(y0) and math.isfinite(y1)) or y0 == y1:
            break
        x0, y0, x1 = x1, y1, x1 - y1 * (x1 - x0) / (y1 - y0)
        y1 = apart(x1)
    return x1 if math.isfinite(y1) and x1 != now + unit else None
