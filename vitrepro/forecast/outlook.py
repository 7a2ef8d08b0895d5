"""What planned runs can tell: power to PASS, the smallest difference they detect, and whether a PASS is possible.

Accuracies are drawn in two worlds, in which seeds vary as little and as much as a quarter of the stored arms do, and
judged by the rules themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vitrepro.arrays import Bools, Floats
from vitrepro.forecast.worlds import SHARED, World, together
from vitrepro.judge.finding import HOPELESS, POWER, decide, reach
from vitrepro.judge.rules import Question, contrast, difference, printed_sd, questions
from vitrepro.judge.spread import FAR, FEWEST, FINE_TUNED, Regime, stored
from vitrepro.judge.stats import Estimate, binomial_sd
from vitrepro.metrics import FAILED_RUNS, TOP1, is_accuracy
from vitrepro.plan import Run
from vitrepro.recipe import Recipe
from vitrepro.spec import Claim, Conditional, EquivalenceExpect, Expect, ValueExpect

DRAWS = 2_000
UNKNOWN = 50.0  # accuracy of an arm of which nothing is stored: chance is largest there
MOST_SEEDS = 30  # that a forecast looks at; more would tell a little more
MOST_NUMBERS = 8_000_000  # that are drawn at once


def worlds(regime: Regime) -> tuple[World, World]:
    """The steady and the unsteady world of a regime: quartiles of stored spreads, or of those the paper prints."""
    steady, unsteady = FINE_TUNED if regime == "fine-tuned" else (stored().steady, stored().unsteady)
    return World("steady", steady), World("unsteady", unsteady)


@dataclass(frozen=True)
class Planned:
    """An arm of which runs are planned.

    Attributes:
        accuracy: percent, where it is expected.
    """

    seeds: int
    n: int
    accuracy: float
    regime: Regime


@dataclass(frozen=True)
class Told:
    """One comparison in one world.

    Attributes:
        passes: of each draw, if ours equals the reported number or the arms each other; None for a gap.
        detectable: the true difference told with a probability of 80%: as PASS for a gap, as FAIL for an equality.
        half: median of half the interval's width.
    """

    passes: Bools | None
    detectable: float
    half: float

    @property
    def power(self) -> float | None:
        return None if self.passes is None else float(self.passes.mean())


@dataclass(frozen=True)
class Outlook:
    """What planned runs can tell of one comparison, in the steady and the unsteady world.

    Attributes:
        doubt: why no PASS can be expected, or None.
        assumed: it rests on an accuracy of 50%, since none is known.
        least: runs of one seed are taken to share nothing, so that the power is at least this.
        needs: seeds with which the power is 80% in the unsteady world; 0 if no number of them is enough.
        margin: with which these seeds would have it.
    """

    label: str
    edge: float
    steady: Told
    unsteady: Told
    doubt: str | None = None
    assumed: bool = False
    least: bool = False
    needs: int | None = None
    margin: float | None = None
    arms: frozenset[str] = frozenset()

    @property
    def power(self) -> tuple[float, float] | None:
        """In both worlds; None for a gap, whose power depends on how large it is."""
        first, second = self.steady.power, self.unsteady.power
        return None if first is None or second is None else (first, second)

    @property
    def hopeless(self) -> bool:
        return self.power is not None and self.power[1] < HOPELESS


def joint(found: Sequence[Outlook]) -> tuple[float, float] | None:
    """Probability that all comparisons PASS, in both worlds; None where a gap is among them.

    Comparisons of arms of their own are independent. Those that share arms are counted draw by draw.
    """
    powers = [o.power for o in found if o.power is not None]
    if not powers or len(powers) < len(found):
        return None
    if sum(len(o.arms) for o in found) == len(set().union(*(o.arms for o in found))):
        return math.prod(p[0] for p in powers), math.prod(p[1] for p in powers)
    passes = [[t.passes for t in (o.steady, o.unsteady) if t.passes is not None] for o in found]
    fewest = min(len(each[0]) for each in passes)
    both = [float(np.all([each[i][:fewest] for each in passes], axis=0).mean()) for i in (0, 1)]
    return both[0], both[1]


def outlook(
    claim: Claim, expect: Expect, runs: Sequence[Run], seen: Mapping[str, float] | None = None
) -> list[Outlook]:
    """What planned runs can tell, comparison by comparison; nothing of counted quantities and measures.

    Args:
        seen: accuracy in percent of arms of which runs are stored. An arm not seen is taken to have an accuracy of 50%,
            where seeds and images vary most; of a value, the reported one.
    """
    recipes = {r.arm: r.config for r in runs if isinstance(r.config, Recipe)}
    arms = {
        arm: Planned(
            min(sum(r.arm == arm for r in runs), MOST_SEEDS), c.test_size, (seen or {}).get(arm, UNKNOWN),
            "fine-tuned" if c.weights else "scratch",
        )
        for arm, c in recipes.items()
    }  # fmt: skip
    cells = claim.reported.cells if claim.reported else {}
    asked = [q for q in questions(expect, cells) if q.form in ("value", "gap", "equal") and set(q.weights) <= set(arms)]
    return [_outlook(q, arms, seen or {}) for q in asked]


def _outlook(q: Question, arms: Mapping[str, Planned], seen: Mapping[str, float]) -> Outlook:
    used = {name: arms[name] for name in q.weights}
    assumed = q.cell is None and not set(used) <= set(seen)
    told = _told(q, used)
    made = Outlook(q.label, q.bound, *told, assumed=assumed, least=q.paired, arms=frozenset(used))
    if q.form == "gap":
        most = 100.0 * sum(w for w in q.weights.values() if w > 0)
        if told[1].detectable < most:
            return made
        return Outlook(**{**vars(made), "doubt": f"{q.label} would have to be above {told[1].detectable:.2f} points"})
    if not made.hopeless or assumed or q.paired or math.isinf(q.region.high):  # a better one makes up for any width
        return made
    needs, margin = _enough(q, used), _margin(q, used)
    k = min(p.seeds for p in used.values())
    doubt = (
        f"{q.label} with {k} seed{'s' if k > 1 else ''} has an interval of ±{told[1].half:.2f}, the margin is "
        f"{q.bound:g}; "
        + (
            f"{needs} seeds have a power of 80%"
            if needs
            else f"no number of seeds would do: a margin of {margin:.2g} would"
        )
    )
    return Outlook(**{**vars(made), "doubt": doubt, "needs": needs, "margin": margin})


def _told(q: Question, used: Mapping[str, Planned]) -> tuple[Told, Told]:
    regime: Regime = "scratch" if any(p.regime == "scratch" for p in used.values()) else "fine-tuned"
    first, second = worlds(regime)
    return tell(q, used, first), tell(q, used, second)


def tell(q: Question, used: Mapping[str, Planned], world: World, draws: int = DRAWS) -> Told:
    """One comparison in one world, drawn and judged; the same draws for the same arms."""
    estimate, stopped = expected(q, used, world, draws)
    confirms = all(p.seeds >= FEWEST or p.regime == "fine-tuned" for p in used.values())
    low, high = estimate.ends(q.region.tail)
    middle = estimate.centre
    half = (high - low) / 2
    if q.form == "gap":  # told as PASS: centre + truth - half > bound in four of five draws
        detectable = q.bound + float(np.quantile(half - middle, POWER)) if confirms else math.inf
        return Told(None, detectable, float(np.median(half)))
    beyond = q.cell is not None and q.region.high > 100 - q.cell.value  # where nothing can lie, as findings have it
    region = replace(q.region, high=math.inf) if beyond else q.region
    passes: Bools = (decide(estimate, region) == 0) & confirms & ~stopped
    told = -q.region.low + reach(estimate, q.region) + middle  # as FAIL: centre - truth lies by `reach` below -margin
    return Told(passes, float(np.quantile(told, POWER)), float(np.median(half)))


def expected(q: Question, used: Mapping[str, Planned], world: World, draws: int = DRAWS) -> tuple[Estimate, Bools]:
    """The estimate as runs not yet made will give it, where the true difference is zero: (draws,), or fewer.

    And in which draws a run lies so far below its arm that it counts as failed, and nothing is decided.
    """
    draws = min(draws, max(MOST_NUMBERS // sum(p.seeds for p in used.values()) ** 2, 200))
    rows: dict[str, Floats] = {}
    for name, p in used.items():
        rng = np.random.default_rng([*name.encode(), p.seeds])
        accuracy = q.cell.value if q.cell is not None else p.accuracy
        mean = min(max(accuracy, 0.0), 100.0)
        rows[name] = world.accuracies(rng, draws, p.seeds, mean, p.n)
        if q.cell is None:  # other images: all runs of an arm find them harder or easier together, two arms in part
            shared, every = 1.0 if q.paired else SHARED, np.random.default_rng(0).standard_normal((draws, 1))
            harder = math.sqrt(shared) * every + math.sqrt(1 - shared) * rng.standard_normal((draws, 1))
            rows[name] = np.clip(rows[name] + binomial_sd(mean, p.n) * math.sqrt(world.agreement) * harder, 0, 100)
    spans = [(x, np.median(x, -1, keepdims=True), p.n) for x, p in zip(rows.values(), used.values(), strict=True)]
    stopped = np.any([(m - x > FAR * binomial_sd(m, n)).any(-1) for x, m, n in spans], axis=0)
    if q.cell is not None:
        ((name, p),) = used.items()
        sd, runs = printed_sd(q.cell), q.cell.runs
        rng = np.random.default_rng([*name.encode(), 0, 1])  # none of ours
        theirs = world.accuracies(rng, draws, runs or 1, q.cell.value, p.n).mean(-1)
        return difference(rows[name], p.n, theirs, sd, runs, regime=p.regime), stopped
    accuracies = list(rows.values())
    each = list(used.values())
    shift = sum(w * p.accuracy for w, p in zip(q.weights.values(), each, strict=True))
    both = together(accuracies, each[0].n, [world.agreement] * len(each), 1.0 if q.paired else SHARED)
    _, estimate = contrast(
        both, each[0].n, [p.seeds for p in each], list(q.weights.values()), [p.regime for p in each], paired=q.paired
    )
    return Estimate(estimate.centre - shift, estimate.se, estimate.freedom, estimate.method), stopped


def _enough(q: Question, used: Mapping[str, Planned]) -> int:
    """How many seeds have a power of 80% in the unsteady world; 0 if no number that anybody would run."""
    for k in range(FEWEST, MOST_SEEDS + 1):
        more = {name: Planned(k, p.n, p.accuracy, p.regime) for name, p in used.items()}
        if (_told(q, more)[1].power or 0.0) >= POWER:
            return k
    return 0


def _margin(q: Question, used: Mapping[str, Planned]) -> float:
    """The margin with which these seeds, or three, would have a power of 80% in the unsteady world."""
    enough = {n: Planned(max(p.seeds, FEWEST), p.n, p.accuracy, p.regime) for n, p in used.items()}
    regime: Regime = "scratch" if any(p.regime == "scratch" for p in used.values()) else "fine-tuned"
    estimate, stopped = expected(q, enough, worlds(regime)[1])
    low, high = estimate.ends(q.region.tail)
    needed = np.where(stopped, math.inf, np.maximum(-low, high))
    return float(np.quantile(needed, POWER, method="lower"))


def cannot_pass(
    claim: Claim,
    scale_name: str | None,
    runs: Sequence[Run],
    registered_seeds: int = 1,
    seen: Mapping[str, float] | None = None,
) -> str | None:
    """Why runs such as these cannot be expected to PASS, or None.

    A value or an equality must have a power of 5% in the unsteady world; measures need three seeds; and what `judge`
    caps whatever comes out (fewer seeds, part of the test set, a changed recipe, arms that are one) cannot PASS either.
    """
    entry = claim.scales.entries().get(scale_name or "")
    if entry is None or entry.expect is None:
        return None
    trained = [r for r in runs if isinstance(r.config, Recipe)]
    configs = [r.config for r in trained if isinstance(r.config, Recipe)]
    seeds = len({r.seed for r in trained})
    checks: list[Callable[[], str | None]] = [
        lambda: f"{seeds} of {registered_seeds} registered seeds decide nothing" if seeds < registered_seeds else None,
        lambda: _part(configs),
        lambda: "the recipe is changed by hand" if any(r.deviations for r in trained) else None,
        lambda: _pairs(entry.expect, trained, seeds),
        lambda: _too_few(entry.expect, configs, seeds),
        lambda: next((o.doubt for o in outlook(claim, entry.expect, trained, seen) if o.doubt), None),  # type: ignore[arg-type]
    ]
    reason = next((why for check in checks if trained and (why := check())), None)
    return f"cannot PASS: {reason}" if reason else None


def _part(configs: Sequence[Recipe]) -> str | None:
    part = next((c for c in configs if (c.data.test_images or c.test_size) < c.test_size), None)
    return f"{part.data.test_images:,} test images are part of the test set" if part else None


def _pairs(expect: Any, trained: Sequence[Run], seeds: int) -> str | None:
    if not isinstance(expect, EquivalenceExpect) or not expect.paired_by_seed:
        return None
    if seeds < FEWEST:
        return "arms paired by seed need three seeds"
    one = next(((a, b) for a, b in itertools.combinations(trained, 2) if a.id == b.id), None)
    return f"{one[0].arm} and {one[1].arm} come to one recipe here, and nothing is compared" if one else None


def _too_few(expect: Any, configs: Sequence[Recipe], seeds: int) -> str | None:
    measures = expect.measures if isinstance(expect, Conditional) else ()
    uncounted = [m for _, m in measures if not is_accuracy(m) and m not in (TOP1, FAILED_RUNS)]
    if seeds < FEWEST and uncounted:
        return f"{uncounted[0]} has no counts, so it needs three seeds"
    if isinstance(expect, ValueExpect) and all(c.same_weights for c in expect.cells.values()):
        return None
    if seeds < FEWEST and any(not c.weights for c in configs):
        return f"{seeds} seed{'s' if seeds > 1 else ''} from scratch can refute and not confirm; three can"
    return None
