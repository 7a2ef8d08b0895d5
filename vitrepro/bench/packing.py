"""Whole small runs: packed over all slots as `verify` does it, against one process with all threads.

Nothing else is compared here: both sides execute the same tasks by the same function, `runner.execute`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vitrepro import launch, provenance, session
from vitrepro.bench.child import Child
from vitrepro.bench.results import Result, Side, Turn
from vitrepro.bench.workloads import Workload
from vitrepro.data.prepare import Prepared, prepare
from vitrepro.errors import RunError, UsageError
from vitrepro.plan import Run
from vitrepro.recipe import Arithmetic
from vitrepro.runner import Task, execute
from vitrepro.store import Store


class OneProcess:
    """The side that does one run after another, with all threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def whole_runs(self, tasks: Sequence[Task]) -> float:
        """Seconds for all of them."""
        began = time.perf_counter()
        for task in tasks:
            execute(replace(task, threads=self.threads), lambda _: None, lambda: False)
        return time.perf_counter() - began


def measure(
    name: str,
    workload: Workload,
    *,
    devices: Sequence[str],
    slots_named: bool,
    precision: Arithmetic,
    pairs: int,
    cache_dir: Path,
    advance: Callable[[str], None],
) -> Result:
    """Pairs of turns, after one of each that does not count.

    Raises:
        UsageError: the device has room for one run at a time only.
        RunError: a run failed.
        Interrupted: a signal came.
    """
    assert workload.runs is not None
    recipe = workload.recipe.model_copy(
        update={"train": workload.recipe.train.model_copy(update={"precision": precision})}
    )
    data = prepare(recipe.data.name, data_dir=None, cache_dir=cache_dir, offline=True)
    runs = [Run("bench", name, seed, recipe) for seed in range(workload.runs)]
    images = workload.runs * recipe.steps * recipe.train.batch_size
    turns: dict[str, list[Turn]] = {"vitrepro": [], "one process": []}
    request = session.Request(devices=tuple(devices), slots_named=slots_named)
    launch.warm_up()
    parameters = 0
    with (
        tempfile.TemporaryDirectory(prefix="vitrepro-bench-") as folder,
        Child("one process", provenance.cores()) as other,
    ):
        for pair in range(pairs + 1):
            order = list(turns) if pair % 2 else list(reversed(turns))
            for side in order:
                store = Store(Path(folder) / f"{side.replace(' ', '-')}-{pair}")
                store.prepare()
                tasks = {run.id: _task(run, store, data, devices[0]) for run in runs}
                if side == "vitrepro":
                    groups = session.arrange(runs, store, request)
                    if len(groups) > 1 or len(groups[0].places) < 2:
                        raise UsageError(f"{name}: there is one slot only, nothing to pack")
                    seconds = _packed(list(tasks.values()), groups[0].places)
                    parameters = _parameters(store, runs[0])
                else:
                    seconds = other.ask("whole_runs", list(tasks.values()))
                if pair:
                    turns[side].append(Turn(images, seconds))
                advance(f"{name}: {side}")
    return Result(
        workload=name,
        title=workload.title,
        phase="whole runs",
        sides={side: Side(tuple(taken)) for side, taken in turns.items()},
        batch_size=recipe.train.batch_size,
        image_size=recipe.image_size,
        precision=precision,
        parameters=parameters,
    )


def _task(run: Run, store: Store, data: Prepared, device: str) -> Task:
    return Task(run=run, store=store, data=data, device=device, threads=1, claims={})


def _packed(tasks: Sequence[Task], places: Sequence[launch.Slot]) -> float:
    failed: list[str] = []

    def note(event: launch.Event) -> None:
        if event.kind == "failed":
            failed.append(event.message)

    began = time.perf_counter()
    launch.run_all(tasks, places, note)
    seconds = time.perf_counter() - began
    if failed:
        raise RunError(f"a run failed: {failed[0]}")
    return seconds


def _parameters(store: Store, run: Run) -> int:
    record = store.record(run.id)
    assert record is not None
    return record.result.parameters  # type: ignore[union-attr]
