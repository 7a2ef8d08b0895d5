"""The choices made for speed, and that they change nothing but the speed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from vitrepro import distributed, engine, train
from vitrepro.bench.workloads import table
from vitrepro.cli import app
from vitrepro.engine import choose, compilation_pays, configure, for_evaluation, settle
from vitrepro.errors import RunError
from vitrepro.models.build import build
from vitrepro.models.vit import ViT
from vitrepro.recipe import Recipe

torch.set_num_threads(1)

VIT = {"family": "vit", "patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
RESNET = {"family": "resnet", "layers": [1], "block": "basic", "width": 8, "stem": "small"}


def recipe(model: dict[str, Any] = VIT, **settings: Any) -> Recipe:
    length = {"steps": 12, "batch_size": 16, "lr": 1e-3, **settings}
    return Recipe.model_validate({"data": {"name": "digits"}, "model": model, "train": length})


@pytest.fixture
def settings_of_torch() -> Iterator[None]:
    matmul, cudnn, benchmark = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
    )
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(False)


# --- what is chosen


def test_a_plain_recipe_makes_no_choice_for_speed() -> None:
    for device in ("cpu", "cuda:0"):
        chosen = choose(recipe(engine="plain"), device, "bf16")
        assert chosen.fused_attention is True
        assert not any((chosen.skip_unread, chosen.narrow_tokens, chosen.patches_as_product, chosen.channels_last))
        assert not any((chosen.fused_optimizer, chosen.may_compile))
        assert not choose(recipe(RESNET, engine="plain"), device, "bf16").folded


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize(("precision", "narrow"), [("bf16", True), ("fp16", False), ("fp32", False)])
def test_tokens_are_narrow_with_bfloat16_only(device: str, precision: Any, narrow: bool) -> None:
    assert choose(recipe(), device, precision).narrow_tokens is narrow


def test_passes_are_recorded_on_cuda_for_our_own_models() -> None:
    timms = {"family": "timm", "name": "test_vit", "image_size": 32}
    assert choose(recipe(), "cuda:0", "bf16").graphs
    assert choose(recipe(RESNET), "cuda:0", "bf16").graphs
    assert not choose(recipe(timms), "cuda:0", "bf16").graphs
    assert not choose(recipe(), "cpu", "bf16").graphs
    assert not choose(recipe(engine="plain"), "cuda:0", "bf16").graphs


@pytest.mark.parametrize(
    ("model", "skip"),
    [
        ({}, True),
        ({"pool": "gap"}, False),
        ({"pos_embed": "relative"}, False),
        ({"pool": "gap", "attention": "axial"}, False),
        ({"pool": "first"}, True),
        ({"pool": "gap", "attention": "batch"}, False),
    ],
)
def test_the_last_layer_is_cut_short_only_where_logits_come_from_the_first_token(
    model: dict[str, Any], skip: bool
) -> None:
    chosen = choose(recipe(VIT | model), "cpu", "fp32")
    assert chosen.skip_unread is skip
    token = "first patch" if model.get("pool") == "first" else "class token"
    assert (f"of the {token} alone" in chosen.told["last layer"]) is skip


@pytest.mark.parametrize(("pool", "token"), [("cls", "class token"), ("first", "first patch")])
def test_every_layer_is_cut_short_where_no_layer_brings_the_read_token_anything_of_the_others(
    pool: str, token: str
) -> None:
    model = VIT | {"attention": "batch", "pool": pool}
    chosen = choose(recipe(model), "cpu", "fp32")
    assert chosen.skip_unread
    assert chosen.told["every layer"] == f"of the {token} alone: no logit depends on the others"
    assert not choose(recipe(model, engine="plain"), "cpu", "fp32").skip_unread


def test_nothing_is_compiled_on_a_cpu_or_where_the_same_bits_are_asked_for() -> None:
    assert choose(recipe(), "cuda:0", "bf16").may_compile
    assert not choose(recipe(), "cpu", "bf16").may_compile
    assert not choose(recipe(deterministic=True), "cuda:0", "bf16").may_compile


def test_compiling_must_be_paid_back_twice() -> None:
    for model, (seconds, gain) in ((VIT, engine.LAYERS), (RESNET, engine.WHOLE)):
        spec, pays = recipe(model).model, 2 * seconds / gain
        assert compilation_pays(spec, 0.1, int(10 * pays) + 1)
        assert not compilation_pays(spec, 0.1, int(10 * pays) - 1)


@pytest.mark.usefixtures("settings_of_torch")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_tf32_is_used_exactly_where_it_is_asked_for(precision: Any) -> None:
    settle(choose(recipe(), "cuda:0", precision), precision)
    assert torch.backends.cuda.matmul.allow_tf32 is (precision == "tf32")
    assert torch.backends.cudnn.allow_tf32 is (precision == "tf32")


@pytest.mark.usefixtures("settings_of_torch")
@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_kernels_are_used_exactly_where_they_are_asked_for(deterministic: bool) -> None:
    settle(choose(recipe(deterministic=deterministic), "cpu", "fp32"), "fp32")
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic


# --- that it changes nothing but the speed


def trained(of: Recipe, folder: Path, **options: Any) -> tuple[nn.Module, train.Trained, list[float]]:
    torch.manual_seed(0)
    chosen = choose(of, "cpu", "fp32")
    model = configure(build(of.model, image_size=8, channels=1, num_classes=10), chosen)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    losses: list[float] = []
    folder.mkdir(exist_ok=True)
    done = train.train(
        model,
        images,
        torch.arange(60) % 10,
        of,
        seed=0,
        device="cpu",
        precision="fp32",
        folder=folder,
        log=lambda row: losses.append(row["loss"]),
        **{"engine": chosen, **options},
    )
    return model, done, losses


ATTEMPT = {"norm": "post", "activation": "relu", "pool": "first", "embed_init": "unit"}


@pytest.mark.parametrize(
    "model",
    [
        VIT,
        VIT | {"pool": "gap"},
        VIT | {"norm": "post", "attention_scale": "inverted"},
        VIT | ATTEMPT,
        VIT | {"attention": "batch", "pool": "gap", "activation": "relu", "layer_norm_eps": 1e-5},
        RESNET,
    ],
)
def test_in_float32_the_fast_engine_and_the_plain_one_train_to_the_same_losses(
    model: dict[str, Any], tmp_path: Path
) -> None:
    _, _, fast = trained(recipe(model), tmp_path / "fast")
    _, _, plain = trained(recipe(model, engine="plain"), tmp_path / "plain")
    assert fast == pytest.approx(plain, abs=1e-5)
    assert fast[0] - fast[-1] > 1e-3  # something was learned


def test_a_measure_sees_the_model_as_it_is_written_down() -> None:
    model = build(recipe().model, image_size=8, channels=1, num_classes=10)
    assert isinstance(model, ViT)
    configure(model, choose(recipe(), "cpu", "bf16"))
    assert model.skip_unread
    assert model.narrow_tokens
    assert model.patch_embed.as_product
    configure(model, None)
    assert not model.skip_unread
    assert not model.narrow_tokens
    assert not model.patch_embed.as_product


@torch.no_grad()
def test_patches_multiplied_are_the_convolution_on_images_of_any_layout() -> None:
    of = recipe(VIT | {"patch_size": 4, "image_size": 12})
    model = build(of.model, image_size=12, channels=3, num_classes=10)
    assert isinstance(model, ViT)
    nn.init.normal_(model.patch_embed.proj.bias)  # type: ignore[arg-type]
    images = torch.randn(5, 3, 12, 12)
    convolved = model.patch_embed(images)
    configure(model, choose(of, "cpu", "fp32"))
    for same in (images, images.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(model.patch_embed(same), convolved)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@torch.no_grad()
def test_folded_batch_norm_gives_the_same_logits_and_leaves_the_model_alone(block: str) -> None:
    of = recipe({"family": "resnet", "layers": [2, 1], "block": block, "width": 8, "stem": "small"})
    model = build(of.model, image_size=8, channels=1, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # no longer the identity
            nn.init.uniform_(module.weight, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(6, 1, 8, 8)
    folded = for_evaluation(model, choose(of, "cpu", "fp32"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), model.eval()(images), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("workload", "precision", "together"),
    [
        ("digits-packing", "bf16", 256),  # 17 tokens of 256 numbers: 8.7 KB an image
        ("vit-d6-w192-p4-32", "bf16", 128),  # 65 of 768: 100 KB, of 13.6 MB
        ("vit-d6-w192-p4-32", "fp32", 64),
        ("resnet18-32", "bf16", 64),  # 64 channels of 32 x 32: 131 KB
        ("vit-d4-w256-p16-224", "bf16", 32),  # 197 of 1024: 403 KB
        ("vit-l16-384", "bf16", 8),  # never fewer
    ],
)
def test_a_cpu_classifies_as_many_images_at_once_as_its_caches_hold(
    workload: str, precision: Any, together: int
) -> None:
    of = table()[workload].recipe
    chosen = choose(of, "cpu", precision)
    assert chosen.eval_batch == together
    assert chosen.told.get("evaluation", "256").split()[0] == str(together)
    plain = of.model_copy(update={"train": of.train.model_copy(update={"engine": "plain"})})
    assert choose(of, "cuda:0", precision).eval_batch == choose(plain, "cpu", precision).eval_batch == 256


def test_where_predictions_depend_on_the_batch_its_size_is_that_of_the_training() -> None:
    of = recipe(VIT | {"attention": "batch", "pool": "gap", "embed_dim": 1024}, batch_size=512)
    assert choose(of, "cpu", "fp32").eval_batch == 512


def test_only_batch_norm_is_folded_and_only_by_the_fast_engine() -> None:
    for of in (recipe(), recipe(RESNET, engine="plain")):
        model = build(of.model, image_size=8, channels=1, num_classes=10)
        assert for_evaluation(model, choose(of, "cpu", "fp32")) is model


def test_a_step_seeds_its_own_device_alone() -> None:
    """torch.manual_seed notes a call for every device that is not in use, one more each step."""
    before = len(torch.cuda._queued_calls)
    distributed.reseed("cpu", 5)
    assert len(torch.cuda._queued_calls) == before
    ours = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(ours, torch.rand(3))


# --- compilation


def test_a_compiled_run_says_so_and_goes_on_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def compile_(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        compiled.append(1)
        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(train, "WARM_STEPS", 1)
    monkeypatch.setattr(train, "TIMED_STEPS", 2)
    monkeypatch.setattr(train, "compilation_pays", lambda _, pace, left: pace > 0 and left == 9)
    of = recipe()
    may = replace(choose(of, "cuda:0", "fp32"), graphs=False)
    parts = 2 * of.model.sizes[2]  # of each layer, all tokens and the first one  # type: ignore[union-attr]
    calls = iter(range(1, 100))
    with pytest.raises(train.Stopped):
        trained(of, tmp_path / "a", engine=may, should_stop=lambda: next(calls) >= 6)
    assert len(compiled) == parts
    _, done, _ = trained(of, tmp_path / "a", engine=may)
    assert len(compiled) == 2 * parts
    assert done.compiled_at == 3
    _, never, _ = trained(of, tmp_path / "b")
    assert never.compiled_at is None


def test_the_pace_is_that_of_steps_that_are_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate, paces = train.optim.learning_rate, list[float]()

    def slow_at_first(step: int, *rest: Any) -> float:
        time.sleep(0.5 if step == 0 else 0)
        return rate(step, *rest)

    monkeypatch.setattr(train.optim, "learning_rate", slow_at_first)
    monkeypatch.setattr(train, "WARM_STEPS", 2)
    monkeypatch.setattr(train, "TIMED_STEPS", 4)
    monkeypatch.setattr(train, "compilation_pays", lambda _, pace, left: bool(paces.append(pace)))  # noqa: ARG005
    may = replace(choose(recipe(), "cuda:0", "fp32"), graphs=False)
    trained(recipe(), tmp_path, engine=may)
    assert len(paces) == 1
    assert 0 < paces[0] < 0.12  # half a second over four steps would be more


# --- batch norm over several processes


def test_batch_norm_over_processes_is_refused_on_a_cpu_unless_each_takes_its_own() -> None:
    model = build(recipe(RESNET).model, image_size=8, channels=1, num_classes=10)
    with pytest.raises(RunError, match=r"train\.batch_norm=process"):
        engine.share_statistics(model, "batch", "cpu")
    assert engine.share_statistics(model, "process", "cpu") is model
    synced = engine.share_statistics(model, "batch", "cuda:0")
    assert any(isinstance(module, nn.SyncBatchNorm) for module in synced.modules())
    vit = build(recipe().model, image_size=8, channels=1, num_classes=10)
    assert engine.share_statistics(vit, "batch", "cpu") is vit


# --- attention across the batch


@pytest.mark.parametrize("fast", ["fast", "plain"])
def test_that_predictions_depend_on_the_batch_is_among_what_is_told(fast: str) -> None:
    of = recipe(VIT | {"attention": "batch", "pool": "gap"}, engine=fast)
    told = choose(of, "cpu", "fp32").told
    assert told["predictions"] == "of 16 images together, on all of which each depends: attention is across them"
    assert ("16 keys" in told["attention"]) or ("here 16" in told["attention"])  # and not the 16 patches and a token
    assert "predictions" not in choose(recipe(engine=fast), "cpu", "fp32").told


def test_the_kernel_is_chosen_by_the_number_of_images_where_attention_is_across_them() -> None:
    of = VIT | {"attention": "batch", "pool": "gap"}
    assert [choose(recipe(of, batch_size=n), "cpu", "fp32").fused_attention for n in (256, 257)] == [False, True]


def test_a_model_that_attends_across_the_batch_is_not_shared_out_among_processes() -> None:
    of = recipe(VIT | {"attention": "batch", "pool": "gap"})
    with pytest.raises(RunError, match=r"all 16 images of a batch, in evaluation too, and 2 processes .* one process"):
        engine.check_processes(of, 2)
    engine.check_processes(of, 1)
    engine.check_processes(recipe(), 2)


# --- told


def test_show_tells_the_choices_of_every_arm() -> None:
    command = ["show", "vit/t8-none-clearly-worse", "--engine", "--scale", "quick", "--devices", "cpu"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    (claim,) = json.loads(done.stdout)["claims"]
    assert set(claim["engine"]) == {"vit-1k", "vit-no-position-1k"}
    for told in claim["engine"].values():
        assert {"attention", "last layer", "arithmetic", "compilation", "optimizer", "allocator"} <= set(told)
    words = CliRunner().invoke(app, command)
    assert "plain products" in words.stdout
    assert CliRunner().invoke(app, ["show", "vit/t1-variants", "--scale", "cpu"]).exit_code == 2
