"""Do one run: load its images, train, evaluate, store. `launch` executes it, in a process that may have done others."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from vitrepro import checkpoint, engine, memory, provenance, weights
from vitrepro.arrays import Ints
from vitrepro.data import stream
from vitrepro.data.augment import normalize
from vitrepro.data.prepare import Prepared
from vitrepro.data.splits import Split, load_split
from vitrepro.data.stream import Images
from vitrepro.distributed import device_name, from_first, rank_and_world, reseed
from vitrepro.errors import RunError
from vitrepro.measure import accuracy, analytic, training
from vitrepro.measure.accuracy import Answers
from vitrepro.measure.trained import MEASURES, measure
from vitrepro.models.build import build
from vitrepro.models.vit import Attention
from vitrepro.plan import Run
from vitrepro.randomness import derive
from vitrepro.recipe import Recipe, ViTSpec, check_grid
from vitrepro.record import AnalyticResult, GridPoint, Predictions, Record, TrainResult
from vitrepro.spec import AnalyticArm
from vitrepro.store import Store, explain
from vitrepro.train import Diverged, Stopped, Trained, train
from vitrepro.weights import Weights

Report = Callable[[dict[str, Any]], None]
MEASURED_IMAGES = 128  # as many as Figure 11 averages over


@dataclass(frozen=True)
class Task:
    """A run and what it needs; travels to another process.

    Attributes:
        data: the decoded data set; None for an analytic run.
        claims: claim id: its hash now, of the claims that asked for the run.
        threads: CPU threads this run may use.
        fresh: set a stored result aside and make it anew.
        data_dir: folder that may hold released weights.
    """

    run: Run
    store: Store
    data: Prepared | None
    device: str
    threads: int
    claims: Mapping[str, str]
    checkpoint_seconds: float = 30.0
    fresh: bool = False
    data_dir: Path | None = None


def execute(task: Task, report: Report, should_stop: Callable[[], bool]) -> None:
    """Finish one run, or go on with it where a killed process left it; a finished run is left alone.

    Processes that share the run all call this; the first of them reads and writes the store.

    Args:
        report: told of progress, as {"step", "steps", "loss"}.

    Raises:
        RunError: the run cannot be finished (diverged, out of memory).
        SmallerBatch: out of memory; a fresh process can go on, with smaller micro-batches.
        Stopped: `should_stop` said so; a checkpoint is written.
        StoreError: the store is full or cannot be written.
    """
    run, store = task.run, task.store
    torch.set_num_threads(task.threads)
    with contextlib.ExitStack() as held:
        if from_first(lambda: _nothing_to_do(task, held, should_stop)):
            return
        started, began = datetime.now(timezone.utc), time.monotonic()
        environment = provenance.environment(task.device, device_name(task.device), task.threads)
        initial = _initial_weights(task)
        from_first(lambda: _begin(task, initial))
        if isinstance(run.config, AnalyticArm):
            result: TrainResult | AnalyticResult = _count(run.config)
            predictions = None
        else:
            assert task.data is not None
            result, predictions = _train_and_test(task, run.config, task.data, initial, report, should_stop)
        record = Record(
            run_id=run.id,
            type=run.type,
            experiment=run.experiment,
            arm=run.arm,
            seed=run.seed,
            config=run.config.model_dump(mode="json"),
            config_hash=run.config_hash,
            claims=dict(task.claims),
            deviations=run.deviations,
            result=result,
            environment=environment,
            started_at=started.isoformat(timespec="seconds"),
            wall_seconds=time.monotonic() - began,
        )
        from_first(lambda: store.finish(record, predictions))


def clear() -> None:
    """Leave nothing of a finished run to the next one of this process but what the libraries have loaded."""
    if torch.cuda.is_initialized():
        torch.compiler.reset()  # a model compiled for another run
    gc.collect()
    memory.give_back()


def _nothing_to_do(task: Task, held: contextlib.ExitStack, should_stop: Callable[[], bool]) -> bool:
    """Take the run's lock, which `held` gives back, and say whether the run is finished."""
    run_id, store = task.run.id, task.store
    held.enter_context(_alone(store, run_id, should_stop))
    if task.fresh:
        store.archive(run_id)
    return (store.run_dir(run_id) / "record.json").exists()


def _begin(task: Task, initial: Weights | None) -> None:
    """Make the run's folder ready and write down what the run is.

    Raises:
        RunError: it was begun on other data or from other weights.
    """
    run, store = task.run, task.store
    folder = store.run_dir(run.id)
    with explain(folder):
        folder.mkdir(parents=True, exist_ok=True)
    store.sweep(run.id)
    store.clear_error(run.id)
    data = task.data.sha256 if task.data else None
    if store.begun_on(run.id) not in (None, data):
        raise RunError("it was begun on other data than is there now; use --fresh, or the data it was begun on")
    _check_begun_from(folder, initial)
    begun = {
        "data_sha256": data,
        "initial_sha256": initial.sha256 if initial else None,
        "threads": task.threads,
    }
    values = run.config.model_dump(mode="json")
    store.write_config(run.id, {"run": run.name, "seed": run.seed, "config": values, **begun})


@contextlib.contextmanager
def _alone(store: Store, run_id: str, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Hold the run's lock: of two commands that want the same run, one works and the other waits for it."""
    lock = FileLock(store.lock_path(run_id))
    while True:
        try:
            with explain(store.root):
                lock.acquire(timeout=0.5)
            break
        except Timeout:
            if should_stop():
                raise Stopped("stopped while another process did the run") from None
    try:
        yield
    finally:
        lock.release()


def _count(arm: AnalyticArm) -> AnalyticResult:
    values = analytic.quantities(
        arm.model,
        arm.quantities,
        image_size=arm.image_size,
        channels=arm.channels,
        num_classes=arm.num_classes,
        images=arm.images,
        evaluated_images=arm.evaluated_images,
        peak_tflops=arm.peak_tflops,
        batch_size=arm.batch_size,
        compare_size=arm.compare_size,
        baseline=arm.baseline,
    )
    return AnalyticResult(quantities=values)


def _initial_weights(task: Task) -> Weights | None:
    """The released weights that the run starts from, if it does.

    Raises:
        DataMissing, DataError: they are not here, or cannot be read.
    """
    name = task.run.config.weights if isinstance(task.run.config, Recipe) else None
    if name is None:
        return None
    named = os.environ.get("VITREPRO_DATA")
    return weights.read(weights.locate(name, task.data_dir or (Path(named) if named else None)))


def _check_begun_from(folder: Path, initial: Weights | None) -> None:
    """Refuse to go on from other weights than an unfinished run began with."""
    if initial is None or not any(folder.glob("checkpoint-*.pt")):
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        before = json.loads((folder / "config.json").read_bytes()).get("initial_sha256")
        if before not in (None, initial.sha256):
            raise RunError(
                f"it was begun from other weights than {initial.path} holds now; use --fresh, or the earlier file"
            )


def _train_and_test(
    task: Task,
    recipe: Recipe,
    data: Prepared,
    initial: Weights | None,
    report: Report,
    should_stop: Callable[[], bool],
) -> tuple[TrainResult, Predictions]:
    """Choose the learning rate where there is a grid, train, and look at the test split once."""
    run, device, folder = task.run, task.device, task.store.run_dir(task.run.id)
    precision = recipe.train.precision
    assert precision != "auto"  # the planner resolves it, since it is part of the run's identity
    choices = engine.choose(recipe, device, precision)
    engine.settle(choices, precision)
    rank, processes = rank_and_world()
    engine.check_processes(recipe, processes)
    too_large = checkpoint.did_not_fit(folder)
    share = recipe.train.batch_size // processes
    micro_batch = memory.smaller_batch(share, too_large[-1]) if too_large else None
    memory.restart_peak(device)

    total_steps = float(recipe.total_steps)
    counted = {
        name: (on_device(split, device), split.labels)
        for name in recipe.train.evaluate_epochs
        for split in [load_split(data, recipe.data, name, run.seed)]
    }

    def count(model: nn.Module) -> dict[str, int]:
        """Right answers and images of the splits that are looked at after every epoch."""
        found = {}
        for name, (images, labels) in counted.items():
            found[f"{name}_correct"] = int((predict(model, images) == labels).sum())
            found[f"{name}_n"] = len(labels)
        return found

    def fit(of: Recipe, images: Images, labels: Tensor, stage: int, steps_before: int) -> tuple[nn.Module, Trained]:
        """A model trained by a recipe with a single learning rate, as one stage of the run."""
        torch.manual_seed(derive(run.seed, "weights"))
        model = build(of.model, image_size=of.image_size, channels=of.channels, num_classes=of.data.num_classes)
        if initial is not None:
            weights.load(model, initial)
        if of.train.trainable == "head":
            weights.train_head_alone(model)
        model = engine.configure(model.to(device), choices)
        if processes > 1:
            model = engine.share_statistics(model, of.train.batch_norm, device)
        with (folder / "metrics.jsonl" if rank == 0 else Path(os.devnull)).open("a") as curve:

            def log(row: dict[str, float]) -> None:
                row |= {"step": steps_before + row["step"], "steps": total_steps}
                with explain(folder):
                    curve.write(json.dumps(row) + "\n")
                    curve.flush()
                report(row)

            try:
                with images:
                    trained = train(
                        model,
                        images,
                        labels,
                        of,
                        seed=run.seed,
                        device=device,
                        precision=precision,
                        folder=folder,
                        engine=choices,
                        micro_batch=micro_batch,
                        log=log,
                        should_stop=should_stop,
                        checkpoint_seconds=task.checkpoint_seconds,
                        stage=stage,
                        count=count,
                    )
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                used = min(micro_batch or of.train.micro_batch or share, share)
                raise _did_not_fit(folder, model, share, used, too_large) from error
        broken = next((k for k, v in model.state_dict().items() if not torch.isfinite(v).all()), None)
        if broken:
            raise Diverged(f"{broken} is not finite after the last step; the run has diverged")
        return model, trained

    def predict(model: nn.Module, images: Tensor) -> Ints:
        return answer(model, images).predicted

    def answer(model: nn.Module, images: Tensor) -> Answers:
        reseed(device, derive(run.seed, "evaluation", rank))  # of dropout that stays on
        return accuracy.answers(
            engine.for_evaluation(model, choices),
            images,
            recipe.augment,
            image_size=recipe.image_size,
            device=device,
            precision=precision,
            batch_size=choices.eval_batch,
        )

    grid, final = _Grid(), recipe
    if recipe.train.lr_grid is not None:
        grid = _search(recipe, data, run.seed, device, folder, fit, predict)
        final = recipe.refit(_winner(grid.points))
    split = load_split(data, final.data, "train", run.seed)
    labels = torch.from_numpy(split.labels).to(device)
    model, trained = fit(final, _images(split, device), labels, len(grid.points), grid.steps)

    began = time.monotonic()
    dev_correct, dev_n = None, None
    if final.data.dev_fraction:
        dev = load_split(data, final.data, "dev", run.seed)
        dev_correct, dev_n = int((predict(model, on_device(dev, device)) == dev.labels).sum()), len(dev.labels)
    test = load_split(data, recipe.data, "test", run.seed)
    test_images = on_device(test, device)
    answers = answer(model, test_images)
    predictions = Predictions(test.ids, answers.predicted, test.labels)
    went = training.Subject(trained.gradient_norms, answers.confidence, predictions.correct)
    if finite := trained.steps - trained.skipped_steps:
        went = replace(went, clipped=trained.clipped_steps / finite)
    if "train_top1" in recipe.measures:
        went = replace(went, train_correct=predict(model, on_device(split, "cpu")) == split.labels)  # copied by batch
    result = TrainResult(
        n=len(test.ids),
        correct=int(predictions.correct.sum()),
        complete_n=test.complete_size,
        num_classes=recipe.data.num_classes,
        ids_sha256=_ids_sha256(test.ids),
        train_sha256=split.sha256,
        test_sha256=test.sha256,
        data_sha256=data.sha256,
        weights_sha256=checkpoint.weights_sha256(model.state_dict()),
        parameters=sum(p.numel() for p in model.parameters()),
        train_images=len(split.ids),
        steps=trained.steps,
        skipped_steps=trained.skipped_steps,
        effective_batch=recipe.train.batch_size,
        micro_batch=trained.micro_batch,
        precision=precision,
        final_loss=trained.final_loss,
        dev_correct=dev_correct,
        dev_n=dev_n,
        train_seconds=grid.train_seconds + trained.seconds,
        eval_seconds=grid.eval_seconds + trained.eval_seconds + time.monotonic() - began,
        resumed_at=(*grid.resumed_at, *(grid.steps + step for step in trained.resumed_at)),
        initial_sha256=initial.sha256 if initial else None,
        lr=final.train.lr,
        lr_grid_dev=grid.points,
        data_changes=data.changes,
        measures=_measures(engine.configure(model, None), recipe, test_images[:MEASURED_IMAGES])
        | training.measure(went, recipe.measures),
        processes=processes,
        did_not_fit=too_large,
        choices=choices.told | _found(trained) | {"allocator": provenance.allocator()},
        peak_memory_bytes=memory.peak_bytes(device),
        epochs=trained.epochs,
        kept_epoch=trained.kept_epoch,
        test_looks=1 + sum(point.test_n is not None for point in trained.epochs),
    )
    return result, predictions


def _found(trained: Trained) -> dict[str, str]:
    """What training came to decide of the choices that were open."""
    found = {}
    if trained.compiled_at is not None:
        took = "" if trained.compile_seconds is None else f", which took {trained.compile_seconds:.0f} s"
        found["compilation"] = f"from step {trained.compiled_at} on{took}"
    if trained.not_recorded is not None:
        found["launches"] = f"each kernel by itself, since recording failed: {trained.not_recorded}"
    return found


class OutOfMemory(RunError):
    """The device's memory does not hold the run, as it is."""


class SmallerBatch(OutOfMemory):
    """Out of memory; the smaller micro-batch is noted, and a fresh process goes on with it."""


def _out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may help; a device that has seen an illegal access is lost, whatever it says."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error)  # how torch's allocator for the CPU puts it


def _did_not_fit(folder: Path, model: nn.Module, share: int, used: int, too_large: tuple[int, ...]) -> OutOfMemory:
    """What to raise after `used` images at a time, of a process's share of the batch, ran out of memory."""
    smaller = memory.smaller_batch(share, used)
    if smaller is None:
        return OutOfMemory("out of memory with one image at a time; use a device with more memory or a smaller model")
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return OutOfMemory(
            f"out of memory with {used} images at a time, over which its batch norm takes statistics: fewer would be "
            f"another experiment. Use a device with more memory, or --set train.micro_batch={smaller}, a deviation"
        )
    if any(isinstance(module, Attention) and module.across_batch for module in model.modules()):
        return OutOfMemory(
            f"out of memory with {used} images at a time, across which its attention goes: fewer would be another "
            f"experiment. Use a device with more memory, or --set train.batch_size={smaller}, a deviation"
        )
    checkpoint.save_did_not_fit(folder, (*too_large, used))
    return SmallerBatch(f"out of memory with {used} images at a time; goes on with {smaller}, accumulating gradients")


def _measures(model: nn.Module, recipe: Recipe, images: Tensor) -> dict[str, float]:
    """The recipe's measures of a trained ViT, on the first test images; uint8, (N, C, H, W)."""
    names = [name for name in recipe.measures if name in MEASURES]
    if not names:
        return {}
    assert isinstance(recipe.model, ViTSpec)
    size, grid = recipe.image_size, check_grid(recipe.model, recipe.image_size)
    shown = normalize(images, recipe.augment, size)
    return measure(model, shown, names, patch_size=size // grid, grid=grid)


@dataclass(frozen=True)
class _Grid:
    """What the learning rates tried so far came to.

    Attributes:
        steps: of all of them together, as planned.
        resumed_at: steps, counted over all of them, at which a killed run went on.
    """

    points: tuple[GridPoint, ...] = ()
    steps: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    resumed_at: tuple[int, ...] = ()


def _search(
    recipe: Recipe,
    data: Prepared,
    seed: int,
    device: str,
    folder: Path,
    fit: Callable[[Recipe, Images, Tensor, int, int], tuple[nn.Module, Trained]],
    predict: Callable[[nn.Module, Tensor], Ints],
) -> _Grid:
    """Try every learning rate of the grid on the training images without the dev split, and count on that.

    Rates that a killed process has finished are not tried again. The test split stays closed.
    """
    assert recipe.train.lr_grid is not None
    grid = _Grid()
    kept = checkpoint.load_grid(folder)
    if kept is not None:
        grid = _Grid(tuple(GridPoint(**point) for point in kept.pop("points")), **kept)
    rates = recipe.train.lr_grid[len(grid.points) :]
    if not rates:
        return grid
    train_split = load_split(data, recipe.data, "train", seed)
    images, labels = _images(train_split, device), torch.from_numpy(train_split.labels).to(device)
    dev_split = load_split(data, recipe.data, "dev", seed)
    dev_images = on_device(dev_split, device)
    for lr in rates:
        of = recipe.at_rate(lr)
        began = time.monotonic()
        correct, resumed_at = None, grid.resumed_at
        train_seconds, eval_seconds = 0.0, 0.0
        try:
            model, trained = fit(of, images, labels, len(grid.points), grid.steps)
        except Diverged:  # this rate loses, the others go on
            train_seconds = time.monotonic() - began
        else:
            began, train_seconds = time.monotonic(), trained.seconds
            correct = int((predict(model, dev_images) == dev_split.labels).sum())
            eval_seconds = time.monotonic() - began
            resumed_at = (*resumed_at, *(grid.steps + step for step in trained.resumed_at))
        grid = _Grid(
            points=(*grid.points, GridPoint(lr=lr, correct=correct, n=len(dev_split.labels))),
            steps=grid.steps + of.steps,
            train_seconds=grid.train_seconds + train_seconds,
            eval_seconds=grid.eval_seconds + eval_seconds,
            resumed_at=resumed_at,
        )
        results = {**vars(grid), "points": [point.model_dump() for point in grid.points]}
        from_first(partial(checkpoint.save_grid, folder, results))
    return grid


def _winner(points: Sequence[GridPoint]) -> float:
    """The learning rate with the most correct dev images; the smallest of several.

    Raises:
        RunError: all of them diverged.
    """
    finished = [(point.correct, -point.lr) for point in points if point.correct is not None]
    if not finished:
        raise RunError(
            f"training diverged at every learning rate of the grid: {', '.join(f'{p.lr:g}' for p in points)}"
        )
    return -max(finished)[1]


def _images(split: Split, device: str) -> Images:
    """Images to train on: on the device where they leave room there, else read ahead of the steps."""
    return stream.choose(split.images, device, memory.free_bytes(device))


def on_device(split: Split, device: str) -> Tensor:
    """All images of a split as uint8, (N, C, H, W), where they are used."""
    images = torch.from_numpy(np.array(split.images))  # a copy: the mapped file is read-only
    return images.to(device).permute(0, 3, 1, 2)


def _ids_sha256(ids: Ints) -> str:
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
