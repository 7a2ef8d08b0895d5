"""What a verdict would have been of a claim that reads otherwise, and which could not have come out otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from test_negative_controls import EVERY, Case, measured
from verdict_cases import claim, counted, equivalence, gain, increasing, ordering, right, runs, trained, value

from vitrepro import claims
from vitrepro.audit.sensitivity import STEPS, Examined, Trial, examine, examine_literal
from vitrepro.judge.finding import Outcome
from vitrepro.judge.printed import judge_literal
from vitrepro.judge.verdict import judge
from vitrepro.literal import evaluate
from vitrepro.record import Measured, TrainResult
from vitrepro.spec import Claim

PASS, FAIL, EXCEEDS, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.EXCEEDS, Outcome.INCONCLUSIVE


def examined(of: Claim, found: list[Measured], seeds: int = 3, scale: str = "gpu") -> Examined:
    return examine(of, judge(of, scale, found, registered_seeds=seeds))


def spread(centre: float) -> list[float]:
    return [centre - 0.2, centre, centre + 0.2]


def arms(**centres: float) -> list[Measured]:
    """Three seeds of each arm around its accuracy; `_` in a name stands for `-`."""
    rows = {name.replace("_", "-"): right(spread(c), 2000, who) for who, (name, c) in enumerate(centres.items())}
    return runs(rows)


def at(e: Examined) -> list[Outcome]:
    """Outcomes at -3, -2, -1, 1, 2, 3 margins."""
    told = [e.at(step) for step in STEPS]
    assert all(told)
    return [t.outcome for t in told if t]


def trial(e: Examined, name: str) -> Trial:
    return next(t for t in e.trials if t.name == name)


def far(e: Examined) -> dict[str, Outcome]:
    return {t.name: t.outcome for t in e.trials if t.kind == "far"}


def nearest(e: Examined) -> tuple[str, Outcome]:
    assert e.nearest is not None
    assert not e.fixed
    return e.nearest.name, e.nearest.outcome


# --- reported numbers ---------------------------------------------------------------------------


def test_a_reported_number_moved_three_margins_either_way_is_another_result():
    e = examined(value(60.0, 2.0), arms(ours=60.0))
    assert e.verdict.outcome is PASS
    assert at(e) == [EXCEEDS, EXCEEDS, INCONCLUSIVE, INCONCLUSIVE, FAIL, FAIL]
    assert nearest(e) == ("-1 margin", INCONCLUSIVE)
    assert e.reversed is None


def test_a_lower_bound_is_lost_only_to_a_higher_number():
    e = examined(value(60.0, 2.0, "at_least"), arms(ours=60.0))
    assert at(e) == [PASS, PASS, PASS, INCONCLUSIVE, FAIL, FAIL]
    assert nearest(e) == ("+1 margin", INCONCLUSIVE)


def test_a_fail_far_away_would_pass_had_the_reported_number_been_the_measured_one():
    e = examined(value(90.0, 2.0), arms(ours=60.0))
    assert at(e) == [FAIL] * 6
    assert nearest(e) == ("moved onto what was measured", PASS)


def test_a_pass_far_above_its_bound_would_fail_were_ours_nothing():
    e = examined(value(60.0, 2.0, "at_least"), arms(ours=90.0))
    assert at(e) == [PASS] * 6
    assert nearest(e) == ("moved above what was measured", FAIL)


def test_an_accuracy_above_100_does_not_count():
    """Ours is 97: one margin more is 99, two are 101."""
    e = examined(value(97.0, 2.0), arms(ours=97.0))
    assert [trial(e, f"-{n} margin{'s' * (n > 1)}").counts for n in (1, 2, 3)] == [True, False, False]
    assert trial(e, "-2 margins").outcome is EXCEEDS


def test_a_bound_that_no_accuracy_could_miss_is_a_defect():
    """At least 30, give or take 40; two margins less than ours would be below zero."""
    e = examined(value(30.0, 40.0, "at_least"), arms(ours=60.0))
    assert e.verdict.outcome is PASS
    assert at(e) == [PASS] * 4 + [FAIL] * 2
    assert e.nearest is None
    assert e.fixed


def test_a_released_model_evaluated_again_is_moved_as_well():
    same = claim("value", {"cells": {"top1": {"arm": "ours", "margin": 1, "same_weights": True}}}, {"top1": 60.0})
    e = examined(same, trained("ours", right([60.0])), seeds=1)
    assert e.verdict.outcome is PASS
    assert at(e) == [EXCEEDS, EXCEEDS, PASS, PASS, FAIL, FAIL]


def exact(expect: Mapping[str, Any], reported: float, x: float) -> Examined:
    check = {"arm": "b16", "quantity": "parameters_m", **expect}
    return examined(claim("exact", {"cells": {"n": check}}, {"n": reported}), counted("b16", {"parameters_m": x}), 1)


def test_a_count_moved_by_tolerances_fails_either_way():
    e = exact({"tolerance": 2.0}, 86.0, 86.5)
    assert at(e) == [FAIL, FAIL, FAIL, PASS, FAIL, FAIL]
    assert nearest(e) == ("-1 margin", FAIL)


def test_without_a_tolerance_the_number_itself_is_the_margin():
    e = exact({"tolerance": 0.0}, 12.0, 12.0)
    assert at(e) == [FAIL] * 6
    assert [e.at(step).counts for step in STEPS] == [True, True, True, True, False, False]  # type: ignore[union-attr]


@pytest.mark.parametrize("tolerance", [{"relative_tolerance": 0.01}, {"tolerance": 1.0}])
def test_a_count_far_away_would_pass_had_it_been_reported(tolerance: Mapping[str, float]):
    e = exact(tolerance, 307.0, 86.0)
    assert e.verdict.outcome is FAIL
    assert at(e) == [FAIL] * 6
    assert nearest(e) == ("moved onto what was measured", PASS)


@pytest.mark.parametrize(
    ("direction", "x", "change"),
    [("at_least", 1e4, "moved above what was measured"), ("at_most", 1.0, "moved below what was measured")],
)
def test_a_count_far_on_the_claimed_side_would_fail_at_the_other_end(direction: str, x: float, change: str):
    """A tolerance that is a share stays that of the number reported."""
    e = exact({"relative_tolerance": 0.05, "direction": direction}, 100.0, x)
    assert at(e) == [PASS] * 6
    assert nearest(e) == (change, FAIL)


def test_a_count_that_cannot_be_below_its_bound_is_a_defect():
    assert exact({"tolerance": 5.0, "direction": "at_least"}, 1.0, 3.0).fixed
    assert not exact({"tolerance": 0.5, "direction": "at_least"}, 1.0, 3.0).fixed


# --- orders -------------------------------------------------------------------------------------


def test_an_order_reversed_fails_and_so_does_a_larger_gap():
    e = examined(ordering(by=3.0), arms(a=68.0, b=60.0))
    assert e.verdict.outcome is PASS
    assert e.reversed is not None
    assert (e.reversed.name, e.reversed.outcome) == ("a - b reversed", FAIL)
    assert at(e) == [PASS, PASS, PASS, PASS, FAIL, FAIL]
    assert nearest(e) == ("+2 margins", FAIL)


def test_without_a_gap_a_margin_is_one_point():
    e = examined(ordering(), arms(a=61.9, b=60.0))
    assert at(e)[3:] == [PASS, INCONCLUSIVE, FAIL]


def test_a_gap_refuted_far_away_would_pass_had_less_been_asked_for():
    e = examined(ordering(by=1.0), arms(a=60.0, b=80.0))
    assert e.verdict.outcome is FAIL
    assert at(e) == [FAIL] * 6
    assert nearest(e) == ("a - b reversed", PASS)
    assert far(e)["moved onto what was measured"] is PASS


def test_a_gap_too_small_would_pass_had_less_been_asked_for():
    """Reversed it fails as well: neither exceeds the other by thirty points."""
    e = examined(ordering(by=30.0), arms(a=65.0, b=60.0))
    assert e.verdict.outcome is FAIL
    assert e.reversed is not None
    assert e.reversed.outcome is FAIL
    assert nearest(e) == ("-1 margin", PASS)


def test_a_gap_that_is_asked_for_beyond_a_hundred_points_does_not_count():
    e = examined(ordering(by=45.0), arms(a=90.0, b=40.0))
    assert [e.at(step).counts for step in (1, 2, 3)] == [True, True, True]  # type: ignore[union-attr]
    e = examined(ordering(by=60.0), arms(a=90.0, b=20.0))
    assert [e.at(step).counts for step in (1, 2, 3)] == [True, True, False]  # type: ignore[union-attr]


def test_no_shortfall_of_more_than_two_points_has_no_reverse():
    """Both of `a > b - 2` and `b > a - 2` may hold."""
    e = examined(ordering(by=-2.0), arms(a=60.0, b=60.0))
    assert e.verdict.outcome is PASS
    assert e.reversed is None
    assert at(e) == [PASS, PASS, PASS, INCONCLUSIVE, FAIL, FAIL]


def three(*pairs: tuple[str, str], by: float = 0.0) -> Claim:
    return claim("ordering", {"all": [{"greater": a, "than": b, "by": by} for a, b in pairs]})


def test_each_of_several_orders_is_reversed_and_all_together():
    e = examined(three(("a", "b"), ("b", "c")), arms(a=70.0, b=60.0, c=50.0))
    turned = {t.name: t.outcome for t in e.trials if t.kind == "reversed"}
    assert turned == {"a - b reversed": FAIL, "b - c reversed": FAIL, "all reversed": FAIL}


def test_one_order_that_is_wrong_would_pass_reversed():
    e = examined(three(("a", "b"), ("b", "c")), arms(a=70.0, b=50.0, c=60.0))
    assert e.verdict.outcome is FAIL
    assert e.reversed is not None
    assert (e.reversed.name, e.reversed.outcome) == ("b - c reversed", PASS)


def test_orders_that_contradict_each_other_are_a_defect():
    found = arms(a=40.0, b=30.0, c=20.0)
    for contradiction in (
        three(("a", "b"), ("b", "a")),
        three(("a", "b"), ("b", "c"), ("c", "a")),
        three(("a", "b"), ("b", "c"), by=55.0),  # a exceeds c by more than 110 points
    ):
        e = examined(contradiction, found)
        assert e.verdict.outcome is FAIL
        assert e.fixed, contradiction
    for of in three(("a", "b"), ("b", "c"), by=49.0), three(("a", "b"), ("b", "a"), by=-1.0):
        e = examined(of, found)
        assert e.verdict.outcome is FAIL
        assert not e.fixed, of


def measuring(*checks: Mapping[str, Any], a: float, b: float = 0.2) -> Examined:
    """Two arms whose three seeds have a measure of so much, and 0.01 and 0.02 more."""
    metric = "position_distance_correlation"
    found = [m for arm in ("a", "b") for m in trained(arm, right(spread(60.0), who=ord(arm)))]
    for i, m in enumerate(found):
        assert m.record
        measures = {metric: {"a": a, "b": b}[m.arm] + 0.01 * m.seed}
        result = m.record.result.model_copy(update={"measures": measures})
        found[i] = dataclasses.replace(m, record=m.record.model_copy(update={"result": result}))
    return examined(claim("ordering", {"all": [{"metric": metric, **c} for c in checks]}), found)


def test_a_bound_is_moved_by_itself_and_reversed():
    e = measuring({"arm": "a", "above": 0.2}, a=0.5)
    assert at(e) == [PASS, PASS, PASS, PASS, FAIL, FAIL]
    assert e.reversed is not None
    assert e.reversed.outcome is FAIL
    e = measuring({"arm": "a", "below": 0.5}, a=0.2)
    assert at(e) == [PASS, PASS, PASS, FAIL, FAIL, FAIL]  # up is harder, which for this one is a lower bound
    assert e.reversed is not None
    assert e.reversed.outcome is FAIL


def test_a_bound_of_zero_is_moved_by_half_an_interval():
    """The interval is from 0.0252 to 0.0748."""
    e = measuring({"arm": "a", "above": 0.0}, a=0.04)
    assert at(e)[2:5] == [PASS, PASS, INCONCLUSIVE]


def test_a_bound_missed_by_far_would_hold_had_less_been_asked_for():
    for check, a in (({"above": 0.2}, -0.9), ({"below": 0.1}, 0.9)):
        e = measuring({"arm": "a", **check}, a=a)
        assert e.verdict.outcome is FAIL
        assert far(e)["moved onto what was measured"] is PASS


def test_a_measure_of_two_arms_is_reversed():
    e = measuring({"greater": "a", "than": "b", "by": 0.1}, a=0.5)
    assert e.verdict.outcome is PASS
    assert e.reversed is not None
    assert e.reversed.outcome is FAIL
    assert far(e)["moved above what was measured"] is FAIL


def test_bounds_that_contradict_each_other_are_a_defect():
    assert measuring({"arm": "a", "above": 0.5}, {"arm": "a", "below": 0.4}, a=0.45).fixed
    assert not measuring({"arm": "a", "above": 0.4}, {"arm": "a", "below": 0.5}, a=0.3).fixed


def of_measure(asked: Claim, metric: str, centre: float) -> Examined:
    """Arm `ours` of three seeds, with a measure around so much."""
    found = trained("ours", right(spread(60.0)))
    for m in found:
        assert m.record
        assert isinstance(m.record.result, TrainResult)
        m.record.result.measures[metric] = centre + 0.1 * (m.seed - 1)
    return examined(asked, found)


def test_a_reported_loss_moved_three_margins_either_way_fails():
    metric = "train_loss_sum_epoch_1"
    e = of_measure(value(500.0, 2.0, metric=metric), metric, 500.0)
    assert e.verdict.outcome is PASS
    assert at(e) == [FAIL, FAIL, INCONCLUSIVE, INCONCLUSIVE, FAIL, FAIL]
    assert far(e) == {
        "moved onto what was measured": PASS,
        "moved above what was measured": FAIL,
        "moved below what was measured": FAIL,
    }
    assert nearest(e) == ("-1 margin", INCONCLUSIVE)


def test_a_loss_that_would_be_negative_could_not_have_been_measured():
    metric = "train_loss_epoch_1"
    e = of_measure(value(1.0, 0.6, metric=metric), metric, 1.0)
    assert [trial(e, f"{step:+d} margin{'s' if abs(step) > 1 else ''}").counts for step in STEPS] == [
        *[True] * 4, False, False,
    ]  # fmt: skip
    e = of_measure(claim("ordering", {"all": [{"arm": "ours", "metric": metric, "above": 0.6}]}), metric, 1.0)
    assert [trial(e, f"+{step} margin{'s' if step > 1 else ''}").counts for step in (1, 2)] == [True, False]


def test_a_reported_loss_far_away_would_pass_had_the_measured_one_been_reported():
    metric = "train_loss_epoch_1"
    e = of_measure(value(5.0, 0.6, metric=metric), metric, 1.0)
    assert e.verdict.outcome is FAIL
    assert nearest(e) == ("moved onto what was measured", PASS)


# --- trends and equality ------------------------------------------------------------------------


def test_a_larger_gain_swapped_fails():
    e = examined(gain(), arms(vit_1=40.0, vit_2=70.0, resnet_1=45.0, resnet_2=55.0))
    assert e.verdict.outcome is PASS
    assert e.reversed is not None
    assert e.reversed.outcome is FAIL
    assert far(e)["moved above what was measured"] is FAIL


def test_a_gain_that_is_smaller_by_far_would_pass_swapped_or_had_less_been_asked_for():
    e = examined(gain(by=1.0), arms(vit_1=45.0, vit_2=55.0, resnet_1=40.0, resnet_2=70.0))
    assert e.verdict.outcome is FAIL
    assert nearest(e) == ("(vit-2 - vit-1) - (resnet-2 - resnet-1) reversed", PASS)
    assert far(e)["moved onto what was measured"] is PASS


def test_a_rise_reversed_falls():
    e = examined(increasing(by=2.0), arms(small=40.0, base=50.0, large=60.0))
    assert e.verdict.outcome is PASS
    assert e.reversed is not None
    assert e.reversed.outcome is FAIL


def test_a_rise_with_one_step_down_would_pass_had_that_step_been_asked_for_the_other_way():
    e = examined(increasing(by=2.0), arms(small=40.0, base=70.0, large=62.0))
    assert e.verdict.outcome is FAIL
    assert nearest(e) == ("large - base reversed", PASS)
    assert far(e)["moved onto what was measured"] is PASS


def test_a_rise_of_more_than_there_is_room_for_is_a_defect():
    e = examined(increasing(by=51.0), arms(small=40.0, base=50.0, large=60.0))
    assert e.verdict.outcome is FAIL
    assert e.fixed


def with_dip(by: float, dip: float) -> Claim:
    return claim("trend", {"increasing": ["small", "base", "large"], "by": by, "dip": dip})


def test_a_line_that_rises_with_a_dip_is_lost_where_no_dip_is_allowed():
    e = examined(with_dip(by=3.0, dip=2.0), arms(small=40.0, base=39.0, large=60.0))
    assert e.verdict.outcome is PASS
    assert at(e)[3:] != [PASS] * 3
    assert e.reversed is not None
    assert e.reversed.outcome is FAIL


def test_a_dip_too_deep_would_pass_had_less_been_asked_for():
    e = examined(with_dip(by=3.0, dip=1.0), arms(small=50.0, base=40.0, large=60.0))
    assert e.verdict.outcome is FAIL
    assert far(e)["moved onto what was measured"] is PASS
    assert nearest(e) == ("moved onto what was measured", PASS)


def test_equality_is_lost_where_a_difference_is_asked_for():
    e = examined(equivalence(3.0), arms(a=60.0, b=60.0))
    assert e.verdict.outcome is PASS
    assert at(e) == [FAIL, FAIL, INCONCLUSIVE, INCONCLUSIVE, FAIL, FAIL]


@pytest.mark.parametrize("centres", [{"a": 80.0, "b": 50.0}, {"a": 80.0, "b": 50.0, "c": 50.0}])
def test_arms_far_apart_would_be_equal_within_more(centres: dict[str, float]):
    e = examined(equivalence(2.0, tuple(centres)), arms(**centres))
    assert e.verdict.outcome is FAIL
    assert at(e) == [FAIL] * 6
    assert not e.fixed
    if len(centres) == 2:
        assert nearest(e) == ("moved onto what was measured", PASS)


# --- what is fixed ------------------------------------------------------------------------------


def test_a_verdict_that_nothing_changes_is_fixed():
    """Only changes that no measurement could have led to are left."""
    e = examined(ordering(), arms(a=80.0, b=60.0))
    fixed = dataclasses.replace(e, trials=tuple(t for t in e.trials if t.outcome is e.verdict.outcome or not t.counts))
    assert fixed.fixed
    assert fixed.nearest is None


def test_what_is_undecided_is_no_defect():
    of, found = ordering(), arms(a=70.0, b=60.0)
    verdict = judge(of, "gpu", found, registered_seeds=5)
    e = examine(of, verdict)
    assert (e.verdict.outcome, {t.outcome for t in e.trials}) == (INCONCLUSIVE, {INCONCLUSIVE})
    assert e.nearest is None
    assert not e.fixed


def test_one_seed_of_three_stays_undecided_whatever_is_reported():
    e = examined(value(60.0, 2.0), trained("ours", right([60.0], 2000)), seeds=3)
    assert e.verdict.outcome is INCONCLUSIVE
    assert {t.outcome for t in e.trials} == {INCONCLUSIVE}
    assert not e.fixed


# --- printed numbers ----------------------------------------------------------------------------


def literal(cells: Mapping[str, Any], let: Mapping[str, Any] | None = None, **checks: Any) -> Examined:
    expect = {"let": let or {}, "checks": {k: {"that": c} if isinstance(c, str) else c for k, c in checks.items()}}
    of = Claim.model_validate(
        {
            "id": "paper/claim",
            "source": {"paper": "a paper", "where": "Table 1"},
            "kind": "ordering",
            "statement": "It is so.",
            "reported": {"unit": "%", "decimals": 2, "cells": cells},
            "scales": {"literal": {"expect": expect}},
        }
    )
    find = claims.Registry({of.id: of}, {}, {}, {}).cells(of)
    assert of.scales.literal is not None
    return examine_literal(of, judge_literal(of, evaluate(of.scales.literal.expect, find)), find)  # type: ignore[arg-type]


def test_every_printed_cell_is_moved_in_its_last_digit():
    e = literal({"a": 50.02, "b": 50.0}, better="@a > @b")
    assert e.verdict.outcome is PASS
    moved = {t.name: t.outcome for t in e.trials if t.kind == "margins"}
    assert moved == {
        "a at 49.99": FAIL,
        "a at 50": INCONCLUSIVE,
        "a at 50.01": PASS,
        "a at 50.03": PASS,
        "a at 50.04": PASS,
        "a at 50.05": PASS,
        "b at 49.97": PASS,
        "b at 49.98": PASS,
        "b at 49.99": PASS,
        "b at 50.01": PASS,
        "b at 50.02": INCONCLUSIVE,
        "b at 50.03": FAIL,
    }
    assert at(e) == [FAIL, INCONCLUSIVE, PASS, PASS, INCONCLUSIVE, FAIL]


def test_equality_within_a_margin_is_moved_by_it():
    e = literal({"a": 50.0, "b": 50.0}, same={"that": "@a == @b", "within": 5})
    assert {t.name for t in e.trials if t.step == 2} == {"a at 60", "b at 60"}
    assert at(e) == [FAIL, FAIL, INCONCLUSIVE, INCONCLUSIVE, FAIL, FAIL]


@pytest.mark.parametrize(
    ("value", "decimals", "unit"), [(307, None, 1), (0.25, None, 0.01), (3e-05, None, 1e-05), (2500, -2, 100)]
)
def test_a_unit_of_the_last_digit_shown(value: float, decimals: int | None, unit: float):
    e = literal({"a": {"value": value, "decimals": decimals}}, positive="@a > 0")
    assert trial(e, f"a at {value + unit:.10g}").step == 1


def test_cells_behind_definitions_are_moved():
    e = literal({"a": 50.02, "b": 50.0}, let={"gap": {"value": "@a - @b"}}, better="@gap > 0")
    assert {t.name.split()[0] for t in e.trials if t.kind == "margins"} == {"a", "b"}
    assert not e.fixed


def test_a_number_far_from_the_other_is_moved_as_far_as_it_takes():
    e = literal({"a": 90.0, "b": 50.0}, better="@a > 0.5 * @b + 12.34")
    assert at(e) == [PASS] * 6
    assert nearest(e) == ("a cell moved until better does not hold", FAIL)


def test_every_comparison_that_does_not_hold_is_put_right():
    """Three cells would have to be others at once."""
    e = literal(
        {"a": 1718.0, "b": 834.0, "c": 50.0, "d": 60.0, "e": 3.0},
        doubled="@a == 2 * @b",
        better="@c > @d",
        least="@e >= 7",
    )
    assert e.verdict.outcome is FAIL
    assert at(e) == [FAIL] * 6
    assert nearest(e) == ("a cell moved in each that does not hold", PASS)


def test_most_of_several_comparisons_are_changed_together():
    cells = {"a": 50.0, "b": 60.0, "c": 70.0, "low": 10.0}
    check = {"that": "@{x} > @low", "each": {"x": ["a", "b", "c"]}, "holds": "most"}
    e = literal(cells, most=check)
    assert e.verdict.outcome is PASS
    assert far(e) == {"a cell moved until most does not hold": FAIL}
    e = literal(cells | {"low": 99.0}, most=check)
    assert e.verdict.outcome is FAIL
    assert far(e) == {"a cell moved in each that does not hold": PASS}


@pytest.mark.parametrize("that", ["@a + 1 > @a", "@a == claim/a", "abs(@a) >= 0", "2 > 1"])
def test_what_holds_of_any_number_is_a_defect(that: str):
    e = literal({"a": 50.0}, always=that)
    assert e.verdict.outcome is PASS
    assert e.fixed


def test_what_no_number_satisfies_is_a_defect():
    e = literal({"a": 50.0, "b": 60.0}, never="@a > @a + 1", fine="@b > @a")
    assert e.verdict.outcome is FAIL
    assert e.fixed


def test_a_cell_that_would_divide_by_zero_is_left_out():
    e = literal({"a": {"value": 2, "decimals": None}, "b": 50.0}, ratio="@b / @a > 10")
    assert "a at 0" not in {t.name for t in e.trials}
    assert "a at 1" in {t.name for t in e.trials}


# --- the claims that ship -----------------------------------------------------------------------


@pytest.mark.parametrize("case", EVERY)
def test_a_pass_of_every_shipped_claim_could_have_come_out_otherwise(case: Case):
    found = measured(case)
    verdict = case.judge(case.claim, found)
    e = examine(case.claim, verdict)
    assert verdict.outcome is (PASS if verdict.confirmable else INCONCLUSIVE)
    assert nearest(e)[1] is not verdict.outcome
    assert any(t.counts and t.outcome in (FAIL, EXCEEDS) for t in e.trials)


REGISTRY = claims.load()
LITERAL = [c for c in REGISTRY.claims.values() if c.scales.literal]


@pytest.mark.parametrize("of", LITERAL, ids=lambda c: c.id)
def test_every_shipped_claim_about_printed_numbers_could_have_come_out_otherwise(of: Claim):
    assert of.scales.literal is not None
    find = REGISTRY.cells(of)
    found = judge_literal(of, evaluate(of.scales.literal.expect, find))  # type: ignore[arg-type]
    assert nearest(examine_literal(of, found, find))[1] is not found.outcome
