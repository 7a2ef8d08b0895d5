"""Our side of a benchmark: the very functions that runs are made of."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vitrepro import engine
from vitrepro.bench.results import PRODUCT, Phase, Turn
from vitrepro.bench.setup import SEED, Memory, Setup, random_images, wait_for
from vitrepro.bench.workloads import timed
from vitrepro.data.augment import augment, normalize
from vitrepro.data.batches import batches
from vitrepro.data.splits import Split
from vitrepro.distributed import product_rate
from vitrepro.measure import accuracy
from vitrepro.memory import kind_of
from vitrepro.models.build import build
from vitrepro.passes import Passes
from vitrepro.recipe import Recipe
from vitrepro.runner import on_device
from vitrepro.train import TIMED_STEPS, WARM_STEPS, train

LEAD_STEPS = 2  # not timed: the allocator and the kernels of a turn warm up
NEVER = 1e9  # seconds between checkpoints


class Ours:
    """A model of ours, its images, and turns of it."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        recipe = setup.recipe
        self.setup, self.recipe, self.device = setup, recipe, setup.device
        self.kind = kind_of(setup.device)
        self.engine = engine.choose(recipe, setup.device, setup.precision)
        engine.settle(self.engine, setup.precision)
        self.images, self.labels = _on_device(recipe, setup.device)
        self.memory = Memory(setup.device)
        torch.manual_seed(SEED)
        model = build(
            recipe.model, image_size=recipe.image_size, channels=recipe.channels, num_classes=recipe.data.num_classes
        )
        self.parameters = sum(p.numel() for p in model.parameters())
        self.model = engine.configure(model.to(setup.device), self.engine)
        smoothing = recipe.train.label_smoothing
        self.passes = Passes(self.model, device=self.device, precision=setup.precision, label_smoothing=smoothing)
        self.compiled = False
        self.recorded_bytes = 0

    def training(self, steps: int) -> Turn:
        """Steps of `train.train`, in a run of its own that goes on with the same weights."""
        self._lead()
        self.memory.restart()
        began = time.perf_counter()
        self._train(steps)
        wait_for(self.device)
        seconds = time.perf_counter() - began
        return Turn(steps * self.recipe.train.batch_size, seconds, max(self.memory.bytes(), self.recorded_bytes))

    def _lead(self) -> None:
        """The steps before the clock starts; what is recorded meanwhile holds its memory ever after, uncounted."""
        self._train(LEAD_STEPS)
        wait_for(self.device)
        if self.passes.recorded and not self.recorded_bytes:
            self.recorded_bytes = self.memory.bytes()

    def _train(self, steps: int) -> None:
        with tempfile.TemporaryDirectory(prefix="vitrepro-bench-") as folder:
            train(
                self.model,
                self.images,
                self.labels,
                timed(self.recipe, steps),
                seed=SEED,
                device=self.device,
                precision=self.setup.precision,
                folder=Path(folder),
                engine=replace(self.engine, may_compile=False),  # compiled beforehand, or not at all
                checkpoint_seconds=NEVER,
                passes=self.passes,
            )

    def settle_on(self, step_seconds: float) -> bool:
        """Compile the model if a run as long as the recipe's would; whether it is compiled now."""
        left = self.recipe.steps - WARM_STEPS - TIMED_STEPS
        if self.engine.may_compile and engine.compilation_pays(self.recipe.model, step_seconds, left):
            self.recorded_bytes = 0
            self.memory.restart()
            self.passes.compile()
            self.compiled = True
            self._lead()
        return self.compiled

    def evaluation(self, number: int) -> Turn:
        """That many batches through `accuracy.predict`."""
        images = number * self.recipe.eval_batch
        self._predict(self.recipe.eval_batch)
        wait_for(self.device)
        self.memory.restart()
        began = time.perf_counter()
        for start in range(0, images, len(self.images)):
            self._predict(images - start)
        seconds = time.perf_counter() - began
        return Turn(images, seconds, self.memory.bytes())

    def _predict(self, images: int) -> None:
        with torch.compiler.set_stance("force_eager"):  # as after training
            accuracy.predict(
                engine.for_evaluation(self.model, self.engine),
                self.images[:images],
                self.recipe.augment,
                image_size=self.recipe.image_size,
                device=self.device,
                precision=self.setup.precision,
                batch_size=self.engine.eval_batch,
            )

    def input_alone(self, phase: Phase, number: int) -> float:
        """Seconds a batch takes to get and augment with nothing else to do."""
        get = self._training_input if phase == "training" else self._evaluation_input
        get(1)
        wait_for(self.device)
        began = time.perf_counter()
        get(number)
        wait_for(self.device)
        return (time.perf_counter() - began) / number

    def _training_input(self, number: int) -> None:
        for step, index in enumerate(batches(len(self.images), self.recipe.train.batch_size, number, SEED)):
            where = torch.from_numpy(index).to(self.device)
            augment(
                self.images[where],
                self.labels[where],
                self.recipe.augment,
                num_classes=self.recipe.data.num_classes,
                image_size=self.recipe.image_size,
                seed=SEED,
                step=step,
            )

    @torch.inference_mode()
    def _evaluation_input(self, number: int) -> None:
        for i in range(number):
            start = i * self.recipe.eval_batch % len(self.images)
            for batch in self.images[start : start + self.recipe.eval_batch].split(self.engine.eval_batch):
                normalize(batch, self.recipe.augment, self.recipe.image_size)

    def product_rate(self, size: int | None = None, repeats: int = 5) -> float:
        """Operations per second of a square matrix product with all threads, the best of a few."""
        threads, precision = self.setup.threads, self.setup.precision
        return product_rate(self.device, size or PRODUCT[self.kind], repeats, threads=threads, precision=precision)

    def rest(self) -> None:
        """Leave the GPU's memory to the others."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _on_device(recipe: Recipe, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images, uint8, (N, C, H, W), and labels, as a run has those of a split."""
    images, labels = random_images(recipe)
    split = Split(images, labels, np.arange(len(labels)), "", len(labels))
    return on_device(split, device), torch.from_numpy(split.labels).to(device)
