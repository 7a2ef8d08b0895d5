"""Text of markdown that cannot misbehave: whatever stands in a claim or an error reads as itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitrepro.spec import Reported


def plain(text: object) -> str:
    """Any text as one line of markdown that shows exactly that text.

    Line breaks become spaces; what markdown, HTML or GitHub's mathematics would read is escaped;
    characters that cannot be seen, such as those that turn the writing direction, become U+FFFD.
    """
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() or c == "\u200d" else "\ufffd" for c in line)  # emoji join with U+200D
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", line)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # inside a word it means nothing to markdown
    line = re.sub(r"^(?=([#+\-]|[#\-=]+)( |$))", r"\\", line)  # a heading, list or rule
    return re.sub(r"^(\d+)(?=[.)]( |$))", r"\1\\", line)


def pipe_table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = ()) -> str:
    """A table of cells that are markdown already; columns named in `right` hold numbers."""
    numbers = set(right)
    lines = [headings, ["---:" if h in numbers else "---" for h in headings], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def fenced(text: str) -> str:
    """A block of code, whatever backticks are in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def anchor(heading: str) -> str:
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


OURS = {"PASS": "fits", "FAIL": "does not fit", "EXCEEDS": "does not fit", "INCONCLUSIVE": "open"}


def whose(reported: Reported) -> str:
    """What a claim's numbers are called."""
    return "expected (ours)" if reported.by == "us" else "reported"


def outcome(name: object, ours: bool) -> str:
    """The word for an outcome; a question of ours fits or does not, and is never a PASS or FAIL of its source."""
    name = str(getattr(name, "value", name))
    return OURS.get(name, name) if ours else name


def number_of(number: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {what}{'s' if number != 1 else ''}"
