"""Where a run stands, on disk: written whole or not at all, the last two kept."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrepro.store import atomic_file, explain

KEEP = 2


def save(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write a checkpoint after `step` steps and drop all but the newest two.

    Raises:
        StoreError: no space or no permission; the earlier checkpoints stay.
    """
    with explain(folder):
        with atomic_file(folder / f"checkpoint-{step:09d}.pt") as file:
            torch.save({"step": step, **state}, file)
        for old in sorted(folder.glob("checkpoint-*.pt"))[:-KEEP]:
            old.unlink(missing_ok=True)


def load_newest(folder: Path, device: str) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None; damaged ones are named in a warning.

    Tensors only (`weights_only`): a checkpoint can run no code.
    """
    for path in sorted(folder.glob("checkpoint-*.pt"), reverse=True):
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # a damaged zip raises many kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"{path}: damaged checkpoint, using an earlier one ({reason})", stacklevel=2)
            continue
        return state
    return None


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values of a model's state, the same on every device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
