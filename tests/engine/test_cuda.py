"""What only a CUDA device can show: steps that do not wait for it, its arithmetic, compilation, memory and packing."""

from __future__ import annotations

import dataclasses
import gc
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrepro import checkpoint, cost, engine, launch, memory
from vitrepro import train as training
from vitrepro.data.prepare import Prepared, prepare
from vitrepro.data.stream import Streamed
from vitrepro.distributed import product_rate
from vitrepro.measure import accuracy
from vitrepro.models.build import build
from vitrepro.plan import Run
from vitrepro.randomness import derive
from vitrepro.recipe import Recipe
from vitrepro.record import TrainResult
from vitrepro.runner import SmallerBatch, Task, execute
from vitrepro.store import Store
from vitrepro.train import Stopped, Trained, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),  # torch's, of its own threads
]

CUDA = "cuda:0"
VIT = {"family": "vit", "patch_size": 2, "embed_dim": 64, "depth": 2, "num_heads": 2, "dropout": 0.1}
RESNET = {"family": "resnet", "layers": [1, 1], "block": "basic", "width": 16, "stem": "small"}
AUGMENT = {"flip": True, "crop_padding": 1}


def recipe(model: Any = VIT, augment: Any = AUGMENT, **train: Any) -> Recipe:
    length = {"steps": 40, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.1, "clip_norm": 1.0, **train}
    return Recipe.model_validate({"data": {"name": "digits"}, "augment": augment, "model": model, "train": length})


def images(n: int = 500) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 10
    pictures = torch.randint(0, 100, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    pictures += (labels * 12).to(torch.uint8)[:, None, None, None]
    return pictures.to(CUDA), labels.to(CUDA)


def fit(
    r: Recipe, folder: Path, precision: str = "bf16", changed: Mapping[str, Any] = MappingProxyType({}), **options: Any
) -> tuple[torch.nn.Module, Trained, list[dict[str, float]]]:
    chosen = dataclasses.replace(engine.choose(r, CUDA, precision), **changed)  # type: ignore[arg-type]
    engine.settle(chosen, precision)  # type: ignore[arg-type]
    torch.manual_seed(derive(0, "weights"))
    model = engine.configure(build(r.model, image_size=8, channels=1, num_classes=10).to(CUDA), chosen)
    rows: list[dict[str, float]] = []
    x, y = images()
    x = options.pop("images", x)
    folder.mkdir(exist_ok=True)
    try:
        done = train(
            model,
            x,
            y,
            r,
            seed=0,
            device=CUDA,
            precision=precision,
            folder=folder,
            log=rows.append,
            **options,  # type: ignore[arg-type]
        )
    finally:
        torch.use_deterministic_algorithms(False)
    return model, done, rows


@pytest.fixture(scope="module")
def digits() -> Prepared:
    return prepare("digits", data_dir=None, cache_dir=Path(os.environ["VITREPRO_CACHE"]), offline=True)


def task(store: Path, data: Prepared, of: Recipe) -> Task:
    kept = Store(store)
    kept.prepare()
    return Task(Run("runs", "arm", 3, of), kept, data, CUDA, 1, {})


def done(of: Task) -> TrainResult:
    execute(of, lambda _: None, lambda: False)
    record = of.store.record(of.run.id)
    assert record is not None
    assert isinstance(record.result, TrainResult)
    return record.result


class Waits:
    """Counts how often the host waited for the device."""

    def __enter__(self) -> Waits:
        self.caught = warnings.catch_warnings(record=True)
        self.list: Any = self.caught.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self.caught.__exit__(None, None, None)

    @property
    def places(self) -> list[str]:
        return [f"{w.filename}:{w.lineno}" for w in self.list if "synchronizing CUDA operation" in str(w.message)]


@pytest.mark.parametrize(
    "augment",
    [AUGMENT, {"flip": True, "random_resized_crop": {}}, {"mixup": 0.2}],
    ids=["crop", "resized-crop", "mixup"],
)
def test_a_step_does_not_wait_for_the_device(tmp_path: Path, augment: Any) -> None:
    steps = 600
    fit(recipe(augment=augment, steps=3), tmp_path / "before")  # what waits once, at the first call
    with Waits() as waits:
        fit(recipe(augment=augment, steps=steps), tmp_path / "run")
    looks = steps // 6  # where the curve is written: losses and hits are read there
    assert len(waits.places) < 3 * looks, sorted(set(waits.places))


def test_evaluation_waits_once_and_not_for_each_batch() -> None:
    r = recipe()
    model = build(r.model, image_size=8, channels=1, num_classes=10).to(CUDA)
    x, _ = images()
    with Waits() as waits:
        accuracy.predict(model, x, r.augment, image_size=8, device=CUDA, precision="bf16", batch_size=8)
    assert len(waits.places) <= 4, waits.places  # 63 batches


@pytest.mark.parametrize("model", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_narrow_arithmetic_learns_as_float32_does(tmp_path: Path, model: Any, precision: str) -> None:
    _, exact, _ = fit(recipe(model, steps=150), tmp_path / "fp32", "fp32")
    _, narrow, _ = fit(recipe(model, steps=150), tmp_path / precision, precision)
    assert exact.final_loss < 1.5  # of 2.3 at the start, or anything would be near it
    assert narrow.final_loss == pytest.approx(exact.final_loss, abs=0.25)
    assert narrow.skipped_steps <= 5


@pytest.mark.parametrize("model", [VIT, RESNET], ids=["vit", "resnet"])
def test_deterministic_runs_are_the_same_bits_interrupted_or_not(tmp_path: Path, model: Any) -> None:
    r = recipe(model, deterministic=True)
    whole, _, _ = fit(r, tmp_path / "whole")
    again, _, _ = fit(r, tmp_path / "again")
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        fit(r, tmp_path / "parts", should_stop=lambda: next(calls) >= 17)
    resumed, after, _ = fit(r, tmp_path / "parts")
    assert after.resumed_at == (17,)
    bits = {checkpoint.weights_sha256(m.state_dict()) for m in (whole, again, resumed)}
    assert len(bits) == 1


MODELS: dict[str, Any] = {
    "vit": VIT,
    "resnet": RESNET,
    "bit": {**RESNET, "style": "bit", "block": "bottleneck", "width": 32},
    "first": {**VIT, "pool": "first", "norm": "post", "activation": "relu"},
    "axial": {**VIT, "attention": "axial", "pool": "gap"},
    "batch": {**VIT, "attention": "batch"},
    "relative": {**VIT, "pos_embed": "relative"},
    "learned_2d": {**VIT, "pos_embed": "learned_2d"},
    "hybrid": {**VIT, "patch_size": 1, "hybrid": {"layers": [1], "width": 32}},
    "unused": {**VIT, "attention_norm": "unused"},
}


@pytest.mark.parametrize("name", MODELS)
def test_recorded_passes_compute_what_the_model_does(name: str, tmp_path: Path) -> None:
    r = recipe(MODELS[name], steps=12, deterministic=True)
    plain, _, _ = fit(r, tmp_path / "plain", "fp32", {"graphs": False})
    recorded, told, _ = fit(r, tmp_path / "recorded", "fp32")
    assert told.not_recorded is None
    a, b = plain.state_dict(), recorded.state_dict()
    assert {k for k in a if not torch.equal(a[k], b[k])} == set()


def test_passes_are_recorded_once_and_never_for_accumulated_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    graph = torch.cuda.CUDAGraph
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(1) or graph())
    fit(recipe(steps=5), tmp_path / "whole")
    assert made == [1]
    fit(recipe(steps=5, micro_batch=32), tmp_path / "parts")
    assert made == [1]


def test_images_that_are_read_ahead_give_the_same_weights(tmp_path: Path) -> None:
    """Threads copy to the device while the passes are recorded."""
    r, (x, _) = recipe(steps=30, deterministic=True), images()
    resident, _, _ = fit(r, tmp_path / "resident", "fp32")
    pixels = x.permute(0, 2, 3, 1).cpu().numpy()
    with Streamed(pixels, CUDA) as streamed:
        ahead, told, _ = fit(r, tmp_path / "streamed", "fp32", images=streamed)
    assert told.not_recorded is None
    assert checkpoint.weights_sha256(ahead.state_dict()) == checkpoint.weights_sha256(resident.state_dict())


@pytest.mark.parametrize("polyak", [None, 0.9])
def test_evaluation_between_steps_sees_the_weights_of_its_epoch(tmp_path: Path, polyak: float | None) -> None:
    """What is recorded is for training alone."""
    train = {"epochs": 3, "steps": None, "evaluate_epochs": ["test"], "deterministic": True, "polyak": polyak}
    seen: list[list[Tensor]] = []
    x, _ = images(64)
    for changed in ({"graphs": False}, {}):
        logits: list[Tensor] = []

        def count(model: torch.nn.Module, kept: list[Tensor] = logits) -> dict[str, int]:
            model.eval()
            with torch.inference_mode():
                kept.append(model(x.float() / 255))
            return {"test_correct": 1, "test_n": 2}

        fit(recipe(**train), tmp_path / str(len(changed)), "fp32", changed, count=count)
        seen.append(logits)
    assert len(seen[0]) == 3
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert not torch.equal(seen[0][0], seen[0][1])


@pytest.mark.filterwarnings("ignore")  # an error in the compiler would be a reason not to compile
@pytest.mark.parametrize("model", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_compiled_model_has_the_losses_of_the_plain_one(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = recipe({**model, "dropout": 0.0} if "dropout" in model else model, steps=60)
    _, plain, expected = fit(r, tmp_path / "plain", "fp32")
    monkeypatch.setattr(training, "compilation_pays", lambda *_: True)
    net, compiled, rows = fit(r, tmp_path / "compiled", "fp32")
    assert plain.compiled_at is None
    assert compiled.compiled_at == training.WARM_STEPS + training.TIMED_STEPS
    assert compiled.compile_seconds is not None
    assert not any("forward" in vars(module) for module in net.modules())  # given back as it was
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], abs=2e-3)


def test_out_of_memory_halves_the_micro_batch_and_changes_no_loss(digits: Prepared, tmp_path: Path) -> None:
    model = {**VIT, "embed_dim": 256, "depth": 4, "num_heads": 4, "dropout": 0.0}
    r = recipe(model, steps=6, batch_size=512, precision="fp32", deterministic=True)
    gc.collect()
    before = torch.cuda.memory_allocated()
    by_hand = done(task(tmp_path / "hand", digits, recipe(model, **{**r.train.model_dump(), "micro_batch": 256})))
    peak = by_hand.peak_memory_bytes
    assert peak is not None
    of, total = task(tmp_path / "short", digits, r), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1.4 * (peak - before)) / total)
    try:
        with pytest.raises(SmallerBatch, match="512 images at a time; goes on with 256"):
            execute(of, lambda _: None, lambda: False)
        torch.cuda.empty_cache()
        found = done(of)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.use_deterministic_algorithms(False)
    assert found.micro_batch == 256
    assert found.weights_sha256 == by_hand.weights_sha256


@pytest.mark.parametrize(
    "model",
    [
        {**VIT, "patch_size": 1, "embed_dim": 384, "depth": 6, "num_heads": 6},
        {"family": "resnet", "variant": "R18", "stem": "small"},
    ],
    ids=["vit", "resnet"],
)
def test_memory_is_predicted(digits: Prepared, tmp_path: Path, model: Any) -> None:
    r = recipe(model, steps=4, batch_size=1024, precision="bf16")
    gc.collect()
    before = torch.cuda.memory_allocated()
    predicted = memory.training_bytes(r, CUDA)
    held = done(task(tmp_path, digits, r)).peak_memory_bytes
    assert predicted is not None
    assert held is not None
    assert 0.75 < (predicted - memory.CONTEXT["cuda"]) / (held - before) < 1.5


def test_the_rate_of_products_is_that_of_the_device_and_not_of_their_launch() -> None:
    tops = product_rate(CUDA, precision="bf16")
    assert tops > 3 * product_rate(CUDA, 512, precision="bf16")
    assert tops > 2 * product_rate(CUDA, precision="fp32")


def test_small_runs_share_a_device_and_large_ones_do_not() -> None:
    small = Run("runs", "small", 0, recipe(precision="bf16"))
    large = {"family": "vit", "variant": "B/16", "image_size": 224}
    base = Run("runs", "large", 0, recipe(large, batch_size=256, precision="bf16"))

    def need(run: Run) -> launch.Need:
        assert isinstance(run.config, Recipe)
        return launch.Need(memory.training_bytes(run.config, CUDA), cost.pass_flops(run))

    groups = launch.arrange([small, base, Run("runs", "small", 1, small.config)], [CUDA], need=need)
    assert [len(group.places) for group in groups] == [2, 1]
