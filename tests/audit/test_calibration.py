"""The rules keep their limits in every promised world, and the study counts what it says."""

from __future__ import annotations

import numpy as np
import pytest

from vitrepro.audit import calibration
from vitrepro.audit.calibration import IMAGES, MEAN, Study, described, measured, one_against_another, promised
from vitrepro.forecast.worlds import World
from vitrepro.judge import spread, stats

TRIALS = 3_000
LUCK = 3.5 * (0.06 * 0.94 / TRIALS) ** 0.5  # a rate of 6% at so few trials


def test_every_promised_world_is_within_the_limits() -> None:
    """The short form of `vitrepro calibrate`: all studies, a quarter of the trials."""
    rates = [study.run(TRIALS) for study in promised()]
    assert len(rates) > 350
    assert [(r.study.kind, r.study.name, r.study.seeds, r[1:4]) for r in rates if r.misses(LUCK)] == []


def test_rules_stay_useful() -> None:
    assert [what for what, seen, asked in calibration.usefulness(TRIALS) if seen < asked] == []


def test_a_rule_that_trusts_too_little_or_too_much_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the standard error breaks the limits, and a fixed wide one breaks the usefulness."""
    real = calibration.difference

    def halved(*args: object, **more: object) -> stats.Estimate:
        made = real(*args, **more)  # type: ignore[arg-type]
        return stats.Estimate(made.centre, made.se / 2, made.freedom)

    monkeypatch.setattr(calibration, "difference", halved)
    study = Study("value, ± of 3 runs", (World("normal, spread 3", 3.0),), (3,))
    assert {"false PASS", "false FAIL", "coverage"} <= set(study.run(TRIALS).misses())
    wide = spread.Stored(6.0, 2.0, 3.0, 1.0, 3.0)
    monkeypatch.setattr(calibration, "difference", lambda *a, **k: real(*a, **{**k, "known": k.get("known") or wide}))
    assert any(seen < asked for _, seen, asked in calibration.usefulness(TRIALS))


def test_one_stored_seed_against_another_is_seldom_refuted() -> None:
    """The prior of a single seed, fitted without the experiment at hand, refutes at most 6% of healthy pairs."""
    for p in one_against_another():
        assert (p.pairs, p.all_pairs) == (180, 228)
        assert p.wrong <= 0.06 * p.pairs
        assert p.wrong < p.wrong_of_all


def test_forty_seeds_are_what_was_measured() -> None:
    """Four arms of forty different seeds; spread and luck as computed directly."""
    worlds = measured()
    assert [w.right.shape for w in worlds] == [(40, 10_000), (40, 10_000), (40, 797), (40, 797)]
    for world in worlds:
        told, x = described(world.right), 100 * world.right.mean(1)
        assert len({row.tobytes() for row in world.right}) == 40
        assert told["spread"] == pytest.approx(np.std(x, ddof=1) / stats.binomial_sd(np.mean(x), len(world.right[0])))
        assert 1.0 < told["spread"] < 2.0
        assert 0.5 < told["luck"] < 1.0


def test_truth_of_a_study_is_the_mean_over_all_seeds() -> None:
    """Estimates of a study whose truth is zero lie around zero, for made-up, measured and unequal arms alike."""
    world = World("skew, spread 2", 2.0, "skew")
    forty = measured()
    bound = float(stats.binomial_sd(MEAN, IMAGES))
    for study in (
        Study("ordering", (world, world), (3, 5)),
        Study("gain", (world,) * 4, (3,) * 4),
        Study("value, one run", (world,), (3,)),
        Study("ordering", (forty[2], forty[3]), (5, 5)),
        Study("equality", (forty[0], forty[0]), (3, 3)),
    ):
        draw = study._value if study.kind in calibration.RUNS else study._contrast
        centre = draw(np.random.default_rng(1), 20_000)[0]
        assert abs(float(np.mean(centre))) < 0.06 * bound
