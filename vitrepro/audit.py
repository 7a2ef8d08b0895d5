"""Could a reported accuracy have come about? Arithmetic on the printed number alone; information, never a verdict.

An accuracy over n images is k/n for a whole number k of correct images, so most numbers are none when n is
small (the GRIM test of Brown and Heathers, 2017). What is no k/n may still be a mean of several runs, or an
unweighted mean of the accuracies of batches whose last one is short. All counting is exact.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from vitrepro import yamlfile
from vitrepro.arrays import Bools, Ints
from vitrepro.errors import ClaimFileError, did_you_mean

BATCHES = (16, 32, 64, 128, 256, 512)
RUNS = (2, 3, 4, 5)
FLOAT64_ERROR = Fraction(1, 10**12)  # relative; a sum of thousands of terms is off by less
MAX_BYTES = 2_000_000

How: TypeAlias = Literal["k/n", "mean of runs", "mean of batches", "another n"]
Status: TypeAlias = Literal[
    "possible as k/n",
    "only as a mean of r runs",
    "only as a mean of batch accuracies",
    "only with another n",
    "not possible as any of these",
    "n unknown",
]
STATUS: dict[How, Status] = {  # the first that can give the number counts
    "k/n": "possible as k/n",
    "mean of runs": "only as a mean of r runs",
    "mean of batches": "only as a mean of batch accuracies",
    "another n": "only with another n",
}


# --- one number ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """One reported accuracy.

    Attributes:
        name: its address, claim and cell.
        value: in percent, as printed.
        decimals: digits printed after the point of the percentage, -2 to 12; None: not rounded, as in a dump of
            floats, or not known.
        n: test images behind it.
        runs: how many runs the source says it averages.
        batch: batch size of the evaluation, where known.
        other_n: other numbers of images that may stand behind it, such as a test set without its last batch.

    Raises:
        ValueError: no accuracy in percent, more digits than `decimals`, or a count below one.
    """

    name: str
    value: float
    decimals: int | None = None
    n: int | None = None
    runs: int | None = None
    batch: int | None = None
    other_n: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 100:
            raise ValueError(f"{self.name}: {self.value!r} is no accuracy in percent")
        if any(count is not None and count < 1 for count in (self.n, self.runs, self.batch, *self.other_n)):
            raise ValueError(f"{self.name}: n, runs, batch and other_n are at least 1")
        if self.decimals is not None:
            if not -2 <= self.decimals <= 12:
                raise ValueError(f"{self.name}: {self.decimals} decimals of a percentage; allowed: -2 to 12")
            if abs(self.value - round(self.value, self.decimals)) > 1e-12 * max(1.0, self.value):
                raise ValueError(f"{self.name}: {self.value!r} has more than {self.decimals} decimals")


@dataclass(frozen=True)
class Check:
    """One way in which a number may have come about.

    Attributes:
        n: images of one run.
        counts: fewest and most correct images, of all runs together, that give the number; None: no count does.
        rejected: share of the numbers from 0 to 100, with as many digits, that cannot come about in this way.
        single_precision: it fits only up to one unit in the last place of a float32.
    """

    how: How
    n: int
    runs: int
    batch: int | None
    counts: tuple[int, int] | None
    rejected: float
    single_precision: bool = False


@dataclass(frozen=True)
class Audit:
    """What the checks of one number say; `decimals` are those it was read with."""

    number: Number
    status: Status
    checks: tuple[Check, ...]
    decimals: int | None
    because: str

    @property
    def fits(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.counts)


@dataclass(frozen=True)
class _Reading:
    """The values, in percent, that a number stands for: closed bounds, and the digits it was rounded to."""

    low: Fraction
    high: Fraction
    decimals: int | None
    single_precision: bool = False


def audit(number: Number, runs: Sequence[int] = RUNS, batches: Sequence[int] = BATCHES) -> Audit:
    """Check one number as k/n, as a mean of runs, as a mean of batches and with other n.

    A half may have been rounded either way. A number that was not rounded is compared at the precision of a
    float64, then, if nothing fits, of a float32; one without `decimals` that shows six or fewer is taken for
    rounded unless it is k/n to the last bit.

    Args:
        runs: numbers of runs to try beside the one that the source states.
        batches: batch sizes to try beside the one that is known.
    """
    if number.n is None:
        because = "the number of test images is not known, so nothing can be said"
        return Audit(number, "n unknown", (), number.decimals, because)
    tried = []
    for reading in _readings(number):
        checks = tuple(_checks(number, number.n, reading, runs, batches))
        tried.append((reading, checks))
        if checks[0].counts or (any(c.counts for c in checks) and not _taken_for_rounded(number)):
            break
    else:
        # a number of full precision that fits nowhere is reported at the finer one
        reading, checks = tried[-1] if _taken_for_rounded(number) else tried[0]
    possible = {check.how for check in checks if check.counts}
    status: Status = next((s for how, s in STATUS.items() if how in possible), "not possible as any of these")
    return Audit(number, status, checks, reading.decimals, _because(number, number.n, checks, reading))


def shown_decimals(value: float) -> int:
    """Digits after the point of the shortest text that gives this float; 0 for whole numbers."""
    exponent = Decimal(repr(float(value))).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _taken_for_rounded(number: Number) -> bool:
    return number.decimals is None and shown_decimals(number.value) <= 6


def _readings(number: Number) -> Iterator[_Reading]:
    value = Fraction(number.value)
    if number.decimals is not None:
        yield _rounded(number.value, number.decimals)
        return
    yield _Reading(value * (1 - FLOAT64_ERROR), value * (1 + FLOAT64_ERROR), None)
    if _taken_for_rounded(number):
        yield _rounded(number.value, shown_decimals(number.value))
    else:
        # value = m * 2**e with m in [1/2, 1); the rounding error of the fraction, times 100, is below it too
        ulp = Fraction(2) ** (math.frexp(number.value)[1] - 24)
        yield _Reading(value - ulp, value + ulp, None, single_precision=True)


def _rounded(value: float, decimals: int) -> _Reading:
    scale = Fraction(10) ** decimals
    printed = round(Fraction(value) * scale)
    return _Reading((printed - Fraction(1, 2)) / scale, (printed + Fraction(1, 2)) / scale, decimals)


def _checks(number: Number, n: int, reading: _Reading, runs: Sequence[int], batches: Sequence[int]) -> Iterator[Check]:
    yield _check("k/n", n, 1, None, reading)
    for r in sorted({*runs, number.runs or 1} - {1}):
        yield _check("mean of runs", n, r, None, reading)
    for batch in sorted({*batches, *([number.batch] if number.batch else [])}):
        if n % batch and batch < n:  # else all batches weigh the same, and their mean is k/n
            yield _check("mean of batches", n, 1, batch, reading)
    for other in number.other_n:
        if other != n:
            yield _check("another n", other, 1, None, reading)


def _check(how: How, n: int, runs: int, batch: int | None, reading: _Reading) -> Check:
    low, high = reading.low / 100, reading.high / 100
    counts = _batch_counts(low, high, n, batch) if batch else _counts(low, high, n * runs)
    lattice = _lattice(n, runs, batch)
    if reading.decimals is None:
        rejected = 1 - min(1.0, float(lattice.points * (high - low)))
    else:
        places = int(100 * Fraction(10) ** reading.decimals)  # 100% in units of the last digit
        rejected = 1 - _attainable(lattice, places) / (places + 1)
    return Check(how, n, runs, batch, counts, rejected, reading.single_precision)


def _counts(low: Fraction, high: Fraction, n: int) -> tuple[int, int] | None:
    """Fewest and most of n with a share in [low, high]."""
    fewest, most = max(0, math.ceil(low * n)), min(n, math.floor(high * n))
    return (fewest, most) if fewest <= most else None


def _batch_counts(low: Fraction, high: Fraction, n: int, batch: int) -> tuple[int, int] | None:
    """Fewest and most correct images whose unweighted mean over batches can lie in [low, high].

    With b batches, s correct in the full ones and l in the last, of L images, the mean is
    (s / batch + l / L) / b.
    """
    b = -(-n // batch)
    L = n - (b - 1) * batch
    found = []
    for l in range(L + 1):
        # ceil and floor of (bound * b - l / L) * batch, in whole numbers
        fewest = -((l * low.denominator - low.numerator * b * L) * batch // (L * low.denominator))
        most = (high.numerator * b * L - l * high.denominator) * batch // (L * high.denominator)
        fewest, most = max(0, fewest), min((b - 1) * batch, most)
        if fewest <= most:
            found += [fewest + l, most + l]
    return (min(found), max(found)) if found else None


@dataclass(frozen=True)
class _Lattice:
    """The accuracies that can come about: i / steps for every i = s * last + l * full from 0 to steps.

    For batches s and l count the correct images of the full batches and of the last; last and full are their
    sizes without common factor. So all i can be reached but for some near 0 and, mirrored, near steps: every
    i from (last - 1) * (full - 1) on, and half of those before (Sylvester). Else last and full are 1.
    """

    steps: int
    last: int = 1
    full: int = 1

    @property
    def begin(self) -> int:
        """The first i from which on all are reached, up to steps - begin."""
        return (self.last - 1) * (self.full - 1)

    @property
    def points(self) -> int:
        return self.steps + 1 - self.begin

    def reached(self, i: Ints) -> Bools:
        i = np.minimum(i, self.steps - i)
        fewest = i * pow(self.full, -1, self.last) % self.last  # the smallest l with the remainder of i
        return fewest * self.full <= i


def _lattice(n: int, runs: int, batch: int | None) -> _Lattice:
    if batch is None:
        return _Lattice(n * runs)
    b = -(-n // batch)
    L = n - (b - 1) * batch
    g = math.gcd(batch, L)
    return _Lattice(b * batch * L // g, L // g, batch // g)


@functools.lru_cache(maxsize=1024)
def _attainable(lattice: _Lattice, places: int) -> int:
    """How many of the numbers 0, 1, ..., places are places * i / steps, rounded either way, of an i reached."""
    steps, last, full = lattice.steps, lattice.last, lattice.full
    if places > steps:
        # accuracies lie more than one unit apart: each gives one number, or two where it ends on a half
        g = math.gcd(2 * places, steps)
        halves = np.arange(1, g + 1, 2) * (steps // g) if (2 * places // g) % 2 else np.arange(0)
        return lattice.points + int(lattice.reached(halves).sum())
    # else each number has an i, and lacks one that is reached only if all its i lie before `begin`, or mirrored
    beyond = max(0, -((steps - 2 * places * lattice.begin) // (2 * steps)))  # the first number with an i from there on
    given = np.zeros(beyond + 1, bool)
    for l in range(last if beyond else 0):
        at = 2 * places * np.arange(l * full, lattice.begin, last)
        for nearest in (-((steps - at) // (2 * steps)), (at + steps) // (2 * steps)):  # half down, half up
            given[np.minimum(nearest, beyond)] = True
    return places + 1 - 2 * int((~given[:beyond]).sum())


# --- in words -----------------------------------------------------------------------------------


def _because(number: Number, n: int, checks: tuple[Check, ...], reading: _Reading) -> str:
    value = repr(number.value) if reading.decimals is None else f"{number.value:.{max(0, reading.decimals)}f}"
    read = f"read as rounded to {_digits(reading.decimals)}: " if number.decimals != reading.decimals else ""
    if checks[0].counts:
        return f"{read}{_images(checks[:1], n)} images give {value}{_power(checks[0], reading)}"
    text = f"{read}no count of {n:,} images gives {value}{_neighbours(number.value, n, reading)}"
    ways = []
    for how, group in itertools.groupby(checks[1:], key=lambda check: check.how):
        tried = list(group)
        fits = [check for check in tried if check.counts]
        if how == "mean of runs":
            fits = [check for check in fits if check.runs == number.runs] or fits
            said = "" if not fits or number.runs in (None, fits[0].runs) else f", but not of the stated {number.runs},"
            what = f"a mean of {_or(check.runs for check in fits[:1] or tried)} runs{said}"
        elif how == "mean of batches":
            fits = [check for check in fits if check.batch == number.batch] or fits
            what = f"an unweighted mean over batches of {_or(check.batch for check in fits or tried)}"
        else:
            what = f"a count of {_or(f'{check.n:,}' for check in fits or tried)} images"
        if not fits:
            ways.append(f"nor does {what}")
        else:
            first = fits[0]
            images = _images(fits if first.batch else fits[:1], first.n * first.runs)
            ways.append(f"{what} does ({images}){_power(first, reading)}")
    return "; ".join([text, *ways])


def _or(items: Iterable[object]) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} or {last}" if most else last


def _images(checks: Iterable[Check], n: int) -> str:
    ends = [end for check in checks for end in check.counts or ()]
    return f"{min(ends):,} of {n:,}" if min(ends) == max(ends) else f"{min(ends):,} to {max(ends):,} of {n:,}"


def _power(check: Check, reading: _Reading) -> str:
    close = " up to the precision of a float32" if check.single_precision else ""
    numbers = "of full precision" if reading.decimals is None else f"with {_digits(reading.decimals)}"
    if check.rejected == 0:
        return f"{close}, possible for every number {numbers}"
    if check.rejected < 0.01:
        return f"{close}, possible for nearly every number {numbers}"
    if check.rejected > 0.99:
        return f"{close}, possible for less than 1% of numbers {numbers}"
    return f"{close}, possible for {1 - check.rejected:.0%} of numbers {numbers}"


def _digits(decimals: int | None) -> str:
    if decimals is not None and decimals < 0:
        return f"steps of {10**-decimals}"
    return "full precision" if decimals is None else f"{decimals} decimal{'' if decimals == 1 else 's'}"


def _neighbours(value: float, n: int, reading: _Reading) -> str:
    if reading.decimals is None:
        return ""
    below = min(n - 1, math.floor(Fraction(value) / 100 * n))
    digits = max(0, reading.decimals)
    return f" ({below:,} gives {100 * below / n:.{digits}f}, {below + 1:,} gives {100 * (below + 1) / n:.{digits}f})"


# --- numbers among themselves -------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """Two rows, of different recipes, whose numbers are all the same."""

    rows: tuple[str, str]
    values: dict[str, float]
    because: str


@dataclass(frozen=True)
class Repeat:
    """One quantity that stands in two places; the difference is second less first, in percent."""

    first: str
    second: str
    difference: float
    agree: bool


def copies(rows: Mapping[str, Mapping[str, float]], same: Iterable[Iterable[str]] = ()) -> list[Copy]:
    """Pairs of rows in which every number of the shorter one stands in the other too.

    Args:
        rows: row -> column -> number.
        same: groups of rows that are declared to be one and the same; they are not reported.
    """
    declared = [set(group) for group in same]
    _known([name for group in declared for name in group], rows, "row")
    found = []
    for a, b in itertools.combinations(rows, 2):
        short, long = sorted((rows[a], rows[b]), key=len)
        if not short or any(column not in long or long[column] != value for column, value in short.items()):
            continue
        if any({a, b} <= group for group in declared):
            continue
        count = "its only number repeats" if len(short) == 1 else f"all {len(short)} numbers repeat"
        chance = ", which may be chance" if len(short) == 1 else ""
        found.append(Copy((a, b), dict(short), f"{b}: {count} {a} to the last digit{chance}"))
    return found


def repeated(numbers: Iterable[Number], same: Iterable[Iterable[str]]) -> list[Repeat]:
    """Every pair of numbers that the source means to be one; they agree if one quantity can round to both.

    Args:
        same: groups of addresses that mean the same quantity.

    Raises:
        ValueError: an address that no number has.
    """
    named = {number.name: number for number in numbers}
    found = []
    for group in map(tuple, same):
        _known(group, named, "number")
        for a, b in itertools.combinations((named[name] for name in group), 2):
            difference = Decimal(repr(b.value)) - Decimal(repr(a.value))
            units = sum(Decimal(10) ** -x.decimals for x in (a, b) if x.decimals is not None)
            agree = abs(difference) < units / 2 or math.isclose(a.value, b.value, rel_tol=float(FLOAT64_ERROR))
            found.append(Repeat(a.name, b.name, float(difference), agree))
    return found


def _known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"no {what} {name!r}{did_you_mean(name, known)}")


# --- tables that restate numbers ----------------------------------------------------------------

Table: TypeAlias = dict[str, dict[str, float]]

NOT_PRINTED = {"-", "–", "—"}
SPELLINGS = (  # of names that are written in several ways; applied to lower-case text
    (r"resnet-?(?=\d)", "r"),
    (r"x1(?=\s*\+)", ""),  # R50x1+ViT is R50+ViT
    (r"(\d+)[\s-]*epochs?\b", r"\1ep"),
    (r"image[\s-]?net-?21k", "i21k"),
    (r"jft[\s-]?300m", "jft"),
    (r"ilsvrc[\s-]?2012", "imagenet"),
    (r"oxford[\s-]*(iiit)?[\s-]*", ""),
    (r"flowers?[\s-]*102", "flowers"),
)


@dataclass(frozen=True)
class Difference:
    """A cell of a table that is not what the source prints.

    Attributes:
        kind: the likely cause. rounded: the table shows fewer digits.
    """

    row: str
    column: str
    cell: str
    value: float
    source: float
    kind: Literal["one digit", "digits swapped", "point moved", "rounded", "other"]
    because: str


@dataclass(frozen=True)
class Comparison:
    """A table against the cells of the candidate that it restates.

    Attributes:
        candidate: the one whose cells it repeats most often; None: no cell of any matches.
        tied: other candidates that fit as well.
        matched: cells of the source that the table states.
        unmatched: rows, columns and single cells of the table that the source does not have, and why.
        absent: cells of the source that the table does not state.
    """

    candidate: str | None
    tied: tuple[str, ...]
    matched: tuple[str, ...]
    differences: tuple[Difference, ...]
    unmatched: tuple[str, ...]
    absent: tuple[str, ...]


def read_table(path: Path) -> Table:
    """Row -> column -> number, of a .csv or .tsv file whose first line and column are names, or of YAML or JSON.

    A dash, or null in YAML, stands for a number that is not printed, and is left out.

    Raises:
        ClaimFileError: not readable, too large, not UTF-8, or not such a table; every fault with its line.
    """
    readers: dict[str, Callable[[str, str], Table]] = {
        ".csv": functools.partial(_separated, delimiter=","),
        ".tsv": functools.partial(_separated, delimiter="\t"),
        ".yaml": _mapped,
        ".yml": _mapped,
        ".json": _mapped,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ClaimFileError(
            [f"{path}: a table is one of {' '.join(readers)}, not {path.suffix or 'without an ending'}"]
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # never all of a device that has no end
        if len(content) > MAX_BYTES:
            raise ClaimFileError([f"{path}: a table has at most {MAX_BYTES:,} bytes, this one has more"])
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClaimFileError([f"{path}: not UTF-8 text (byte {error.start})"]) from None
    except OSError as error:
        raise ClaimFileError([f"{path}: cannot be read: {error.strerror or error}"]) from None
    return reader(text, str(path))


def _separated(text: str, path: str, delimiter: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = []
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                lines.append((reader.line_num, [field.strip() for field in fields]))
    except csv.Error as error:
        raise ClaimFileError([f"{path}:{max(1, reader.line_num)}: not a valid table: {error}"]) from None
    if len(lines) < 2:
        raise ClaimFileError([f"{path}: no numbers; a table has a line of column names and at least one row"])
    (top, (_, *columns)), *rows = lines
    problems = [f"{path}:{top}: column {i} has no name" for i, name in enumerate(columns, 2) if not name]
    problems += [f"{path}:{top}: column {c!r} stands twice" for c in _twice(columns)]
    if not columns:
        problems.append(f"{path}:{top}: no columns beside the row names; fields are separated by {delimiter!r}")
    table: Table = {}
    first: dict[str, int] = {}
    for line, (row, *fields) in rows:
        if not row:
            problems.append(f"{path}:{line}: a row without a name")
        elif row in first:
            problems.append(
                f"{path}:{line}: row {row!r} stands twice, first on line {first[row]}; "
                "write what tells them apart into the name, as in 'ViT-L/16 7ep'"
            )
        first.setdefault(row, line)
        if len(fields) != len(columns):
            problems.append(f"{path}:{line}: {len(fields) + 1} fields, but {len(columns) + 1} in the first line")
            continue
        table[row] = {}
        for column, field in zip(columns, fields, strict=True):
            if field in NOT_PRINTED:
                continue
            value = _finite(yamlfile.scalar(field))
            if value is None:
                what = "is empty; write - where no number is printed" if not field else f"{field!r} is not a number"
                problems.append(f"{path}:{line}: row {row!r}, column {column!r}: {what}")
            else:
                table[row][column] = value
    return _complete(table, problems, path)


def _mapped(text: str, path: str) -> Table:
    document = yamlfile.parse(text, path)
    if not isinstance(document.value, dict):
        raise ClaimFileError([f"{document.where(())}: a table is a mapping of row to column to number"])
    problems = []
    table: Table = {}
    for row, cells in document.value.items():
        if not isinstance(cells, dict):
            problems.append(f"{document.where((row,))}: row {row!r} is not a mapping of column to number")
            continue
        table[row] = {}
        for column, given in cells.items():
            value = _finite(given)
            if value is not None:
                table[row][column] = value
            elif given is not None and not (isinstance(given, str) and given in NOT_PRINTED):
                where = document.where((row, column))
                problems.append(f"{where}: row {row!r}, column {column!r}: {given!r} is not a number")
    return _complete(table, problems, path)


def _complete(table: Table, problems: list[str], path: str) -> Table:
    if not problems and not any(table.values()):
        problems = [f"{path}: no numbers"]
    if problems:
        raise ClaimFileError(problems)
    return table


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _twice(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [name for name in dict.fromkeys(names) if name and names.count(name) > 1]


def compare_table(
    table: Mapping[str, Mapping[str, float]], candidates: Mapping[str, Mapping[str, float]]
) -> Comparison:
    """Hold a table that restates reported numbers against their source.

    A cell is found by row and column name together, in either order, whatever their case, spacing and
    punctuation. If there is none, words of the cell's name between the two may be missing, and first words of
    either may stand in the name of the source instead, as long as one cell fits best.

    Args:
        table: row -> column -> number; see `read_table`.
        candidates: source (a claim) -> cell -> number, in the unit of the table. The one counts of which most
            cells are repeated unchanged, then of which most are stated at all.
    """
    found = {name: _match(table, cells, set(_words(name))) for name, cells in candidates.items()}

    def score(name: str) -> tuple[int, int]:
        matches, cells = found[name][0], candidates[name]
        return sum(table[r][c] == cells[cell] for (r, c), cell in matches.items()), len(set(matches.values()))

    best = max(candidates, key=score, default=None)
    if best is None or score(best) == (0, 0):
        return Comparison(None, (), (), (), tuple(f"row {row!r}: no candidate has its cells" for row in table), ())
    cells, (matches, missing) = candidates[best], found[best]
    stated = set(matches.values())
    return Comparison(
        best,
        tuple(name for name in candidates if name != best and score(name) == score(best)),
        tuple(cell for cell in cells if cell in stated),
        tuple(
            _difference(row, column, cell, table[row][column], cells[cell])
            for (row, column), cell in matches.items()
            if table[row][column] != cells[cell]
        ),
        tuple(_unmatched(matches, missing)),
        tuple(cell for cell in cells if cell not in stated),
    )


def _words(name: str) -> list[str]:
    text = name.lower()
    for pattern, spelling in SPELLINGS:
        text = re.sub(pattern, spelling, text)
    return re.findall(r"[^\W_]+", text)


def _match(
    table: Mapping[str, Mapping[str, float]], cells: Mapping[str, float], source: set[str]
) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    """(row, column) -> the cell it names, and for all others (row, column) -> why there is none."""
    ends: dict[tuple[str, str], list[tuple[int, str]]] = {}  # its first and last words -> how many are between, cell
    for cell in cells:
        words = _words(cell)
        for i, j in itertools.combinations(range(1, len(words) + 1), 2):
            ends.setdefault(("".join(words[:i]), "".join(words[j - 1 :])), []).append((j - 1 - i, cell))

    def fitting(a: str, b: str) -> dict[str, int]:
        """Cell -> how many words are between."""
        both = sorted(ends.get((a, b), []) + ends.get((b, a), []), reverse=True)
        return {cell: between for between, cell in both}

    places = [(row, column) for row, columns in table.items() for column in columns]
    matches: dict[tuple[str, str], str] = {}
    missing = dict.fromkeys(places, "no such cell")
    for shortened, gap in itertools.product((False, True), repeat=2):
        taken = set(matches.values())
        for row, column in list(missing):
            a, b = _words(row), _words(column)
            names = [(a, b)] if not shortened else [(_without(a, source), b), (a, _without(b, source))]
            fits: dict[str, int] = {}
            for x, y in names:
                fits |= fitting("".join(x), "".join(y))
            fits = {c: between for c, between in fits.items() if (between > 0) == gap and c not in taken}
            best = sorted(c for c, between in fits.items() if between == min(fits.values()))
            if len(best) == 1:
                matches[row, column] = best[0]
                del missing[row, column]
            elif best:
                missing[row, column] = f"fits {', '.join(best)}"
    return matches, missing


def _without(words: list[str], source: set[str]) -> list[str]:
    """The words less those at the start that stand in the name of the source."""
    return list(itertools.dropwhile(source.__contains__, words))


def _unmatched(matches: Mapping[tuple[str, str], str], missing: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """One line for each row and column of which nothing is matched, and for each other cell that is not."""
    rows, columns = {row for row, _ in matches}, {column for _, column in matches}
    for row in dict.fromkeys(row for row, _ in missing if row not in rows):
        reasons = [why for (r, _), why in missing.items() if r == row and why != "no such cell"]
        yield f"row {row!r}: {reasons[0] if reasons else 'no such cell'}"
    for column in dict.fromkeys(column for _, column in missing if column not in columns):
        yield f"column {column!r}: no such cell"
    for (row, column), why in missing.items():
        if row in rows and column in columns:
            yield f"row {row!r}, column {column!r}: {why}"


def _difference(row: str, column: str, cell: str, value: float, source: float) -> Difference:
    decimals = max(shown_decimals(value), shown_decimals(source))
    ours, theirs = (format(Decimal(repr(x)), f".{decimals}f") for x in (value, source))
    places = [i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y]
    swapped = len(places) == 2 and ours[places[0]] == theirs[places[1]] and ours[places[1]] == theirs[places[0]]
    coarse = shown_decimals(value)
    kind: Literal["one digit", "digits swapped", "point moved", "rounded", "other"]
    if coarse < shown_decimals(source) and 2 * abs(Decimal(ours) - Decimal(theirs)) <= Decimal(10) ** -coarse:
        kind, cause = "rounded", "the same to the digits shown"
    elif len(ours) == len(theirs) and len(places) == 1:
        kind, cause = "one digit", f"one digit differs, {ours[places[0]]} for {theirs[places[0]]}; likely a typo"
    elif len(ours) == len(theirs) and swapped and ours[places[0]] != "." and ours[places[1]] != ".":
        kind, cause = "digits swapped", "the same but for two digits that changed places; likely a typo"
    elif _digits_only(value) == _digits_only(source):
        kind, cause = "point moved", "the same digits with the point elsewhere"
    else:
        kind, cause = "other", "not a single wrong digit"
    return Difference(row, column, cell, value, source, kind, f"{ours} where the source prints {theirs}: {cause}")


def _digits_only(value: float) -> str:
    return re.sub("[^0-9]", "", format(Decimal(repr(value)), "f")).strip("0")
