from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrepro import flops
from vitrepro.cost import START_SECONDS, Timings, images, run_flops, total
from vitrepro.plan import Run
from vitrepro.recipe import Recipe
from vitrepro.record import Environment, EpochPoint, Record, TrainResult
from vitrepro.spec import AnalyticArm

VIT = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
COUNTED = Run("counts", "b16", 0, AnalyticArm.model_validate({"model": VIT, "quantities": ["depth"]}))


def run(steps: int = 100, batch_size: int = 10, seed: int = 0, model: Any = VIT, train: Any = None, **data: Any) -> Run:
    values = {
        "data": {"name": "digits", **data},
        "model": model,
        "train": {"steps": steps, "batch_size": batch_size, "lr": 0.1, "precision": "fp32", **(train or {})},
    }
    return Run("models", "arm", seed, Recipe.model_validate(values))


def record(
    of: Run, train_seconds: float = 2.0, eval_seconds: float = 0.5, device: str = "here", **result: Any
) -> Record:
    """What a run left behind: 500 training images and 797 test images a second, unless said otherwise."""
    assert isinstance(of.config, Recipe)
    measured: dict[str, Any] = {
        "n": 797,
        "correct": 700,
        "complete_n": 797,
        "num_classes": 10,
        "parameters": 1,
        "train_images": 1000,
        "steps": of.config.steps,
        "skipped_steps": 0,
        "effective_batch": of.config.train.batch_size,
        "micro_batch": of.config.train.batch_size,
        "precision": "fp32",
        "final_loss": 0.1,
        "dev_correct": None,
        "dev_n": None,
        "train_seconds": train_seconds,
        "eval_seconds": eval_seconds,
    }
    hashes = dict.fromkeys(("ids_sha256", "train_sha256", "test_sha256", "data_sha256", "weights_sha256"), "0")
    return Record(
        run_id=of.id,
        type="train",
        experiment=of.experiment,
        arm=of.arm,
        seed=of.seed,
        config=of.config.model_dump(mode="json"),
        config_hash=of.config_hash,
        claims={},
        result=TrainResult(**{**measured, **hashes, **result}),
        environment=Environment(
            vitrepro="0",
            git_revision=None,
            python="3",
            packages={},
            platform="p",
            device="cpu",
            device_name=device,
            threads=1,
        ),
        started_at="2026-01-01T00:00:00+00:00",
        wall_seconds=3.0,
    )


def test_time_is_images_over_the_measured_rates() -> None:
    timings = Timings([record(run())], "here", 1)
    assert timings.seconds(run(steps=1000)) == pytest.approx(START_SECONDS + 10_000 / 500 + 797 / (797 / 0.5))
    assert timings.seconds(run(seed=9, train_images=100)) == timings.seconds(run())


def test_records_of_another_device_do_not_count() -> None:
    assert Timings([record(run(), device="there")], "here", 1).seconds(run()) is None
    both = Timings([record(run()), record(run(), train_seconds=200, device="there")], "here", 1)
    assert both.seconds(run()) == Timings([record(run())], "here", 1).seconds(run())


@pytest.mark.parametrize(
    "other",
    [
        run(model={**VIT, "depth": 3}),
        run(model={**VIT, "image_size": 16}),
        run(batch_size=20),
        run(name="cifar10"),
    ],
)
def test_a_model_that_was_never_timed_here_gives_none(other: Run) -> None:
    timings = Timings([record(run())], "here", 1)
    assert timings.seconds(run()) is not None
    assert timings.seconds(other) is None
    assert total([run(), other], timings, slots=1).seconds is None


@pytest.mark.parametrize("result", [{"resumed_at": (50,)}, {"train_seconds": 0.0}, {"eval_seconds": 0.0}])
def test_a_run_that_was_interrupted_or_not_timed_says_nothing_of_speed(result: dict[str, Any]) -> None:
    assert Timings([record(run(), **result)], "here", 1).seconds(run()) is None


def test_the_last_of_several_records_of_a_model_counts() -> None:
    slow_then_fast = [record(run(), train_seconds=20.0), record(run(seed=1), train_seconds=2.0)]
    assert Timings(slow_then_fast, "here", 1).seconds(run()) == Timings([record(run())], "here", 1).seconds(run())


def test_a_record_whose_recipe_is_no_longer_one_is_passed_over() -> None:
    old = record(run())
    old = old.model_copy(update={"config": {**old.config, "left_over": 1}})
    assert Timings([old], "here", 1).seconds(run()) is None


def test_counting_takes_seconds_and_no_images() -> None:
    priced = total([COUNTED], Timings([], "here", 1), slots=1)
    assert (priced.runs, priced.train_images, priced.test_images, priced.flops) == (1, 0, 0, 0.0)
    assert priced.seconds is not None
    assert 0 < priced.seconds < 60


def test_images_count_repetitions_and_a_partial_test_set() -> None:
    assert images(run(steps=300, batch_size=7)) == (2100, 797)
    assert images(run(test_images=50)) == (1000, 50)
    assert images(run(classes=[0, 1])) == (1000, 159)


GRID = {"lr": None, "lr_grid": [0.1, 0.2, 0.3]}


def test_images_count_every_rate_of_a_grid_and_every_look_at_the_dev_split() -> None:
    assert images(run(dev_fraction=0.1)) == (1000, 797 + 100)
    searched = run(dev_fraction=0.1, train=GRID)
    assert images(searched) == (4 * 1000, 797 + 3 * 100)
    macs = flops.executed_macs(searched.config.model, image_size=8, channels=1, num_classes=10)  # type: ignore[union-attr]
    assert macs is not None
    assert run_flops(searched) == pytest.approx(2 * macs * (3 * 4000 + 1097))


def test_a_grid_gives_the_rate_of_all_it_trained_but_of_no_point_that_diverged() -> None:
    points = [{"lr": 0.1, "correct": 90, "n": 100}, {"lr": 0.2, "correct": 80, "n": 100}]
    points.append({"lr": 0.3, "correct": None, "n": 100})
    of = run(dev_fraction=0.1, train=GRID)
    timed = Timings([record(of, train_seconds=6.0, eval_seconds=0.997, lr_grid_dev=points)], "here", 1)
    assert timed.seconds(of) == pytest.approx(START_SECONDS + 4000 / 500 + 1097 / 1000)


def test_flops_are_three_passes_a_training_image_and_one_a_test_image_of_what_the_engine_computes() -> None:
    for engine, count in (("fast", flops.executed_macs), ("plain", flops.forward_macs)):
        of = run(train={"engine": engine})
        assert isinstance(of.config, Recipe)
        macs = count(of.config.model, image_size=8, channels=1, num_classes=10)
        assert macs is not None
        assert run_flops(of) == pytest.approx(2 * macs * (3 * 1000 + 797))


@pytest.mark.parametrize("batch_size", [10, 20])
def test_an_image_costs_what_it_does_in_a_batch_of_that_size_where_attention_is_across_the_batch(
    batch_size: int,
) -> None:
    of = run(batch_size=batch_size, model={**VIT, "attention": "batch", "pool": "gap"})
    assert isinstance(of.config, Recipe)
    sizes = {"image_size": 8, "channels": 1, "num_classes": 10}
    macs = flops.forward_macs(of.config.model, **sizes, batch_size=batch_size)
    assert macs is not None
    assert run_flops(of) == pytest.approx(2 * macs * (3 * 100 * batch_size + 797))
    assert macs != flops.forward_macs(of.config.model, **sizes, batch_size=1)


def test_a_model_without_a_closed_form_has_no_flops() -> None:
    library = run(model={"family": "timm", "name": "resnet18"})
    assert run_flops(library) is None
    assert total([run(), library], Timings([], "here", 1), slots=1).flops is None


def test_nothing_costs_nothing() -> None:
    priced = total([], Timings([], "here", 1), slots=2)
    assert (priced.runs, priced.flops, priced.seconds) == (0, 0, 0.0)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(1, 16))
def test_slots_share_the_time_but_no_run_is_split(steps: list[int], slots: int) -> None:
    timings = Timings([record(run())], "here", 1)
    runs = [run(steps=s, seed=i) for i, s in enumerate(steps)]
    each = [s for s in (timings.seconds(r) for r in runs) if s is not None]
    found = total(runs, timings, slots).seconds
    assert found is not None
    assert found == pytest.approx(max(sum(each) / slots, max(each)))
    assert max(each) <= found <= sum(each) + 1e-9


def test_images_evaluated_after_epochs_are_counted_and_timed() -> None:
    looked = {"steps": None, "epochs": 3, "evaluate_epochs": ["dev", "test"]}
    plain = run(train={"steps": None, "epochs": 3}, dev_fraction=0.1, train_images=500)
    along = run(train=looked, dev_fraction=0.1, train_images=500)
    assert images(along) == (images(plain)[0], images(plain)[1] + 3 * (50 + 797))
    each = {"train_loss": 1.0, "train_loss_sum": 9.0, "dev_correct": 1, "dev_n": 50, "test_correct": 1, "test_n": 797}
    points = [EpochPoint(epoch=k, steps=45 * k, **each) for k in (1, 2, 3)]
    timings = Timings([record(along, dev_correct=1, dev_n=50, epochs=tuple(points), eval_seconds=4.0)], "here", 1)
    rates = 1350 / 2.0, 4 * 847 / 4.0
    assert timings.seconds(plain) == pytest.approx(START_SECONDS + 1350 / rates[0] + 847 / rates[1])


def test_training_images_are_counted_where_their_accuracy_is_measured() -> None:
    plain = run(dev_fraction=0.1, train_images=500)
    assert isinstance(plain.config, Recipe)
    measured = replace(plain, config=plain.config.model_copy(update={"measures": ("train_top1",)}))
    assert images(measured) == (images(plain)[0], images(plain)[1] + 450)


def test_training_the_head_alone_costs_a_forward_pass_of_each_image_and_is_timed_apart() -> None:
    started = {**VIT, "weights": "vit_tiny_patch16_224.augreg_in1k"}
    whole, head = run(model=started), run(model=started, train={"trainable": "head"})
    macs = run_flops(whole), run_flops(head)
    assert macs[0] is not None
    assert macs[1] == pytest.approx(macs[0] * (1000 + 797) / (3 * 1000 + 797))
    assert Timings([record(whole)], "here", 1).seconds(head) is None
