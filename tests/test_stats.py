from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm, t, ttest_ind
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW, ttost_ind

from vitrepro import stats
from vitrepro.arrays import Bools, Floats
from vitrepro.stats import Interval

COUNTS = [(0, 10), (3, 10), (10, 10), (16, 32), (743, 797), (9905, 10_000), (10_000, 10_000)]


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "DRAWS", 600)


def bounds(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def inside(interval: Interval, margin: float) -> bool:
    return max(-interval.low, interval.high) < margin


def table(both: int, only_a: int, only_b: int, neither: int) -> tuple[Bools, Bools]:
    """Correctness of two models, (1, n) each, with these counts of images."""
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array([a]), np.array([b])


# --- one accuracy -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("correct", "n"), COUNTS)
def test_wilson_is_that_of_statsmodels(correct: int, n: int, level: float):
    expected = 100 * np.array(proportion_confint(correct, n, 1 - level, method="wilson"))
    assert bounds(stats.wilson(correct, n, level)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("correct", "n"), COUNTS)
def test_clopper_pearson_is_that_of_statsmodels_and_holds_at_least_its_level(correct: int, n: int, level: float):
    interval = stats.clopper_pearson(correct, n, level)
    assert bounds(interval) == pytest.approx(
        100 * np.array(proportion_confint(correct, n, 1 - level, "beta")), abs=1e-9
    )
    assert binom.sf(correct - 1, n, interval.low / 100) <= (1 - level) / 2 + 1e-9 or correct == 0
    assert binom.cdf(correct, n, interval.high / 100) <= (1 - level) / 2 + 1e-9 or correct == n


@pytest.mark.parametrize(
    ("percent", "n", "half"),
    [(99, 10_000, 0.20), (92, 10_000, 0.53), (94, 3_669, 0.77), (84, 50_000, 0.32), (90, 256, 3.7), (90, 32, 10.5)],
)
def test_the_sampling_error_of_a_test_set_is_as_large_as_its_size_says(percent: float, n: int, half: float):
    low, high = bounds(stats.wilson(round(percent / 100 * n), n))
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(
    "accuracies", [[80.0, 81.0], [93.1, 92.8, 93.4], [50.0, 50.0, 50.0], [1.0, 9.0, 4.0, 7.0, 7.5]]
)
def test_t_interval_is_that_of_scipy(accuracies: list[float], level: float):
    half_sd = np.std(accuracies, ddof=1) / math.sqrt(len(accuracies))
    if half_sd:
        expected = t.interval(level, len(accuracies) - 1, np.mean(accuracies), half_sd)
    else:
        expected = (50.0, 50.0)
    assert bounds(stats.t_interval(accuracies, level)) == pytest.approx(expected)


def test_one_seed_has_no_interval_over_seeds():
    with pytest.raises(ValueError, match="at least two"):
        stats.t_interval([90.0])


@pytest.mark.parametrize(("correct", "n", "classes"), [(12, 100, 10), (1481, 10_000, 10), (40, 100, 4), (0, 5, 2)])
def test_above_chance_is_the_one_sided_binomial_test(correct: int, n: int, classes: int):
    expected = binom.sf(correct - 1, n, 1 / classes)
    assert stats.above_chance(correct, n, classes) == pytest.approx(expected, rel=1e-9)
    assert stats.above_chance(correct, n, classes) == binomtest(correct, n, 1 / classes, "greater").pvalue


def test_naming_the_commonest_class_every_time_is_not_above_chance():
    assert stats.above_chance(150, 1000, 10) < 1e-6
    assert stats.above_chance(150, 1000, 10, commonest=150) > 0.5
    assert stats.above_chance(150, 1000, 10, commonest=90) == stats.above_chance(150, 1000, 10)


# --- ours against a reported number -------------------------------------------------------------


def test_the_spread_of_few_seeds_is_the_binomial_bound():
    sd, source = stats.seed_sd([90.0], 10_000)
    assert (sd, source) == (pytest.approx(0.3, rel=1e-3), "binomial bound")
    assert stats.seed_sd([89.9, 90.1], 10_000) == (pytest.approx(0.3, rel=1e-3), "binomial bound")


def test_two_seeds_further_apart_than_the_binomial_bound_replace_it():
    assert stats.seed_sd([70.0, 95.0], 10_000) == (pytest.approx(25 / math.sqrt(2)), "sd of 2 seeds")


def test_the_spread_of_three_seeds_is_their_own():
    assert stats.seed_sd([90.0, 91.0, 92.0], 10_000) == (pytest.approx(1.0), "sd of 3 seeds")


@pytest.mark.parametrize("accuracies", [[100.0], [0.0], [100.0, 100.0], [95.0, 95.0, 95.0], [100.0] * 5])
def test_no_spread_is_ever_taken_for_zero(accuracies: list[float]):
    sd, _ = stats.seed_sd(accuracies, 800)
    assert sd >= 50 / 800


def seeds_around(mean: float, sd: float, k: int, trial: int) -> list[float]:
    return list(np.random.default_rng([k, trial]).normal(mean, sd, k))


@pytest.mark.parametrize("k", [3, 5, 12])
def test_inside_the_margin_is_one_sample_tost_where_the_reported_number_is_exact(k: int):
    outcomes = set()
    for trial in range(60):
        ours = seeds_around(90.2, 0.4, k, trial)
        i = stats.equivalence_interval(ours, 10**7, 90.0, 1e-12, None)
        p, *_ = DescrStatsW(ours).ttost_mean(90.0 - 0.6, 90.0 + 0.6)
        outcomes.add(p < 0.05)
        assert inside(i, 0.6) == (p < 0.05)
    assert outcomes == {True, False}


@pytest.mark.parametrize("k", [3, 5, 12])
def test_inside_the_margin_is_pooled_two_sample_tost_against_one_reported_run_without_spread(k: int):
    outcomes = set()
    for trial in range(60):
        ours = seeds_around(90.2, 0.3, k, trial)
        i = stats.equivalence_interval(ours, 10**7, 90.0, None, None)
        p, *_ = ttost_ind(np.array(ours), np.array([90.0]), -1.2, 1.2, usevar="pooled")
        outcomes.add(p < 0.05)
        assert inside(i, 1.2) == (p < 0.05)
    assert outcomes == {True, False}


@pytest.mark.parametrize(("sd", "printed_runs"), [(None, None), (0.1, None), (0.1, 3)])
def test_one_seed_has_the_normal_interval_of_the_binomial_bound(sd: float | None, printed_runs: int | None):
    i = stats.equivalence_interval([90.0], 10_000, 90.5, sd, printed_runs)
    bound = 0.3 if sd is None else sd
    se = math.sqrt(0.3**2 + bound**2 / (printed_runs or 1))
    assert bounds(i) == pytest.approx(norm.interval(0.90, -0.5, se), abs=2e-3)
    assert (i.level, i.method) == (0.90, "binomial bound")


def test_the_printed_spread_is_divided_by_its_runs():
    one, nine = (stats.equivalence_interval([90.0], 10**6, 90.0, 3.0, r) for r in (None, 9))
    assert one.high == pytest.approx(norm.ppf(0.95) * 3.0, rel=1e-3)
    assert nine.high == pytest.approx(t.ppf(0.95, 8) * 1.0, rel=2e-3)  # nearly all variance is of their nine runs


def test_many_seeds_do_not_make_up_for_few_reported_runs():
    """Welch against the raw runs: with 20 of ours, their three decide the degrees of freedom."""
    ours, theirs = seeds_around(90.0, 0.3, 20, 0), [89.7, 90.3, 90.1]
    i = stats.equivalence_interval(ours, 10**7, float(np.mean(theirs)), float(np.std(theirs, ddof=1)), 3)
    welch = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.90)
    assert bounds(i) == pytest.approx((welch.low, welch.high))


def test_few_seeds_are_not_helped_by_the_reported_runs():
    """Welch would have four degrees of freedom here; the rule keeps the two of our own seeds."""
    i = stats.equivalence_interval([89.0, 90.0, 91.0], 10**7, 90.0, 1.0, 3)
    assert i.high == pytest.approx(t.ppf(0.95, 2) * math.sqrt(2 / 3))


RE_VIT = [  # (data set, images right, n, reported, sd, interval of the difference)
    ("cifar10", 9_905, 10_000, 99.15, 0.03, (-0.26, 0.06)),
    ("cifar100", 9_321, 10_000, 93.25, 0.05, (-0.46, 0.38)),
    ("imagenet", 42_481, 50_000, 85.30, 0.02, (-0.60, -0.07)),
    ("pets", 3_420, 3_669, 94.67, 0.15, (-2.15, -0.76)),
    ("flowers", 6_068, 6_149, 99.61, 0.02, (-1.17, -0.69)),
]


@pytest.mark.parametrize(("name", "correct", "n", "reported", "sd", "expected"), RE_VIT, ids=[r[0] for r in RE_VIT])
def test_the_intervals_of_the_re_vit_reproduction_are_those_worked_out_by_hand(
    name: str, correct: int, n: int, reported: float, sd: float, expected: tuple[float, float]
):
    """By hand without the success and the failure that `seed_sd` adds, hence not to half a hundredth."""
    i = stats.equivalence_interval([100 * correct / n], n, reported, sd, 3)
    assert bounds(i) == pytest.approx(expected, abs=0.01), name


@pytest.mark.parametrize("sd", [None, 0.2])
@pytest.mark.parametrize("seeds", [1, 2])
def test_the_expected_width_of_few_seeds_is_the_one_they_will_have(seeds: int, sd: float | None):
    i = stats.equivalence_interval([93.0] * seeds, 3_000, 93.0, sd, 3)
    assert stats.expected_half_width(seeds, 3_000, 93.0, sd, 3) == pytest.approx(i.high)


def test_the_expected_width_of_more_seeds_takes_the_printed_spread_or_four_fifths_of_the_bound():
    printed = stats.expected_half_width(3, 10_000, 90.0, 0.2, 3)
    assert printed == pytest.approx(t.ppf(0.95, 2) * 0.2 * math.sqrt(2 / 3))
    bound = stats.expected_half_width(5, 10_000, 90.0, None, None)
    assert bound == pytest.approx(t.ppf(0.95, 4) * 0.8 * 0.3 * math.sqrt(6 / 5), rel=1e-3)


# --- two trained models -------------------------------------------------------------------------


def test_mcnemar_is_that_of_statsmodels():
    for only_a, only_b in [(0, 0), (1, 0), (0, 5), (6, 0), (3, 9), (10, 10), (61, 39), (40, 90)]:
        a, b = table(20, only_a, only_b, 5)
        expected = reference_mcnemar([[20, only_a], [only_b, 5]], exact=True).pvalue
        assert stats.mcnemar(a[0], b[0]) == pytest.approx(expected)
        assert stats.mcnemar(b[0], a[0]) == pytest.approx(expected)


def test_mcnemar_is_the_share_of_coin_tosses_at_least_as_uneven():
    for only_a, only_b in itertools.product(range(7), range(6)):
        a, b = table(3, only_a, only_b, 2)
        tosses = [sum(heads) for heads in itertools.product((0, 1), repeat=only_a + only_b)]
        uneven = [abs(2 * h - only_a - only_b) >= abs(only_a - only_b) for h in tosses]
        assert stats.mcnemar(a[0], b[0]) == pytest.approx(np.mean(uneven))


@pytest.mark.parametrize(("wins", "of"), [(6, 6), (9, 10), (15, 20), (33, 50), (61, 100), (115, 200)])
def test_the_fewest_wins_that_mcnemar_accepts(wins: int, of: int):
    p, p_one_less = (stats.mcnemar(a[0], b[0]) for a, b in (table(0, w, of - w, 0) for w in (wins, wins - 1)))
    assert p < 0.05 <= p_one_less


# --- several arms on the same images ------------------------------------------------------------


def correlated(
    rng: np.random.Generator, ks: Sequence[int], n: int, logits: Sequence[float] = (1.0, 1.0)
) -> list[Bools]:
    """Arms of independent seeds that find the same images hard."""
    hard = rng.normal(0, 2.5, n)
    return [rng.random((k, n)) < 1 / (1 + np.exp(-(hard + m))) for k, m in zip(ks, logits, strict=True)]


def naive_bootstrap(arms: Sequence[Bools], weights: Sequence[float], draws: int) -> Floats:
    """The contrast in every draw of images and seeds, by their indices."""
    rng = np.random.default_rng(5)
    extended = []
    for arm, weight in zip(arms, weights, strict=True):
        for_it = np.full((len(arm), 1), weight > 0)
        extended.append(np.hstack([arm, for_it, ~for_it]))
    n = extended[0].shape[1]
    totals = np.empty(draws)
    for draw in range(draws):
        images = rng.integers(n, size=n)
        chosen = [a[rng.integers(len(a), size=len(a))][:, images] for a in extended]
        totals[draw] = sum(w * 100 * c.mean() for w, c in zip(weights, chosen, strict=True))
    return totals


@pytest.mark.parametrize(
    ("ks", "weights"), [((1, 1), (1, -1)), ((3, 2), (1, -1)), ((2, 2, 3, 1), (1, -1, -1, 1)), ((9,), (1,))]
)
def test_drawing_patterns_of_correctness_is_drawing_images(ks: tuple[int, ...], weights: tuple[float, ...]):
    """A quantile of 10,000 draws has a standard error of 0.027 sd at 2.5% (0.013 at the quartiles); the difference of
    two is held to five of its own, and to one step of the lattice on which the contrast lies."""
    n = 60
    arms = correlated(np.random.default_rng(0), ks, n, np.linspace(0, 2, len(ks)))
    expected = naive_bootstrap(arms, weights, 10_000)
    step = 100 / (n + 2) / math.lcm(*ks)
    for level, errors in ((0.95, 0.027), (0.5, 0.013)):
        tail = 50 * (1 - level)
        found = bounds(stats._bootstrap(arms, weights, level))
        tolerance = 5 * math.sqrt(2) * errors * expected.std() + step
        assert found == pytest.approx(np.percentile(expected, [tail, 100 - tail]), abs=tolerance)


def test_one_model_each_has_nearly_the_interval_of_bonett_and_price():
    """The example of `ci.prop.ps` in the R package statpsych; the bootstrap's lattice is 1/50 here."""
    _, i = stats.contrast(table(12, 26, 4, 6), [1, -1])
    assert bounds(i) == pytest.approx((25.48, 62.52), abs=2.0)


@pytest.mark.parametrize("n", [10, 50, 800])
def test_models_that_agree_on_every_image_are_not_equal_beyond_doubt(n: int):
    same = np.ones((1, n), bool)
    difference, i = stats.contrast([same, same], [1, -1])
    assert difference == 0
    unseen = 100 * (1 - 0.025 ** (1 / n))  # 97.5% upper bound of the share on which one alone would be right
    assert i.high >= 0.75 * unseen
    assert i.low <= -0.75 * unseen


def test_the_same_images_are_drawn_for_all_arms():
    """Two models that differ on ten images of a thousand: unpaired, the interval would be ten times as wide."""
    a, b = table(500, 10, 0, 490)
    difference, i = stats.contrast([a, b], [1, -1])
    assert difference == pytest.approx(1.0)
    assert 0 < i.low < 1 < i.high < 2


def test_welch_is_that_of_scipy():
    arms = correlated(np.random.default_rng(1), (3, 5), 2000, (1.0, 1.5))
    accuracies = [100 * a.mean(1) for a in arms]
    for level in (0.9, 0.95):
        expected = ttest_ind(*accuracies, equal_var=False).confidence_interval(level)
        assert bounds(stats._welch(arms, [1, -1], level)) == pytest.approx((expected.low, expected.high))


def test_welch_of_an_interaction_has_satterthwaites_degrees_of_freedom():
    weights = [1, -1, -1, 1]
    arms = correlated(np.random.default_rng(2), (3, 4, 2, 5), 500, (0, 1, 1, 2))
    x = [100 * a.mean(1) for a in arms]
    v = [np.var(a, ddof=1) / len(a) for a in x]
    freedom = sum(v) ** 2 / sum(vi**2 / (len(a) - 1) for vi, a in zip(v, x, strict=True))
    centre = x[0].mean() - x[1].mean() - x[2].mean() + x[3].mean()
    expected = t.interval(0.95, freedom, centre, math.sqrt(sum(v)))
    assert bounds(stats._welch(arms, weights, 0.95)) == pytest.approx(expected)


def test_weights_enter_the_variance_squared():
    arms = correlated(np.random.default_rng(3), (4, 4), 500)
    single, double = (stats._welch(arms, [w, -w], 0.95) for w in (1, 2))
    assert double.high - double.low == pytest.approx(2 * (single.high - single.low))


def test_several_seeds_take_the_wider_bound_of_images_and_of_seeds():
    rng = np.random.default_rng(4)
    steady = correlated(rng, (3, 3), 60)  # few images, steady seeds
    unsteady = [np.vstack([np.arange(5000) < 50 * percent for percent in arm]) for arm in ((60, 75, 90), (55, 70, 85))]
    for arms in (steady, unsteady):
        _, i = stats.contrast(arms, [1, -1])
        images, seeds = stats._bootstrap(arms, [1, -1], 0.95), stats._welch(arms, [1, -1], 0.95)
        assert bounds(i) == (min(images.low, seeds.low), max(images.high, seeds.high))
        assert i.method == "bootstrap over images and seeds and Welch's t"


def test_an_arm_of_one_seed_beside_others_enters_with_the_binomial_bound():
    rng = np.random.default_rng(5)
    one, many = correlated(rng, (1, 3), 400)
    sd, _ = stats.seed_sd([100 * one.mean()], 400)
    v = [sd**2, np.var(100 * many.mean(1), ddof=1) / 3]
    freedom = sum(v) ** 2 / (v[1] ** 2 / 2)
    expected = t.interval(0.95, freedom, 100 * (one.mean() - many.mean()), math.sqrt(sum(v)))
    assert bounds(stats._welch([one, many], [1, -1], 0.95)) == pytest.approx(expected)
    assert "Welch" in stats.contrast([one, many], [1, -1])[1].method


def test_one_seed_each_speaks_of_these_trained_models_only():
    arms = correlated(np.random.default_rng(6), (1, 1), 300)
    assert stats.contrast(arms, [1, -1])[1].method == "bootstrap over images, these trained models"


def test_the_same_input_gives_the_same_interval_and_the_order_of_the_images_does_not_matter():
    arms = correlated(np.random.default_rng(7), (3, 3), 200)
    shuffled = np.random.default_rng(0).permutation(200)
    first = stats.contrast(arms, [1, -1])
    assert stats.contrast(arms, [1, -1]) == first
    assert stats.contrast([a[:, shuffled] for a in arms], [1, -1]) == (pytest.approx(first[0]), first[1])


def test_a_smaller_level_gives_a_narrower_interval():
    arms = correlated(np.random.default_rng(8), (3, 3), 200)
    wide, narrow = (stats.contrast(arms, [1, -1], level)[1] for level in (0.95, 0.9))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("shapes", "weights"),
    [(((1, 10), (1, 11)), (1, -1)), (((1, 10), (1, 10)), (1,)), (((1, 10),), (1, -1)), ((), ())],
)
def test_arms_of_other_images_and_unpaired_weights_are_refused(shapes: tuple[tuple[int, int]], weights: tuple[int]):
    with pytest.raises(ValueError, match="pair up"):
        stats.contrast([np.zeros(s, bool) for s in shapes], weights)


# --- how often the rules are wrong --------------------------------------------------------------


def too_often(rate: float, draws: int) -> int:
    """A count that a rule which errs at this rate stays below in all but one of a thousand simulations."""
    return int(binom.ppf(0.999, draws, rate))


def equal_arms(k: int, n: int, draws: int, unsteady: float) -> Iterator[list[Bools]]:
    """Trained-model-like arms without a true difference on these images: they find different ones of them hard.

    Args:
        unsteady: sd of a seed's own shift, in points, beyond what image-wise independent errors give.
    """
    rng = np.random.default_rng([k, n])
    for _ in range(draws):
        hard, other = rng.normal(1, 2.5, n), rng.normal(0, 0.7, n)
        easy = [1 / (1 + np.exp(-(hard + side * other))) for side in (1, -1)]
        easy[1] = np.clip(easy[1] + easy[0].mean() - easy[1].mean(), 0, 1)
        arms = []
        for p in easy:
            shift = rng.normal(0, unsteady / 100, (k, 1)) * (p * (1 - p) / (p * (1 - p)).mean())
            arms.append(rng.random((k, n)) < np.clip(p + shift, 0, 1))
        yield arms


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(("k", "unsteady"), [(1, 0.0), (2, 2.0), (3, 0.0), (3, 2.0), (5, 2.0)])
def test_an_ordering_of_equal_arms_is_seldom_decided(k: int, unsteady: float):
    """Each way at most 2.5%; one seed each cannot know of unsteady training, which its label says."""
    draws = 200
    decided = {"pass": 0, "fail": 0}
    for a, b in equal_arms(k, 300, draws, unsteady):
        _, i = stats.contrast([a, b], [1, -1])
        differ = k > 1 or stats.mcnemar(a[0], b[0]) < 0.05
        decided["pass"] += i.low > 0 and differ
        decided["fail"] += i.high < 0 and differ
    assert max(decided.values()) <= too_often(0.025, draws)


def value_passes(k: int, difference: float, printed_runs: int | None, with_sd: bool, share: float, draws: int) -> float:
    """How often ours passes for equal to the reported within one point; `share` of the binomial bound is the spread."""
    rng = np.random.default_rng([k, printed_runs or 0])
    n = 10_000
    passes = 0
    for _ in range(draws):
        theirs = rng.normal(90, share * 0.3, printed_runs or 1)
        ours = np.round(rng.normal(90 + difference, share * 0.3, k) * n / 100) / n * 100
        sd = float(theirs.std(ddof=1)) if with_sd else None
        i = stats.equivalence_interval(list(ours), n, float(theirs.mean()), sd, printed_runs)
        passes += inside(i, 1)
    return passes


@pytest.mark.parametrize("share", [0.4, 1.0])
@pytest.mark.parametrize(("printed_runs", "with_sd"), [(None, False), (3, True), (3, False)])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 10])
def test_a_value_one_margin_away_seldom_passes(k: int, printed_runs: int | None, with_sd: bool, share: float):
    draws = 400
    assert value_passes(k, -1.0, printed_runs, with_sd, share, draws) <= too_often(0.055, draws)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_an_equal_value_mostly_passes_where_the_margin_is_wide_enough(k: int):
    assert value_passes(k, 0.0, 3, True, 0.5, 200) >= 150
