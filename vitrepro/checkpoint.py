"""Where a run stands, on disk: written whole or not at all, the last two kept.

A run that tries several learning rates has one stage for each and one for what follows; other runs have stage 0.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrepro.store import atomic_file, explain, write_atomic

KEEP = 2
GRID = "checkpoint-grid.pt"
DID_NOT_FIT = "checkpoint-memory.json"


def save(folder: Path, step: int, state: Mapping[str, Any], stage: int = 0) -> None:
    """Write a checkpoint after `step` steps of a stage and drop all but the newest two.

    Raises:
        StoreError: no space or no permission; the earlier checkpoints stay.
    """
    path = folder / f"checkpoint-{stage:02d}-{step:09d}.pt"
    with explain(folder):
        with atomic_file(path) as file:
            torch.save({"step": step, **state}, file)
        kept = sorted(folder.glob("checkpoint-[0-9]*.pt"))
        newest = kept.index(path) + 1
        for old in (*kept[: max(0, newest - KEEP)], *kept[newest:]):  # later steps: damaged when the run went on
            old.unlink(missing_ok=True)


def load_newest(folder: Path, device: str, stage: int = 0) -> dict[str, Any] | None:
    """The newest checkpoint of a stage that can be read, or None; damaged ones are named in a warning."""
    found = sorted(folder.glob(f"checkpoint-{stage:02d}-*.pt"))
    for path in reversed(found):
        state = _load(path, device, "starting again" if path == found[0] else "using the one before")
        if state is not None:
            return state
    return None


def save_grid(folder: Path, results: Mapping[str, Any]) -> None:
    """Write what the finished stages came to.

    Raises:
        StoreError: no space or no permission; what was written before stays.
    """
    with explain(folder), atomic_file(folder / GRID) as file:
        torch.save(dict(results), file)


def load_grid(folder: Path) -> dict[str, Any] | None:
    """What the finished stages came to, or None; a damaged file is named in a warning."""
    path = folder / GRID
    return _load(path, "cpu", "trying all rates again") if path.exists() else None


def save_did_not_fit(folder: Path, micro_batches: tuple[int, ...]) -> None:
    """Note which micro-batches ran out of memory, for the process that goes on.

    Raises:
        StoreError: no space or no permission.
    """
    with explain(folder):
        write_atomic(folder / DID_NOT_FIT, json.dumps(micro_batches).encode())


def did_not_fit(folder: Path) -> tuple[int, ...]:
    """Micro-batches of this run that ran out of memory, largest first."""
    with contextlib.suppress(OSError, ValueError):
        return tuple(int(size) for size in json.loads((folder / DID_NOT_FIT).read_bytes()))
    return ()


def _load(path: Path, device: str, instead: str) -> dict[str, Any] | None:
    """Tensors and numbers only (`weights_only`): a checkpoint can run no code."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load takes a tensor whose checksum is wrong
            if archive.testzip() is not None:
                raise ValueError("its checksum is wrong")
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):  # no fault of the file
        raise
    except Exception as error:  # a damaged zip raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"{path}: damaged checkpoint, {instead} ({reason})", stacklevel=3)
        return None
    return state


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values of a model's state, the same on every device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
