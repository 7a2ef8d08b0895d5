"""Released weights: where they are on this machine, how to fetch them, and how a model starts from them.

A name is timm's, with its tag: `vit_base_patch16_224.orig_in21k`. The file is `<data_dir>/weights/<name>` with one of
the endings below, or timm's copy in the Hugging Face cache. No format that can run code is read as such.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrepro.errors import DataError, DataMissing, UsageError, did_you_mean

if TYPE_CHECKING:  # planning must not wait for torch
    from torch import Tensor, nn

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SHOWN = 5  # names of parameters in a message


@dataclass(frozen=True)
class Location:
    """Where weights were found.

    Attributes:
        path: the file, or None.
        looked_at: paths that would have been it, where there is none.
    """

    name: str
    path: Path | None
    looked_at: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class Weights:
    """What a file holds.

    Attributes:
        sha256: of the file.
        state: parameters and buffers by timm's names.
    """

    name: str
    path: Path
    sha256: str
    state: Mapping[str, Tensor]


# --- where they are


def locate(name: str, data_dir: Path | None, hub_cache: Path | None = None) -> Location:
    """Where the weights are: in the data folder, or in the Hugging Face cache. Opens no file and no socket.

    Args:
        hub_cache: instead of the cache of this user.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    looked_at = [] if data_dir is None else [Path(data_dir) / "weights" / f"{name}{ending}" for ending in FORMATS]
    for path in looked_at:
        if path.is_file():
            return Location(name, path)
    for file in HUB_FILES:
        cached = try_to_load_from_cache(_repository(name), file, cache_dir=hub_cache)
        if isinstance(cached, str):
            return Location(name, Path(cached))
    cache = Path(hub_cache or constants.HF_HUB_CACHE)
    looked_at.append(cache / f"models--{_repository(name).replace('/', '--')}")
    return Location(name, None, tuple(looked_at))


def missing_message(location: Location) -> str:
    """What was looked at, and how to get the weights."""
    return "\n".join(
        [
            f"The weights {location.name} are not on this machine.",
            *(f"  looked at: {path}" for path in location.looked_at),
            f"Fetch them with `vitrepro weights fetch {location.name}`, or give --data-dir (VITREPRO_DATA) a folder"
            f" that holds weights/{location.name}.safetensors.",
        ]
    )


def fetch(name: str, data_dir: Path | None = None, hub_cache: Path | None = None, *, offline: bool = False) -> Path:
    """The file of the weights, downloaded into the Hugging Face cache if it is not here.

    Args:
        offline: open no socket.

    Raises:
        UsageError: timm has no weights of this name.
        DataMissing: not here, and offline or not to be had.
    """
    import timm

    known = timm.list_models(pretrained=True)
    location = locate(name, data_dir, hub_cache)
    if location.path is not None:
        return location.path
    if name not in known:
        raise UsageError(f"timm has no weights {name!r}{did_you_mean(name, known)}")
    if offline:
        raise DataMissing(missing_message(location))
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(_repository(name), HUB_FILES[0], cache_dir=hub_cache))
    except Exception as error:  # whatever the library, its HTTP client or the file system raises
        why = f"{type(error).__name__}: {_first_line(error)}"
        raise DataMissing(f"{name} could not be fetched: {why}\n{missing_message(location)}") from error


def _repository(name: str) -> str:
    return f"timm/{name}"


# --- reading files


def read(location: Location) -> Weights:
    """The weights of a file, on the CPU.

    Raises:
        DataMissing: there is no file.
        DataError: it cannot be read, would run code, or does not hold parameters.
    """
    if location.path is None:
        raise DataMissing(missing_message(location))
    path = location.path
    try:
        return Weights(location.name, path, _file_sha256(path), FORMATS[path.suffix](path, location.name))
    except Exception as error:  # damaged files raise a dozen kinds
        raise DataError(f"{path}: cannot be read as weights ({_first_line(error)})") from error


def _safetensors(path: Path, _: str) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _torch(path: Path, _: str) -> Mapping[str, Tensor]:
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ValueError("not a mapping from names to tensors")
    return found


def _npz(path: Path, name: str) -> Mapping[str, Tensor]:
    """The authors' own files, translated by timm's model of the name's architecture."""
    import numpy as np
    import timm
    import torch

    model: Any = timm.create_model(name.partition(".")[0], pretrained=False, num_classes=0)
    state: dict[str, Tensor] = model.state_dict()  # shares the model's memory
    for tensor in state.values():
        tensor.fill_(math.nan)
    model.load_pretrained(str(path))
    with np.load(path, allow_pickle=False) as arrays:
        body = [k for k in arrays.files if not any(part in ("head", "pre_logits") for part in k.split("/"))]
        extra = sum(arrays[k].size for k in body) - sum(p.numel() for p in state.values())
    untouched = [k for k, tensor in state.items() if torch.isnan(tensor).all()]
    if untouched or extra:
        raise ValueError(f"it does not fit {name}: {_some(untouched)} not in it, {extra:+,} numbers in all")
    return state


# Endings of files in the data folder, in the order in which they are looked for
FORMATS: dict[str, Callable[[Path, str], Mapping[str, Tensor]]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".pt": _torch,
    ".pth": _torch,
    ".bin": _torch,
}


# --- starting from them


def load(model: nn.Module, weights: Weights) -> None:
    """Put the weights into a model in place; its head alone is new, and zero.

    The head of the file is dropped, representation layer and all. Position embeddings are interpolated to the
    model's grid; nothing else changes its shape.

    Args:
        model: of family vit or timm, as `build` makes it.

    Raises:
        DataError: a parameter is missing, left over, of another shape or type, or not finite.

    Source: Section 3.2.
    """
    import torch

    from vitrepro.models.vit import ViT

    state = dict(weights.state)
    position = "pos_embed"
    if isinstance(model, ViT):
        position = "pos_embed.table"
        if "pos_embed" in state:
            state[position] = state.pop("pos_embed")
    head = _head(model)
    state = {k: v for k, v in state.items() if not k.startswith((head, "pre_logits."))}
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(head)}
    if position in state and position in wanted:
        state[position] = resized_positions(state[position], wanted[position].shape)

    both = [k for k in wanted if k in state]
    faults = {
        "missing": [k for k in wanted if k not in state],
        "left over": [k for k in state if k not in wanted],
        "of another shape": [
            f"{k} {_shape(state[k])} for {_shape(wanted[k])}" for k in both if state[k].shape != wanted[k].shape
        ],
        "of another type": [f"{k} {state[k].dtype}" for k in both if state[k].dtype != wanted[k].dtype],
        "not finite": [k for k in both if not torch.isfinite(state[k]).all()],
    }
    said = [f"{what}: {_some(names)}" for what, names in faults.items() if names]
    if said:
        raise DataError(f"{weights.path}: these are no weights of this {type(model).__name__}; {'; '.join(said)}")
    model.load_state_dict(state, strict=False)  # strict but for the head, as was just seen
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(head):
                parameter.zero_()


def train_head_alone(model: nn.Module) -> None:
    """Withhold gradients from everything but the classifier, of a model of family vit or timm."""
    head = _head(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(head))


def resized_positions(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Position embeddings of another grid, (1, 1 + N, D), the class token's kept; as they are if they cannot fit.

    Bilinear with the corners on each other, as the authors' code does (scipy.ndimage.zoom of order 1).

    Args:
        shape: (1, 1 + M, D); N and M are squares.

    Source: Section 3.2.
    """
    import torch
    import torch.nn.functional as F

    if table.ndim != 3 or table.shape == shape or table.shape[-1] != shape[-1]:
        return table
    old, new = math.isqrt(table.shape[1] - 1), math.isqrt(shape[1] - 1)
    if old**2 != table.shape[1] - 1 or new**2 != shape[1] - 1:
        return table
    grid = table[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)  # (1, D, old, old)
    grid = F.interpolate(grid.float(), (new, new), mode="bilinear", align_corners=True)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def _head(model: nn.Module) -> str:
    """What the names of the classifier's parameters begin with."""
    from vitrepro.models.vit import ViT

    head: Any = model.head if isinstance(model, ViT) else model.get_classifier()  # type: ignore[operator]
    names = [name for name, module in model.named_modules() if module is head]
    if not names:
        raise UsageError(
            f"the head of a {type(model).__name__} is not one layer; released weights cannot be put into it"
        )
    return f"{names[0]}."


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape)


def _some(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
