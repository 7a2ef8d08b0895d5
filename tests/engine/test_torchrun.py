"""A run that several processes share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vitrepro import torchrun
from vitrepro.errors import UsageError
from vitrepro.record import TrainResult
from vitrepro.store import Store

SHARED = """
id: shared
type: train
title: two ViTs, told apart by their position embeddings
base:
  data: {name: digits, train_images: 300}
  train:
    {epochs: 2, batch_size: 36, micro_batch: 6, lr: 2e-3, precision: fp32, clip_norm: 1.0, evaluate_epochs: [test],
     keep: best-on-test}
  augment: {crop_padding: 1, color_jitter: null}
  model: {family: vit, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2, attention_norm: unused}
factors:
  position:
    learned: {model: {pos_embed: learned_1d}}
    none: {model: {pos_embed: none}}
seeds: [0]
"""
CLAIM = """
id: tiny/shared
source: {paper: none, where: tests}
kind: ordering
statement: Positions help.
scales:
  quick: {experiment: shared, fidelity: proxy, deviations: [tiny], expect: {all: [{greater: learned, than: none}]}}
"""


def verify(folder: Path, store: str, processes: int, *more: str) -> tuple[subprocess.CompletedProcess[str], Store]:
    claims = folder / "claims"
    if not claims.exists():
        (claims / "experiments").mkdir(parents=True)
        (claims / "claim.yaml").write_text(CLAIM)
        (claims / "experiments" / "shared.yaml").write_text(SHARED)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    options = ["--scale", "quick", "--claims-dir", str(claims), "--store", str(folder / store)]
    command = [sys.executable, *launcher, "-m", "vitrepro", "verify", "tiny/shared", *options, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=200), Store(folder / store)


def results(store: Store) -> dict[str, tuple[TrainResult, list[float], list[int]]]:
    """Arm -> its result, its losses and its predictions."""
    found = {}
    for run_id in store.run_ids():
        record = store.record(run_id)
        assert record is not None
        assert isinstance(record.result, TrainResult)
        losses = [row["loss"] for row in store.curve(run_id)]
        found[record.arm] = (record.result, losses, store.predictions(run_id).predicted.tolist())
    return found


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(tmp_path: Path) -> None:
    one, alone = verify(tmp_path, "one", 1, "--allow-inconclusive")
    two, shared = verify(tmp_path, "two", 2, "--allow-inconclusive")
    assert "INCONCLUSIVE" in one.stdout, one.stderr
    assert two.stdout == one.stdout.replace(str(tmp_path / "one"), str(tmp_path / "two")), two.stderr  # told once
    expected, found = results(alone), results(shared)
    assert set(found) == set(expected) == {"learned", "none"}
    for arm, (result, losses, predicted) in expected.items():
        other, other_losses, other_predicted = found[arm]
        assert other_losses == pytest.approx(losses, abs=1e-5)
        assert len(losses) == 17
        sums, other_sums = ([p.train_loss_sum for p in r.epochs] for r in (result, other))
        assert other_sums == pytest.approx(sums, abs=1e-4)
        assert len(sums) == 2
        assert [p.test_correct for p in other.epochs] == [p.test_correct for p in result.epochs]
        assert other.kept_epoch == result.kept_epoch is not None
        assert other_predicted == predicted
        assert (other.n, other.correct) == (result.n, result.correct)
        assert (other.processes, other.effective_batch) == (2, 36)
    assert len(shared.verdicts()[0]) == 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    return monkeypatch


def test_without_torchrun_a_process_is_alone_and_first() -> None:
    assert "TORCHELASTIC_RUN_ID" not in os.environ
    assert not torchrun.asked()
    assert torchrun.first()
    with torchrun.joined("cuda:7"):
        pass


def test_each_process_takes_its_own_device_and_its_share_of_the_cores(started: pytest.MonkeyPatch) -> None:
    import torch

    visible: dict[str, Any] = {"is_available": lambda: True, "device_count": lambda: 2}
    for name, made in visible.items():
        started.setattr(torch.cuda, name, made)
    started.setattr(torchrun.provenance, "cores", lambda: 12)
    assert torchrun.asked()
    assert not torchrun.first()
    assert torchrun.device("auto") == torchrun.device("cuda") == "cuda:1"
    assert torchrun.device("cpu") == "cpu"
    assert torchrun.threads() == 6
    with pytest.raises(UsageError, match="give auto, cpu or cuda"):
        torchrun.device("cuda:0")
    started.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="2 processes for 1 CUDA"):
        torchrun.device("auto")


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrepro import distributed

    monkeypatch.setattr(distributed, "rank_and_world", lambda: (2, 3))
    assert distributed.share(12) == (8, 4)
    with pytest.raises(UsageError, match="3 processes cannot share batches of 16"):
        distributed.share(16)
