"""What somebody says was measured elsewhere: numbers of a command line and files of predictions, read and checked."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vitrepro.arrays import Bools, Ints
from vitrepro.errors import StoreError, UsageError
from vitrepro.store import read_predictions

Kind = Literal["--accuracy", "--correct", "--predictions"]


@dataclass(frozen=True)
class Given:
    """What somebody says of one cell or arm; one of the three.

    Attributes:
        accuracies: percent, one per training run.
        counts: images classified correctly, one per training run.
        files: predictions, one file per training run.
        digits: printed after the point of each accuracy; None where it is exact.
    """

    accuracies: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    digits: tuple[int | None, ...] = ()


def parse(kind: Kind, texts: Sequence[str]) -> dict[str, Given]:
    """`[NAME=]VALUE[,VALUE...]`, repeated; the name is empty where none is given.

    Raises:
        UsageError: a name twice, no value, or a value that cannot be an accuracy in percent, a count or a path.
    """
    found: dict[str, Given] = {}
    for text in texts:
        name, equals, values = text.rpartition("=")
        if not equals:
            name, values = "", text
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


def _percent(text: str, part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        raise UsageError(f"--accuracy {text!r}: {part!r} is no number") from None
    if not math.isfinite(value):
        raise UsageError(f"--accuracy {text!r}: {part} is no accuracy; a run without a result cannot be judged")
    if not 0 <= value <= 100:
        raise UsageError(f"--accuracy {text!r}: {part} is not between 0 and 100; accuracies are in percent")
    if value <= 1:
        raise UsageError(
            f"--accuracy {text!r}: accuracies are in percent; did you mean {100 * value:g}? "
            "One that really is below 1% is given as --correct IMAGES"
        )
    return value


def _digits(part: str) -> int | None:
    """Digits behind the point of a number as it is written."""
    return None if "e" in part.lower() else len(part.partition(".")[2])


def _count(text: str, part: str) -> int:
    if not part.isascii() or not part.isdigit():
        raise UsageError(f"--correct {text!r}: {part!r} is no number of images")
    return int(part)


# --- files of predictions -----------------------------------------------------------------------


def read(name: str, files: Sequence[Path], n: int | None) -> tuple[Bools, int]:
    """Correctness, (K, n), images ascending by id, and the images of the most frequent class (0 if unknown).

    Raises:
        UsageError: a file that cannot be read, or predictions that are not of every image once.
    """
    rows: list[Bools] = []
    labels: list[Ints] = []
    contents: dict[bytes, Path] = {}
    for path in files:
        ids, correct, truth = _table(path)
        _complete(path, ids, n or len(ids), name)
        order = np.argsort(ids)
        twin = contents.setdefault(correct[order].tobytes(), path)
        if len(contents) == len(rows):
            raise UsageError(
                f"{path}: right on exactly the images of {twin}; one run given twice is no second seed of {name}"
            )
        rows.append(correct[order])
        if truth is not None:
            labels.append(truth[order])
            if len(np.unique(truth)) < 2:
                raise UsageError(
                    f"{path}: all labels are {truth[0]}; images of one class cannot tell a model from a guess"
                )
            if not np.array_equal(labels[0], labels[-1]):
                at = int(np.flatnonzero(labels[0] != labels[-1])[0])
                raise UsageError(
                    f"{path}: image {at} has label {labels[-1][at]}, in {files[0]} {labels[0][at]}: they are of "
                    "different images"
                )
    if len({len(row) for row in rows}) > 1:
        sizes = ", ".join(f"{path} {len(row):,}" for path, row in zip(files, rows, strict=True))
        raise UsageError(f"{name}: files of different numbers of images: {sizes}")
    return np.stack(rows), int(np.unique(labels[0], return_counts=True)[1].max()) if labels else 0


def _complete(path: Path, ids: Ints, n: int, name: str) -> None:
    values, times = np.unique(ids, return_counts=True)
    if (times > 1).any():
        raise UsageError(f"{path}: image {values[times > 1][0]} stands {times.max()} times; each image stands once")
    if len(ids) != n:
        raise UsageError(f"{path}: {len(ids):,} images of the {n:,} of {name}; part of a test set decides nothing")
    if values[0] != 0 or values[-1] != n - 1:
        raise UsageError(
            f"{path}: ids from {values[0]} to {values[-1]}, expected 0 to {n - 1:,}, the place of each image in the "
            "test set: these are predictions of other images, or under other names"
        )


def _table(path: Path) -> tuple[Ints, Bools, Ints | None]:
    """Ids, correctness and labels (None where the file has only correctness) of one file."""
    try:
        if path.suffix == ".csv":
            return _csv(path)
        if path.suffix in (".npz", ".safetensors"):
            p = read_predictions(path, path.read_bytes())
            if not len(p.ids):
                raise UsageError(f"{path}: no predictions in it")
            return p.ids, p.correct, p.labels
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except StoreError as error:
        raise UsageError(str(error)) from None
    raise UsageError(f"{path}: unknown format; expected .csv, .npz or .safetensors with ids, predicted and labels")


def _csv(path: Path) -> tuple[Ints, Bools, Ints | None]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            columns = [c.strip() for c in reader.fieldnames or []]
            reader.fieldnames = columns
            wanted = next(
                (w for w in (("id", "predicted", "label"), ("id", "correct")) if set(w) <= set(columns)), None
            )
            if wanted is None:
                found = ", ".join(columns) or "nothing"
                raise UsageError(f"{path}: columns {found}; expected id,predicted,label or id,correct")
            values = np.array(list(_integers(path, reader, wanted)), dtype=np.int64)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: no table of text: {error}") from None
    if not len(values):
        raise UsageError(f"{path}: no predictions in it")
    if wanted == ("id", "correct"):
        wrong = values[(values[:, 1] != 0) & (values[:, 1] != 1)]
        if len(wrong):
            raise UsageError(f"{path}: image {wrong[0][0]}: correct is {wrong[0][1]}, expected 0 or 1")
        return values[:, 0], values[:, 1] == 1, None
    return values[:, 0], values[:, 1] == values[:, 2], values[:, 2]


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


def check_same_labels(named: Mapping[str, Given]) -> None:
    """Files of different arms must be of the same images, as far as their labels tell."""
    first: tuple[Path, Ints] | None = None
    paths = [path.resolve() for given in named.values() for path in given.files]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice; one run is no other arm")
    for given in named.values():
        for path in given.files[:1]:
            ids, _, labels = _table(path)
            if labels is None:
                continue
            own = labels[np.argsort(ids)]
            if first is None:
                first = (path, own)
            elif not np.array_equal(first[1], own):
                raise UsageError(f"{path} and {first[0]} have different labels: they are of different images")
