from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_cost import VIT, record, run
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vitrepro import engine, memory, optim
from vitrepro.distributed import autocast
from vitrepro.memory import Memories, Room, activation_bytes, key, smaller_batch, training_bytes
from vitrepro.models.build import build
from vitrepro.models.vit import MATMUL_TOKENS
from vitrepro.recipe import Recipe

SMALL: dict[str, Any] = {"family": "vit", "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3}
RESNET: dict[str, Any] = {"family": "resnet", "layers": [2, 2], "block": "basic", "width": 16, "stem": "small"}
BOTTLENECK = {**RESNET, "block": "bottleneck", "width": 32}
BIT = {**BOTTLENECK, "layers": [2, 1], "style": "bit"}
HYBRID = {**SMALL, "patch_size": 1, "hybrid": {"layers": [1, 2], "width": 32}, "image_size": 64}
MODELS = {
    "vit": SMALL,
    "vit, many tokens": {**SMALL, "patch_size": 2, "image_size": 64},
    "vit, wide": {**SMALL, "embed_dim": 192, "depth": 6, "mlp_dim": 300},
    "vit, average": {**SMALL, "pool": "gap", "pos_embed": "none", "qkv_bias": False},
    "vit, positions of rows and columns": {**SMALL, "pool": "gap", "pos_embed": "learned_2d", "final_norm": False},
    "vit, sinusoids": {**SMALL, "pool": "gap", "pos_embed": "sinusoid_2d"},
    "vit, relative positions": {**SMALL, "pos_embed": "relative", "dropout": 0.1},
    "vit, tokens not normalised": {**SMALL, "attention_norm": "unused", "dropout": 0.1},
    "vit, axial": {**SMALL, "pool": "gap", "attention": "axial", "dropout": 0.1},
    "vit, first patch": {**SMALL, "pool": "first"},
    "vit, norms after": {**SMALL, "norm": "post", "depth": 3},
    "vit, ReLU": {**SMALL, "norm": "post", "pool": "first", "activation": "relu", "mlp_dim": 300},
    "vit, attention dropout": {**SMALL, "attention_dropout": 0.1},
    "vit, attention dropout, many tokens": {**SMALL, "attention_dropout": 0.1, "patch_size": 2, "image_size": 64},
    "vit, ReLU and dropout": {**SMALL, "activation": "relu", "dropout": 0.1, "mlp_dim": 300},
    "Ti/16": {"family": "vit", "variant": "Ti/16", "image_size": 64},
    "hybrid": HYBRID,
    "resnet": RESNET,
    "resnet, large stem": {**RESNET, "layers": [1, 2, 1], "stem": "imagenet"},
    "resnet, bottlenecks, odd size": {**BOTTLENECK, "stem": "imagenet", "image_size": 63},
    "bit": BIT,
    "bit, large stem": {**BIT, "stem": "imagenet", "image_size": 64},
}
TIMM = {"family": "timm", "name": "resnet18"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are too small for more
    yield
    torch.set_num_threads(threads)


def recipe(model: dict[str, Any], **train: Any) -> Recipe:
    data = train.pop("data", {"train_images": 100, "test_images": 10})
    train = {"steps": 1, "batch_size": 8, "lr": 1e-3, "precision": "fp32", **train}
    return Recipe.model_validate({"data": {"name": "cifar10", **data}, "model": model, "train": train})


def built(of: Recipe) -> torch.nn.Module:
    model = build(of.model, image_size=of.image_size, channels=of.channels, num_classes=of.data.num_classes)
    return engine.configure(model, engine.choose(of, "cpu", of.train.precision))  # type: ignore[arg-type]


def loss(of: Recipe, model: torch.nn.Module, images: int) -> Tensor:
    x = torch.randn(images, of.channels, of.image_size, of.image_size)
    with autocast("cpu", of.train.precision):  # type: ignore[arg-type]
        logits = model(x)
    return F.cross_entropy(logits.float(), torch.zeros(images, dtype=torch.int64))


def saved_bytes(of: Recipe, images: int) -> int:
    """What autograd keeps of a forward pass, each storage once, without parameters and buffers."""
    model = built(of)
    theirs = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    storages: dict[int, int] = {}
    kept = []  # or another tensor would get the address

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in theirs:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss(of, model, images)
    return sum(storages.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_formula_is_what_autograd_saves_of_an_image(name: str, precision: str) -> None:
    of = recipe(MODELS[name], precision=precision)
    an_image = (saved_bytes(of, 4) - saved_bytes(of, 2)) / 2  # without the weights' narrow copies
    assert activation_bytes(of, "cpu") == pytest.approx(an_image, rel=0.05)


@pytest.mark.parametrize("images", [64, 300])  # by plain products, and by the fused kernel
def test_where_attention_is_across_the_batch_the_formula_is_what_autograd_saves_of_a_whole_one(images: int) -> None:
    model = {**SMALL, "attention": "batch", "pool": "first", "norm": "post"}
    of = recipe(model, batch_size=images, data={"train_images": 300, "test_images": 10})
    assert images * activation_bytes(of, "cpu") == pytest.approx(saved_bytes(of, images), rel=0.05)  # type: ignore[operator]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "name", ["vit", "vit, relative positions", "vit, axial", "hybrid", "vit, norms after", "vit, attention dropout"]
)
def test_the_formula_knows_the_engine_without_its_choices(name: str, precision: str) -> None:
    of = recipe(MODELS[name], precision=precision, engine="plain")
    an_image = (saved_bytes(of, 4) - saved_bytes(of, 2)) / 2
    assert activation_bytes(of, "cpu") == pytest.approx(an_image, rel=0.1)
    assert an_image > 1.02 * activation_bytes(recipe(MODELS[name], precision=precision), "cpu") or name != "vit"  # type: ignore[operator]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["vit, wide", "bit", "hybrid"])
def test_copies_of_weights_are_those_that_autograd_saves(name: str, precision: str) -> None:
    of = recipe(MODELS[name], precision=precision)
    beside_the_images = 2 * saved_bytes(of, 2) - saved_bytes(of, 4)
    assert memory.copied_bytes(of) * counted(of) == pytest.approx(beside_the_images, rel=0.4, abs=100)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_model(name: str) -> None:
    of = recipe(MODELS[name])
    size: dict[str, int] = {"image_size": of.image_size, "channels": 3, "num_classes": 10}
    assert memory.parameters(of.model, **size) == sum(p.numel() for p in build(of.model, **size).parameters())


def peak_bytes(of: Recipe) -> int:
    """The most that torch holds at once over two steps."""
    spec = of.train
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        model = built(of)
        optimizer = optim.build(model, spec)
        for _ in range(2):
            for _ in range(spec.batch_size // (spec.micro_batch or spec.batch_size)):
                loss(of, model, spec.micro_batch or spec.batch_size).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    held, most = 0, 0
    for event in profiled.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.filterwarnings("ignore")  # the profiler's own
@pytest.mark.parametrize(
    ("model", "train"),
    [
        (SMALL, {"batch_size": 32, "micro_batch": 8, "precision": "bf16"}),
        (RESNET, {"batch_size": 16, "optimizer": "sgd"}),
        (BIT, {"batch_size": 16, "micro_batch": 4}),
    ],
)
def test_training_takes_what_is_predicted(model: dict[str, Any], train: dict[str, Any]) -> None:
    of = recipe(model, **train)
    predicted = training_bytes(of, "cpu")
    assert predicted is not None
    assert predicted - memory.CONTEXT["cpu"] - memory.data_bytes(of)[0] == pytest.approx(peak_bytes(of), rel=0.2)


def counted(of: Recipe) -> int:
    found = memory.parameters(of.model, image_size=of.image_size, channels=3, num_classes=10)
    assert found is not None
    return found


def needed(of: Recipe, **options: Any) -> int:
    found = training_bytes(of, options.pop("device", "cpu"), **options)
    assert found is not None
    return found


def test_every_copy_of_a_weight_counts() -> None:
    sgd = recipe(SMALL, optimizer="sgd")
    count = counted(sgd)
    assert needed(recipe(SMALL)) - needed(sgd) == 4 * count
    assert needed(sgd) - needed(recipe(SMALL, optimizer="sgd", momentum=0.0)) == 4 * count
    assert needed(recipe(SMALL, polyak=0.99)) - needed(recipe(SMALL)) == 4 * count


def test_a_micro_batch_takes_its_images_and_a_batch_its_pixels() -> None:
    of = recipe(SMALL, batch_size=32)
    image = activation_bytes(of, "cpu")
    assert image is not None
    per_image = (needed(of) - needed(of, micro_batch=16)) / 16
    assert image < per_image < 1.2 * image  # and a gradient on its way
    assert needed(of, micro_batch=8) == needed(recipe(SMALL, batch_size=32, micro_batch=8))
    assert needed(recipe(SMALL, batch_size=64), micro_batch=8) - needed(of, micro_batch=8) == 32 * 4 * 3 * 32 * 32


def test_data_counts_where_it_lies_on_the_device() -> None:
    image = 32 * 32 * 3
    few, many = (recipe(SMALL, data={"train_images": n, "test_images": 10}) for n in (1000, 50_000))
    assert needed(many) - needed(few) == 49_000 * image
    assert memory.data_bytes(few) == (1000 * image, 10 * image)
    grid = {"lr": None, "lr_grid": [1e-3, 2e-3]}
    assert memory.data_bytes(recipe(SMALL, data={"dev_fraction": 0.1}, **grid))[0] == 50_000 * image
    streamed = needed(many, free_bytes=2 * 50_000 * image - 2)
    assert needed(many, free_bytes=2 * 50_000 * image) - streamed == (50_000 - memory.PREFETCHED * 8) * image


def test_a_large_test_split_counts_though_it_comes_after_training() -> None:
    flowers = Recipe.model_validate(
        {
            "data": {"name": "flowers"},
            "model": {**SMALL, "patch_size": 96},
            "train": {"steps": 1, "batch_size": 8, "lr": 1},
        }
    )
    assert needed(flowers) == pytest.approx(memory.CONTEXT["cpu"] + 6149 * 384 * 384 * 3, rel=0.01)


def test_on_cuda_evaluation_between_steps_comes_on_top_of_what_is_recorded() -> None:
    """As measured on an H100: 1855 MiB, where training alone would take 1266."""
    model = {**VIT, "image_size": 224, "patch_size": 16, "embed_dim": 256, "depth": 4, "num_heads": 4, "mlp_dim": 1024}

    def needs(device: str, looks: list[str]) -> int:
        of = {"epochs": 30, "batch_size": 32, "lr": 1e-3, "precision": "bf16", "evaluate_epochs": looks}
        data = {"name": "imagenette", "dev_fraction": 0.1}
        found = training_bytes(Recipe.model_validate({"data": data, "model": model, "train": of}), device)
        assert found is not None
        return found - memory.CONTEXT[memory.kind_of(device)]

    images = 301_440_000 + 947 * 76_800  # of both splits
    more = needs("cuda:0", ["dev", "test"]) - needs("cuda:0", []) - images
    assert more == 256 * (4 * 3 * (160**2 + 224**2) + 3 * 2 * 197 * 1024)
    assert needs("cuda:0", ["dev", "test"]) >> 20 == pytest.approx(1855, rel=0.1)
    assert needs("cpu", ["dev", "test"]) - needs("cpu", []) == images


def test_on_cuda_the_fused_kernel_keeps_no_weights_and_group_norm_is_wide() -> None:
    vit, bit = recipe(SMALL, precision="bf16", engine="plain"), recipe(BIT, precision="bf16")
    assert activation_bytes(recipe(SMALL), "cuda:0") < activation_bytes(recipe(SMALL), "cpu")  # type: ignore[operator]
    assert activation_bytes(vit, "cuda:0") == activation_bytes(vit, "cpu")
    assert activation_bytes(bit, "cuda:0") > 1.5 * activation_bytes(bit, "cpu")  # type: ignore[operator]
    assert activation_bytes(recipe(BIT), "cuda:0") == activation_bytes(recipe(BIT), "cpu")


def test_attention_keeps_its_weights_up_to_as_many_tokens_as_the_model_says() -> None:
    assert memory.PLAIN_TOKENS == MATMUL_TOKENS


def test_a_model_of_a_library_is_not_known() -> None:
    of = recipe(TIMM)
    assert training_bytes(of, "cpu") is None
    assert activation_bytes(of, "cpu") is None
    assert Memories("cpu").largest_micro_batch(of, 2**40) is None
    assert Room(Memories("cpu"), 2**40).holds(of) is None


# --- what fits --------------------------------------------------------------------------------------


def test_the_batch_is_halved_until_it_fits() -> None:
    of = recipe(SMALL, batch_size=90)
    sizes = [90, 45, 18, 9, 3, 1]  # each divides the batch
    for size, smaller in zip(sizes, [*sizes[1:], None], strict=True):
        enough = needed(of, micro_batch=size) / memory.USABLE
        assert Memories("cpu").largest_micro_batch(of, int(enough) + 1) == size
        assert Memories("cpu").largest_micro_batch(of, int(enough) - 1) == smaller


def test_a_room_holds_what_fits_into_it() -> None:
    of = recipe(SMALL, batch_size=64)
    enough = int(needed(of) / memory.USABLE) + 1
    assert Room(Memories("cpu"), enough).holds(of) is True
    tight = Room(Memories("cpu"), enough - 1_000_000)
    assert tight.holds(of) is False
    assert tight.micro_batch(of) == 32


def test_what_was_measured_wins_over_the_formula_at_its_micro_batch() -> None:
    of, again = recipe(SMALL, batch_size=64), recipe(SMALL, batch_size=64, lr=0.5)
    known = Memories("cpu", [(key(of), 100), (key(of), 300), (key(of), 200), (key(of, 32), 50)])
    assert known.bytes(of) == known.bytes(again) == 300
    assert known.bytes(of, 32) == 50
    assert known.bytes(of, 16) == Memories("cpu").bytes(of, 16) == needed(of, micro_batch=16)
    assert Memories("cpu", [(key(recipe(TIMM)), 7)]).bytes(recipe(TIMM)) == 7


@pytest.mark.parametrize(
    "other",
    [
        recipe(SMALL, batch_size=16),
        recipe(SMALL, optimizer="sgd"),
        recipe(SMALL, precision="bf16"),
        recipe(SMALL, engine="plain"),
        recipe(SMALL, polyak=0.9),
        recipe({**SMALL, "depth": 3}),
        recipe({**SMALL, "image_size": 64}),
        recipe(SMALL, data={"train_images": 200}),
    ],
)
def test_what_takes_other_memory_has_another_key(other: Recipe) -> None:
    assert key(other) != key(recipe(SMALL))


def test_records_of_this_device_tell_what_runs_took() -> None:
    of = run(model=VIT)
    assert isinstance(of.config, Recipe)
    took = record(of, peak_memory_bytes=10**9)
    silent, shared = record(of), record(of, peak_memory_bytes=5, processes=2)
    old = took.model_copy(update={"config": {**took.config, "left_over": 1}})
    pairs = list(memory.measured([took, silent, shared, old], "here", "cpu"))
    assert pairs == [(key(of.config), 10**9)]
    assert list(memory.measured([took], "there", "cpu")) == []
    assert list(memory.measured([took], "here", "cuda:0")) == []
    halved = record(of, peak_memory_bytes=10**8, micro_batch=5)
    assert list(memory.measured([halved], "here", "cpu")) == [(key(of.config, 5), 10**8)]
    on_cuda = took.model_copy(update={"environment": took.environment.model_copy(update={"device": "cuda:1"})})
    ((_, nbytes),) = memory.measured([on_cuda], "here", "cuda:0")
    assert nbytes == 10**9 + memory.CONTEXT["cuda"]


# --- machines ---------------------------------------------------------------------------------------


def test_memory_of_the_machine_is_what_it_and_its_container_leave(tmp_path: Path) -> None:
    assert 2**20 < memory.machine_bytes() < 2**50
    assert memory.free_bytes("cpu") == pytest.approx(memory.machine_bytes(), rel=0.5)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9999 kB\nMemAvailable:    1000 kB\n")
    assert memory.machine_bytes(tmp_path) == 1000 * 1024
    limits = tmp_path / "sys/fs/cgroup"
    limits.mkdir(parents=True)
    (limits / "memory.max").write_text("max\n")
    (limits / "memory.current").write_text("100\n")
    assert memory.machine_bytes(tmp_path) == 1000 * 1024
    (limits / "memory.max").write_text("5000\n")
    assert memory.machine_bytes(tmp_path) == 4900


def test_sizes_have_two_digits_or_more() -> None:
    shown = [memory.size(int(n * 2**30)) for n in (0.04, 0.94, 0.96, 1.23, 9.96, 23.4)]
    assert shown == ["41 MB", "963 MB", "1.0 GB", "1.2 GB", "10 GB", "23 GB"]


def test_nothing_here_loads_torch() -> None:
    code = "import sys; from vitrepro import memory; memory.machine_bytes(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@given(st.integers(1, 512), st.integers(1, 512))
def test_a_smaller_batch_divides_the_batch_and_is_at_most_half(batch_size: int, than: int) -> None:
    found = smaller_batch(batch_size, than)
    if found is None:
        assert than == 1
    else:
        assert batch_size % found == 0
        assert found <= than / 2
