"""A benchmark as a table, a document, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from vitrepro.bench.counterparts import OPPONENTS
from vitrepro.bench.results import PRODUCT, Result
from vitrepro.report import terminal
from vitrepro.report.markdown import pipe_table, plain

_INTRODUCTION = """\
# How fast it is here

Made by `{command}` on {date}. Every figure is the median of {pairs} on the machine below, and is about that machine \
alone; made anew, it differs by as much as the machine is busy with other things."""

_METHOD = """\
## What was measured

**Images** are random pixels, made in memory with a fixed seed: nothing is read or decoded, on no side. Labels are \
random too, and the learning rate is one that cannot diverge on them; neither changes how long a step takes.

**Turns.** Each side lives in a process of its own; one works while the others wait. After a turn of each that does \
not count, the sides take turns of equally many steps, {seconds:g} s or more of the slowest where a step is not longer \
than that, in an order that is reversed from pair to pair. Ratios are taken pair by pair: what else the machine does \
then weighs on both.

**vitrepro** is `train.train` and `accuracy.predict`, as a run calls them, its learning curve and its search for \
numbers that are not finite included, no checkpoint written, in a process that starts with the settings of the memory \
allocator that runs have.{compiled}{sides}

**Loaders** have {workers}. They are stopped in the middle of their work while another side has its turn, and are as \
far ahead when the clock starts as when it stops: the first turn begins with as many steps, not timed, as they can be \
ahead, and each with two.

**Model FLOP/s** counts two operations for a multiply-accumulate of the matrix products and convolutions, and three \
forward passes for a training step. **Of the product rate** is that over the rate of a product of two square \
matrices of {product} rows, the best seen, in the same precision with all threads (model FLOPs utilisation); in \
brackets what was carried out, where that is less: our ViT leaves out what no logit depends on. **Memory** is the most \
in use during a turn: {memory}. **Input** is the time in which as many batches are got and augmented with nothing else \
to do, over the time of the turn; of loaders it is measured once, after their last turn."""

_TIMM = """

**timm** is its own loader with its transforms, its model, `create_optimizer_v2`, `dispatch_clip_grad` and the loop of \
its training script, with the loss read every 50 steps; convolutions with its `--channels-last`. It is not compiled, \
which its script is not either unless asked."""
_PLAIN = """

**plain** is torchvision's model and transforms in a DataLoader, torch's optimiser, and a loop that reads the loss at \
every step, as tutorials write it."""
_PROCESS = """

**one process** does the same whole runs one after another with all threads; `vitrepro` does them as `verify` would, \
on all slots at once. Both start from a server that has the libraries loaded; loading the data, starting processes, \
testing and storing are in the time. \
Others do a quarter as many runs of the recipe, one after another in one process with all threads, each with a model \
and workers of its own, whose start is in the time."""

HEADINGS = (
    "workload",
    "phase",
    "side",
    "images/s",
    "model FLOP/s",
    "of the product rate",
    "memory",
    "input",
    "vitrepro is faster by",
)


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One line a side, ours first."""
    return [(r.workload, *cells) for r in results for cells in _sides(r)]


def _sides(r: Result) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for name, side in r.sides.items():
        ratio = r.ratio(name)
        lines.append(
            (
                r.phase,
                name,
                _rounded(side.images_per_second),
                "" if side.flops_per_second is None else _flops(side.flops_per_second),
                _shares(side.utilisation(r.product_rate), side.share(r.product_rate)),
                "" if side.memory_bytes is None else f"{side.memory_bytes / 2**20:,.0f} MiB",
                "" if side.input_share is None else f"{100 * side.input_share:.1f}%",
                "" if name == r.ours else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
            )
        )
    return lines


def _shares(model: float | None, executed: float | None) -> str:
    """`74% (59%)`: of the model's operations, and of those carried out where they are fewer."""
    if model is None or executed is None:
        return ""
    told, carried_out = f"{100 * model:.0f}%", f"{100 * executed:.0f}%"
    return told if told == carried_out else f"{told} ({carried_out})"


def print_results(out: Console, results: Sequence[Result], machine: Mapping[str, Any], pairs: int) -> None:
    terminal.print_lines(out, HEADINGS, rows(results))
    where = f"{machine['device_name']}, torch {machine['packages']['torch']}"
    out.print(
        f"Medians of {_pairs(pairs)} on {where}; random images in memory. Ratios: median (least to most) over the "
        "pairs.",
        markup=False,
        soft_wrap=True,
    )


def document(results: Sequence[Result], machine: Mapping[str, Any], *, command: str, pairs: int, seconds: float) -> str:
    """The tables, on what they were made, and what they mean, as markdown."""
    cuda = str(machine["device"]).startswith("cuda")
    sides = {name for r in results for name in r.sides}
    told = {"timm": _TIMM, "plain": _PLAIN, "one process": _PROCESS}
    compiled = sorted({r.workload for r in results if r.compiled})
    parts = [
        _INTRODUCTION.format(command=command, date=machine["date"], pairs=f"{_pairs(pairs)} of turns"),
        pipe_table(("what", "here"), _machine_rows(machine)),
    ]
    for name in dict.fromkeys(r.workload for r in results):
        mine = [r for r in results if r.workload == name]
        first = mine[0]
        parts += [
            f"## {plain(name)}",
            f"{plain(first.title[:1].upper() + first.title[1:])}: {first.parameters:,} parameters, batches of "
            f"{first.batch_size}, {first.image_size} pixels a side, {first.precision}.",
            pipe_table(HEADINGS[1:], (cells for r in mine for cells in _sides(r)), right=HEADINGS[3:]),
        ]
        if first.product_rate:
            parts.append(f"The product rate is {_flops(first.product_rate)}.")
    parts.append(
        _METHOD.format(
            seconds=seconds,
            product=PRODUCT["cuda" if cuda else "cpu"],
            workers=f"{machine['workers']} worker process{'es' if machine['workers'] > 1 else ''}, which persist",
            memory="by tensors on the GPU"
            if cuda
            else "by the process beyond what it had before it made the model, the loaders' workers not counted",
            sides="".join(text for name, text in told.items() if name in sides),
            compiled=f" Compiled, as a run of the recipe's length would be: {', '.join(compiled)}." if compiled else "",
        )
    )
    return "\n\n".join(parts) + "\n"


def _machine_rows(machine: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, value in machine.items():
        if value is None:
            continue
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
        found.append((name.replace("_", " "), plain(text)))
    return found


def as_json(results: Sequence[Result], machine: Mapping[str, Any], *, pairs: int, seconds: float) -> dict[str, Any]:
    """All that was measured, turn by turn."""
    return {
        "machine": dict(machine),
        "pairs": pairs,
        "seconds_a_turn": seconds,
        "images": "random pixels in memory",
        "sides": {"vitrepro": "train.train and accuracy.predict", **OPPONENTS},
        "results": [_result(r) for r in results],
    }


def _result(r: Result) -> dict[str, Any]:
    return {
        "workload": r.workload,
        "title": r.title,
        "phase": r.phase,
        "batch_size": r.batch_size,
        "image_size": r.image_size,
        "precision": r.precision,
        "parameters": r.parameters,
        "compiled": r.compiled,
        "product_flops_per_second": r.product_rate,
        "sides": {
            name: {
                "images_per_second": side.images_per_second,
                "model_flops_per_second": side.flops_per_second,
                "model_share_of_product_rate": side.utilisation(r.product_rate),
                "executed_share_of_product_rate": side.share(r.product_rate),
                "memory_bytes": side.memory_bytes,
                "input_share": side.input_share,
                "turns": [vars(turn) for turn in side.turns],
            }
            for name, side in r.sides.items()
        },
        "faster_by": {name: r.ratio(name)._asdict() for name in r.sides if name != r.ours},
    }


def _pairs(number: int) -> str:
    return f"{number} pair{'s' if number > 1 else ''}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _flops(value: float) -> str:
    return f"{value / 1e12:.3g} TFLOP/s" if value >= 1e12 else f"{value / 1e9:.3g} GFLOP/s"
