"""A side of a benchmark in a process of its own, told over a pipe to have a turn.

It leads a session of its own, so that a Ctrl-C reaches only the command, which then ends the side together with its
loader's workers; and it ends by itself when the command is gone.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from vitrepro.errors import RunError, UsageError, VitreproError
from vitrepro.provenance import ALLOCATOR

# a side's name: its module, its class, and what the class is told beside the setup
SIDES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "vitrepro": ("vitrepro.bench.ours", "Ours", ()),
    "timm": ("vitrepro.bench.rivals", "Rival", ("timm",)),
    "plain": ("vitrepro.bench.rivals", "Rival", ("plain",)),
    "timm, whole runs": ("vitrepro.bench.rivals", "Runs", ("timm",)),
    "plain, whole runs": ("vitrepro.bench.rivals", "Runs", ("plain",)),
}
OURS = "vitrepro"  # the side that is started as runs are


class Child:
    """A side at work elsewhere; use as a context manager.

    Starting does not wait: several sides load their libraries at once, and the first `ask` waits for them.
    """

    def __init__(self, name: str, setup: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(name, setup, theirs), name=f"vitrepro bench {name}")
        with _environment(ours=name == OURS):
            self.process.start()
        theirs.close()
        self.built = False

    def ask(self, what: str, *arguments: Any) -> Any:
        """What a method of the side returns, or the value of an attribute.

        Raises:
            UsageError, RunError: it cannot do that, or its process is gone.
        """
        try:
            if not self.built:
                self._answer()
                self.built = True
            self.ours.send((what, arguments))
            return self._answer()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            raise RunError(f"the process of {self.name} {how}{hint}") from None

    def _answer(self) -> Any:
        kind, value = self.ours.recv()
        if kind == "usage":
            raise UsageError(f"{self.name}: {value}")
        if kind == "failed":
            raise RunError(f"{self.name}: {value}")
        return value

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and its workers; nothing of it is kept."""
        self.ours.close()
        _kill_group(self.process.pid)
        self.process.kill()
        self.process.join()
        self.process.close()


@contextlib.contextmanager
def _environment(*, ours: bool) -> Iterator[None]:
    """What a process reads when it starts: the memory allocator's settings, as `launch` gives them to runs, or not."""
    before = {name: os.environ.get(name) for name in ALLOCATOR}
    for name, value in ALLOCATOR.items():
        if ours:
            os.environ.setdefault(name, value)
        elif before[name] == value:  # from starting runs earlier in this process
            del os.environ[name]
    try:
        yield
    finally:
        for name, was in before.items():
            os.environ.pop(name, None)
            if was is not None:
                os.environ[name] = was


def _kill_group(leader: int | None) -> None:
    if leader is None or not hasattr(os, "killpg"):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(leader) == leader:  # not before it leads a group, or we would be in it
            os.killpg(leader, signal.SIGKILL)


def _serve(name: str, setup: Any, pipe: Connection) -> None:
    """A side's process, from its first line to its end."""
    if hasattr(os, "setsid"):
        os.setsid()
    multiprocessing.set_start_method(None, force=True)  # loaders start their workers as they would in a script
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, made, told = SIDES[name]
    side: Any = None

    def answer(work: Callable[[], Any]) -> bool:
        try:
            pipe.send(("done", work()))
        except UsageError as error:
            pipe.send(("usage", str(error)))
        except (VitreproError, MemoryError) as error:
            pipe.send(("failed", str(error) or "out of memory"))
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":
                pipe.send(("failed", "out of memory on the GPU; use --batch with fewer images"))
            else:
                pipe.send(("failed", f"{type(error).__name__}: {_brief(error)}"))
        else:
            return True
        return False

    def build() -> None:
        nonlocal side
        side = getattr(importlib.import_module(module), made)(setup, *told)

    with contextlib.suppress(EOFError, OSError):  # nobody listens any more
        if answer(build):
            while True:
                what, arguments = pipe.recv()
                asked = getattr(side, what)
                answer(lambda asked=asked, given=arguments: asked(*given) if callable(asked) else asked)  # type: ignore[misc]


def _brief(error: Exception) -> str:
    """Its first line, and where in the code it arose."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{(str(error).splitlines() or [''])[0]} ({os.path.basename(last.filename)}:{last.lineno})"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _kill_group(os.getpid())
        os._exit(1)
