"""How far seeds lie apart: the file of stored arms, what few seeds tell, and which runs failed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from vitrepro.errors import StoreError
from vitrepro.judge import rules, spread, stats
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import FAIL, INCONCLUSIVE, PASS, Outcome
from vitrepro.judge.spread import FILE, Regime, failed, fit, stored
from vitrepro.judge.stats import binomial_sd
from vitrepro.metrics import limits
from vitrepro.spec import Cell

DOCUMENT = json.loads(FILE.read_text())


def test_the_file_holds_the_fit_of_its_own_arms():
    ratios = [a["sd"] / a["bound"] for a in DOCUMENT["arms"] if not a["at_chance"]]
    assert fit(ratios) == stored()  # to the last digit that the file prints
    assert stored().least == pytest.approx(np.quantile(ratios, 0.25), abs=0.01)


@pytest.mark.parametrize("arms", [0, 1, 7])
def test_a_fit_of_too_few_arms_is_refused(arms: int):
    with pytest.raises(StoreError, match=f"8 arms or more, found {arms}"):
        fit([1.5] * arms)


@pytest.mark.parametrize(
    "text", [None, "", "{", "{}", json.dumps({"fit": DOCUMENT["fit"], "arms": DOCUMENT["arms"][:1]})]
)
def test_a_file_that_is_missing_torn_or_of_one_arm_is_named(text: str | None, tmp_path: Path):
    path = tmp_path / "spread.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StoreError, match=r"cannot be read as the spread of stored arms \(.+\); install again") as told:
        stored(path)
    assert str(told.value).startswith(f"{path}: ")


def test_three_equal_seeds_from_scratch_have_the_least_deviation_and_fine_tuned_half_an_image():
    bound = binomial_sd(80.0, 1_000)
    found = spread.spread([80.0] * 3, 1_000, "scratch")
    assert (found.sd, found.seen, found.freedom) == (pytest.approx(stored().least * bound), 0.0, 2.0)
    assert spread.spread([80.0] * 3, 1_000, "fine-tuned").sd == pytest.approx(0.05)


def test_three_seeds_from_scratch_further_apart_than_the_least_deviation_have_their_own():
    found = spread.spread([75.0, 80.0, 85.0], 1_000, "scratch")
    assert (found.sd, found.seen, found.freedom, found.source) == (pytest.approx(5.0), found.sd, 2.0, "seeds")


def test_one_seed_from_scratch_has_the_spread_of_stored_arms_and_confirms_nothing():
    found, bound = spread.spread([80.0], 1_000, "scratch"), binomial_sd(80.0, 1_000)
    assert not found.confirms
    low, high = rules.difference([80.0], 1_000, 80.0, regime="scratch").ends(0.05)  # against one printed run
    alone = t.ppf(0.95, DOCUMENT["fit"]["freedom"]) * DOCUMENT["fit"]["scale"] * math.sqrt(2)
    assert (high - low) / 2 / bound == pytest.approx(alone)
    assert alone == pytest.approx(7.1, abs=0.1)
    tuned = spread.spread([80.0], 1_000, "fine-tuned")
    assert (tuned.sd, tuned.freedom, tuned.confirms) == (pytest.approx(bound), math.inf, True)


def test_a_printed_deviation_is_not_believed_below_what_runs_from_scratch_may_have():
    """Three printed runs that lie close together may be so by luck, as three of ours may."""
    ours, bound = [78.0, 80.0, 82.0], binomial_sd(80.0, 1_000)
    parts = 2.0**2 / 3, (stored().least * bound) ** 2 / 3
    assert rules.difference(ours, 1_000, 80.0, sd=0.001, runs=3).se == pytest.approx(math.sqrt(sum(parts)))
    assert rules.difference(ours, 1_000, 80.0, sd=6.0, runs=3).se == pytest.approx(math.sqrt(parts[0] + 6**2 / 3))
    tuned = rules.difference(ours, 1_000, 80.0, sd=0.001, runs=3, regime="fine-tuned")
    assert tuned.se == pytest.approx(math.sqrt(parts[0]), rel=1e-3)


def test_two_fine_tuned_seeds_further_apart_than_the_bound_have_their_own_deviation():
    found = spread.spread([75.0, 85.0], 1_000, "fine-tuned")
    assert (found.sd, found.freedom) == (pytest.approx(np.std([75, 85], ddof=1)), 1.0)


@pytest.mark.parametrize(("below", "places"), [(8.1, (0,)), (7.9, ())])
def test_a_run_eight_bounds_below_the_median_of_its_arm_failed(below: float, places: tuple[int, ...]):
    low = 80.0 - below * binomial_sd(80.0, 1_000)
    assert failed([low, 80.0, 80.0], 1_000, [0.0] * 3, 0.05) == places


@pytest.mark.parametrize(("seeds", "share"), [(3, 0.07), (5, 0.11), (10, 0.21)])
def test_of_healthy_arms_with_a_spread_of_four_bounds_a_known_share_is_stopped(seeds: int, share: float):
    arms = 60.0 + 4 * binomial_sd(60.0, 2_000) * np.random.default_rng(seeds).normal(size=(4_000, seeds))
    stopped = [bool(failed(accuracies, 2_000, [0.0] * seeds, 0.05)) for accuracies in arms]
    assert np.mean(stopped) == pytest.approx(share, abs=0.02)


def test_a_run_at_chance_failed_however_near_its_arm():
    assert Arm((10.0, 10.2, 14.0), 1_000, 3, num_classes=10).failed == (0, 1)


def test_arrays_of_arms_are_judged_as_each_of_them_alone():
    rng = np.random.default_rng(0)
    rows = rng.normal(80, 2, (50, 3))
    whole = spread.spread(rows, 1_000, "scratch").sd
    assert whole == pytest.approx([spread.spread(r, 1_000, "scratch").sd for r in rows])


@pytest.mark.parametrize("regime", ["scratch", "fine-tuned"])
def test_arrays_of_cases_are_decided_as_each_of_them_alone(regime: Regime):
    rng = np.random.default_rng(1)
    rows = rng.normal(80, 2, (40, 3))
    whole = rules.difference(rows, 1_000, 80.0, regime=regime)
    alone = [rules.difference(r, 1_000, 80.0, regime=regime) for r in rows]
    assert whole.se == pytest.approx([a.se for a in alone])
    assert whole.freedom == pytest.approx([a.freedom for a in alone])

    cases = [[rng.random((3, 400)) < p for p in (0.7, 0.8)] for _ in range(10)]
    both = np.stack([stats.right_together(arms) for arms in cases])
    value, whole = rules.contrast(both, 400, [3, 3], [1.0, -1.0], [regime] * 2)
    for i, arms in enumerate(cases):
        one, alone_ = rules.contrast(stats.right_together(arms), 400, [3, 3], [1.0, -1.0], [regime] * 2)
        assert (value[i], whole.se[i], whole.freedom[i]) == pytest.approx((one, alone_.se, alone_.freedom))


@pytest.mark.parametrize(("edge", "told"), [(0.5, True), (-0.5, False), (2.5, False)])
def test_one_seed_at_the_limit_of_a_measure_and_others_past_the_edge_do_not_tell(edge: float, told: bool):
    least, _ = limits("selection_gain")
    arm = Arm((80.0, 81.0, 82.0), 1_000, 3, measures={"selection_gain": (least, least + 1.0, least + 2.0)})
    region = rules.Region(least + edge, tail=0.025)
    question = rules.Question("gain", "measure", {"a": 1.0}, region, least + edge, "selection_gain", relation=">")
    blocks = rules.RULES["measure"](question, {"a": arm}).blocks
    assert (PASS in blocks and blocks[PASS].name == "piled") is told


@pytest.mark.parametrize(("seeds", "outcome"), [(1, INCONCLUSIVE), (2, INCONCLUSIVE), (3, PASS)])
def test_one_or_two_seeds_from_scratch_refute_a_value_and_never_confirm_it(seeds: int, outcome: Outcome):
    def found(reported: float) -> Outcome:
        region = rules.Region(-40.0, 40.0)
        question = rules.Question("top1", "value", {"a": 1.0}, region, 40.0, cell=Cell(value=reported))
        return rules.RULES["value"](question, {"a": Arm((80.0,) * seeds, 1_000, seeds, num_classes=10)}).outcome

    assert found(80.0) is outcome
    assert found(15.0) is FAIL


@pytest.mark.parametrize(("values", "confirms"), [((1.0, 1.1), False), ((1.0, 1.1, 1.2), True)])
def test_a_measure_of_two_seeds_has_an_interval_and_confirms_nothing(values: tuple[float, ...], confirms: bool):
    arm = Arm((80.0, 81.0, 82.0)[: len(values)], 1_000, len(values), measures={"loss": values})
    estimate, may = rules.over_seeds([arm], "loss")
    assert estimate is not None
    assert may is confirms


@pytest.mark.parametrize(("low", "stopped"), [(10.0, True), (79.0, False)])
def test_an_arm_of_which_one_run_failed_decides_nothing_either_way(low: float, stopped: bool):
    question = rules.Question("top1", "value", {"a": 1.0}, rules.Region(-1.0, 1.0), 1.0, cell=Cell(value=50.0))
    found = rules.RULES["value"](question, {"a": Arm((low, 80.0, 81.0), 1_000, 3, num_classes=10)})
    assert [outcome in found.blocks for outcome in (PASS, FAIL)] == [stopped, stopped]
