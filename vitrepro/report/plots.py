"""Figures of a report, as SVG: what was found against what was expected, learning curves, training sizes.

matplotlib is an extra and imported inside the functions. The same store gives the same bytes: fixed salt
for the ids inside the SVG, no date, matplotlib's own defaults instead of the user's.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitrepro.record import Record, TrainResult
from vitrepro.report.judged import Judged
from vitrepro.spec import ExactExpect, ValueExpect, content_hash
from vitrepro.stats import Interval
from vitrepro.store import Store, explain, write_atomic
from vitrepro.verdict import Finding, Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 640 / 96  # inches; 640 px as browsers show it
MOST_ROWS = 40
CURVE_POINTS = 1_800  # of all lines of a panel together, which keeps a figure small

# Okabe and Ito: told apart with any colour vision; the line style changes when the colours are used up
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
MARKS: dict[Outcome, tuple[str, str]] = {  # marker, colour
    Outcome.PASS: ("o", "#0072B2"),
    Outcome.FAIL: ("X", "#D55E00"),
    Outcome.EXCEEDS: ("^", "#CC79A7"),
    Outcome.INCONCLUSIVE: ("D", "#7A7A7A"),
}
ACCEPTED = "#D8E8F3"


def write_plots(judged: Sequence[Judged], store: Store, folder: Path) -> dict[str, list[Path]]:
    """Draw what each verdict rests on; a verdict without findings or trained runs gets no figure.

    Returns:
        `Judged.key` -> its figures, in the order to show them.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        StoreError: the folder cannot be written.
    """
    import matplotlib  # noqa: F401  # absent is said even where there is nothing to draw

    written: dict[str, list[Path]] = {}
    for j in judged:
        figures = {"findings": findings_figure(j), "sizes": sizes_figure(j), "curves": curves_figure(j, store)}
        for name, svg in figures.items():
            if svg is not None:
                path = folder / f"{_file_name(j.key)}--{name}.svg"
                with explain(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    write_atomic(path, svg)
                written.setdefault(j.key, []).append(path)
    return written


def _file_name(key: str) -> str:
    """Safe on every system; a stored claim id is only text."""
    return re.sub(r"[^a-z0-9._-]+", "--", key)[:150].strip(".-") or "claim"


@contextlib.contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "vitrepro",
                "svg.fonttype": "none",  # a fifth of the size of outlines, and text can be found and read aloud
                "font.sans-serif": ["DejaVu Sans", "Verdana"],  # as wide as each other, wider than other fallbacks
                "font.size": 8.5,
                "axes.titlesize": 9,
                "axes.titlelocation": "left",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.edgecolor": "#555555",
                "legend.frameon": False,
                "lines.solid_capstyle": "round",
                "figure.constrained_layout.w_pad": 0.08,
                "figure.constrained_layout.h_pad": 0.06,
            }
        )
        yield


def _svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    # paths come with six decimals of a point, which is most of a file
    return re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), file.getvalue())


# --- findings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A finding as a place on one axis, with the region in which it passes.

    Attributes:
        low, high: ends of the interval; both equal x where there is none.
        accept_low, accept_high: infinite where the region is open.
    """

    label: str
    outcome: Outcome
    x: float
    low: float
    high: float
    accept_low: float
    accept_high: float
    text: str


def points(judged: Judged) -> list[Point]:
    """The findings of a verdict on one axis: points of top-1, or percent of the reported value."""
    if judged.verdict is None or judged.scale is None:
        return []
    made = []
    for f in judged.verdict.findings:
        if f.form in ("measure", "literal"):  # in units of their own, or words about printed numbers
            continue
        match judged.scale.expect:
            case ExactExpect(cells=exact):
                if f.reported:  # no relative difference from zero
                    made.append(_relative(f, exact[f.label].direction))
            case ValueExpect(cells=values):
                upper = f.bound if values[f.label].direction == "two_sided" else math.inf
                made.append(_point(f, f.measured - (f.reported or 0.0), f.deciding, -f.bound, upper))
            case expect:
                equal = expect is not None and expect.kind == "equivalence"
                low, high = (-f.bound, f.bound) if equal else (f.bound, math.inf)
                made.append(_point(f, f.measured, f.interval, low, high))
    return made


def _point(f: Finding, x: float, interval: Interval | None, accept_low: float, accept_high: float) -> Point:
    low, high = (interval.low, interval.high) if interval else (x, x)
    text = f"{x:+.2f}  [{low:+.2f}, {high:+.2f}]"
    return Point(f.label, f.outcome, x, low, high, accept_low, accept_high, text)


def _relative(f: Finding, direction: str) -> Point:
    assert f.reported
    x, bound = 100 * (f.measured / f.reported - 1), 100 * f.bound / abs(f.reported)
    low = -math.inf if direction == "at_most" else -bound
    high = math.inf if direction == "at_least" else bound
    return Point(f.label, f.outcome, x, x, x, low, high, f"{f.measured:.5g} / {f.reported:.5g}")


def findings_figure(judged: Judged) -> bytes | None:
    """Every finding with its interval, over the region in which it would pass."""
    every = points(judged)
    if not every:
        return None
    from matplotlib.figure import Figure

    # what did not pass comes first where not all fit; in the file's order again once chosen
    chosen = sorted(sorted(range(len(every)), key=lambda i: every[i].outcome is Outcome.PASS)[:MOST_ROWS])
    shown = [every[i] for i in chosen]
    labels = [_wrapped(p.label) for p in shown]
    heights = [max(1.0, 0.62 * (1 + label.count("\n"))) for label in labels]
    centres = np.cumsum(heights) - np.array(heights) / 2
    low, high = _limits(shown)
    with _style():
        figure = Figure(figsize=(WIDTH, 1.25 + 0.27 * sum(heights)), layout="constrained")
        ax = figure.add_subplot()
        for p, y, height in zip(shown, centres, heights, strict=True):
            left, right = max(p.accept_low, low), min(p.accept_high, high)
            ax.barh(y, max(right - left, (high - low) / 300), height * 0.86, left, color=ACCEPTED, linewidth=0)
            marker, color = MARKS[p.outcome]
            ax.plot([p.low, p.high], [y, y], color=color, linewidth=1.6, zorder=3)
            ax.plot(p.x, y, marker=marker, color=color, markersize=5.5, linestyle="none", zorder=4)
            ax.annotate(
                p.text, (1.015, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, annotation_clip=False
            )
        ax.axvline(0, color="#555555", linewidth=0.8, zorder=2)
        ax.set_xlim(low, high)
        ax.set_ylim(sum(heights), 0)
        ax.set_yticks(centres, labels)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("\n".join(textwrap.wrap(_axis_label(judged), 80)))
        total = len(judged.verdict.findings) if judged.verdict else 0
        kept = "" if len(shown) == total else f": {len(shown)} of {total} findings"
        figure.suptitle(judged.name + kept, x=0.01, ha="left", fontsize=9)
        _outcome_legend(figure, dict.fromkeys(p.outcome for p in shown))
        return _svg(figure)


def _wrapped(label: str) -> str:
    """A label in lines of 34 letters, broken at its minus signs where it has any."""
    if len(label) <= 34:
        return label
    return "\n".join(line for side in re.split(r"(?<= -) ", label) for line in textwrap.wrap(side, 34))


def _limits(shown: Sequence[Point]) -> tuple[float, float]:
    """Room for every point, interval, finite edge and zero."""
    edges = [v for p in shown for v in (p.low, p.high, p.accept_low, p.accept_high) if math.isfinite(v)]
    low, high = min(0.0, *edges), max(0.0, *edges)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _axis_label(judged: Judged) -> str:
    assert judged.scale is not None
    match judged.scale.expect:
        case ExactExpect():
            return "counted / reported - 1, % (at the right: counted / reported)"
        case ValueExpect():
            return "ours - reported, points of top-1, with the 90% interval that decides"
        case expect:
            level = 90 if expect is not None and expect.kind == "equivalence" else 95
            return f"difference, points of top-1, with its {level}% interval"


def _outcome_legend(figure: Figure, outcomes: Mapping[Outcome, None]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=ACCEPTED, label="accepted region")]
    for outcome in outcomes:
        marker, color = MARKS[outcome]
        handles.append(Line2D([], [], marker=marker, color=color, linestyle="none", label=outcome.value))
    figure.legend(handles=handles, loc="outside lower left", ncols=5, handletextpad=0.5)


# --- learning curves ----------------------------------------------------------------------------


def curves_figure(judged: Judged, store: Store) -> bytes | None:
    """Loss and training accuracy against the step: a colour per arm, a line per seed."""
    lines = [(m.arm, _curve(store, m.run_id)) for m in judged.measured]
    lines = [(arm, rows) for arm, rows in lines if len(rows) >= 2]
    if not lines:
        return None
    from matplotlib.figure import Figure

    panels = [("loss", "training loss")]
    if any("train_top1" in row for _, rows in lines for row in rows):
        panels.append(("train_top1", "training accuracy, %"))
    looks = _looks([arm for arm, _ in lines])
    each = max(12, CURVE_POINTS // len(lines))
    with _style():
        legend_rows = math.ceil(len(looks) / _columns(looks))
        figure = Figure(figsize=(WIDTH, 2.7 + 0.19 * legend_rows), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (key, label) in zip(axes, panels, strict=True):
            for arm, rows in lines:
                kept = [(r["step"], r[key]) for r in _thin(rows, each) if key in r]
                if kept:
                    x, y = zip(*kept, strict=True)
                    color, style = looks[arm]
                    ax.plot(x, y, color=color, linestyle=style, linewidth=0.9, alpha=0.8)
            ax.set_xlabel("step")
            ax.set_title(label)
            ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
            ax.locator_params(axis="x", nbins=5)
            if key == "loss":
                ax.set_ylim(bottom=0)
        figure.suptitle(judged.name, x=0.01, ha="left", fontsize=9)
        _arm_legend(figure, looks)
        return _svg(figure)


def _curve(store: Store, run_id: str) -> list[dict[str, float]]:
    """Finite numbers of a learning curve; none of a file that cannot be read."""
    try:
        rows = store.curve(run_id)
    except (OSError, ValueError, TypeError):
        return []
    kept = [{k: float(v) for k, v in r.items() if isinstance(v, int | float) and math.isfinite(v)} for r in rows]
    return [r for r in kept if "step" in r and "loss" in r]


def _thin(rows: Sequence[dict[str, float]], most: int) -> list[dict[str, float]]:
    """At most this many, evenly spread, with both ends."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _looks(names: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Colour and line style of each different name, sorted: claims about the same arms get the same colours."""

    def by_number(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

    return {
        name: (COLORS[i % len(COLORS)], STYLES[i // len(COLORS) % len(STYLES)])
        for i, name in enumerate(sorted(set(names), key=by_number))
    }


def _columns(looks: Mapping[str, Any]) -> int:
    """As many legend columns as 640 px hold."""
    return max(1, min(5, len(looks), 95 // (max(len(name) for name in looks) + 7)))


def _arm_legend(figure: Figure, looks: Mapping[str, tuple[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, linestyle=s, linewidth=1.6, label=name) for name, (c, s) in looks.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=_columns(looks))


# --- training sizes -----------------------------------------------------------------------------


def sizes_figure(judged: Judged) -> bytes | None:
    """Test accuracy against the number of training images: a line per model, a point per seed."""
    lines = size_lines(judged)
    if not lines:
        return None
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    looks = _looks(list(lines))
    sizes = sorted({size for line in lines.values() for size in line})
    with _style():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        ax = figure.add_subplot()
        for name, line in lines.items():
            color, style = looks[name]
            xs = sorted(line)
            ax.plot(xs, [float(np.mean(line[x])) for x in xs], color=color, linestyle=style, linewidth=1.4)
            seeds = [(x, y) for x in xs for y in line[x]]
            ax.plot(*zip(*seeds, strict=True), "o", color=color, markersize=4, alpha=0.55, markeredgewidth=0)
        ax.set_xscale("log")
        ax.set_xticks(_apart(sizes), [f"{s:,}" for s in _apart(sizes)])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("training images (log scale)")
        ax.set_title("test accuracy, %: mean (line) and each seed (points)")
        ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
        figure.suptitle(judged.name, x=0.01, ha="left", fontsize=9)
        _arm_legend(figure, looks)
        return _svg(figure)


def _apart(sizes: Sequence[int]) -> list[int]:
    """Sizes whose labels do not touch on a log axis of 640 px."""
    if len(sizes) < 2:
        return list(sizes)
    gap = (math.log(sizes[-1]) - math.log(sizes[0])) / 11
    kept = [sizes[0]]
    for size in sizes[1:]:
        if math.log(size) - math.log(kept[-1]) >= gap:
            kept.append(size)
    return kept


def size_lines(judged: Judged) -> dict[str, dict[int, list[float]]]:
    """Name of a model -> training images -> accuracy of each seed, for recipes that differ in nothing else.

    How long training takes may differ with the size, since an experiment may fix epochs or steps.
    """
    groups: dict[str, list[tuple[str, int, float]]] = defaultdict(list)
    for m in judged.measured:
        if m.record is not None and isinstance(m.record.result, TrainResult):
            result = m.record.result
            groups[_without_size(m.record)].append((m.arm, result.train_images, 100 * result.correct / result.n))
    lines: dict[str, dict[int, list[float]]] = {}
    for members in groups.values():
        if len({size for _, size, _ in members}) >= 2:
            line: dict[int, list[float]] = defaultdict(list)
            for _, size, accuracy in members:
                line[size].append(accuracy)
            arms = list(dict.fromkeys(arm for arm, _, _ in members))
            name = _shared_words(arms)
            lines[name if name and name not in lines else " / ".join(arms)] = dict(line)
    return lines


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
