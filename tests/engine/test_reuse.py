"""A process that has finished a run does the slot's next one, and nothing of the first is seen in the second."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_resume import VIT, digits, outcome, record, task  # noqa: F401

from vitrepro import launch
from vitrepro.data.prepare import Prepared
from vitrepro.launch import Event, Slot
from vitrepro.recipe import Recipe
from vitrepro.runner import Task

RESNET = {"family": "resnet", "layers": [1, 1], "block": "basic", "width": 8, "stem": "small"}
ONE = (Slot("cpu", 1),)


def of(store: Path, data: Prepared, model: dict[str, Any] = VIT, seed: int = 3, **train: Any) -> Task:
    made = task(store, data, **train)
    recipe = made.run.config.model_dump() | {"model": model}  # type: ignore[union-attr]
    return replace(made, run=replace(made.run, config=Recipe.model_validate(recipe), seed=seed))


class Watch:
    """Which process each run is in, and how it ends."""

    def __init__(self, then: Callable[[Event], None] = lambda _: None) -> None:
        self.processes: list[int] = []
        self.ends: list[str] = []
        self.then = then

    def __call__(self, event: Event) -> None:
        if event.kind == "started":
            self.processes.append(0)
        elif event.kind == "progress":
            (self.processes[-1],) = at_work()
        else:
            self.ends.append(event.kind)
        self.then(event)


def at_work() -> list[int]:
    """Processes of runs: not the server that they are forked from, nor what watches it."""
    return [p.pid for p in psutil.Process().children(recursive=True) if p.ppid() != os.getpid()]


def test_runs_of_a_slot_share_a_process_and_are_as_if_each_had_its_own(
    digits: Prepared,  # noqa: F811
    tmp_path: Path,
) -> None:
    kinds: list[dict[str, Any]] = [
        {"precision": "bf16"},
        {},
        {"model": RESNET, "optimizer": "sgd", "lr": 0.05},
        {"seed": 4},
    ]
    together = [of(tmp_path / "together", digits, **kind) for kind in kinds]
    launch.run_all(together, ONE, watch := Watch())
    assert watch.ends == ["done"] * 4
    assert len(set(watch.processes)) == 1
    assert at_work() == []
    for kind, mine in zip(kinds, together, strict=True):
        alone = of(tmp_path / "alone", digits, **kind)
        launch.run_all([alone], ONE, lambda _: None)
        assert outcome(mine) == outcome(alone)
        kept = {name: value for name, value in record(alone).result.model_dump().items() if "seconds" not in name}
        kept.pop("peak_memory_bytes")
        assert record(mine).result.model_dump().items() >= kept.items()


@pytest.mark.parametrize(
    ("first", "end"),
    [
        ({"lr": 1e30, "optimizer": "sgd", "clip_norm": None}, "failed"),
        ({"deterministic": True}, "done"),  # what CUDA's libraries read once
    ],
)
def test_a_run_that_failed_or_needs_other_settings_leaves_its_process_to_nobody(
    first: dict[str, Any],
    end: str,
    digits: Prepared,  # noqa: F811
    tmp_path: Path,
) -> None:
    tasks = [of(tmp_path, digits, **first), of(tmp_path, digits), of(tmp_path, digits, seed=5)]
    launch.run_all(tasks, ONE, watch := Watch())
    assert watch.ends == [end, "done", "done"]
    assert watch.processes[0] != watch.processes[1] == watch.processes[2]
    assert not psutil.pid_exists(watch.processes[0])


def test_a_process_that_dies_between_two_runs_is_replaced(
    digits: Prepared,  # noqa: F811
    tmp_path: Path,
) -> None:
    def kill_it(event: Event) -> None:
        if event.kind == "done":
            for pid in at_work():
                psutil.Process(pid).kill()
                psutil.Process(pid).wait()

    launch.run_all([of(tmp_path, digits), of(tmp_path, digits, seed=5)], ONE, watch := Watch(kill_it))
    assert watch.ends == ["done", "done"]
    assert len(set(watch.processes)) == 2


def test_a_run_is_not_stopped_by_what_its_process_was_told_before(
    digits: Prepared,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The first run is over its time at its last step, and done before it hears of it; where its end is read together
    with that step, as on a busy machine, nobody tells it, and the next try is looked at."""
    for again in range(5):
        tasks = [of(tmp_path / str(again), digits), of(tmp_path / str(again), digits, seed=5)]
        told: list[str] = []

        def overdue(at: Task, share: float, _: float, told: list[str] = told, first: str = tasks[0].run.id) -> bool:
            told.extend([at.run.id] * (at.run.id == first and share == 1.0))
            return bool(told) and at.run.id == first

        launch.run_all(tasks, ONE, watch := Watch(), overdue=overdue)
        assert watch.ends == ["done", "done"]
        if told:
            assert len(set(watch.processes)) == 2
            return
    pytest.skip("the first run's end was read together with its last step in every try")


def test_any_number_of_signals_at_once_stop_a_run_as_one_does(
    digits: Prepared,  # noqa: F811
    tmp_path: Path,
) -> None:
    """A handler that takes a lock would wait for itself when the next signal comes in the middle of it."""
    mine = of(tmp_path, digits, steps=2000)
    sent: list[int] = []

    def shower(event: Event) -> None:
        if event.kind == "progress" and not sent:
            (pid,) = sent[:] = at_work()
            for _ in range(3000):
                os.kill(pid, signal.SIGTERM)

    began = time.monotonic()
    launch.run_all([mine], ONE, watch := Watch(shower))
    assert watch.ends == ["stopped"]
    assert time.monotonic() - began < launch.GRACE_SECONDS / 3
    assert mine.store.state(mine.run.id) == "interrupted"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux only")
def test_the_memory_of_a_run_is_not_that_of_the_run_before(
    digits: Prepared,  # noqa: F811
    tmp_path: Path,
) -> None:
    wide = VIT | {"embed_dim": 384, "mlp_dim": 8192}
    tasks = [of(tmp_path, digits, seed=1), of(tmp_path, digits, wide, steps=2), of(tmp_path, digits, seed=2)]
    launch.run_all(tasks, ONE, watch := Watch())
    assert len(set(watch.processes)) == 1
    before, large, after = (record(t).result.peak_memory_bytes for t in tasks)  # type: ignore[union-attr]
    assert large > before + 150e6
    assert after < before + 60e6
