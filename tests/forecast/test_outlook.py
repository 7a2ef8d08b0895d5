"""What planned runs can tell, held against laboratories that draw for themselves, and against scipy and statsmodels."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, chi2, nct, norm, t
from statsmodels.stats.power import TTestPower
from verdict_cases import claim, equivalence, gain, increasing, judged, ordering, planned, right, value

from vitrepro.arrays import Floats
from vitrepro.forecast import outlook as forecast
from vitrepro.forecast.outlook import Outlook, Planned, Told, cannot_pass, joint, tell, worlds
from vitrepro.forecast.worlds import SHARED, World
from vitrepro.judge import rules, stats
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import INCONCLUSIVE, PASS
from vitrepro.judge.spread import Regime
from vitrepro.plan import Run
from vitrepro.spec import Cell, Claim, Expect

N, LABS, CLOSE = 797, 300, 0.10  # images of digits; what was promised is 10 points
BOTH = [(k, regime) for k in (3, 5) for regime in ("scratch", "fine-tuned")]


def to_run(seeds: int, *arms: str, regime: str = "scratch") -> list[Run]:
    made = planned(seeds, *arms)
    if regime == "fine-tuned":
        weights = {"model": made[0].config.model.model_copy(update={"weights": "vit_tiny.made_up"})}  # type: ignore[union-attr]
        made = [Run(r.experiment, r.arm, r.seed, r.config.model_copy(update=weights)) for r in made]
    return made


def expectation(of: Claim) -> Expect:
    assert of.scales.gpu is not None
    assert of.scales.gpu.expect is not None
    return of.scales.gpu.expect


def look(of: Claim, seeds: int, *arms: str, regime: str = "scratch", seen: Mapping[str, float] | None = None) -> Any:
    """One outlook, or several where there are several comparisons."""
    found: list[Outlook] = forecast.outlook(of, expectation(of), to_run(seeds, *arms, regime=regime), seen)
    return found[0] if len(found) == 1 else found


def told(of: Claim, seeds: int, world: World, draws: int = 40_000, n: int = N) -> Told:
    """Of a value, in a world of its own, fine-tuned."""
    assert of.reported is not None
    (question,) = rules.questions(expectation(of), of.reported.cells)
    return tell(question, {"ours": Planned(seeds, n, 50.0, "fine-tuned")}, world, draws)


# --- laboratories -------------------------------------------------------------------------------


@functools.cache
def chances(mean: float, agreement: float) -> Floats:
    """Of N images to be told right: by Beta, so that two runs correlate over images by `agreement`."""
    size = 1 / agreement - 1
    return np.asarray(beta.ppf((np.arange(N) + 0.5) / N, mean * size, (1 - mean) * size)).clip(1e-9, 1 - 1e-9)


def trained(rng: np.random.Generator, means: Sequence[float], seeds: int, world: World, regime: Regime) -> list[Arm]:
    """Arms with these means over all images, on test images of the laboratory's own.

    A share of the images is as hard for all arms, the rest for each on its own.
    """
    common, alike, made = rng.integers(0, N, N), rng.random(N) < SHARED, []
    for over_all in means:
        p = chances(over_all / 100, world.agreement)[np.where(alike, common, rng.integers(0, N, N))]
        mean = 100 * p.mean()
        rows = np.zeros((seeds, N), bool)
        for row in rows:
            accuracy = rng.normal(mean, 100 * world.spread * math.sqrt(mean / 100 * (1 - mean / 100) / N))
            row[np.argsort(-np.log(p / (1 - p)) - rng.logistic(size=N))[: round(accuracy * N / 100)]] = True
        made.append(Arm.of(rows, num_classes=10, regime=regime))
    return made


def reproduced(
    rng: np.random.Generator, cells: Mapping[str, Cell], seeds: int, world: World, regime: Regime
) -> list[Arm]:
    """One arm per reported number, with the mean from which chance led to that number."""
    made = []
    for c in cells.values():
        sd = 100 * world.spread * math.sqrt(c.value / 100 * (1 - c.value / 100) / N)
        mean = rng.normal(c.value, sd / math.sqrt(c.runs or 1))
        accuracies = rng.normal(mean, sd, seeds).clip(0, 100)
        made.append(Arm(tuple(accuracies.tolist()), N, seeds, num_classes=10, regime=regime))
    return made


def frequency(of: Claim, draw: Callable[[np.random.Generator], list[Arm]], names: Sequence[str]) -> float:
    """How often laboratories have all comparisons PASS."""
    rng, cells = np.random.default_rng(0), of.reported.cells if of.reported else {}
    found = [rules.findings(expectation(of), cells, dict(zip(names, draw(rng), strict=True))) for _ in range(LABS)]
    return float(np.mean([all(f.outcome is PASS for f in each) for each in found]))


def values(margin: float, sd: float | None = None, runs: int | None = None, **reported: float) -> Claim:
    checks = {name: {"arm": name, "margin": margin} for name in reported}
    return claim(
        "value", {"cells": checks}, {name: {"value": v, "sd": sd, "runs": runs} for name, v in reported.items()}
    )


def value_frequency(of: Claim, seeds: int, world: World, regime: Regime) -> float:
    assert of.reported is not None
    cells = of.reported.cells
    return frequency(of, lambda rng: reproduced(rng, cells, seeds, world, regime), list(cells))


@pytest.mark.parametrize(("sd", "runs"), [(None, None), (1.0, 3)])
@pytest.mark.parametrize(("seeds", "regime"), [*BOTH, (1, "fine-tuned")])
def test_a_value_passes_as_often_as_planned(seeds: int, regime: Regime, sd: float | None, runs: int | None):
    """One lies so near 100% that no accuracy can be too high for its margin."""
    cases = {"scratch": ((75.0, 10.0), (85.0, 6.0)), "fine-tuned": ((75.0, 3.0), (98.5, 2.0))}
    for reported, margin in cases[regime]:
        of = values(margin, sd, runs, ours=reported)
        power = look(of, seeds, regime=regime).power
        for world, expected in zip(worlds(regime), power, strict=True):
            assert value_frequency(of, seeds, world, regime) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(("seeds", "regime"), [*BOTH, (1, "fine-tuned")])
def test_equal_arms_pass_and_gaps_are_told_as_often_as_planned_on_other_seeds_and_images(seeds: int, regime: Regime):
    seen, scratch = {"a": 80.0, "b": 80.0}, regime == "scratch"
    for of in (equivalence(9.0 if scratch else 3.0), equivalence(7.0 if scratch else 2.2)):
        found = look(of, seeds, "a", "b", regime=regime, seen=seen)
        for world, expected in zip(worlds(regime), found.power, strict=True):
            drawn = frequency(of, lambda rng, w=world: trained(rng, [80, 80], seeds, w, regime), "ab")  # type: ignore[misc]
            assert drawn == pytest.approx(expected, abs=CLOSE)
    found = look(ordering(1.0), seeds, "a", "b", regime=regime, seen={"a": 60.0, "b": 60.0})
    assert found.power is None
    for world, gap in zip(worlds(regime), (found.steady.detectable, found.unsteady.detectable), strict=True):
        means = [60 + gap / 2, 60 - gap / 2]
        drawn = frequency(ordering(1.0), lambda rng, w=world, m=means: trained(rng, m, seeds, w, regime), "ab")  # type: ignore[misc]
        assert drawn == pytest.approx(0.8, abs=0.1)


def test_all_cells_pass_as_often_as_their_joint_power_says():
    """Cells of arms of their own by the product; pairs of three arms, which share them, more often than that."""
    names, steady = ("vit", "resnet", "hybrid", "mixer"), worlds("fine-tuned")[0]
    of = values(2.2, **dict(zip(names, (80.0, 85.0, 78.0, 90.0), strict=True)))
    cells = look(of, 3, *names, regime="fine-tuned")
    both = joint(cells)
    assert both == pytest.approx([math.prod(o.power[i] for o in cells) for i in (0, 1)])
    assert 0.3 < both[0] < 0.8 * min(o.power[0] for o in cells)
    assert value_frequency(of, 3, steady, "fine-tuned") == pytest.approx(both[0], abs=CLOSE)
    of, unsteady = equivalence(3.5, "abc"), worlds("fine-tuned")[1]
    pairs = look(of, 3, *"abc", regime="fine-tuned", seen=dict.fromkeys("abc", 80.0))
    both = joint(pairs)
    assert both[1] > math.prod(o.power[1] for o in pairs) + 0.05
    drawn = frequency(of, lambda rng: trained(rng, [80] * 3, 3, unsteady, "fine-tuned"), "abc")
    assert drawn == pytest.approx(both[1], abs=CLOSE)
    assert joint([*pairs, look(ordering(), 3, "a", "b")]) is None
    assert joint([]) is None


def test_arms_are_drawn_apart_whatever_their_names():
    """Letters in another order are another arm."""
    same, other = (look(equivalence(12.0), 3, "a", "b", seen=dict.fromkeys("ab", 80.0)),
                   look(equivalence(12.0, ("ab", "ba")), 3, "ab", "ba", seen={"ab": 80.0, "ba": 80.0}))  # fmt: skip
    assert same.power == pytest.approx(other.power, abs=0.05)
    assert same.unsteady.detectable == pytest.approx(other.unsteady.detectable, rel=0.05)


# --- parity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_power_against_one_reported_run_is_that_of_the_noncentral_t(seeds: int):
    """Both with the spread of our K seeds: a t test with K - 1; its half-width is the median of what they may show."""
    sd = 0.8 * float(stats.binomial_sd(80.0, N))
    se = sd * math.sqrt(1 / seeds + 1)
    for margin in (2.0, 4.0):
        found = told(value(80.0, margin, "at_least"), seeds, World("steady", 0.8))
        exact = nct.sf(t.ppf(0.95, seeds - 1), seeds - 1, margin / se)
        assert found.power == pytest.approx(exact, abs=0.01)
        median = math.sqrt(chi2.median(seeds - 1) / (seeds - 1))
        assert found.half == pytest.approx(t.ppf(0.95, seeds - 1) * median * se, rel=0.02)


@pytest.mark.parametrize(("seeds", "effect"), [(3, 1.5), (5, 0.9), (10, 0.7)])
def test_power_against_a_number_of_many_runs_is_that_of_statsmodels(seeds: int, effect: float):
    """And so is the difference that is told in 80% of repetitions, beyond the margin."""
    sd = 0.5 * float(stats.binomial_sd(80.0, N))
    of = value(80.0, effect * sd, "at_least", sd=sd / 100, printed_runs=400)
    found = told(of, seeds, World("steady", 0.5), 10_000)
    assert found.power == pytest.approx(TTestPower().power(effect, seeds, 0.05, alternative="larger"), abs=0.02)
    least = TTestPower().solve_power(None, seeds, 0.05, 0.8, alternative="larger")
    assert found.detectable == pytest.approx((effect + least) * sd, rel=0.03)


def test_with_one_fine_tuned_seed_power_is_that_of_the_normal_bound():
    bound = float(stats.binomial_sd(80.0, N))
    found = told(value(80.0, 4.0), 1, World("steady", 0.6))
    by_hand = 2 * norm.cdf((4.0 - norm.ppf(0.95) * bound * math.sqrt(2)) / (0.6 * bound * math.sqrt(2))) - 1
    assert found.power == pytest.approx(by_hand, abs=0.01)


def test_more_seeds_and_more_images_detect_less():
    sizes = [told(value(80.0, 2.0), 3, World("steady", 0.8), 4_000, n).detectable for n in (500, 2_000, 10_000)]
    assert sizes == sorted(sizes, reverse=True)
    for of, regime in itertools.product((ordering(), equivalence()), ("scratch", "fine-tuned")):
        seeds = [look(of, k, "a", "b", regime=regime).unsteady.detectable for k in (3, 5, 10)]
        assert seeds == sorted(seeds, reverse=True)


# --- of a plan ----------------------------------------------------------------------------------


def test_a_gap_is_told_with_the_smallest_that_passes_in_both_worlds():
    seen = {"a": 90.0, "b": 80.0}
    found = look(ordering(by=1.0), 3, "a", "b", seen=seen)
    assert (found.label, found.power, found.doubt, found.assumed) == ("a - b", None, None, False)
    assert 1 < found.steady.detectable < found.unsteady.detectable
    unseen = look(ordering(by=1.0), 3, "a", "b", seen={"a": 90.0})
    assert unseen.assumed
    assert unseen.unsteady.detectable > found.unsteady.detectable  # an accuracy of 50% is the least certain
    shortfall = look(ordering(by=-3.0), 3, "a", "b", seen=seen)
    assert shortfall.unsteady.detectable == pytest.approx(found.unsteady.detectable - 4)


def test_every_comparison_of_a_claim_is_told():
    """A gain is one contrast, a rise one for every step, with dips one more; an equality has every pair."""
    gained = look(gain(by=2.0), 3, "vit-1", "vit-2", "resnet-1", "resnet-2")
    assert (gained.label, gained.power) == ("(vit-2 - vit-1) - (resnet-2 - resnet-1)", None)
    steps = look(increasing(by=1.0), 3, "small", "base", "large")
    assert [o.label for o in steps] == ["base - small", "large - base"]
    assert 1 < (gained.unsteady.detectable - 2) / (steps[0].unsteady.detectable - 1) < math.sqrt(2)
    dips = {o.label: o for o in look(increasing(by=1.0, dip=3.0), 3, "small", "base", "large")}
    assert list(dips) == ["line from small to large", "base - small", "large - base"]
    assert dips["base - small"].unsteady.detectable == pytest.approx(steps[0].unsteady.detectable - 4)
    pairs = look(equivalence(2.0, "abc"), 3, *"abc", seen={"a": 90.0, "b": 90.0})
    assert [(o.label, o.assumed) for o in pairs] == [("a - b", False), ("a - c", True), ("b - c", True)]


@pytest.mark.parametrize(
    ("seeds", "regime", "why"),
    [
        (1, "scratch", "cannot PASS: 1 seed from scratch can refute and not confirm; three can"),
        (2, "scratch", "cannot PASS: 2 seeds from scratch can refute and not confirm; three can"),
        (3, "scratch", None),
        (1, "fine-tuned", None),
    ],
)
def test_one_or_two_seeds_from_scratch_cannot_pass_and_one_that_is_fine_tuned_can(
    seeds: int, regime: str, why: str | None
):
    initial = None if regime == "scratch" else "released"
    alike, apart = {"a": 80, "b": 80}, {"a": 90, "b": 55}
    for of, arms in ((value(80.0, 15.0), {"ours": 80}), (ordering(), apart), (equivalence(15.0), alike)):
        measured = {name: right([arms[name]] * seeds, N, who=i) for i, name in enumerate(arms)}
        assert cannot_pass(of, "gpu", to_run(seeds, *arms, regime=regime)) == why
        outcome = judged(of, measured, initial_sha256=initial).outcome
        assert outcome is (INCONCLUSIVE if why else PASS)
        if of.kind != "ordering" and why:
            assert look(of, seeds, *arms).power == (0.0, 0.0)


@pytest.mark.parametrize(("seeds", "regime"), [(3, "scratch"), (5, "fine-tuned"), (1, "fine-tuned")])
def test_where_no_number_of_seeds_is_enough_a_margin_is_named_with_which_these_or_three_are(seeds: int, regime: Regime):
    unsteady = worlds(regime)[1]
    hopeless = look(values(0.05, ours=60.0), seeds, "ours", regime=regime)
    assert f"no number of seeds would do: a margin of {hopeless.margin:.2g} would" in hopeless.doubt
    assert (hopeless.needs, hopeless.hopeless) == (0, True)
    enough, of = max(seeds, 3), values(hopeless.margin, ours=60.0)
    assert look(of, enough, "ours", regime=regime).power[1] == pytest.approx(0.8, abs=0.01)
    assert value_frequency(of, enough, unsteady, regime) == pytest.approx(0.8, abs=0.1)
    seen = {"a": 80.0, "b": 80.0}
    of = equivalence(look(equivalence(0.1), seeds, "a", "b", regime=regime, seen=seen).margin)
    assert look(of, enough, "a", "b", regime=regime, seen=seen).power[1] == pytest.approx(0.8, abs=0.01)


def test_the_fewest_seeds_that_have_a_power_of_80_percent_are_named():
    of = value(80.0, 4.0, sd=0.5, printed_runs=100)
    found = look(of, 3)
    assert found.doubt.endswith(f", the margin is 4; {found.needs} seeds have a power of 80%")
    powers = [look(of, k).power[1] for k in (3, found.needs - 1, found.needs)]
    assert powers[0] < 0.05
    assert powers[1] < 0.8 <= powers[2]


def test_an_equality_of_arms_that_were_seen_must_have_a_power_of_5_percent_with_unsteady_seeds():
    runs, seen = to_run(3, "a", "b"), {"a": 80.0, "b": 80.0}
    doubts = [cannot_pass(equivalence(w), "gpu", runs, seen=seen) for w in (4.0, 5.5, 8.0)]
    powers = [look(equivalence(w), 3, "a", "b", seen=seen).power for w in (4.0, 5.5, 8.0)]
    assert [p[1] < 0.05 for p in powers] == [True, True, False]
    assert powers[1][0] > 0.5  # steady ones would do
    assert all(str(d).startswith("cannot PASS: a - b with 3 seeds has an interval of ±") for d in doubts[:2])
    assert doubts[2] is None
    for known in (None, {"a": 80.0}):  # as long as nothing is known of them
        assert cannot_pass(equivalence(4.0), "gpu", runs, seen=known) is None


def test_an_at_least_claim_without_power_if_equal_may_yet_pass_by_a_better_value():
    of = value(90.0, 0.05, "at_least")
    found = look(of, 1, regime="fine-tuned")
    assert found.hopeless
    assert found.doubt is None
    assert cannot_pass(of, "gpu", to_run(1, "ours", regime="fine-tuned")) is None
    assert judged(of, {"ours": right([96], N)}).outcome is PASS


# --- at the edges -------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [2, None])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_printed_spread_of_zero_can_be_planned_for(seeds: int, decimals: int | None):
    """Table 2 of the paper prints 99.74 ± 0.00 for Flowers."""
    found = look(value(99.74, 3.0, sd=0.0, printed_runs=3, decimals=decimals), seeds, regime="fine-tuned")
    assert all(0 < p <= 1 for p in found.power)
    assert 3 <= found.steady.detectable < 6
    nearly = look(value(99.74, 3.0, sd=1e-9, printed_runs=3), seeds, regime="fine-tuned")
    assert found.unsteady.half == pytest.approx(nearly.unsteady.half, rel=0.01)


@pytest.mark.parametrize("accuracy", [0.0, 100.0])
@pytest.mark.parametrize(("seeds", "regime"), [(1, "fine-tuned"), (3, "fine-tuned"), (3, "scratch")])
def test_arms_that_were_seen_without_an_error_have_a_detectable_gap_too(accuracy: float, seeds: int, regime: str):
    found = look(ordering(), seeds, "a", "b", regime=regime, seen={"a": accuracy, "b": accuracy})
    assert 0 < found.unsteady.detectable < 3


def test_a_re_evaluation_can_pass_where_a_training_run_could_not():
    again = value(90.0, 0.2, same_weights=True)
    assert judged(again, {"ours": right([90], N)}).outcome is PASS
    assert cannot_pass(value(90.0, 0.2), "gpu", to_run(1)) is not None
    assert cannot_pass(again, "gpu", to_run(1)) is None
    assert look(again, 1) == []
