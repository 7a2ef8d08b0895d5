"""Read YAML that means what a person expects and can do nothing else.

The parser is PyYAML's (libyaml where it is built in); the values are made here from its events, because
the stock SafeLoader reads `1e-3` as a string, `no` as False, `10:30` as 630 and keeps the last of two
equal keys in silence. There are no tags, anchors or aliases, and size and depth are bounded before
anything is built, so that no file can run code or exhaust memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from vitrepro.errors import ClaimFileError

MAX_BYTES = 2_000_000
MAX_DEPTH = 32

Loc: TypeAlias = tuple[str | int, ...]

# the core schema of YAML 1.2: decimal integers and floats, true, false, null; all else is text
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_UNPRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
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
    return parse(read_text(path, name), name)


def read_text(path: Path, name: str, what: str = "claim file") -> str:
    """The text of a file that people write, UTF-8 with or without a byte-order mark.

    Raises:
        ClaimFileError: not readable, too large, or not UTF-8.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ClaimFileError([f"{name}: cannot be read: {error.strerror or error}"]) from None
    return _text(content, name, what)


def read_bytes(path: Path) -> bytes:
    """A file as far as one is read: never all of a device that has no end."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def decode(content: bytes, name: str) -> Document:
    """Parse a file's bytes; see `read` for what is refused."""
    return parse(_text(content, name, "claim file"), name)


def _text(content: bytes, name: str, what: str) -> str:
    if len(content) > MAX_BYTES:
        raise ClaimFileError([f"{name}: a {what} has at most {MAX_BYTES:,} bytes, this one has more"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClaimFileError([f"{name}: not UTF-8 text (byte {error.start})"]) from None


def parse(text: str, path: str = "<text>") -> Document:
    """Parse text as one YAML document; see `read` for what is refused."""
    if len(text) > MAX_BYTES:  # text of --set comes here without a file
        raise ClaimFileError([f"{path}: {len(text):,} characters; at most {MAX_BYTES:,} are read"])
    unprintable = re.search(_UNPRINTABLE, text)  # compiled when it is first needed, which takes a while
    if unprintable:
        before = text[: unprintable.start()]
        where = f"{path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        raise ClaimFileError([f"{where}: not valid YAML: character {unprintable[0]!r} is not text"])
    import yaml  # here, because claims that are read from the cache need no parser

    builder = _Builder(path)
    try:
        for event in yaml.parse(text, Loader=_loader()):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        problem = f"not valid YAML: {error.problem or error.context}"
        if "nesting depth" in problem:  # of a parser that reads further ahead than it tells
            problem = f"nested deeper than {MAX_DEPTH} levels"
        raise ClaimFileError([f"{where}: {problem}"]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ClaimFileError([f"{path}: not valid YAML: {error}"]) from None
    return Document(path, builder.root, builder.marks)


def _loader() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
        import yaml

        self.path = path
        self.root: Any = None
        self.marks: dict[Loc, tuple[int, int]] = {}
        self.documents = 0
        self.stack: list[tuple[Any, Loc]] = []  # open containers, each with its key path
        self.keys: list[str | None] = []  # the key that waits for its value, per open container
        self.actions: dict[type, Callable[[Any], None]] = {
            yaml.DocumentStartEvent: self._document,
            yaml.AliasEvent: self._alias,
            yaml.MappingStartEvent: lambda event: self._node(event, {}),
            yaml.SequenceStartEvent: lambda event: self._node(event, []),
            yaml.ScalarEvent: self._scalar,
            yaml.MappingEndEvent: lambda _: self._end(),
            yaml.SequenceEndEvent: lambda _: self._end(),
        }

    def feed(self, event: Any) -> None:
        action = self.actions.get(type(event))  # none for the ends of document and stream
        if action:
            action(event)

    def _document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            self._refuse(event, "a second document; a file holds one")

    def _alias(self, event: Any) -> None:
        self._refuse(event, f"alias *{event.anchor}; write the value out, claim files have no aliases")

    def _end(self) -> None:
        self.stack.pop()
        self.keys.pop()

    def _scalar(self, event: Any) -> None:
        parent, base = self.stack[-1] if self.stack else (None, ())
        if type(parent) is not dict or self.keys[-1] is not None:
            self._node(event, scalar(event.value) if event.implicit[0] else event.value)
            return
        self._plain(event)
        key = event.value
        loc = (*base, key)
        if key in parent:
            self._refuse(event, f"key {key!r} stands twice, first on line {self.marks[loc][0]}")
        parent[key] = None
        self.keys[-1] = key
        mark = event.start_mark
        self.marks[loc] = (mark.line + 1, mark.column + 1)

    def _node(self, event: Any, value: Any) -> None:
        """A value: into its mapping or list, and onto the stack if it is one itself."""
        self._plain(event)
        parent, loc = self.stack[-1] if self.stack else (None, ())
        mark = event.start_mark
        if parent is None:
            self.root = value
            self.marks[()] = (mark.line + 1, mark.column + 1)
        elif type(parent) is list:
            loc = (*loc, len(parent))
            parent.append(value)
            self.marks[loc] = (mark.line + 1, mark.column + 1)
        elif self.keys[-1] is None:
            self._refuse(event, "a key that is not text")
        else:
            loc = (*loc, self.keys[-1])
            parent[self.keys[-1]] = value
            self.keys[-1] = None
        if type(value) in (dict, list):
            if len(self.stack) >= MAX_DEPTH:
                self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
            self.stack.append((value, loc))
            self.keys.append(None)

    def _plain(self, event: Any) -> None:
        if event.anchor:
            self._refuse(event, f"anchor &{event.anchor}; claim files have no anchors")
        if event.tag is not None and event.tag != "!":
            self._refuse(event, f"tag {event.tag}; claim files hold plain values, never objects")

    def _refuse(self, event: Any, problem: str) -> None:
        mark = event.start_mark
        raise ClaimFileError([f"{self.path}:{mark.line + 1}:{mark.column + 1}: {problem}"])
