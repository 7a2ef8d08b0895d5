"""What somebody says was measured elsewhere: numbers of a command line and files of predictions, read and checked."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vitrepro.arrays import Bools, Ints
from vitrepro.errors import StoreError, UsageError
from vitrepro.store import read_predictions

Kind = Literal["--accuracy", "--correct", "--predictions"]
MOST_RUNS = 1000  # as many as an experiment may have seeds
COLUMNS = (("id", "predicted", "label"), ("id", "correct"))


@dataclass(frozen=True)
class Given:
    """What somebody says of one cell or arm: accuracies, counts or files.

    Attributes:
        accuracies: percent, one per training run.
        counts: images classified correctly, one per training run.
        files: predictions, one file per training run.
        digits: printed after the point of each accuracy; None where it is exact.
        runs, sd: the one accuracy is the mean of so many runs, which have this standard deviation.
        n: test images, where its source says so.
        quoted: it is what a claim reports, which need not say of how many runs.
    """

    accuracies: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    digits: tuple[int | None, ...] = ()
    runs: int | None = None
    sd: float | None = None
    n: int | None = None
    quoted: bool = False

    @property
    def values(self) -> int:
        """How many numbers or files were given."""
        return len(self.accuracies) + len(self.counts) + len(self.files)


# --- the command line ---------------------------------------------------------------------------


def gather(texts: Mapping[Kind, Sequence[str]], sds: Sequence[str], seeds: int | None) -> dict[str, Given]:
    """Everything that a command line says, by name; the empty name where there is none.

    Args:
        texts: `[NAME=]VALUE[,VALUE...]`, repeated.
        sds: `[NAME=]SD`: one accuracy is the mean of `seeds` runs with this standard deviation.

    Raises:
        UsageError: something cannot be read, or a name is given twice.
    """
    found: dict[str, Given] = {}
    for kind, of_kind in texts.items():
        for name, numbers in parse(kind, of_kind).items():
            if name in found:
                raise UsageError(f"{kind}: {name or 'the number'} is given in two ways; give one")
            found[name] = numbers
    if seeds is not None and not found:
        raise UsageError("--seeds says of how many runs --accuracy or --correct is the mean; neither is given")
    deviations = _deviations(sds, list(found))
    return {name: _with_spread(name, numbers, seeds, deviations.get(name)) for name, numbers in found.items()}


def parse(kind: Kind, texts: Sequence[str]) -> dict[str, Given]:
    """`[NAME=]VALUE[,VALUE...]`, repeated; the name is empty where none is given.

    Raises:
        UsageError: a name twice, no value, or a value that cannot be an accuracy in percent, a count or a path.
    """
    found: dict[str, Given] = {}
    for text in texts:
        name, values = _split(text)
        parts = [part.strip() for part in values.split(",")]
        if not all(parts):
            raise UsageError(f"{kind} {text!r}: expected [NAME=]VALUE[,VALUE...], a value for each training run")
        if name in found:
            raise UsageError(
                f"{kind} {text!r}: {name or 'a value without a name'} is given twice; separate runs by ','"
            )
        if kind == "--predictions":
            found[name] = Given(files=tuple(Path(p) for p in parts))
        elif kind == "--correct":
            found[name] = Given(counts=tuple(_count(text, p) for p in parts))
        else:
            found[name] = Given(
                accuracies=tuple(_percent(text, p) for p in parts), digits=tuple(_digits(p) for p in parts)
            )
    return found


def _split(text: str) -> tuple[str, str]:
    """Name and values; the '=' of a path such as out/lr=0.1/a.csv ends no name."""
    name, equals, values = text.partition("=")
    return (name.strip(), values) if equals and not re.search(r"[/\\,]", name) else ("", text)


def _percent(text: str, part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        hint = "; write percent without the sign" if part.endswith("%") else ""
        raise UsageError(f"--accuracy {text!r}: {part!r} is no number{hint}") from None
    if not math.isfinite(value):
        raise UsageError(f"--accuracy {text!r}: {part} is no accuracy; a run without a result cannot be judged")
    if not 0 <= value <= 100:
        raise UsageError(f"--accuracy {text!r}: {part} is not between 0 and 100; accuracies are in percent")
    if value <= 1:
        meant = f"; did you mean {100 * value:g}?" if value else "."
        raise UsageError(
            f"--accuracy {text!r}: accuracies are in percent{meant} One that really is not above 1% is given as "
            "--correct IMAGES"
        )
    return value


def _digits(part: str) -> int | None:
    """Digits behind the point of a number as it is written."""
    return None if "e" in part.lower() else len(part.partition(".")[2])


def _count(text: str, part: str) -> int:
    if not (part.isascii() and part.isdigit() and len(part) < 18):
        shown = part if len(part) < 40 else f"{part[:20]}..."
        raise UsageError(f"--correct {text[:60]!r}: {shown!r} is no number of images")
    return int(part)


def _deviations(sds: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Standard deviations by the name of the accuracy that they belong to."""
    found: dict[str, float] = {}
    for text in sds:
        name, value = _split(text)
        try:
            sd = float(value)
        except ValueError:
            raise UsageError(f"--sd {text!r}: {value!r} is no number") from None
        if not (math.isfinite(sd) and sd >= 0):
            raise UsageError(f"--sd {text}: a standard deviation in points is 0 or more")
        if name not in names and len(names) == 1 and "" in (name, names[0]):
            name = names[0]
        if name not in names:
            raise UsageError(f"--sd {text}: of which number? Name one, as in NAME=0.1 ({', '.join(names) or 'none'})")
        if name in found:
            raise UsageError(f"--sd {text}: {name or 'a deviation without a name'} is given twice")
        found[name] = sd
    return found


def _with_spread(name: str, given: Given, seeds: int | None, sd: float | None) -> Given:
    """With the runs and the deviation behind one accuracy.

    Raises:
        UsageError: a deviation without seeds, seeds without one, or several accuracies beside them.
    """
    if seeds is None and sd is None:
        return given
    if given.files:
        raise UsageError("--sd and --seeds go with one accuracy; files of predictions tell both")
    if seeds is not None and sd is None and seeds == given.values:
        return given
    if given.values != 1 or seeds is None or sd is None or seeds < 2:
        raise UsageError(
            f"{name + ': ' if name else ''}--seeds 3 --sd 0.05 say that one accuracy is the mean of three runs with "
            "this standard deviation; give both and one accuracy, or the accuracy of each run, separated by ','"
        )
    if seeds > MOST_RUNS:
        raise UsageError(f"--seeds {seeds:,}: at most {MOST_RUNS:,}")
    return replace(given, runs=seeds, sd=sd)


def spread(mean: float, sd: float, runs: int) -> tuple[float, ...]:
    """Accuracies with this mean and standard deviation; a verdict looks at nothing else of them.

    They have two values, so many of each that none is below 0 or above 100.

    Raises:
        UsageError: none are.
    """
    for high in sorted(range(1, runs), key=lambda k: abs(2 * k - runs)):
        up = sd * math.sqrt((runs - 1) * (runs - high) / (high * runs))
        down = up * high / (runs - high)
        if mean - down >= 0 and mean + up <= 100:
            return (mean + up,) * high + (mean - down,) * (runs - high)
    raise UsageError(f"--sd {sd:g}: {runs} runs that vary so much around {mean:g} would not stay within 0 and 100")


# --- files of predictions -----------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What one training run said of every test image, ascending by id; predicted and labels may be unknown."""

    path: Path
    correct: Bools
    predicted: Ints | None
    labels: Ints | None

    def same_as(self, other: Answers) -> bool:
        """Whether the two say the same of every image, as far as they tell."""
        if self.predicted is None or other.predicted is None:
            return np.array_equal(self.correct, other.correct)
        return np.array_equal(self.predicted, other.predicted)


def check_distinct(named: Mapping[str, Given]) -> None:
    """A file is one run of one arm or cell."""
    owner: dict[Path, str] = {}
    for name, given in named.items():
        for path in given.files:
            if owner.setdefault(path.resolve(), name) != name:
                raise UsageError(f"{path} is given twice; one run is no other arm")


def read(name: str, files: Sequence[Path], n: int | None, num_classes: int | None) -> list[Answers]:
    """What each file says, after holding its images against those that are expected.

    Args:
        n, num_classes: of the test set; None where nothing tells.

    Raises:
        UsageError: a file that cannot be read, predictions that are not of every image once, or one run twice.
    """
    found = [_answers(path, name, n, num_classes) for path in files]
    for b, a in ((b, a) for i, b in enumerate(found) for a in found[:i]):
        if np.array_equal(a.correct, b.correct):
            raise UsageError(
                f"{b.path}: right on exactly the images of {a.path}; one run given twice is no second seed of {name}"
            )
    if len({len(a.correct) for a in found}) > 1:
        sizes = ", ".join(f"{a.path} {len(a.correct):,}" for a in found)
        raise UsageError(f"{name}: files of different numbers of images: {sizes}")
    check_same_images(found)
    return found


def check_same_images(answers: Sequence[Answers]) -> None:
    """Files that are held against each other must be of the same images, as far as their labels tell."""
    labelled = [(a.path, a.labels) for a in answers if a.labels is not None]
    for path, labels in labelled[1:]:
        first_path, first = labelled[0]
        if not np.array_equal(first, labels):
            at = int(np.flatnonzero(first != labels)[0])
            raise UsageError(
                f"{path}: image {at} has label {labels[at]}, in {first_path} {first[at]}: different labels, so they "
                "are of different images"
            )


def _answers(path: Path, name: str, n: int | None, num_classes: int | None) -> Answers:
    columns = _columns(path)
    ids, labels, predicted = columns["id"], columns.get("label"), columns.get("predicted")
    _complete(path, ids, n or len(ids), name)
    order = np.argsort(ids)
    if labels is not None and predicted is not None:
        _check_labels(path, name, labels, num_classes)
        return Answers(path, (predicted == labels)[order], predicted[order], labels[order])
    correct = columns["correct"]
    wrong = np.flatnonzero(correct > 1)
    if len(wrong):
        raise UsageError(f"{path}: image {ids[wrong[0]]}: correct is {correct[wrong[0]]}, expected 0 or 1")
    return Answers(path, (correct == 1)[order], None, None)


def _complete(path: Path, ids: Ints, n: int, name: str) -> None:
    """Every image from 0 to n - 1 stands once."""
    values, times = np.unique(ids, return_counts=True)
    if times.max() > 1:
        often = int(times.argmax())
        raise UsageError(f"{path}: image {values[often]} stands {times[often]} times; each image stands once")
    if len(ids) != n:
        raise UsageError(f"{path}: {len(ids):,} images of the {n:,} of {name}; part of a test set decides nothing")
    if values[0] != 0 or values[-1] != n - 1:
        raise UsageError(
            f"{path}: ids from {values[0]} to {values[-1]}, expected 0 to {n - 1:,}, the place of each image in the "
            "test set: these are predictions of other images, or under other names"
        )


def _check_labels(path: Path, name: str, labels: Ints, num_classes: int | None) -> None:
    classes = len(np.unique(labels))
    if classes < 2:
        raise UsageError(f"{path}: all labels are {labels[0]}; images of one class cannot tell a model from a guess")
    if num_classes is not None and classes > num_classes:
        raise UsageError(f"{path}: labels of {classes} classes, {name} has {num_classes}: these are other images")


def _columns(path: Path) -> dict[str, Ints]:
    """The columns that are needed, of whole numbers from 0 on."""
    try:
        if path.suffix == ".csv":
            columns = _csv(path)
        elif path.suffix in (".npz", ".safetensors"):
            columns = _arrays(path, path.read_bytes())
        else:
            raise UsageError(
                f"{path}: unknown format; expected .csv, .npz or .safetensors with ids, predicted and labels"
            )
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except StoreError as error:
        raise UsageError(str(error)) from None
    if not len(columns["id"]):
        raise UsageError(f"{path}: no predictions in it")
    return columns


def _arrays(path: Path, content: bytes) -> dict[str, Ints]:
    if path.suffix == ".npz" and not content.startswith(b"PK"):
        raise UsageError(f"{path}: cannot be read (no archive, as numpy.savez writes it)")
    p = read_predictions(path, content)
    return {"id": p.ids, "predicted": p.predicted, "label": p.labels}


def _wanted(path: Path, found: Sequence[str]) -> tuple[str, ...]:
    """Which columns to read.

    Raises:
        UsageError: some are missing, or one stands twice.
    """
    twice = next((name for i, name in enumerate(found) if name in found[:i]), None)
    if twice is not None:
        raise UsageError(f"{path}: column {twice} stands twice")
    wanted = next((w for w in COLUMNS if set(w) <= set(found)), None)
    if wanted is None:
        raise UsageError(f"{path}: columns {', '.join(found) or 'nothing'}; expected id,predicted,label or id,correct")
    return wanted


def _csv(path: Path) -> dict[str, Ints]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            columns = [c.strip() for c in reader.fieldnames or []]
            reader.fieldnames = columns
            wanted = _wanted(path, columns)
            values = np.array(list(_integers(path, reader, wanted)), dtype=np.int64).reshape(-1, len(wanted))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: no table of text: {error}") from None
    return dict(zip(wanted, values.T, strict=True))


def _integers(path: Path, reader: csv.DictReader[str], wanted: Sequence[str]) -> Iterator[list[int]]:
    for row in reader:
        numbers = []
        for column in wanted:
            text = (row[column] or "").strip()
            if not (text.isascii() and text.isdigit() and len(text) < 10):
                raise UsageError(
                    f"{path}:{reader.line_num}: {column} is {text!r}, expected a whole number below a billion"
                )
            numbers.append(int(text))
        yield numbers
