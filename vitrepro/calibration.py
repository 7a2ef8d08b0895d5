"""How often the rules of `rules` are wrong, by simulation with models whose errors are like those of trained ones.

Every image has a difficulty that all models share and one that an arm has of its own; a run is right on an image by
chance alone, given both (Jordan, arXiv 2304.01910). Each study draws runs, judges them by the very functions that
judge stored runs, and counts how often the outcome was wrong and how often an interval held the truth.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from vitrepro import power, rules, stats
from vitrepro.arrays import Bools, Floats
from vitrepro.randomness import derive
from vitrepro.rules import POWER, Arm, Finding, Outcome
from vitrepro.spec import Cell, Claim, Comparison, OrderingExpect, ValueCheck
from vitrepro.stats import Interval
from vitrepro.verdict import Verdict, weigh

SEEDS = (1, 3, 5)
SIZES = (500, 2_000, 3_669, 10_000)
TRIALS = 4_000
WRONG = 0.06  # the most that a wrong decision may happen
OFF = 0.02  # by which coverage may differ from its level; a bound may cover more
POWER_OFF = 0.05
ARM = 85.0  # accuracy of the arms, percent
FORESEEN = 1_000  # trials of which the power planned is averaged, as it depends on the printed spread
LUCK = 0.8  # share of images on which runs of one seed, computed in two ways, share their luck
FLIPPED = 2e-4  # share of images on which other arithmetic changes the answer of the same weights


@dataclass(frozen=True)
class Population:
    """How models err.

    Attributes:
        shared, own: sd of the difficulty of images, in logits: of all models, and of one arm.
        unsteady: sd of a seed's own shift, in logits.
    """

    name: str
    shared: float
    own: float
    unsteady: float = 0.0

    def intercept(self, accuracy: float) -> float:
        """Logit at which models have this accuracy, percent, over images and seeds."""
        from scipy.optimize import brentq

        return float(brentq(lambda m: self.mean(m) - accuracy / 100, -30, 30))

    def mean(self, intercept: float) -> float:
        nodes, weights = _normal(math.hypot(self.shared, self.own, self.unsteady))
        return float(weights @ _sigmoid(intercept + nodes))

    def spread(self, accuracy: float) -> float:
        """sd over seeds as a share of the binomial bound, if seeds are steady."""
        nodes, weights = _normal(math.hypot(self.shared, self.own))
        p = _sigmoid(self.intercept(accuracy) + nodes)
        return math.sqrt(float(weights @ (p * (1 - p))) / (accuracy / 100 * (1 - accuracy / 100)))

    def agreement(self, accuracy: float) -> float:
        """Correlation over images of two arms' chances of being right."""
        nodes, weights = _normal(self.shared)
        own, own_weights = _normal(self.own)
        p = _sigmoid(self.intercept(accuracy) + nodes[:, None] + own)
        mean, whole = p @ own_weights, (p**2) @ own_weights
        centre = float(weights @ mean)
        variance = float(weights @ whole) - centre**2
        return (float(weights @ mean**2) - centre**2) / variance if variance > 1e-12 else 1.0

    def together(self, accuracy: float) -> float:
        """Correlation of what is left to the seeds between two arms, of which the runs of a seed share their luck."""
        nodes, weights = _normal(self.shared)
        own, own_weights = _normal(self.own)
        p = _sigmoid(self.intercept(accuracy) + nodes[:, None] + own)
        both = np.minimum(p[:, :, None], p[:, None, :]) - p[:, :, None] * p[:, None, :]
        common = float(weights @ (both @ own_weights @ own_weights))
        return LUCK * common / float(weights @ (p * (1 - p) @ own_weights))

    def draw(
        self, rng: np.random.Generator, intercepts: Sequence[float], seeds: int, n: int, *, paired: bool = False
    ) -> list[Bools]:
        """Correctness (K, n) of one arm for each intercept, on the same new images.

        Args:
            paired: runs of one seed share their luck on most images.
        """
        hard = rng.standard_normal(n, dtype=np.float32) * np.float32(self.shared)
        kept = rng.random((seeds, n), dtype=np.float32) < LUCK if paired else np.zeros((seeds, n), bool)
        luck = rng.random((seeds, n), dtype=np.float32) if paired else np.zeros((seeds, n), np.float32)

        def tossed() -> Any:
            own = rng.random((seeds, n), dtype=np.float32)
            return np.where(kept, luck, own) if paired else own

        arms = []
        for m in intercepts:
            logit = hard + rng.standard_normal(n, dtype=np.float32) * np.float32(self.own) + np.float32(m)
            if self.unsteady:
                shift = (rng.standard_normal((seeds, 1)) * self.unsteady).astype(np.float32)
                arms.append(tossed() < _sigmoid(logit + shift))
            else:
                arms.append(tossed() < _sigmoid(logit))
        return arms


def _sigmoid(x: Any) -> Any:
    """Of an array, in its own precision."""
    return 1 / (1 + np.exp(-x))


def _normal(sd: float) -> tuple[Floats, Floats]:
    """Nodes and weights for the mean of a function of a normal with this deviation."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return nodes * sd, weights / weights.sum()


TRAINED = Population("like trained models", 2.5, 0.7)
TOSSES = Population("independent coin tosses", 0.0, 0.0)
UNSTEADY = Population("like trained models, unsteady from seed to seed", 2.5, 0.7, 0.15)


@dataclass
class Tally:
    """Counts of one study.

    Attributes:
        outcomes: condition (margin, zero or power) -> outcomes.
        covered: what the interval is of -> (held the truth, times, level, whether it is a bound).
        predicted: probability of PASS under condition power, as planned.
    """

    claim: str
    seeds: int
    n: int
    outcomes: dict[str, Counter[Outcome]] = field(default_factory=dict)
    covered: dict[str, tuple[int, int, float, bool]] = field(default_factory=dict)
    predicted: float | None = None

    def saw(self, condition: str, found: Finding | Verdict) -> None:
        self.outcomes.setdefault(condition, Counter())[found.outcome] += 1

    def held(self, what: str, interval: Interval | None, truth: float) -> None:
        if interval is not None:
            held, times, *_ = self.covered.get(what, (0, 0))
            hit = interval.low <= truth <= interval.high
            self.covered[what] = (held + hit, times + 1, interval.level, interval.bound)

    def rate(self, condition: str, *outcomes: Outcome) -> float | None:
        seen = self.outcomes.get(condition)
        return sum(seen[o] for o in outcomes) / seen.total() if seen else None

    @property
    def false_pass(self) -> float | None:
        return self.rate("margin", Outcome.PASS)

    @property
    def false_fail(self) -> float | None:
        return self.rate("zero", Outcome.FAIL, Outcome.EXCEEDS)

    @property
    def power(self) -> float | None:
        return self.rate("power", Outcome.PASS)

    def misses(self) -> Iterator[str]:
        """What lies outside the limits."""
        if (self.false_pass or 0.0) > WRONG:
            yield "false PASS"
        if (self.false_fail or 0.0) > WRONG:
            yield "false FAIL"
        # asked so that a number that is none misses, too
        if self.power is not None and self.predicted is not None and not abs(self.power - self.predicted) <= POWER_OFF:
            yield "power"
        for what, (held, times, level, bound) in self.covered.items():
            if not (level - OFF <= held / times <= level + OFF or (bound and held / times > level)):
                yield f"coverage of {what}"


@dataclass(frozen=True)
class Study:
    """One cell of the table: a kind of claim, seeds and test images, judged many times."""

    kind: str
    population: Population
    seeds: int
    n: int
    trials: int

    @property
    def work(self) -> int:
        """Answers drawn, roughly, and what judging costs beside them."""
        return self.trials * ((self.seeds + 1) * self.n + 20_000)

    def run(self) -> Tally:
        """Draw, judge and count."""
        rng = np.random.default_rng(derive(0, f"calibration/{self.kind}/{self.population.name}/{self.seeds}", self.n))
        return _compared(self, rng) if self.kind == COMPARED else STUDIES[self.kind](self, rng)


def _value(study: Study, rng: np.random.Generator, *, printed: bool, direction: Any = "two_sided") -> Tally:
    """Ours and theirs from the same population and images; the reported number is laid off by the margin."""
    s, tally = study, Tally(study.kind, study.seeds, study.n)
    own = s.population.spread(ARM) * math.sqrt(ARM * (100 - ARM) / s.n)
    at_least = direction == "at_least"

    def planned(sd: float | None) -> power.Expected:
        return power.expected_value(s.seeds, s.n, ARM, sd, 3 if printed else None, own)

    margin = _solve(lambda m: planned(own if printed else None).inside(0, -m, math.inf if at_least else m, 0.9) - POWER)
    check = ValueCheck(arm="ours", margin=margin, direction=direction)
    intercept, predicted = s.population.intercept(ARM), []
    for trial in range(s.trials):
        (runs,) = s.population.draw(rng, [intercept], s.seeds + (3 if printed else 1), s.n)
        ours, theirs = runs[: s.seeds], 100 * runs[s.seeds :].mean(1)
        sd = float(theirs.std(ddof=1)) if printed else None
        reported = float(theirs.mean())
        arm = Arm.of(ours)
        judged = {}
        for condition, off in (("margin", margin), ("zero", 0.0)):
            cell = Cell(value=reported + off, sd=sd, runs=3 if printed else None)
            judged[condition] = rules.accuracy("ours", check, cell, arm)
            tally.saw(condition, judged[condition])
        tally.saw("power", judged["zero"])
        if trial < FORESEEN:
            predicted.append(planned(sd).inside(0, -margin, math.inf if at_least else margin, 0.9))
        tally.held("the difference", judged["zero"].deciding, 0.0)
        if s.population is not UNSTEADY and s.seeds < 3:  # of other images; seeds are another matter
            tally.held("one accuracy", judged["zero"].interval, ARM)
    tally.predicted = float(np.mean(predicted)) if not s.population.unsteady else None
    return tally


def _gap(study: Study, rng: np.random.Generator, *, by: float) -> Tally:
    """Two arms on the same images: at the gap itself, and where planning promises a power of 80%."""
    s, tally = study, Tally(study.kind, study.seeds, study.n)
    weights = {"a": 1.0, "b": -1.0}
    planned, detectable = _planned(s, list(weights.values()), by)
    for condition, truth in (("margin", by), ("power", detectable)):
        for arms in _arms(s, rng, (ARM, ARM - truth)):
            found = rules.gap("a - b", weights, by, arms, ("a", "b"))
            tally.saw(condition, found)
            if condition == "margin":
                tally.saw("zero", found)  # the claim's own edge: to fail there is as wrong as to pass
            tally.held("the gap", found.interval, truth)
    tally.predicted = planned.inside(detectable, by, math.inf, 0.95) if not s.population.unsteady else None
    return tally


def _interaction(study: Study, rng: np.random.Generator) -> Tally:
    """Two gains, as large as each other, and one larger by what planning says can be told."""
    s, tally = study, Tally(study.kind, study.seeds, study.n)
    weights = {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}
    planned, detectable = _planned(s, list(weights.values()), 0.0)
    for condition, truth in (("margin", 0.0), ("power", detectable)):
        half = truth / 2
        for arms in _arms(s, rng, (ARM, ARM - 5 - half, ARM, ARM - 5 + half)):
            found = rules.gap("gain", weights, 0.0, arms, ("a", "c"), interaction=True)
            tally.saw(condition, found)
            if condition == "margin":
                tally.saw("zero", found)
            tally.held("the contrast", found.interval, truth)
    tally.predicted = planned.inside(detectable, 0.0, math.inf, 0.95) if not s.population.unsteady else None
    return tally


def _equality(study: Study, rng: np.random.Generator, *, paired: bool = False) -> Tally:
    s, tally = study, Tally(study.kind, study.seeds, study.n)
    spread, shared = s.population.spread(ARM), s.population.agreement(ARM)
    together = s.population.together(ARM) if paired else None
    planned = power.expected_contrast([1.0, -1.0], [s.seeds] * 2, s.n, [ARM] * 2, spread, shared, together)
    within = _solve(lambda m: planned.inside(0, -m, m, 0.9) - POWER)
    for condition, truth in (("margin", within), ("zero", 0.0)):
        for arms in _arms(s, rng, (ARM, ARM - truth), paired=paired):
            found = rules.equal("a", "b", within, arms, paired=paired)
            tally.saw(condition, found)
            if condition == "zero":
                tally.saw("power", found)
            tally.held("the difference", found.interval, truth)
    tally.predicted = planned.inside(0.0, -within, within, 0.9) if not s.population.unsteady else None
    return tally


def _six_orderings(study: Study, rng: np.random.Generator) -> Tally:
    """Six comparisons of four equal arms in one claim, each verdict as a whole: one of many may not refute it."""
    s, tally = study, Tally(study.kind, study.seeds, study.n)
    for arms in _arms(s, rng, (ARM,) * 4):
        found = weigh(_CLAIM, _PAIRS, arms, scale=None, fidelity=None, registered_seeds=s.seeds)
        tally.saw("margin", found)
        tally.saw("zero", found)
    return tally


_PAIRS = OrderingExpect(all=tuple(Comparison(greater=a, than=b) for a, b in itertools.combinations("abcd", 2)))
_CLAIM = Claim.model_validate(
    {
        "id": "simulated/arms",
        "source": {"paper": "a simulation", "where": "here"},
        "kind": "ordering",
        "statement": "Each arm is better than the next.",
        "scales": {"cpu": {"infeasible": "simulated"}},
    }
)


def _reevaluation(study: Study, rng: np.random.Generator) -> Tally:
    """The same weights evaluated again, by other arithmetic, or with a fault that is just too large to accept."""
    s, tally = study, Tally(study.kind, study.seeds, study.n)
    check = ValueCheck(arm="ours", margin=0.1, same_weights=True)
    intercept = s.population.intercept(ARM)
    allowed = max(check.margin * s.n / 100, 1.0)
    for _ in range(s.trials):
        (runs,) = s.population.draw(rng, [intercept], 1, s.n)
        cell = Cell(value=round(100 * float(runs.mean()), 2), decimals=2)
        again = runs ^ (rng.random(runs.shape) < FLIPPED)
        found = rules.evaluated("ours", check, cell, Arm.of(again))
        tally.saw("zero", found)
        tally.saw("power", found)
        worse, right = runs.copy(), np.flatnonzero(runs[0])
        beyond = math.floor(allowed + 0.005 * s.n / 100) + 1  # more than the margin and the rounding together
        worse[0, right[:beyond]] = False
        tally.saw("margin", rules.evaluated("ours", check, cell, Arm.of(worse)))
    tally.predicted = 1.0
    return tally


COMPARED = "other intervals"
BY_SEED = "equality, paired by seed"
OTHER_SEEDS = {BY_SEED: (3, 5, 10), "re-evaluation": (1,)}
VALUES = ("value, ± of 3 runs", "value, one number", "at least")
MORE = 3  # times as many trials for values, which are cheap to draw and whose coverage is nearest to its limits

STUDIES: Mapping[str, Callable[[Study, np.random.Generator], Tally]] = {
    "value, ± of 3 runs": partial(_value, printed=True),
    "value, one number": partial(_value, printed=False),
    "at least": partial(_value, printed=True, direction="at_least"),
    "ordering": partial(_gap, by=0.0),
    "ordering, gap of 1": partial(_gap, by=1.0),
    "interaction": _interaction,
    "equality": _equality,
    BY_SEED: partial(_equality, paired=True),
    "six orderings": _six_orderings,
    "re-evaluation": _reevaluation,
}


def _compared(study: Study, rng: np.random.Generator) -> Tally:
    """Other intervals for a gap, which the rules do not use, beside the one that they do."""
    s, tally = study, Tally(study.kind, study.seeds, study.n)
    for arms in _arms(s, rng, (ARM, ARM)):
        a, b = (arm.correct for arm in arms.values())
        assert a is not None
        assert b is not None
        tally.held("seeds and images, crossed", stats.contrast([a, b], [1, -1])[1].interval(0.95), 0.0)
        tally.held("bootstrap of seeds and images", _bootstrap(rng, a, b), 0.0)
        over_seeds = stats.mean(arms["a"].accuracies, arms["b"].accuracies)
        tally.held("t over seeds alone", over_seeds.interval(0.95) if over_seeds else None, 0.0)
    return tally


def _bootstrap(rng: np.random.Generator, a: Bools, b: Bools) -> Interval:
    """Percentile interval of draws of images, the same for both arms, and of seeds within each."""
    n, draws = a.shape[1], 500
    images = rng.multinomial(n, np.full(n, 1 / n), draws) / n

    def accuracy(rows: Bools) -> Floats:
        k = len(rows)
        seeds = rng.multinomial(k, np.full(k, 1 / k), draws) / k
        found: Floats = (images @ rows.T * seeds).sum(1) * 100
        return found

    low, high = np.percentile(accuracy(a) - accuracy(b), [2.5, 97.5])
    return Interval(float(low), float(high), 0.95, "bootstrap")


def _planned(s: Study, weights: Sequence[float], by: float) -> tuple[power.Expected, float]:
    """What planning expects of these arms, if it knows how they err, and the gap that it says can be told."""
    pairs = len(weights) // 2
    accuracies = [ARM, ARM - (5 if pairs > 1 else 0)] * pairs
    at = float(np.mean(accuracies))
    spread, shared = s.population.spread(at), s.population.agreement(at)

    def expected(gap: float) -> power.Expected:
        low = ARM - (5 if pairs > 1 else 0)
        moved = [ARM, low - gap / pairs, ARM, low + gap / 2][: 2 * pairs]
        return power.expected_contrast(weights, [s.seeds] * len(weights), s.n, moved, spread, shared)

    detectable = expected(by).detectable(by, 0.95)
    return expected(detectable), detectable


def _arms(
    s: Study, rng: np.random.Generator, accuracies: Sequence[float], *, paired: bool = False
) -> Iterator[dict[str, Arm]]:
    intercepts = [s.population.intercept(a) for a in accuracies]
    for _ in range(s.trials):
        drawn = s.population.draw(rng, intercepts, s.seeds, s.n, paired=paired)
        yield dict(zip("abcd", (Arm.of(rows) for rows in drawn), strict=False))


def _solve(f: Callable[[float], float]) -> float:
    from scipy.optimize import brentq

    return float(brentq(f, 1e-3, 40.0, xtol=1e-4))


def studies(trials: int = TRIALS) -> list[Study]:
    """Every cell of the tables: like trained models in full; the two other populations where they say something."""
    seeds = [(kind, k) for kind in STUDIES for k in OTHER_SEEDS.get(kind, SEEDS)]
    lines = [
        *((kind, TRAINED, k, n) for kind, k in seeds for n in SIZES),
        *((kind, TOSSES, k, 2_000) for kind, k in seeds),
        *((kind, UNSTEADY, k, 2_000) for kind, k in seeds if k > 1),
    ]
    return [
        Study(kind, population, k, n, MORE * trials if kind in VALUES else trials) for kind, population, k, n in lines
    ]


def comparisons(trials: int = TRIALS) -> list[Study]:
    """What intervals that the rules do not use would cover; a quarter of the trials, as a bootstrap takes long."""
    return [Study(COMPARED, TRAINED, k, 2_000, trials // 4) for k in SEEDS if k > 1]


_LEFT_TO_PARENT = (signal.SIGINT, signal.SIG_IGN)  # which ends the others


def run(chosen: Sequence[Study], processes: int, on_done: Callable[[Study], None]) -> list[Tally]:
    """Every study, the longest first, in the order given; the same whatever the number of processes."""
    order = sorted(range(len(chosen)), key=lambda i: -chosen[i].work)
    tallies: dict[int, Tally] = {}
    pool = ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=signal.signal, initargs=_LEFT_TO_PARENT
    )
    try:
        for i, tally in zip(order, pool.map(Study.run, [chosen[i] for i in order]), strict=True):
            tallies[i] = tally
            on_done(chosen[i])
    except BaseException:  # what is under way is of no use to anybody
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [tallies[i] for i in range(len(chosen))]
