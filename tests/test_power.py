from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import nct, norm, t
from statsmodels.stats.power import TTestPower

from vitrepro import power, stats
from vitrepro.power import Expected, expected_contrast, expected_value


def test_power_of_a_one_sided_test_with_one_spread_is_that_of_the_noncentral_t():
    """Ours against one reported number, both with the spread of our K seeds: a t test with K - 1."""
    for seeds in (3, 5, 12):
        expected = expected_value(seeds, 10_000, 90.0, None, None, 0.2)
        se = 0.2 * math.sqrt(1 / seeds + 1)
        for truth in (0.0, 0.4, 1.0):
            exact = nct.sf(t.ppf(0.95, seeds - 1), seeds - 1, (truth + 0.5) / se)
            assert expected.inside(truth, -0.5, math.inf, 0.9) == pytest.approx(exact, abs=0.01)


def test_power_against_an_exact_number_is_that_of_statsmodels():
    """Nearly: the spread printed with the number is nothing, so that ours is a one-sample t test."""
    for seeds, effect in ((3, 1.5), (5, 0.9), (10, 0.7)):
        expected = Expected(0.2**2 / seeds, 0.0, ((0.2**2 / seeds, seeds - 1),))
        reference = TTestPower().power(effect, seeds, 0.05, alternative="larger")
        assert expected.inside(effect * 0.2, 0.0, math.inf, 0.9) == pytest.approx(reference, abs=0.01)


def test_with_one_seed_power_is_that_of_the_normal_bound():
    """(2 Phi(margin / se - z) - 1) where the bound is the spread."""
    bound = stats.binomial_sd(90.0, 10_000)
    expected = expected_value(1, 10_000, 90.0, None, None, bound)
    se = bound * math.sqrt(2)
    by_hand = 2 * norm.cdf(1.5 / se - norm.ppf(0.95)) - 1
    assert expected.inside(0.0, -1.5, 1.5, 0.9) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("edge", [-0.5, 0.0, 1.0])
def test_the_detectable_difference_is_told_four_times_of_five(seeds: int, edge: float):
    expected = expected_contrast([1, -1], [seeds] * 2, 2_000, [80, 80])
    truth = expected.detectable(edge, 0.95)
    assert truth > edge
    assert expected.inside(truth, edge, math.inf, 0.95) == pytest.approx(0.8, abs=1e-3)
    below = expected.detectable(edge, 0.95, below=True)
    assert below == pytest.approx(2 * edge - truth, abs=1e-3)


def test_more_seeds_and_more_images_detect_less():
    sizes = [expected_contrast([1, -1], [3, 3], n, [80, 80]).detectable(0, 0.95) for n in (500, 2_000, 10_000)]
    assert sizes == sorted(sizes, reverse=True)
    seeds = [expected_contrast([1, -1], [k, k], 2_000, [80, 80]).detectable(0, 0.95) for k in (3, 5, 10)]
    assert seeds == sorted(seeds, reverse=True)


@pytest.mark.parametrize(
    ("seeds", "sd", "runs"), [(1, None, None), (1, 0.1, 3), (3, 0.1, 3), (5, None, 3), (3, 0.1, None)]
)
def test_the_half_width_that_planning_expects_is_that_of_the_estimate(seeds: int, sd: float | None, runs: int | None):
    """In the median over what the seeds say; with one seed it is known."""
    spread = sd or power.SPREAD * stats.binomial_sd(90.0, 5_000)
    expected = expected_value(seeds, 5_000, 90.0, sd, runs).half_width(0.9)
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(400 if seeds > 1 else 1):
        ours = rng.normal(90.0, spread, seeds) if seeds > 1 else [90.0]
        i = stats.difference(list(ours), 5_000, 90.0, sd, runs).interval(0.9)
        halves.append((i.high - i.low) / 2)
    assert expected == pytest.approx(np.median(halves), rel=0.08 if seeds > 1 else 1e-9)


def test_seeds_that_vary_more_than_coin_tosses_leave_nothing_to_uneven_images():
    tosses, more = (expected_contrast([1, -1], [3, 3], 1_000, [80, 80], spread=s) for s in (1.0, 1.1))
    assert more.variance == pytest.approx(1.1**2 * tosses.variance)
    assert more.detectable(0.0, 0.95) > tosses.detectable(0.0, 0.95)


def test_the_variance_of_a_contrast_is_that_of_the_seeds_own_chance_and_of_images():
    """Coin tosses: images are alike, so only the binomial variances of the arms are left."""
    expected = expected_contrast([1, -1], [3, 3], 1_000, [80, 60], spread=1.0)
    assert expected.variance == pytest.approx(1e4 * (0.8 * 0.2 + 0.6 * 0.4) / 3 / 1_000, rel=0.003)
    shared = expected_contrast([1, -1], [3, 3], 1_000, [80, 80], spread=0.6, shared=1.0)
    assert shared.variance == pytest.approx(
        2 * 0.36 * 1_600 / 3 / 1_000, rel=0.003
    )  # the same images are hard: they cancel out


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_printed_spread_of_nothing_is_known(seeds: int):
    """Three reported runs may print the same number; it is then as exact as it says, not without a power."""
    nothing = expected_value(seeds, 5_000, 90.0, 0.0, 3, 0.2)
    little = expected_value(seeds, 5_000, 90.0, 1e-9, 3, 0.2)
    assert nothing.half_width(0.9) == pytest.approx(little.half_width(0.9))
    assert 0 < nothing.inside(0.0, -2.0, 2.0, 0.9) <= 1


@pytest.mark.parametrize("accuracy", [0.0, 100.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_models_without_an_error_have_a_detectable_gap_too(accuracy: float, seeds: int):
    found = expected_contrast([1, -1], [seeds, seeds], 797, [accuracy, accuracy]).detectable(0.0, 0.95)
    assert 0 < found < 2
