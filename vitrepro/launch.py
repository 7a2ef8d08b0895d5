"""Runs in processes of their own, on every slot at once.

A slot is a CUDA device, or one share of the CPU's cores. Each run gets a fresh process, so that a crash
or a leak takes one run down and the others finish. Processes are forked from a server that has torch
loaded already (or spawned where that is not possible), and end by themselves when the command that
started them is gone, however it went.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Literal

from vitrepro import provenance
from vitrepro.errors import VitreproError

if TYPE_CHECKING:
    from vitrepro.runner import Task

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 60.0  # to finish a step and write a checkpoint after SIGTERM


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time."""

    device: str
    threads: int


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Attributes:
        kind: `started`; `progress`, with step, steps and loss in `detail`; then one of `done`, `failed`
            (with `message`), `stopped` (resumable) or `skipped` (never started: over the budget).
    """

    kind: Literal["started", "progress", "done", "failed", "stopped", "skipped"]
    run_id: str
    slot: int = -1
    message: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


class Interrupted(Exception):
    """SIGINT or SIGTERM ended the work; everything finished so far is stored."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def slots(devices: Sequence[str]) -> tuple[Slot, ...]:
    """One slot per device; the cores are shared out among them and never promised twice."""
    threads = max(1, provenance.cores() // len(devices))
    return tuple(Slot(device, threads) for device in devices)


def warm_up() -> None:
    """Start the server that forks the runs' processes, so that it loads torch while this process still plans."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        _context()
        with _held_back():
            forkserver.ensure_running()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Signals wait, here and in what is started here, until the runs' processes have their handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_all(
    tasks: Sequence[Task],
    places: Sequence[Slot],
    on_event: Callable[[Event], None],
    *,
    fits: Callable[[Task], bool] = lambda _: True,
    overdue: Callable[[Task, float, float], bool] = lambda *_: False,
) -> None:
    """Execute the tasks, as many at a time as there are slots, in their order.

    Args:
        tasks: their device and threads are replaced by those of the slot that takes them.
        fits: asked before a task starts; one that does not fit the budget is skipped.
        overdue: asked while it runs, with its share done and seconds so far; True stops it, resumable.

    Raises:
        Interrupted: after a signal, once every process has written its checkpoint and ended. A second
            signal ends them at once.
    """
    context = _context()
    waiting, active = list(tasks), dict[int, _Active]()
    with signals_noted() as received:
        try:
            while (waiting or active) and not received:
                for number, place in enumerate(places):
                    while waiting and number not in active:
                        task = waiting.pop(0)
                        if not fits(task):
                            on_event(Event("skipped", task.run.id, message="does not fit the budget"))
                            continue
                        active[number] = _Active.start(context, task, place)
                        on_event(Event("started", task.run.id, number))
                _listen(active, on_event, timeout=0.5)
                for worker in active.values():
                    if not worker.asked_to_stop and overdue(worker.task, worker.share, worker.seconds):
                        worker.ask_to_stop()
            if received:
                _wind_down(active, on_event, received)
        finally:
            for worker in active.values():
                worker.process.kill()
    if received:
        raise Interrupted(received[0])


@dataclass
class _Active:
    """A process at work in a slot."""

    task: Task
    process: BaseProcess
    messages: Connection
    started: float
    share: float = 0.0
    ended: Event | None = None
    silent: bool = False  # it has closed its end of the pipe
    asked_to_stop: bool = False

    @staticmethod
    def start(context: Any, task: Task, place: Slot) -> _Active:
        placed = replace(task, device=place.device, threads=place.threads)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(placed, theirs), name=f"vitrepro {task.run.name}")
        with _held_back():
            process.start()
        theirs.close()
        return _Active(task, process, ours, time.monotonic())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def ask_to_stop(self) -> None:
        self.asked_to_stop = True
        if self.process.pid and self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)


def _listen(active: dict[int, _Active], on_event: Callable[[Event], None], timeout: float) -> None:
    """Pass messages on, and notice processes that ended, with or without a word."""
    by_handle: dict[Any, int] = {}
    for number, worker in active.items():
        if not worker.silent:
            by_handle[worker.messages] = number
        by_handle[worker.process.sentinel] = number
    ready = wait(list(by_handle), timeout)
    for number in {by_handle[handle] for handle in ready}:
        worker = active[number]
        run_id = worker.task.run.id
        ended = not worker.process.is_alive()  # looked at before the pipe is emptied
        try:
            while worker.messages.poll():
                kind, message, detail = worker.messages.recv()
                if kind == "progress":
                    worker.share = detail["step"] / detail["steps"]
                    on_event(Event("progress", run_id, number, detail=detail))
                else:
                    worker.ended = Event(kind, run_id, number, message)
        except (EOFError, OSError):
            worker.silent = True
        if ended:
            worker.process.join()
            worker.messages.close()
            event = worker.ended or _silent_end(worker, number)
            del active[number]
            if event.kind == "failed":
                with contextlib.suppress(VitreproError):
                    worker.task.store.write_error(run_id, event.message)
            on_event(event)


def _silent_end(worker: _Active, number: int) -> Event:
    """A process that ended without a word: killed from outside, by the memory guard, or a crash in native code."""
    code = worker.process.exitcode or 0
    if code == -signal.SIGTERM and worker.asked_to_stop:
        return Event("stopped", worker.task.run.id, number)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return Event("failed", worker.task.run.id, number, f"its process {how}{hint}")


def _wind_down(active: dict[int, _Active], on_event: Callable[[Event], None], received: list[int]) -> None:
    """Let every process finish its step and write a checkpoint; a second signal does not wait for that."""
    deadline = time.monotonic() + GRACE_SECONDS
    while active and len(received) < 2 and time.monotonic() < deadline:
        for worker in active.values():
            worker.ask_to_stop()  # again: a process that just starts is deaf to the first
        _listen(active, on_event, timeout=0.2)
    for worker in active.values():
        worker.process.kill()
    for number, worker in list(active.items()):
        worker.process.join()
        on_event(Event("stopped", worker.task.run.id, number))
        del active[number]


@contextlib.contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Signals that ask us to end, noted instead of raised; outside the main thread there are none."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {n: signal.signal(n, lambda number, _: received.append(number)) for n in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vitrepro.forkserver", "vitrepro.__main__", "vitrepro.runner"])
    return context


def _work(task: Task, messages: Connection) -> None:
    """A run's process, from its first line to its exit."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # they were held back until here
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from vitrepro.runner import execute
    from vitrepro.train import Stopped

    def say(kind: str, message: str = "", detail: dict[str, Any] | None = None) -> None:
        with contextlib.suppress(OSError):
            messages.send((kind, message, detail or {}))

    try:
        execute(task, lambda row: say("progress", detail=row), stop.is_set)
    except Stopped:
        say("stopped")
    except (VitreproError, MemoryError) as error:
        say("failed", str(error) or "out of memory")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            say("failed", f"out of memory on {task.device}: {str(error).splitlines()[0]}")
        else:
            traceback.print_exc(file=sys.stderr)
            say("failed", f"{type(error).__name__}: {error}")
    else:
        say("done")
    messages.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody is left to report to; the last checkpoint stays
