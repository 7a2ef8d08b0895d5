"""A run that was killed, stopped, or finds its checkpoints damaged ends as one that was left alone."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from test_launch import CLAIM, command, family, finished, gone, results, start, wait_for

from vitrepro import checkpoint, launch
from vitrepro.data.prepare import Prepared, prepare
from vitrepro.plan import Run
from vitrepro.provenance import cores
from vitrepro.recipe import Recipe
from vitrepro.record import Record
from vitrepro.runner import Task, execute
from vitrepro.store import Store
from vitrepro.train import Stopped

torch.set_num_threads(1)

STEPS = 40  # fewer than 200 are logged one by one
VIT = {"family": "vit", "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "dropout": 0.1}


@pytest.fixture(scope="module")
def digits() -> Prepared:
    return prepare("digits", data_dir=None, cache_dir=Path(os.environ["VITREPRO_CACHE"]), offline=True)


def task(store: Path, data: Prepared, precision: str = "fp32", every: float = 1000.0, **train: Any) -> Task:
    """A run with a checkpoint `every` so many seconds."""
    length = {"steps": STEPS, "batch_size": 32, "lr": 2e-3, "precision": precision, "clip_norm": 1.0, **train}
    of = Recipe.model_validate({"data": {"name": "digits", "train_images": 300}, "model": VIT, "train": length})
    kept = Store(store)
    kept.prepare()
    return Task(Run("runs", "arm", 3, of), kept, data, "cpu", 1, {}, checkpoint_seconds=every)


def folder(of: Task) -> Path:
    return of.store.run_dir(of.run.id)


def begin(of: Task, threads: int = 1) -> Any:
    """The run's process, as `verify` starts it."""
    return launch._Active.start(launch._context(), of, launch.Slot("cpu", threads))


def end(worker: Any) -> str:
    """The last word of a run's process, once it has ended."""
    kind = message = ""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while kind != "done":
            kind, message, _ = worker.pipe.recv()
    if kind == "done":
        launch._dismiss({0: worker})
    else:
        worker.process.join()
        worker.pipe.close()
    return f"{kind}: {message}" if message else kind


def stop_at(worker: Any, step: int) -> None:
    """Send SIGTERM once the run has taken so many steps."""
    while worker.pipe.recv()[2]["step"] < step:
        pass
    worker.ask_to_stop()


def outcome(of: Task) -> tuple[str, float | None, list[int]]:
    """Hash of the weights, last loss and predictions: what two runs share that are equal bit by bit."""
    result = record(of).result
    predictions = of.store.predictions(of.run.id)
    return result.weights_sha256, result.final_loss, predictions.predicted.tolist()  # type: ignore[union-attr]


def record(of: Task) -> Record:
    found = of.store.record(of.run.id)
    assert found is not None
    return found


def repeated_steps(run: Path, steps: int) -> int:
    """How many steps were taken twice, of a run with a checkpoint after each; none may be left out."""
    taken = [json.loads(line)["step"] for line in run.joinpath("metrics.jsonl").read_text().splitlines()]
    assert (taken[0], taken[-1]) == (1, steps)
    ahead = [after - before for before, after in itertools.pairwise(taken)]
    assert set(ahead) <= {0, 1}, f"steps in this order: {taken}"
    return ahead.count(0)


Whole = Callable[..., tuple[str, float | None, list[int]]]


@pytest.fixture(scope="module")
def whole(digits: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What a run comes to that nobody disturbs."""

    @functools.cache
    def undisturbed(precision: str = "fp32", threads: int = 1, **train: Any) -> tuple[str, float | None, list[int]]:
        of = task(tmp_path_factory.mktemp("whole"), digits, precision, **train)
        assert end(begin(of, threads)) == "done"
        return outcome(of)

    return undisturbed


# --- kills


def killed_in_a_write(worker: Any, run: Path, writes: int) -> bool:
    """Kill the run while it writes its so-manieth checkpoint, and say whether one was left half written."""
    before, seen = set(run.glob(".*")), set[Path]()
    while len(seen) < writes and worker.process.is_alive():
        seen |= set(run.glob(".checkpoint-*.tmp")) - before
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()
    return any(run.glob(".checkpoint-*.tmp"))


@pytest.mark.parametrize(
    ("precision", "threads", "hits"),
    [
        ("fp32", 1, 3),
        pytest.param("fp32", 2, 10, marks=pytest.mark.slow),
        pytest.param("bf16", 1, 10, marks=pytest.mark.slow),
    ],
)
def test_kills_in_the_middle_of_writing_a_checkpoint_change_no_bit(
    digits: Prepared, tmp_path: Path, whole: Whole, precision: str, threads: int, hits: int
) -> None:
    of, rng, kills, hit = task(tmp_path, digits, precision, every=0.0), random.Random(hits), 0, 0
    left: set[Path] = set()
    while hit < hits:
        assert not (folder(of) / "record.json").exists(), f"it ended after {kills} kills, {hit} of them in a write"
        worker = begin(of, threads)
        hit += killed_in_a_write(worker, folder(of), rng.randint(2, 3))
        kills += 1
        assert not any(file.exists() for file in left), "a start left the temporary files of the one before"
        left = set(folder(of).glob(".*"))
        state = checkpoint.load_newest(folder(of), "cpu")  # without a warning
        assert state is not None
        assert {int(s["step"]) for s in state["optimizer"]["state"].values()} == {state["step"]}
    assert end(begin(of, threads)) == "done"
    print(f"{precision}, {threads} threads: {kills} kills, {hit} of them left a checkpoint half written")
    assert outcome(of) == whole(precision, threads)
    assert repeated_steps(folder(of), STEPS) <= kills
    assert len(record(of).result.resumed_at) == kills  # type: ignore[union-attr]
    assert not list(folder(of).glob(".*"))
    assert not list(folder(of).glob("checkpoint-*"))


BOTH_STEPS = 180
BOTH = f"""
id: slow
type: train
title: two models, each in two arithmetics
base:
  data: {{name: digits, train_images: 300}}
  train: {{steps: {BOTH_STEPS}, batch_size: 32, lr: 2e-3, clip_norm: 1.0}}
factors:
  model:
    resnet: {{model: {{family: resnet, layers: [1, 1], block: basic, width: 8, stem: small}}}}
    vit: {{model: {{family: vit, patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2, dropout: 0.1}}}}
  arithmetic:
    fp32: {{train: {{precision: fp32}}}}
    bf16: {{train: {{precision: bf16}}}}
seeds: [0, 1]
"""
RUNS = 8
COMPARED = ", ".join(f"{{greater: resnet-{name}, than: vit-{name}}}" for name in ("fp32", "bf16"))
OTHERWISE = ("--checkpoint-every", "0")  # a checkpoint after each step


def both_claims(place: Path) -> Path:
    (place / "experiments").mkdir(parents=True)
    (place / "claim.yaml").write_text(CLAIM.replace("{greater: resnet, than: vit}", COMPARED))
    (place / "experiments" / "slow.yaml").write_text(BOTH)
    return place


@pytest.fixture
def both(tmp_path: Path) -> Path:
    return both_claims(tmp_path / "claims")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[int]]]:
    """Results of the command when nobody disturbs it; by run."""
    place = tmp_path_factory.mktemp("undisturbed")
    verify(both_claims(place / "claims"), Store(place / "store"))
    found = results(Store(place / "store"))
    assert len(found) == RUNS
    return found


def verify(claims: Path, store: Store, *more: str) -> str:
    """Let the command come to its verdict, and return what it says on stderr."""
    done = subprocess.run(command(claims, store.root, *OTHERWISE, *more), capture_output=True, text=True, timeout=200)
    assert done.returncode in (0, 1, 3), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def logged(store: Store) -> int:
    return sum(file.stat().st_size for file in store.root.glob("runs/*/metrics.jsonl"))


def runs_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of the runs: children of the server that the command forks them from."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in family(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                if one.ppid() not in (os.getpid(), process.pid):
                    found.append(one)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_of_any_process_at_any_moment_change_no_bit(
    both: Path, tmp_path: Path, undisturbed: dict[str, tuple[str, list[int]]]
) -> None:
    store, rng, process, began = Store(tmp_path / "store"), random.Random(20), None, time.monotonic()
    killed, in_a_write = Counter[str](), 0
    stamps: dict[str, tuple[int, int]] = {}

    def stamp(run_id: str) -> tuple[int, int]:
        stat = store.run_dir(run_id).joinpath("record.json").stat()
        return stat.st_ino, stat.st_mtime_ns

    def work_goes_on(before: int) -> bool:
        return logged(store) > before or process.poll() is not None  # type: ignore[union-attr]

    while killed.total() < 20:
        assert len(finished(store)) < RUNS, f"all runs ended after {killed}"
        if process is None or process.poll() is not None:
            process = start(*command(both, store.root, *OTHERWISE))
        if rng.random() < 0.3:
            time.sleep(rng.uniform(0.2, 3.0))  # perhaps while it loads
        else:
            wait_for(functools.partial(work_goes_on, logged(store)))
            time.sleep(rng.uniform(0.0, 0.4))
        at_work = runs_of(process)
        victim = rng.choice(["the group", "the command", "a run"] if at_work else ["the group", "the command"])
        if process.poll() is not None:
            continue  # a run that was killed before was the last
        killed[victim] += 1
        if victim == "a run":
            rng.choice(at_work).kill()
            continue  # the command goes on with the others
        everything = family(process)
        if victim == "the group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        assert gone(everything), "a process is left behind"
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        in_a_write += any(store.root.glob("runs/*/.checkpoint-*.tmp"))
        stamps |= {r: stamp(r) for r in finished(store) if r not in stamps}
    if process is not None and process.poll() is None:
        process.communicate(timeout=200)
    verify(both, store)
    print(f"{dict(killed)} killed in {time.monotonic() - began:.0f} s; {in_a_write} times a checkpoint half written")
    assert results(store) == undisturbed
    assert {r: stamp(r) for r in stamps} == stamps, "a finished run was repeated"
    again = sum(repeated_steps(store.run_dir(r), BOTH_STEPS) for r in store.run_ids())
    assert again <= 2 * killed.total()  # of the two at work
    assert not list(store.root.glob("runs/*/.*"))
    assert not list(store.root.rglob("checkpoint-*"))


@pytest.mark.slow
def test_the_runs_of_a_killed_command_end_though_they_have_far_to_go(both: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    process = start(*command(both, store.root, "--set", "train.steps=100000", "--allow-inconclusive"))
    wait_for(lambda: len(list(store.root.glob("runs/*/metrics.jsonl"))) == 2)
    everything = family(process)
    process.kill()
    process.communicate(timeout=60)
    assert gone(everything)
    assert {store.state(r) for r in store.run_ids()} == {"interrupted"}


# --- damage

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "empty": lambda _: b"",
    "a tensor": lambda content: content[: (at := content.index(b"/data/0FB")) + 100] + bytes(64) + content[at + 164 :],
}


def damage(file: Path, how: str) -> None:
    file.write_bytes(DAMAGE[how](file.read_bytes()))


def step_of(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


@pytest.fixture(scope="module")
def stopped(digits: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A run that was stopped after its twelfth step."""
    of = task(tmp_path_factory.mktemp("stopped"), digits, every=0.0)
    calls = iter(range(1, STEPS))
    with pytest.raises(Stopped):
        execute(of, lambda _: None, lambda: next(calls) >= 12)
    return of


@pytest.fixture
def mine(stopped: Task, tmp_path: Path, digits: Prepared) -> Task:
    """A copy of the stopped run."""
    shutil.copytree(stopped.store.root, tmp_path / "store")
    return task(tmp_path / "store", digits)


def warned(of: Task) -> list[str]:
    """Finish the run and return its warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        execute(of, lambda _: None, lambda: False)
    return [str(w.message) for w in said]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_named_once_and_the_one_before_it_used(mine: Task, whole: Whole, how: str) -> None:
    newest = sorted(folder(mine).glob("checkpoint-*"))[-1]
    damage(newest, how)
    (said,) = warned(mine)
    assert said.startswith(f"{newest}: damaged checkpoint, using the one before (")
    assert "\n" not in said
    assert record(mine).result.resumed_at == (11,)  # type: ignore[union-attr]
    assert outcome(mine) == whole()


def test_a_run_whose_checkpoints_are_all_damaged_starts_again(mine: Task, whole: Whole) -> None:
    both = sorted(folder(mine).glob("checkpoint-*"))
    for file, how in zip(both, ("zeros", "half"), strict=True):
        damage(file, how)
    said = warned(mine)
    assert [line.partition(" (")[0] for line in said] == [
        f"{both[1]}: damaged checkpoint, using the one before",
        f"{both[0]}: damaged checkpoint, starting again",
    ]
    assert record(mine).result.resumed_at == ()  # type: ignore[union-attr]
    assert outcome(mine) == whole()
    assert not list(folder(mine).glob("checkpoint-*"))


def test_a_run_that_started_again_keeps_its_new_checkpoints(mine: Task, whole: Whole) -> None:
    for file in folder(mine).glob("checkpoint-*"):
        damage(file, "zeros")
    calls = iter(range(1, STEPS))
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(Stopped):
        execute(replace(mine, checkpoint_seconds=0.0), lambda _: None, lambda: next(calls) >= 6)
    assert [step_of(file) for file in sorted(folder(mine).glob("checkpoint-*"))] == [5, 6]
    assert warned(mine) == []
    assert record(mine).result.resumed_at == (6,)  # type: ignore[union-attr]
    assert outcome(mine) == whole()


@pytest.mark.slow
def test_the_command_goes_on_past_damaged_checkpoints_and_names_them(
    both: Path, tmp_path: Path, undisturbed: dict[str, tuple[str, list[int]]]
) -> None:
    store = Store(tmp_path / "store")
    process = start(*command(both, store.root, *OTHERWISE, "--devices", f"cpu:{RUNS}"))

    def kept(run_id: str) -> list[Path]:
        return sorted(store.run_dir(run_id).glob("checkpoint-*.pt"))

    wait_for(lambda: len(store.run_ids()) == RUNS and all(len(kept(r)) >= 2 for r in store.run_ids()))
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    damaged, resumed_at = [], {}
    for run_id, how in zip(store.run_ids(), ["half", "zeros", "empty", "both"] * 2, strict=True):
        earlier, newest = kept(run_id)
        damage(newest, "half" if how == "both" else how)
        damaged.append(newest)
        resumed_at[run_id] = (step_of(earlier),)
        if how == "both":
            damage(earlier, "empty")
            damaged.append(earlier)
            resumed_at[run_id] = ()
    said = verify(both, store)
    assert [said.count(f"{file}: damaged checkpoint") for file in damaged] == [1] * len(damaged)
    assert {r: store.record(r).result.resumed_at for r in store.run_ids()} == resumed_at  # type: ignore[union-attr]
    assert results(store) == undisturbed


# --- signals


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "send", "code"),
    [
        (signal.SIGINT, os.killpg, 130),  # as a terminal does, to all
        (signal.SIGTERM, os.kill, 143),  # as a batch system may, to the command alone
    ],
)
def test_the_command_writes_checkpoints_of_what_it_was_asked_to_stop(
    both: Path,
    tmp_path: Path,
    undisturbed: dict[str, tuple[str, list[int]]],
    number: int,
    send: Callable[[int, int], None],
    code: int,
) -> None:
    store = Store(tmp_path / "store")
    process = start(*command(both, store.root, "--checkpoint-every", "1000"))
    wait_for(lambda: len(list(store.root.glob("runs/*/metrics.jsonl"))) == 2)
    everything, asked = family(process), time.monotonic()
    send(process.pid, number)
    process.wait(timeout=launch.GRACE_SECONDS)
    took = time.monotonic() - asked
    _, err = process.communicate(timeout=60)
    print(f"{signal.Signals(number).name}: ended after {took:.1f} s")
    assert process.returncode == code, err
    assert took < launch.GRACE_SECONDS / 4
    assert gone(everything)
    assert [store.state(r) for r in store.run_ids()] == ["interrupted", "interrupted"]
    for run_id in store.run_ids():
        (file,) = store.run_dir(run_id).glob("checkpoint-*.pt")  # no other was due
        assert store.curve(run_id)[-1]["step"] == step_of(file)
    verify(both, store)
    assert results(store) == undisturbed
    assert sum(bool(store.record(r).result.resumed_at) for r in store.run_ids()) == 2  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_second_interrupt_ends_the_command_at_once_though_its_runs_are_stuck_in_a_step(
    both: Path, tmp_path: Path, undisturbed: dict[str, tuple[str, list[int]]]
) -> None:
    store = Store(tmp_path / "store")
    process = start(*command(both, store.root, *OTHERWISE))
    wait_for(lambda: len(list(store.root.glob("runs/*/checkpoint-*.pt"))) >= 4)
    everything, stuck = family(process), runs_of(process)
    for run in stuck:
        run.suspend()  # a step that never ends
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None, "it did not wait for the runs"
    os.killpg(process.pid, signal.SIGINT)
    asked = time.monotonic()
    assert gone(stuck)
    of_runs = time.monotonic() - asked
    process.wait(timeout=30)
    took = time.monotonic() - asked
    _, err = process.communicate(timeout=60)
    print(f"the runs ended {of_runs:.2f} s and the command {took:.2f} s after the second SIGINT")
    assert process.returncode == 130, err
    assert of_runs < 2.0
    assert took < launch.GRACE_SECONDS / 4  # Python itself takes a second to end, more on a busy machine
    assert "Traceback" not in err
    assert gone(everything)
    assert {store.state(r) for r in store.run_ids()} == {"interrupted"}
    verify(both, store)
    assert results(store) == undisturbed


@pytest.fixture
def _interrupts_are_harmless() -> Iterator[None]:
    """For a signal that comes when nobody waits for it any more."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts_are_harmless")
def test_a_second_interrupt_does_not_wait_for_a_run_that_is_stuck_in_a_step(
    digits: Prepared, tmp_path: Path, whole: Whole
) -> None:
    of, place, told = task(tmp_path, digits, every=0.0), [launch.Slot("cpu", 1)], Counter[str]()

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def interrupt_twice_at_step_5(event: launch.Event) -> None:
        told[event.kind] += 1
        if event.kind == "progress" and event.detail["step"] == 5:
            (run,) = [p for p in psutil.Process().children(recursive=True) if p.ppid() != os.getpid()]
            run.suspend()  # a step that never ends
            interrupt()
            threading.Timer(0.3, interrupt).start()

    began = time.monotonic()
    with pytest.raises(launch.Interrupted, match="SIGINT"):
        launch.run_all([of], place, interrupt_twice_at_step_5)
    assert time.monotonic() - began < launch.GRACE_SECONDS / 4
    assert told["stopped"] == 1
    assert of.store.state(of.run.id) == "interrupted"
    launch.run_all([of], place, lambda _: None)
    assert len(record(of).result.resumed_at) == 1  # type: ignore[union-attr]
    assert outcome(of) == whole()


# --- the same bits


@pytest.mark.slow
@pytest.mark.skipif(cores() < 2, reason="one core has one thread")
def test_a_run_keeps_its_threads_and_its_bits_when_the_command_goes_on_with_fewer_slots(
    tmp_path: Path, undisturbed: dict[str, tuple[str, list[int]]]
) -> None:
    (claims := tmp_path / "claims" / "experiments").mkdir(parents=True)
    claims.with_name("claim.yaml").write_text(CLAIM.replace("{greater: resnet, than: vit}", COMPARED.split(", {")[0]))
    (claims / "slow.yaml").write_text(BOTH.replace("[0, 1]", "[0]").replace("    bf16: {train: {precision: bf16}}", ""))
    store, few = Store(tmp_path / "store"), ("--allow-inconclusive",)  # with one seed
    process = start(*command(claims.parent, store.root, *OTHERWISE, *few))
    wait_for(lambda: len(list(store.root.glob("runs/*/checkpoint-*.pt"))) >= 4)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    verify(claims.parent, store, *few, "--devices", "cpu:1")
    assert results(store) == {r: undisturbed[r] for r in store.run_ids()}
    assert [bool(store.record(r).result.resumed_at) for r in store.run_ids()] == [True, True]  # type: ignore[union-attr]
    assert {store.record(r).environment.threads for r in store.run_ids()} == {1}  # type: ignore[union-attr]


def test_a_run_resumed_with_another_number_of_threads_ends_near_an_undisturbed_one(
    digits: Prepared, tmp_path: Path, whole: Whole
) -> None:
    """The same bits are promised for as many threads only: sums over a batch are split among them."""
    of = task(tmp_path, digits, steps=12)
    worker = begin(of, threads=2)
    stop_at(worker, 1)
    assert end(worker) == "stopped"
    assert end(begin(of, threads=1)) == "done"
    _, loss, predicted = outcome(of)
    _, expected_loss, expected = whole(steps=12)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    assert sum(a != b for a, b in zip(predicted, expected, strict=True)) <= 2
    assert record(of).environment.threads == 1  # of the process that finished it
    assert len(record(of).result.resumed_at) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_deterministic_recipe_gives_the_same_bits_twice(
    digits: Prepared, tmp_path: Path, precision: str, threads: int
) -> None:
    twice = [task(tmp_path / name, digits, precision, deterministic=True, steps=8) for name in ("a", "b")]
    assert [end(begin(of, threads)) for of in twice] == ["done", "done"]
    assert outcome(twice[0]) == outcome(twice[1])
    assert record(twice[0]).result.choices["kernels"] == "deterministic"  # type: ignore[union-attr]


@pytest.mark.parametrize("wanted", [True, False])
def test_kernels_that_may_differ_are_refused_where_the_recipe_is_deterministic_and_nowhere_else(
    digits: Prepared, tmp_path: Path, wanted: bool
) -> None:
    seen = set()
    torch.use_deterministic_algorithms(not wanted)
    try:
        of = task(tmp_path, digits, deterministic=wanted, steps=2)
        execute(of, lambda _: seen.add(torch.are_deterministic_algorithms_enabled()), lambda: False)
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == {wanted}
