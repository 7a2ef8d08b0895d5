"""The verdict table at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from vitrepro.report.rows import HEADINGS, Row
from vitrepro.report.terminal import STYLES, table

TABLE_WIDTH = 130  # columns below which the table's cells would be folded beyond reading


def print_verdicts(out: Console, rows: Sequence[Row]) -> None:
    """The verdict table; on a narrow terminal a short block for each claim, since ten columns do not fit."""
    if out.width >= TABLE_WIDTH:
        out.print(table(HEADINGS, [row.cells for row in rows]))
        return
    for row in rows:
        out.print(Text(row.outcome, style=STYLES.get(row.outcome, "")), Text(row.claim))
        facts = (("measured", row.measured), ("reported", row.reported), ("margin", row.margin), ("seeds", row.seeds))
        last = ", ".join(part for part in (row.scale, row.fidelity, row.qualifiers) if part)
        for name, text in (*facts, ("scale", last)):
            if text:
                out.print(f"  {name:<9} {text}", markup=False, soft_wrap=True)
