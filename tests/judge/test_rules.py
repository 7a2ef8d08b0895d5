"""Rules by themselves: released models evaluated again, dips and shortfalls, p-values, power, numbers moved."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW
from verdict_cases import (
    claim,
    counted,
    equal,
    equivalence,
    evaluated,
    gap,
    increasing,
    judged,
    ordering,
    right,
    value,
)

from vitrepro.arrays import Bools, Floats
from vitrepro.judge import correction, rules, stats
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import Finding, Outcome, note
from vitrepro.judge.verdict import Verdict
from vitrepro.report import words
from vitrepro.report.words import number_text
from vitrepro.spec import Cell, OrderingExpect, ValueCheck

PASS, FAIL, EXCEEDS, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.EXCEEDS, Outcome.INCONCLUSIVE
Direction = Literal["two_sided", "at_least"]

HIGH, LOW = right([80, 81, 82], who=1), right([70, 71, 72], who=2)
APART = {"a": HIGH, "b": LOW}
ALIKE = {"a": right([80, 81, 80.5], who=1), "b": right([80.5, 80.2, 80.8], who=2)}


def ours(*percents: float, n: int = 10_000) -> dict[str, Bools]:
    """One arm, `ours`, with these accuracies."""
    return {"ours": right(percents, n)}


def finding(verdict: Verdict) -> Finding:
    (only,) = verdict.findings
    return only


def made(arms: Mapping[str, Bools]) -> dict[str, Arm]:
    return {name: Arm.of(rows, num_classes=10, regime="fine-tuned") for name, rows in arms.items()}


def measuring_arm(values: list[float]) -> Arm:
    made = Arm.of(right([80, 81, 82, 83][: len(values)]), num_classes=10, regime="fine-tuned")
    return dataclasses.replace(made, measures={"attention_low_max": values})


def bounded(arm: Arm, side: Mapping[str, float]) -> Finding:
    """The finding on a bound on its measure."""
    expect = OrderingExpect.model_validate({"all": [{"arm": "a", "metric": "attention_low_max", **side}]})
    (found,) = rules.findings(expect, {}, {"a": arm})
    return found


# --- one set of weights evaluated again ---------------------------------------------------------


def again(
    k: int, n: int, reported: float, decimals: int | None, margin: float = 0.1, direction: Direction = "two_sided"
) -> Finding:
    """The finding on k of n images right, against a printed number of the same weights."""
    check = ValueCheck(arm="ours", margin=margin, direction=direction, same_weights=True)
    arm = Arm((100 * k / n,), n, num_classes=10, regime="fine-tuned")
    return evaluated("top1", check, Cell(value=reported, decimals=decimals), arm)


def by_enumeration(k: int, n: int, reported: float, decimals: int | None, margin: float, direction: str) -> Outcome:
    """Every count that rounds to the printed number is held against ours; integers and exact decimals only."""
    unit = 10 ** (decimals if decimals is not None else 9)
    printed = round(reported * unit)
    # k/n in percent rounds to `printed` units if |100 k unit / n - printed| <= 1/2
    counts = [c for c in range(n + 1) if 2 * abs(100 * c * unit - printed * n) <= (n if decimals is not None else 0)]
    assert counts
    thousandths = max(round(1000 * margin) * n, 100_000)  # margin in thousandths of a point, at least an image
    off = [100_000 * (k - c) for c in counts]
    if all(-thousandths <= x and (x <= thousandths or direction == "at_least") for x in off):
        above_chance = scipy.stats.binomtest(k, n, 0.1, "greater").pvalue < 0.05
        return PASS if above_chance else INCONCLUSIVE
    if all(x < -thousandths for x in off):
        return FAIL
    if all(x > thousandths for x in off) and direction == "two_sided":
        return EXCEEDS
    return INCONCLUSIVE


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0, 1.2])
@pytest.mark.parametrize("decimals", [0, 1, 2, None])
def test_the_same_weights_are_judged_as_every_count_says_that_rounds_to_the_printed_number(
    decimals: int | None, margin: float
):
    n, seen = 200, set()
    for right_there in (20, 31, 100, 117, 161, 198):
        exact = 100 * right_there / n
        reported = exact if decimals is None else round(exact, decimals)
        for k in range(n + 1):
            expected = by_enumeration(k, n, reported, decimals, margin, "two_sided")
            assert again(k, n, reported, decimals, margin).outcome is expected, (k, reported)
            seen.add(expected)
    assert seen >= {PASS, FAIL, EXCEEDS, INCONCLUSIVE}


@pytest.mark.parametrize(("n", "decimals"), [(797, 0), (2000, 1), (3669, 1), (10_000, 1)])
def test_where_several_counts_round_to_a_number_an_edge_among_them_decides_nothing(n: int, decimals: int):
    """On 10,000 images a printed 85.0 is 8,495 to 8,505."""
    right_there = round(0.85 * n)
    reported = round(100 * right_there / n, decimals)
    seen = set()
    for k, margin in itertools.product(range(right_there - n // 40, right_there + n // 40), (0.1, 0.6)):
        expected = by_enumeration(k, n, reported, decimals, margin, "two_sided")
        assert again(k, n, reported, decimals, margin).outcome is expected, (k, margin)
        seen.add(expected)
    assert {FAIL, EXCEEDS, INCONCLUSIVE} <= seen


@pytest.mark.parametrize("decimals", [0, 1, None])
def test_the_same_weights_are_at_least_as_good_whatever_they_have_more(decimals: int | None):
    n = 200
    for right_there, margin in itertools.product((117, 161), (0.1, 1.0)):
        exact = 100 * right_there / n
        reported = exact if decimals is None else round(exact, decimals)
        for k in range(n + 1):
            expected = by_enumeration(k, n, reported, decimals, margin, "at_least")
            assert again(k, n, reported, decimals, margin, "at_least").outcome is expected, (k, reported)


def test_no_more_images_than_there_are_round_to_a_printed_100():
    """100% without decimals is 199 or 200 of 200, never 201; 199 is within one image of both."""
    assert by_enumeration(199, 200, 100.0, 0, 0.1, "two_sided") is PASS
    assert again(199, 200, 100.0, 0).outcome is PASS


def test_a_number_that_no_count_rounds_to_stands_for_all_that_it_may_be():
    """80.2% of 200 is 160.3 to 160.5 images; it may be the mean of several runs."""
    outcomes = [again(k, 200, 80.2, 1).outcome for k in (158, 159, 160, 161, 162, 163)]
    assert outcomes == [FAIL, FAIL, PASS, PASS, EXCEEDS, EXCEEDS]


def test_one_image_more_or_less_is_always_within_the_tolerance():
    assert [again(k, 200, 80.5, 1, 0.01).outcome for k in (159, 160, 161, 162, 163)] == [
        FAIL, PASS, PASS, PASS, EXCEEDS
    ]  # fmt: skip


def test_nothing_is_random_in_the_same_weights():
    """No interval, no p-value and no label of one seed."""
    verdict = judged(value(80.0, 0.1, same_weights=True, decimals=2), ours(80.05))
    f = finding(verdict)
    assert (verdict.outcome, words.qualifiers(verdict), verdict.p, verdict.p_against) == (PASS, (), None, None)
    assert (f.form, f.interval, f.deciding, f.power, f.detectable) == ("count", *(None,) * 4)
    assert "The same weights, so nothing is random: +5.0 images" in words.reason(verdict)
    assert words.qualifiers(judged(value(80.0, 0.1), ours(80.05))) == ("1 seed",)
    for percent, outcome in ((80.3, EXCEEDS), (79.7, FAIL)):
        assert judged(value(80.0, 0.1, same_weights=True, decimals=2), ours(percent)).outcome is outcome


def test_a_cell_of_trained_models_beside_the_same_weights_keeps_the_label_of_its_seeds():
    cells = {"x": {"arm": "ours", "margin": 2.0}, "y": {"arm": "ours", "margin": 2.0, "same_weights": True}}
    verdict = judged(claim("value", {"cells": cells}, {"x": 80.0, "y": 80.0}), ours(80))
    assert [f.form for f in verdict.findings] == ["value", "count"]
    assert words.qualifiers(verdict) == ("1 seed",)


def test_the_same_weights_decide_nothing_where_they_guess_or_see_part_of_the_test_set():
    guessing = judged(value(10.0, 0.1, same_weights=True), ours(10))
    assert guessing.outcome is INCONCLUSIVE
    assert "ours is not above chance" in words.reason(guessing)
    for percent in (80, 85):
        part = judged(value(80.0, 0.1, same_weights=True), ours(percent), complete_n=10_001)
        assert part.outcome is INCONCLUSIVE
        assert "part of the test set decides nothing" in words.reason(part)


# --- no worse than, by more than so much --------------------------------------------------------


def test_an_arm_is_no_worse_where_it_falls_short_by_less_than_allowed():
    b = right([80, 80.5, 81], 5000, who=2)
    for percents, outcome in (([82, 82.5, 83], PASS), ([80, 80.5, 81], PASS), ([79, 79.5, 80], PASS),
                              ([77, 77.5, 78], INCONCLUSIVE), ([74, 74.5, 75], FAIL)):  # fmt: skip
        a = right(percents, 5000, who=1)
        verdict = judged(ordering(by=-3.0), {"a": a, "b": b})
        assert verdict.outcome is outcome, percents
        assert finding(verdict).accepted == (-3.0, np.inf)
        assert "the largest shortfall of 3" in words.reason(verdict)


def test_to_be_no_worse_needs_no_significant_difference_of_one_model_each():
    """Five images of a thousand apart is p = 0.06 by McNemar; neither order holds, but neither is 2 points worse."""
    a, b = (np.arange(1000)[None] < k for k in (800, 805))
    for arms in ({"a": a, "b": b}, {"a": b, "b": a}):
        assert judged(ordering(), arms).outcome is INCONCLUSIVE
        verdict = judged(ordering(by=-2.0), arms)
        assert verdict.outcome is PASS
        p = finding(verdict).p
        assert p is not None
        assert p < 1e-3


def test_to_be_no_worse_than_a_model_without_room_above_it_shows_nothing():
    arms = {"a": right([98.5, 98.6, 98.7], 5000, who=1), "b": right([98.4, 98.5, 98.6], 5000, who=2)}
    verdict = judged(ordering(by=-2.0), arms)
    assert verdict.outcome is INCONCLUSIVE
    assert "b has 1.50 points left to 100%" in words.reason(verdict)
    assert judged(ordering(by=-1.0), arms).outcome is PASS


def test_a_shortfall_of_half_the_way_to_chance_shows_nothing():
    """45% is 35 points above chance: 17 may be missing, 18 may not."""
    arms = {"a": right([42, 42.1, 42.2], 5000, who=1), "b": right([45, 45.1, 45.2], 5000, who=2)}
    verdict = judged(ordering(by=-18.0), arms)
    assert verdict.outcome is INCONCLUSIVE
    assert "has over chance, 35.10" in words.reason(verdict)
    assert judged(ordering(by=-17.0), arms).outcome is PASS


def test_one_model_under_two_names_is_not_no_worse_than_itself():
    same = right([80])
    verdict = judged(ordering(by=-2.0), {"a": same, "b": same})
    assert verdict.outcome is INCONCLUSIVE
    assert "exactly the same images" in words.reason(verdict)


def test_an_arm_that_guesses_is_no_worse_than_nothing():
    arms = {"a": right([10, 10.1, 10.2], 5000, who=1), "b": right([10, 10.1, 10.2], 5000, who=2)}
    assert judged(ordering(by=-3.0), arms).outcome is INCONCLUSIVE


# --- what guessing gives ------------------------------------------------------------------------


def test_chance_is_one_of_the_classes_or_the_share_of_the_commonest_whichever_is_more():
    for commonest, chance in ((0, 10.0), (50, 10.0), (300, 30.0)):
        assert Arm.of(HIGH, num_classes=10, commonest=commonest, regime="fine-tuned").chance == pytest.approx(chance)


@pytest.mark.parametrize(("commonest", "outcome"), [(500, PASS), (1500, INCONCLUSIVE)])
def test_a_margin_is_measured_against_the_commonest_class_too(commonest: int, outcome: Outcome):
    """38% is 28 points above one of ten classes, and 8 above naming a class of 30% every time."""
    pair = {"a": right([38] * 3, 5000, who=1), "b": right([38] * 3, 5000, who=2)}
    arms = {name: Arm.of(rows, num_classes=10, commonest=commonest, regime="fine-tuned") for name, rows in pair.items()}
    found = equal("a", "b", 4.0, arms)
    assert found.outcome is outcome
    assert ("half the distance to chance, 30.00" in words.decides(found)) == (outcome is INCONCLUSIVE)


# --- a rise with dips ---------------------------------------------------------------------------

FIVE = ("one", "two", "three", "four", "five")


def rising(*percents: float, arms: Sequence[str] = FIVE, n: int = 5000) -> dict[str, Bools]:
    """Three seeds of every arm around these accuracies."""
    return {
        name: right([p - 0.3, p, p + 0.3], n, who=i) for i, (name, p) in enumerate(zip(arms, percents, strict=False))
    }


@pytest.mark.parametrize(
    ("percents", "outcome"),
    [
        ((50, 60, 65, 70, 80), PASS),
        ((50, 61, 60, 70, 80), PASS),  # falls by one point, three are allowed
        ((50, 63, 60, 70, 80), INCONCLUSIVE),  # by just as many as allowed
        ((50, 68, 60, 70, 80), FAIL),  # by eight
        ((70, 70, 70, 70, 70), INCONCLUSIVE),  # no line rises
        ((80, 78.5, 77, 75.5, 74), FAIL),  # small steps, but the line falls
    ],
)
def test_a_rise_may_dip_by_so_much_and_no_more(percents: tuple[float, ...], outcome: Outcome):
    arms = rising(*percents)
    assert judged(increasing(dip=3.0, arms=FIVE), arms).outcome is outcome
    if outcome is PASS and percents[2] < percents[1]:
        assert judged(increasing(arms=FIVE), arms).outcome is not PASS  # a rise at every step it is not


@pytest.mark.parametrize("number", [3, 4, 5])
def test_the_line_of_a_rise_is_that_of_least_squares_from_its_first_arm_to_its_last(number: int):
    arms = rising(50, 60, 59, 75, 80)
    names = FIVE[:number]
    verdict = judged(increasing(dip=3.0, arms=names), {name: arms[name] for name in names})
    line, *steps = verdict.findings
    means = [100 * arms[name].mean() for name in names]
    assert line.label == f"line from one to {names[-1]}"
    assert line.measured == pytest.approx(np.polyfit(range(number), means, 1)[0] * (number - 1))
    assert [f.label for f in steps] == [f"{b} - {a}" for a, b in itertools.pairwise(names)]
    assert [f.bound for f in steps] == [-3.0] * (number - 1)
    assert [f.measured for f in steps] == pytest.approx(np.diff(means))


def test_a_step_near_100_percent_holds_as_long_as_the_rise_as_a_whole_could_fail():
    """From 98.5% no step falls by three points, whatever comes before; the line from 80% could have been flat."""
    arms = rising(80, 98.5, 99, arms=("small", "base", "large"))
    verdict = judged(increasing(dip=3.0), arms)
    assert verdict.outcome is PASS
    assert [f.outcome for f in verdict.findings] == [PASS] * 3
    assert judged(ordering(by=-3.0), {"a": arms["large"], "b": arms["base"]}).outcome is INCONCLUSIVE


def test_with_dips_the_least_gain_is_asked_of_the_whole_line():
    arms = rising(50, 61, 60, 70, 80)
    for by, outcome in ((0, PASS), (20, PASS), (28, INCONCLUSIVE), (33, FAIL)):  # the line rises by 27.6 points
        verdict = judged(increasing(by, dip=3.0, arms=FIVE), arms)
        assert verdict.outcome is outcome, by
        assert [f.bound for f in verdict.findings] == [by, -3, -3, -3, -3]
    assert judged(increasing(20), rising(40, 50, 80, arms=("small", "base", "large"))).outcome is FAIL  # of every step


@pytest.mark.parametrize("number", [3, 4, 5])
def test_the_first_arm_of_a_line_may_guess(number: int):
    """It is the last that must be above chance to have risen."""
    arms = rising(10, 30, 50, 70, 90)
    names = FIVE[:number]
    line = judged(increasing(dip=3.0, arms=names), {name: arms[name] for name in names}).findings[0]
    assert line.outcome is PASS


# --- p-values -----------------------------------------------------------------------------------

seeds = st.lists(st.integers(250, 390), min_size=1, max_size=4).map(tuple)  # of 400 images


def rows(counts: Iterable[int], who: int = 0) -> Bools:
    return right([c / 4 for c in counts], 400, who)


def decides_as_its_p_values_say(f: Finding, refuted: tuple[Outcome, ...] = (FAIL, EXCEEDS)) -> None:
    """Below 5% exactly where the outcome is decided, unless a rule kept it from deciding."""
    assert f.p is not None
    assert f.p_against is not None
    assert f.deciding is not None
    assert f.accepted is not None
    capped = ", but " in words.decides(f)
    assert (f.p < 0.05) == (f.outcome is PASS) or capped
    assert (f.p_against < 0.05) == (f.outcome in refuted) or capped
    assert not (f.p < 0.05 and f.p_against < 0.05)
    inside = f.accepted[0] < f.deciding.low and f.deciding.high < f.accepted[1]
    assert inside == (f.outcome is PASS) or capped or "McNemar" in words.decides(f)


@settings(deadline=None)
@given(seeds, st.floats(60, 99), st.floats(0.1, 15), st.sampled_from(["two_sided", "at_least"]), st.booleans())
def test_a_value_is_decided_where_its_p_value_is_below_5_percent(
    counts: tuple[int, ...], reported: float, margin: float, direction: Direction, printed: bool
):
    check = ValueCheck(arm="ours", margin=margin, direction=direction)
    cell = Cell(value=reported, sd=0.5 if printed else None, runs=3 if printed else None)
    decides_as_its_p_values_say(
        evaluated("top1", check, cell, Arm.of(rows(counts), num_classes=10, regime="fine-tuned"))
    )


@settings(deadline=None)
@given(seeds, seeds, st.floats(-20, 20) | st.just(0.0), st.floats(0.1, 20))
def test_a_gap_and_an_equality_are_decided_where_their_p_values_are_below_5_percent(
    first: tuple[int, ...], second: tuple[int, ...], by: float, within: float
):
    arms = made({"a": rows(first), "b": rows(second, who=1)})
    decides_as_its_p_values_say(gap("a - b", {"a": 1, "b": -1}, by, arms, ("a", "b")))
    decides_as_its_p_values_say(equal("a", "b", within, arms))


def test_the_p_value_of_a_value_is_that_of_tost():
    accuracies = [79.6, 80.1, 80.4, 80.3]
    arm = Arm.of(right(accuracies, 10_000), num_classes=10, regime="fine-tuned")
    for reported, margin in ((80, 0.5), (80.3, 1), (81, 0.5), (78, 1)):
        f = evaluated("top1", ValueCheck(arm="x", margin=margin), Cell(value=reported, sd=1e-12), arm)
        p, (_, above, _), (_, below, _) = DescrStatsW(accuracies).ttost_mean(reported - margin, reported + margin)
        assert f.p == pytest.approx(p, rel=1e-4, abs=1e-12)
        against = min(1 - above + below, 1 - below + above, 1.0)  # as far beyond one edge or the other
        assert f.p_against == pytest.approx(against, rel=1e-4, abs=1e-12)
        check = ValueCheck(arm="x", margin=margin, direction="at_least")
        one_sided = evaluated("top1", check, Cell(value=reported, sd=1e-12), arm)
        assert (one_sided.p, one_sided.p_against) == pytest.approx((above, 1 - above), rel=1e-4, abs=1e-12)


def estimated(*arms: Bools) -> stats.Estimate:
    both = stats.right_together(arms)
    return rules.contrast(both, arms[0].shape[1], [len(a) for a in arms], [1, -1], ["fine-tuned"] * 2)[1]


def test_the_p_value_of_an_order_is_two_sided_and_mcnemars_stands_beside_it():
    first, second = (np.arange(1000)[None] < k for k in (812, 800))
    arms = made({"a": first, "b": second})
    estimate = estimated(first, second)
    f = gap("a - b", {"a": 1, "b": -1}, 0.0, arms, ("a", "b"))
    assert (f.p, f.p_against) == (pytest.approx(2 * scipy.stats.norm.sf(estimate.centre / estimate.se)), 1.0)
    both_ways = made({"a": np.arange(1000)[None] < 561, "b": (np.arange(1000)[None] + 39) % 1000 < 539})
    f = gap("a - b", {"a": 1, "b": -1}, 0.0, both_ways, ("a", "b"))
    assert f.mcnemar == pytest.approx(mcnemar([[500, 61], [39, 400]], exact=True).pvalue)  # told, and decides nothing
    assert f.p is not None
    assert f.p < f.mcnemar
    beyond = gap("a - b", {"a": 1, "b": -1}, 1.0, arms, ("a", "b"))
    assert beyond.p == pytest.approx(2 * scipy.stats.norm.sf((estimate.centre - 1) / estimate.se))
    shortfall = gap("a - b", {"a": 1, "b": -1}, -1.0, both_ways, ("a", "b"))
    estimate = estimated(*(arm.correct for arm in both_ways.values() if arm.correct is not None))
    assert shortfall.p == pytest.approx(2 * scipy.stats.norm.sf((estimate.centre + 1) / estimate.se))
    several = gap("a - b", {"a": 1, "b": -1}, 9.0, made(APART), ("a", "b"))
    estimate = estimated(HIGH, LOW)
    x = (estimate.centre - 9) / estimate.se
    assert several.p == pytest.approx(2 * scipy.stats.t.sf(x, estimate.freedom))
    assert several.p_against == 1.0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(-2000, 2000).map(lambda x: x / 1000), min_size=3, max_size=4, unique=True), st.floats(-2, 2)
)
def test_the_p_value_of_a_measure_is_scipys_t_test(values: list[float], edge: float):
    arm = measuring_arm(values)
    test = scipy.stats.ttest_1samp(values, edge)
    for side, sign in (("above", 1), ("below", -1)):
        f = bounded(arm, {side: edge})
        on_its_side = sign * test.statistic > 0
        assert f.p == pytest.approx(test.pvalue if on_its_side else 1.0, rel=1e-6)
        assert f.p_against == pytest.approx(1.0 if on_its_side else test.pvalue, rel=1e-6)
        decides_as_its_p_values_say(f)


def with_p(outcome: Outcome, *ps: tuple[float | None, float | None]) -> Verdict:
    """A verdict of findings with these p-values for and against."""
    found: Any = tuple(SimpleNamespace(outcome=outcome, p=p, p_against=against) for p, against in ps)
    return Verdict("paper/claim", outcome, "gpu", "exact", note("findings"), findings=found)


def test_all_findings_must_hold_and_one_is_enough_against():
    several = with_p(FAIL, (0.03, 0.9), (0.9, 0.01), (0.01, 0.8))
    assert (several.p, several.p_against) == (0.9, pytest.approx(0.03))
    assert with_p(FAIL, *[(0.5, 0.6)] * 3).p_against == pytest.approx(0.6)  # Simes: all of them a little
    assert (with_p(PASS, (0.02, 0.4)).p, with_p(PASS, (0.02, 0.4)).p_against) == (0.02, 0.4)


def test_where_nothing_is_random_there_is_no_p_value():
    assert (with_p(PASS, (None, None)).p, with_p(PASS, (None, None)).p_against) == (None, None)
    assert (with_p(Outcome.NOT_RUN).p, with_p(Outcome.NOT_RUN).p_against) == (None, None)
    quantity = {"arm": "b16", "quantity": "depth", "tolerance": 0}
    exact = judged(claim("exact", {"cells": {"c": quantity}}, {"c": 12}), counted("b16", {"depth": 12}))
    assert (exact.outcome, exact.p, exact.p_against) == (PASS, None, None)


def test_p_values_of_a_verdict_are_those_of_its_findings():
    three = {name: right([p] * 3, 5000, who=i) for i, (name, p) in enumerate((("a", 80), ("b", 80.5), ("c", 82)))}
    verdict = judged(equivalence(2.5, ("a", "b", "c")), three)
    for_it, against = ([getattr(f, p) for f in verdict.findings] for p in ("p", "p_against"))
    assert (verdict.p, verdict.p_against) == (max(for_it), stats.simes(against))


# --- what accuracies and printed digits can be --------------------------------------------------


def test_a_printed_spread_is_at_least_half_its_last_digit():
    for sd, decimals, expected in ((0.0, 2, 0.005), (0.02, 2, 0.02), (0.0, None, 0.0), (None, 2, None), (0.3, 0, 0.5)):
        assert rules.printed_sd(Cell(value=90.0, sd=sd, decimals=decimals)) == expected
    check, arm = ValueCheck(arm="ours", margin=1.0), Arm((90.0,), 10_000, num_classes=10)
    rounded, plain = (
        evaluated("top1", check, Cell(value=90.0, sd=sd, runs=3, decimals=0), arm).deciding for sd in (0.3, 0.5)
    )
    assert rounded == plain


def test_no_interval_reaches_beyond_what_accuracies_can_be():
    """Three seeds far apart, near 100%."""
    far = {"a": right([60, 90, 99.5], who=1), "b": right([12, 30, 70], who=2)}
    arms = made(far)
    f = gap("a - b", {"a": 1, "b": -1}, 0.0, arms, ("a", "b"))
    assert f.interval is not None
    assert -100 < f.interval.low < f.interval.high == 100
    f = evaluated("top1", ValueCheck(arm="a", margin=5), Cell(value=98.0), arms["a"])
    assert f.interval is not None
    assert f.deciding is not None
    assert (f.interval.low >= 0, f.interval.high, f.deciding.high) == (True, 100, 2)


def test_a_difference_that_accuracies_cannot_have_is_told_as_none():
    arms = made({"a": right([20, 90], who=1), "b": right([30, 80], who=2)})
    assert gap("a - b", {"a": 1, "b": -1}, 0.0, arms, ("a", "b")).detectable is None
    assert equal("a", "b", 5.0, arms).detectable is None
    assert evaluated("top1", ValueCheck(arm="a", margin=5), Cell(value=50.0), arms["a"]).detectable is None


def test_seeds_that_give_one_value_of_a_measure_have_no_interval():
    arm = measuring_arm([0.5, 0.5, 0.5])
    f = bounded(arm, {"above": 0.1})
    assert (f.outcome, f.interval, f.p) == (INCONCLUSIVE, None, None)
    assert "Seeds that all agree have no interval" in words.decides(f)


# --- many claims --------------------------------------------------------------------------------

some_p = st.floats(0, 1) | st.sampled_from([0.0, 0.001, 0.01, 0.049, 0.05, 0.2])
judgements = st.builds(
    lambda outcome, p, against, random: with_p(outcome, (p, against) if random else (None, None)),
    st.sampled_from([PASS, FAIL, EXCEEDS, INCONCLUSIVE]),
    some_p,
    some_p,
    st.sampled_from([True, True, True, False]),
)


@settings(deadline=None, max_examples=12)  # statsmodels takes its time
@given(st.lists(judgements, max_size=9))
def test_adjusted_p_values_are_holms_of_all_claims_in_which_something_is_random(verdicts: list[Verdict]):
    adjusted = correction.holm(verdicts)
    assert len(adjusted) == len(verdicts)
    for side, (attribute, decided) in enumerate((("p", (PASS,)), ("p_against", (FAIL, EXCEEDS)))):
        family = [v for v in verdicts if getattr(v, attribute) is not None]
        capped = [v.outcome not in decided and getattr(v, attribute) < 0.05 for v in family]
        own = [1.0 if c else getattr(v, attribute) for v, c in zip(family, capped, strict=True)]
        oracle = multipletests(own, method="holm")[1].tolist() if own else []
        expected = iter(None if c else p for p, c in zip(oracle, capped, strict=True))
        for v, found in zip(verdicts, adjusted, strict=True):
            due = None if getattr(v, attribute) is None else next(expected)
            assert found[side] == (due if due is None else pytest.approx(due))


def test_a_claim_that_a_rule_kept_from_deciding_counts_in_the_family_and_is_not_significant():
    clear, kept = with_p(PASS, (0.01, 1.0)), with_p(INCONCLUSIVE, (0.001, 1.0))
    assert correction.holm([clear, kept]) == [(pytest.approx(0.02), 1.0), (None, 1.0)]
    assert correction.holm([clear]) == [(0.01, 1.0)]
    refuted = with_p(FAIL, (1.0, 0.02))
    assert correction.holm([refuted, with_p(EXCEEDS, (1.0, 0.03)), with_p(INCONCLUSIVE, (1.0, 0.001))]) == [
        (1.0, pytest.approx(0.06)), (1.0, pytest.approx(0.06)), (1.0, 1.0)
    ]  # fmt: skip


def test_claims_without_chance_and_claims_not_run_are_no_part_of_the_family():
    beside = [with_p(PASS, (None, None)), with_p(Outcome.NOT_RUN), with_p(Outcome.ERROR)]
    assert correction.holm([with_p(PASS, (0.03, 1.0)), *beside]) == [(0.03, 1.0), *[(None, None)] * 3]


# --- how strong a test was ----------------------------------------------------------------------

GRID = 500


def drawn(freedom: float) -> Floats:
    """What an estimate may be off, in standard errors: equally likely values of Student's t."""
    shares = (np.arange(GRID) + 0.5) / GRID
    return scipy.stats.norm.ppf(shares) if np.isinf(freedom) else scipy.stats.t.ppf(shares, freedom)


def share(outcomes: Iterable[Outcome], *wanted: Outcome) -> float:
    outcomes = list(outcomes)
    return sum(o in wanted for o in outcomes) / len(outcomes)


@pytest.mark.parametrize("direction", ["two_sided", "at_least"])
@pytest.mark.parametrize("counts", [(9000,), (8990, 9010, 9025), (8950, 8990, 9010, 9025, 9060)])
@pytest.mark.parametrize("margin", [0.6, 0.9, 1.5])
def test_the_power_of_a_value_is_how_often_it_would_pass_if_it_were_equal(
    counts: tuple[int, ...], margin: float, direction: Direction
):
    """The reported number is laid off by all that the estimate may be off at this spread; the rule then decides."""
    accuracies = [c / 100 for c in counts]
    arm = Arm(tuple(accuracies), 10_000, num_classes=10, regime="fine-tuned")
    check = ValueCheck(arm="ours", margin=margin, direction=direction)
    estimate = rules.difference(accuracies, 10_000, 90.0, regime="fine-tuned")

    def found(difference: float) -> Finding:
        return evaluated("top1", check, Cell(value=arm.mean - difference), arm)

    off = drawn(estimate.freedom) * estimate.se
    power, detectable = found(0).power, found(0).detectable
    assert power is not None
    assert detectable is not None
    assert share((found(x).would_be for x in off), PASS) == pytest.approx(power, abs=1.5 / GRID)
    assert share((found(x - detectable).outcome for x in off), FAIL) == pytest.approx(0.8, abs=1.5 / GRID)
    if direction == "two_sided":
        assert share((found(x + detectable).outcome for x in off), EXCEEDS) == pytest.approx(0.8, abs=1.5 / GRID)


def test_a_test_that_cannot_pass_has_no_power_and_one_that_can_hardly_miss_has_all_of_it():
    check, cell = (lambda m: ValueCheck(arm="ours", margin=m)), Cell(value=90)
    few, many = (Arm((90.0,), n, num_classes=10, regime="fine-tuned") for n in (100, 1_000_000))
    assert evaluated("top1", check(3), cell, few).power == 0.0
    assert evaluated("top1", check(3), cell, many).power == pytest.approx(1.0)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_power_of_an_equality_and_what_it_would_refute_are_those_of_its_rule(k: int):
    arms = made({"a": right(np.linspace(80, 81, k), 3000, who=1), "b": right(np.linspace(79, 81, k), 3000, who=2)})
    _, estimate = rules.contrast_of({"a": 1, "b": -1}, arms)
    off = drawn(estimate.freedom) * estimate.se
    within = 2.2 * stats.t_quantile(0.95, estimate.freedom) * estimate.se

    def outcomes(truth: float) -> list[Outcome]:
        return [equal("a", "b", within, arms).moved(estimate.centre - truth - x).would_be for x in off]

    f = equal("a", "b", within, arms)
    assert f.power is not None
    assert f.detectable is not None
    assert 0.5 < f.power < 1
    assert share(outcomes(0), PASS) == pytest.approx(f.power, abs=1.5 / GRID)
    assert share(outcomes(f.detectable), FAIL) == pytest.approx(0.8, abs=1.5 / GRID)
    assert share(outcomes(-f.detectable), FAIL) == pytest.approx(0.8, abs=1.5 / GRID)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_detectable_gap_passes_four_times_of_five(k: int):
    arms = made({"a": right(np.linspace(80, 81, k), 3000, who=1), "b": right(np.linspace(70, 71, k), 3000, who=2)})
    weights = {"a": 1, "b": -1}
    _, estimate = rules.contrast_of(weights, arms)
    at = gap("a - b", weights, 1.0, arms, ("a", "b"))
    assert at.detectable is not None
    assert at.power is None  # it depends on how large the gap is
    reach = at.detectable - 1.0
    edges = [estimate.centre - reach - x for x in drawn(estimate.freedom) * estimate.se]
    found = [gap("a - b", weights, edge, arms, ("a", "b")).outcome for edge in edges]
    assert share(found, PASS) == pytest.approx(0.8, abs=1.5 / GRID)


@pytest.mark.parametrize(("side", "sign"), [("above", 1), ("below", -1)])
def test_the_detectable_measure_passes_four_times_of_five(side: str, sign: int):
    arm = measuring_arm([0.2, 0.5, 0.3])
    estimate, _ = rules.over_seeds([arm], "attention_low_max")
    assert estimate is not None

    def found(edge: float) -> Finding:
        return bounded(arm, {side: edge})

    detectable = found(0.1).detectable
    assert detectable is not None
    reach = detectable - 0.1
    assert sign * reach > 0
    outcomes = [found(estimate.centre - reach - x).outcome for x in drawn(estimate.freedom) * estimate.se]
    assert share(outcomes, PASS) == pytest.approx(0.8, abs=1.5 / GRID)


# --- the same runs, had another number been reported --------------------------------------------


def test_what_is_counted_exactly_is_shown_exactly():
    assert [number_text(x) for x in (85_606_666.0, 1e6, 999_999.0, 12.345678, 1_234_567.5, 1e20)] == [
        "85,606,666",
        "1,000,000",
        "999999",
        "12.3457",
        "1.23457e+06",
        "1e+20",
    ]


@pytest.mark.parametrize(
    ("check", "by"), [({"tolerance": 0.5}, 0.5), ({"relative_tolerance": 0.1}, 1.2), ({"tolerance": 0}, 12.0)]
)
def test_a_counted_number_is_moved_up_by_its_tolerance_or_by_itself(check: dict[str, Any], by: float):
    def outcome(found: float, direction: str, moved: float) -> Finding:
        cells = {"c": {"arm": "b16", "quantity": "depth", "direction": direction, **check}}
        f = finding(judged(claim("exact", {"cells": cells}, {"c": 12}), counted("b16", {"depth": found})))
        return f.moved(moved * f.region.unit)

    for moved in (-2.0, -1.5, 1.5, 2.0):
        for direction in ("equal", "at_least", "at_most"):
            f = outcome(12, direction, moved)
            assert f.region.unit == pytest.approx(by)
            holds = direction == ("at_most" if moved > 0 else "at_least")
            assert f.outcome is (PASS if holds else FAIL), (moved, direction)
            assert outcome(12 + moved * by, "equal", moved).outcome is PASS


# --- where only accuracies are known ------------------------------------------------------------


def test_arms_without_predictions_are_compared_unpaired_and_said_to_be():
    a, b, c = (Arm((x,), 10_000, num_classes=10, regime="fine-tuned") for x in (85.0, 80.0, 85.2))
    apart = {"a": a, "b": b}
    f = gap("a - b", {"a": 1, "b": -1}, 0.0, apart, ("a", "b"))
    _, estimate = rules.unpaired([[85.0], [80.0]], [1, -1], 10_000, ["fine-tuned"] * 2)
    assert (f.outcome, f.interval) == (PASS, estimate.interval(0.95))
    assert "(unpaired, images or seeds, so at least 95%)" in words.decides(f)
    assert "McNemar" not in words.decides(f)
    near = {"a": a, "b": c}
    assert equal("a", "b", 2.0, near).outcome is PASS


def test_one_arm_without_predictions_leaves_no_pairs():
    arms = {
        "a": Arm.of(HIGH, num_classes=10, regime="fine-tuned"),
        "b": Arm((70.0, 71.0, 72.0), 1000, num_classes=10, regime="fine-tuned"),
    }
    accuracies = [a.accuracies for a in arms.values()]
    assert rules.contrast_of({"a": 1, "b": -1}, arms) == rules.unpaired(accuracies, [1, -1], 1000, ["fine-tuned"] * 2)
