"""Accuracy against the number of training images: a line for recipes that differ in nothing else; where lines cross."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vitrepro.judge import stats
from vitrepro.judge.arm import Arm
from vitrepro.judge.rejudge import Judged
from vitrepro.judge.rules import contrast_of
from vitrepro.judge.spread import Regime, spread
from vitrepro.judge.stats import Estimate, Interval
from vitrepro.judge.verdict import by_arm
from vitrepro.record import Measured, Record, TrainResult
from vitrepro.spec import content_hash


@dataclass(frozen=True)
class Point:
    """One arm: recipes that differ in nothing, of several seeds.

    Attributes:
        accuracies: percent, one per seed.
        interval: 95%, over seeds where there are three or more, else over test images.
    """

    size: int
    arm: str
    accuracies: tuple[float, ...]
    interval: Interval

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))


@dataclass(frozen=True)
class Gap:
    """How far one line is above another at a size, with the 95% interval over seeds and images.

    Attributes:
        failed: lines of which some but not all runs failed here; nothing is told then, as in a verdict.
    """

    size: int
    difference: float
    interval: Interval
    failed: tuple[str, ...] = ()

    @property
    def sign(self) -> int:
        """1 where the first is above, -1 where it is below, 0 where the interval holds zero or runs failed."""
        return 0 if self.failed else int(self.interval.low > 0) - int(self.interval.high < 0)


@dataclass(frozen=True)
class Pair:
    """Two lines where both have a point."""

    first: str
    second: str
    gaps: tuple[Gap, ...]

    @property
    def crossings(self) -> tuple[tuple[int, int], ...]:
        """Sizes between which the order turns round; at both of them the interval says which line is above."""
        told = [g for g in self.gaps if g.sign]
        return tuple((a.size, b.size) for a, b in itertools.pairwise(told) if a.sign != b.sign)

    @property
    def sentence(self) -> str:
        """What the intervals say of the order of the two lines, and no more."""
        parts = []
        for before, after in self.crossings:
            above = next(g.sign for g in self.gaps if g.size == after) > 0
            up, down = (self.first, self.second) if above else (self.second, self.first)
            parts.append(f"{up} overtakes {down} between {before:,} and {after:,} training images")
        signs = {g.sign for g in self.gaps}
        if len(signs - {0}) == 1:
            up, down = (self.first, self.second) if 1 in signs else (self.second, self.first)
            sizes = [f"{g.size:,}" for g in self.gaps if g.sign]
            every = "at every size" if len(sizes) == len(self.gaps) else f"at {', '.join(sizes)} training images"
            parts.append(f"{up} is above {down} {every}, so no crossing is shown")
        for g in self.gaps:
            if g.failed:
                parts.append(f"at {g.size:,} runs of {' and '.join(g.failed)} failed, so nothing is told there")
        told = [f"{g.size:,}" for g in self.gaps if not g.sign and not g.failed]
        if told:
            parts.append(f"which of {self.first} and {self.second} is above at {', '.join(told)} is not told")
        return "; ".join(parts)


@dataclass(frozen=True)
class Sizes:
    """The lines of one experiment, by name, each ascending by size, and every two of them."""

    lines: dict[str, tuple[Point, ...]]
    pairs: tuple[Pair, ...]

    @property
    def sizes(self) -> list[int]:
        return sorted({p.size for line in self.lines.values() for p in line})


def by_experiment(judged: Iterable[Judged]) -> dict[str, Sizes]:
    """Of each experiment with arms of several sizes, over all verdicts that rest on its runs."""
    runs: dict[str, dict[str, Measured]] = defaultdict(dict)
    for j in judged:
        for m in j.measured:
            if m.record is not None and m.predictions is not None:
                runs[m.record.experiment][m.run_id] = m
    found = {name: lines_of(list(members.values())) for name, members in sorted(runs.items())}
    return {name: sizes for name, sizes in found.items() if sizes.lines}


def lines_of(runs: Sequence[Measured]) -> Sizes:
    """A line for recipes that differ in the number of training images alone, and in how long they train."""
    groups: dict[str, dict[int, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    for m in runs:
        if m.record is not None and isinstance(m.record.result, TrainResult):
            groups[_without_size(m.record)][m.record.result.train_images].append(m)
    lines: dict[str, tuple[Point, ...]] = {}
    arms: dict[tuple[str, int], Arm] = {}
    for by_size in groups.values():
        if len(by_size) < 2:
            continue
        names = list(dict.fromkeys(m.arm for members in by_size.values() for m in members))
        name = _shared_words(names)
        name = name if name and name not in lines else " / ".join(names)
        points = []
        for size, members in sorted(by_size.items()):
            members = sorted(members, key=lambda m: m.seed)
            (arms[name, size],) = by_arm([replace(m, arm=name) for m in members]).values()
            points.append(_point(size, members, arms[name, size].regime))
        lines[name] = tuple(points)
    return Sizes(lines, tuple(_pairs(lines, arms)) if _same_images(runs) else ())


def _point(size: int, members: Sequence[Measured], regime: Regime) -> Point:
    results = [m.record.result for m in members if m.record and isinstance(m.record.result, TrainResult)]
    accuracies = tuple(100 * r.correct / r.n for r in results)
    if len(accuracies) >= 3:
        own = spread(accuracies, results[0].n, regime)
        se = own.sd / len(accuracies) ** 0.5
        i = Estimate(float(np.mean(accuracies)), se, own.freedom, own.source).interval(0.95)
        i = Interval(max(i.low, 0.0), min(i.high, 100.0), i.level, i.method)
    else:
        i = stats.binomial(round(float(np.mean(accuracies)) / 100 * results[0].n), results[0].n)
    return Point(size, members[0].arm, accuracies, i)


def _same_images(runs: Sequence[Measured]) -> bool:
    """Whether all of them were tested on the same images, so that they can be paired."""
    seen = {(p.ids.tobytes(), p.labels.tobytes()) for p in (m.predictions.by_id() for m in runs if m.predictions)}
    return len(seen) == 1


def _pairs(lines: dict[str, tuple[Point, ...]], arms: dict[tuple[str, int], Arm]) -> Iterable[Pair]:
    for a, b in itertools.combinations(lines, 2):
        shared = sorted({p.size for p in lines[a]} & {p.size for p in lines[b]})
        gaps = []
        for size in shared:
            both = {"a": arms[a, size], "b": arms[b, size]}
            difference, estimate = contrast_of({"a": 1, "b": -1}, both)
            failed = tuple(n for n in (a, b) if 0 < len(arms[n, size].failed) < arms[n, size].seeds)
            gaps.append(Gap(size, difference, estimate.interval(0.95), failed))
        if gaps:
            yield Pair(a, b, tuple(gaps))


def _without_size(record: Record) -> str:
    config = record.config
    rest = {k: v for k, v in config.items() if k not in ("data", "train")}
    data = {k: v for k, v in config.get("data", {}).items() if k != "train_images"}
    train = {k: v for k, v in config.get("train", {}).items() if k not in ("steps", "epochs", "warmup_steps")}
    return content_hash([rest, data, train])


def _shared_words(arms: Sequence[str]) -> str:
    """`vit` of `vit-n100` and `vit-n1000`: what the names of a model's arms have in common."""
    words = [arm.split("-") for arm in arms]
    return "-".join(w for w in words[0] if all(w in others for others in words))
