"""What runs cost before they are run: images, FLOPs, and time from what was measured on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass

from pydantic import ValidationError

from vitrepro import flops
from vitrepro.plan import Run
from vitrepro.recipe import Recipe
from vitrepro.record import Record, TrainResult
from vitrepro.spec import content_hash

START_SECONDS = 2.0  # a process, its imports and its data, beside training and evaluation


@dataclass(frozen=True)
class Cost:
    """Of several runs together.

    Attributes:
        flops: of training and evaluation; None if a model's count has no closed form.
        seconds: of wall time over all slots; None while a model was never timed here.
    """

    runs: int
    train_images: int
    test_images: int
    flops: float | None
    seconds: float | None


class Timings:
    """How fast each model went on this machine, read off the records of a store.

    On a CPU that is with this many threads; `at` is for another number of them, since a run has as many as the
    runs beside it leave.
    """

    def __init__(self, records: Iterable[Record], device_name: str, threads: int) -> None:
        self.threads = threads
        self._train: dict[tuple[str, int], float] = {}  # by model and threads, 0 on CUDA, which computes without them
        self._test: dict[tuple[str, int], float] = {}
        for record in sorted(records, key=lambda r: r.started_at):  # the newest counts
            result = record.result
            if not isinstance(result, TrainResult) or record.environment.device_name != device_name:
                continue
            if result.processes > 1 or result.resumed_at or not result.train_seconds or not result.eval_seconds:
                continue
            try:
                model = _model_key(Recipe.model_validate(record.config))
            except ValidationError:  # made when recipes could say other things
                continue
            key = model, record.environment.threads if record.environment.device == "cpu" else 0
            trials = [p.n for p in result.lr_grid_dev if p.correct is not None]  # of those that did not diverge
            self._train[key] = (1 + len(trials)) * result.steps * result.effective_batch / result.train_seconds
            along = sum((point.dev_n or 0) + (point.test_n or 0) for point in result.epochs)
            along += result.train_images if "train_top1" in result.measures else 0
            self._test[key] = (result.n + (result.dev_n or 0) + sum(trials) + along) / result.eval_seconds

    def at(self, threads: int) -> Timings:
        """The same, of runs with that many threads."""
        other = copy(self)
        other.threads = threads
        return other

    def seconds(self, run: Run) -> float | None:
        """Of one run on one slot; None if its model was never timed here."""
        if not isinstance(run.config, Recipe):
            return 5.0  # building and counting; nothing is trained
        model = _model_key(run.config)
        key = next((k for k in ((model, self.threads), (model, 0)) if k in self._train), None)
        if key is None:
            return None
        train, evaluated = images(run)
        return START_SECONDS + train / self._train[key] + evaluated / self._test[key]


def _model_key(recipe: Recipe) -> str:
    """What a model's speed depends on: itself, the image size, the arithmetic and the batch."""
    train = recipe.train
    how: list[object] = [
        recipe.image_size,
        train.precision,
        train.batch_size,
        train.micro_batch,
        train.engine,
        train.deterministic,
    ]
    how += [train.trainable] if train.trainable == "head" else []
    return content_hash([recipe.model.model_dump(mode="json"), recipe.augment.model_dump(mode="json"), how])


def images(run: Run) -> tuple[int, int]:
    """Training images processed, repetitions and all rates of a grid counted, and images evaluated: test and dev, in
    the end and after epochs, and training images where their accuracy is measured."""
    return recipe_images(run.config) if isinstance(run.config, Recipe) else (0, 0)


def recipe_images(recipe: Recipe) -> tuple[int, int]:
    """The same, of a recipe."""
    looks = len(recipe.train.lr_grid or (None,))  # at the dev split, where there is one
    sizes = {"test": recipe.data.test_images or recipe.test_size, "dev": recipe.dev_images}
    along = len(recipe.epoch_ends) * sum(sizes[split] for split in recipe.train.evaluate_epochs)
    seen = recipe.train_size if "train_top1" in recipe.measures else 0
    evaluated = sizes["test"] + looks * sizes["dev"] + along + seen
    return recipe.total_steps * recipe.train.batch_size, evaluated


def run_flops(run: Run) -> float | None:
    """2 per multiply-accumulate that is carried out; a training image costs three forward passes, or one where the last
    layer alone is trained."""
    return recipe_flops(run.config) if isinstance(run.config, Recipe) else 0.0


def recipe_flops(recipe: Recipe) -> float | None:
    """The same, of a recipe; None if the model's count has no closed form."""
    macs = _macs(recipe)
    if macs is None:
        return None
    train, evaluated = recipe_images(recipe)
    return _training_flops(recipe, macs, train) + 2.0 * macs * evaluated


def pass_flops(run: Run) -> float | None:
    """Of a forward and backward pass of one micro-batch; None if the model's count has no closed form."""
    if not isinstance(run.config, Recipe):
        return 0.0
    macs, train = _macs(run.config), run.config.train
    return None if macs is None else _training_flops(run.config, macs, train.micro_batch or train.batch_size)


def _training_flops(recipe: Recipe, macs: int, images: float) -> float:
    whole = flops.training_flops(macs, images)
    return whole if recipe.train.trainable == "all" else whole / flops.TRAINING_PASSES


def _macs(recipe: Recipe) -> int | None:
    """Of one image's forward pass, as the recipe's engine computes it."""
    count = flops.executed_macs if recipe.train.engine == "fast" else flops.forward_macs
    return count(
        recipe.model,
        image_size=recipe.image_size,
        channels=recipe.channels,
        num_classes=recipe.data.num_classes,
        batch_size=recipe.train.batch_size,
    )


def total(runs: Sequence[Run], timings: Timings, slots: int) -> Cost:
    """The cost of several runs on `slots` equal slots, packed as evenly as they go."""
    each = [timings.seconds(r) for r in runs]
    counts = [run_flops(r) for r in runs]
    known = [s for s in each if s is not None]
    complete = len(known) == len(runs)
    return Cost(
        runs=len(runs),
        train_images=sum(images(r)[0] for r in runs),
        test_images=sum(images(r)[1] for r in runs),
        flops=None if None in counts else sum(c for c in counts if c is not None),
        seconds=max(sum(known) / slots, max(known, default=0.0)) if complete else None,
    )


def duration(seconds: float | None) -> str:
    """`3 min 20 s`, or a question mark for a time not known."""
    if seconds is None:
        return "?"
    whole = max(1, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if not hours else ""]
    return " ".join(p for p in parts if p)
