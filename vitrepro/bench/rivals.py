"""The other sides: the same work by timm's parts, and by a plain loop as tutorials write it.

Each is treated kindly: images are in memory and need no decoding, workers persist and have started, no loss is
read more often than the scripts do, and the clock runs while the loader is as far ahead as it can keep.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from vitrepro.arrays import Ints
from vitrepro.bench import counterparts
from vitrepro.bench.results import Phase, Turn
from vitrepro.bench.setup import SEED, Memory, Setup, random_images, settle, wait_for
from vitrepro.bench.supply import Batches, Supply
from vitrepro.bench.workloads import RATE
from vitrepro.catalog import DATASETS
from vitrepro.distributed import autocast
from vitrepro.recipe import EVALUATION_BATCH, Recipe, ResNetSpec

LOG_STEPS = 50  # between the losses that timm's script reads


class Images:
    """Images as torchvision's CIFAR10 gives them: made into PIL images from an array, then transformed.

    As long as it is told to be; the arrays are read again from the start.
    """

    def __init__(self, images: NDArray[np.uint8], labels: Ints, transform: Any = None) -> None:
        self.images, self.labels, self.transform = images, labels, transform
        self.length = len(images)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[Any, int]:
        i %= len(self.images)
        pixels = self.images[i]
        image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
        return self.transform(image), int(self.labels[i])


class Rival:
    """Somebody else's model, loaders and loop, and turns of them."""

    def __init__(self, setup: Setup, opponent: str) -> None:
        settle(setup)
        recipe = setup.recipe
        self.setup, self.recipe, self.device = setup, recipe, setup.device
        self.micro = recipe.train.micro_batch or recipe.train.batch_size
        self.parts = recipe.train.batch_size // self.micro
        images, labels = random_images(recipe)
        self.data: dict[Phase, Images] = {phase: Images(images, labels) for phase in ("training", "evaluation")}
        self.memory = Memory(setup.device)
        torch.manual_seed(SEED)
        model = counterparts.build(recipe, opponent).to(setup.device)
        self.parameters = sum(p.numel() for p in model.parameters())
        make = {"timm": _timm, "plain": _plain}[opponent]
        self.model, loaders, self.step = make(self, model)
        sizes: dict[Phase, int] = {"training": self.micro, "evaluation": EVALUATION_BATCH}
        self.supplies: dict[Phase, Supply] = {
            phase: Supply(loaders[phase], self.data[phase], size, setup.workers) for phase, size in sizes.items()
        }

    def training(self, steps: int) -> Turn:
        """Optimiser steps, once the loader is as far ahead as they let it be."""
        supply = self.supplies["training"]
        self.model.train()
        with supply.flowing((supply.ahead + steps) * self.parts, in_steps=True) as batches:
            for i in range(supply.lead(self.parts)):
                self.step(batches, i)
            wait_for(self.device)
            self.memory.restart()
            began = time.perf_counter()
            for i in range(steps):
                self.step(batches, i)
            wait_for(self.device)
            seconds = time.perf_counter() - began
        return Turn(steps * self.recipe.train.batch_size, seconds, self.memory.bytes())

    def evaluation(self, number: int) -> Turn:
        """Batches classified and counted, as above."""
        supply = self.supplies["evaluation"]
        self.model.eval()
        with supply.flowing(supply.ahead + number, in_steps=True) as batches:
            self._count(batches, supply.lead(1))
            wait_for(self.device)
            self.memory.restart()
            began = time.perf_counter()
            self._count(batches, number)
            seconds = time.perf_counter() - began
        return Turn(number * EVALUATION_BATCH, seconds, self.memory.bytes())

    @torch.inference_mode()
    def _count(self, batches: Batches, number: int) -> int:
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for _ in range(number):
            images, labels = next(batches)
            with autocast(self.device, self.setup.precision):
                logits = self.model(images)
            correct += (logits.argmax(1) == labels).sum()
        return int(correct)

    def whole_run(self) -> None:
        """The steps of the recipe and its test split, once; the workers' start is part of it."""
        self.model.train()
        batches = self.supplies["training"].epoch(self.recipe.steps * self.recipe.train.batch_size)
        for i in range(self.recipe.steps):
            self.step(batches, i)
        self.model.eval()
        batches = self.supplies["evaluation"].epoch(self.recipe.test_size)
        self._count(batches, math.ceil(self.recipe.test_size / EVALUATION_BATCH))

    def input_alone(self, phase: Phase, number: int) -> float:
        """Seconds a batch takes to get and augment with nothing else to do, all workers at it."""
        supply, parts = self.supplies[phase], self.parts if phase == "training" else 1
        with supply.flowing(supply.ahead + number * parts, in_steps=False) as batches:
            for _ in range(supply.ahead):
                next(batches)
            wait_for(self.device)
            began = time.perf_counter()
            for _ in range(number * parts):
                next(batches)
            wait_for(self.device)
            seconds = time.perf_counter() - began
        return seconds / number

    def rest(self) -> None:
        """Leave the GPU's memory to the others."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


class Runs:
    """Whole runs by somebody else's parts, one after another, each with a model and loaders of its own."""

    def __init__(self, setup: Setup, opponent: str) -> None:
        self.setup, self.opponent = setup, opponent
        self.parameters = sum(p.numel() for p in counterparts.build(setup.recipe, opponent).parameters())

    def whole_runs(self, number: int) -> float:
        """Seconds for so many."""
        began = time.perf_counter()
        for _ in range(number):
            rival = Rival(self.setup, self.opponent)
            rival.whole_run()
            rival.supplies.clear()  # which ends their workers; left to the garbage collector, each is waited for
        return time.perf_counter() - began


Made = tuple[nn.Module, dict[Phase, Any], Callable[[Batches, int], None]]


def _timm(rival: Rival, model: nn.Module) -> Made:
    """timm's loaders, and a step of its training script."""
    from timm.data import create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.models import model_parameters
    from timm.optim import create_optimizer_v2
    from timm.utils import AverageMeter, NativeScaler, dispatch_clip_grad

    setup, recipe, spec = rival.setup, rival.recipe, rival.recipe.train
    loader: Any = create_loader  # it asks for less of a data set than it says
    torch.backends.cudnn.benchmark = True
    channels_last = isinstance(recipe.model, ResNetSpec)  # its script's --channels-last, which helps convolutions
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    made = recipe.augment
    shared: dict[str, Any] = {
        "input_size": (recipe.channels, recipe.image_size, recipe.image_size),
        "interpolation": "bilinear",
        "mean": (made.mean,) * recipe.channels,
        "std": (made.std,) * recipe.channels,
        "num_workers": setup.workers,
        "device": torch.device(setup.device),
    }
    crop, jitter = made.random_resized_crop, made.color_jitter
    loaders: dict[Phase, Any] = {
        "training": loader(
            rival.data["training"],
            batch_size=rival.micro,
            is_training=True,
            scale=crop.scale if crop else None,
            ratio=crop.ratio if crop else None,
            hflip=0.5 if made.flip else 0.0,
            color_jitter=(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) if jitter else None,
            **shared,
        ),
        "evaluation": loader(
            rival.data["evaluation"], batch_size=EVALUATION_BATCH, crop_pct=1.0, crop_mode="squash", **shared
        ),
    }
    if crop is None:  # the first of its transforms is a random resized crop
        transforms = rival.data["training"].transform.transforms
        transforms[:1] = _cropping(recipe)
    loss_of = LabelSmoothingCrossEntropy(spec.label_smoothing) if spec.label_smoothing else nn.CrossEntropyLoss()
    named = "momentum" if spec.optimizer == "sgd" else spec.optimizer
    more: dict[str, Any] = {} if spec.optimizer == "sgd" else {"betas": spec.betas}
    optimizer = create_optimizer_v2(
        model, opt=named, lr=RATE, weight_decay=spec.weight_decay, momentum=spec.momentum, **more
    )
    scaler = NativeScaler(device="cuda") if setup.precision == "fp16" else None
    losses = AverageMeter()

    def step(batches: Batches, number: int) -> None:
        for part in range(rival.parts):
            images, labels = next(batches)
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            update = part == rival.parts - 1
            with autocast(setup.device, setup.precision):
                loss = loss_of(model(images), labels)
            if rival.parts > 1:
                loss = loss / rival.parts
            if scaler is not None:
                scaler(
                    loss, optimizer, clip_grad=spec.clip_norm, parameters=model_parameters(model), need_update=update
                )
                continue
            loss.backward()
            if update:
                if spec.clip_norm is not None:
                    dispatch_clip_grad(model_parameters(model), value=spec.clip_norm, mode="norm")
                optimizer.step()
        optimizer.zero_grad()
        if number % LOG_STEPS == 0:
            losses.update(loss.item() * rival.parts, spec.batch_size)

    return model, loaders, step


def _plain(rival: Rival, model: nn.Module) -> Made:
    """torchvision's transforms in a DataLoader, and the loop of the tutorials."""
    from torchvision import transforms

    setup, recipe, spec = rival.setup, rival.recipe, rival.recipe.train
    made = recipe.augment
    crop, jitter = made.random_resized_crop, made.color_jitter
    resize = [] if DATASETS[recipe.data.name].image_size == recipe.image_size else [_resize(recipe)]
    tensor = [
        transforms.ToTensor(),
        transforms.Normalize((made.mean,) * recipe.channels, (made.std,) * recipe.channels),
    ]
    cropped = [transforms.RandomResizedCrop(recipe.image_size, crop.scale, crop.ratio)] if crop else _cropping(recipe)
    flip = [transforms.RandomHorizontalFlip()] if made.flip else []
    jittered = (
        [transforms.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)] if jitter else []
    )
    rival.data["training"].transform = transforms.Compose([*cropped, *flip, *jittered, *tensor])
    rival.data["evaluation"].transform = transforms.Compose([*resize, *tensor])
    shared: dict[str, Any] = {
        "num_workers": setup.workers,
        "persistent_workers": setup.workers > 0,
        "pin_memory": setup.device.startswith("cuda"),
    }

    def to_device(loader: DataLoader[Any]) -> Any:
        return _OnDevice(loader, setup.device)

    loaders: dict[Phase, Any] = {
        "training": to_device(DataLoader(rival.data["training"], rival.micro, shuffle=True, **shared)),  # type: ignore[arg-type]
        "evaluation": to_device(DataLoader(rival.data["evaluation"], EVALUATION_BATCH, **shared)),  # type: ignore[arg-type]
    }
    loss_of = nn.CrossEntropyLoss(label_smoothing=spec.label_smoothing)
    optimizer: torch.optim.Optimizer
    if spec.optimizer != "sgd":
        adam = torch.optim.AdamW if spec.optimizer == "adamw" else torch.optim.Adam
        optimizer = adam(model.parameters(), lr=RATE, betas=spec.betas, weight_decay=spec.weight_decay)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=spec.momentum, weight_decay=spec.weight_decay)
    scaler = torch.amp.GradScaler(setup.device.partition(":")[0], enabled=setup.precision == "fp16")
    running = 0.0

    def step(batches: Batches, number: int) -> None:  # noqa: ARG001
        nonlocal running
        optimizer.zero_grad()
        for _ in range(rival.parts):
            images, labels = next(batches)
            with autocast(setup.device, setup.precision):
                loss = loss_of(model(images), labels) / rival.parts
            scaler.scale(loss).backward()
            running += loss.item()
        if spec.clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm)
        scaler.step(optimizer)
        scaler.update()

    return model, loaders, step


class _OnDevice:
    """A loader whose batches are moved to the device, as the loop of a tutorial does first."""

    def __init__(self, loader: DataLoader[Any], device: str) -> None:
        self.loader, self.device = loader, device

    def __iter__(self) -> Batches:
        for images, labels in self.loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def _cropping(recipe: Recipe) -> list[Any]:
    """The padded random crop of the recipe, if it has one, and the model's size."""
    from torchvision import transforms

    stored = DATASETS[recipe.data.name].image_size
    padding = recipe.augment.crop_padding
    crop = [transforms.RandomCrop(stored, padding=padding)] if padding else []
    return crop if stored == recipe.image_size else [*crop, _resize(recipe)]


def _resize(recipe: Recipe) -> Any:
    from torchvision import transforms

    return transforms.Resize((recipe.image_size, recipe.image_size))
