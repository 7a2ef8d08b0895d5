"""Figures of a report, as SVG: reported against measured, findings, learning curves, training sizes.

They are as wide as a phone, where they are read without zooming. matplotlib is an extra and imported inside the
functions. The same store gives the same bytes with the same matplotlib, which the file names: fixed salt for the ids
inside the SVG, no date, matplotlib's own defaults instead of the user's.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrepro.judge.finding import Finding, Outcome
from vitrepro.judge.rejudge import Judged
from vitrepro.judge.rules import printed_sd
from vitrepro.judge.stats import Interval
from vitrepro.report.sizes import Sizes
from vitrepro.spec import Cell, ExactExpect, ValueExpect
from vitrepro.store import Store, explain, thin, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 440 / 96  # inches; 440 px as browsers show it, little more than a phone has
LETTERS = 66  # of a line of text that is as wide as a figure
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


def write_plots(
    judged: Sequence[Judged], store: Store, folder: Path, sizes: Mapping[str, Sizes] | None = None
) -> dict[str, list[Path]]:
    """Draw what each verdict rests on, each source's numbers, and experiments over training sizes.

    A verdict without findings or trained runs gets no figure.

    Returns:
        `Judged.key`, `source_key` or `sizes_key` -> its figures, in the order to show them.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        StoreError: the folder cannot be written.
    """
    import matplotlib  # noqa: F401  # absent is said even where there is nothing to draw

    made: dict[str, dict[str, bytes | None]] = {}
    for paper in dict.fromkeys(j.claim.source.paper for j in judged if j.claim):
        made[source_key(paper)] = {"reported": reported_figure(judged, paper)}
    for name, found in (sizes or {}).items():
        made[sizes_key(name)] = {"sizes": sizes_figure(found)}
    for j in judged:
        made[j.key] = {"findings": findings_figure(j), "curves": curves_figure(j, store)}
    written: dict[str, list[Path]] = {}
    for key, figures in made.items():
        for name, svg in figures.items():
            if svg is not None:
                path = folder / f"{_file_name(key)}--{name}.svg"
                with explain(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    write_atomic(path, svg)
                written.setdefault(key, []).append(path)
    return written


def source_key(paper: str) -> str:
    return f"source {paper}"


def sizes_key(experiment: str) -> str:
    return f"experiment {experiment}"


def _file_name(key: str) -> str:
    """Safe on every system; a stored claim id is only text."""
    return re.sub(r"[^a-z0-9._-]+", "--", key.lower())[:150].strip(".-") or "claim"


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
    import matplotlib

    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": f"matplotlib {matplotlib.__version__}"})
    # paths come with six decimals of a point, which is most of a file
    return re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), file.getvalue())


# --- reported against measured ------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A reported accuracy and what was measured for it, in percent.

    Attributes:
        interval: of ours, 95%.
        sd: printed with the reported number, at least half its last digit.
    """

    label: str
    outcome: Outcome
    reported: float
    sd: float | None
    measured: float
    interval: Interval | None


def numbers(judged: Sequence[Judged], paper: str) -> list[Number]:
    """Every accuracy that a source reports and that was measured, in the order of the verdicts."""
    made = []
    for j in judged:
        if j.claim is None or j.claim.source.paper != paper or j.verdict is None or j.claim.reported is None:
            continue
        for f in j.verdict.findings:
            if f.form in ("value", "count") and f.reported is not None:
                cell = j.claim.reported.cells.get(f.label, Cell(value=f.reported))
                short = j.name.partition("/")[2] + (f" / {f.label}" if len(j.verdict.findings) > 1 else "")
                made.append(Number(short, f.outcome, f.reported, printed_sd(cell), f.measured, f.interval))
    return made


def reported_figure(judged: Sequence[Judged], paper: str) -> bytes | None:
    """Every accuracy of a source beside ours, on one axis of percent."""
    every = numbers(judged, paper)
    if not every:
        return None
    from matplotlib.lines import Line2D

    shown = every[:MOST_ROWS]
    edges = [
        v for n in shown for v in (n.reported, n.measured, *((n.interval.low, n.interval.high) if n.interval else ()))
    ]
    room = 0.06 * (max(edges) - min(edges)) or 1.0
    kept = f"{len(shown)} of {len(every)} numbers" if len(shown) < len(every) else ""
    texts = [(n.label, f"{n.reported:g} / {n.measured:.2f}") for n in shown]
    with _style():
        figure, ax = _rows(texts, (max(0.0, min(edges) - room), min(100.0, max(edges) + room)), kept)
        for y, n in enumerate(shown):
            if n.sd:
                ax.plot([n.reported - n.sd, n.reported + n.sd], [y, y], color="#000000", linewidth=0.8, zorder=2)
            ax.plot(n.reported, y, marker="|", color="#000000", markersize=11, markeredgewidth=1.6, zorder=4)
            marker, color = MARKS[n.outcome]
            if n.interval:
                ax.plot([n.interval.low, n.interval.high], [y, y], color=color, linewidth=1.8, zorder=3)
            ax.plot(n.measured, y, marker=marker, color=color, markersize=5.5, linestyle="none", zorder=5)
        ax.set_xlabel("test accuracy, % (at the right: reported / ours, with 95% interval)")
        handles: list[Any] = [
            Line2D(
                [],
                [],
                marker="|",
                color="#000000",
                markersize=9,
                markeredgewidth=1.6,
                linestyle="none",
                label="reported",
            )
        ]
        _legend(figure, [*handles, *_outcomes(dict.fromkeys(n.outcome for n in shown))])
        return _svg(figure)


def _rows(texts: Sequence[tuple[str, str]], limits: tuple[float, float], title: str) -> tuple[Figure, Any]:
    """A figure with a row for each label, written above the row with its numbers at the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.95 + 0.42 * len(texts) + (0.2 if title else 0)), layout="constrained")
    ax = figure.add_subplot()
    for y, (label, numbers) in enumerate(texts):
        room = LETTERS - 4 - len(numbers)
        short = label if len(label) <= room else label[: room // 2 - 1] + "…" + label[-(room // 2 - 1) :]
        at: dict[str, Any] = {
            "xycoords": ("axes fraction", "data"),
            "va": "center",
            "fontsize": 7.5,
            "annotation_clip": False,
        }
        ax.annotate(short, (0.0, y - 0.47), ha="left", **at)
        ax.annotate(numbers, (1.0, y - 0.47), ha="right", **at)
    ax.set_xlim(*limits)
    ax.set_ylim(len(texts) - 0.6, -0.75)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.locator_params(axis="x", nbins=6)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=8.5)
    return figure, ax


def _outcomes(outcomes: Mapping[Outcome, None]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], marker=MARKS[o][0], color=MARKS[o][1], linestyle="none", label=o.value) for o in outcomes]


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    figure.legend(handles=handles, loc="outside lower left", ncols=4, handletextpad=0.4, columnspacing=1.2)


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
        if f.form in ("measure", "literal", "share"):  # in units of their own, or words about printed numbers
            continue
        if f.form == "exact":
            made += [_relative(f)] if f.reported else []  # no relative difference from zero
        else:
            shown = f.measured - (f.reported or 0.0)
            made.append(_point(f, shown, f.deciding, f.region.low, f.region.high))
    return made


def _point(f: Finding, x: float, interval: Interval | None, accept_low: float, accept_high: float) -> Point:
    low, high = (interval.low, interval.high) if interval else (x, x)
    text = f"{x:+.2f}  [{low:+.2f}, {high:+.2f}]"
    return Point(f.label, f.outcome, x, low, high, accept_low, accept_high, text)


def _relative(f: Finding) -> Point:
    assert f.reported
    x, bound = 100 * (f.measured / f.reported - 1), 100 * f.bound / abs(f.reported)
    low = -bound if math.isfinite(f.region.low) else -math.inf
    high = bound if math.isfinite(f.region.high) else math.inf
    return Point(f.label, f.outcome, x, x, x, low, high, f"{f.measured:.5g} / {f.reported:.5g}")


def findings_figure(judged: Judged) -> bytes | None:
    """Every finding with its interval, over the region in which it would pass."""
    every = points(judged)
    if not every:
        return None
    from matplotlib.patches import Patch

    # what did not pass comes first where not all fit; in the file's order again once chosen
    chosen = sorted(sorted(range(len(every)), key=lambda i: every[i].outcome is Outcome.PASS)[:MOST_ROWS])
    shown = [every[i] for i in chosen]
    low, high = _limits(shown)
    total = len(judged.verdict.findings) if judged.verdict else 0
    kept = f"{len(shown)} of {total} findings" if len(shown) < total else ""
    with _style():
        figure, ax = _rows([(p.label, p.text) for p in shown], (low, high), kept)
        for y, p in enumerate(shown):
            left, right = max(p.accept_low, low), min(p.accept_high, high)
            ax.barh(y, max(right - left, (high - low) / 300), 0.5, left, color=ACCEPTED, linewidth=0)
            marker, color = MARKS[p.outcome]
            ax.plot([p.low, p.high], [y, y], color=color, linewidth=1.8, zorder=3)
            ax.plot(p.x, y, marker=marker, color=color, markersize=5.5, linestyle="none", zorder=4)
            ax.plot([0, 0], [y - 0.25, y + 0.25], color="#555555", linewidth=0.8, zorder=2)  # not through the labels
        ax.set_xlabel("\n".join(textwrap.wrap(_axis_label(judged), LETTERS)))
        outcomes = _outcomes(dict.fromkeys(p.outcome for p in shown))
        _legend(figure, [Patch(color=ACCEPTED, label="accepted region"), *outcomes])
        return _svg(figure)


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


# --- learning curves ----------------------------------------------------------------------------


def curves_figure(judged: Judged, store: Store) -> bytes | None:
    """Loss and training accuracy against the step: a colour per arm, a line per seed."""
    lines = [(m.arm, store.short_curve(m.run_id)) for m in judged.measured]
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
        figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * len(panels) + 0.19 * legend_rows), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for ax, (key, label) in zip(axes, panels, strict=True):
            for arm, rows in lines:
                kept = [(r["step"], r[key]) for r in thin(rows, each) if key in r]
                if kept:
                    x, y = zip(*kept, strict=True)
                    color, style = looks[arm]
                    ax.plot(x, y, color=color, linestyle=style, linewidth=0.9, alpha=0.8)
            ax.set_title(label)
            ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
            ax.locator_params(axis="x", nbins=5)
            if key == "loss":
                ax.set_ylim(bottom=0)
        axes[-1].set_xlabel("step")
        _arm_legend(figure, looks)
        return _svg(figure)


def _looks(names: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Colour and line style of each different name, sorted: claims about the same arms get the same colours."""

    def by_number(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

    return {
        name: (COLORS[i % len(COLORS)], STYLES[i // len(COLORS) % len(STYLES)])
        for i, name in enumerate(sorted(set(names), key=by_number))
    }


def _columns(looks: Mapping[str, Any]) -> int:
    """As many legend columns as fit side by side."""
    return max(1, min(5, len(looks), LETTERS // (max(len(name) for name in looks) + 7)))


def _arm_legend(figure: Figure, looks: Mapping[str, tuple[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=c, linestyle=s, linewidth=1.6, label=name) for name, (c, s) in looks.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=_columns(looks))


# --- training sizes -----------------------------------------------------------------------------


def sizes_figure(sizes: Sizes) -> bytes:
    """Test accuracy against the number of training images: mean and interval of each line, and every seed.

    The sizes between which the intervals show that two lines cross are shaded.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    looks = _looks(list(sizes.lines))
    apart = 0.03 * math.log(max(sizes.sizes) / min(sizes.sizes))  # of neighbours, as a share of the size
    with _style():
        legend_rows = math.ceil(len(looks) / _columns(looks))
        figure = Figure(figsize=(WIDTH, 3.0 + 0.19 * legend_rows), layout="constrained")
        ax = figure.add_subplot()
        for i, (line, points) in enumerate(sizes.lines.items()):
            color, style = looks[line]
            beside = 1 + apart * (i - (len(sizes.lines) - 1) / 2)  # or intervals hide one another
            xs = [p.size * beside for p in points]
            ax.plot(xs, [p.mean for p in points], color=color, linestyle=style, linewidth=1.3)
            for x, p in zip(xs, points, strict=True):
                ax.plot([x, x], [p.interval.low, p.interval.high], color=color, linewidth=1.6, zorder=3)
                dots: dict[str, Any] = {"color": color, "markersize": 3.6, "alpha": 0.7, "markeredgewidth": 0}
                ax.plot([x * (1 + 0.3 * apart)] * len(p.accuracies), p.accuracies, "o", **dots)
        for before, after in dict.fromkeys(c for pair in sizes.pairs for c in pair.crossings):
            ax.axvspan(before, after, color="#F2E8C9", zorder=0)
            ax.annotate("cross", (math.sqrt(before * after), 0.01), xycoords=("data", "axes fraction"), ha="center")
        ax.set_xscale("log")
        ax.set_xticks(_apart(sizes.sizes), [f"{s:,}" for s in _apart(sizes.sizes)])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("training images (log scale)")
        ax.set_title("test accuracy, %: mean, 95% interval, each seed")
        ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
        _arm_legend(figure, looks)
        return _svg(figure)


def _apart(sizes: Sequence[int]) -> list[int]:
    """Sizes whose labels do not touch on a log axis."""
    if len(sizes) < 2:
        return list(sizes)
    gap = (math.log(sizes[-1]) - math.log(sizes[0])) / 9
    kept = [sizes[0]]
    for size in sizes[1:]:
        if math.log(size) - math.log(kept[-1]) >= gap:
            kept.append(size)
    return kept
