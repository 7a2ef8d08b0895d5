"""Whole small runs: packed over all slots as `verify` does it, against one process with all threads.

Both of these sides execute the same tasks by the same function, `launch.run_all`. Others do fewer runs of the same
recipe one after another in one process, with all threads and their loaders' workers.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vitrepro import launch, provenance, session
from vitrepro.bench.child import OURS, Child
from vitrepro.bench.results import Result, Side, Turn
from vitrepro.bench.setup import Setup
from vitrepro.bench.workloads import Workload
from vitrepro.data.prepare import Prepared, prepare
from vitrepro.errors import RunError, UsageError
from vitrepro.models.build import build
from vitrepro.plan import Run
from vitrepro.recipe import Arithmetic, Recipe
from vitrepro.runner import Task
from vitrepro.store import Store

ONE_PROCESS = "one process"
RUNS_FOR_ONE = 4  # of ours for each of others', whose turns would take minutes; what counts is images a second


def measure(
    name: str,
    workload: Workload,
    against: Sequence[str],
    *,
    devices: Sequence[str],
    slots_named: bool,
    precision: Arithmetic,
    workers: int,
    pairs: int,
    cache_dir: Path,
    advance: Callable[[str], None],
) -> Result:
    """Pairs of turns, after one of each that does not count.

    Args:
        against: others who do runs of the recipe, too.
        workers: of each of their loaders.

    Raises:
        UsageError: the device has room for one run at a time only.
        RunError: a run failed, or others' models have other parameters.
        Interrupted: a signal came.
    """
    assert workload.runs is not None
    recipe = workload.recipe.model_copy(
        update={"train": workload.recipe.train.model_copy(update={"precision": precision})}
    )
    data = prepare(recipe.data.name, data_dir=None, cache_dir=cache_dir, offline=True)
    runs = [Run("bench", name, seed, recipe) for seed in range(workload.runs)]
    images = recipe.steps * recipe.train.batch_size  # of one run
    request = session.Request(devices=tuple(devices), slots_named=slots_named)
    setup = Setup(recipe, devices[0], precision, provenance.cores(), workers)
    parameters = _parameters(recipe)
    launch.warm_up()
    one_process = launch.slots(devices[:1], 1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitrepro-bench-")))
        rivals = {side: stack.enter_context(Child(f"{side}, whole runs", setup)) for side in against}
        for side, child in rivals.items():
            if (theirs := child.ask("parameters")) != parameters:
                raise RunError(f"{name}: not the same model: {parameters} parameters, of {side} {theirs}")

        def turn(side: str) -> Turn:
            if side in rivals:
                few = math.ceil(len(runs) / RUNS_FOR_ONE)
                return Turn(few * images, rivals[side].ask("whole_runs", few))
            store = Store(Path(tempfile.mkdtemp(dir=folder)))
            store.prepare()
            tasks = [_task(run, store, data, devices[0]) for run in runs]
            if side == ONE_PROCESS:
                return Turn(len(runs) * images, _done(tasks, one_process))
            groups = session.arrange(runs, store, request)
            if len(groups) > 1 or len(groups[0].places) < 2:
                raise UsageError(f"{name}: there is one slot only, nothing to pack")
            return Turn(len(runs) * images, _done(tasks, groups[0].places))

        turns: dict[str, list[Turn]] = {side: [] for side in (OURS, ONE_PROCESS, *against)}
        for pair in range(pairs + 1):
            for side in list(turns) if pair % 2 else reversed(list(turns)):
                taken = turn(side)
                if pair:
                    turns[side].append(taken)
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


def _done(tasks: Sequence[Task], places: Sequence[launch.Slot]) -> float:
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


def _parameters(recipe: Recipe) -> int:
    model = build(
        recipe.model, image_size=recipe.image_size, channels=recipe.channels, num_classes=recipe.data.num_classes
    )
    return sum(p.numel() for p in model.parameters())
