"""What somebody says was measured elsewhere: numbers of a command line and files of predictions, read and checked."""

from __future__ import annotations

import csv
import itertools
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


def refuse(*faults: tuple[object, str]) -> None:
    """Check what was given.

    Args:
        faults: a condition, and what to say where it holds; the first that holds counts.

    Raises:
        UsageError: one holds.
    """
    for holds, message in faults:
        if holds:
            raise UsageError(message)


# --- the command line ---------------------------------------------------------------------------


def gather(texts: Mapping[Kind, Sequence[str]], sds: Sequence[str], seeds: int | None) -> dict[str, Given]:
    """Everything that a command line says, by name; the empty name where there is none.

    Args:
        texts: `[NAME=]VALUE[,VALUE...]`, repeated.
        sds: `[NAME=]SD`: one accuracy is the mean of `seeds` runs with this standard deviation.

    Raises:
        UsageError: a name twice, no value, or one that cannot be an accuracy in percent, a count, a path or a
            deviation.
    """
    found: dict[str, Given] = {}
    for kind, text in ((kind, text) for kind, of_kind in texts.items() for text in of_kind):
        name, values = _split(text)
        parts = [part.strip() for part in values.split(",")]
        where = f"{kind} {text[:60]!r}"
        refuse(
            (not all(parts), f"{where}: expected [NAME=]VALUE[,VALUE...], a value for each training run"),
            (name in found, f"{where}: {name or 'a value without a name'} is given twice; separate runs by ','"),
        )
        if kind == "--accuracy":
            digits = tuple(None if "e" in p.lower() else len(p.partition(".")[2]) for p in parts)
            found[name] = Given(accuracies=tuple(_percent(where, p) for p in parts), digits=digits)
        elif kind == "--correct":
            found[name] = Given(counts=tuple(_whole(where, p) for p in parts))
        else:
            found[name] = Given(files=tuple(map(Path, parts)))
    deviations: dict[str, float] = {}
    for text in sds:
        name, value = _split(text)
        if len(found) == 1 and "" in (name, *found):
            (name,) = found
        sd = _number(value)
        names = ", ".join(found) or "none"
        refuse(
            (not 0 <= sd < math.inf, f"--sd {text}: a standard deviation in points is a number of 0 or more"),
            (name not in found, f"--sd {text}: of which number? Name one, as in NAME=0.1 ({names})"),
            (name in deviations, f"--sd {text}: {name or 'a deviation without a name'} is given twice"),
        )
        deviations[name] = sd
    return {name: _with_spread(name, numbers, seeds, deviations.get(name)) for name, numbers in found.items()}


def _split(text: str) -> tuple[str, str]:
    """Name and values; the '=' of a path such as out/lr=0.1/a.csv ends no name."""
    name, equals, values = text.partition("=")
    return (name.strip(), values) if equals and not re.search(r"[/\\,]", name) else ("", text)


def _number(text: str) -> float:
    """A number as it is written; NaN, which lies between no limits, where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _percent(where: str, text: str) -> float:
    """An accuracy."""
    value = _number(text)
    meant = f"; did you mean {100 * value:g}?" if value else "."
    refuse(
        (not 0 <= value <= 100, f"{where}: {text!r} is no accuracy; expected percent from 0 to 100 without the sign"),
        (
            value <= 1,
            f"{where}: accuracies are in percent{meant} One that really is not above 1% is given as --correct IMAGES",
        ),
    )
    return value


def _whole(where: str, text: str) -> int:
    """A count, an id or a class."""
    refuse((not re.fullmatch("[0-9]{1,9}", text), f"{where}: {text[:20]!r} is no whole number below a billion"))
    return int(text)


def _with_spread(name: str, given: Given, seeds: int | None, sd: float | None) -> Given:
    """With the runs and the deviation behind one accuracy.

    Raises:
        UsageError: a deviation without seeds, seeds without one, or not one accuracy beside them.
    """
    if sd is None and seeds in (None, given.values):
        return given
    refuse(
        (
            given.files or given.values != 1 or sd is None or not 2 <= (seeds or 0) <= MOST_RUNS,
            f"{name + ': ' if name else ''}--seeds 3 --sd 0.05 say that one accuracy is the mean of three runs with "
            f"this standard deviation; give both, at least 2 and at most {MOST_RUNS:,} seeds, and one accuracy; or "
            "the accuracy or file of each run, separated by ','",
        )
    )
    return replace(given, runs=seeds, sd=sd)


def spread(mean: float, sd: float, runs: int) -> tuple[float, ...]:
    """Accuracies with this mean and standard deviation, of which a verdict looks at little else.

    They have two values, so many of each that none is below 0 or above 100; if possible most have the lower one, so
    that none lies below their median and looks like a failed run.

    Raises:
        UsageError: none are.
    """
    for high in sorted(range(1, runs), key=lambda k: abs(2 * k + 1 - runs)):
        up = sd * math.sqrt((runs - 1) * (runs - high) / (high * runs))
        down = up * high / (runs - high)
        if mean - down >= 0 and mean + up <= 100:
            return (mean + up,) * high + (mean - down,) * (runs - high)
    raise UsageError(f"--sd {sd:g}: {runs} runs that vary so much around {mean:g} would not stay within 0 and 100")


# --- files of predictions -----------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """On which test images one training run was right, ascending by id; labels may be unknown."""

    path: Path
    correct: Bools
    labels: Ints | None = None


def read(name: str, files: Sequence[Path], n: int | None, num_classes: int | None) -> list[Answers]:
    """What each file says, after holding its images against those that are expected.

    Args:
        n, num_classes: of the test set; None where nothing tells.

    Raises:
        UsageError: a file that cannot be read, predictions that are not of every image once, or one run twice.
    """
    found = [_answers(path, name, n, num_classes) for path in files]
    for a, b in one_run(found):
        why = f"right on exactly the images of {a.path}; one run given twice is no second seed of {name}"
        raise UsageError(f"{b.path}: {why}")
    check_same_images(found)
    return found


def one_run(answers: Sequence[Answers]) -> Iterator[tuple[Answers, Answers]]:
    """Files that are of one run, for they are right on the same images."""
    return ((a, b) for a, b in itertools.combinations(answers, 2) if np.array_equal(a.correct, b.correct))


def check_same_images(answers: Sequence[Answers]) -> None:
    """Files that are held against each other must be of the same images, as far as their labels tell."""
    sizes = {len(a.correct): f"{a.path} {len(a.correct):,}" for a in answers}
    refuse((len(sizes) > 1, f"files of different numbers of images: {', '.join(sizes.values())}"))
    labelled = [(a.path, a.labels) for a in answers if a.labels is not None]
    for path, labels in labelled[1:]:
        first_path, first = labelled[0]
        other = np.flatnonzero(labels != first)[:1]
        found = ", ".join(f"image {i} has label {labels[i]}, in {first_path} {first[i]}" for i in other)
        refuse((found, f"{path}: {found}: different labels, so they are of different images"))


def _answers(path: Path, name: str, n: int | None, num_classes: int | None) -> Answers:
    """What one file says, held against the test set."""
    columns = _columns(path)
    ids = columns["id"]
    order, rows = np.argsort(ids), len(ids)
    size, images = n or rows, len(np.unique(ids))
    ends = f"{ids.min(initial=10**9)} to {ids.max(initial=0)}"
    refuse(
        (not rows, f"{path}: no predictions in it"),
        (
            rows != size or (ids[order] != np.arange(rows)).any(),
            f"{path}: {rows:,} rows of {images:,} images, ids from {ends}; expected each of the {size:,} images of "
            f"{name} once, with its place in the test set as id, 0 to {size - 1}: part of a test set, or other images, "
            "decide nothing",
        ),
    )
    if "correct" in columns:
        correct = columns["correct"]
        refuse((correct.max() > 1, f"{path}: correct is {correct.max()}, expected 0 or 1"))
        return Answers(path, (correct == 1)[order])
    labels, predicted = columns["label"], columns["predicted"]
    classes = len(np.unique(labels))
    refuse(
        (classes < 2, f"{path}: all labels are {labels[0]}; images of one class cannot tell a model from a guess"),
        (
            classes > (num_classes or classes),
            f"{path}: labels of {classes} classes, {name} has {num_classes}: these are other images",
        ),
    )
    return Answers(path, (predicted == labels)[order], labels[order])


def _columns(path: Path) -> dict[str, Ints]:
    """One set of `COLUMNS`, of whole numbers from 0 on."""
    formats = (".csv", ".npz", ".safetensors")
    refuse((path.suffix not in formats, f"{path}: expected one of {', '.join(formats)} with ids, predicted and labels"))
    try:
        if path.suffix == ".csv":
            return _csv(path)
        content = path.read_bytes()
        foreign = path.suffix == ".npz" and not content.startswith(b"PK")
        refuse((foreign, f"{path}: cannot be read (no archive, as numpy.savez writes it)"))
        p = read_predictions(path, content)
    except (OSError, StoreError, csv.Error, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error).removeprefix(f"{path}: ")
        raise UsageError(f"{path}: {why}") from None
    return {"id": p.ids, "predicted": p.predicted, "label": p.labels}


def _csv(path: Path) -> dict[str, Ints]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restval="")
        reader.fieldnames = head = [column.strip() for column in reader.fieldnames or []]
        wanted = next((w for w in COLUMNS if set(w) <= set(head)), ())
        refuse(
            (len(set(head)) < len(head), f"{path}: a column stands twice in {', '.join(head)}"),
            (not wanted, f"{path}: columns {', '.join(head) or 'nothing'}; expected id,predicted,label or id,correct"),
        )
        rows = [[_whole(f"{path}:{reader.line_num}: {c}", row[c].strip()) for c in wanted] for row in reader]
    return dict(zip(wanted, np.array(rows, dtype=np.int64).reshape(-1, len(wanted)).T, strict=True))
