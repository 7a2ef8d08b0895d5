"""Runs that failed: named first, never averaged in silence; what their experiment declares; claims about failure."""

from __future__ import annotations

from typing import Any

import pytest
from fake_store import Lab, N, claim, position_embeddings

from vitrepro.claims import load
from vitrepro.judge.finding import Outcome
from vitrepro.judge.verdict import Verdict, judge
from vitrepro.record import Measured
from vitrepro.report import words
from vitrepro.spec import Edge

ID = "vit/failure"
GOOD = [740, 745, 738]


def judged(
    lab: Lab, expect: dict[str, Any], kind: str = "ordering", failed_if: Edge | None = None, **arms: list[int]
) -> Verdict:
    """The verdict on made-up runs with these numbers of correct images of each arm."""
    lab.say(claim(ID, kind, expect, reported={"unit": "% top-1", "cells": {"ours": 92.5, "guess": 10.0}}))
    plan = lab.plan(ID, seeds=len(next(iter(arms.values()))))
    measured = []
    for run in plan.runs:
        lab.finish(run, arms[run.arm.replace("-", "_")][run.seed])
        measured.append(lab.store.measured(lab_ref(run)))
    return judge(plan.claim, "cpu", measured, registered_seeds=3, failed_if=failed_if)


def lab_ref(run: Any) -> Any:
    from vitrepro.store import RunRef

    return RunRef(run_id=run.id, arm=run.arm, seed=run.seed)


ABOVE = {"all": [{"greater": "learned-1d", "than": "none", "by": 1.0}]}


def test_an_arm_of_which_one_run_failed_decides_nothing_however_many_seeds(lab: Lab) -> None:
    ten = [640 + i for i in range(10)]
    verdict = judged(lab, ABOVE, none=ten, learned_1d=[*(740 + i for i in range(9)), 80])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    first = "1 of 10 runs of learned-1d failed (seed 9: 10.04%), and a verdict is about training that works."
    assert words.reason(verdict).startswith(first)
    assert "1 of 10 runs failed: learned-1d" in words.qualifiers(verdict)


def test_a_run_far_below_its_arm_failed_though_it_is_above_chance(lab: Lab) -> None:
    verdict = judged(lab, ABOVE, none=[640, 650, 645], learned_1d=[740, 745, 600])
    assert words.reason(verdict).startswith("1 of 3 runs of learned-1d failed (seed 2: 75.28%)")
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_an_arm_of_which_every_run_failed_refutes_a_value_and_no_ordering(lab: Lab) -> None:
    guesses = {"none": [640, 650, 645], "learned_1d": [80, 81, 79]}
    assert judged(lab, ABOVE, **guesses).outcome is Outcome.INCONCLUSIVE
    cells = {"cells": {"ours": {"arm": "learned-1d", "margin": 2.0}}}
    assert judged(lab, cells, "value", learned_1d=[80, 81, 79]).outcome is Outcome.FAIL


@pytest.mark.parametrize(("failing", "outcome"), [(9, Outcome.PASS), (5, Outcome.INCONCLUSIVE), (0, Outcome.FAIL)])
def test_an_expectation_about_failure_counts_runs_with_an_exact_interval(
    lab: Lab, failing: int, outcome: Outcome
) -> None:
    """Nine of nine: 66 to 100%; five of nine: 21 to 86%; none: 0 to 34% (Clopper and Pearson)."""
    runs = [70 + i for i in range(failing)] + [740 + i for i in range(9 - failing)]
    bound = {"all": [{"arm": "none", "metric": "failed_runs", "above": 50.0}]}
    verdict = judged(lab, bound, none=runs)
    assert verdict.outcome is outcome
    (f,) = verdict.findings
    assert f.deciding is not None
    ends = {9: (66.37, 100.0), 5: (21.20, 86.30), 0: (0.0, 33.63)}[failing]
    assert (f.deciding.low, f.deciding.high) == pytest.approx(ends, abs=0.01)


def test_a_value_reported_at_chance_counts_runs_at_chance(lab: Lab) -> None:
    cells = {"cells": {"guess": {"arm": "none", "margin": 2.0}}}
    verdict = judged(lab, cells, "value", none=[75 + i for i in range(9)])
    assert (verdict.outcome, verdict.findings[0].label) == (Outcome.PASS, "guess at chance")
    verdict = judged(lab, cells, "value", none=[740 + i for i in range(9)])
    assert verdict.outcome is Outcome.FAIL


def test_an_experiment_declares_what_a_failed_run_is(lab: Lab) -> None:
    """Where a metric has no counts, nothing else tells a failed run."""
    high = Edge(metric="train_loss_epoch_1", above=2.0)
    assert high.holds(2.1)
    assert not high.holds(2.0)
    assert not high.holds(float("nan"))
    lab.design(position_embeddings(failed_if={"metric": "train_loss_epoch_1", "above": 2.0}))
    assert lab.experiments["position-embeddings"].failed_if == high
    assert lab.plan("vit/t8-none-worse").failed_if == high


def test_a_declared_failure_keeps_its_arm_from_deciding(lab: Lab) -> None:
    lab.say(claim(ID, "ordering", ABOVE, reported={"unit": "% top-1", "cells": {"ours": 92.5}}))
    plan = lab.plan(ID)
    measured: list[Measured] = []
    for run in plan.runs:
        lab.finish(run, {"none": [640, 650, 645], "learned-1d": GOOD}[run.arm][run.seed])
        m = lab.store.measured(lab_ref(run))
        assert m.record is not None
        loss = 2.5 if (run.arm, run.seed) == ("learned-1d", 1) else 0.5
        result = m.record.result.model_copy(update={"measures": {"confidence": loss}})
        record = m.record.model_copy(update={"result": result})
        measured.append(Measured(m.run_id, m.arm, m.seed, record, m.predictions))
    clear = judge(plan.claim, "cpu", measured, registered_seeds=3)
    assert clear.outcome is Outcome.PASS
    declared = judge(plan.claim, "cpu", measured, registered_seeds=3, failed_if=Edge(metric="confidence", above=2.0))
    assert declared.outcome is Outcome.INCONCLUSIVE
    assert words.reason(declared).startswith(f"1 of 3 runs of learned-1d failed (seed 1: {100 * 745 / N:.2f}%)")


def test_a_metric_that_is_not_measured_cannot_declare_a_failure(tiny_claims: Any) -> None:
    file = next(p for p in tiny_claims.rglob("*.yaml") if "\nid: tiny\n" in f"\n{p.read_text()}")
    file.write_text(file.read_text() + "failed_if: {metric: confidence, above: 99}\n")
    problems = load([tiny_claims]).problems
    assert any("failed_if.metric: arm" in p and "does not measure confidence" in p for p in problems), problems
