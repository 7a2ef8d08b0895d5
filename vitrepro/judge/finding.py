"""One comparison and its decision: an estimate, a region in which it must lie, a level. No sentence is made here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal

import numpy as np

from vitrepro.judge.stats import Estimate, Interval, Share, t_quantile

ALPHA = 0.05
POWER = 0.8  # with which a detectable difference is told
HOPELESS = 0.05  # a power below which a PASS is out of reach


class Outcome(str, Enum):
    PASS = "PASS"
    FAIL = "FAIL"
    EXCEEDS = "EXCEEDS"
    INCONCLUSIVE = "INCONCLUSIVE"
    INFEASIBLE = "INFEASIBLE"
    ERROR = "ERROR"
    NOT_RUN = "NOT_RUN"

    @property
    def decided(self) -> bool:
        return self in (Outcome.PASS, Outcome.FAIL, Outcome.EXCEEDS)


PASS, FAIL, EXCEEDS, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.EXCEEDS, Outcome.INCONCLUSIVE
AGAINST = (FAIL, EXCEEDS)
DECIDED = (PASS, FAIL, EXCEEDS)

Form = Literal["exact", "count", "value", "gap", "equal", "measure", "share", "literal"]


@dataclass(frozen=True)
class Note:
    """A named reason or qualifier with its numbers; `report.words` has its sentence."""

    name: str
    values: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, key: str) -> Any:
        return dict(self.values)[key]


def note(name: str, /, **values: Any) -> Note:
    """A named reason with its numbers."""
    return Note(name, tuple(values.items()))


@dataclass(frozen=True)
class Region:
    """Where a true value must lie for a PASS, what it means if it lies below or above, and the level.

    Attributes:
        tail: share of repetitions in which a value at one edge may be taken for one beyond it.
        unit: one margin, by which sensitivity moves the region.
    """

    low: float = -math.inf
    high: float = math.inf
    below: Outcome = FAIL
    above: Outcome = FAIL
    tail: float = ALPHA
    unit: float = 1.0

    @property
    def edges(self) -> tuple[float, ...]:
        return tuple(e for e in (self.low, self.high) if math.isfinite(e))

    def moved(self, by: float) -> Region:
        """The region shifted up."""
        return replace(self, low=self.low + by, high=self.high + by)

    def at(self, alpha: float) -> Region:
        """The same at another level than 5%, as a later look at the same claim has."""
        return replace(self, tail=self.tail * alpha / ALPHA)


def place(estimate: Estimate, region: Region) -> Any:
    """Where the interval lies: -1 below the region, 0 inside it, 1 above it, 2 across an edge."""
    low, high = estimate.ends(region.tail)
    inside = (low >= region.low) & (high <= region.high)
    return np.select([inside, high < region.low, low > region.high], [0, -1, 1], 2)[()]


def against(estimate: Estimate, region: Region) -> Any:
    """p-value of the true value lying inside the region: an estimate as far outside, on either side, from its edge.

    An interval much wider than the region lies outside on one side about as often as on the other, each time by its
    tail; the sum of both is what a refutation risks.
    """
    low, high = region.low, region.high
    below, above = (side(low) + side(high) for side in (estimate.p_below, estimate.p_above))
    return np.minimum(np.minimum(below, above), 1.0)


def reach(estimate: Estimate, region: Region) -> Any:
    """How far beyond an edge an estimate must lie to refute: where `against` comes to the tail."""
    from scipy.special import stdtr

    near, far = (t_quantile(1 - region.tail / n, estimate.freedom) * estimate.se for n in (1, 2))
    span = region.high - region.low
    for _ in range(30 if math.isfinite(span) else 0):  # bisection; with one edge `near` is exact
        middle = (near + far) / 2
        over = sum(stdtr(estimate.freedom, -d / estimate.se) for d in (middle, middle + span)) > region.tail
        near, far = np.where(over, middle, near), np.where(over, far, middle)
    return near


def decide(estimate: Estimate, region: Region) -> Any:
    """The one decision, for every kind of claim: -1 below the region, 0 inside it, 1 above it, 2 open.

    Returns:
        One number, or an array of the estimate's shape.
    """
    at = place(estimate, region)
    return np.where((np.abs(at) == 1) & (against(estimate, region) > region.tail), 2, at)[()]


@dataclass(frozen=True)
class Finding:
    """One comparison: what was measured against what was expected.

    Attributes:
        measured: percent, points of difference, or the quantity's own unit.
        estimate: of what the region is for: of a value, the difference from the reported number.
        blocks: outcome -> why these runs cannot bear it, whatever they measured.
        shown: interval printed beside what was measured; the deciding one unless given.
        limits: between which numbers the estimated value lies, whatever the model.
        bound: margin, gap, edge or tolerance, as the claim states it.
        relation: how measured should stand to the bound or the reported number, where it is not a margin.
        known: the outcome where printed numbers alone decide it.
        mcnemar: exact p-value that two single checkpoints are right equally often; it describes, and decides nothing.
        notes: named facts of this comparison, such as the cells behind a printed number.
        seeds, n: fewest runs of its arms, and test images.
    """

    label: str
    form: Form
    measured: float
    estimate: Estimate
    region: Region
    bound: float = 0.0
    reported: float | None = None
    blocks: Mapping[Outcome, Note] = field(default_factory=dict)
    shown: Interval | None = None
    limits: tuple[float, float] = (-math.inf, math.inf)
    relation: str = ""
    metric: str = ""
    seeds: int = 0
    n: int = 0
    paired: bool = False
    known: Outcome | None = None
    mcnemar: float | None = None
    notes: tuple[Note, ...] = ()

    @property
    def random(self) -> bool:
        """Whether chance has a part in it."""
        return self.known is None and 0 < float(self.estimate.se) < math.inf

    @property
    def _region(self) -> Region:
        """The region without the edges beyond which nothing can lie."""
        low, high = self.limits
        r = self.region
        return replace(r, low=r.low if r.low >= low else -math.inf, high=r.high if r.high <= high else math.inf)

    @property
    def equality(self) -> bool:
        """Whether its region is of a difference that should be about zero."""
        return self.form in ("value", "equal") or self.reported is not None

    @property
    def would_be(self) -> Outcome:
        """What the interval alone says."""
        if self.known is not None:
            return self.known
        at = int(place(self.estimate, self._region))
        return {0: PASS, -1: self.region.below, 1: self.region.above, 2: INCONCLUSIVE}[at]

    @property
    def block(self) -> Note | None:
        """Why the interval does not decide, if so."""
        if self.would_be is PASS and self.power is not None and self.power < HOPELESS:
            return self.blocks.get(PASS) or note("no_power", power=self.power)
        if self.would_be in AGAINST and self.known is None and decide(self.estimate, self.region) == 2:
            return self.blocks.get(self.would_be) or note("either_side", p=self.p_against)
        return self.blocks.get(self.would_be)

    @property
    def outcome(self) -> Outcome:
        return INCONCLUSIVE if self.block else self.would_be

    def could(self, outcome: Outcome) -> bool:
        """Whether such runs could have come to an outcome, whatever the models had done."""
        if self.known is not None:
            return True
        sides = {self.region.below: self.region.low, self.region.above: self.region.high}
        if outcome is PASS:
            return PASS not in self.blocks and (self.power is None or self.power >= HOPELESS)
        return outcome in sides and outcome not in self.blocks

    @property
    def deciding(self) -> Interval | None:
        """The interval that decides, within what is possible; None where nothing is random."""
        if not self.random:
            return None
        i = self.estimate.interval(1 - 2 * self.region.tail)
        return replace(i, low=max(i.low, self.limits[0]), high=min(i.high, self.limits[1]))

    @property
    def interval(self) -> Interval | None:
        """As printed beside what was measured."""
        return self.shown or self.deciding

    @property
    def accepted(self) -> tuple[float, float] | None:
        """Where `deciding` must lie for a PASS; infinite where open."""
        return None if self.known is not None else (self.region.low, self.region.high)

    @property
    def p(self) -> float | None:
        """p-value of PASS: below 5% where the interval lies inside the region. None where nothing is random."""
        low, high = self._region.low, self._region.high
        return self._scaled(max(self.estimate.p_above(low), self.estimate.p_below(high))) if self.random else None

    @property
    def p_against(self) -> float | None:
        """The same of FAIL or EXCEEDS: below 5% where they are decided; see `against`."""
        return self._scaled(against(self.estimate, self.region)) if self.random else None

    def _scaled(self, p: float) -> float:
        """In terms of 5%, whatever the level of each side and of this look."""
        return min(1.0, float(p) * ALPHA / self.region.tail)

    @property
    def slack(self) -> float:
        """Distance of the interval to the nearest outcome boundary, in its unit; in margins where nothing is random."""
        if self.known is not None:
            return float(next((n["slack"] for n in self.notes if n.name == "printed"), 0.0))
        if not float(self.estimate.se) < math.inf:
            return 0.0
        low, high = self.estimate.ends(self.region.tail)
        room = min((abs(end - edge) for end in (low, high) for edge in self.region.edges), default=math.inf)
        if self.random or self.form == "count":
            return float(room)
        exact = not self.bound and not self.estimate.centre  # an exact hit is no near miss
        return 1.0 if exact else float(room) / (self.bound or abs(self.reported or 0.0) or 1.0)

    @property
    def power(self) -> float | None:
        """Probability of PASS if the true difference is zero, at the spread seen; None where that is no equality."""
        if not self.random or not self.equality:
            return None
        half = self._half
        missed = replace(self.estimate, hidden=0.0)
        outside = [missed.p_above(float(missed.centre) - (edge - half)) for edge in map(abs, self._region.edges)]
        return max(0.0, 1.0 - sum(map(float, outside)))

    @property
    def detectable(self) -> float | None:
        """The true value told with a probability of 80%: of an equality as FAIL, else as PASS; None without one."""
        if not self.random or isinstance(self.estimate, Share):
            return None
        more = float(t_quantile(POWER, self.estimate.freedom) * self.estimate.se)
        if self.equality:
            told = max(map(abs, self.region.edges)) + float(reach(self.estimate, self.region)) + more
            return told if told <= max(map(abs, self.limits)) else None
        told = (
            self.region.low + self._half + more if self.region.low > -math.inf else self.region.high - self._half - more
        )
        return told if self.limits[0] <= told <= self.limits[1] else None

    @property
    def _half(self) -> float:
        return float(t_quantile(1 - self.region.tail, self.estimate.freedom) * self.estimate.se)

    def moved(self, by: float) -> Finding:
        """The same measurement against its region moved up: as if so much less had been measured."""
        if isinstance(self.estimate, Share):
            return replace(self, region=self.region.moved(by))
        low, high = self.limits
        return replace(
            self, estimate=replace(self.estimate, centre=self.estimate.centre - by), limits=(low - by, high - by)
        )


def combine(outcomes: Iterable[Outcome]) -> Outcome:
    """All parts must hold: one refutation refutes, one doubt leaves doubt (intersection-union)."""
    present = set(outcomes)
    return next(o for o in (FAIL, EXCEEDS, INCONCLUSIVE, PASS) if o in present)


def tightest(found: Sequence[Finding]) -> Finding:
    """The finding that comes nearest to another outcome."""
    return min(found, key=lambda f: f.slack)
