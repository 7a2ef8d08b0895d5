"""Arms that differ only in how they are computed, compared seed by seed: from the claim file to the verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel
from verdict_cases import RECIPE, equal, equivalence, judged, planned, runs, trained

from vitrepro import claims
from vitrepro.arrays import Bools, Floats
from vitrepro.audit.sensitivity import STEPS, examine
from vitrepro.forecast import outlook
from vitrepro.judge import elsewhere, rules, stats
from vitrepro.judge.arm import Arm
from vitrepro.judge.elsewhere import Asked
from vitrepro.judge.finding import Outcome
from vitrepro.judge.given import Given
from vitrepro.judge.verdict import Verdict, judge
from vitrepro.plan import Override, Run, apply
from vitrepro.recipe import COMPUTING, Recipe, TrainSpec, apart
from vitrepro.record import Measured
from vitrepro.report import words
from vitrepro.spec import EquivalenceExpect

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
DOCUMENTATION = Path(__file__).parent.parent.parent / "docs/performance"


def contrast(arms: Sequence[Bools], weights: Sequence[float], *, paired: bool = False) -> tuple[float, stats.Estimate]:
    """The contrast of arms by their correctness, from scratch."""
    both, seeds = stats.right_together(arms), [len(a) for a in arms]
    return rules.contrast(both, arms[0].shape[1], seeds, weights, ["scratch"] * len(arms), paired=paired)


def pairs(
    seeds: int, n: int, *, apart: float = 0.0, flipped: float = 0.01, unsteady: float = 2.0, own: float = 0.0
) -> list[Bools]:
    """Two arms whose runs of one seed are right on the same images, but for some that were flipped in the second.

    Args:
        apart: points by which the second is worse.
        flipped: share of images on which only one of a pair is right.
        unsteady: points by which a seed differs from the others, in both arms.
        own: points by which each run differs from its partner.
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(0.8, unsteady / 100, (seeds, 1)) - rng.normal(0, own / 100, (2, seeds, 1))
    centres[1] -= apart / 100
    luck = rng.random((seeds, n))
    other = np.where(rng.random((seeds, n)) < 2 * flipped, rng.random((seeds, n)), luck)
    return [luck < centres[0], other < centres[1]]


def named(arms: Sequence[Bools]) -> dict[str, Bools]:
    return dict(zip("abc", arms, strict=False))


def paired(arms: Sequence[Bools], within: float = 2.0, **change: Any) -> Verdict:
    return judged(equivalence(within, paired_by_seed=True), named(arms), **change)


def half(estimate: stats.Estimate, level: float = 0.90) -> float:
    i = estimate.interval(level)
    return (i.high - i.low) / 2


# --- the interval -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.90, 0.95])
def test_where_images_add_nothing_the_interval_is_scipys_of_a_paired_t_test(level: float):
    """Its middle is drawn towards zero by the two images that are added, as that of every contrast is."""
    exact = 0
    for trial in range(30):
        rng, n = np.random.default_rng(trial), 4_000
        luck, luckier = rng.random((10, n)), rng.random((10, n))
        arms = [luck < 0.8, np.where(rng.random((10, n)) < 0.3, luckier, luck) < 0.79]
        value, estimate = contrast(arms, [1, -1], paired=True)
        reference = ttest_rel(*(100 * a.mean(1) for a in arms)).confidence_interval(level)
        low, high = reference
        assert value == pytest.approx((low + high) / 2)
        assert estimate.centre == pytest.approx(value * n / (n + 2))
        assert half(estimate, level) >= (high - low) / 2 * (1 - 1e-9)
        exact += half(estimate, level) == pytest.approx((high - low) / 2)
    assert exact >= 5


def by_hand(a: Bools, b: Bools) -> tuple[float, float, float]:
    """Variance of the mean over seeds, and what images add, of a table of differences, sum by sum; seeds' own chance.

    Neither the floors of the seeds' variance nor the added images are in it.
    """
    k, n = a.shape
    table = [[100.0 * (int(a[s, i]) - int(b[s, i])) for i in range(n)] for s in range(k)]
    by_seed = [sum(row) / n for row in table]
    by_image = [sum(table[s][i] for s in range(k)) / k for i in range(n)]
    mean = sum(by_seed) / k
    of_seeds = sum((d - mean) ** 2 for d in by_seed) / (k - 1) / k
    of_images = sum((z - mean) ** 2 for z in by_image) / n / n
    own = sum((table[s][i] - by_image[i]) ** 2 for s in range(k) for i in range(n)) / (k - 1) / n / n / k
    return of_seeds, of_images, own


@pytest.mark.parametrize("flipped", [0.05, 0.3])
def test_its_variance_is_that_of_the_seeds_differences_and_what_images_add(flipped: float):
    for seeds, n in ((3, 400), (10, 900)):
        a, b = pairs(seeds, n, flipped=flipped, own=1.0)
        hard = np.arange(n) < 0.1 * n  # where the two computations disagree whatever the seed
        a, b = a | hard, b & ~hard
        of_seeds, of_images, own = by_hand(a, b)
        floor = max(of_seeds, own / 4, 2 * (50 / n) ** 2 / seeds)
        _, estimate = contrast([a, b], [1, -1], paired=True)
        assert of_images > own
        assert estimate.se**2 == pytest.approx(floor + of_images - own, rel=0.02)  # and two images of n + 2
        assert (estimate.freedom, estimate.bound) == (seeds - 1, True)


def bootstrapped(a: Bools, b: Bools, draws: int = 3_000) -> Floats:
    """Mean differences of draws of pairs of seeds and of images."""
    rng, table = np.random.default_rng(1), 100.0 * (a.astype(float) - b)
    k, n = table.shape
    found = []
    for _ in range(draws):
        seeds, images = rng.integers(0, k, k), rng.integers(0, n, n)
        found.append(table[seeds][:, images].mean())
    return np.array(found)


def test_a_bootstrap_of_pairs_and_images_counts_the_seeds_own_chance_twice_more():
    """It is in the draws of seeds, in those of images and between the two; here it is nearly all there is."""
    seeds, n = 10, 400
    a, b = pairs(seeds, n, flipped=0.2)
    of_seeds, of_images, own = by_hand(a, b)
    drawn = bootstrapped(a, b).var()
    between = own * (seeds - 1) / seeds
    assert drawn == pytest.approx(of_seeds * (seeds - 1) / seeds + of_images + between, rel=0.1)
    _, estimate = contrast([a, b], [1, -1], paired=True)
    assert drawn == pytest.approx(estimate.se**2 + 2 * own, rel=0.25)
    assert estimate.se**2 < 0.7 * drawn


def test_what_runs_of_a_seed_share_leaves_the_difference():
    arms = pairs(10, 2_000, unsteady=3.0)
    apart, together = (half(contrast(arms, [1, -1], paired=p)[1]) for p in (False, True))
    assert together < 0.2 * apart
    shuffled = [arms[0], arms[1][[3, 4, 5, 6, 7, 8, 9, 0, 1, 2]]]
    assert half(contrast(shuffled, [1, -1], paired=True)[1]) > 4 * together


def test_pairs_that_agree_on_every_image_vary_by_half_an_image_of_each_arm():
    """And by the two images that are added, on which one pair of four speaks for a difference."""
    n, seeds = 1_000, 4
    same = np.tile(np.arange(n) < 800, (seeds, 1))
    _, estimate = contrast([same, same], [1, -1], paired=True)
    assert estimate.se**2 == pytest.approx(2 * (50 / n) ** 2 / seeds + 2 * (100 / seeds / (n + 2)) ** 2)


def test_seeds_whose_differences_are_equal_by_luck_do_not_pass_for_certainty():
    n, a = 1_000, np.tile(np.arange(1_000) < 800, (4, 1))
    b = a ^ np.stack([np.roll(np.arange(n) % 25 == 0, s) for s in range(4)])  # forty others in every seed
    assert np.ptp(a.mean(1) - b.mean(1)) < 1e-9
    *_, own = by_hand(a, b)
    assert contrast([a, b], [1, -1], paired=True)[1].se >= math.sqrt(own / 4)


def test_one_pair_is_one_model_each():
    arms = pairs(1, 500)
    assert contrast(arms, [1, -1], paired=True) == contrast(arms, [1, -1])


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="the same seeds"):
        contrast([np.ones((3, 10), bool), np.ones((2, 10), bool)], [1, -1], paired=True)
    with pytest.raises(ValueError, match="do not tell which seed"):
        equal("a", "b", 1.0, {"a": Arm((90.0, 91.0), 100), "b": Arm((90.0, 91.0), 100)}, paired=True)


# --- the verdict --------------------------------------------------------------------------------


def test_seeds_that_differ_a_lot_but_not_within_a_pair_pass_only_as_pairs():
    arms = pairs(10, 2_000, unsteady=3.0)
    assert judged(equivalence(1.0), named(arms)).outcome is INCONCLUSIVE
    verdict = paired(arms, 1.0)
    assert verdict.outcome is PASS
    assert "over 2,000 test images and 10 seeds, paired by seed." in words.reason(verdict)
    assert "(seeds and images, paired by seed, so at least 90%)" in words.reason(verdict)


@pytest.mark.parametrize("off", [3.0, -3.0])
def test_a_shift_of_three_margins_fails(off: float):
    assert paired(pairs(10, 5_000, apart=off), 1.0).outcome is FAIL


def test_pairs_too_far_apart_from_seed_to_seed_decide_nothing():
    assert paired(pairs(10, 2_000, own=2.0), 1.0).outcome is INCONCLUSIVE
    assert paired(pairs(10, 2_000, own=2.0), 6.0).outcome is PASS


def test_a_difference_on_the_edge_decides_nothing():
    assert paired(pairs(10, 5_000, apart=1.0), 1.0).outcome is INCONCLUSIVE


def test_the_p_value_and_the_interval_decide_alike():
    for apart_ in np.linspace(0, 2.5, 11):
        (f,) = paired(pairs(5, 1_000, apart=float(apart_), flipped=0.03), 1.0).findings
        assert f.p is not None
        assert f.p_against is not None
        assert (f.outcome is PASS, f.outcome is FAIL) == (f.p < 0.05, f.p_against < 0.05)


def test_runs_are_paired_by_their_seed_and_not_by_their_place():
    measured = runs(named(pairs(6, 1_000)))
    shuffled = [measured[i] for i in np.random.default_rng(0).permutation(len(measured))]
    claim = equivalence(1.0, paired_by_seed=True)
    assert judged(claim, shuffled).findings == judged(claim, measured).findings
    turned = [dataclasses.replace(m, seed=(m.seed + (m.arm == "b")) % 6) for m in measured]
    (f,), (was,) = judged(claim, turned).findings, judged(claim, measured).findings
    assert f.deciding != was.deciding


def test_arms_of_other_seeds_are_an_error():
    measured = runs(named(pairs(3, 1_000)))
    later = [dataclasses.replace(m, seed=m.seed + (m.arm == "b")) for m in measured]
    verdict = judged(equivalence(paired_by_seed=True), later)
    assert verdict.outcome is Outcome.ERROR
    assert words.reason(verdict) == "the arms are compared seed by seed, and have other seeds: a 0, 1, 2; b 1, 2, 3"
    assert judged(equivalence(paired_by_seed=True), measured[:-1]).outcome is Outcome.ERROR
    assert judged(equivalence(), later).outcome is PASS


def test_a_missing_or_a_left_out_seed_decides_nothing():
    arms, claim = named(pairs(10, 2_000)), equivalence(1.0, paired_by_seed=True)
    measured = runs(arms)
    gone = [*measured[:-1], dataclasses.replace(measured[-1], record=None, predictions=None)]
    assert judge(claim, "gpu", gone, registered_seeds=10).outcome is Outcome.NOT_RUN
    fewer = runs({arm: rows[:9] for arm, rows in arms.items()})
    assert "9 of 10 seeds" in words.qualifiers(judge(claim, "gpu", fewer, registered_seeds=10))
    for measured in (fewer, runs(arms, complete_n=2_001)):
        assert judge(claim, "gpu", measured, registered_seeds=10).outcome is INCONCLUSIVE
    assert judge(claim, "gpu", runs(arms), registered_seeds=10).outcome is PASS


def test_one_pair_decides_nothing():
    for off in (0.0, 9.0):
        verdict = paired(pairs(1, 5_000, apart=off))
        assert verdict.outcome is INCONCLUSIVE
        assert "one seed does not tell how far apart the runs of a seed lie" in words.reason(verdict)
    seeds_that_agree = [rows[[0, 0, 0]] for rows in pairs(1, 5_000)]
    assert paired(seeds_that_agree).outcome is INCONCLUSIVE
    assert paired(pairs(2, 5_000), 5.0).outcome is INCONCLUSIVE
    assert paired(pairs(3, 5_000), 5.0).outcome is PASS


def test_arms_that_guess_or_make_no_error_do_not_pass_as_pairs():
    rng = np.random.default_rng(0)
    guessing, faultless = rng.random((5, 2_000)) < 0.1, rng.random((5, 2_000)) < 0.999
    for rows, why in ((guessing, "not above chance"), (faultless, "without a single error would be as equal")):
        verdict = paired([rows, rows ^ (rng.random(rows.shape) < 1e-3)])
        assert verdict.outcome is INCONCLUSIVE
        assert why in words.reason(verdict)


def test_a_seed_counts_once_for_every_pair_that_differs():
    a, b = pairs(4, 1_000)
    one_arm_agrees = paired([a[[0, 0, 1, 2]], b])
    assert (one_arm_agrees.seeds, *words.qualifiers(one_arm_agrees)) == (4, "4 seeds, 3 registered")
    both_agree = paired([a[[0, 0, 1, 2]], b[[0, 0, 1, 2]]])
    assert both_agree.seeds == 3
    assert "seeds that agree on every image count once: a, b" in words.qualifiers(both_agree)
    assert both_agree.findings == paired([a[:3], b[:3]]).findings


def test_every_pair_of_arms_is_paired_by_seed():
    a, b = pairs(6, 1_000)
    c = b ^ (np.random.default_rng(1).random(b.shape) < 0.01)
    verdict = judged(equivalence(3.0, "abc", paired_by_seed=True), named([a, b, c]))
    assert [f.label for f in verdict.findings] == ["a - b", "a - c", "b - c"]
    assert all("paired by seed" in words.because(f) for f in verdict.findings)


# --- arms that were computed alike --------------------------------------------------------------


def with_results(measured: Sequence[Measured], **change: Any) -> list[Measured]:
    """The same with these fields in the results; a function is told arm and seed."""
    made = []
    for m in measured:
        assert m.record is not None
        fields = {k: v(m.arm, m.seed) if callable(v) else v for k, v in change.items()}
        result = m.record.result.model_copy(update=fields)
        made.append(dataclasses.replace(m, record=m.record.model_copy(update={"result": result})))
    return made


def test_other_weights_that_are_right_on_the_same_images_are_equal():
    """In float32 and in bfloat16, of data that are nearly too easy: not one image was told otherwise."""
    a, _ = pairs(5, 1_000)
    assert paired([a, a]).outcome is PASS
    assert judged(equivalence(8.0), named([a, a])).outcome is INCONCLUSIVE


def weights_of_seed(_: str, seed: int) -> str:
    return str(seed)


ALIKE = "a and b were computed alike, which shows nothing of another way to compute; it would have been PASS"


def test_the_same_weights_and_answers_show_nothing_of_another_way_to_compute():
    a, b = pairs(3, 1_000)
    same = with_results(runs(named([a, a])), weights_sha256=weights_of_seed)
    verdict = judged(equivalence(paired_by_seed=True), same)
    assert (verdict.outcome, words.qualifiers(verdict)) == (INCONCLUSIVE, ("computed alike: a, b",))
    assert words.reason(verdict).startswith(ALIKE)
    once = with_results(same, weights_sha256=lambda arm, seed: str(seed) if seed == 2 else f"{arm}/{seed}")
    assert judged(equivalence(paired_by_seed=True), once).outcome is INCONCLUSIVE  # one seed is enough
    evaluated_otherwise = with_results(runs(named([a, b])), weights_sha256=weights_of_seed)
    assert judged(equivalence(paired_by_seed=True), evaluated_otherwise).outcome is PASS


def test_one_run_for_both_arms_shows_nothing_of_another_way_to_compute():
    """Where `precision: auto` is float32 both arms have one recipe, and one run stands for them."""
    a, _ = pairs(3, 1_000)
    of_a = trained("a", a)
    both = [*of_a, *(dataclasses.replace(m, arm="b") for m in of_a)]
    verdict = judged(equivalence(paired_by_seed=True), both)
    assert (verdict.outcome, words.qualifiers(verdict)) == (INCONCLUSIVE, ("computed alike: a, b",))
    assert judged(equivalence(), both).outcome is Outcome.ERROR


@pytest.mark.parametrize(
    ("of_a", "of_b", "outcome"),
    [
        ({"choices": {"layout": "channels last"}}, {"choices": {"layout": "channels last"}}, INCONCLUSIVE),
        ({"choices": {"layout": "channels last"}}, {"choices": {"layout": "as allocated"}}, PASS),
        ({"choices": {"l": "x"}, "precision": "bf16"}, {"choices": {"l": "x"}, "precision": "fp32"}, PASS),
        ({"choices": {"l": "x"}, "micro_batch": 16}, {"choices": {"l": "x"}}, PASS),
        ({}, {}, PASS),  # records that do not tell
    ],
)
def test_records_that_tell_the_same_computation_decide_nothing(
    of_a: Mapping[str, Any], of_b: Mapping[str, Any], outcome: Outcome
):
    a, b = pairs(5, 1_000)
    measured = [*trained("a", a, **of_a), *trained("b", b, **of_b)]
    assert judged(equivalence(paired_by_seed=True), measured).outcome is outcome
    assert judged(equivalence(9.0), measured).outcome is PASS


@pytest.mark.parametrize(("processes", "outcome"), [(1, INCONCLUSIVE), (2, PASS)])
def test_where_one_process_computes_a_run_whose_statistics_batch_norm_takes_changes_nothing(
    processes: int, outcome: Outcome
):
    measured = []
    for m in with_results(runs(named(pairs(5, 1_000))), choices={"layout": "as allocated"}, processes=processes):
        assert m.record is not None
        config = {"train": {"batch_norm": "batch" if m.arm == "a" else "process"}}
        measured.append(dataclasses.replace(m, record=m.record.model_copy(update={"config": config})))
    assert judged(equivalence(paired_by_seed=True), measured).outcome is outcome


def test_two_seeds_that_are_one_run_stay_an_error():
    a, b = pairs(3, 1_000)
    twins = with_results(
        runs(named([a[[0, 0, 1]], b])), weights_sha256=lambda arm, seed: "w" if arm == "a" else str(seed)
    )
    assert judged(equivalence(paired_by_seed=True), twins).outcome is Outcome.ERROR
    across = with_results(
        runs(named([a, a[[1, 2, 0]]])), weights_sha256=lambda arm, seed: str((seed + (arm == "b")) % 3)
    )
    verdict = judged(equivalence(paired_by_seed=True), across)
    assert verdict.outcome is Outcome.ERROR
    assert "they are one run, not two" in words.reason(verdict)


# --- claim files --------------------------------------------------------------------------------

EXPERIMENT = """\
id: engines
type: train
title: one recipe, computed in several ways
base:
  data: {name: digits}
  model: {family: vit, patch_size: 2, embed_dim: 16, depth: 1, num_heads: 1}
  train: {steps: 10, batch_size: 32, lr: 1e-3}
factors:
  engine:
    fast: {}
    plain: {train: {precision: fp32, engine: plain, deterministic: true, batch_norm: process, micro_batch: 16}}
    smooth: {train: {precision: fp32, label_smoothing: 0.1}}
    wide: {model: {embed_dim: 32}}
seeds: [0, 1]
"""
CLAIM = """\
id: mine/engines
source: {paper: none, where: here}
kind: equivalence
statement: As accurate.
scales:
  quick:
    experiment: engines
    fidelity: exact
    expect: {equal: [fast, ARM], within: 1.0, paired_by_seed: true}
"""


def problems(tmp_path: Path, text: str) -> tuple[str, ...]:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/engines.yaml").write_text(EXPERIMENT)
    (tmp_path / "claim.yaml").write_text(text)
    return claims.load([tmp_path]).problems


def test_arms_may_differ_in_every_setting_of_how_they_are_computed(tmp_path: Path):
    assert problems(tmp_path, CLAIM.replace("ARM", "plain")) == ()


@pytest.mark.parametrize(
    ("arms", "other", "path"),
    [
        ("smooth", "smooth", "train.label_smoothing"),
        ("wide", "wide", "model.embed_dim"),
        ("plain, wide", "wide", "model.embed_dim"),
    ],
)
def test_arms_that_differ_in_what_is_computed_are_a_fault_of_the_claim(
    tmp_path: Path, arms: str, other: str, path: str
):
    text = CLAIM.replace("ARM", arms)
    (problem,) = problems(tmp_path, text)
    column = text.splitlines()[-1].index("paired_by_seed") + 1
    assert problem == (
        f"{tmp_path}/claim.yaml:9:{column}: scales.quick.expect.paired_by_seed: arms 'fast' and {other!r} of engines "
        f"differ in {path}; arms that seeds make pairs of may differ in train.precision, train.engine, "
        "train.deterministic, train.batch_norm, train.micro_batch only"
    )


def test_an_arm_that_does_not_exist_is_told_as_that_alone(tmp_path: Path):
    (problem,) = problems(tmp_path, CLAIM.replace("fast, ARM", "fst, plan"))[:1]
    assert "has no arm 'fst'" in problem


def test_the_settings_of_how_to_compute_are_settings_of_a_recipe():
    assert {path.partition(".")[2] for path in COMPUTING} <= set(TrainSpec.model_fields)
    assert all(path.startswith("train.") for path in COMPUTING)


def test_recipes_are_apart_in_the_first_setting_that_differs_whatever_it_is():
    ours = Recipe.model_validate(RECIPE)
    for change, path in (
        ({"data": {"name": "digits", "train_images": 500}}, "data.train_images"),
        ({"augment": {"flip": True}}, "augment.flip"),
        ({"augment": {"random_resized_crop": {}}}, "augment.random_resized_crop.scale"),
        ({"model": {"family": "resnet", "layers": [1], "block": "basic"}}, "model.family"),
        ({"train": {**RECIPE["train"], "lr": 0.1, "precision": "bf16"}}, "train.lr"),
        ({"measures": ["attention_low_max"]}, "measures"),
    ):
        other = Recipe.model_validate({**RECIPE, **change})
        assert apart(ours, other) == apart(other, ours) == path
    assert apart(ours, Recipe.model_validate({**RECIPE, "train": {**RECIPE["train"], "precision": "bf16"}})) is None


def test_a_setting_changed_by_hand_is_changed_in_every_arm():
    """So that pairs of arms stay pairs: nothing of the file's check is lost with --set."""
    fast = Recipe.model_validate(RECIPE)
    plain = fast.model_copy(update={"train": fast.train.model_copy(update={"precision": "fp32", "engine": "plain"})})
    for text in ("train.lr=0.1", "train.epochs=3", "model.depth=2", "train.engine=plain", "augment.flip=true"):
        changed = [apply(r, [Override.parse(text)])[0] for r in (fast, plain)]
        assert apart(*changed) is None


def test_the_claims_about_the_engine_are_sound_and_paired_by_seed():
    registry = claims.load([DOCUMENTATION])
    assert registry.problems == ()
    ours = [c for c in registry.claims.values() if c.id.startswith("engine/")]
    assert len(ours) == 8
    for claim in ours:
        entry = claim.scales.cpu
        assert entry is not None
        assert isinstance(entry.expect, EquivalenceExpect)
        assert entry.expect.paired_by_seed
        assert len(registry.experiments[str(entry.experiment)].seeds) == 10  # type: ignore[union-attr]


# --- before the runs, and beside them -----------------------------------------------------------

SEEN = {"a": 90.0, "b": 90.0}


def to_run(seeds: int) -> list[Run]:
    """Of arms `a` and `b`, which differ in their precision."""
    train = {**RECIPE["train"], "precision": "bf16"}
    other = Recipe.model_validate({**RECIPE, "train": train})
    return [dataclasses.replace(r, config=other) if r.arm == "b" else r for r in planned(seeds, "a", "b")]


def looked_ahead(seeds: int, within: float) -> outlook.Outlook:
    claim = equivalence(within, paired_by_seed=True)
    assert claim.scales.gpu is not None
    assert claim.scales.gpu.expect is not None
    (only,) = outlook.outlook(claim, claim.scales.gpu.expect, to_run(seeds), SEEN)
    return only


def test_planning_says_at_least_and_doubts_no_margin_since_pairs_may_stay_together():
    ahead, claim = looked_ahead(5, 8.0), equivalence(0.5, paired_by_seed=True)
    (found,) = paired(pairs(5, 797, unsteady=3.0), 8.0).findings
    assert ahead.least
    assert ahead.power is not None
    assert found.power is not None
    assert 0.05 < ahead.power[1] < min(ahead.power[0], found.power)
    assert looked_ahead(5, 0.5).hopeless
    assert outlook.cannot_pass(claim, "gpu", to_run(5), 5, SEEN) is None
    for seeds in (1, 2):
        told = outlook.cannot_pass(claim, "gpu", to_run(seeds), seeds, SEEN)
        assert told == "cannot PASS: arms paired by seed need three seeds"


def test_arms_that_come_to_one_recipe_are_told_before_they_run():
    claim = equivalence(4.0, paired_by_seed=True)
    told = outlook.cannot_pass(claim, "gpu", planned(3, "a", "b"), 3)
    assert told == "cannot PASS: a and b come to one recipe here, and nothing is compared"
    assert outlook.cannot_pass(equivalence(4.0), "gpu", planned(3, "a", "b"), 3) != told


def test_a_verdict_on_pairs_moved_by_margins_is_still_one_on_pairs():
    """Were its seeds not paired, the shared spread would leave it open at every step."""
    claim, found = equivalence(1.0, paired_by_seed=True), runs(named(pairs(10, 2_000, unsteady=3.0)))
    told = examine(claim, judge(claim, "gpu", found, registered_seeds=10))
    steps = [t.outcome for step in STEPS if (t := told.at(step))]
    assert steps == [FAIL, FAIL, INCONCLUSIVE, INCONCLUSIVE, FAIL, FAIL]
    assert told.nearest is not None
    assert not told.fixed


def test_accuracies_from_elsewhere_are_not_paired_by_seed_and_it_is_said():
    registry = claims.load([DOCUMENTATION])
    claim = registry.claims["engine/vit-digits"]
    same = tuple(90.0 + 3 * s for s in (-1, 0, 1))
    given = {arm: Given(accuracies=same, digits=(0, 0, 0)) for arm in ("vit-fast", "vit-plain")}
    verdict = elsewhere.judge(registry, claim, None, given, Asked()).verdict
    assert "not paired by seed, which nothing here tells" in words.qualifiers(verdict)
    assert "(unpaired" in words.reason(verdict)
    assert verdict.outcome is INCONCLUSIVE
