"""One run from its images to its record: the grid of learning rates, and training from released weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from vitrepro import checkpoint, memory, runner
from vitrepro.data.augment import normalize
from vitrepro.data.prepare import Prepared, prepare
from vitrepro.errors import DataMissing, RunError
from vitrepro.plan import Run
from vitrepro.recipe import Recipe
from vitrepro.record import GridPoint, Record, TrainResult
from vitrepro.runner import OutOfMemory, SmallerBatch, Task, execute
from vitrepro.store import Store
from vitrepro.train import Stopped

torch.set_num_threads(1)

VIT = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.1}
RATES = [1e-3, 1e-2, 1e-1]
GRID = {"lr": None, "lr_grid": RATES, "optimizer": "sgd", "clip_norm": 1.0}
NAME = "test_vit.orig_in21k"
TIMMS = {"family": "timm", "name": "test_vit", "image_size": 32, "weights": NAME}


@pytest.fixture(scope="module")
def digits() -> Prepared:
    return prepare("digits", data_dir=None, cache_dir=Path(os.environ["VITREPRO_CACHE"]), offline=True)


def recipe(model: Any = VIT, dev_fraction: float = 0.1, **train: Any) -> Recipe:
    length = {"steps": 12, "batch_size": 16, "lr": 1e-2, "precision": "fp32", **train}
    data = {"name": "digits", "train_images": 100, "dev_fraction": dev_fraction}
    return Recipe.model_validate({"data": data, "model": model, "train": length})


def task(store: Path, data: Prepared, of: Recipe, **options: Any) -> Task:
    kept = Store(store)
    kept.prepare()
    return Task(Run("runs", "arm", 3, of), kept, data, "cpu", 1, {}, **options)


def done(of: Task, should_stop: Callable[[], bool] = lambda: False) -> TrainResult:
    execute(of, lambda _: None, should_stop)
    record = of.store.record(of.run.id)
    assert isinstance(record, Record)
    assert isinstance(record.result, TrainResult)
    return record.result


def outcome(of: Task, result: TrainResult) -> tuple[Any, ...]:
    """All of a result that does not depend on the clock, the memory, or on how often it was stopped."""
    timed = {"train_seconds", "eval_seconds", "resumed_at", "peak_memory_bytes"}
    return result.model_dump(exclude=timed), of.store.predictions(of.run.id).predicted.tolist()


# --- the grid of learning rates


@pytest.fixture(scope="module")
def uninterrupted(digits: Prepared, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, TrainResult]:
    of = task(tmp_path_factory.mktemp("whole"), digits, recipe(**GRID))
    return of, done(of)


def test_the_best_rate_of_the_dev_split_is_refit_on_all_training_images(
    uninterrupted: tuple[Task, TrainResult], digits: Prepared, tmp_path: Path
) -> None:
    _, found = uninterrupted
    assert [(p.lr, p.n) for p in found.lr_grid_dev] == [(lr, 10) for lr in RATES]
    best = max(p.correct for p in found.lr_grid_dev if p.correct is not None)
    assert found.lr == min(p.lr for p in found.lr_grid_dev if p.correct == best)
    assert found.lr != RATES[0]  # or any rate would have done
    alone = done(task(tmp_path, digits, recipe(dev_fraction=0.0, **{**GRID, "lr": found.lr, "lr_grid": None})))
    assert found.weights_sha256 == alone.weights_sha256
    assert found.train_sha256 == alone.train_sha256
    assert (found.train_images, found.dev_n, found.steps) == (100, None, 12)
    assert (alone.lr, alone.lr_grid_dev) == (found.lr, ())


def test_each_rate_is_judged_as_a_run_with_that_rate_alone_would_be(
    uninterrupted: tuple[Task, TrainResult], digits: Prepared, tmp_path: Path
) -> None:
    for point in uninterrupted[1].lr_grid_dev:
        alone = done(task(tmp_path, digits, recipe(**{**GRID, "lr": point.lr, "lr_grid": None})))
        assert (point.correct, point.n) == (alone.dev_correct, alone.dev_n)
        assert alone.train_images == 90


def test_the_test_split_is_opened_once_the_last_model_is_trained(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    load, train = np.load, runner.train

    def opened(file: Any, *args: Any, **options: Any) -> Any:
        seen.append(Path(getattr(file, "name", file)).name)
        return load(file, *args, **options)

    def trained(*args: Any, **options: Any) -> Any:
        seen.append("training")
        result = train(*args, **options)
        seen.append("trained")
        return result

    monkeypatch.setattr(np, "load", opened)
    monkeypatch.setattr(runner, "train", trained)
    execute(task(tmp_path, digits, recipe(**GRID)), lambda _: None, lambda: False)
    assert seen.count("trained") == 4
    after = seen[len(seen) - seen[::-1].index("trained") :]
    before = seen[: len(seen) - len(after)]
    assert after == ["test-labels.npy", "test-images.npy"]
    assert not any(file.startswith("test-") for file in before)
    assert "train-images.npy" in before


def test_progress_goes_on_through_every_stage(digits: Prepared, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    of = task(tmp_path, digits, recipe(**GRID))
    execute(of, rows.append, lambda: False)
    assert [row["step"] for row in rows] == list(range(1, 49))
    assert {row["steps"] for row in rows} == {48}
    assert [row["step"] for row in of.store.curve(of.run.id)] == list(range(1, 49))


@pytest.mark.parametrize("every", [1, 5, 11])
def test_a_run_stopped_again_and_again_ends_as_an_uninterrupted_one(
    uninterrupted: tuple[Task, TrainResult], digits: Prepared, tmp_path: Path, every: int
) -> None:
    of = task(tmp_path, digits, recipe(**GRID))
    stops = 0
    while stops < 100:
        calls = iter(range(1, 1000))
        try:
            found = done(of, lambda calls=calls: next(calls) >= every)  # type: ignore[misc]
            break
        except Stopped:
            stops += 1
    assert outcome(of, found) == outcome(*uninterrupted)
    assert stops == len(found.resumed_at)
    assert stops >= 4 if every < 11 else stops > 2
    assert list(found.resumed_at) == sorted(found.resumed_at)
    assert max(found.resumed_at) > 36  # in the last stage too
    assert not list(of.store.run_dir(of.run.id).glob("checkpoint-*"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_the_end_of_a_rate_repeats_no_finished_one(
    uninterrupted: tuple[Task, TrainResult],
    digits: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    of = task(tmp_path, digits, recipe(**GRID), checkpoint_seconds=0.0)
    save = checkpoint.save_grid

    def killed(folder: Path, results: Any) -> None:
        if len(results["points"]) == 2 and when == "before":
            raise Killed
        save(folder, results)
        if len(results["points"]) == 2:
            raise Killed

    monkeypatch.setattr(checkpoint, "save_grid", killed)
    with pytest.raises(Killed):
        done(of)
    monkeypatch.setattr(checkpoint, "save_grid", save)
    rows: list[dict[str, Any]] = []
    execute(of, rows.append, lambda: False)
    assert rows[0]["step"] == 25  # the second rate had taken its last step
    found = done(of)
    assert outcome(of, found) == outcome(*uninterrupted)


def test_a_damaged_list_of_finished_rates_is_named_and_made_again(
    uninterrupted: tuple[Task, TrainResult], digits: Prepared, tmp_path: Path
) -> None:
    of = task(tmp_path, digits, recipe(**GRID))
    calls = iter(range(1, 1000))
    with pytest.raises(Stopped):
        done(of, lambda: next(calls) >= 15)
    file = of.store.run_dir(of.run.id) / "checkpoint-grid.pt"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"checkpoint-grid\.pt: damaged"):
        found = done(of)
    assert outcome(of, found) == outcome(*uninterrupted)


def test_a_grid_begun_on_other_data_is_not_gone_on_with(digits: Prepared, tmp_path: Path) -> None:
    of = task(tmp_path, digits, recipe(**GRID))
    calls = iter(range(1, 1000))
    with pytest.raises(Stopped):
        done(of, lambda: next(calls) >= 15)
    for file in of.store.run_dir(of.run.id).glob("checkpoint-0*"):
        file.unlink()  # a run too short for a checkpoint of its second rate
    config = of.store.run_dir(of.run.id) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "data_sha256": "other"}))
    with pytest.raises(RunError, match="begun on other data"):
        done(of)


def test_a_rate_that_diverges_loses_and_the_others_go_on(digits: Prepared, tmp_path: Path) -> None:
    rates = {**GRID, "lr_grid": [1e30, 1e-2, 1e29], "clip_norm": None}
    found = done(task(tmp_path, digits, recipe(**rates)))
    assert [p.correct is None for p in found.lr_grid_dev] == [True, False, True]
    assert found.lr == 1e-2
    assert found.n == 797


def test_a_grid_that_diverges_everywhere_is_an_error(digits: Prepared, tmp_path: Path) -> None:
    rates = {**GRID, "lr_grid": [1e30, 1e29], "clip_norm": None}
    of = task(tmp_path, digits, recipe(**rates))
    with pytest.raises(RunError, match=r"diverged at every learning rate of the grid: 1e\+30, 1e\+29"):
        done(of)
    assert of.store.record(of.run.id) is None


@given(
    st.lists(st.tuples(st.sampled_from([1e-3, 3e-3, 1e-2, 3e-2]), st.none() | st.integers(0, 3)), min_size=1).filter(
        lambda points: any(correct is not None for _, correct in points)
    )
)
def test_of_equally_good_rates_the_smallest_wins(points: list[tuple[float, int | None]]) -> None:
    winner = runner._winner([GridPoint(lr=lr, correct=correct, n=3) for lr, correct in points])
    best = max(correct for _, correct in points if correct is not None)
    assert winner == min(lr for lr, correct in points if correct == best)


# --- released weights


def released(folder: Path, seed: int = 0) -> Path:
    """A small ViT of grey images at 48 pixels, as a file of the data folder."""
    torch.manual_seed(seed)
    model = timm.create_model("test_vit", img_size=48, in_chans=1, num_classes=5)
    path = folder / "weights" / f"{NAME}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    return path


def test_a_run_starts_from_the_released_weights_and_names_their_file_by_its_hash(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    path = released(tmp_path)
    started = []
    train = runner.train

    def seen(model: Any, *args: Any, **options: Any) -> Any:
        started.append({k: v.clone() for k, v in model.state_dict().items()})
        return train(model, *args, **options)

    monkeypatch.setattr(runner, "train", seen)
    result = done(task(tmp_path / "store", digits, recipe(TIMMS, **GRID), data_dir=tmp_path))
    assert result.initial_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(started) == 4
    from safetensors.torch import load_file

    file = load_file(path)
    for state in started:
        assert all(torch.equal(v, file[k]) for k, v in state.items() if k.startswith("blocks."))
        assert not state["head.weight"].any()
        assert state["pos_embed"].shape == (1, 5, 64)


def test_other_weights_give_another_result_and_new_ones_have_no_hash(digits: Prepared, tmp_path: Path) -> None:
    results = []
    for seed in (0, 1):
        released(tmp_path / str(seed), seed)
        of = task(tmp_path / f"store{seed}", digits, recipe(TIMMS), data_dir=tmp_path / str(seed))
        results.append(done(of))
    assert results[0].initial_sha256 != results[1].initial_sha256
    assert results[0].weights_sha256 != results[1].weights_sha256
    fresh = done(task(tmp_path / "store", digits, recipe({**TIMMS, "weights": None})))
    assert fresh.initial_sha256 is None


def test_where_the_head_alone_is_trained_the_rest_ends_as_it_was_released(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    file = load_file(released(tmp_path))
    ended = []
    train = runner.train

    def seen(model: Any, *args: Any, **options: Any) -> Any:
        trained = train(model, *args, **options)
        ended.append({k: v.clone() for k, v in model.state_dict().items()})
        return trained

    monkeypatch.setattr(runner, "train", seen)
    done(task(tmp_path / "store", digits, recipe(TIMMS, trainable="head"), data_dir=tmp_path))
    (state,) = ended
    assert all(torch.equal(v, file[k]) for k, v in state.items() if k.startswith(("blocks.", "norm.", "patch_embed.")))
    assert state["head.weight"].any()


def test_a_run_from_released_weights_resumes_to_the_same_ones(digits: Prepared, tmp_path: Path) -> None:
    released(tmp_path)
    whole = task(tmp_path / "whole", digits, recipe(TIMMS), data_dir=tmp_path)
    parts = task(tmp_path / "parts", digits, recipe(TIMMS), data_dir=tmp_path)
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        done(parts, lambda: next(calls) >= 5)
    assert outcome(parts, done(parts)) == outcome(whole, done(whole))


def test_a_run_begun_from_other_weights_is_not_gone_on_with(digits: Prepared, tmp_path: Path) -> None:
    released(tmp_path)
    of = task(tmp_path / "store", digits, recipe(TIMMS), data_dir=tmp_path)
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        done(of, lambda: next(calls) >= 5)
    released(tmp_path, seed=1)
    with pytest.raises(RunError, match=f"begun from other weights than .*{NAME}.safetensors holds now"):
        done(of)
    with pytest.raises(RunError, match="begun from other weights"):  # a refusal changes nothing
        done(of)
    released(tmp_path)
    assert done(of).resumed_at == (5,)


def test_a_run_without_its_weights_says_where_it_looked_and_trains_nothing(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    of = task(tmp_path / "store", digits, recipe(TIMMS), data_dir=tmp_path)
    with pytest.raises(DataMissing, match=str(tmp_path / "weights" / NAME)):
        done(of)
    assert not list(of.store.run_dir(of.run.id).glob("*.jsonl"))


EXPERIMENT = """
id: tuned
type: train
title: fine-tuning on digits
base:
  data: {name: digits, train_images: 100, dev_fraction: 0.1}
  model: {family: vit, patch_size: 16, embed_dim: 64, depth: 6, num_heads: 2, mlp_dim: 192, image_size: 32}
  train: {steps: 4, batch_size: 16, lr_grid: [1e-3, 1e-2], optimizer: sgd, precision: fp32}
factors:
  model:
    tuned: {model: {weights: test_vit.orig_in21k}}
    new: {}
    absent: {model: {weights: test_vit.absent}}
seeds: [0]
"""
CLAIMS = """
claims:
  - id: tiny/tuned
    source: {paper: none, where: tests}
    kind: ordering
    statement: Released weights help.
    scales:
      quick: {experiment: tuned, fidelity: proxy, deviations: [tiny], expect: {all: [{greater: tuned, than: new}]}}
  - id: tiny/absent
    source: {paper: none, where: tests}
    kind: ordering
    statement: Absent weights help.
    scales:
      quick: {experiment: tuned, fidelity: proxy, deviations: [tiny], expect: {all: [{greater: absent, than: new}]}}
"""


def test_the_command_fine_tunes_what_is_there_and_calls_infeasible_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "claims" / "experiments").mkdir(parents=True)
    (tmp_path / "claims" / "claims.yaml").write_text(CLAIMS)
    (tmp_path / "claims" / "experiments" / "tuned.yaml").write_text(EXPERIMENT)
    released(tmp_path)
    command = [
        sys.executable,
        "-m",
        "vitrepro",
        "verify",
        "tiny/*",
        "--scale",
        "quick",
        "--devices",
        "cpu:1",
        "--json",
        "--allow-inconclusive",
    ]
    places = ["--claims-dir", str(tmp_path / "claims"), "--store", str(tmp_path / "store")]
    found = {"VITREPRO_DATA": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([*command, *places], capture_output=True, text=True, timeout=200, env={**os.environ, **found})
    assert ran.returncode in (1, 3), ran.stderr  # random weights help or hinder, as it happens
    verdicts = {v["claim_id"]: v for v in json.loads(ran.stdout)["verdicts"]}
    assert verdicts["tiny/tuned"]["outcome"] in ("FAIL", "INCONCLUSIVE", "PASS"), verdicts["tiny/tuned"]
    assert verdicts["tiny/absent"]["outcome"] == "INFEASIBLE"
    assert "vitrepro weights fetch test_vit.absent" in verdicts["tiny/absent"]["reason"]
    store = Store(tmp_path / "store")
    records = [store.record(run_id) for run_id in store.run_ids()]
    by_arm: dict[str, Any] = {r.arm: r.result for r in records if r is not None}
    assert by_arm.keys() == {"tuned", "new"}
    assert by_arm["tuned"].initial_sha256
    assert by_arm["new"].initial_sha256 is None
    assert len(by_arm["tuned"].lr_grid_dev) == 2


# --- memory that does not hold the batch, simulated


def small_memory(
    monkeypatch: pytest.MonkeyPatch, holds: int, says: str = "CUDA out of memory", kind: type | None = None
) -> None:
    """From here on models are built that raise when they train on more than so many images at a time."""
    build = runner.build

    def check(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if module.training and len(inputs[0]) > holds:
            raise (kind or torch.OutOfMemoryError)(says)

    def built(*arguments: Any, **named: Any) -> nn.Module:
        model = build(*arguments, **named)
        model.register_forward_pre_hook(check)
        return model

    monkeypatch.setattr(runner, "build", built)


def until_done(of: Task) -> tuple[TrainResult, list[str]]:
    """The run, executed again and again as fresh processes do, and what it said of its memory in between."""
    said = []
    while len(said) < 10:
        try:
            return done(of), said
        except SmallerBatch as error:
            said.append(str(error))
    raise AssertionError(said)


def losses(of: Task) -> list[float]:
    return [row["loss"] for row in of.store.curve(of.run.id)]


def test_out_of_memory_gives_the_run_that_the_smaller_micro_batch_gives_by_hand(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = task(tmp_path / "a", digits, recipe(micro_batch=2))
    expected = done(by_hand)
    small_memory(monkeypatch, holds=3)
    of = task(tmp_path / "b", digits, recipe())
    found, said = until_done(of)
    assert [words.split("; ")[0] for words in said] == [f"out of memory with {n} images at a time" for n in (16, 8, 4)]
    assert (found.micro_batch, found.effective_batch, found.did_not_fit) == (2, 16, (16, 8, 4))
    assert losses(of) == losses(by_hand)
    assert found.weights_sha256 == expected.weights_sha256
    assert not list(of.store.run_dir(of.run.id).glob("checkpoint-*"))


def test_a_batch_that_no_division_makes_small_enough_is_an_error(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, holds=0)
    with pytest.raises(OutOfMemory, match="one image at a time"):
        until_done(task(tmp_path, digits, recipe()))


def test_batch_norm_is_not_given_smaller_batches_behind_the_back_of_the_recipe(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, holds=8)
    resnet = {"family": "resnet", "layers": [1], "block": "basic", "width": 8, "stem": "small"}
    with pytest.raises(OutOfMemory, match=r"--set train\.micro_batch=8, a deviation") as raised:
        execute(task(tmp_path, digits, recipe(resnet)), lambda _: None, lambda: False)
    assert not isinstance(raised.value, SmallerBatch)


def test_images_are_classified_in_batches_that_the_engine_chose(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    answer = runner.accuracy.answers

    def watched(*arguments: Any, **options: Any) -> Any:
        sizes.append(options["batch_size"])
        return answer(*arguments, **options)

    monkeypatch.setattr(runner.accuracy, "answers", watched)
    outcomes = []
    for cache in (memory.CACHE_BYTES, 1):
        monkeypatch.setattr(memory, "CACHE_BYTES", cache)
        of = task(tmp_path / str(cache), digits, recipe(VIT))
        outcomes.append((done(of).correct, of.store.predictions(of.run.id).predicted.tolist()))
    assert sizes == [256, 256, 8, 8]  # the dev and the test split
    assert outcomes[0] == outcomes[1]


# --- attention across the batch

ACROSS = {
    **VIT,
    "depth": 2,
    "attention": "batch",
    "pool": "first",
    "norm": "post",
    "activation": "relu",
    "init": "torch",
    "embed_init": "unit",
    "layer_norm_eps": 1e-5,
    "dropout": 0.0,
}


def test_a_batch_across_which_attention_goes_is_not_made_smaller_behind_the_back_of_the_recipe(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, holds=8)
    with pytest.raises(OutOfMemory, match=r"its attention goes.*--set train\.batch_size=8, a deviation") as raised:
        execute(task(tmp_path, digits, recipe(ACROSS)), lambda _: None, lambda: False)
    assert not isinstance(raised.value, SmallerBatch)


def test_a_run_whose_attention_goes_across_the_batch_is_not_shared_by_processes(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "rank_and_world", lambda: (0, 2))
    with pytest.raises(RunError, match="run it in one process, without torchrun"):
        execute(task(tmp_path, digits, recipe(ACROSS)), lambda _: None, lambda: False)


@pytest.mark.parametrize("batch_size", [16, 64])
@torch.no_grad()
def test_across_the_batch_images_are_evaluated_as_torchs_layers_would_in_batches_of_the_training(
    batch_size: int, digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[tuple[Any, torch.Tensor]] = []
    answer = runner.accuracy.answers

    def watched(model: nn.Module, images: torch.Tensor, augment: Any, **options: Any) -> Any:
        evaluated.append((model, normalize(images, augment, options["image_size"])))
        return answer(model, images, augment, **options)

    monkeypatch.setattr(runner.accuracy, "answers", watched)
    with torch.enable_grad():
        of = task(tmp_path, digits, recipe(ACROSS, dev_fraction=0.0, batch_size=batch_size))
        found = done(of)
    assert "depends" in found.choices["predictions"]
    ((model, images),) = evaluated
    layer = nn.TransformerEncoderLayer(16, 2, 64, dropout=0.0)  # not batch_first
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for theirs, ours in zip(encoder.layers, model.blocks, strict=True):
        pairs = {
            theirs.self_attn.in_proj_weight: ours.attn.qkv.weight,
            theirs.self_attn.in_proj_bias: ours.attn.qkv.bias,
            theirs.self_attn.out_proj.weight: ours.attn.proj.weight,
            theirs.self_attn.out_proj.bias: ours.attn.proj.bias,
            theirs.linear1.weight: ours.mlp.fc1.weight,
            theirs.linear1.bias: ours.mlp.fc1.bias,
            theirs.linear2.weight: ours.mlp.fc2.weight,
            theirs.linear2.bias: ours.mlp.fc2.bias,
            theirs.norm1.weight: ours.norm1.weight,
            theirs.norm1.bias: ours.norm1.bias,
            theirs.norm2.weight: ours.norm2.weight,
            theirs.norm2.bias: ours.norm2.bias,
        }
        for parameter, value in pairs.items():
            parameter.copy_(value)

    def answers(images_at_once: int) -> list[int]:
        said: list[int] = []
        for batch in images.split(images_at_once):
            tokens = encoder(model.patch_embed(batch) + model.pos_embed.table)
            said += model.head(model.norm(tokens)[:, 0]).argmax(1).tolist()
        return said

    predicted = of.store.predictions(of.run.id).predicted.tolist()
    assert predicted == answers(batch_size)
    assert predicted != answers(256)
    assert len(set(predicted)) > 2


@pytest.mark.parametrize(
    ("says", "kind", "again"),
    [
        ("CUDA error: an illegal memory access was encountered", RuntimeError, False),
        ("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory", RuntimeError, True),
        ("", MemoryError, True),
        ("size mismatch", RuntimeError, False),
    ],
)
def test_only_a_lack_of_memory_makes_batches_smaller(
    says: str, kind: type, again: bool, digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 8, says, kind)
    with pytest.raises(SmallerBatch if again else kind):
        execute(task(tmp_path, digits, recipe()), lambda _: None, lambda: False)


# --- epochs


LOOKED = {"steps": None, "epochs": 3, "evaluate_epochs": ["dev", "test"], "lr": 1e-1, "optimizer": "sgd"}


def with_measures(of: Recipe, *names: str) -> Recipe:
    return Recipe.model_validate({**of.model_dump(), "measures": names})


@pytest.mark.parametrize("keep", ["last", "best-on-dev", "best-on-test"])
def test_the_epoch_that_is_kept_is_the_one_that_is_tested_and_hashed(
    digits: Prepared, tmp_path: Path, keep: str
) -> None:
    of = task(tmp_path, digits, recipe(**{**LOOKED, "keep": keep, "lr": 3e-1}))
    found = done(of)
    assert [(p.epoch, p.steps, p.dev_n, p.test_n) for p in found.epochs] == [
        (1, 6, 10, 797),
        (2, 11, 10, 797),
        (3, 17, 10, 797),
    ]
    assert found.test_looks == 4
    right = {"last": [0, 0, 1]} | {
        f"best-on-{s}": [getattr(p, f"{s}_correct") for p in found.epochs] for s in ("dev", "test")
    }
    kept = right[keep].index(max(right[keep]))
    assert found.kept_epoch == (None if keep == "last" else kept + 1)
    assert (found.correct, found.dev_correct) == (found.epochs[kept].test_correct, found.epochs[kept].dev_correct)
    assert found.every_measure["test_top1_epoch_2"] == pytest.approx(100 * (found.epochs[1].test_correct or 0) / 797)
    shorter = done(task(tmp_path / "shorter", digits, recipe(**{**LOOKED, "lr": 3e-1, "epochs": 3})))
    assert (shorter.weights_sha256 == found.weights_sha256) == (kept == 2)


def test_looking_at_epochs_changes_nothing_else(digits: Prepared, tmp_path: Path) -> None:
    looked = done(task(tmp_path / "a", digits, recipe(**LOOKED)))
    plain = done(task(tmp_path / "b", digits, recipe(**{**LOOKED, "evaluate_epochs": []})))
    assert plain.weights_sha256 == looked.weights_sha256
    assert [p.train_loss for p in plain.epochs] == [p.train_loss for p in looked.epochs]
    assert (plain.test_looks, plain.epochs[0].test_n, plain.kept_epoch) == (1, None, None)


@pytest.mark.parametrize("every", [1, 4, 7])
def test_a_run_that_keeps_its_best_epoch_is_resumed_exactly(digits: Prepared, tmp_path: Path, every: int) -> None:
    chosen = with_measures(recipe(**{**LOOKED, "keep": "best-on-dev"}), "gradient_norm_spread", "overconfidence")
    whole = task(tmp_path / "whole", digits, chosen)
    expected = outcome(whole, done(whole))
    of = task(tmp_path / "parts", digits, chosen)
    for _ in range(100):
        calls = iter(range(1, 1000))
        try:
            found = done(of, lambda calls=calls: next(calls) >= every)  # type: ignore[misc]
            break
        except Stopped:
            continue
    assert len(found.resumed_at) >= 2
    assert outcome(of, found) == expected


def test_confidence_is_over_the_whole_test_split(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    answers = runner.accuracy.answers

    def noted(*args: Any, **options: Any) -> Any:
        said.append(answers(*args, **options))
        return said[-1]

    monkeypatch.setattr(runner.accuracy, "answers", noted)
    of = with_measures(recipe(), "confidence", "overconfidence", "gradient_norm_spread")
    found = done(task(tmp_path, digits, of))
    sure = 100 * said[-1].confidence.mean()
    assert len(said[-1].confidence) == found.n == 797
    assert found.measures["confidence"] == pytest.approx(sure)
    assert found.measures["overconfidence"] == pytest.approx(sure - 100 * found.correct / 797)
    assert 0 < found.measures["gradient_norm_spread"] < 5


def test_accuracy_on_training_images_is_that_of_the_kept_weights_without_augmentation(
    digits: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes: list[str] = []
    answers = runner.accuracy.answers

    def noted(model: nn.Module, images: torch.Tensor, *args: Any, **options: Any) -> Any:
        hashes.append(checkpoint.weights_sha256(model.state_dict()))
        shown.append(images)
        said.append(answers(model, images, *args, **options))
        return said[-1]

    shown: list[torch.Tensor] = []
    said: list[Any] = []
    monkeypatch.setattr(runner.accuracy, "answers", noted)
    of = recipe(**{**LOOKED, "keep": "best-on-dev", "lr": 3e-1, "clip_norm": 1.0})
    of = of.model_copy(update={"augment": of.augment.model_copy(update={"flip": True, "crop_padding": 2})})
    run = task(tmp_path, digits, with_measures(of, "train_top1", "clipped_share"))
    found = done(run)
    assert hashes[-1] == found.weights_sha256
    split = runner.load_split(digits, of.data, "train", run.run.seed)
    assert torch.equal(shown[-1], torch.from_numpy(np.array(split.images)).permute(0, 3, 1, 2))
    assert found.measures["train_top1"] == pytest.approx(100 * np.mean(said[-1].predicted == split.labels))
    assert 0 <= found.measures["clipped_share"] <= 100


def test_a_record_without_what_later_versions_hold_is_read(digits: Prepared, tmp_path: Path) -> None:
    of = task(tmp_path, digits, recipe())
    done(of)
    path = of.store.run_dir(of.run.id) / "record.json"
    values = json.loads(path.read_text())
    for key in ("epochs", "kept_epoch"):
        del values["result"][key]
    path.write_text(json.dumps(values))
    read = of.store.record(of.run.id)
    assert read is not None
    assert isinstance(read.result, TrainResult)
    assert (read.result.epochs, read.result.kept_epoch, read.result.every_measure) == ((), None, {})


# --- dropout that stays on


def test_evaluation_with_dropout_is_of_the_seed_and_leaves_the_training_as_it_is(
    digits: Prepared, tmp_path: Path
) -> None:
    dropped = {**VIT, "attention_dropout": 0.5}
    of = recipe({**dropped, "attention_dropout_in_evaluation": True}, steps=None, epochs=3, evaluate_epochs=["dev"])
    first, second = (task(tmp_path / name, digits, of) for name in ("a", "b"))
    again = task(tmp_path / "c", digits, of)
    result = done(first)
    torch.rand(7)
    assert outcome(first, result) == outcome(second, done(second))
    with pytest.raises(Stopped):
        done(again, should_stop=lambda: True)
    assert outcome(first, result) == outcome(again, done(again))
    usual = task(tmp_path / "d", digits, recipe(dropped, steps=None, epochs=3, evaluate_epochs=["dev"]))
    assert done(usual).weights_sha256 == result.weights_sha256
    predictions = (t.store.predictions(t.run.id).predicted for t in (first, usual))
    assert not np.array_equal(*predictions)
