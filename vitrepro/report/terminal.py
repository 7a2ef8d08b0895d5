"""Tables for people at a terminal; wide and plain when piped."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vitrepro.spec import Cell

PIPED_WIDTH = 200
STYLES = {
    "PASS": "green",
    "FAIL": "bold red",
    "EXCEEDS": "magenta",
    "INCONCLUSIVE": "yellow",
    "INFEASIBLE": "dim",
    "ERROR": "bold red",
    "NOT_RUN": "dim",
}
OF_OURS = {"fits": "green", "does not fit": "magenta", "open": "yellow"}


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough for a table when it is piped; honours NO_COLOR."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPED_WIDTH, highlight=False)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """A table whose cells are plain text, never markup; outcomes are coloured."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        made.add_column(
            heading,
            overflow="fold",
            vertical="top",
            no_wrap=heading in ("claim", "outcome", "margin", "seeds", "scale"),
        )
    for cells in rows:
        made.add_row(*(Text(cell, style=style(cell)) for cell in cells))
    return made


def print_lines(out: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A long table of short cells: as `table` on a terminal; else one line a row, aligned and never folded."""
    if out.is_terminal:
        out.print(table(headings, rows))
        return
    widths = [max(cell_len(cells[i]) for cells in (headings, *rows)) for i in range(len(headings))]
    rule = ["─" * width for width in widths]
    text = "\n".join(
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in (headings, rule, *rows)
    )
    out.file.write(text + "\n\n")


def cell_row(name: str, cell: Cell) -> tuple[str, ...]:
    """Name, value with its printed digits, deviation, number of runs, test images."""
    digits = cell.decimals if cell.decimals is not None and cell.decimals >= 0 else None
    value, deviation = (
        "" if number is None else f"{number:.{digits}f}" if digits is not None else all_digits(number)
        for number in (cell.value, cell.sd)
    )
    return name, value, deviation, str(cell.runs or ""), f"{cell.n:,}" if cell.n else ""


def all_digits(value: float) -> str:
    """The shortest text that reads back as this number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value).removesuffix(".0")


def can_encode(out: Console) -> bool:
    """Whether a console can show the characters of a picture (`explain.picture`)."""
    try:
        "├═●┃┤›─·".encode(out.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def style(text: str) -> str:
    """The colour of a cell that starts with an outcome; none otherwise."""
    known = STYLES | OF_OURS
    return next((colour for word, colour in known.items() if text == word or text.startswith(f"{word} ")), "")


def counts(outcomes: Sequence[str]) -> str:
    """`5 PASS, 1 FAIL`: every outcome by its own name."""
    known = STYLES | OF_OURS
    seen: Mapping[str, int] = {o: outcomes.count(o) for o in known if o in outcomes}
    return ", ".join(f"{number} {name}" for name, number in seen.items())
