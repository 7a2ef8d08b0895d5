"""Do one run: load its images, train, evaluate, store. Executed in a process of its own by `launch`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from vitrepro import checkpoint, provenance
from vitrepro.arrays import Ints
from vitrepro.data.prepare import Prepared
from vitrepro.data.splits import Split, load_split
from vitrepro.distributed import device_name
from vitrepro.errors import RunError
from vitrepro.measure import accuracy, analytic
from vitrepro.models.build import build
from vitrepro.plan import Run
from vitrepro.randomness import derive
from vitrepro.recipe import Recipe
from vitrepro.record import AnalyticResult, Predictions, Record, TrainResult
from vitrepro.spec import AnalyticArm
from vitrepro.store import Store, explain
from vitrepro.train import Stopped, train

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """A run and what it needs; travels to another process.

    Attributes:
        data: the decoded data set; None for an analytic run.
        claims: claim id: its hash now, of the claims that asked for the run.
        threads: CPU threads this run may use.
        fresh: set a stored result aside and make it anew.
    """

    run: Run
    store: Store
    data: Prepared | None
    device: str
    threads: int
    claims: Mapping[str, str]
    checkpoint_seconds: float = 30.0
    fresh: bool = False


def execute(task: Task, report: Report, should_stop: Callable[[], bool]) -> None:
    """Finish one run, or go on with it where a killed process left it; a finished run is left alone.

    Args:
        report: told of progress, as {"step", "steps", "loss"}.

    Raises:
        RunError: the run cannot be finished (diverged, out of memory).
        Stopped: `should_stop` said so; a checkpoint is written.
        StoreError: the store is full or cannot be written.
    """
    run, store = task.run, task.store
    torch.set_num_threads(task.threads)
    folder = store.run_dir(run.id)
    with _alone(store, run.id, should_stop):
        if task.fresh:
            store.archive(run.id)
        if (folder / "record.json").exists():
            return
        started, began = datetime.now(timezone.utc), time.monotonic()
        environment = provenance.environment(task.device, device_name(task.device), task.threads)
        with explain(folder):
            folder.mkdir(parents=True, exist_ok=True)
        store.sweep(run.id)
        store.clear_error(run.id)
        values = run.config.model_dump(mode="json")
        data = task.data.sha256 if task.data else None
        if store.begun_on(run.id) not in (None, data):
            raise RunError("it was begun on other data than is there now; use --fresh, or the data it was begun on")
        store.write_config(run.id, {"run": run.name, "seed": run.seed, "config": values, "data_sha256": data})
        if isinstance(run.config, AnalyticArm):
            result: TrainResult | AnalyticResult = _count(run.config)
            predictions = None
        else:
            assert task.data is not None
            result, predictions = _train_and_test(task, run.config, task.data, report, should_stop)
        record = Record(
            run_id=run.id,
            type=run.type,
            experiment=run.experiment,
            arm=run.arm,
            seed=run.seed,
            config=values,
            config_hash=run.config_hash,
            claims=dict(task.claims),
            deviations=run.deviations,
            result=result,
            environment=environment,
            started_at=started.isoformat(timespec="seconds"),
            wall_seconds=time.monotonic() - began,
        )
        store.finish(record, predictions)


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
    )
    return AnalyticResult(quantities=values)


def _train_and_test(
    task: Task, recipe: Recipe, data: Prepared, report: Report, should_stop: Callable[[], bool]
) -> tuple[TrainResult, Predictions]:
    run, device = task.run, task.device
    precision = recipe.train.precision
    assert precision != "auto"  # the planner resolves it, since it is part of the run's identity
    if precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False  # convolutions in the same arithmetic as matrix products
    torch.manual_seed(derive(run.seed, "weights"))
    model = build(
        recipe.model,
        image_size=recipe.image_size,
        channels=recipe.channels,
        num_classes=recipe.data.num_classes,
    ).to(device)
    model = model.to(memory_format=torch.channels_last)  # faster convolutions; nothing else changes

    split = load_split(data, recipe.data, "train", run.seed)
    folder = task.store.run_dir(run.id)
    with (folder / "metrics.jsonl").open("a") as curve:

        def log(row: dict[str, float]) -> None:
            with explain(folder):
                curve.write(json.dumps(row) + "\n")
                curve.flush()
            report(row)

        trained = train(
            model,
            on_device(split, device),
            torch.from_numpy(split.labels).to(device),
            recipe,
            seed=run.seed,
            device=device,
            precision=precision,
            folder=folder,
            log=log,
            should_stop=should_stop,
            checkpoint_seconds=task.checkpoint_seconds,
        )

    weights = model.state_dict()
    broken = next((k for k, v in weights.items() if not torch.isfinite(v).all()), None)
    if broken:
        raise RunError(f"{broken} is not finite after the last step; the run has diverged")

    began = time.monotonic()

    def predict(images: Split) -> Ints:
        return accuracy.predict(
            model,
            on_device(images, device),
            recipe.augment,
            image_size=recipe.image_size,
            device=device,
            precision=precision,
        )

    dev_correct, dev_n = None, None
    if recipe.data.dev_fraction:
        dev = load_split(data, recipe.data, "dev", run.seed)
        dev_correct, dev_n = int((predict(dev) == dev.labels).sum()), len(dev.labels)
    test = load_split(data, recipe.data, "test", run.seed)
    predictions = Predictions(test.ids, predict(test), test.labels)
    result = TrainResult(
        n=len(test.ids),
        correct=int(predictions.correct.sum()),
        complete_n=test.complete_size,
        num_classes=recipe.data.num_classes,
        ids_sha256=_ids_sha256(test.ids),
        train_sha256=split.sha256,
        test_sha256=test.sha256,
        data_sha256=data.sha256,
        weights_sha256=checkpoint.weights_sha256(weights),
        parameters=sum(p.numel() for p in model.parameters()),
        train_images=len(split.ids),
        steps=trained.steps,
        skipped_steps=trained.skipped_steps,
        effective_batch=recipe.train.batch_size,
        micro_batch=recipe.train.micro_batch or recipe.train.batch_size,
        precision=precision,
        final_loss=trained.final_loss,
        dev_correct=dev_correct,
        dev_n=dev_n,
        train_seconds=trained.seconds,
        eval_seconds=time.monotonic() - began,
        resumed_at=trained.resumed_at,
        data_changes=data.changes,
    )
    return result, predictions


def on_device(split: Split, device: str) -> Tensor:
    """All images of a split as uint8, (N, C, H, W), where they are used."""
    images = torch.from_numpy(np.array(split.images))  # a copy: the mapped file is read-only
    return images.to(device).permute(0, 3, 1, 2)


def _ids_sha256(ids: Ints) -> str:
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
