"""Could a reported accuracy have come about? Arithmetic on the printed number alone; information, never a verdict.

An accuracy over n images is k/n for a whole number k of correct images, so most numbers are none when n is
small (the GRIM test of Brown and Heathers, 2017). What is no k/n may still be a mean of several runs, or an
unweighted mean of the accuracies of batches whose last one is short. All counting is exact.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np

from vitrepro.arrays import Bools, Ints

BATCHES = (16, 32, 64, 128, 256, 512)
RUNS = (2, 3, 4, 5)
FLOAT64_ERROR = Fraction(1, 10**12)  # relative; a sum of thousands of terms is off by less

How: TypeAlias = Literal["k/n", "mean of runs", "mean of batches"]
STATUS: dict[How, str] = {  # in the order of the checks; the first that can give the number counts
    "k/n": "possible as k/n",
    "mean of runs": "only as a mean of r runs",
    "mean of batches": "only as a mean of batch accuracies",
}


# --- one number ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """One reported accuracy.

    Attributes:
        name: its address, claim and cell.
        value: in percent, as printed.
        decimals: digits printed after the point of the percentage; None: not rounded, as in a dump of floats, or
            not known.
        n: test images behind it.
        runs: how many runs the source says it averages.

    Raises:
        ValueError: no accuracy in percent, or more digits than `decimals`.
    """

    name: str
    value: float
    decimals: int | None
    n: int
    runs: int | None = None

    def __post_init__(self) -> None:
        printed = self.value if self.decimals is None else round(self.value, self.decimals)
        if not 0 <= self.value <= 100:
            raise ValueError(f"{self.name}: {self.value!r} is no accuracy in percent")
        if abs(self.value - printed) > 1e-12 * max(1.0, self.value):
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
    status: str
    checks: tuple[Check, ...]
    decimals: int | None
    because: str


@dataclass(frozen=True)
class _Reading:
    """The values, in percent, that a number stands for: all within `error`, and the digits it was rounded to."""

    value: Fraction
    error: Fraction
    decimals: int | None = None
    single_precision: bool = False


def audit(number: Number, runs: Sequence[int] = RUNS, batches: Sequence[int] = BATCHES) -> Audit:
    """Check one number as k/n, as a mean of runs and as a mean of batches.

    A half may have been rounded either way. A number that was not rounded is compared at the precision of a
    float64, then, if nothing fits, of a float32; one without `decimals` that shows six or fewer is taken for
    rounded unless it is k/n to the last bit.

    Args:
        runs: numbers of runs to try beside the one that the source states.
        batches: batch sizes to try.
    """
    tried = [(reading, tuple(_checks(number, reading, runs, batches))) for reading in _readings(number)]
    rounded = tried[-1][0].decimals is not None
    fitting = [t for t in tried if any(check.counts for check in t[1][: 1 if rounded else None])]
    # a number of full precision that fits nowhere is reported at the finer one
    reading, checks = next(iter(fitting), tried[-1] if rounded else tried[0])
    status = next((STATUS[check.how] for check in checks if check.counts), "not possible as any of these")
    return Audit(number, status, checks, reading.decimals, _because(number, checks, reading))


def shown_decimals(value: float) -> int:
    """Digits after the point of the shortest text that gives this float; 0 for whole numbers."""
    return max(0, -int(Decimal(repr(float(value))).normalize().as_tuple().exponent))


def _readings(number: Number) -> list[_Reading]:
    value = Fraction(number.value)
    decimals = shown_decimals(number.value) if number.decimals is None else number.decimals
    rounded = _Reading(round(value, decimals), Fraction(10) ** -decimals / 2, decimals)
    if number.decimals is not None:
        return [rounded]
    # value = m * 2**e with m in [1/2, 1); the rounding error of the fraction, times 100, is below this ulp too
    ulp = Fraction(2) ** (math.frexp(number.value)[1] - 24)
    return [_Reading(value, value * FLOAT64_ERROR), rounded if decimals <= 6 else _Reading(value, ulp, None, True)]


def _checks(number: Number, reading: _Reading, runs: Iterable[int], batches: Iterable[int]) -> Iterator[Check]:
    """Every way that is tried; batches that all weigh the same are not, as their mean is k/n."""
    n = number.n
    yield _check("k/n", n, 1, None, reading)
    for r in sorted({*runs, number.runs or 1} - {1}):
        yield _check("mean of runs", n, r, None, reading)
    for batch in sorted(batches):
        if batch < n and n % batch:
            yield _check("mean of batches", n, 1, batch, reading)


def _check(how: How, n: int, runs: int, batch: int | None, reading: _Reading) -> Check:
    images, size = n * runs, batch or n * runs
    lattice = _Lattice(images, size)
    if reading.decimals is None:
        given = min(1.0, float(lattice.points * 2 * reading.error / 100))
    else:
        places = int(100 * Fraction(10) ** reading.decimals)  # 100% in units of the last digit
        given = _attainable(images, size, places) / (places + 1)
    return Check(how, n, runs, batch, lattice.counts(reading), 1 - given, reading.single_precision)


class _Lattice:
    """The accuracies that can come about: i / steps for every i = s * last + l * full from 0 to steps.

    s and l count the correct images of the full batches and of a short one at the end; last and full are the
    sizes of the two without common factor, both 1 if there is no short batch. So all i can be reached but for
    some near 0 and, mirrored, near steps: every i from `begin` on, and half of those before (Sylvester).
    """

    def __init__(self, images: int, batch: int) -> None:
        self.short = images % batch
        self.others = images - self.short
        common = math.gcd(batch, self.short or batch)
        self.full, self.last = batch // common, (self.short or batch) // common
        self.steps = -(-images // batch) * batch * self.last
        self.begin = (self.last - 1) * (self.full - 1)
        self.points = self.steps + 1 - self.begin

    def counts(self, reading: _Reading) -> tuple[int, int] | None:
        """Fewest and most correct images whose accuracy can be the number."""
        first, final = (
            math.ceil((reading.value - reading.error) * self.steps / 100),
            math.floor((reading.value + reading.error) * self.steps / 100),
        )
        ends = []
        for l in range(self.short + 1):
            fewest = max(0, -((l * self.full - first) // self.last))
            most = min(self.others, (final - l * self.full) // self.last)
            ends += [fewest + l, most + l] if fewest <= most else []
        return (min(ends), max(ends)) if ends else None

    def reached(self, i: Ints) -> Bools:
        i = np.minimum(i, self.steps - i)
        fewest = i * pow(self.full, -1, self.last) % self.last  # the smallest l with the remainder of i
        return fewest * self.full <= i


@functools.lru_cache(maxsize=1024)
def _attainable(images: int, batch: int, places: int) -> int:
    """How many of the numbers 0, 1, ..., places are places * i / steps, rounded either way, of an i reached."""
    lattice = _Lattice(images, batch)
    steps = lattice.steps
    if places > steps:
        # accuracies lie more than one unit apart: each gives one number, or two where it ends on a half
        g = math.gcd(2 * places, steps)
        halves = np.arange(1, g + 1, 2) * (steps // g) if (2 * places // g) % 2 else np.arange(0)
        return lattice.points + int(lattice.reached(halves).sum())
    # else each number has an i, and lacks one that is reached only if all its i lie before `begin`, or mirrored
    beyond = max(0, -((steps - 2 * places * lattice.begin) // (2 * steps)))  # the first number with an i from there on
    at = 2 * places * np.flatnonzero(lattice.reached(np.arange(lattice.begin)))
    given = np.union1d(-((steps - at) // (2 * steps)), (at + steps) // (2 * steps))  # half down, half up
    return places + 1 - 2 * (beyond - int((given < beyond).sum()))


# --- in words -----------------------------------------------------------------------------------

_WORDS = {"mean of runs": "a mean of {} runs", "mean of batches": "an unweighted mean over batches of {}"}


def _because(number: Number, checks: tuple[Check, ...], reading: _Reading) -> str:
    n, decimals = checks[0].n, reading.decimals
    below = min(n - 1, math.floor(Fraction(number.value) / 100 * n))
    value, less, more = (
        repr(x) if decimals is None else f"{x:.{max(0, decimals)}f}"
        for x in (number.value, 100 * below / n, 100 * (below + 1) / n)
    )
    read = f"read as rounded to {_digits(decimals)}: " if number.decimals != decimals else ""
    if checks[0].counts:
        return f"{read}{_images(checks[:1])} images give {value}{_power(checks[0], reading)}"
    near = "" if decimals is None else f" ({below:,} gives {less}, {below + 1:,} gives {more})"
    said = [f"{read}no count of {n:,} images gives {value}{near}"]
    for how, group in itertools.groupby(checks[1:], key=lambda check: check.how):
        tried = list(group)
        fits = [check for check in tried if check.counts]
        if how == "mean of runs":
            fits = [check for check in fits if check.runs == number.runs] or fits[:1]
        sizes = ", ".join(f"{check.batch or check.runs:,}" for check in fits or tried)
        what = _WORDS[how].format(" or ".join(sizes.rsplit(", ", 1)))
        unlike = how == "mean of runs" and number.runs and fits and fits[0].runs != number.runs
        but = f", but not of the stated {number.runs:,}," if unlike else ""
        said.append(f"{what}{but} does ({_images(fits)}){_power(fits[0], reading)}" if fits else f"nor does {what}")
    return "; ".join(said)


def _images(checks: Sequence[Check]) -> str:
    ends = [end for check in checks for end in check.counts or () if check.n == checks[0].n]
    span = " to ".join(f"{end:,}" for end in sorted({min(ends), max(ends)}))
    return f"{span} of {checks[0].n * checks[0].runs:,}"


def _power(check: Check, reading: _Reading) -> str:
    close = " up to the precision of a float32" if check.single_precision else ""
    shares = {0: "every number", 0.01: "nearly every number", 0.99: f"{1 - check.rejected:.0%} of numbers"}
    share = next((text for most, text in shares.items() if check.rejected <= most), "less than 1% of numbers")
    return f"{close}, possible for {share} with {_digits(reading.decimals)}"


def _digits(decimals: int | None) -> str:
    places = f"{decimals} decimal{'' if decimals == 1 else 's'}"
    return "full precision" if decimals is None else places if decimals >= 0 else f"steps of {10**-decimals}"


# --- numbers among themselves -------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """Two rows, of different recipes, whose numbers are all the same."""

    rows: tuple[str, str]
    values: dict[str, float]
    because: str


def copies(rows: Mapping[str, Mapping[str, float]]) -> Iterator[Copy]:
    """Pairs of rows, row -> column -> number, in which every number of the shorter one stands in the other too."""
    for a, b in itertools.combinations(rows, 2):
        short, long = sorted((rows[a], rows[b]), key=len)
        if short and short.items() <= long.items():
            all_of_it = f"all {len(short)} numbers repeat {a} to the last digit"
            only_one = f"its only number repeats {a} to the last digit, which may be chance"
            yield Copy((a, b), dict(short), f"{b}: {only_one if len(short) == 1 else all_of_it}")
