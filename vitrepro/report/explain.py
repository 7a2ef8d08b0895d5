"""A picture in text of interval, margin and reported value."""

from __future__ import annotations

import math

from vitrepro.judge.finding import Finding
from vitrepro.judge.stats import Interval

WIDTH = 61
_ASCII = str.maketrans({"─": "-", "·": ".", "├": "|", "┤": "|", "═": "=", "●": "o", "┃": "!", "‹": "<", "›": ">"})
KEY = "─ accepted  ═ interval  ● measured  ┃ reported, no difference, or the edge"


def picture(finding: Finding, width: int = WIDTH, *, unicode: bool = True) -> tuple[str, ...]:
    """Two lines of text: a number line with the accepted region, the interval and zero or the edge; and its labels.

    The line shows differences from the reported number, or between arms; nothing for printed numbers alone.
    """
    drawn = _drawn(finding)
    if drawn is None:
        return ()
    interval, at, (low, high) = drawn
    reference = finding.bound if finding.form in ("measure", "share") and finding.reported is None else 0.0
    shown = [v for v in (interval.low, interval.high, at, reference, low, high) if math.isfinite(v)]
    room = 0.06 * (max(shown) - min(shown)) or 1.0
    left, right = min(shown) - room, max(shown) + room

    def column(value: float) -> int:
        return round((min(max(value, left), right) - left) / (right - left) * (width - 1))

    line = ["─" if column(low) <= i <= column(high) else "·" for i in range(width)]
    if math.isinf(low):
        line[0] = "‹"
    if math.isinf(high):
        line[-1] = "›"
    for i in range(column(interval.low), column(interval.high) + 1):
        line[i] = "═"
    for edge, mark in ((low, "├"), (high, "┤")):
        if math.isfinite(edge):
            line[column(edge)] = mark
    line[column(reference)] = "┃"
    line[column(interval.low)], line[column(interval.high)] = "[", "]"
    line[column(at)] = "●"
    labels = _labels({column(v): f"{v:+.4g}" for v in (low, high, reference) if math.isfinite(v)}, width)
    text = "".join(line), labels
    return text if unicode else (ascii_only(text[0]), labels)


def ascii_only(text: str) -> str:
    """The characters of a picture, and of its key, for a terminal that knows no others."""
    return text.translate(_ASCII)


def _drawn(f: Finding) -> tuple[Interval, float, tuple[float, float]] | None:
    """Interval, value and accepted region, as differences; of a counted quantity a point with its tolerance."""
    if f.deciding is not None and f.accepted is not None:
        centre = f.measured - f.reported if f.reported is not None else f.measured
        return f.deciding, centre, f.accepted
    if f.accepted is not None and f.reported is not None:
        at = f.measured - f.reported
        return Interval(at, at, 1.0, ""), at, f.accepted
    return None


def _labels(at: dict[int, str], width: int) -> str:
    """Labels below their columns; one that would touch its neighbour is left out."""
    line, end = "", -1
    for column, text in sorted(at.items()):
        start = min(max(column - len(text) // 2, 0), width - len(text))
        if start > end:
            line = line.ljust(start) + text
            end = start + len(text)
    return line
