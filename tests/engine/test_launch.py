"""Runs in their own processes: crashes, signals, kills and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vitrepro.store import Store

# longer than the rest of the tiny runs, so that a signal finds them at work
SLOW = """
id: slow
type: train
title: runs of a few seconds
base:
  data: {name: digits, train_images: 300}
  train: {steps: 240, batch_size: 32, lr: 2e-3, precision: fp32, clip_norm: 1.0}
factors:
  model:
    resnet: {model: {family: resnet, layers: [1, 1], block: basic, width: 8, stem: small}}
    vit: {model: {family: vit, patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2, dropout: 0.1}}
seeds: [0, 1]
"""
CLAIM = """
id: tiny/slow
source: {paper: none, where: tests}
kind: ordering
statement: The ResNet is better.
scales:
  quick: {experiment: slow, fidelity: proxy, deviations: [tiny], expect: {all: [{greater: resnet, than: vit}]}}
"""


@pytest.fixture
def slow_claims(tmp_path: Path) -> Path:
    folder = tmp_path / "slow"
    (folder / "experiments").mkdir(parents=True)
    (folder / "claim.yaml").write_text(CLAIM)
    (folder / "experiments" / "slow.yaml").write_text(SLOW)
    return folder


def command(claims: Path, store: Path, *more: str) -> list[str]:
    options = ["--scale", "quick", "--claims-dir", str(claims), "--store", str(store), "--devices", "cpu:2"]
    return [
        sys.executable,
        "-m",
        "vitrepro",
        "verify",
        "tiny/slow",
        "--allow-inconclusive",
        *options,
        "--checkpoint-every",
        "0.2",
        *more,
    ]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The command and every process it started, directly or not."""
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def gone(processes: list[psutil.Process], seconds: float = 15.0) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return all(p.status() == psutil.STATUS_ZOMBIE for p in alive if p.is_running())


def finished(store: Store) -> list[str]:
    return [r for r in store.run_ids() if store.state(r) == "finished"]


def wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def at_work(store: Store) -> bool:
    return any(store.run_dir(r).joinpath("metrics.jsonl").exists() for r in store.run_ids())


def results(store: Store) -> dict[str, tuple[str, list[int]]]:
    """Run id -> hash of its weights and its predictions."""
    found = {}
    for run_id in store.run_ids():
        record = store.record(run_id)
        assert record is not None
        found[run_id] = (record.result.weights_sha256, store.predictions(run_id).predicted.tolist())  # type: ignore[union-attr]
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[int]]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "experiments").mkdir()
    (folder / "claim.yaml").write_text(CLAIM)
    (folder / "experiments" / "slow.yaml").write_text(SLOW)
    done = subprocess.run(command(folder, folder / "store"), capture_output=True, text=True, timeout=200)
    assert done.returncode in (0, 1, 3), done.stderr
    return results(Store(folder / "store"))


def test_kill_9_at_work_then_the_same_command_gives_the_same_results(
    slow_claims: Path, tmp_path: Path, uninterrupted: dict[str, tuple[str, list[int]]]
) -> None:
    store = tmp_path / "store"  # twenty kills at any moment: test_resume
    kept = Store(store)
    process = start(*command(slow_claims, store))
    wait_for(lambda: finished(kept))  # the next ones are at work
    processes = family(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert gone(processes), "a process is left behind"
    assert len(finished(kept)) < 4
    before = {r: kept.run_dir(r).joinpath("record.json").stat().st_mtime_ns for r in finished(kept)}
    done = subprocess.run(command(slow_claims, store, "--json"), capture_output=True, text=True, timeout=200)
    assert done.returncode in (0, 1, 3), done.stderr
    json.loads(done.stdout)
    for run_id, stamp in before.items():
        assert kept.run_dir(run_id).joinpath("record.json").stat().st_mtime_ns == stamp, "a finished run was repeated"
    assert results(kept) == uninterrupted
    assert not list(store.rglob("*.tmp"))
    assert not list(store.rglob("checkpoint-*"))


def test_a_signal_ends_all_processes_and_leaves_a_store_that_goes_on(
    slow_claims: Path, tmp_path: Path, uninterrupted: dict[str, tuple[str, list[int]]]
) -> None:
    store = Store(tmp_path / "store")
    process = start(*command(slow_claims, store.root))
    wait_for(lambda: at_work(store))
    processes = family(process)
    os.killpg(process.pid, signal.SIGTERM)  # to the command and all it started
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert out == ""
    assert "go on from their last checkpoint" in err
    assert "Traceback" not in err
    assert gone(processes)
    assert {store.state(r) for r in store.run_ids()} == {"interrupted"}
    assert any(list(store.run_dir(r).glob("checkpoint-*.pt")) for r in store.run_ids())
    done = subprocess.run(command(slow_claims, store.root), capture_output=True, text=True, timeout=200)
    assert done.returncode in (0, 1, 3), done.stderr
    assert results(store) == uninterrupted
    resumed = [store.record(r).result.resumed_at for r in store.run_ids()]  # type: ignore[union-attr]
    assert any(resumed)


def test_a_crashed_run_is_an_error_of_its_own_and_the_others_finish(slow_claims: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    process = start(*command(slow_claims, store.root, "--json"))
    wait_for(lambda: at_work(store))
    at_a_run = [
        p for p in family(process) if p.ppid() not in (os.getpid(), process.pid)
    ]  # not the server they fork from
    max(at_a_run, key=lambda p: p.cpu_times().user).kill()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 4, err
    assert len(finished(store)) == 3
    (verdict,) = json.loads(out)["verdicts"]
    assert verdict["outcome"] == "ERROR"
    assert "killed by SIGKILL" in verdict["reason"]
    again = subprocess.run(command(slow_claims, store.root), capture_output=True, text=True, timeout=200)
    assert again.returncode in (0, 1, 3), again.stderr
    assert len(finished(store)) == 4


def test_two_commands_at_once_share_the_work_and_agree(slow_claims: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    both = [start(*command(slow_claims, store.root, "--json")) for _ in range(2)]
    outputs = [p.communicate(timeout=200) for p in both]
    codes = {p.returncode for p in both}
    assert len(codes) == 1, outputs
    assert codes <= {0, 1, 3}
    assert len(finished(store)) == 4
    a, b = (json.loads(out)["verdicts"] for out, _ in outputs)
    assert a == b
