"""The training loop."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vitrepro import checkpoint, optim
from vitrepro.errors import RunError
from vitrepro.models.build import build
from vitrepro.randomness import derive
from vitrepro.recipe import Recipe
from vitrepro.train import Stopped, Trained, train

torch.set_num_threads(1)

VIT = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.1}


def recipe(**changes: object) -> Recipe:
    settings = {"steps": 10, "batch_size": 16, "lr": 1e-2, "weight_decay": 0.1, "clip_norm": 1.0, **changes}
    augment = {"flip": True, "crop_padding": 1}
    return Recipe.model_validate({"data": {"name": "digits"}, "augment": augment, "model": VIT, "train": settings})


def images(n: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 10
    pictures = torch.randint(0, 100, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    pictures += (labels * 12).to(torch.uint8)[:, None, None, None]
    return pictures, labels


def fit(r: Recipe, folder: Path, seed: int = 0, **options: object) -> tuple[nn.Module, Trained, list[dict[str, float]]]:
    torch.manual_seed(derive(seed, "weights"))
    model = build(r.model, image_size=8, channels=1, num_classes=10)
    rows: list[dict[str, float]] = []
    x, y = images()
    folder.mkdir(exist_ok=True)
    done = train(model, x, y, r, seed=seed, device="cpu", precision="fp32", folder=folder, log=rows.append, **options)  # type: ignore[arg-type]
    return model, done, rows


def weights(model: nn.Module) -> str:
    return checkpoint.weights_sha256(model.state_dict())


def test_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    first, _, _ = fit(recipe(), tmp_path / "a")
    again, _, _ = fit(recipe(), tmp_path / "b")
    other, _, _ = fit(recipe(), tmp_path / "c", seed=1)
    assert weights(first) == weights(again) != weights(other)


@pytest.mark.parametrize("stop_at", [1, 4, 9])
def test_a_stopped_run_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path: Path, stop_at: int) -> None:
    whole, _, _ = fit(recipe(), tmp_path / "whole")
    calls = iter(range(1, 100))
    with pytest.raises(Stopped, match=f"after step {stop_at} of 10"):
        fit(recipe(), tmp_path / "parts", should_stop=lambda: next(calls) >= stop_at)
    resumed, done, rows = fit(recipe(), tmp_path / "parts")
    assert done.resumed_at == (stop_at,)
    assert rows[0]["step"] == stop_at + 1
    assert weights(resumed) == weights(whole)


def test_a_run_killed_after_its_last_step_and_before_its_record_can_be_finished(tmp_path: Path) -> None:
    whole, done, _ = fit(recipe(), tmp_path / "a", checkpoint_seconds=0.0)
    again, resumed, _ = fit(recipe(), tmp_path / "a")
    assert resumed.resumed_at == (10,)
    assert resumed.final_loss == done.final_loss
    assert weights(again) == weights(whole)


def test_with_a_loss_scaler_no_optimizer_is_fused() -> None:
    model = build(recipe().model, image_size=8, channels=1, num_classes=10)
    for name in ("sgd", "adamw", "adam"):
        assert optim.build(model, recipe(optimizer=name).train, fused=False).defaults["fused"] is False


def test_adam_adds_its_decay_to_the_gradient_of_every_parameter_as_torch_does() -> None:
    settings = recipe(optimizer="adam", weight_decay=0.1, betas=(0.8, 0.9)).train
    torch.manual_seed(0)
    ours = build(recipe().model, image_size=8, channels=1, num_classes=10)
    theirs = copy.deepcopy(ours)
    plain = torch.optim.Adam(theirs.parameters(), lr=settings.lr or 0, betas=(0.8, 0.9), weight_decay=0.1)
    for model, optimizer in ((ours, optim.build(ours, settings)), (theirs, plain)):
        for seed in range(3):
            torch.manual_seed(seed)
            model(torch.randn(4, 1, 8, 8)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_damaged_newest_checkpoint_is_named_and_the_earlier_one_used(tmp_path: Path) -> None:
    whole, _, _ = fit(recipe(), tmp_path / "whole")
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        fit(recipe(), tmp_path / "parts", checkpoint_seconds=0.0, should_stop=lambda: next(calls) >= 6)
    kept = sorted((tmp_path / "parts").glob("checkpoint-*.pt"))
    assert [p.name for p in kept] == ["checkpoint-00-000000005.pt", "checkpoint-00-000000006.pt"]
    kept[-1].write_bytes(kept[-1].read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"checkpoint-00-000000006\.pt: damaged"):
        resumed, done, _ = fit(recipe(), tmp_path / "parts")
    assert done.resumed_at == (5,)
    assert weights(resumed) == weights(whole)


def test_checkpoints_cannot_run_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, (f"open({str(marker)!r}, 'w')",))

    torch.save({"step": 1, "model": Payload()}, tmp_path / "checkpoint-00-000000001.pt")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load_newest(tmp_path, "cpu") is None
    assert not marker.exists()


def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    at_once = recipe(steps=3, optimizer="sgd").model_copy(
        update={"model": recipe().model.model_copy(update={"dropout": 0.0})}
    )
    in_parts = at_once.model_copy(update={"train": at_once.train.model_copy(update={"micro_batch": 4})})
    one, _, rows_one = fit(at_once, tmp_path / "a")
    four, _, rows_four = fit(in_parts, tmp_path / "b")
    for a, b in zip(one.parameters(), four.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert [r["loss"] for r in rows_one] == pytest.approx([r["loss"] for r in rows_four], abs=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_before_the_update(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+ of 10"):
        fit(recipe(lr=1e30, optimizer="sgd", clip_norm=None), tmp_path / "a")


def test_training_lowers_the_loss_on_images_that_can_be_learned(tmp_path: Path) -> None:
    _, done, rows = fit(recipe(steps=60), tmp_path / "a")
    assert done.steps == 60
    assert rows[0]["loss"] == pytest.approx(math.log(10), abs=0.2)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert rows[-1]["train_top1"] > rows[0]["train_top1"]


def test_the_average_of_the_weights_is_what_is_evaluated(tmp_path: Path) -> None:
    share, average = 0.8, None
    for steps in range(1, 6):  # under a constant rate a shorter run is the beginning of a longer one
        plain, _, _ = fit(recipe(steps=steps, schedule="constant"), tmp_path / f"plain{steps}")
        if average is None:
            torch.manual_seed(derive(0, "weights"))
            start = build(recipe().model, image_size=8, channels=1, num_classes=10)
            average = [p.detach().double() for p in start.parameters()]
        average = [share * a + (1 - share) * p.detach() for a, p in zip(average, plain.parameters(), strict=True)]
    model, _, _ = fit(recipe(steps=5, schedule="constant", polyak=share), tmp_path / "averaged")
    assert average is not None
    for found, expected in zip(model.parameters(), average, strict=True):
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("stop_at", [4, 10])
def test_a_stopped_run_resumes_to_the_average_of_an_uninterrupted_one(tmp_path: Path, stop_at: int) -> None:
    r = recipe(polyak=0.9)
    whole, _, _ = fit(r, tmp_path / "whole")
    if stop_at == 10:  # killed after the last step
        fit(r, tmp_path / "parts", checkpoint_seconds=0.0)
    else:
        calls = iter(range(1, 100))
        with pytest.raises(Stopped):
            fit(r, tmp_path / "parts", should_stop=lambda: next(calls) >= stop_at)
    resumed, done, _ = fit(r, tmp_path / "parts")
    assert done.resumed_at == (stop_at,)
    assert weights(resumed) == weights(whole)


def test_a_stage_goes_on_from_its_own_checkpoints_only(tmp_path: Path) -> None:
    fit(recipe(), tmp_path / "a", checkpoint_seconds=0.0)
    alone, _, _ = fit(recipe(lr=1e-3), tmp_path / "b")
    second, done, _ = fit(recipe(lr=1e-3), tmp_path / "a", checkpoint_seconds=0.0, stage=1)
    assert done.resumed_at == ()
    assert weights(second) == weights(alone)
    assert [p.name[:13] for p in sorted((tmp_path / "a").glob("checkpoint-*"))] == ["checkpoint-01"] * 2


def test_the_protocol_of_fine_tuning_is_sgd_with_momentum_and_no_decay() -> None:
    model = build(recipe().model, image_size=8, channels=1, num_classes=10)
    built = optim.build(model, recipe(optimizer="sgd", weight_decay=0.0).train)
    assert isinstance(built, torch.optim.SGD)
    assert {(g["momentum"], g["dampening"], g["nesterov"], g["weight_decay"]) for g in built.param_groups} == {
        (0.9, 0, False, 0.0)
    }


def test_label_smoothing_and_mixup_are_in_effect(tmp_path: Path) -> None:
    plain, _, _ = fit(recipe(), tmp_path / "a")
    smoothed, _, _ = fit(recipe(label_smoothing=0.2), tmp_path / "b")
    r = recipe()
    mixed, _, rows = fit(r.model_copy(update={"augment": r.augment.model_copy(update={"mixup": 0.5})}), tmp_path / "c")
    assert len({weights(m) for m in (plain, smoothed, mixed)}) == 3
    assert "train_top1" not in rows[-1]  # a mixed image has no single label to be right about


@pytest.mark.parametrize(
    ("schedule", "last"), [("constant", 1.0), ("linear", 1 / 8), ("cosine", 0.5 * (1 + math.cos(math.pi * 7 / 8)))]
)
def test_the_rate_warms_up_linearly_and_decays_by_the_schedule(schedule: str, last: float) -> None:
    spec = recipe(lr=1.0, warmup_steps=2, schedule=schedule).train
    rates = [optim.learning_rate(s, 10, spec) for s in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx(last)


def test_only_matrices_and_kernels_are_decayed() -> None:
    model = build(recipe().model, image_size=8, channels=1, num_classes=10)
    decayed, rest = optim.build(model, recipe().train).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert rest["weight_decay"] == 0.0
    kept = {names[id(p)] for p in rest["params"]}
    assert {"cls_token", "pos_embed.table", "norm.weight", "head.bias", "blocks.0.mlp.fc1.bias"} <= kept
    assert {names[id(p)] for p in decayed["params"]} >= {"head.weight", "patch_embed.proj.weight"}


def test_bfloat16_trains_to_about_the_loss_of_float32(tmp_path: Path) -> None:
    r = recipe(steps=40)
    losses = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = build(r.model, image_size=8, channels=1, num_classes=10)
        x, y = images()
        folder = tmp_path / precision
        folder.mkdir()
        done = train(model, x, y, r, seed=0, device="cpu", precision=precision, folder=folder)  # type: ignore[arg-type]
        losses.append(done.final_loss)
        assert all(p.dtype is torch.float32 for p in model.parameters())
    assert losses[0] == pytest.approx(losses[1], abs=0.15)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_cuda_device_trains_to_about_the_loss_of_the_cpu(tmp_path: Path, precision: str) -> None:
    r = recipe(steps=40)
    losses = []
    for device, arithmetic in (("cpu", "fp32"), ("cuda", precision)):
        torch.manual_seed(0)
        model = build(r.model, image_size=8, channels=1, num_classes=10).to(device)
        x, y = (t.to(device) for t in images())
        folder = tmp_path / device
        folder.mkdir()
        done = train(model, x, y, r, seed=0, device=device, precision=arithmetic, folder=folder)  # type: ignore[arg-type]
        losses.append(done.final_loss)
    assert losses[0] == pytest.approx(losses[1], abs=0.2)
