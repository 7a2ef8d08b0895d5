"""The benchmark: what is timed, against whom, in which order, and what is made of the times."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import torch
from typer.testing import CliRunner, Result

from vitrepro import claims, flops
from vitrepro.bench import child, counterparts, ours, pairs, rivals
from vitrepro.bench.child import Child
from vitrepro.bench.ours import LEAD_STEPS, Ours
from vitrepro.bench.results import Result as Found
from vitrepro.bench.results import Side, Turn
from vitrepro.bench.rivals import Rival
from vitrepro.bench.setup import EVALUATION_BATCH, Memory, Setup, random_images
from vitrepro.bench.supply import CAN_STOP, EPOCH, Supply
from vitrepro.bench.workloads import RATE, Workload, changed, chosen, suited, table, timed
from vitrepro.cli import app, machine
from vitrepro.data.augment import normalize
from vitrepro.errors import RunError, UsageError
from vitrepro.models.build import build
from vitrepro.provenance import ALLOCATOR
from vitrepro.recipe import Recipe
from vitrepro.report import benched

STEPS = [name for name, w in table().items() if w.runs is None]


def recipe(model: dict[str, Any] | None = None, **parts: Any) -> Recipe:
    """A tiny recipe on digits, changed."""
    train = {"steps": 40, "batch_size": 16, "lr": 1e-3, "precision": "fp32", "clip_norm": 1.0}
    tiny = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return Recipe.model_validate(
        {
            "data": parts.pop("data", {"name": "digits"}),
            "augment": parts.pop("augment", {}),
            "model": tiny | (model or {}) if (model or {}).get("family", "vit") == "vit" else model,
            "train": train | parts,
        }
    )


def setup(of: Recipe, workers: int = 0) -> Setup:
    return Setup(of, "cpu", "fp32", 1, workers)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Sides settle the process that they are in."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


# --- workloads


@pytest.mark.parametrize("opponent", counterparts.OPPONENTS)
@pytest.mark.parametrize("name", STEPS)
def test_every_workload_has_the_same_model_elsewhere(name: str, opponent: str):
    of = table()[name].recipe
    with torch.device("meta"):
        mine = build(of.model, image_size=of.image_size, channels=of.channels, num_classes=of.data.num_classes)
        theirs = counterparts.build(of, opponent)
    shapes = [sorted(tuple(p.shape) for p in model.parameters()) for model in (mine, theirs)]
    assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())
    if opponent == "timm":  # torchvision's attention keeps its bias elsewhere
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("model", "opponent"),
    [
        ({"pool": "gap"}, "timm"),
        ({"pos_embed": "none", "qkv_bias": False, "final_norm": False, "mlp_dim": 24}, "timm"),
        ({"mlp_dim": 24, "dropout": 0.1}, "plain"),
        ({"family": "resnet", "variant": "R18", "stem": "small"}, "timm"),
        ({"family": "resnet", "variant": "R50"}, "plain"),
    ],
)
def test_changed_models_have_counterparts_of_as_many_parameters(model: dict[str, Any], opponent: str):
    of = recipe(model)
    with torch.device("meta"):
        mine = build(of.model, image_size=of.image_size, channels=of.channels, num_classes=of.data.num_classes)
        theirs = counterparts.build(of, opponent)
    assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("of", "opponent", "reason"),
    [
        (recipe(augment={"mixup": 0.2}), "timm", "mixup"),
        (recipe(polyak=0.9), "plain", "averaged weights"),
        (recipe({"pos_embed": "relative"}), "timm", "position embeddings relative"),
        (recipe({"pos_embed": "none"}), "plain", "position embeddings none"),
        (recipe({"pool": "gap"}), "plain", "a ViT without class token"),
        (recipe({"attention_norm": "unused"}), "timm", "an unused norm"),
        (recipe({"norm": "post", "activation": "relu"}), "plain", "a ViT of another norm, activation"),
        (recipe({"pool": "first", "attention": "batch"}), "timm", "a ViT of another attention, pool"),
        (recipe({"family": "resnet", "variant": "R18", "width": 32}), "timm", "width 32"),
        (recipe({"family": "resnet", "layers": [1, 1], "block": "basic"}), "plain", "of (1, 1) blocks"),
        (recipe({"family": "timm", "name": "resnet18"}), "plain", "a model of timm"),
    ],
)
def test_what_has_no_counterpart_is_refused(of: Recipe, opponent: str, reason: str):
    assert reason in (counterparts.refusal(of, opponent) or "")
    with pytest.raises(UsageError, match=f"--against {opponent}"):
        counterparts.build(of, opponent)


def test_a_cpu_gets_the_small_workloads_and_a_gpu_the_large_ones():
    assert list(suited({}, ("cpu", "cpu"))) == [*STEPS[:3], "digits-packing"]
    assert list(suited({}, ("cpu",))) == STEPS[:3]
    assert list(suited({}, ("cuda:0",))) == STEPS[3:]
    packing = {"p": table()["digits-packing"]}
    assert suited(packing, ("cuda:0",)) == packing  # small runs share a GPU


def test_an_arm_of_the_registry_is_timed_by_its_recipe():
    registry = claims.load()
    (workload,) = chosen(["small-data-digits/vit-1k"], registry).values()
    assert workload.recipe == claims.recipes(registry.experiment("small-data-digits"))["vit-1k"]  # type: ignore[arg-type]


def test_a_grid_of_rates_and_a_warm_up_change_nothing_of_what_is_timed():
    of = recipe(data={"name": "digits", "dev_fraction": 0.1}, lr=None, lr_grid=[0.1, 1e9], warmup_steps=30)
    assert timed(of, 3).steps == 3
    assert (timed(of, 3).train.lr, timed(of, 3).train.lr_grid, timed(of, 3).train.warmup_steps) == (1e-4, None, 0)


def test_precision_and_batch_are_those_asked_for():
    workload = Workload(title="", recipe=recipe(micro_batch=8))
    made = changed("a", workload, precision="bf16", batch_size=24).recipe
    assert (made.train.precision, made.train.batch_size, made.train.micro_batch) == ("bf16", 24, 8)
    assert changed("a", workload, precision="auto", batch_size=None) == workload
    with pytest.raises(UsageError, match=r"a: train: .* 20 is not a multiple of micro_batch 8"):
        changed("a", workload, precision="auto", batch_size=20)


# --- errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet18-3"], "no workload 'resnet18-3'; did you mean 'resnet18-32'"),
        (["small-data-digit/vit-1k"], "did you mean 'small-data-digits/vit-1k'"),
        (["small-data-digits/vt-1k"], "no such arm; did you mean 'vit-1k'"),
        (["sequence-lengths/x"], "counted by formula, there is nothing to time"),
        (["resnet18-32", "--against", "tim"], "--against 'tim' is not one of timm, plain; did you mean 'timm'?"),
        (["resnet18-32", "--against", "timm,"], "--against '' is not one of"),
        (["digits-packing", "--devices", "cpu:1"], "one slot only"),
        (["vit-b16-224", "--devices", "cpu"], "needs a CUDA device"),
        (["position-embeddings-cifar10/relative", "--against", "timm"], "no counterpart of position embeddings"),
        (["resnet18-32", "--devices", "cpu", "--precision", "fp16"], "--precision fp16 needs a CUDA device"),
        (["resnet18-32", "--precision", "fp8"], "--precision 'fp8' is not one of"),
        (["resnet18-32", "--pairs", "0"], "--pairs"),
        (["resnet18-32", "--batch", "0"], "--batch"),
    ],
)
def test_what_cannot_be_timed_is_a_usage_error(arguments: list[str], said: str):
    done = call(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_an_unknown_workload_is_refused_without_torch():
    code = "import sys; from vitrepro.cli import app; app(['bench', 'nonsense'], standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"try:\n    exec({code!r})\nfinally:\n    print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "False", done.stderr
    assert "no workload 'nonsense'" in done.stderr


# --- what is made of the times


def test_operations_are_those_of_the_model_and_ours_leaves_some_out():
    of = table()["vit-b16-224"].recipe
    sizes = {"image_size": 224, "channels": 3, "num_classes": 10}
    macs, executed = flops.forward_macs(of.model, **sizes), flops.executed_macs(of.model, **sizes)
    assert macs is not None
    assert executed is not None
    assert pairs.operations(of, "training", "vitrepro") == (6 * macs, 6 * executed)
    assert pairs.operations(of, "evaluation", "vitrepro") == (2 * macs, 2 * executed)
    assert pairs.operations(of, "evaluation", "timm") == (2 * macs, 2 * macs)
    assert executed < macs
    assert pairs.operations(recipe(engine="plain"), "training", "vitrepro") == pairs.operations(
        recipe(), "training", "plain"
    )
    assert pairs.operations(recipe({"family": "timm", "name": "resnet18"}), "training", "timm") == (None, None)


def test_rates_are_medians_and_shares_are_of_what_was_carried_out():
    side = Side((Turn(100, 2.0, 7, 0.5), Turn(100, 1.0, 9, 0.1), Turn(100, 4.0, 8, 0.4)), flops=3e9, executed=2e9)
    assert side.images_per_second == 50
    assert side.flops_per_second == 150e9
    assert side.share(400e9) == pytest.approx(0.25)  # 50 x 2e9 of 400e9
    assert side.utilisation(400e9) == pytest.approx(side.flops_per_second / 400e9)  # type: ignore[operator]
    assert side.input_share == pytest.approx(0.1)  # of 0.25, 0.1 and 0.1
    assert side.memory_bytes == 9
    unknown = Side((Turn(100, 2.0),))
    assert (unknown.flops_per_second, unknown.share(1.0), unknown.input_share, unknown.memory_bytes) == (None,) * 4


def found(phase: Any = "training", **sides: Side) -> Found:
    mine = Side((Turn(100, 1.0, 2**20, 0.1), Turn(100, 1.0, 2**20, 0.1), Turn(100, 4.0, 2**20, 0.4)), 1e9, 0.8e9)
    return Found("a", "a tiny model", phase, {"vitrepro": mine, **sides}, 32, 8, "fp32", 1234, 1e12)


def test_ratios_are_taken_pair_by_pair():
    other = Side((Turn(100, 2.0), Turn(100, 3.0), Turn(100, 4.0)))
    assert found(timm=other).ratio("timm") == (2.0, 1.0, 3.0)  # medians alone would say 3


def test_the_table_has_a_line_for_each_side():
    lines = benched.rows([found(timm=Side((Turn(100, 2.0),) * 3, 1e9, 1e9))])
    assert lines[0] == ("a", "training", "vitrepro", "100", "100 GFLOP/s", "10% (8%)", "1 MiB", "10.0%", "")
    assert lines[1] == ("a", "training", "timm", "50", "50 GFLOP/s", "5%", "", "", "2.00 (0.50 to 2.00)")


def test_the_document_says_on_what_it_was_made_and_how():
    facts = pairs.machine(("cpu", "cpu"))
    text = benched.document(
        [found(timm=Side((Turn(100, 2.0),) * 3))], facts, command="vitrepro bench a", pairs=3, seconds=8
    )
    assert "Made by `vitrepro bench a` on 20" in text
    assert "the median of 3 pairs of turns" in text
    assert f"| device name | {facts['device_name']} |" in text
    for package in ("torch", "timm"):
        assert f"{package} {facts['packages'][package]}" in text
    assert f"| threads | {facts['threads']} |" in text
    assert "random pixels, made in memory" in text
    assert "A tiny model: 1,234 parameters, batches of 32, 8 pixels a side, fp32." in text
    assert "The product rate is 1 TFLOP/s." in text
    assert "**timm** is its own loader" in text
    assert "**plain** is" not in text
    assert "Compiled" not in text
    compiled = dataclasses.replace(found(), compiled=True)
    assert "Compiled, as a run of the recipe's length would be: a." in benched.document(
        [compiled], facts, command="", pairs=1, seconds=1
    )


def test_the_document_tells_the_command_without_where_its_answer_went():
    asked = "bench a --json -o /x/y.md --against timm --out=/z -q --out /x --quiet --pairs 3"
    assert machine._what_was_asked(asked.split()) == ["bench", "a", "--against", "timm", "--pairs", "3"]


def test_what_is_not_known_of_a_machine_has_no_line_in_the_document():
    facts = pairs.machine(("cpu",)) | {"git_revision": None}
    text = benched.document([found()], facts, command="", pairs=1, seconds=1)
    assert "git revision" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("data", "images"),
    [
        ("digits", 1024),  # 797 test images
        ("cifar10", 10_240),  # 10,000
        ("imagenette", 4096),  # 3,925
        ("pets", 256 * (400_000_000 // (256 * 384 * 384 * 3))),  # all of 3,669 would be 1.6 GB
    ],
)
def test_there_are_as_many_images_as_a_test_split_has(data: str, images: int):
    shown, labels = random_images(recipe({"image_size": 32}, data={"name": data}))
    assert len(shown) == len(labels) == images


def test_json_is_one_document_and_the_file_is_written_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def measure(*arguments: Any, **options: Any) -> list[list[Found]]:
        asked.extend([arguments, options])
        return [[found(plain=Side((Turn(100, 2.0),) * 3))]]

    monkeypatch.setattr(pairs, "measure", measure)
    file = tmp_path / "new" / "bench.md"
    done = call("resnet18-32", "--against", "plain", "--devices", "cpu:2", "--pairs", "3", "--json", "-o", str(file))
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["machine"]["device"] == "cpu"
    assert document["pairs"] == 3
    (result,) = document["results"]
    assert result["faster_by"] == {"plain": {"median": 2.0, "low": 0.5, "high": 2.0}}
    assert result["sides"]["vitrepro"]["images_per_second"] == 100
    assert result["sides"]["vitrepro"]["executed_share_of_product_rate"] == 0.08
    assert len(result["sides"]["plain"]["turns"]) == 3
    assert "| training | plain | 50 |" in file.read_text()
    (workloads, against), options = asked[0], asked[1]
    assert (list(workloads), against, options["pairs"], options["devices"]) == (
        ["resnet18-32"],
        ("plain",),
        3,
        ("cpu", "cpu"),
    )


# --- turn by turn


class FakeChild:
    """A side that answers at once and notes what it was asked."""

    asked: ClassVar[list[tuple[str, str, tuple[Any, ...]]]] = []
    seconds: ClassVar = {"vitrepro": 1.0, "timm": 2.0, "plain": 4.0}  # a batch
    parameters: ClassVar = {"vitrepro": 10, "timm": 10, "plain": 10}

    def __init__(self, name: str, setup: Setup) -> None:  # noqa: ARG002
        self.name = name

    def __enter__(self) -> FakeChild:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, what: str, *arguments: Any) -> Any:
        self.asked.append((self.name, what, arguments))
        if what in pairs.PHASES:
            return Turn(arguments[0], self.seconds[self.name] * arguments[0])
        rates = [what for _, what, _ in self.asked].count("product_rate")
        answers = {
            "parameters": self.parameters[self.name],
            "product_rate": 1e9 * (rates if rates < 5 else 1),
            "settle_on": False,
        }
        return 0.1 if what == "input_alone" else answers.get(what)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[FakeChild]:
    monkeypatch.setattr(pairs, "Child", FakeChild)
    monkeypatch.setattr(FakeChild, "asked", [])
    return FakeChild


def measured(against: tuple[str, ...] = ("timm",), seconds: float = 100.0, number: int = 2) -> list[Found]:
    workloads = {"a": Workload(title="", recipe=recipe())}
    (found,) = pairs.measure(
        workloads, against, devices=("cpu",), resolve=lambda _: "fp32", pairs=number, seconds=seconds, cache_dir=Path()
    )
    return found


def test_sides_take_equally_long_turns_in_alternating_order(fakes: type[FakeChild]):
    training, evaluation = measured()
    turns = [(name, *given) for name, what, given in fakes.asked if what == "training"]
    assert turns == [
        ("vitrepro", 2),  # a turn each that does not count
        ("timm", 2),
        ("vitrepro", 50),  # 100 seconds of the slower side
        ("timm", 50),
        ("timm", 50),
        ("vitrepro", 50),
    ]
    assert [len(side.turns) for side in training.sides.values()] == [2, 2]
    assert len([what for _, what, _ in fakes.asked if what == "product_rate"]) == 8  # beside every turn that counts
    assert training.product_rate == 4e9  # the best seen
    assert (training.phase, evaluation.phase, training.parameters) == ("training", "evaluation", 10)
    assert training.ratio("timm") == (2.0, 2.0, 2.0)
    assert training.sides["timm"].input_share == pytest.approx(0.05)  # 0.1 of 2 seconds a batch
    alone = [name for name, what, _ in fakes.asked if what == "input_alone"]
    assert alone == ["vitrepro"] * 2 + ["timm"] * 2 + ["vitrepro"] * 2  # of a loader only after its last turn


def test_what_was_timed_before_an_interruption_is_in_the_document(
    fakes: type[FakeChild],  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    document = tmp_path / "new" / "speed.md"
    whole = pairs._steps

    def second_time_interrupted(name: str, *arguments: Any) -> list[Found]:
        if name == STEPS[1]:
            raise KeyboardInterrupt
        return whole(name, *arguments)

    monkeypatch.setattr(pairs, "_steps", second_time_interrupted)
    options = ("--devices", "cpu:1", "--pairs", "1", "-o", str(document))
    done = call(*STEPS[:2], *options)
    assert done.exit_code == 130, done.output
    assert f"Interrupted. {document} has 1 of 2 workloads." in done.stderr
    assert f"## {STEPS[0]}" in document.read_text()
    document.unlink()
    done = call(STEPS[1], *options)
    assert done.exit_code == 130
    assert "Interrupted. Nothing was stored." in done.stderr
    assert not document.exists()


def test_a_turn_has_a_few_batches_however_slow_they_are(fakes: type[FakeChild]):
    measured(seconds=0.001)
    assert {given[0] for _, what, given in fakes.asked if what == "training"} == {2, pairs.LEAST["training"]}
    assert {given[0] for _, what, given in fakes.asked if what == "evaluation"} == {1, pairs.LEAST["evaluation"]}


def test_another_model_is_no_opponent(fakes: type[FakeChild], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fakes, "parameters", {"vitrepro": 10, "timm": 11})
    with pytest.raises(RunError, match="not the same model"):
        measured()


def test_progress_is_told_as_often_as_was_said(fakes: type[FakeChild]):  # noqa: ARG001
    told: list[str] = []
    workloads = {"a": Workload(title="", recipe=recipe())}
    list(
        pairs.measure(
            workloads,
            ("timm", "plain"),
            devices=("cpu",),
            resolve=lambda _: "fp32",
            pairs=3,
            seconds=1,
            cache_dir=Path(),
            advance=told.append,
        )
    )
    assert len(told) == pairs.work(workloads, ("timm", "plain"), 3) == 12
    assert pairs.work({"p": table()["digits-packing"]}, (), 3) == 8
    assert pairs.work({"p": table()["digits-packing"]}, ("timm",), 3) == 12


# --- the sides


def test_our_turns_are_steps_of_train_and_batches_of_predict(monkeypatch: pytest.MonkeyPatch):
    trained: list[int] = []
    predicted: list[int] = []
    train, predict = ours.train, ours.accuracy.predict

    def counted_train(*arguments: Any, **options: Any) -> Any:
        trained.append(arguments[3].steps)
        return train(*arguments, **options)

    def counted_predict(model: Any, images: Any, *arguments: Any, **options: Any) -> Any:
        predicted.append(len(images))
        return predict(model, images, *arguments, **options)

    monkeypatch.setattr(ours, "train", counted_train)
    monkeypatch.setattr(ours.accuracy, "predict", counted_predict)
    side = Ours(setup(recipe()))
    before = side.model.head.weight.clone()  # type: ignore[union-attr,operator]
    turn = side.training(3)
    assert trained == [LEAD_STEPS, 3]
    assert turn.images == 3 * 16
    assert turn.seconds > 0
    assert turn.memory_bytes is not None
    assert not torch.equal(before, side.model.head.weight)  # type: ignore[arg-type,union-attr]
    assert side.model.skip_unread  # the engine's choices  # type: ignore[union-attr]
    most = len(side.images)
    turn = side.evaluation(most // EVALUATION_BATCH + 1)
    assert predicted == [EVALUATION_BATCH, most, EVALUATION_BATCH]
    assert turn.images == most + EVALUATION_BATCH
    assert side.input_alone("training", 2) > 0
    assert side.input_alone("evaluation", 2) > 0
    assert 1e6 < side.product_rate(size=128, repeats=2) < 1e15


def test_ours_is_compiled_where_a_run_of_the_recipes_length_would_be(monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda call: made.append(call) or call)
    monkeypatch.setattr(torch._dynamo.config, "suppress_errors", False)
    side = Ours(setup(recipe(steps=1000)))
    assert not side.settle_on(1e6)  # never on a CPU
    side.engine = dataclasses.replace(side.engine, may_compile=True)
    assert not side.settle_on(0.01)  # 1000 steps of 10 ms do not pay it back
    assert not made
    assert side.settle_on(10.0)
    blocks = list(side.model.blocks)  # type: ignore[arg-type]
    assert [call.__self__ for call in made] == [block for block in blocks for _ in ("forward", "of_first_token")]


def test_memory_that_recorded_passes_hold_is_part_of_every_turn(monkeypatch: pytest.MonkeyPatch):
    """The allocator counts it while they are recorded, and no more when they are replayed."""
    side = Ours(setup(recipe(steps=1000)))
    monkeypatch.setattr(type(side.passes), "recorded", property(lambda _: True))
    monkeypatch.setattr(type(side.passes), "compile", lambda _: None)
    peaks = iter([900, 100, 110, 700, 120])  # while recorded, of two turns, while recorded anew, of a turn
    monkeypatch.setattr(side.memory, "bytes", lambda: next(peaks))
    assert [side.training(1).memory_bytes for _ in range(2)] == [900, 900]
    side.engine = dataclasses.replace(side.engine, may_compile=True)
    assert side.settle_on(10.0)
    assert side.training(1).memory_bytes == 700
    assert next(peaks, None) is None


@pytest.mark.parametrize("opponent", counterparts.OPPONENTS)
@pytest.mark.parametrize("more", [{}, {"optimizer": "sgd", "micro_batch": 4, "label_smoothing": 0.1}])
def test_the_other_sides_train_on_as_many_images(opponent: str, more: dict[str, Any]):
    side = Rival(setup(recipe(**more)), opponent)
    before = [p.clone() for p in side.model.parameters()]
    turn = side.training(2)
    assert turn.images == 2 * 16
    assert turn.seconds > 0
    after = list(side.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert side.evaluation(1).images == EVALUATION_BATCH
    assert side.input_alone("training", 2) > 0


@pytest.mark.parametrize("opponent", counterparts.OPPONENTS)
@pytest.mark.parametrize("micro", [16, 4])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_step_of_theirs_is_a_step_of_the_recipe(opponent: str, micro: int, clip: float | None):
    of = recipe(optimizer="sgd", momentum=0.5, micro_batch=micro, label_smoothing=0.1, clip_norm=clip)
    side = Rival(setup(of), opponent)
    reference = copy.deepcopy(side.model)
    before = [p.detach().clone() for p in reference.parameters()]
    optimizer = torch.optim.SGD(reference.parameters(), lr=RATE, momentum=0.5)
    x, y = torch.randn(3, 16, 1, 8, 8), torch.arange(48).reshape(3, 16) % 10
    side.model.train()
    given = ((x[i, j : j + micro], y[i, j : j + micro]) for i in range(3) for j in range(0, 16, micro))
    for i in range(3):
        side.step(given, i)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(reference(x[i]), y[i], label_smoothing=0.1).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(reference.parameters(), clip)
        optimizer.step()
    moved, expected = (
        torch.cat([(p.detach() - q).flatten() for p, q in zip(m.parameters(), before, strict=True)])
        for m in (side.model, reference)
    )
    assert expected.norm() > 5e-6
    assert (moved - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("opponent", counterparts.OPPONENTS)
@pytest.mark.parametrize("image_size", [32, 48])
def test_the_other_sides_see_the_same_pixels(opponent: str, image_size: int):
    of = recipe({"image_size": image_size}, data={"name": "cifar10"}, augment={"mean": 0.4, "std": 0.3}, batch_size=256)
    side = Rival(setup(of), opponent)
    images, labels = random_images(of)
    shown, shown_labels = next(side.supplies["evaluation"].epoch(256))
    expected = normalize(torch.from_numpy(images[:256]).permute(0, 3, 1, 2), of.augment, image_size)
    rounding = 1e-5 if image_size == 32 else 1.01 / 255 / 0.3  # PIL's results are whole numbers
    torch.testing.assert_close(shown, expected, atol=rounding, rtol=0)
    assert shown_labels.tolist() == labels[:256].tolist()
    trained, _ = next(side.supplies["training"].epoch(40 * 256))  # every image once, in some order
    assert trained.shape == expected.shape


@pytest.mark.parametrize("opponent", counterparts.OPPONENTS)
@pytest.mark.parametrize(
    ("augment", "kinds"),
    [
        ({"flip": True, "crop_padding": 4}, ["RandomCrop", "RandomHorizontalFlip"]),
        ({"random_resized_crop": {"scale": [0.5, 1]}}, ["RandomResizedCrop"]),
        ({"color_jitter": {"hue": 0.1}}, ["ColorJitter"]),
        ({}, []),
    ],
)
def test_the_other_sides_augment_in_the_same_ways(opponent: str, augment: dict[str, Any], kinds: list[str]):
    side = Rival(setup(recipe(data={"name": "cifar10"}, augment=augment)), opponent)
    made = [type(t).__name__ for t in side.data["training"].transform.transforms]
    ours_too = [name.removesuffix("AndInterpolation") for name in made]
    assert [n for n in ours_too if n.startswith(("Random", "Color"))] == kinds
    if "random_resized_crop" in augment:
        assert side.data["training"].transform.transforms[0].scale == (0.5, 1)


class Endless:
    """A loader that counts what it gives, of a data set that is as long as it is told to be."""

    length = 0

    def __init__(self, batch_size: int = 16) -> None:
        self.batch_size, self.given, self.lengths = batch_size, 0, [0]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.lengths.append(self.length // self.batch_size)
        for _ in range(self.lengths[-1]):
            self.given += 1
            yield torch.zeros(self.batch_size, 1, 8, 8), torch.zeros(self.batch_size, dtype=torch.int64)


def test_a_loader_is_as_far_ahead_when_the_clock_stops_as_when_it_starts():
    """With two workers four batches are ready: a first turn uses four before its clock starts, a later one two."""
    side = Rival(setup(recipe(), workers=2), "plain")
    loader = Endless()
    supply = side.supplies["training"] = Supply(loader, loader, 16, workers=2)
    used: list[Any] = []
    side.step = lambda batches, _: used.append(next(batches))
    counts = []
    for turn in (lambda: side.training(3), lambda: side.training(3), lambda: side.input_alone("training", 5)) * 2:
        before = loader.given
        turn()
        counts.append(loader.given - before)
    # the first batch of an epoch goes to waking the workers
    assert counts == [1 + 4 + 3, 2 + 3, 4 + 5, 4 + 3, 2 + 3, 4 + 5]
    assert loader.lengths[-1] == 1 + EPOCH + supply.ahead  # they are ahead even of the last batch


def test_no_turn_meets_the_end_of_an_epoch():
    loader = Endless()
    supply = Supply(loader, loader, 16, workers=2)
    for number in (EPOCH - 10, 5, 20, EPOCH + 30):
        with supply.flowing(supply.ahead + number, in_steps=True) as batches:
            taken = [next(batches) for _ in range(supply.lead(1) + number)]
        assert len(taken) > number
    assert loader.lengths == [0, 1 + EPOCH + 4, 1 + EPOCH + 4, 1 + EPOCH + 34 + 4]


@pytest.mark.slow
@pytest.mark.skipif(not CAN_STOP, reason="this system cannot stop processes")
@pytest.mark.parametrize("opponent", counterparts.OPPONENTS)
def test_workers_stand_still_while_another_side_has_its_turn(opponent: str):
    with Child(opponent, setup(recipe(), workers=2)) as side:

        def states() -> list[str]:
            return sorted(p.status() for p in psutil.Process(side.process.pid).children(recursive=True))

        side.ask("training", 2)
        assert states() == [psutil.STATUS_STOPPED] * 2
        side.ask("evaluation", 1)
        assert states() == [psutil.STATUS_STOPPED] * 4
        assert side.ask("training", 600).images == 600 * 16  # more than an epoch
        side.ask("input_alone", "evaluation", 1)
        assert states() == [psutil.STATUS_STOPPED] * 4
        workers = psutil.Process(side.process.pid).children()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux only")
def test_memory_is_the_peak_since_the_last_restart_beyond_what_was_there():
    memory = Memory("cpu")
    with mmap.mmap(-1, 64 * 2**20) as block:
        for _ in range(64):  # in small parts, which the heap has room for
            block.write(bytes(2**20))
        assert 60 * 2**20 < memory.bytes() < 200 * 2**20
    memory.restart()
    assert memory.bytes() < 30 * 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux only")
def test_memory_of_our_training_is_beyond_the_images_and_not_hidden_by_what_made_them():
    """Activations of 32 images of 64 pixels: 15 MB for the widest of each of 8 layers; the images alone are 315 MB."""
    wide = {"image_size": 64, "patch_size": 8, "embed_dim": 128, "mlp_dim": 1800, "depth": 8}
    code = (
        "from vitrepro.bench.ours import Ours; from vitrepro.bench.setup import Setup; import json, sys\n"
        "from vitrepro.recipe import Recipe\n"
        "of = Recipe.model_validate(json.loads(sys.argv[1]))\n"
        "print(Ours(Setup(of, 'cpu', 'fp32', 1, 0)).training(1).memory_bytes)"
    )
    of = recipe(wide, data={"name": "imagenette"}, batch_size=32)
    done = subprocess.run(
        [sys.executable, "-c", code, of.model_dump_json()],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | dict(ALLOCATOR),
    )
    assert 150e6 < int(done.stdout) < 600e6


def test_only_our_processes_start_with_our_allocator(monkeypatch: pytest.MonkeyPatch):
    name, value = "MALLOC_MMAP_MAX_", ALLOCATOR["MALLOC_MMAP_MAX_"]
    for there, for_ours, for_others in ((None, value, None), (value, value, None), ("7", "7", "7")):
        if there is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, there)
        for mine, expected in ((True, for_ours), (False, for_others)):
            with child._environment(ours=mine):
                assert os.environ.get(name) == expected
            assert os.environ.get(name) == there


def test_a_side_that_is_killed_is_named():
    with Child("vitrepro", setup(recipe())) as side:
        assert side.process.pid is not None
        os.kill(side.process.pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"the process of vitrepro was killed by SIGKILL \(out of memory\?\)"):
            side.ask("training", 1)


# --- from end to end


@pytest.mark.slow
def test_the_command_times_an_arm_against_both(tiny_claims: Path):
    done = call(
        "tiny/vit",
        "--claims-dir",
        str(tiny_claims),
        "--against",
        "timm,plain",
        "--pairs",
        "1",
        "--seconds",
        "0.01",
        "--json",
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [r["phase"] for r in document["results"]] == ["training", "evaluation"]
    for result in document["results"]:
        assert list(result["sides"]) == ["vitrepro", "timm", "plain"]
        assert result["product_flops_per_second"] > 1e9
        for side in result["sides"].values():
            assert side["images_per_second"] > 0
            assert side["input_share"] > 0
            assert 0 < side["executed_share_of_product_rate"] < 1
            assert len(side["turns"]) == 1
        assert set(result["faster_by"]) == {"timm", "plain"}


@pytest.mark.slow
def test_a_side_that_cannot_be_made_says_why():
    with Child("timm", setup(recipe({"family": "timm", "name": "resnet19"}))) as side:
        with pytest.raises(UsageError, match="timm has no model 'resnet19'; did you mean 'resnet1"):
            side.ask("parameters")
        leader = side.process.pid
    assert leader is not None
    assert not psutil.pid_exists(leader)


@pytest.mark.parametrize("opponent", ["timm", "plain"])
def test_a_whole_run_of_others_is_the_steps_of_the_recipe_and_its_whole_test_split(
    opponent: str, monkeypatch: pytest.MonkeyPatch
):
    digits = table()["digits-packing"].recipe.model_dump() | {"train": recipe(steps=3).train.model_dump()}
    side = rivals.Runs(setup(Recipe.model_validate(digits)), opponent)
    assert side.parameters == 152_202
    steps: list[int] = []
    tested: list[int] = []

    class Counting(rivals.Rival):
        def __init__(self, *made: Any) -> None:
            super().__init__(*made)
            step = self.step
            self.step = lambda batches, i: (steps.append(i), step(batches, i))[1]

        def _count(self, batches: Any, number: int) -> int:
            images = list(batches)
            tested.append(sum(len(labels) for _, labels in images))
            return super()._count(iter(images), number)

    monkeypatch.setattr(rivals, "Rival", Counting)
    assert side.whole_runs(2) > 0
    assert steps == [0, 1, 2, 0, 1, 2]
    assert tested == [797, 797]


@pytest.mark.slow
@pytest.mark.parametrize("opponent", ["timm", "plain"])
def test_workers_of_a_whole_run_end_with_it_at_once(opponent: str):
    """They are waited for 5 s each where the garbage collector ends them."""
    digits = table()["digits-packing"].recipe.model_dump() | {"train": recipe(steps=3).train.model_dump()}
    with Child(f"{opponent}, whole runs", setup(Recipe.model_validate(digits), workers=2)) as side:
        side.ask("whole_runs", 1)
        assert side.ask("whole_runs", 2) < 8
        assert psutil.Process(side.process.pid).children() == []


@pytest.mark.slow
def test_whole_runs_are_packed_and_done_one_after_another(tmp_path: Path):
    few = table()["digits-packing"].recipe.model_dump() | {"train": recipe(steps=3).train.model_dump()}
    workload = Workload(title="", runs=2, recipe=Recipe.model_validate(few))
    told: list[str] = []
    ((result,),) = pairs.measure(
        {"p": workload},
        ("timm", "plain"),
        devices=("cpu", "cpu"),
        resolve=lambda _: "fp32",
        pairs=1,
        seconds=1,
        cache_dir=tmp_path,
        advance=told.append,
    )
    assert list(result.sides) == ["vitrepro", "one process", "timm", "plain"]
    assert [side.turns[0].images // (3 * 16) for side in result.sides.values()] == [2, 2, 1, 1]  # runs
    assert len(told) == pairs.work({"p": workload}, ("timm", "plain"), 1)
    assert result.phase == "whole runs"
    assert all(result.ratio(other).median > 0 for other in ("one process", "timm", "plain"))
    assert "on all slots at once. Both start from a server" in benched.document(
        [result], pairs.machine(("cpu", "cpu")), command="", pairs=1, seconds=1
    )


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_every_process(tiny_claims: Path, sent: signal.Signals, code: int):
    options = ["tiny/vit", "--claims-dir", str(tiny_claims), "--against", "timm", "--seconds", "600"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitrepro", "bench", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(family) < 4 and time.monotonic() < deadline:  # two sides, and workers of a loader
        time.sleep(0.2)
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
    try:
        assert len(family) >= 4
        os.killpg(process.pid, sent)
        out, err = process.communicate(timeout=30)
    finally:
        for one in (psutil.Process(process.pid), *family) if process.poll() is None else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()  # or they would work on beside later tests
    assert process.returncode == code, err
    assert out == ""
    assert ("Interrupted. Nothing was stored." in err) == (sent == signal.SIGINT)
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
