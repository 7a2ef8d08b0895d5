"""What a run leaves behind: who it was, what it measured, and on what it ran."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from vitrepro.recipe import Arithmetic, Strict
from vitrepro.spec import canonical_json

if TYPE_CHECKING:  # listing claims must not wait for numpy
    from vitrepro.arrays import Bools, Ints


# Part of every run's identity. Raise it when the same recipe would lead to other weights than before.
ENGINE = 4


class Stored(Strict):
    """A part of a file that vitrepro writes; its validator is made when the first is read."""

    model_config = ConfigDict(defer_build=True)


class Deviation(Stored):
    """A setting changed by hand against the experiment file."""

    path: str
    used: str
    registered: str

    def __str__(self) -> str:
        return f"{self.path} {self.used}, registered {self.registered}"


class Environment(Stored):
    """Where a run was made."""

    vitrepro: str
    git_revision: str | None
    python: str
    packages: dict[str, str]
    platform: str
    device: str = Field(description="cpu or cuda:0, as torch calls it")
    device_name: str
    threads: PositiveInt


class GridPoint(Stored):
    """What one learning rate came to on the dev split."""

    lr: float
    correct: NonNegativeInt | None = Field(description="None where training diverged, which loses")
    n: PositiveInt


class EpochPoint(Stored):
    """What training came to in one epoch, and how many images of a split were right after it.

    Attributes:
        steps: of the run, when it was over.
        train_loss: mean over its steps of the mean loss of their batches, in nats.
        train_loss_sum: the sum instead, as many programs print it.
    """

    epoch: PositiveInt
    steps: PositiveInt
    train_loss: float
    train_loss_sum: float
    dev_correct: NonNegativeInt | None = None
    dev_n: PositiveInt | None = None
    test_correct: NonNegativeInt | None = None
    test_n: PositiveInt | None = None

    @model_validator(mode="after")
    def _possible(self) -> EpochPoint:
        for correct, n in ((self.dev_correct, self.dev_n), (self.test_correct, self.test_n)):
            if (correct is None) != (n is None) or (correct or 0) > (n or 0):
                raise ValueError(f"{correct} of {n} images cannot be right")
        return self

    @property
    def measures(self) -> dict[str, float]:
        """By the names of `metrics.OF_AN_EPOCH`; accuracies in percent, of the splits that were looked at."""
        made = {"train_loss": self.train_loss, "train_loss_sum": self.train_loss_sum}
        if self.dev_correct is not None and self.dev_n is not None:
            made["dev_top1"] = 100 * self.dev_correct / self.dev_n
        if self.test_correct is not None and self.test_n is not None:
            made["test_top1"] = 100 * self.test_correct / self.test_n
        return made


class TrainResult(Stored):
    """Counts over the whole test split, and how the weights came about.

    Attributes:
        n, correct: test images evaluated and classified correctly; accuracy is correct / n.
        complete_n: test images of a complete evaluation.
        ids_sha256, train_sha256, test_sha256, data_sha256: which images, in which order, with which pixels.
        weights_sha256: of the weights that were tested; equal weights, equal hash.
        initial_sha256: of the file of released weights that training started from, if it did.
        lr: peak learning rate of the final weights, chosen among `lr_grid_dev` where that is not empty.
        micro_batch: images per backward pass of a process; gradients were accumulated up to the effective batch.
        did_not_fit: larger micro-batches that ran out of memory.
        choices: made for speed, by name; see `vitrepro.engine`.
        peak_memory_bytes: of the device's memory on CUDA, of the process's on a CPU.
        steps: made; fewer than planned where `train.patience` ended the training.
        epochs: that were made, where the recipe's length is in epochs.
        kept_epoch: whose weights were tested, where the recipe chooses one.
        test_looks: how often the test images were looked at.
    """

    n: PositiveInt
    correct: NonNegativeInt
    complete_n: PositiveInt
    num_classes: PositiveInt
    ids_sha256: str
    train_sha256: str
    test_sha256: str
    data_sha256: str = Field(description="of the whole data set as it was decoded, both splits")
    weights_sha256: str
    parameters: PositiveInt
    train_images: PositiveInt
    steps: PositiveInt
    skipped_steps: NonNegativeInt
    effective_batch: PositiveInt
    micro_batch: PositiveInt
    precision: Arithmetic
    final_loss: float | None
    dev_correct: NonNegativeInt | None
    dev_n: PositiveInt | None
    train_seconds: NonNegativeFloat
    eval_seconds: NonNegativeFloat
    resumed_at: tuple[NonNegativeInt, ...] = Field((), description="steps at which a killed run went on")
    test_looks: PositiveInt = 1
    initial_sha256: str | None = None
    lr: float | None = None
    lr_grid_dev: tuple[GridPoint, ...] = ()
    data_changes: tuple[str, ...] = Field((), description="what was done to the images beyond decoding")
    measures: dict[str, float] = Field(default_factory=dict, description="of the trained model, by name")
    processes: PositiveInt = Field(1, description="that shared the run")
    did_not_fit: tuple[PositiveInt, ...] = ()
    choices: dict[str, str] = Field(default_factory=dict)
    peak_memory_bytes: PositiveInt | None = None
    epochs: tuple[EpochPoint, ...] = ()
    kept_epoch: PositiveInt | None = None

    @property
    def every_measure(self) -> dict[str, float]:
        """By name: what was taken, and what the epochs come to."""
        made = {f"{name}_epoch_{p.epoch}": value for p in self.epochs for name, value in p.measures.items()}
        on_dev, on_test = ([p.measures.get(f"{split}_top1", -1.0) for p in self.epochs] for split in ("dev", "test"))
        if self.epochs and min(*on_dev, *on_test) >= 0:
            made["selection_gain"] = max(on_test) - on_test[on_dev.index(max(on_dev))]
        return {**made, **self.measures}

    @model_validator(mode="after")
    def _possible(self) -> TrainResult:
        if not self.correct <= self.n <= self.complete_n:
            raise ValueError(f"correct {self.correct}, n {self.n} and complete_n {self.complete_n} cannot all be")
        return self


class AnalyticResult(Stored):
    quantities: dict[str, float]


class Record(Stored):
    """One finished run; `config` is the recipe or the analytic arm, whole."""

    schema_version: Literal[1] = 1
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    engine: PositiveInt = ENGINE
    type: Literal["train", "analytic"]
    experiment: str
    arm: str
    seed: NonNegativeInt
    config: dict[str, Any]
    config_hash: str
    claims: dict[str, str] = Field(description="claim id: hash of the claim when the run was made")
    deviations: tuple[Deviation, ...] = ()
    result: TrainResult | AnalyticResult
    environment: Environment
    predictions_sha256: str | None = Field(None, description="of the file of predictions, where there is one")
    started_at: str = Field(description="UTC, ISO 8601")
    wall_seconds: NonNegativeFloat


def run_identity(engine: int, type: str, config: dict[str, Any], seed: int) -> str:
    """A run's id: hash of exactly what determines its result, given the data (whose hash the record holds)."""
    text = f'[{engine},"{type}",{_config_json(config)},{seed}]'
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_written: tuple[dict[str, Any], str] = ({}, "{}")


def _config_json(config: dict[str, Any]) -> str:
    """The config as canonical JSON; the last one is kept, since the seeds of an arm are read one after another."""
    global _written
    known, text = _written
    if known != config:
        text = canonical_json(config)
        _written = (config, text)
    return text


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a run said of every test image, ascending by id; all arrays (n,)."""

    ids: Ints
    predicted: Ints
    labels: Ints

    @property
    def correct(self) -> Bools:
        return self.predicted == self.labels

    @property
    def distinct(self) -> bool:
        """No image stands twice."""
        ids = self.by_id().ids
        return bool((ids[1:] > ids[:-1]).all())

    def by_id(self) -> Predictions:
        """The same, ascending by id; itself where it is already, as stored predictions are."""
        if bool((self.ids[1:] >= self.ids[:-1]).all()):
            return self
        order = self.ids.argsort()
        return Predictions(self.ids[order], self.predicted[order], self.labels[order])


@dataclass(frozen=True)
class Measured:
    """One planned run and what became of it: a record, an error, or nothing yet.

    Attributes:
        predictions: of a trained run; None for an analytic one.
    """

    run_id: str
    arm: str
    seed: int
    record: Record | None = None
    predictions: Predictions | None = None
    error: str | None = None
