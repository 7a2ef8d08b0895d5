"""Bytes that training a recipe takes on its device, known before anything is built.

Weights, gradients and the optimiser's state; for each image of a micro-batch the tensors that autograd
keeps for the backward pass, one by one as the models make them; and the data set where it lies on the device.
A test holds the formula against what autograd saves. At the end stands what the machine has and this process holds.
Importing this module does not load torch.

N: patches, G: patches per side, T: tokens, D: width of a token, H: heads, M: width of an MLP.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from vitrepro.catalog import DATASETS
from vitrepro.recipe import (
    Arithmetic,
    LibraryModelSpec,
    ModelSpec,
    Recipe,
    ResNetSpec,
    ViTSpec,
    attends_across_batch,
    check_grid,
)
from vitrepro.record import Record, TrainResult
from vitrepro.spec import content_hash

Kind = Literal["cpu", "cuda"]
CONTEXT: dict[Kind, int] = {"cpu": 400 << 20, "cuda": 500 << 20}  # of a process before it holds a tensor; resident
NARROW = ("bf16", "fp16")  # precisions of two bytes
PLAIN_TOKENS = 256  # up to here attention on the CPU is by plain products, which keep its weights
USABLE = 0.9  # of free memory; the rest is lost between the blocks of an allocator
DATA_SHARE = 0.5  # of free memory that a data set may take; a larger one is read batch by batch
CACHE_BYTES = 13 << 20  # of a CPU, that the tensors of a batch may take where only the forward pass is done
PREFETCHED = 4  # batches that wait on the device where it is


def kind_of(device: str) -> Kind:
    """`cpu`, or `cuda` for one such as cuda:0."""
    return "cuda" if device.startswith("cuda") else "cpu"


# --- Models


def parameters(spec: ModelSpec, *, image_size: int, channels: int, num_classes: int) -> int | None:
    """Trained numbers of a model, or None for one of timm or torchvision.

    Raises:
        ValueError: the patches of a ViT do not cover the image.
    """
    if isinstance(spec, LibraryModelSpec):
        return None
    body = _body(spec)
    stem, features = (body.parameters(channels), body.features) if body else (0, channels)
    if isinstance(spec, ResNetSpec):
        return stem + (features + 1) * num_classes
    patch_size, D, _, num_heads, M = spec.sizes
    G = check_grid(spec, image_size)
    N = G**2
    T = N + 1 if spec.pool == "cls" else N
    patches = (features * patch_size**2 + 1) * D
    table = {"learned_1d": T * D, "learned_2d": 2 * G * (D // 2)}.get(spec.pos_embed, 0)
    block = 4 * D + 3 * D * (D + spec.qkv_bias) + D * (D + 1) + M * (D + 1) + D * (M + 1)
    if spec.pos_embed == "relative":
        block += (2 * N - 1) * (D // num_heads)
    ends = (T - N) * D + 2 * D * spec.final_norm + (D + 1) * num_classes
    return stem + patches + table + _blocks(spec) * block + ends


def across_images(spec: ModelSpec) -> str | None:
    """What of it is known to go over all images of a micro-batch, so that a smaller one changes the model; or None."""
    if isinstance(spec, ResNetSpec) and spec.style == "bn":
        return "batch norm"
    return "attention" if attends_across_batch(spec) else None


def activation_bytes(recipe: Recipe, device: str) -> int | None:
    """Bytes that the backward pass of one image needs, or None for a model of timm or torchvision.

    The precision `auto` counts as fp32.
    """
    kept = _kept(recipe, kind_of(device))
    return None if kept is None else sum(kept)


def _kept(recipe: Recipe, kind: Kind) -> list[int] | None:
    """Bytes of each tensor that the backward pass of one image needs."""
    model, train, size = recipe.model, recipe.train, recipe.image_size
    narrow = 2 if train.precision in NARROW else 4
    logits = 4 * recipe.data.num_classes
    if isinstance(model, LibraryModelSpec):
        return None
    if isinstance(model, ViTSpec):
        fast = train.engine == "fast"
        return [*_vit(model, size, recipe.channels, train.batch_size, narrow, kind, fast=fast), logits]
    body = _body(model)
    assert body is not None
    return [*body.kept(size, recipe.channels, narrow, kind), narrow * body.features, logits]


def _vit(
    spec: ViTSpec, image_size: int, channels: int, batch_size: int, narrow: int, kind: Kind, *, fast: bool
) -> list[int]:
    """Bytes of each tensor, with the choices that `vitrepro.engine` makes.

    Args:
        narrow: bytes of what products and convolutions read and write.
    """
    _, D, _, H, M = spec.sizes
    G = check_grid(spec, image_size)
    N = G**2
    T = N + 1 if spec.pool == "cls" else N
    pixels = image_size**2
    if fast and spec.reads_one_place:  # `skip_unread`: of no other token
        T = 1
        pixels = pixels if spec.pool == "cls" else spec.sizes[0] ** 2
    keys = {"global": T, "axial": G, "batch": batch_size}[spec.attention]
    plain = kind == "cpu" and (spec.attention_dropout > 0 or (fast and keys <= PLAIN_TOKENS))
    weight = narrow if fast else 4  # of attention, where it is kept
    added_wide = spec.pool == "cls" or spec.pos_embed not in ("none", "relative")  # float32, to all tokens
    between = narrow if kind == "cpu" and (fast or not added_wide) else 4  # of tokens between the layers
    mask = 1 if kind == "cuda" else narrow  # of dropout

    def block(Q: int) -> list[int]:
        """One of whose tokens Q are read by what follows."""
        normed = {"pre": T, "post": Q}[spec.norm] if spec.attention_norm == "pre" else 0
        made = [between * normed * D, 4 * 2 * normed]  # read by norm1; mean and deviation
        made += [narrow * T * D] * 3 + [narrow * Q * D]  # read by qkv; keys, values and queries
        if spec.pos_embed == "relative":  # scaled queries, their products with every offset; weights, or a bias
            made += [narrow * T * D, narrow * H * N * (2 * N - 1)]
            made += [(narrow if plain or kind == "cuda" else 4) * H * T * T]
        else:  # weights, or the fused kernel's sums of them
            made += [weight * H * Q * keys if plain else 4 * H * Q]
        made += [narrow * Q * D, between * Q * D, 4 * 2 * Q, narrow * Q * D]  # read by proj, norm2 and fc1
        hidden = 1 if spec.activation == "relu" and not spec.dropout else 2  # ReLU needs what it made, not what it read
        made += [narrow * Q * M] * hidden  # read by the activation and fc2
        if spec.attention_dropout and kind == "cpu":  # no fused kernel: a mask of the weights, and what it leaves
            made += [weight * H * Q * keys] * 2
        return made + ([mask * Q * D, mask * Q * M, mask * Q * D] if spec.dropout else [])

    alone = fast and spec.reads_first_token  # `skip_unread`: of the last layer, the first token alone
    stem = _body(spec)
    made = stem.kept(image_size, channels, narrow, kind) if stem else [narrow * channels * pixels]
    made += [mask * T * D] if spec.dropout else []
    made += block(T) * (_blocks(spec) - 1) + block(1 if alone else T)
    read = 1 if alone else T
    made += [between * read * D, 4 * 2 * read] if spec.final_norm else []
    viewed = spec.pool != "gap" and narrow == 4  # the head's input is a view of all tokens, unless it is cast
    return [*made, narrow * D * (read if viewed else 1)]


def _blocks(spec: ViTSpec) -> int:
    _, _, depth, _, _ = spec.sizes
    return 2 * depth if spec.attention == "axial" else depth


@dataclass(frozen=True)
class _Block:
    """A residual block: channels of the maps it reads, works on and writes; their sides before and after."""

    features: int
    mid: int
    out: int
    side: int
    out_side: int
    shortcut: bool


@dataclass(frozen=True)
class _Body:
    """Stem and stages of a residual network; `hybrid` is the style under a hybrid ViT."""

    layers: tuple[int, ...]
    basic: bool
    large_stem: bool
    width: int
    style: Literal["bn", "bit", "hybrid"]

    @property
    def features(self) -> int:
        """Channels of the last map."""
        return self.width * 2 ** (len(self.layers) - 1) * (1 if self.basic else 4)

    def blocks(self, image_size: int) -> Iterator[_Block]:
        side = _half(_half(image_size)) if self.large_stem else image_size
        features = self.width
        for i, blocks in enumerate(self.layers):
            mid = self.width * 2**i
            out = mid if self.basic else 4 * mid
            for j in range(blocks):
                halve = i > 0 and j == 0
                out_side = _half(side) if halve else side
                yield _Block(features, mid, out, side, out_side, halve or features != out)
                features, side = out, out_side

    def parameters(self, channels: int) -> int:
        """Of kernels and norms, BiT's last norm among them."""
        kernels = (7**2 if self.large_stem else 3**2) * channels * self.width
        normed = self.features if self.style == "bit" else self.width  # channels of all norms
        for b in self.blocks(image_size=1):
            kernels += b.features * b.out if b.shortcut else 0
            if self.basic:
                kernels += 3**2 * (b.features * b.mid + b.mid * b.out)
            else:
                kernels += b.features * b.mid + 3**2 * b.mid * b.mid + b.mid * b.out
            if self.style == "bit":  # one before each kernel
                normed += b.features + 2 * b.mid
            else:
                normed += (b.mid if self.basic else 2 * b.mid) + b.out + (b.out if b.shortcut else 0)
        return kernels + 2 * normed

    def kept(self, image_size: int, channels: int, narrow: int, kind: Kind) -> list[int]:
        """Bytes of each tensor that the backward pass of one image needs.

        CUDA's autocast computes group norms in float32: what they read, what they write and what ReLU
        makes of that are then wide, and convolutions read a narrow copy.
        """
        grouped = self.style != "bn" and kind == "cuda"
        wide = 4 if grouped else narrow
        copied = narrow if wide != narrow else 0  # of a wide map, for a convolution
        side, w = _half(image_size) if self.large_stem else image_size, self.width
        pooled = _half(side) ** 2 * w
        kept = []
        if self.style == "hybrid":  # padded by itself
            kept += [narrow * channels * _same(image_size, 7, 2) ** 2]
            kept += [wide * w * side**2] * 2 + [wide * w * _same(side, 3, 2) ** 2, 8 * pooled]  # places of the maxima
        else:
            kept += [narrow * channels * image_size**2]
            if self.style == "bn":
                kept += [narrow * w * side**2] * 2
                kept += [8 * pooled, narrow * pooled] if self.large_stem else []
            elif self.large_stem:
                kept += [narrow * w * (side + 2) ** 2, 8 * pooled]
        for b in self.blocks(image_size):
            area, out_area, padded = b.side**2, b.out_side**2, _same(b.side, 3, b.side // b.out_side) ** 2
            if self.style == "bit":  # norm, ReLU, kernel, three times
                for size in (area * b.features, area * b.mid, out_area * b.mid):
                    kept += [wide * size, (wide + copied) * size]
            elif self.style == "hybrid":  # each kernel pads its input into a copy
                kept += [narrow * area * b.features] * (2 if b.shortcut else 1)
                kept += [wide * area * b.mid] * 2 + [narrow * padded * b.mid]
                kept += [wide * out_area * b.mid] * 2 + [narrow * out_area * b.mid]
                kept += [wide * out_area * b.out] * (3 if b.shortcut else 2)
            else:  # kernel, norm, ReLU, two or three times
                kept += [] if self.basic else [narrow * area * b.mid] * 2
                kept += [narrow * out_area * b.mid] * 2
                kept += [narrow * out_area * b.out] * (3 if b.shortcut else 2)
        if self.style == "bit":
            kept += [wide * out_area * self.features] * 2
        elif copied:
            kept += [copied * out_area * self.features]
        return kept


def _body(spec: ViTSpec | ResNetSpec) -> _Body | None:
    """A residual network, or the one under a hybrid ViT."""
    if isinstance(spec, ResNetSpec):
        assert spec.layers is not None
        return _Body(spec.layers, spec.block == "basic", spec.stem == "imagenet", spec.width, spec.style)
    return _Body(spec.hybrid.layers, False, True, spec.hybrid.width, "hybrid") if spec.hybrid else None


def _half(side: int) -> int:
    return (side + 1) // 2


def _same(side: int, kernel: int, stride: int) -> int:
    """Side of a map padded as TensorFlow does."""
    return max(side, (-(-side // stride) - 1) * stride + kernel)


# --- Recipes


def training_bytes(
    recipe: Recipe, device: str, *, micro_batch: int | None = None, free_bytes: int | None = None
) -> int | None:
    """The most bytes of its device's memory that a run of the recipe holds, or None for timm or torchvision models.

    Measured on a CPU, models of many sizes held from a fifth less to a sixth more, with and without accumulation; less
    still where a batch has only a few images. On an H100 ViT-B/16, ViT-L/16 and ResNet-50 held from 2% less to 5% more,
    and small models up to 100 MB more, which libraries work in.

    Args:
        device: `cpu`, or one such as cuda:0.
        micro_batch: instead of the recipe's.
        free_bytes: of the device; data that is too large for them is read batch by batch. Held whole unless given.
    """
    kept, train = _kept(recipe, kind_of(device)), recipe.train
    count = parameters(
        recipe.model,
        image_size=recipe.image_size,
        channels=recipe.channels,
        num_classes=recipe.data.num_classes,
    )
    if kept is None or count is None:
        return None
    micro = micro_batch or train.micro_batch or train.batch_size
    image = sum(kept) + max(kept)  # one more of the largest, for the gradient that passes through
    batch = 4 * train.batch_size * recipe.channels * recipe.image_size**2  # augmented, before it is cut
    train_data, test_data = data_bytes(recipe)
    if free_bytes is not None and not resident(train_data, free_bytes):
        train_data = PREFETCHED * train.batch_size * _image_bytes(recipe)
    counted = {"test": test_data, "dev": recipe.dev_images * _image_bytes(recipe)}
    beside = sum(counted[split] for split in train.evaluate_epochs)
    training = count * _per_parameter(recipe) + micro * image + batch + train_data + beside
    looking = _evaluating(recipe, max(kept)) if kind_of(device) == "cuda" else 0
    along = looking if train.evaluate_epochs else 0  # what training needs is held meanwhile, by what is recorded of it
    return CONTEXT[kind_of(device)] + max(training + along, 4 * count + max(test_data, beside) + looking)


def fits_in_caches(recipe: Recipe, precision: Arithmetic) -> int:
    """Images whose largest tensors a CPU's caches hold together: a power of two, from 8 to what is evaluated at once.

    Measured on two cores that share 32 MiB, batches of so many are classified 1.0 to 1.35 times as fast as of 256.
    """
    known = recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": precision})})
    kept = _kept(known, "cpu")
    if kept is None:
        return recipe.eval_batch
    return min(recipe.eval_batch, max(8, 1 << (CACHE_BYTES // max(kept)).bit_length() >> 1))


def _evaluating(recipe: Recipe, largest: int) -> int:
    """Of a batch that is classified: its images as stored and as the model sees them, in float32, and three tensors.

    Args:
        largest: bytes that the largest tensor of an image has in training.
    """
    pixels = DATASETS[recipe.data.name].image_size ** 2 + recipe.image_size**2
    return recipe.eval_batch * (4 * recipe.channels * pixels + 3 * largest)


def _per_parameter(recipe: Recipe) -> int:
    """Bytes for each trained number: itself, its gradient, the optimiser's state, the average and copies."""
    train = recipe.train
    state = 8 if train.optimizer in ("adamw", "adam") else 4 if train.momentum else 0
    average = 4 if train.polyak is not None else 0
    return 4 + 4 + state + average + copied_bytes(recipe)


def copied_bytes(recipe: Recipe) -> int:
    """Of the copies of a trained number that the backward pass needs: cast for the products, or standardised."""
    model, narrow = recipe.model, recipe.train.precision in NARROW
    body = None if isinstance(model, LibraryModelSpec) else _body(model)
    standardised = body is not None and body.style != "bn"
    centred = (4 if narrow else 8) if standardised else 0  # kernels less their mean, and over their deviation
    return centred + (2 if narrow else 0)


def _image_bytes(recipe: Recipe) -> int:
    return DATASETS[recipe.data.name].image_size ** 2 * recipe.channels


def data_bytes(recipe: Recipe) -> tuple[int, int]:
    """Of the images held while training, dev images of a grid's rates among them, and while testing; as uint8."""
    tested = recipe.data.test_images or recipe.test_size
    return recipe.train_size * _image_bytes(recipe), tested * _image_bytes(recipe)


def resident(nbytes: int, free_bytes: int) -> bool:
    """Whether images of that size are held where they are used; if not, they are read batch by batch."""
    return nbytes <= DATA_SHARE * free_bytes


def fits(nbytes: int, free_bytes: int) -> bool:
    return nbytes <= USABLE * free_bytes


def smaller_batch(batch_size: int, than: int) -> int | None:
    """The largest divisor of a batch that is at most half of `than`, or None: what to try after that did not fit."""
    return next((size for size in range(than // 2, 0, -1) if batch_size % size == 0), None)


def key(recipe: Recipe, micro_batch: int | None = None) -> str:
    """What a run's memory depends on, beside the device."""
    train = recipe.train
    micro = micro_batch or train.micro_batch or train.batch_size
    what = recipe.model_dump(mode="json", include={"model", "augment"})
    sizes = [recipe.image_size, recipe.channels, recipe.data.num_classes, data_bytes(recipe), train.batch_size, micro]
    how = [train.precision, train.engine, train.optimizer, bool(train.momentum), train.polyak is not None]
    return content_hash([what, sizes, [*how, *train.evaluate_epochs]])


def measured(records: Iterable[Record], device_name: str, device: str) -> Iterator[tuple[str, int]]:
    """For each run that was made on such a device by one process: its `key`, and the most bytes it held there."""
    kind = kind_of(device)
    for record in records:
        result = record.result
        if not isinstance(result, TrainResult) or result.peak_memory_bytes is None or result.processes > 1:
            continue
        if record.environment.device_name != device_name or kind_of(record.environment.device) != kind:
            continue
        with contextlib.suppress(ValidationError):  # made when recipes could say other things
            recipe = Recipe.model_validate(record.config)
            outside = CONTEXT["cuda"] if kind == "cuda" else 0  # what torch did not allocate; all of it on a CPU
            yield key(recipe, result.micro_batch), result.peak_memory_bytes + outside


class Memories:
    """How much memory runs take on a device: as it was measured there, else by formula.

    Args:
        device: `cpu`, or one such as cuda:0.
        pairs: a recipe's `key` at a micro-batch, and the most bytes that a run held, as `measured` gives them; of
            several the largest counts.
    """

    def __init__(self, device: str, pairs: Iterable[tuple[str, int]] = ()) -> None:
        self.device = device
        self._measured: dict[str, int] = {}
        for of, nbytes in pairs:
            self._measured[of] = max(nbytes, self._measured.get(of, 0))

    def bytes(self, recipe: Recipe, micro_batch: int | None = None, free_bytes: int | None = None) -> int | None:
        """Of a process that makes a run of the recipe; None where nothing tells. Arguments as of `training_bytes`."""
        known = self._measured.get(key(recipe, micro_batch))
        if known is not None:
            return known
        return training_bytes(recipe, self.device, micro_batch=micro_batch, free_bytes=free_bytes)

    def largest_micro_batch(self, recipe: Recipe, free_bytes: int) -> int | None:
        """The whole batch, or half of it, half of that, ... which fits first; None if none does or nothing tells."""
        batch = micro = recipe.train.batch_size
        while micro:
            needed = self.bytes(recipe, micro, free_bytes)
            if needed is None:
                return None
            if fits(needed, free_bytes):
                return micro
            micro = smaller_batch(batch, micro) or 0
        return None


@dataclass(frozen=True)
class Room:
    """What a slot has, for runs whose memory is known or predicted.

    Attributes:
        slot_bytes: free on the device, shared out among its slots.
    """

    memories: Memories
    slot_bytes: int

    def needed(self, recipe: Recipe) -> int | None:
        return self.memories.bytes(recipe, free_bytes=self.slot_bytes)

    def holds(self, recipe: Recipe) -> bool | None:
        """Whether the recipe fits as it is; None where nothing tells."""
        needed = self.needed(recipe)
        return None if needed is None else fits(needed, self.slot_bytes)

    def micro_batch(self, recipe: Recipe) -> int | None:
        """The largest micro-batch that fits; None if none does or nothing tells."""
        return self.memories.largest_micro_batch(recipe, self.slot_bytes)


# --- Machines


def free_bytes(device: str) -> int:
    """Memory of a device that nobody holds now; of the machine, where that is the CPU's. Loads torch for CUDA alone."""
    if kind_of(device) == "cpu":
        return machine_bytes()
    import torch

    return torch.cuda.mem_get_info(device)[0]


def machine_bytes(root: Path = Path("/")) -> int:
    """Memory that this process and those it starts may still take: of the machine, and of its container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            limits.append(1024 * int(line.split()[1]))
    try:
        limit, used = (int((root / f"sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        limits.append(max(0, limit - used))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return min(limits, default=0)


def restart_peak(device: str) -> None:
    """Set the most memory that this process held back to what it holds now, where the system can."""
    if kind_of(device) == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: str) -> int:
    """The most memory that this process held since `restart_peak`: by tensors on a GPU, resident on a CPU."""
    if kind_of(device) == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def give_back() -> None:
    """Let the system have what is freed and still held: of the GPUs in use, and of the heap where the C library can."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def size(nbytes: int) -> str:
    """`230 MB`, `1.2 GB` or `23 GB`, of 1024**3 bytes."""
    gigabytes = nbytes / 2**30
    if gigabytes < 0.95:
        return f"{nbytes / 2**20:.0f} MB"
    return f"{gigabytes:.1f} GB" if gigabytes < 9.95 else f"{gigabytes:.0f} GB"
