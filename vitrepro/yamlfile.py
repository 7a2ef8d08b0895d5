"""Read YAML that means what a person expects and can do nothing else.

The parser is PyYAML's (libyaml where it is built in); the values are made here from its events, because
the stock SafeLoader reads `1e-3` as a string, `no` as False, `10:30` as 630 and keeps the last of two
equal keys in silence. There are no tags, anchors or aliases, and size and depth are bounded before
anything is built, so that no file can run code or exhaust memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from vitrepro.errors import ClaimFileError

MAX_BYTES = 2_000_000
MAX_DEPTH = 32

Loc: TypeAlias = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# the core schema of YAML 1.2: decimal integers and floats, true, false, null; all else is text
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}


@dataclass(frozen=True)
class Document:
    """A parsed file: its value, and the line and column of every key and item."""

    path: str
    value: Any
    marks: dict[Loc, tuple[int, int]] = field(repr=False)

    def where(self, loc: Loc) -> str:
        """`file:line:column` of a key path, or of the nearest enclosing one that exists."""
        while loc and loc not in self.marks:
            loc = loc[:-1]
        line, column = self.marks.get(loc, (1, 1))
        return f"{self.path}:{line}:{column}"


def read(path: Path, shown: str | None = None) -> Document:
    """Parse one file.

    Args:
        path: the file, UTF-8 with or without a byte-order mark.
        shown: how messages name it; the path itself unless given.

    Raises:
        ClaimFileError: not readable, not YAML, or YAML that is refused (tag, anchor, duplicate key, too
            large, too deep), with its line.
    """
    name = shown or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # never all of a device that has no end
        if len(content) > MAX_BYTES:
            raise ClaimFileError([f"{name}: a claim file has at most {MAX_BYTES:,} bytes, this one has more"])
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClaimFileError([f"{name}: not UTF-8 text (byte {error.start})"]) from None
    except OSError as error:
        raise ClaimFileError([f"{name}: cannot be read: {error.strerror or error}"]) from None
    return parse(text, name)


def parse(text: str, path: str = "<text>") -> Document:
    """Parse text as one YAML document; see `read` for what is refused."""
    if len(text) > MAX_BYTES:  # text of --set comes here without a file
        raise ClaimFileError([f"{path}: {len(text):,} characters; at most {MAX_BYTES:,} are read"])
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        before = text[: unprintable.start()]
        where = f"{path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        raise ClaimFileError([f"{where}: not valid YAML: character {unprintable[0]!r} is not text"])
    builder = _Builder(path)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ClaimFileError([f"{where}: not valid YAML: {error.problem or error.context}"]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ClaimFileError([f"{path}: not valid YAML: {error}"]) from None
    return Document(path, builder.root, builder.marks)


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 40:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Builder:
    """Turns parser events into values without recursion."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.root: Any = None
        self.marks: dict[Loc, tuple[int, int]] = {}
        self.documents = 0
        self.stack: list[tuple[Any, Loc]] = []  # open containers, each with its key path
        self.keys: list[str | None] = []  # the key that waits for its value, per open container

    def feed(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._refuse(event, "a second document; a file holds one")
        elif isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"alias *{event.anchor}; write the value out, claim files have no aliases")
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self.stack.pop()
            self.keys.pop()
        elif isinstance(event, yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if event.anchor:
                self._refuse(event, f"anchor &{event.anchor}; claim files have no anchors")
            if event.tag is not None and event.tag != "!":
                self._refuse(event, f"tag {event.tag}; claim files hold plain values, never objects")
            self._node(event)

    def _node(self, event: Any) -> None:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        parent, base = self.stack[-1] if self.stack else (None, ())
        if isinstance(parent, dict) and self.keys[-1] is None:  # this node is a key
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(event, "a key that is not text")
            key = str(event.value)
            if key in parent:
                first = self.marks[(*base, key)][0]
                self._refuse(event, f"key {key!r} stands twice, first on line {first}")
            parent[key] = None
            self.keys[-1] = key
            self.marks[(*base, key)] = (line, column)
            return

        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = scalar(event.value) if event.implicit[0] else event.value
        else:
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
        loc: Loc = base
        if isinstance(parent, dict):
            key = self.keys[-1] or ""
            loc = (*base, key)
            parent[key] = value
            self.keys[-1] = None
        elif isinstance(parent, list):
            loc = (*base, len(parent))
            parent.append(value)
            self.marks[loc] = (line, column)
        else:
            self.root = value
            self.marks[()] = (line, column)
        if isinstance(value, dict | list) and not isinstance(event, yaml.ScalarEvent):
            if len(self.stack) >= MAX_DEPTH:
                self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
            self.stack.append((value, loc))
            self.keys.append(None)

    def _refuse(self, event: Any, problem: str) -> None:
        mark = event.start_mark
        raise ClaimFileError([f"{self.path}:{mark.line + 1}:{mark.column + 1}: {problem}"])
