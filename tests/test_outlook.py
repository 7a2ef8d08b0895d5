"""What planned runs can tell, held against draws, against the rules themselves, and comparison by comparison."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, norm, t
from verdict_cases import equivalence, gain, increasing, judged, ordering, planned, right, value

from vitrepro import power, rules, stats
from vitrepro.arrays import Floats
from vitrepro.calibration import TRAINED
from vitrepro.power import Expected, Outlook
from vitrepro.rules import Arm, Outcome
from vitrepro.spec import Cell, Claim, ValueCheck

EDGES = [(-0.5, 0.5), (-1.5, math.inf), (-math.inf, 0.4), (0.2, math.inf)]


def outlook(claim: Claim, seeds: int, *arms: str, seen: dict[str, float] | None = None) -> list[Outlook]:
    entry = claim.scales.gpu
    assert entry is not None
    assert entry.expect is not None
    return power.outlook(claim, entry.expect, planned(seeds, *arms), seen)


# --- estimates to come --------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), EDGES)
def test_where_nothing_is_estimated_the_chance_to_lie_inside_is_that_of_a_normal(low: float, high: float):
    expected = Expected(variance=0.09, known=0.16)
    for level, truth in itertools.product((0.9, 0.95), (-0.3, 0.0, 0.7)):
        half = norm.ppf((1 + level) / 2) * 0.4
        chance = max(norm.cdf(high - half, truth, 0.3) - norm.cdf(low + half, truth, 0.3), 0)
        assert expected.inside(truth, low, high, level) == pytest.approx(chance, abs=1e-12)
    assert expected.half_width(0.9) == pytest.approx(norm.ppf(0.95) * 0.4)


@pytest.mark.parametrize("freedom", [2, 4, 9])
def test_the_width_to_come_is_the_median_of_what_one_spread_may_be(freedom: int):
    median = math.sqrt(0.09 * chi2.median(freedom) / freedom)
    expected = Expected(variance=0.09, known=0.0, seeds=((0.09, freedom),))
    assert expected.half_width(0.9) == pytest.approx(t.ppf(0.95, freedom) * median, rel=0.01)


def by_draws(
    known: float, seeds: Sequence[tuple[float, int]], variance: float, truth: float, low: float, high: float
) -> float:
    """The chance of a 90% interval to lie inside, from 100,000 estimates and intervals, degrees of freedom and all."""
    draws = 100_000
    rng = np.random.default_rng(1)
    found = rng.normal(truth, math.sqrt(variance), draws)
    parts: Floats = np.stack([v * rng.chisquare(f, draws) / f for v, f in seeds])
    freedom = stats.freedom_of_sum(parts, np.array([float(f) for _, f in seeds]), known)
    half = t.ppf(0.95, freedom) * np.sqrt(known + parts.sum(0))
    return float(np.mean((low < found - half) & (found + half < high)))


@pytest.mark.parametrize(("low", "high"), EDGES)
@pytest.mark.parametrize(
    ("known", "seeds"), [(0.0, [(0.05, 2)]), (0.04, [(0.03, 2), (0.02, 4)]), (0.01, [(0.02, 1), (0.03, 1), (0.01, 9)])]
)
def test_with_parts_that_are_known_and_parts_of_several_arms_the_chance_is_that_of_draws(
    known: float, seeds: list[tuple[float, int]], low: float, high: float
):
    variance = known + sum(v for v, _ in seeds)
    expected = Expected(variance, known, tuple((v, float(f)) for v, f in seeds))
    for truth in (0.0, 0.6):
        drawn = by_draws(known, seeds, variance, truth, low, high)
        assert expected.inside(truth, low, high, 0.9) == pytest.approx(drawn, abs=0.008)


def test_a_printed_spread_is_known_and_has_the_degrees_of_freedom_of_its_runs():
    expected = Expected(0.2, 0.3, printed=(0.3, 2.0))
    assert expected.half_width(0.9) == pytest.approx(t.ppf(0.95, 2) * math.sqrt(0.3))
    assert Expected(0.2, 0.3, printed=(0.3, math.inf)).half_width(0.9) == pytest.approx(norm.ppf(0.95) * math.sqrt(0.3))


@pytest.mark.parametrize("edge", [-1.0, 0.0, 2.0])
def test_with_few_degrees_of_freedom_too_a_detectable_value_is_told_four_times_of_five(edge: float):
    for expected in (Expected(0.09, 0.16), Expected(0.09, 0.01, ((0.08, 2),)), Expected(0.09, 0.0, ((0.09, 1),))):
        above, below = expected.detectable(edge, 0.95), expected.detectable(edge, 0.95, below=True)
        assert above > edge > below
        assert above - edge == pytest.approx(edge - below, abs=1e-3)
        assert expected.inside(above, edge, math.inf, 0.95) == pytest.approx(0.8, abs=1e-3)
        assert expected.inside(below, -math.inf, edge, 0.95) == pytest.approx(0.8, abs=1e-3)


# --- ours against a reported number -------------------------------------------------------------


@pytest.mark.parametrize("sd", [None, 0.2])
@pytest.mark.parametrize("seeds", [1, 2])
def test_the_expected_width_of_few_seeds_is_the_one_they_will_have(seeds: int, sd: float | None):
    i = stats.difference([93.0] * seeds, 3_000, 93.0, sd, 3).interval(0.90)
    assert power.expected_value(seeds, 3_000, 93.0, sd, 3).half_width(0.90) == pytest.approx(i.high)


def test_more_seeds_are_expected_to_vary_as_printed_or_by_four_fifths_of_the_bound():
    printed = power.expected_value(3, 10_000, 90.0, 0.2, 3)
    assert printed.seeds == ((pytest.approx(0.2**2 / 3), 2),)
    assert printed.printed == (pytest.approx(0.2**2 / 3), 2)
    assert printed.variance == pytest.approx(2 * 0.2**2 / 3)
    assert printed.known == pytest.approx(0.2**2 / 3)
    bound = power.expected_value(5, 10_000, 90.0, None, None)  # one spread, of five seeds, for five runs and theirs
    assert bound.seeds == ((pytest.approx((0.8 * 0.3) ** 2 * 6 / 5, rel=1e-3), 4),)
    assert (bound.known, bound.variance) == (0.0, bound.seeds[0][0])
    told = power.expected_value(5, 10_000, 90.0, None, None, spread=0.1)
    assert told.variance == pytest.approx(0.1**2 * 6 / 5)


@pytest.mark.parametrize(
    ("k", "runs", "with_sd", "margin"),
    [(1, 3, True, 0.75), (1, None, False, 1.0), (3, 3, True, 0.75), (5, 1, False, 0.75)],
)
def test_the_power_of_a_value_is_how_often_runs_that_vary_so_pass(
    k: int, runs: int | None, with_sd: bool, margin: float
):
    """Runs of both with a spread of 0.24 points, on 10,000 images; planning is told what will be printed."""
    draws, spread = 1000, 0.24
    rng = np.random.default_rng([k, runs or 0])
    check = ValueCheck(arm="ours", margin=margin)
    passes, chances = 0, []
    for _ in range(draws):
        theirs = rng.normal(90, spread, runs or 1)
        sd = float(theirs.std(ddof=1)) if with_sd else None
        arm = Arm(tuple(rng.normal(90, spread, k).tolist()), 10_000, num_classes=10)
        found = rules.accuracy("ours", check, Cell(value=float(theirs.mean()), sd=sd, runs=runs), arm)
        passes += found.outcome is Outcome.PASS
        if with_sd or not chances:
            chances.append(power.expected_value(k, 10_000, 90.0, sd, runs, spread).inside(0.0, -margin, margin, 0.90))
    assert passes / draws == pytest.approx(np.mean(chances), abs=0.045)
    assert 0.2 < np.mean(chances) < 0.99


# --- arms among themselves ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "weights"), [((1, 1), (1, -1)), ((3, 3), (1, -1)), ((3, 5), (1, -1)), ((3, 3, 3, 3), (1, -1, -1, 1))]
)
def test_a_contrast_is_as_uncertain_as_planned(seeds: tuple[int, ...], weights: tuple[float, ...]):
    """Models as the calibration makes them; planning is told how uneven the images are."""
    n, draws = 500, 400
    rng = np.random.default_rng(2)
    accuracies = [85.0, 80.0, 85.0, 80.0][: len(seeds)]
    intercepts = [TRAINED.intercept(a) for a in accuracies]
    expected = power.expected_contrast(weights, seeds, n, accuracies, TRAINED.spread(82.5), TRAINED.agreement(82.5))
    values, variances = [], []
    for _ in range(draws):
        arms = [rows[:k] for k, rows in zip(seeds, TRAINED.draw(rng, intercepts, max(seeds), n), strict=True)]
        found, estimate = stats.contrast(arms, weights)
        values.append(found)
        variances.append(estimate.se**2)
    planned_variance = expected.known + sum(v for v, _ in expected.seeds)
    assert np.mean(variances) == pytest.approx(planned_variance, rel=0.06)
    assert np.var(values) == pytest.approx(expected.variance, rel=0.25)  # nearly four of its standard errors
    assert [freedom for _, freedom in expected.seeds] == [k - 1 for k in seeds if k > 1]


def test_seeds_make_a_contrast_more_certain_only_as_far_as_they_are_random():
    """From one seed to many, what remains is that of the images, which no seed lessens."""
    one, three, many = (power.expected_contrast((1, -1), (k, k), 1000, (80, 80), 0.6, 0.5) for k in (1, 3, 10**6))
    bound = 2 * stats.binomial_sd(80.0, 1000) ** 2
    assert one.variance == pytest.approx(bound * (0.36 + 0.64 * 0.5))
    assert three.variance == pytest.approx(bound * (0.36 / 3 + 0.64 * 0.5))
    assert many.variance == pytest.approx(bound * 0.64 * 0.5, rel=1e-4)
    assert one.seeds == ()
    assert one.known == pytest.approx(one.variance + 2 * (100 / 1000) ** 2)  # two images are added


# --- of a plan ----------------------------------------------------------------------------------


def test_a_value_is_told_with_its_power_and_the_difference_that_would_be_refuted():
    for direction, high in (("two_sided", 2.0), ("at_least", math.inf)):
        (told,) = outlook(value(90.0, 2.0, direction, sd=0.5, printed_runs=3), 3)
        expected = power.expected_value(3, 797, 90.0, 0.5, 3)
        assert told.power == pytest.approx(expected.inside(0.0, -2.0, high, 0.90))
        assert expected.inside(-told.detectable, -math.inf, -2.0, 0.90) == pytest.approx(0.8, abs=1e-3)
        assert told.detectable > 2
        assert (told.label, told.doubt) == ("top1", None)


def test_an_at_least_claim_without_power_if_equal_may_yet_pass_by_a_better_value():
    asked = value(90.0, 0.05, "at_least")
    (told,) = outlook(asked, 1)
    assert told.power is not None
    assert told.power < 0.05
    assert told.doubt is None
    assert power.cannot_pass(asked, "gpu", planned(1)) is None
    assert judged(asked, {"ours": right([96], 797)}).outcome is Outcome.PASS


def test_a_gap_is_told_with_the_smallest_that_passes():
    seen = {"a": 90.0, "b": 80.0}
    (told,) = outlook(ordering(by=1.0), 3, "a", "b", seen=seen)
    expected = power.expected_contrast((1, -1), (3, 3), 797, (90, 80))
    assert (told.label, told.power, told.doubt, told.assumed) == ("a - b", None, None, False)
    assert told.detectable == pytest.approx(expected.detectable(1.0, 0.95))
    assert told.detectable > 1
    (unseen,) = outlook(ordering(by=1.0), 3, "a", "b", seen={"a": 90.0})
    assert unseen.assumed
    assert unseen.detectable > told.detectable  # an accuracy of 50% is the least certain
    (shortfall,) = outlook(ordering(by=-3.0), 3, "a", "b", seen=seen)
    assert shortfall.detectable == pytest.approx(told.detectable - 4, abs=1e-3)


def test_a_gain_is_one_contrast_and_a_rise_one_for_every_step():
    arms = ("vit-1", "vit-2", "resnet-1", "resnet-2")
    (told,) = outlook(gain(by=2.0), 3, *arms)
    expected = power.expected_contrast((1, -1, -1, 1), (3,) * 4, 797, (50,) * 4)
    assert (told.label, told.power) == ("(vit-2 - vit-1) - (resnet-2 - resnet-1)", None)
    assert told.detectable == pytest.approx(expected.detectable(2.0, 0.95))
    steps = outlook(increasing(by=1.0), 3, "small", "base", "large")
    assert [o.label for o in steps] == ["base - small", "large - base"]
    dips = {o.label: o for o in outlook(increasing(by=1.0, dip=3.0), 3, "small", "base", "large")}
    ends = power.expected_contrast((1, -1), (3, 3), 797, (50, 50))  # a line of three has no weight on the second
    assert dips["line from small to large"].detectable == pytest.approx(ends.detectable(1.0, 0.95), rel=0.01)
    assert dips["base - small"].detectable == pytest.approx(steps[0].detectable - 4, abs=1e-3)


def test_every_pair_of_an_equality_is_told():
    told = outlook(equivalence(2.0, ("a", "b", "c")), 3, "a", "b", "c", seen={"a": 90.0, "b": 90.0})
    assert [(o.label, o.assumed) for o in told] == [("a - b", False), ("a - c", True), ("b - c", True)]
    expected = power.expected_contrast((1, -1), (3, 3), 797, (90, 90))
    assert told[0].power == pytest.approx(expected.inside(0.0, -2.0, 2.0, 0.90))
    assert told[0].detectable == pytest.approx(expected.detectable(2.0, 0.90))


def test_an_equality_of_arms_that_were_seen_must_have_a_power_of_5_percent():
    runs, seen = planned(1, "a", "b"), {"a": 90.0, "b": 91.0}
    assert power.cannot_pass(equivalence(0.5), "gpu", runs) is None  # nothing is known of them
    assert power.cannot_pass(equivalence(0.5), "gpu", runs, seen={"a": 90.0}) is None
    doubt = power.cannot_pass(equivalence(0.5), "gpu", runs, seen=seen)
    assert doubt is not None
    assert doubt.startswith("cannot PASS: a - b has an interval of ±")
    expected = power.expected_contrast((1, -1), (1, 1), 797, (90, 91))
    for within in (1.5, 2.0, 2.15, 2.2, 2.25, 2.3, 2.5, 4.0):
        possible = expected.inside(0.0, -within, within, 0.90) >= 0.05
        assert (power.cannot_pass(equivalence(within), "gpu", runs, seen=seen) is None) == possible, within


@pytest.mark.parametrize(("margin", "enough"), [(0.3, True), (0.2, False)])
def test_the_seeds_that_would_be_enough_are_named(margin: float, enough: bool):
    """Three seeds against a number printed with 0.5 points of spread, of 10,000 runs."""
    doubt = power.cannot_pass(value(90.0, margin, sd=0.5, printed_runs=10_000), "gpu", planned(3))
    assert doubt is not None
    powers = {k: power.expected_value(k, 797, 90.0, 0.5, 10_000).inside(0, -margin, margin, 0.9) for k in range(3, 31)}
    assert powers[3] < 0.05
    first = next((k for k, chance in powers.items() if chance >= 0.8), None)
    assert (first is not None) == enough
    assert doubt.endswith(f"; {first} seeds have a power of 80%" if enough else "; 30 seeds would not be enough")


# --- at the edges -------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [2, None])
@pytest.mark.parametrize("k", [1, 3])
def test_a_printed_spread_of_zero_can_be_planned_for(k: int, decimals: int | None):
    """Table 2 of the paper prints 99.74 ± 0.00 for Flowers."""
    (told,) = outlook(value(99.74, 3.0, sd=0.0, printed_runs=3, decimals=decimals), k)
    assert told.power is not None
    assert 0 <= told.power <= 1
    assert told.detectable >= 3


def test_arms_that_were_seen_without_an_error_can_be_planned_for():
    (told,) = outlook(ordering(), 3, "a", "b", seen={"a": 100.0, "b": 100.0})
    assert told.detectable > 0


def test_a_re_evaluation_can_pass_where_a_training_run_could_not():
    same: dict[str, Any] = {"margin": 0.2, "same_weights": True}
    assert judged(value(90.0, **same), {"ours": right([90], 797)}).outcome is Outcome.PASS
    assert power.cannot_pass(value(90.0, 0.2), "gpu", planned(1)) is not None
    assert power.cannot_pass(value(90.0, **same), "gpu", planned(1)) is None
