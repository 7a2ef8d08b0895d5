"""What several comparisons come to together, and runs that cannot be what they say."""

from __future__ import annotations

import dataclasses

import pytest
from verdict_cases import claim, judged, ordering, right, runs, value

from vitrepro.judge import rules
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import Outcome
from vitrepro.report import words
from vitrepro.spec import OrderingExpect

FAIL, INCONCLUSIVE = Outcome.FAIL, Outcome.INCONCLUSIVE
HIGH, LOW = right([80, 81, 82], who=1), right([70, 71, 72], who=2)
APART = {"a": HIGH, "b": LOW}


def test_one_of_many_comparisons_that_fails_alone_refutes_nothing_and_has_the_p_value_that_says_so():
    """Six orders of four equal arms: that one of six fails at 5% happens in one of seven trials."""
    percents = {"a": 80.0, "b": 80.6, "c": 80.6, "d": 81.3}
    arms = {name: right([p], 2000, who) for who, (name, p) in enumerate(percents.items())}
    pairs = [{"greater": a, "than": b} for a, b in ("ab", "ac", "ad", "bc", "bd", "cd")]
    alone = judged(claim("ordering", {"all": pairs[2:3]}), arms)
    verdict = judged(claim("ordering", {"all": pairs}), arms)
    assert alone.outcome is FAIL
    assert 0.01 < (alone.p_against or 0) < 0.05
    assert verdict.outcome is INCONCLUSIVE
    assert (verdict.p_against or 0) >= 0.05
    assert "among so many that decides nothing" in words.reason(verdict)


def test_a_clear_failure_among_many_refutes_the_claim():
    arms = {name: right([p], 2000, who) for who, (name, p) in enumerate(zip("abcd", (80.0, 80, 80, 85), strict=True))}
    pairs = [{"greater": a, "than": b} for a, b in ("ab", "ac", "ad", "bc", "bd", "cd")]
    verdict = judged(claim("ordering", {"all": pairs}), arms)
    assert verdict.outcome is FAIL
    assert (verdict.p_against or 1) < 0.05


def test_a_comparison_that_a_rule_keeps_from_deciding_lends_its_p_value_to_no_failure():
    arms = {
        "a": right([99.6], 2000, 1),
        "b": right([50], 2000, 2),
        "c": right([98], 2000, 3),
        "d": right([99], 2000, 4),
    }
    capped = {"greater": "a", "than": "b", "by": 60.0}  # a has too little room to 100%
    lone = judged(claim("ordering", {"all": [capped]}), arms)
    assert lone.outcome is INCONCLUSIVE
    both = judged(claim("ordering", {"all": [capped, {"greater": "c", "than": "d"}]}), arms)
    own = judged(claim("ordering", {"all": [{"greater": "c", "than": "d"}]}), arms)
    assert both.p_against == pytest.approx(min(1.0, 2 * (own.p_against or 1.0)))


def test_a_finding_without_chance_beside_others_leaves_them_their_p_value():
    """A released model evaluated again beside one that was trained."""
    checks = {
        "again": {"arm": "again", "margin": 0.5, "same_weights": True},
        "trained": {"arm": "trained", "margin": 2.0},
    }
    both = claim("value", {"cells": checks}, {"again": 90.0, "trained": 80.0})
    alone = claim("value", {"cells": {"trained": checks["trained"]}}, {"trained": 80.0})
    arms = {"again": right([90.0], 10_000, 1), "trained": right([80.0], 10_000, 2)}
    passed = judged(both, arms)
    own = judged(alone, {"trained": arms["trained"]})
    assert passed.outcome is Outcome.PASS
    assert (passed.p, passed.p_against) == (own.p, own.p_against)
    missed = judged(both, {**arms, "again": right([88.0], 10_000, 1)})
    assert missed.outcome is FAIL
    assert (missed.p, missed.p_against) == (1.0, 0.0)


def test_a_run_named_twice_is_an_error():
    measured = runs(APART)
    twice = [*measured, measured[0]]
    assert judged(ordering(), twice).outcome is Outcome.ERROR
    assert "is named twice" in words.reason(judged(ordering(), twice))


def test_more_seeds_than_registered_are_named():
    more = {"a": right([80, 81, 82, 80.5], who=1), "b": right([70, 71, 72, 70.5], who=2)}
    assert "4 seeds, 3 registered" in words.qualifiers(judged(ordering(), runs(more)))


def test_a_record_of_another_number_of_classes_than_its_data_or_predictions_is_an_error():
    measured = runs(APART, num_classes=4)
    lying = [dataclasses.replace(m, predictions=p.predictions) for m, p in zip(measured, runs(APART), strict=True)]
    assert "the record says 4 classes, its predictions have class 9" in words.reason(judged(ordering(), lying))
    known = []
    for m in runs(APART):
        assert m.record is not None
        known.append(
            dataclasses.replace(m, record=m.record.model_copy(update={"config": {"data": {"name": "cifar100"}}}))
        )
    assert "the record says 10 classes, its data has 100" in words.reason(judged(ordering(), known))


def test_a_printed_deviation_of_nothing_counts_for_half_its_last_digit():
    printed = [
        judged(value(80.0, 2.0, sd=sd, printed_runs=3, decimals=2), {"ours": right([80, 80.2, 79.8], 10_000)})
        for sd in (0.0, 0.005)
    ]
    assert printed[0].findings[0].deciding == printed[1].findings[0].deciding


def test_seeds_that_all_agree_on_a_measure_have_no_interval():
    expect = OrderingExpect.model_validate({"all": [{"arm": "a", "metric": "attention_low_max", "above": 0.3}]})
    arm = dataclasses.replace(
        Arm.of(HIGH, num_classes=10, regime="fine-tuned"), measures={"attention_low_max": [1.0, 1.0, 1.0]}
    )
    (only,) = rules.findings(expect, {}, {"a": arm})
    assert only.outcome is INCONCLUSIVE
    assert "Seeds that all agree have no interval" in words.decides(only)
