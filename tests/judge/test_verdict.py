from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from verdict_cases import (
    CLASSES,
    claim,
    counted,
    equivalence,
    evaluated,
    gain,
    increasing,
    judged,
    ordering,
    planned,
    right,
    runs,
    trained,
    value,
)

from vitrepro import literal
from vitrepro.arrays import Bools
from vitrepro.claims import find_cell
from vitrepro.forecast.outlook import cannot_pass
from vitrepro.judge import rules, stats
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import Finding, Outcome, combine
from vitrepro.judge.printed import judge_literal
from vitrepro.judge.verdict import Verdict, infeasible, judge
from vitrepro.record import AnalyticResult, Deviation, EpochPoint, Measured, Predictions, TrainResult
from vitrepro.report import words
from vitrepro.spec import Cell, Claim, LiteralExpect, OrderingExpect, ValueCheck

PASS, FAIL, EXCEEDS, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.EXCEEDS, Outcome.INCONCLUSIVE
FEWER_STEPS = Deviation(path="train.steps", used="100", registered="1000")
OTHER_RATE = Deviation(path="train.lr", used="0.1", registered="0.001")

HIGH, LOW = right([80, 81, 82], who=1), right([70, 71, 72], who=2)
APART = {"a": HIGH, "b": LOW}
ALIKE = {"a": right([80, 81, 80.5], who=1), "b": right([80.5, 80.2, 80.8], who=2)}


def ours(*percents: float, n: int = 10_000) -> dict[str, Bools]:
    """One arm, `ours`, with these accuracies."""
    return {"ours": right(percents, n)}


def finding(verdict: Verdict) -> Finding:
    (only,) = verdict.findings
    return only


def edited(measured: list[Measured], index: int, **change: Any) -> list[Measured]:
    return [dataclasses.replace(m, **change) if i == index else m for i, m in enumerate(measured)]


# --- what must be there before anything is decided ----------------------------------------------


def test_a_failed_run_is_an_error_that_names_it():
    measured = edited(runs(APART), 4, record=None, predictions=None, error="loss is not finite at step 12")
    verdict = judged(ordering(), measured)
    assert verdict.outcome is Outcome.ERROR
    assert words.reason(verdict) == "1 of 6 runs failed; b seed 1: loss is not finite at step 12"
    assert verdict.findings == ()


def test_a_failed_run_comes_before_a_missing_one():
    measured = edited(edited(runs(APART), 0, record=None), 5, record=None, error="out of memory")
    assert judged(ordering(), measured).outcome is Outcome.ERROR


def test_a_missing_run_is_not_run_with_counts():
    measured = edited(edited(runs(APART), 0, record=None), 5, record=None)
    verdict = judged(ordering(), measured)
    assert (verdict.outcome, words.reason(verdict)) == (Outcome.NOT_RUN, "4 of 6 runs are stored")
    assert words.support(verdict) == "undecided"
    assert verdict.findings == ()


def test_no_run_at_all_is_not_run():
    assert judged(ordering(), []).outcome is Outcome.NOT_RUN


def test_an_arm_without_planned_runs_is_not_run():
    verdict = judged(ordering(), {"a": HIGH})
    assert verdict.outcome is Outcome.NOT_RUN
    assert "none was planned of b" in words.reason(verdict)


def test_the_reason_of_an_infeasible_claim_is_kept():
    verdict = infeasible(ordering(), "paper: JFT-300M is private")
    assert (verdict.outcome, words.reason(verdict)) == (Outcome.INFEASIBLE, "paper: JFT-300M is private")
    assert words.support(verdict) == "undecided"


def error(measured: list[Measured]) -> str:
    verdict = judged(ordering(), measured)
    assert verdict.outcome is Outcome.ERROR
    assert verdict.findings == ()
    return words.reason(verdict)


def test_missing_predictions_are_an_error():
    assert "a seed 0" in error(edited(runs(APART), 0, predictions=None))


def with_predictions(measured: list[Measured], index: int, change: Any) -> list[Measured]:
    """One run's arrays changed by a function of one array."""
    old = measured[index].predictions
    assert old is not None
    new = Predictions(change(old.ids), change(old.predicted), change(old.labels))
    return edited(measured, index, predictions=new)


def test_predictions_for_part_of_the_counted_images_are_an_error():
    reason = error(with_predictions(runs(APART), 3, lambda x: x[:-1]))
    assert "b seed 0" in reason
    assert "999 different images stored of 1000" in reason


def test_an_image_counted_twice_is_an_error():
    reason = error(with_predictions(runs(APART), 1, lambda x: np.concatenate([x[:-1], x[:1]])))
    assert "999 different images stored of 1000" in reason


def test_a_count_that_the_predictions_do_not_bear_out_is_an_error():
    assert "counts 900 correct, its predictions 800" in error(runs(APART, correct=900))


@pytest.mark.parametrize(
    "other",
    [
        {"test_sha256": "other pixels"},
        {"ids_sha256": "other ids"},
        {"ids": np.arange(1, 1001)},
        {"labels": (np.arange(1000) + 1) % CLASSES},
    ],
    ids=lambda o: next(iter(o)),
)
def test_arms_on_different_images_are_an_error(other: dict[str, Any]):
    measured = trained("a", HIGH) + trained("b", LOW, **other)
    assert "different images" in error(measured)


def test_arms_trained_on_two_kinds_of_data_under_one_name_are_an_error():
    assert "different data under one name" in error(trained("a", HIGH) + trained("b", LOW, data_sha256="other"))


def test_arms_on_different_numbers_of_images_are_an_error():
    assert "different images" in error(runs({"a": HIGH, "b": right([70] * 3, n=500)}))


def test_the_order_in_which_images_were_stored_does_not_matter():
    shuffled = np.random.default_rng(0).permutation(1000)
    measured = with_predictions(runs(APART), 0, lambda x: x[shuffled])
    assert judged(ordering(), measured).findings == judged(ordering(), APART).findings


# --- partial test sets and changed settings -----------------------------------------------------

DECIDED: list[tuple[Claim, Mapping[str, Bools], Outcome]] = [
    (ordering(), APART, PASS),
    (ordering(), {"a": LOW, "b": HIGH}, FAIL),
    (equivalence(4.0), ALIKE, PASS),
    (equivalence(4.0), APART, FAIL),
    (value(80.0, 5.0), ours(80, 80.2, 80.1), PASS),
    (value(60.0, 5.0), ours(80, 80.2, 80.1), EXCEEDS),
    (value(90.0, 5.0, "at_least"), ours(80, 80.2, 80.1), FAIL),
    (value(70.0, 5.0, "at_least"), ours(80, 80.2, 80.1), PASS),
]


@pytest.mark.parametrize(("claim", "arms", "outcome"), DECIDED)
def test_part_of_the_test_set_decides_nothing(claim: Claim, arms: Mapping[str, Bools], outcome: Outcome):
    n = next(iter(arms.values())).shape[1]
    assert judged(claim, arms).outcome is outcome
    verdict = judged(claim, arms, complete_n=n + 1)
    assert verdict.outcome is INCONCLUSIVE
    assert f"partial test set: {n} of {n + 1}" in words.qualifiers(verdict)
    assert f"it would have been {outcome.value}" in words.reason(verdict)
    assert judged(claim, arms, complete_n=n + 1, deviations=[FEWER_STEPS]).outcome is INCONCLUSIVE


def test_one_arm_on_part_of_the_test_set_is_enough_to_decide_nothing():
    measured = trained("a", HIGH) + trained("b", LOW, complete_n=2000)
    assert judged(ordering(), measured).outcome is INCONCLUSIVE


@pytest.mark.parametrize("percent", [0, 10, 50, 100])
def test_a_smoke_run_of_32_images_passes_nothing(percent: float):
    arms = {"a": right([100], 32), "b": right([percent], 32, who=1)}
    for by in (0.0, 1.0):
        assert judged(ordering(by), arms, complete_n=10_000).outcome is INCONCLUSIVE
    assert judged(value(percent, 5), {"ours": arms["b"]}, complete_n=10_000).outcome is INCONCLUSIVE


@pytest.mark.parametrize("deviation", [FEWER_STEPS, OTHER_RATE])
@pytest.mark.parametrize(("claim", "arms", "outcome"), DECIDED)
def test_a_setting_changed_by_hand_decides_nothing(
    claim: Claim, arms: Mapping[str, Bools], outcome: Outcome, deviation: Deviation
):
    verdict = judged(claim, arms, [deviation])
    assert verdict.outcome is INCONCLUSIVE
    assert f"it would have been {outcome.value}" in words.reason(verdict)
    assert f"deviates: {deviation}" in words.qualifiers(verdict)


def test_qualifiers_stand_beside_the_outcome_each_by_itself():
    verdict = judged(ordering(), {"a": HIGH[:1], "b": LOW[:1]}, [OTHER_RATE], complete_n=1200)
    assert words.qualifiers(verdict) == (
        "1 seed",
        "partial test set: 1000 of 1200",
        "deviates: train.lr 0.1, registered 0.001",
    )
    assert verdict.outcome is INCONCLUSIVE


# --- seeds --------------------------------------------------------------------------------------


def qualifiers(arms: Mapping[str, Bools], registered: int) -> tuple[str, ...]:
    return words.qualifiers(judge(ordering(), "gpu", runs(arms), registered_seeds=registered))


def test_fewer_than_three_seeds_and_fewer_than_registered_are_labelled():
    def first(k: int) -> dict[str, Bools]:
        return {arm: rows[:k] for arm, rows in APART.items()}

    assert qualifiers(first(1), 1) == ("1 seed",)
    assert qualifiers(first(2), 2) == ("2 seeds",)
    assert qualifiers(first(3), 3) == ()
    assert qualifiers(first(1), 3) == ("1 of 3 seeds",)
    assert qualifiers(first(3), 5) == ("3 of 5 seeds",)


def test_a_single_seed_ordering_passes_with_its_label():
    verdict = judged(ordering(), {"a": HIGH[:1], "b": LOW[:1]})
    assert (verdict.outcome, verdict.seeds) == (PASS, 1)
    assert "1 seed" in words.qualifiers(verdict)
    assert "these trained models" in words.reason(verdict)
    (f,) = verdict.findings
    assert f.mcnemar is not None
    assert f"exact McNemar p = {f.mcnemar:.2g}" in str(words.strength(f))


def test_fewer_seeds_than_registered_decide_nothing():
    arms = {"a": HIGH[:1], "b": LOW[:1]}
    verdict = judge(ordering(), "gpu", runs(arms), registered_seeds=3)
    assert verdict.outcome is INCONCLUSIVE
    assert "fewer seeds than registered decide nothing; it would have been PASS" in words.reason(verdict)
    assert words.qualifiers(verdict) == ("1 of 3 seeds",)


def test_the_arm_with_the_fewest_seeds_is_counted():
    verdict = judged(ordering(), {"a": HIGH, "b": LOW[:1]})
    assert verdict.seeds == 1
    assert "1 of 3 seeds" in words.qualifiers(verdict)


def test_a_run_stored_again_under_another_seed_is_an_error():
    measured = trained("a", HIGH[[0, 0, 1]], weights_sha256="the same") + trained("b", LOW)
    reason = words.reason(judged(ordering(), measured))
    assert "a seed 0" in reason
    assert "a seed 1" in reason
    assert "one run, not two" in reason


def test_two_arms_that_are_one_run_are_an_error():
    same = right([80])
    for asked in (equivalence(), ordering()):
        assert judged(asked, {"a": same, "b": same}, weights_sha256="the same").outcome is Outcome.ERROR


def test_seeds_that_agree_on_every_image_count_once():
    thrice = {"ours": right([90])[[0, 0, 0]]}
    verdict = judged(value(90.0, 1.0), thrice)
    assert verdict.seeds == 1
    assert words.qualifiers(verdict) == ("1 of 3 seeds", "seeds that agree on every image count once: ours")
    alone = judged(value(90.0, 1.0), {"ours": right([90])})
    assert finding(verdict) == finding(alone)
    assert verdict.outcome is alone.outcome is INCONCLUSIVE


def test_an_arm_whose_seeds_agree_does_not_hide_the_noise_of_the_other():
    """100% three times against 60, 90 and 99%: the mean gap of 17 points is less than its own uncertainty."""
    verdict = judged(ordering(), {"a": right([100, 100, 100]), "b": right([60, 90, 99], who=1)})
    assert verdict.outcome is INCONCLUSIVE
    assert "seeds and images" in words.reason(verdict)
    noise = scipy.stats.t.interval(0.95, 2, 17, np.std([60, 90, 99], ddof=1) / np.sqrt(3))
    i = finding(verdict).interval
    assert i is not None
    assert (i.low, i.high) == pytest.approx(noise, rel=0.02)


# --- chance and the ceiling ---------------------------------------------------------------------


def test_a_winner_at_chance_passes_no_ordering():
    arms = {"a": right([10.2, 10.5, 10.9], 10_000), "b": right([2, 2.1, 2.2], 10_000)}
    verdict = judged(ordering(), arms)
    assert verdict.outcome is INCONCLUSIVE
    assert "2 of 3 runs of a failed (seed 0: 10.20%, seed 1: 10.50%)" in words.reason(verdict)
    learned = {"a": right([15, 15.1, 14.9], 10_000), "b": right([11, 11.1, 11.2], 10_000, who=1)}
    assert judged(ordering(), learned).outcome is PASS


def test_a_winner_with_one_collapsed_seed_passes_no_ordering():
    arms = {"a": right([95, 94, 10]), "b": right([1, 1.1, 1.2], who=1)}
    assert judged(ordering(), arms).outcome is INCONCLUSIVE


@pytest.mark.parametrize("percents", [(10, 10.1, 9.9), (14, 9.9, 10)])
def test_a_winner_whose_training_failed_refutes_no_ordering(percents: tuple[float, ...]):
    """It tells of how it was trained, not of which model is better."""
    verdict = judged(ordering(), {"a": right(percents), "b": HIGH})
    assert verdict.outcome is INCONCLUSIVE
    several = "a is not above chance" if max(percents) < 13 else "2 of 3 runs of a failed"
    assert several in words.reason(verdict)
    assert "so INCONCLUSIVE instead of FAIL" in words.reason(verdict)
    assert judged(ordering(), {"a": right([14, 14.1, 13.9]), "b": HIGH}).outcome is FAIL


def test_an_arm_that_gains_nothing_for_its_training_failed_refutes_no_gain():
    arms = {"vit-1": right([10] * 3, who=1), "vit-2": right([10.1] * 3, who=2)}
    arms |= {"resnet-1": right([50] * 3, who=3), "resnet-2": right([80] * 3, who=4)}
    verdict = judged(gain(), arms)
    assert verdict.outcome is INCONCLUSIVE
    assert "vit-2 is not above chance, so INCONCLUSIVE instead of FAIL" in words.reason(verdict)


def test_a_rival_that_did_not_train_brings_no_pass():
    verdict = judged(ordering(), {"a": HIGH, "b": right([10, 10.1, 10.2])})
    assert verdict.outcome is INCONCLUSIVE
    assert "b is not above chance, so INCONCLUSIVE instead of PASS" in words.reason(verdict)
    assert words.qualifiers(verdict) == ("not above chance: b",)


def provided(*conditions: Mapping[str, Any]) -> Claim:
    """That a is above b, if the conditions hold."""
    return claim("ordering", {"all": [{"greater": "a", "than": "b"}], "given": conditions})


def test_an_ordering_decides_nothing_while_a_condition_of_its_test_is_not_met():
    """Not shown is as good as not met; met, the condition changes nothing."""
    arms = APART | {"none": right([60, 60.5, 61], who=3)}
    asked = {"greater": "b", "than": "none"}
    for by, outcome in ((1.0, PASS), (10.5, INCONCLUSIVE), (30.0, INCONCLUSIVE)):
        assert judged(provided(asked | {"by": by}), arms).outcome is outcome
    verdict = judged(provided(asked | {"by": 30.0}), arms)
    assert words.reason(verdict).startswith("the test tells something only if b - none holds; b - none: +10.5")
    assert "it would have been PASS" in words.reason(verdict)
    assert words.qualifiers(verdict)[-1] == "condition not met: b - none"
    assert not verdict.could(PASS)


@pytest.mark.parametrize(("least", "outcome"), [(90.0, PASS), (100.0, INCONCLUSIVE)])
def test_a_condition_on_a_measure_holds_where_every_run_is_on_its_side(least: float, outcome: Outcome):
    """Three runs that all fit their training images have no interval, and fit them all the same."""
    fits = {"measures": {"train_top1": 100.0}}
    arms = [m for who, name in enumerate("ab") for m in trained(name, APART[name], **fits)]
    bound = {"arm": "a", "metric": "train_top1", "above": least}
    assert judged(provided(bound), arms).outcome is outcome


@pytest.mark.parametrize(("least", "outcome"), [(69.0, PASS), (70.5, INCONCLUSIVE)])
def test_a_rival_must_come_near_its_published_number_in_every_run(least: float, outcome: Outcome):
    """The rival b has 70, 71 and 72%."""
    verdict = judged(provided({"arm": "b", "metric": "top1", "above": least}), APART)
    assert verdict.outcome is outcome
    assert ("condition not met: b top1" in words.qualifiers(verdict)) == (outcome is not PASS)


def test_a_condition_on_a_measure_that_no_run_has_is_not_run():
    verdict = judged(provided({"arm": "a", "metric": "selection_gain", "above": 0.5}), APART)
    assert verdict.outcome is Outcome.NOT_RUN


def test_arms_at_chance_are_not_equivalent():
    verdict = judged(equivalence(3.0), {"a": right([10, 10.1, 10.2]), "b": right([10, 10.1, 10.2], who=1)})
    assert verdict.outcome is INCONCLUSIVE
    assert "not above chance" in words.reason(verdict)


def test_an_arm_just_not_above_chance_is_not_equivalent_to_one_just_above():
    """1,045 of 10,000 images is p = 0.07, 1,055 is p = 0.03; the margin is far below half the distance to chance."""
    image = np.arange(10_000)[None]
    verdict = judged(equivalence(0.2), {"a": image < 1055, "b": image < 1045})
    assert verdict.outcome is INCONCLUSIVE
    assert "an arm is not above chance" in words.reason(verdict)


def test_always_naming_the_commonest_class_is_not_learning():
    labels = np.where(np.arange(1000) < 300, 0, np.arange(1000) % CLASSES)
    share = float((labels == 0).mean())
    rows = np.stack([labels == 0, labels == 0])
    measured = trained("a", rows[:1], labels=labels) + trained("b", rows[:1], labels=labels)
    verdict = judged(equivalence(3.0), measured)
    assert share > 0.3
    assert verdict.outcome is INCONCLUSIVE
    assert words.qualifiers(verdict)[-1] == "not above chance: a, b"


def test_a_margin_that_reaches_half_way_to_chance_shows_no_equivalence():
    barely = {"a": right([14, 14.1, 14.2], 10_000), "b": right([14, 14.1, 14.2], 10_000, who=1)}
    verdict = judged(equivalence(2.5), barely)
    assert verdict.outcome is INCONCLUSIVE
    assert "half the distance to chance" in words.reason(verdict)
    assert judged(equivalence(1.5), barely).outcome is PASS


def test_arms_without_an_error_are_not_equivalent():
    verdict = judged(equivalence(2.0), {"a": right([100] * 3), "b": right([100] * 3)})
    assert verdict.outcome is INCONCLUSIVE
    assert "without a single error" in words.reason(verdict)


def test_a_margin_as_wide_as_the_error_rate_shows_no_equivalence():
    nearly = {"a": right([99, 99.1, 99.2], 10_000), "b": right([99.1, 99, 99.2], 10_000, who=1)}
    assert judged(equivalence(1.0), nearly).outcome is INCONCLUSIVE
    assert judged(equivalence(0.5), nearly).outcome is PASS


def test_the_worse_of_two_arms_tells_whether_their_equality_shows_anything():
    """Near chance it could be a guess; with more errors than the margin it could not be a model without one."""
    guess = {"a": right([14, 14.1, 14.2], 10_000), "b": right([15.5, 15.4, 15.6], 10_000, who=1)}
    assert "half the distance to chance" in words.reason(judged(equivalence(2.5), guess))
    errs = {"a": right([98.3, 98.2, 98.4], 10_000), "b": right([99.4, 99.3, 99.5], 10_000, who=1)}
    assert judged(equivalence(1.5), errs).outcome is PASS


def test_models_that_err_on_the_same_images_are_not_equivalent_but_one():
    same = right([80])
    verdict = judged(equivalence(), {"a": same, "b": same})
    assert verdict.outcome is INCONCLUSIVE
    assert "exactly the same images" in words.reason(verdict)


def test_a_gain_that_the_rival_had_no_room_for_shows_no_larger_gain():
    """From 88% a rival cannot gain 30 points, however good it gets."""
    arms = {"vit-1": right([50] * 3, who=1), "vit-2": right([80] * 3, who=2)}
    full = arms | {"resnet-1": right([88] * 3, who=3), "resnet-2": right([97] * 3, who=4)}
    verdict = judged(gain(), full)
    assert verdict.outcome is INCONCLUSIVE
    assert "resnet-2 has 3.00 points left to 100%" in words.reason(verdict)
    room = arms | {"resnet-1": right([60] * 3, who=3), "resnet-2": right([69] * 3, who=4)}
    assert judged(gain(), room).outcome is PASS


def test_a_gain_there_was_no_room_for_is_not_refuted():
    """From 97% no model gains ten points more than one that gains 20 from 40%."""
    arms = {"vit-1": right([97] * 3, who=1), "vit-2": right([99] * 3, who=2)}
    arms |= {"resnet-1": right([40] * 3, who=3), "resnet-2": right([60] * 3, who=4)}
    verdict = judged(gain(), arms)
    assert verdict.outcome is INCONCLUSIVE
    assert "vit-2 has 1.00 points left to 100%" in words.reason(verdict)


def test_an_order_asked_for_beyond_100_percent_is_not_refuted():
    arms = {"a": right([99.7] * 3, 10_000, who=1), "b": right([99.6] * 3, 10_000, who=2)}
    assert judged(ordering(by=1.0), arms).outcome is INCONCLUSIVE


def test_a_reversed_order_is_refuted_near_100_percent_too():
    arms = {"a": right([90] * 3, 10_000, who=1), "b": right([99.6] * 3, 10_000, who=2)}
    assert judged(ordering(by=1.0), arms).outcome is FAIL


def test_a_rival_that_learned_nothing_shows_no_larger_gain():
    arms = {"vit-1": right([50] * 3, who=1), "vit-2": right([80] * 3, who=2)}
    arms |= {"resnet-1": right([10] * 3, who=3), "resnet-2": right([10] * 3, who=4)}
    verdict = judged(gain(), arms)
    assert verdict.outcome is INCONCLUSIVE
    assert "resnet-2 is not above chance" in words.reason(verdict)


def test_equal_saturated_arms_are_not_ordered():
    perfect = {"a": right([100] * 3), "b": right([100] * 3)}
    assert judged(ordering(), perfect).outcome is INCONCLUSIVE
    assert judged(ordering(by=1.0), perfect).outcome is INCONCLUSIVE


# --- each kind of claim -------------------------------------------------------------------------

RE_VIT = [  # (data set, images right, n, reported, sd, {margin: outcome})
    ("cifar10", 9_905, 10_000, 99.15, 0.03, {0.5: PASS}),
    ("cifar100", 9_321, 10_000, 93.25, 0.05, {1.0: PASS, 0.5: PASS}),
    ("imagenet", 42_481, 50_000, 85.30, 0.02, {0.5: INCONCLUSIVE}),
    ("pets", 3_420, 3_669, 94.67, 0.15, {1.0: INCONCLUSIVE, 0.5: FAIL}),
    ("flowers", 6_068, 6_149, 99.61, 0.02, {0.5: FAIL}),
]


@pytest.mark.parametrize(("name", "correct", "n", "reported", "sd", "expected"), RE_VIT, ids=[r[0] for r in RE_VIT])
def test_the_re_vit_reproduction_gets_four_different_honest_answers(
    name: str, correct: int, n: int, reported: float, sd: float, expected: dict[float, Outcome]
):
    row = np.arange(n)[None] < correct
    for margin, outcome in expected.items():
        verdict = judged(value(reported, margin, sd=sd, printed_runs=3), {"ours": row})
        assert verdict.outcome is outcome, (name, margin)
        assert words.qualifiers(verdict) == ("1 seed",)


def test_a_value_is_equal_below_above_or_undecided():
    for reported, outcome in ((80, PASS), (84, FAIL), (76, EXCEEDS), (82, INCONCLUSIVE), (78, INCONCLUSIVE)):
        assert judged(value(reported, 2.0), ours(80, 80.2, 79.8)).outcome is outcome


def test_at_least_is_met_by_any_higher_accuracy():
    for reported, outcome in ((80, PASS), (60, PASS), (84, FAIL), (82, INCONCLUSIVE)):
        assert judged(value(reported, 2.0, "at_least"), ours(80, 80.2, 79.8)).outcome is outcome


def test_a_value_at_chance_does_not_pass():
    verdict = judged(value(10.5, 3.0), ours(10, 10.1, 10.2, n=1000))
    assert verdict.outcome is INCONCLUSIVE
    assert "not above chance" in words.reason(verdict)


def test_two_seeds_far_apart_do_not_pass_by_their_mean():
    assert judged(value(82.5, 2.0), ours(70, 95)).outcome is INCONCLUSIVE


def test_one_seed_on_few_images_does_not_pass():
    assert judged(value(90.0, 2.0), ours(90, n=100)).outcome is INCONCLUSIVE


def test_a_tiny_printed_spread_does_not_make_up_for_our_own():
    verdict = judged(value(90.0, 0.5, sd=0.0001, printed_runs=100), ours(90, n=1000))
    assert verdict.outcome is INCONCLUSIVE


def test_a_huge_printed_spread_passes_nothing():
    assert judged(value(90.0, 2.0, sd=5.0), ours(90, 90.1, 89.9)).outcome is INCONCLUSIVE


def test_every_cell_must_be_equal():
    cells = {name: {"arm": "ours", "margin": 2.0} for name in ("x", "y")}

    def outcome(x: float, y: float) -> Outcome:
        return judged(claim("value", {"cells": cells}, {"x": x, "y": y}), ours(80, 80.2, 79.8)).outcome

    assert outcome(80, 80.1) is PASS
    assert outcome(80, 82) is INCONCLUSIVE
    assert outcome(80, 84) is FAIL
    assert outcome(76, 84) is FAIL
    assert outcome(76, 82) is EXCEEDS


def test_an_ordering_needs_its_minimum_gap():
    assert [judged(ordering(by), APART).outcome for by in (0, 1, 10, 15)] == [PASS, PASS, INCONCLUSIVE, FAIL]


def test_an_ordering_of_equal_arms_is_undecided():
    for arms in (ALIKE, {"a": HIGH, "b": HIGH}):
        assert judged(ordering(), arms).outcome is INCONCLUSIVE


def test_one_model_each_is_ordered_by_a_dozen_images_of_a_thousand_and_not_by_five():
    """5 of 5 images is p = 0.06 by McNemar, 12 of 12 is p = 0.0005."""
    row = np.arange(1000)[None] < 800
    for more, outcome, mirrored in ((5, INCONCLUSIVE, INCONCLUSIVE), (12, PASS, FAIL)):
        better = np.arange(1000)[None] < 800 + more
        assert judged(ordering(), {"a": better, "b": row}).outcome is outcome
        assert judged(ordering(), {"a": row, "b": better}).outcome is mirrored


def test_mcnemar_describes_two_checkpoints_and_decides_nothing(monkeypatch: pytest.MonkeyPatch):
    one = {"a": HIGH[:1], "b": LOW[:1]}
    monkeypatch.setattr(stats, "mcnemar", lambda *_: 0.9)
    verdict = judged(ordering(), one)
    assert (verdict.outcome, finding(verdict).mcnemar) == (PASS, 0.9)
    assert "McNemar" not in words.reason(verdict)
    assert "exact McNemar p = 0.9" in str(words.strength(finding(verdict)))
    assert finding(judged(ordering(), APART)).mcnemar is None  # several seeds each are more than two checkpoints


def test_all_comparisons_of_an_ordering_must_hold():
    expect = {"all": [{"greater": "a", "than": "b"}, {"greater": "a", "than": "c"}]}
    both = claim("ordering", expect)
    for c, outcome in ((LOW, PASS), (right([80.5, 81, 81.5], who=3), INCONCLUSIVE), (right([90] * 3, who=3), FAIL)):
        assert judged(both, APART | {"c": c}).outcome is outcome


def test_a_larger_gain_is_one_contrast_and_not_two_significances():
    """Both gains are significant by themselves, and one is larger; their difference is not."""
    arms = {"vit-1": [60, 61, 62], "vit-2": [68, 69, 67], "resnet-1": [60.5, 61.5, 61], "resnet-2": [66.5, 67.5, 67]}
    made = {name: right(p, who=i) for i, (name, p) in enumerate(arms.items())}
    for high, low in (("vit-2", "vit-1"), ("resnet-2", "resnet-1")):
        assert judged(ordering(), {"a": made[high], "b": made[low]}).outcome is PASS
    assert judged(gain(), made).outcome is INCONCLUSIVE


def test_a_trend_rises_at_every_step():
    rising = {"small": right([50, 51, 52], who=1), "base": right([60, 61, 62], who=2), "large": HIGH}
    assert judged(increasing(), rising).outcome is PASS
    assert judged(increasing(), rising | {"base": right([80.5, 81, 81.5], who=5)}).outcome is INCONCLUSIVE
    assert judged(increasing(), rising | {"base": HIGH, "large": rising["base"]}).outcome is FAIL
    assert judged(increasing(by=15), rising).outcome is FAIL


def test_a_trend_of_equal_arms_is_undecided():
    equal = {name: right([80, 80.5, 81], who=i) for i, name in enumerate(("small", "base", "large"))}
    assert judged(increasing(), equal).outcome is INCONCLUSIVE
    assert judged(increasing(), dict.fromkeys(equal, HIGH)).outcome is INCONCLUSIVE


def test_equivalence_is_inside_the_margin_and_not_the_absence_of_a_difference():
    few = {"a": right([80], 100, who=1), "b": right([80], 100, who=2)}
    assert judged(equivalence(2.0), few).outcome is INCONCLUSIVE
    assert judged(equivalence(4.0), ALIKE).outcome is PASS
    assert judged(equivalence(4.0), APART).outcome is FAIL


def test_every_pair_must_be_equal():
    chain = {"a": right([80] * 3, 5000, who=1), "b": right([82] * 3, 5000, who=2), "c": right([84] * 3, 5000, who=3)}
    for pair in (("a", "b"), ("b", "c")):
        assert judged(equivalence(3.0, pair), chain).outcome is PASS
    verdict = judged(equivalence(3.0, ("a", "b", "c")), chain)
    assert verdict.outcome is FAIL
    assert [f.label for f in verdict.findings] == ["a - b", "a - c", "b - c"]


def exact(quantity: str = "depth", reported: float = 12.0, **check: Any) -> Claim:
    check = {"arm": "b16", "quantity": quantity, **check}
    return claim("exact", {"cells": {"cell": check}}, {"cell": reported})


@pytest.mark.parametrize(
    ("check", "passing", "failing"),
    [
        ({"tolerance": 0}, [12], [11, 13, 11.999999]),
        ({"tolerance": 1}, [11, 13], [10.99, 13.01]),
        ({"relative_tolerance": 0.1}, [10.81, 13.19], [10.79, 13.21]),
        ({"tolerance": 0, "direction": "at_least"}, [12, 99], [11.99]),
        ({"tolerance": 0, "direction": "at_most"}, [12, -5], [12.01]),
    ],
)
def test_a_counted_quantity_is_held_against_its_tolerance(
    check: dict[str, Any], passing: list[float], failing: list[float]
):
    for found, outcome in [(x, PASS) for x in passing] + [(x, FAIL) for x in failing]:
        verdict = judged(exact(**check), counted("b16", {"depth": found}))
        assert (verdict.outcome, verdict.seeds, words.qualifiers(verdict)) == (outcome, None, ())


def test_what_is_not_a_number_cannot_be_recorded():
    for broken in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            AnalyticResult(quantities={"depth": broken})


# --- measures of trained models -----------------------------------------------------------------

MEASURE = "attention_low_max"


def measuring(arm: str, values: Iterable[float], percents: Iterable[float] = (80, 81, 82, 83, 84), who: int = 0):
    """Trained runs of an arm, one per value of a measure, with these accuracies."""
    values = list(values)
    measured = trained(arm, right(list(percents)[: len(values)], who=who))
    made = []
    for m, x in zip(measured, values, strict=True):
        assert m.record is not None
        result = m.record.result.model_copy(update={"measures": {MEASURE: x, "attention_low_min": -x}})
        made.append(dataclasses.replace(m, record=m.record.model_copy(update={"result": result})))
    return made


def bound(**side: float) -> Claim:
    return claim("ordering", {"all": [{"arm": "a", "metric": MEASURE, **side}]})


def measured_gap(by: float = 0.0) -> Claim:
    return claim("ordering", {"all": [{"greater": "a", "than": "b", "metric": MEASURE, "by": by}]})


seed_values = st.lists(st.floats(-2, 2).map(lambda x: round(x, 6)), min_size=3, max_size=5, unique=True)


@settings(deadline=None, max_examples=60)
@given(seed_values, st.floats(-2, 2))
def test_a_bound_on_a_measure_is_scipys_t_interval_over_seeds(values: list[float], edge: float):
    verdict = judged(bound(above=edge), measuring("a", values))
    f = finding(verdict)
    ends = scipy.stats.ttest_1samp(values, edge).confidence_interval(0.95)
    assert f.interval is not None
    assert (f.interval.low, f.interval.high) == pytest.approx((ends.low, ends.high), abs=1e-9)
    assert f.measured == pytest.approx(np.mean(values))
    expected = PASS if ends.low > edge else FAIL if ends.high < edge else INCONCLUSIVE
    assert verdict.outcome is expected
    mirror = {PASS: FAIL, FAIL: PASS, INCONCLUSIVE: INCONCLUSIVE}
    assert judged(bound(below=edge), measuring("a", values)).outcome is mirror[expected]


@settings(deadline=None, max_examples=60)
@given(seed_values, seed_values, st.floats(0, 1))
def test_a_gap_between_measures_has_welchs_error_and_at_least_his_degrees_of_freedom(
    first: list[float], second: list[float], by: float
):
    f = finding(judged(measured_gap(by), measuring("a", first) + measuring("b", second, who=1)))
    widest = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    difference = np.mean(first) - np.mean(second)
    se = np.sqrt(sum(np.var(x, ddof=1) / len(x) for x in (first, second)))
    half = scipy.stats.t.ppf(0.975, len(first) + len(second) - 2) * se
    i = f.interval
    assert i is not None
    assert f.measured == pytest.approx(difference)
    assert (i.low + i.high) / 2 == pytest.approx(difference, abs=1e-9)
    assert widest.low - 1e-9 <= i.low <= difference - half + 1e-9
    assert difference + half - 1e-9 <= i.high <= widest.high + 1e-9
    assert f.would_be is (PASS if i.low > by else FAIL if i.high < by else INCONCLUSIVE)


def test_one_seed_of_a_measure_decides_nothing():
    for asked, values in ((bound(above=0.1), [9.0]), (measured_gap(), [9.0])):
        verdict = judged(asked, measuring("a", values) + measuring("b", [0.1], who=1))
        assert verdict.outcome is INCONCLUSIVE
        assert "One seed has no interval, so INCONCLUSIVE." in words.reason(verdict)
        f = finding(verdict)
        assert (f.interval, f.deciding, f.p, f.p_against, f.detectable) == (None,) * 5


def test_a_measure_of_a_model_that_guesses_decides_nothing():
    arms = measuring("a", [0.9, 0.91, 0.92], percents=(10, 10.1, 9.9)) + measuring("b", [0.1, 0.11, 0.12], who=1)
    for asked in (bound(above=0.5), bound(below=0.5), measured_gap()):
        verdict = judged(asked, arms)
        assert verdict.outcome is INCONCLUSIVE
        assert "a is not above chance" in words.reason(verdict)


def test_a_measure_against_that_of_a_model_that_guesses_decides_nothing():
    guessing = measuring("b", [0.1, 0.11, 0.12], percents=(10, 10.1, 9.9), who=1)
    verdict = judged(measured_gap(), measuring("a", [0.9, 0.91, 0.92]) + guessing)
    assert verdict.outcome is INCONCLUSIVE
    assert "b is not above chance" in words.reason(verdict)


GAIN = "selection_gain"


def gaining(values: Iterable[float], n: int) -> list[Measured]:
    """Trained runs of arm `a` near 35% of n images, with these gains."""
    values = list(values)
    made = trained("a", right([35.0 + k / 10 for k in range(len(values))], n))
    for m, x in zip(made, values, strict=True):
        assert m.record is not None
        assert isinstance(m.record.result, TrainResult)
        m.record.result.measures[GAIN] = x
    return made


@pytest.mark.parametrize(("n", "outcome"), [(3_925, INCONCLUSIVE), (100_000, FAIL)])
def test_gains_of_nothing_vary_at_least_by_half_of_what_coin_tosses_do(n: int, outcome: Outcome):
    """Of three seeds two gained nothing: t over seeds alone would refute half a point with any number of images."""
    values = [0.0, 0.0, 0.2]
    asked = claim("ordering", {"all": [{"arm": "a", "metric": GAIN, "above": 0.5}]})
    found = finding(judged(asked, gaining(values, n)))
    half = scipy.stats.t.ppf(0.975, 2) * max(50 * np.sqrt(0.35 * 0.65 / n), np.std(values, ddof=1)) / np.sqrt(3)
    assert found.interval is not None
    assert found.interval.high == pytest.approx(np.mean(values) + half, rel=1e-3)
    assert found.outcome is outcome
    assert found.interval.method == ("own" if outcome is FAIL else "images")


def test_seeds_that_pile_up_at_the_limit_of_a_measure_must_all_lie_on_one_side():
    """Of gains whose mean is just half a point, half of them nothing, t alone refutes one of ten; not so the rules."""
    rng, times = np.random.default_rng(0), 2_000
    arm = Arm.of(right([35.0], 3_925), num_classes=CLASSES, regime="fine-tuned")
    asked = OrderingExpect.model_validate({"all": [{"arm": "a", "metric": GAIN, "above": 0.5}]})
    for seeds in (3, 5, 10, 20):
        by_t = by_rule = 0
        for gains in np.where(rng.random((times, seeds)) < 0.5, 0.0, rng.exponential(1.0, (times, seeds))):
            half = scipy.stats.t.ppf(0.975, seeds - 1) * gains.std(ddof=1) / np.sqrt(seeds)
            by_t += gains.any() and gains.mean() + half < 0.5
            (found,) = rules.findings(asked, {}, {"a": dataclasses.replace(arm, measures={GAIN: gains.tolist()})})
            by_rule += found.outcome is FAIL
        assert by_t > 0.1 * times
        assert by_rule <= 0.05 * times


def test_a_pile_of_seeds_is_told_of():
    asked = claim("ordering", {"all": [{"arm": "a", "metric": GAIN, "above": 0.5}]})
    nothing = [0.0, 0.0, 0.0, 0.1, 0.0, 0.1, 0.0, 0.0, 0.0, 0.6]
    verdict = judged(asked, gaining(nothing, 100_000))
    assert verdict.outcome is INCONCLUSIVE
    assert "but 7 of 10 seeds have 0, the least there is, and not all lie on one side, so INCONCLUSIVE" in words.reason(
        verdict
    )
    assert judged(asked, gaining([*nothing[:-1], 0.4], 100_000)).outcome is FAIL
    assert judged(asked, gaining([x + 0.001 for x in nothing], 100_000)).outcome is FAIL


def test_an_accuracy_after_an_epoch_from_scratch_has_the_least_spread_of_its_own_split():
    """1.42 binomial bounds on the images of the dev split; fine-tuned, half an image."""
    asked = value(20, 9, metric="dev_top1_epoch_3")

    def of(**change: Any) -> Finding:
        close = losing([20, 20.001, 19.999], "dev_top1_epoch_3")
        for i, m in enumerate(close):
            assert m.record is not None
            result = m.record.result.model_copy(update={"dev_n": 200, "dev_correct": 40, **change})
            close[i] = dataclasses.replace(m, record=m.record.model_copy(update={"result": result}))
        return finding(judged(asked, close))

    found = of(initial_sha256=None)
    half = scipy.stats.t.ppf(0.95, 2) * 142 * np.sqrt(0.2 * 0.8 / 200) * np.sqrt(1 / 3 + 1)
    assert found.outcome is INCONCLUSIVE
    assert found.deciding is not None
    assert found.deciding.high == pytest.approx(half, rel=0.02)
    assert of().outcome is PASS


def test_a_measure_that_the_stored_runs_do_not_have_is_not_run():
    lacking = trained("a", HIGH)
    verdict = judged(bound(above=0.5), lacking)
    assert verdict.outcome is Outcome.NOT_RUN
    assert f"did not measure {MEASURE} of a" in words.reason(verdict)
    two_of_three = measuring("a", [0.9, 0.91, 0.92])[:2] + lacking[2:]
    assert judged(bound(above=0.5), two_of_three).outcome is Outcome.NOT_RUN


def test_bounds_and_comparisons_must_all_hold():
    arms = measuring("a", [0.9, 0.91, 0.92]) + measuring("b", [0.1, 0.11, 0.12], percents=(70, 71, 72), who=1)
    parts = [
        {"greater": "a", "than": "b"},
        {"greater": "a", "than": "b", "metric": MEASURE, "by": 0.5},
        {"arm": "b", "metric": MEASURE, "below": 0.3},
        {"arm": "b", "metric": "attention_low_min", "above": -0.3},
    ]
    assert judged(claim("ordering", {"all": parts}), arms).outcome is PASS
    for i, wrong in enumerate(
        ({"greater": "b", "than": "a"}, {**parts[1], "by": 0.99}, {**parts[2], "below": 0.05}, {**parts[3], "above": 0})
    ):
        changed = [*parts[:i], wrong, *parts[i + 1 :]]
        verdict = judged(claim("ordering", {"all": changed}), arms)
        assert verdict.outcome is FAIL
        assert [f.outcome for f in verdict.findings].count(FAIL) == 1


# --- a measure against a reported number


LOSS = "train_loss_sum_epoch_1"


def losing(values: Iterable[float], metric: str = LOSS, **change: Any) -> list[Measured]:
    """Trained runs of arm `ours`, one per value of a measure."""
    made = measuring("ours", values, **change)
    for m in made:
        assert m.record is not None
        assert isinstance(m.record.result, TrainResult)
        m.record.result.measures[metric] = m.record.result.measures[MEASURE]
    return made


losses = st.lists(st.floats(0, 4).map(lambda x: round(x, 6)), min_size=3, max_size=5, unique=True)


@settings(deadline=None, max_examples=80)
@given(losses, st.floats(0, 4), st.floats(0.05, 3), st.sampled_from([None, 1, 5]))
def test_a_measure_is_held_against_a_reported_number_by_scipys_t_interval(
    values: list[float], reported: float, margin: float, printed_runs: int | None
):
    """The reported number is a draw of the same spread, over as many runs as are printed."""
    k = len(values)
    verdict = judged(value(reported, margin, metric=LOSS, printed_runs=printed_runs), losing(values))
    f = finding(verdict)
    scale = np.std(values, ddof=1) * np.sqrt(1 / k + 1 / (printed_runs or 1))
    low, high = scipy.stats.t.interval(0.90, k - 1, loc=np.mean(values) - reported, scale=scale)
    assert f.deciding is not None
    low, high = max(low, -reported), high  # a loss is not below zero
    assert (f.deciding.low, f.deciding.high) == pytest.approx((low, high), abs=1e-9)
    inside, outside = -margin < low and high < margin, high < -margin or low > margin
    assert f.would_be is (PASS if inside else FAIL if outside else INCONCLUSIVE)
    assert f.power is not None
    assert (f.outcome is f.would_be) is not (inside and f.power < 0.05)
    assert f.p is not None
    assert f.p_against is not None
    assert ((f.p < 0.05), (f.p_against < 0.05)) == (inside, outside)
    assert (f.form, f.reported, f.bound, f.relation) == ("measure", reported, margin, "±")


def test_the_printed_spread_of_a_measure_has_its_own_degrees_of_freedom():
    found = finding(judged(value(10, 3, metric=LOSS, sd=0.3, printed_runs=4), losing([9.9, 10.0, 10.2])))
    parts = [(np.var([9.9, 10.0, 10.2], ddof=1) / 3, 2), (0.3**2 / 4, 3)]
    estimate = stats.Estimate(np.mean([9.9, 10.0, 10.2]) - 10, *stats.sum_of([(v, v, k) for v, k in parts]))
    assert found.deciding is not None
    assert found.deciding.low == pytest.approx(estimate.interval(0.90).low)


@pytest.mark.parametrize(
    ("metric", "direction", "low", "high"),
    [
        (LOSS, "two_sided", FAIL, FAIL),
        ("overconfidence", "two_sided", FAIL, FAIL),
        ("dev_top1_epoch_3", "two_sided", FAIL, Outcome.EXCEEDS),
        ("test_top1_epoch_12", "at_least", FAIL, PASS),
    ],
)
def test_outside_the_margin_fails_and_only_accuracies_exceed(metric: str, direction: str, low: Outcome, high: Outcome):
    for off, expected in ((-9.0, low), (0.0, PASS), (9.0, high)):
        found = losing([20 + off, 20.1 + off, 19.9 + off], metric)
        assert judged(value(20, 3, direction, metric=metric), found).outcome is expected


@pytest.mark.parametrize("moved", [-3, 3])
@pytest.mark.parametrize("margin", [0.5, 12.5, 400])
def test_a_reported_loss_moved_by_three_margins_does_not_pass(moved: int, margin: float):
    found = losing([1000 - margin / 20, 1000, 1000 + margin / 20])
    assert judged(value(1000, margin, metric=LOSS), found).outcome is PASS
    assert judged(value(1000 + moved * margin, margin, metric=LOSS), found).outcome is FAIL


@pytest.mark.parametrize(
    ("values", "why"),
    [([5.0], "One seed has no interval"), ([5.0, 5.0, 5.0], "Seeds that all agree have no interval")],
)
def test_one_seed_or_seeds_that_agree_leave_a_reported_measure_open(values: list[float], why: str):
    for reported in (5.0, 50.0):
        verdict = judged(value(reported, 1.0, metric=LOSS), losing(values))
        assert verdict.outcome is INCONCLUSIVE
        assert f"{why}, so INCONCLUSIVE." in words.reason(verdict)
        f = finding(verdict)
        assert (f.interval, f.deciding, f.p, f.p_against, f.power, f.detectable) == (None,) * 6


def test_a_reported_measure_is_kept_from_deciding_as_an_accuracy_is():
    asked = value(5.0, 1.0, metric=LOSS)
    found = losing([4.9, 5.0, 5.1])
    assert judged(asked, found).outcome is PASS
    fewer = judge(asked, "gpu", found, registered_seeds=4)
    assert (fewer.outcome, "fewer seeds than registered" in words.reason(fewer)) == (INCONCLUSIVE, True)
    twice = judged(asked, [found[0], found[1], found[0]])
    assert (twice.outcome, "named twice" in words.reason(twice)) == (Outcome.ERROR, True)
    guessing = judged(asked, losing([4.9, 5.0, 5.1], percents=(10, 10.1, 9.9)))
    assert (guessing.outcome, "ours is not above chance" in words.reason(guessing)) == (INCONCLUSIVE, True)
    lacking = judged(asked, trained("ours", HIGH))
    assert lacking.outcome is Outcome.NOT_RUN
    assert f"did not measure {LOSS} of ours; verify it again, with --fresh" in words.reason(lacking)


def test_equivalence_of_a_measure_is_wrong_in_one_of_twenty_at_most():
    """At the edge of the margin, where a PASS is wrong, theirs a run like ours."""
    rng = np.random.default_rng(0)
    check, arm = ValueCheck(arm="ours", metric=LOSS, margin=3.0), Arm.of(HIGH, num_classes=10, regime="fine-tuned")
    for seeds in (2, 3, 5):
        passed = 0
        for drawn in rng.normal(100, 0.8, (4000, seeds + 1)):
            cell = Cell(value=float(drawn[0]) + 3.0)
            arm.measures[LOSS] = drawn[1:].tolist()  # type: ignore[index]
            passed += evaluated("x", check, cell, arm).outcome is PASS
        assert passed / 4000 < 0.06


def test_what_the_epochs_of_a_run_come_to_can_be_named():
    points = [
        {"epoch": 1, "steps": 4, "train_loss": 2.0, "train_loss_sum": 8.0, "dev_correct": 5, "dev_n": 10},
        {"epoch": 2, "steps": 8, "train_loss": 1.0, "train_loss_sum": 4.0, "dev_correct": 5, "dev_n": 10},
        {"epoch": 3, "steps": 12, "train_loss": 0.5, "train_loss_sum": 2.0, "dev_correct": 4, "dev_n": 10},
    ]
    for point, correct in zip(points, (3, 2, 8), strict=True):
        point |= {"test_correct": correct, "test_n": 20}
    (run,) = trained("a", HIGH[:1], epochs=tuple(EpochPoint(**p) for p in points))
    assert run.record is not None
    assert isinstance(run.record.result, TrainResult)
    measures = run.record.result.every_measure
    assert measures["train_loss_epoch_2"] == 1.0
    assert measures["train_loss_sum_epoch_3"] == 2.0
    assert (measures["dev_top1_epoch_1"], measures["test_top1_epoch_3"]) == (50.0, 40.0)
    assert measures["selection_gain"] == 40.0 - 15.0  # best on dev is the first of two
    assert run.record.result.model_copy(update={"epochs": ()}).every_measure == {}


def test_of_epochs_not_looked_at_on_both_splits_there_is_no_selection_gain():
    point = EpochPoint(epoch=1, steps=4, train_loss=2.0, train_loss_sum=8.0, test_correct=1, test_n=2)
    (run,) = trained("a", HIGH[:1], epochs=(point,))
    assert run.record is not None
    assert isinstance(run.record.result, TrainResult)
    assert set(run.record.result.every_measure) == {"train_loss_epoch_1", "train_loss_sum_epoch_1", "test_top1_epoch_1"}


@pytest.mark.parametrize("outcome", [PASS, INCONCLUSIVE])
def test_a_verdict_says_that_an_epoch_was_chosen_on_the_test_split(outcome: Outcome):
    found = runs(APART)
    for i, m in enumerate(found):
        assert m.record is not None
        keep = "best-on-test" if m.arm == "b" else "best-on-dev"
        found[i] = dataclasses.replace(m, record=m.record.model_copy(update={"config": {"train": {"keep": keep}}}))
    verdict = judged(ordering(0.0 if outcome is PASS else 10.0), found)
    assert verdict.outcome is outcome
    assert "epoch chosen on the test split that is reported: b" in words.qualifiers(verdict)
    assert not any("chosen" in q for q in words.qualifiers(judged(ordering(), APART)))


def test_a_measure_is_capped_like_an_accuracy():
    arms = measuring("a", [0.9, 0.91, 0.92])
    assert judged(bound(above=0.5), arms).outcome is PASS
    assert judged(bound(above=0.5), arms, [OTHER_RATE]).outcome is INCONCLUSIVE
    assert judge(bound(above=0.5), "gpu", arms, registered_seeds=5).outcome is INCONCLUSIVE


# --- a source's own printed numbers -------------------------------------------------------------


def printed(checks: Mapping[str, Any], **cells: float) -> Verdict:
    """The verdict on checks of these cells, printed to one decimal."""
    made = Claim.model_validate(
        {
            "id": "paper/claim",
            "source": {"paper": "a paper", "where": "Table 1"},
            "kind": "ordering",
            "statement": "It is so.",
            "reported": {"unit": "%", "decimals": 1, "cells": cells},
            "scales": {"literal": {"expect": {"checks": checks}}},
        }
    )
    entry = made.scales.literal
    assert entry is not None
    assert isinstance(entry.expect, LiteralExpect)
    return judge_literal(made, literal.evaluate(entry.expect, lambda address: find_cell({}, made, address)))


@pytest.mark.parametrize(
    ("that", "outcome"),
    [("@a > @b", PASS), ("@b > @a", FAIL), ("@a > @c", INCONCLUSIVE), ("@a == @c", PASS), ("@a == @b", FAIL)],
)
def test_a_statement_agrees_with_printed_numbers_disagrees_or_is_hidden_by_rounding(that: str, outcome: Outcome):
    verdict = printed({"it": {"that": that}}, a=81.4, b=81.3, c=81.4)
    assert verdict.outcome is outcome
    assert (verdict.scale, verdict.fidelity, verdict.seeds, verdict.n) == ("literal", "literal", None, None)
    assert words.qualifiers(verdict) == ("printed numbers, nothing measured",)
    assert {PASS: "agrees with", FAIL: "disagrees with", INCONCLUSIVE: "undecided"}[outcome] in words.support(verdict)
    assert "reproduced" not in words.support(verdict)
    f = finding(verdict)
    assert (f.measured, f.form, f.relation, f.interval) == (
        81.3 if that[1] == "b" else 81.4,
        "literal",
        that[3:-3],
        None,
    )


def test_a_check_may_mean_that_the_source_exceeds_what_it_says():
    check = {"that": "@a < @b", "otherwise": "EXCEEDS"}
    assert printed({"it": check}, a=90, b=80).outcome is EXCEEDS
    assert printed({"it": check}, a=80, b=90).outcome is PASS
    assert printed({"it": check}, a=80, b=80).outcome is INCONCLUSIVE
    assert printed({"it": check, "and": {"that": "@b > 100"}}, a=90, b=80).outcome is FAIL


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ((1, 1, 1), PASS),
        ((1, 1, -1), PASS),
        ((1, 0, 0), INCONCLUSIVE),  # two of three are hidden
        ((1, -1, 0), INCONCLUSIVE),
        ((1, -1, -1), FAIL),
        ((0, -1, -1), FAIL),
        ((1, 1, -1, -1), FAIL),  # half is not most
        ((1, 1, -1, 0), INCONCLUSIVE),
        ((1, 1, 1, -1), PASS),
    ],
)
def test_most_is_more_than_half_whatever_the_rounding_hides(values: tuple[int, ...], outcome: Outcome):
    cells = {f"c{i}": 80.0 + v for i, v in enumerate(values)}
    check = {"that": "@{x} > @base", "each": {"x": list(cells)}, "holds": "most"}
    verdict = printed({"it": check}, base=80.0, **cells)
    assert verdict.outcome is outcome
    f = finding(verdict)
    assert (f.measured, f.reported) == (values.count(1), len(values) / 2)
    assert f"{values.count(1)} of {len(values)} hold" in words.reason(verdict)


def test_all_combinations_of_all_checks_must_hold_and_the_others_are_named():
    each = {"x": ["a", "b", "c"]}
    verdict = printed({"it": {"that": "@{x} > 50", "each": each}, "too": {"that": "@c < 1"}}, a=60, b=49, c=50)
    assert [(f.label, f.outcome) for f in verdict.findings] == [
        ("it-a", PASS), ("it-b", FAIL), ("it-c", INCONCLUSIVE), ("too", FAIL)
    ]  # fmt: skip
    assert verdict.outcome is FAIL
    for text in ("it-b: 49 > 50 does not hold (b 49)", "it-c: 50 > 50 is hidden by the rounding", "too: 50 < 1"):
        assert text in words.reason(verdict)


def test_a_level_that_is_never_reached_is_told_as_more_than_the_last_cost():
    cells = {"x1": 1, "y1": 80, "x2": 10, "y2": 90, "level": 95}
    verdict = printed({"it": {"that": "cost_to_reach(@level, @x1, @y1, @x2, @y2) > 5"}}, **cells)
    assert verdict.outcome is PASS
    assert "more than 9.95 > 5 holds" in words.reason(verdict) or "more than 10" in words.reason(verdict)
    f = finding(verdict)
    assert np.isfinite([f.measured, f.reported, f.slack]).all()


# --- what a verdict says of the paper -----------------------------------------------------------


@pytest.mark.parametrize(
    ("fidelity", "passed", "failed"),
    [
        ("exact", "reproduced", "contradicted"),
        ("substitute", "supports (substitute)", "speaks against (substitute)"),
        ("proxy", "supports (proxy)", "speaks against (proxy)"),
    ],
)
def test_only_the_papers_own_protocol_reproduces_or_contradicts_it(fidelity: str, passed: str, failed: str):
    assert words.support(judged(ordering(fidelity=fidelity), APART)) == passed
    assert words.support(judged(ordering(fidelity=fidelity), {"a": LOW, "b": HIGH})) == failed
    assert words.support(judged(ordering(fidelity=fidelity), ALIKE)) == "undecided"
    assert words.support(judged(ordering(fidelity=fidelity), APART, complete_n=2000)) == "undecided"


def test_the_reason_gives_the_numbers_that_decide():
    verdict = judged(value(80.0, 2.0), ours(80, 80.2, 79.8))
    assert "ours 80.00 (79.50 to 80.50, 3 seeds) lies on the reported 80." in words.reason(verdict)
    assert "The 90% interval of the difference, -0.67 to +0.67 (t over seeds), is inside the margin of 2, so PASS." in (
        words.reason(verdict)
    )
    below = words.reason(judged(value(80.5, 2.0), ours(80, n=10_000)))
    assert "lies 0.50 below the reported 80.5. The 90% interval of the difference" in below
    assert "(binomial bound, so at least 90%)" in below


def test_the_finding_nearest_to_another_outcome_gives_the_reason():
    """Of three equal pairs the one at -1.5 points, not one at +0.5; of two orders the smaller gap."""
    arms = {"a": right([80] * 3, 5000, who=1), "b": right([81.5] * 3, 5000, who=2), "c": right([81] * 3, 5000, who=3)}
    assert words.reason(judged(equivalence(3.0, ("a", "b", "c")), arms)).startswith("a - b: -1.50")
    both = claim("ordering", {"all": [{"greater": "b", "than": x} for x in ("d", "e")]})
    arms |= {"d": right([60] * 3, 5000, who=4), "e": right([70] * 3, 5000, who=5)}
    assert words.reason(judged(both, {k: arms[k] for k in "bde"})).startswith("b - e: +11.50")
    cells = {x: {"arm": "ours", "margin": 5, "direction": "at_least"} for x in ("near", "far")}
    at_least = claim("value", {"cells": cells}, {"near": 82.0, "far": 75.0})  # 75 is one margin below, and safe
    assert words.reason(judged(at_least, ours(80, 80.2, 79.8))).startswith("near")


# --- before anything is run ---------------------------------------------------------------------


def test_an_ordering_can_pass_unless_no_accuracies_are_that_far_apart():
    assert "can refute and not confirm" in str(cannot_pass(ordering(), "gpu", planned(1, "a", "b")))
    assert cannot_pass(ordering(), "gpu", planned(3, "a", "b")) is None
    assert cannot_pass(ordering(by=70), "gpu", planned(3, "a", "b")) is None
    doubt = cannot_pass(ordering(by=99), "gpu", planned(3, "a", "b"))
    assert doubt is not None
    assert doubt.startswith("cannot PASS: a - b would have to be above 1")
    assert cannot_pass(value(90.0, 1.0), None, []) is None


# --- properties ---------------------------------------------------------------------------------

ROWS = {percent: right([percent - 0.5, percent, percent + 0.5], 400, who=percent) for percent in range(40, 100, 3)}
percents = st.sampled_from(sorted(ROWS))
accuracies = st.lists(st.integers(200, 380), min_size=1, max_size=5).map(tuple)  # of 400 images


def value_outcome(counts: Iterable[int], reported: float, margin: float, sd: float | None = None) -> Outcome:
    rows = np.stack([np.roll(np.arange(400) < c, i) for i, c in enumerate(counts)])
    return judged(value(reported, margin, sd=sd), {"ours": rows}).outcome


@settings(deadline=None, max_examples=60)
@given(accuracies, st.floats(-15, 15), st.floats(0.1, 10), st.sampled_from([None, 0.5]))
def test_a_value_above_by_as_much_as_below_has_the_mirrored_outcome(
    counts: tuple[int, ...], difference: float, margin: float, sd: float | None
):
    mean = float(np.mean(counts)) / 4
    mirror = {PASS: PASS, FAIL: EXCEEDS, EXCEEDS: FAIL, INCONCLUSIVE: INCONCLUSIVE}
    above, below = (value_outcome(counts, mean - d, margin, sd) for d in (difference, -difference))
    assert below is mirror[above]


@settings(deadline=None, max_examples=60)
@given(accuracies, st.floats(40, 99), st.floats(0.1, 10), st.floats(0.01, 20))
def test_a_larger_margin_never_takes_a_pass_away(counts: tuple[int, ...], reported: float, margin: float, more: float):
    if value_outcome(counts, reported, margin) is PASS:
        assert value_outcome(counts, reported, margin + more) is PASS


@settings(deadline=None, max_examples=30)
@given(percents, percents, st.floats(0, 5), st.floats(0, 5))
def test_an_order_that_passes_is_refuted_when_the_arms_change_places(a: int, b: int, by: float, less: float):
    arms = {"a": ROWS[a], "b": ROWS[b]}
    if judged(ordering(by), arms).outcome is PASS:
        swapped = {"a": ROWS[b], "b": ROWS[a]}
        assert judged(ordering(by), swapped).outcome is FAIL
        assert judged(equivalence(max(by, 0.01)), arms).outcome is not PASS
        assert judged(ordering(min(by, less)), arms).outcome is PASS


@settings(deadline=None, max_examples=30)
@given(percents, percents, st.floats(0.1, 8))
def test_equivalence_does_not_depend_on_the_order_of_the_arms(a: int, b: int, within: float):
    one, other = (
        judged(equivalence(within), {"a": ROWS[a], "b": ROWS[b]}),
        judged(equivalence(within), {"a": ROWS[b], "b": ROWS[a]}),
    )
    assert {one.outcome, other.outcome} != {PASS, FAIL}
    assert finding(one).measured == pytest.approx(-finding(other).measured)


ORDER = (FAIL, EXCEEDS, INCONCLUSIVE, PASS)


@given(st.lists(st.sampled_from(ORDER), min_size=1))
def test_one_refutation_refutes_and_one_doubt_leaves_doubt(outcomes: list[Outcome]):
    combined = combine(outcomes)
    assert combined is min(outcomes, key=ORDER.index)
    assert (combined is PASS) == (set(outcomes) == {PASS})


def test_only_three_outcomes_are_decided():
    assert [o for o in Outcome if o.decided] == [PASS, FAIL, EXCEEDS]
    assert len(Outcome) == 7
