"""What happens while runs are at work: a bar with an estimate on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vitrepro.cost import images
from vitrepro.launch import Event
from vitrepro.plan import Run

LINE_SECONDS = 20.0  # between plain lines of a run that is at work


def _bar(console: Console, live: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not live,
    )


class StepProgress:
    """Shows how far a long computation has come; use as a context manager."""

    def __init__(self, name: str, total: int, console: Console, quiet: bool = False) -> None:
        self.name, self.total, self.done, self.quiet = name, total, 0, quiet
        self.live = console.is_terminal and not quiet
        self.progress = _bar(console, self.live)
        self.said = time.monotonic()

    def __enter__(self) -> StepProgress:
        self.progress.start()
        self.task = self.progress.add_task(self.name, total=self.total, note="")
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def advance(self, steps: int, note: str) -> None:
        self.done += steps
        self.progress.update(self.task, advance=steps, note=note)
        if not self.live and not self.quiet and time.monotonic() - self.said > LINE_SECONDS:
            self.said = time.monotonic()
            text = f"{self.name}: {100 * self.done / self.total:.0f}%, {note}"
            self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


class RunProgress:
    """Shows the events of `launch.run_all`; use as a context manager."""

    def __init__(self, runs: Mapping[str, Run], console: Console, quiet: bool = False) -> None:
        self.runs = runs
        self.console = console
        self.quiet = quiet
        self.live = console.is_terminal and not quiet
        self.work = {run_id: max(1, sum(images(run))) for run_id, run in runs.items()}
        self.share = dict.fromkeys(runs, 0.0)
        self.finished = 0
        self.said: dict[str, float] = {}
        self.bars: dict[int, TaskID] = {}
        self.progress = _bar(console, self.live)

    def __enter__(self) -> RunProgress:
        self.progress.start()
        self.all = self.progress.add_task("all runs", total=sum(self.work.values()), note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        run = self.runs[event.run_id]
        if event.kind == "started":
            self.said[event.run_id] = time.monotonic()
            self.bars[event.slot] = self.progress.add_task(run.name, total=1.0, note="")
        elif event.kind == "progress":
            share = event.detail["step"] / event.detail["steps"]
            self._advance(event.run_id, share)
            note = f"loss {event.detail['loss']:.3f}"
            self.progress.update(self.bars[event.slot], completed=share, note=note)
            if not self.live and time.monotonic() - self.said[event.run_id] > LINE_SECONDS:
                self.said[event.run_id] = time.monotonic()
                self._line(f"{run.name}: step {event.detail['step']:.0f} of {event.detail['steps']:.0f}, {note}")
        else:
            if event.slot in self.bars:
                self.progress.remove_task(self.bars.pop(event.slot))
            if event.kind == "done":
                self.finished += 1
                self._advance(event.run_id, 1.0)
            words = {
                "done": f"done ({self.finished} of {len(self.runs)})",
                "failed": f"FAILED: {event.message}",
                "again": event.message,
                "stopped": "stopped, resumable",
                "skipped": f"not started: {event.message}",
            }
            self._line(f"{run.name}: {words[event.kind]}")

    def _advance(self, run_id: str, share: float) -> None:
        self.progress.advance(self.all, (share - self.share[run_id]) * self.work[run_id])
        self.share[run_id] = share

    def _line(self, text: str) -> None:
        if not self.quiet:
            self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)
