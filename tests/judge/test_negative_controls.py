"""Every claim that ships, on made-up measurements that clearly bear it out: it passes, and its opposite fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from verdict_cases import claim, counted, equivalence, right, trained, value

from vitrepro import claims
from vitrepro.judge.finding import Outcome
from vitrepro.judge.verdict import Verdict, judge
from vitrepro.metrics import counted_on
from vitrepro.record import Measured, TrainResult
from vitrepro.report import words
from vitrepro.spec import (
    AnalyticExperiment,
    Bound,
    Cell,
    Claim,
    Comparison,
    Conditional,
    EquivalenceExpect,
    ExactCheck,
    ExactExpect,
    Expect,
    OrderingExpect,
    TrendExpect,
    ValueExpect,
)

CLEARLY = 10.0  # points beyond what is asked for
REGISTRY = claims.load()


@dataclass(frozen=True)
class Case:
    """One scale of one claim, and the size of its experiment.

    Attributes:
        n: test images.
    """

    claim: Claim
    scale: str
    seeds: int = 3
    n: int = 10_000
    num_classes: int = 10

    @property
    def expect(self) -> Expect:
        expect = self.claim.scales.entries()[self.scale].expect
        assert expect is not None
        return expect

    @property
    def cells(self) -> Mapping[str, Cell]:
        assert self.claim.reported is not None
        return self.claim.reported.cells

    def expecting(self, expect: Expect) -> Claim:
        entry = self.claim.scales.entries()[self.scale].model_copy(update={"expect": expect})
        return self.claim.model_copy(update={"scales": self.claim.scales.model_copy(update={self.scale: entry})})

    def reporting(self, moved: Mapping[str, float]) -> Claim:
        cells = {k: c.model_copy(update={"value": moved.get(k, c.value)}) for k, c in self.cells.items()}
        assert self.claim.reported is not None
        return self.claim.model_copy(update={"reported": self.claim.reported.model_copy(update={"cells": cells})})

    def judge(self, claim: Claim, measured: list[Measured]) -> Verdict:
        return judge(claim, self.scale, measured, registered_seeds=self.seeds)


def shipped() -> Iterator[Any]:
    """What every claim asks at every scale; its conditions left out, which test_verdict holds."""
    for each in REGISTRY.claims.values():
        for name, entry in each.scales.entries().items():
            if entry.experiment is None:
                continue
            case = Case(each, name)
            if isinstance(entry.expect, Conditional):
                case = Case(case.expecting(entry.expect.model_copy(update={"given": ()})), name)
            experiment = REGISTRY.experiment(entry.experiment)
            if not isinstance(experiment, AnalyticExperiment):
                recipe = next(iter(claims.recipes(experiment).values()))
                case = dataclasses.replace(
                    case, seeds=len(experiment.seeds), n=recipe.test_size, num_classes=recipe.data.num_classes
                )
            yield pytest.param(case, id=f"{each.id}@{name}")


def made_up() -> Iterator[Any]:
    """One of each form, so that none goes untested while no shipped claim has it."""
    rising = claim("trend", {"increasing": ["small", "base", "large"], "by": 1.0})
    most = {"arm": "b16", "quantity": "forward_gmacs", "tolerance": 0.5, "direction": "at_most"}
    for each in (
        value(80.0, 2.0),
        value(80.0, 2.0, sd=0.2, printed_runs=3),
        value(80.0, 2.0, "at_least"),
        value(1231.5, 12.5, metric="train_loss_sum_epoch_1"),
        value(41.0, 2.0, metric="dev_top1_epoch_2", sd=0.2, printed_runs=3),
        value(41.0, 3.0, "at_least", metric="test_top1_epoch_2"),
        rising,
        claim("exact", {"cells": {"macs": most}}, {"macs": 17.6}),
        equivalence(2.0, paired_by_seed=True),
    ):
        yield pytest.param(Case(each, "gpu"), id=f"made-up-{each.kind}")


EVERY = [*shipped(), *made_up()]
every_case = pytest.mark.parametrize("case", EVERY)


def test_the_shipped_claims_are_read_without_a_fault():
    assert REGISTRY.problems == ()
    assert len(EVERY) > 10


# --- measurements that bear a claim out ---------------------------------------------------------


def heights(comparisons: tuple[Comparison, ...]) -> dict[str, float]:
    """Accuracies in which every comparison holds clearly."""
    accuracy: dict[str, float] = {}

    def of(arm: str) -> float:
        if arm not in accuracy:
            lower = [of(c.than) + c.by + CLEARLY for c in comparisons if c.greater == arm]
            accuracy[arm] = max(lower, default=40.0)
        return accuracy[arm]

    for c in comparisons:
        of(c.greater)
        of(c.than)
    return accuracy


def accuracies(case: Case) -> dict[str, float]:
    match case.expect:
        case OrderingExpect() as expect:
            by_accuracy = tuple(c for c in expect.all if isinstance(c, Comparison) and c.metric == "top1")
            measured_arms = dict.fromkeys((arm for arm, _ in expect.measures), 60.0)
            return {**measured_arms, **heights(by_accuracy)}
        case TrendExpect(larger_gain=(low, high), than=(other_low, other_high)) as expect:
            return {low: 40.0, high: 50.0 + expect.by + CLEARLY, other_low: 45.0, other_high: 55.0}
        case TrendExpect(increasing=(*arms,)) as expect:
            return {arm: 40.0 + i * (expect.by + CLEARLY) for i, arm in enumerate(arms)}
        case EquivalenceExpect() as expect:
            return dict.fromkeys(expect.equal, 70.0)
        case ValueExpect() as expect:
            measured_arms = dict.fromkeys((arm for arm, _ in expect.measures), 60.0)
            of_accuracy = {name: check for name, check in expect.cells.items() if check.metric == "top1"}
            return {**measured_arms, **{check.arm: case.cells[name].value for name, check in of_accuracy.items()}}
    raise AssertionError(case)


def measures(case: Case) -> dict[str, dict[str, float]]:
    """Measures of each arm in which every bound, comparison and reported number of measures holds clearly."""
    made: dict[str, dict[str, float]] = {}
    if isinstance(case.expect, ValueExpect):
        for name, check in case.expect.cells.items():
            if check.metric != "top1":
                made.setdefault(check.arm, {})[check.metric] = case.cells[name].value
    if isinstance(case.expect, OrderingExpect):
        for c in case.expect.all:
            clearly = CLEARLY if counted_on(c.metric) else 0.3
            if isinstance(c, Bound):
                edge, sign = (c.above, 1) if c.above is not None else (c.below or 0.0, -1)
                made.setdefault(c.arm, {})[c.metric] = edge + sign * clearly
            elif c.metric != "top1":
                lower = made.setdefault(c.than, {}).setdefault(c.metric, 0.1)
                made.setdefault(c.greater, {})[c.metric] = lower + c.by + clearly
    return made


def measured(case: Case, moved: Mapping[str, float] | None = None) -> list[Measured]:
    """Runs that bear the claim out, or would but for arms moved by some points."""
    if isinstance(case.expect, ExactExpect):
        arms: dict[str, dict[str, float]] = {}
        for name, check in case.expect.cells.items():
            arms.setdefault(check.arm, {})[check.quantity] = case.cells[name].value
        return [m for arm, quantities in arms.items() for m in counted(arm, quantities)]
    return trained_at(case, {arm: a + (moved or {}).get(arm, 0.0) for arm, a in accuracies(case).items()})


def trained_at(case: Case, accuracy: Mapping[str, float], **change: Any) -> list[Measured]:
    found: list[Measured] = []
    for who, (arm, centre) in enumerate(accuracy.items()):
        spread = [centre + 0.1 * (k - (case.seeds - 1) / 2) for k in range(case.seeds)]
        of_arm = {"measures": measures(case).get(arm, {}), "num_classes": case.num_classes}
        found += [varied(m) for m in trained(arm, right(spread, case.n, who), **of_arm, **change)]
    return found


def varied(m: Measured) -> Measured:
    """Its measures a little apart from those of the other seeds: seeds that all agree have no interval."""
    assert m.record is not None
    result = m.record.result
    assert isinstance(result, TrainResult)
    measures = {name: value + 0.001 * (m.seed - 1) for name, value in result.measures.items()}
    result = result.model_copy(update={"measures": measures})
    return dataclasses.replace(m, record=m.record.model_copy(update={"result": result}))


@every_case
def test_it_passes_where_it_is_clearly_so(case: Case):
    """It passes; where so many seeds could not have confirmed it however close they lie, it is left open."""
    verdict = case.judge(case.claim, measured(case))
    reach = Outcome.PASS if verdict.confirmable else Outcome.INCONCLUSIVE
    assert verdict.outcome is reach, words.reason(verdict)


def test_most_claims_could_be_confirmed():
    """With the seeds that they register; a value of one printed run at a margin of 2 is often out of reach."""
    reached = [c.values[0].judge(c.values[0].claim, measured(c.values[0])).confirmable for c in EVERY]
    assert sum(reached) > 0.8 * len(reached)


# --- and the opposite ---------------------------------------------------------------------------


def opposites(case: Case) -> Iterator[tuple[str, Claim, list[Measured]]]:
    """What is changed, the changed claim, and the measurements it is held against."""
    match case.expect:
        case OrderingExpect(all=comparisons):
            swapped = tuple(reversed_(c) for c in comparisons)
            yield "all reversed", case.expecting(OrderingExpect(all=swapped)), measured(case)
            for i, c in enumerate(swapped):
                one = (*comparisons[:i], c, *comparisons[i + 1 :])
                yield f"comparison {i} reversed", case.expecting(OrderingExpect(all=one)), measured(case)
        case TrendExpect(increasing=None) as expect:
            swap = {"larger_gain": expect.than, "than": expect.larger_gain}
            yield "gains swapped", case.expecting(expect.model_copy(update=swap)), measured(case)
        case TrendExpect(increasing=arms) as expect:
            assert arms
            falling = expect.model_copy(update={"increasing": arms[::-1]})
            yield "reversed", case.expecting(falling), measured(case)
        case EquivalenceExpect() as expect:
            for arm in expect.equal:
                for points in (3 * expect.within, -3 * expect.within):
                    yield f"{arm} moved by {points:+}", case.claim, measured(case, {arm: points})
        case ExactExpect(cells=checks):
            yield from moved_numbers(case, {name: exact_steps(case, name, c) for name, c in checks.items()})
        case ValueExpect(cells=values):
            signs = {"two_sided": (3, -3), "at_least": (3,)}
            steps = {name: tuple(s * c.margin for s in signs[c.direction]) for name, c in values.items()}
            yield from moved_numbers(case, steps)


def reversed_(c: Comparison | Bound) -> Comparison | Bound:
    if isinstance(c, Bound):
        return c.model_copy(update={"above": c.below, "below": c.above})
    return c.model_copy(update={"greater": c.than, "than": c.greater})


def exact_steps(case: Case, name: str, check: ExactCheck) -> tuple[float, ...]:
    """Three tolerances in each direction that the claim excludes; 1 where there is no tolerance."""
    tolerance = check.tolerance
    if tolerance is None:
        tolerance = (check.relative_tolerance or 0.0) * abs(case.cells[name].value)
    step = 3 * tolerance or 1.0
    return {"equal": (step, -step), "at_least": (step,), "at_most": (-step,)}[check.direction]


def moved_numbers(case: Case, steps: Mapping[str, tuple[float, ...]]) -> Iterator[tuple[str, Claim, list[Measured]]]:
    """The reported numbers moved one at a time, then all at once."""
    found = measured(case)
    for name, each in steps.items():
        for step in each:
            yield f"{name} moved by {step:+g}", case.reporting({name: case.cells[name].value + step}), found
    everything = {name: case.cells[name].value + each[0] for name, each in steps.items()}
    yield "all moved", case.reporting(everything), found


@every_case
def test_its_opposite_fails(case: Case):
    tried = 0
    for change, claim_, runs in opposites(case):
        verdict = case.judge(claim_, runs)
        allowed = (Outcome.FAIL, Outcome.EXCEEDS) if isinstance(case.expect, ValueExpect) else (Outcome.FAIL,)
        alone = verdict.why.name == "many_tries"  # one of several cells moved, with three seeds
        if alone or any(f.form == "share" for f in verdict.findings):  # or a number at chance: three runs tell little
            assert isinstance(case.expect, ValueExpect)
            assert verdict.outcome is Outcome.INCONCLUSIVE
            assert not alone or change != "all moved"
            continue
        assert verdict.outcome in allowed, f"{change}: {verdict.outcome.value}: {words.reason(verdict)}"
        tried += 1
    assert tried


# --- and what shows nothing ---------------------------------------------------------------------


@every_case
def test_it_is_not_run_while_a_run_is_missing(case: Case):
    found = measured(case)
    found[-1] = dataclasses.replace(found[-1], record=None, predictions=None)
    assert case.judge(case.claim, found).outcome is Outcome.NOT_RUN


def kinds(*expected: type[Expect]) -> pytest.MarkDecorator:
    """The cases of these kinds."""
    return pytest.mark.parametrize("case", [c for c in EVERY if isinstance(c.values[0].expect, expected)])


def compares_accuracies(expect: Expect) -> bool:
    """Which have a ceiling; a measure of a model has none."""
    if isinstance(expect, OrderingExpect):
        return any(isinstance(c, Comparison) and c.metric == "top1" for c in expect.all)
    return isinstance(expect, TrendExpect | EquivalenceExpect)


@kinds(ValueExpect, OrderingExpect, TrendExpect, EquivalenceExpect)
def test_part_of_the_test_set_does_not_decide_it(case: Case):
    found = trained_at(case, accuracies(case), complete_n=case.n + 1)
    assert case.judge(case.claim, found).outcome is Outcome.INCONCLUSIVE


@kinds(OrderingExpect, TrendExpect, EquivalenceExpect)
def test_models_that_all_guess_do_not_pass_it(case: Case):
    found = trained_at(case, dict.fromkeys(accuracies(case), 100 / case.num_classes))
    assert case.judge(case.claim, found).outcome is not Outcome.PASS


@pytest.mark.parametrize("case", [c for c in EVERY if compares_accuracies(c.values[0].expect)])
def test_models_that_all_make_no_error_do_not_pass_it(case: Case):
    found = trained_at(case, dict.fromkeys(accuracies(case), 99.9))
    assert case.judge(case.claim, found).outcome is not Outcome.PASS
