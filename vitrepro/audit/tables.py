"""Tables that restate reported numbers: read from files and held against their source, cell by cell."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vitrepro import yamlfile
from vitrepro.audit.numbers import shown_decimals
from vitrepro.errors import ClaimFileError

Table: TypeAlias = dict[str, dict[str, float]]
Kind: TypeAlias = Literal["one digit", "digits swapped", "point moved", "rounded", "other"]
Given: TypeAlias = tuple[str, str, str, Any]  # where it stands, row, column and what was found there

DELIMITERS = {".csv": ",", ".tsv": "\t", ".yaml": None, ".yml": None, ".json": None}
NOT_PRINTED = (None, "-", "–", "—")
SPELLINGS = (  # of names that are written in several ways; applied to lower-case text
    (r"resnet-?(?=\d)", "r"),
    (r"x1(?=\s*\+)", ""),  # R50x1+ViT is R50+ViT
    (r"(\d+)[\s-]*epochs?\b", r"\1ep"),
    (r"image[\s-]?net-?21k", "i21k"),
    (r"jft[\s-]?300m", "jft"),
    (r"ilsvrc[\s-]?2012", "imagenet"),
    (r"oxford[\s-]*(iiit)?[\s-]*", ""),
    (r"flowers?[\s-]*102", "flowers"),
)


@dataclass(frozen=True)
class Difference:
    """A cell of a table that is not what the source prints.

    Attributes:
        kind: the likely cause. rounded: the table shows fewer digits.
    """

    row: str
    column: str
    cell: str
    value: float
    source: float
    kind: Kind
    because: str


@dataclass(frozen=True)
class Comparison:
    """A table against the cells of the candidate that it restates.

    Attributes:
        candidate: the one whose cells it repeats most often; None: no cell of any matches.
        tied: other candidates that fit as well.
        matched: cells of the source that the table states.
        unmatched: rows, columns and single cells of the table that the source does not have, and why.
        absent: cells of the source that the table does not state.
    """

    candidate: str | None
    tied: tuple[str, ...]
    matched: tuple[str, ...]
    differences: tuple[Difference, ...]
    unmatched: tuple[str, ...]
    absent: tuple[str, ...]


# --- reading ------------------------------------------------------------------------------------


def read_table(path: Path) -> Table:
    """Row -> column -> number, of a .csv or .tsv file whose first line and column are names, or of YAML or JSON.

    A dash, or null in YAML, stands for a number that is not printed, and is left out.

    Raises:
        ClaimFileError: not readable, too large, not UTF-8, or not such a table; every fault with its line.
    """
    if (ending := path.suffix.lower()) not in DELIMITERS:
        raise ClaimFileError([f"{path}: a table is one of {' '.join(DELIMITERS)}, not {ending or 'without an ending'}"])
    text = yamlfile.read_text(path, str(path), "table")
    delimiter = DELIMITERS[ending]
    given, problems = _separated(text, str(path), delimiter) if delimiter else _mapped(text, str(path))
    problems += [
        f"{where}: row {row!r}, column {column!r}: {value!r} is not a number; write - where none is printed"
        for where, row, column, value in given
        if not _is_number(value) and value not in NOT_PRINTED
    ]
    table: Table = {row: {} for _, row, _, _ in given}
    for _, row, column, value in given:
        if _is_number(value):
            table[row][column] = float(value)
    if problems or not any(table.values()):
        raise ClaimFileError(problems or [f"{path}: no numbers; a table has names of columns and at least one row"])
    return table


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _separated(text: str, path: str, delimiter: str) -> tuple[list[Given], list[str]]:
    """The cells below a line of column names, and what is wrong with the names and the number of fields."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, [f.strip() for f in fields]) for fields in reader if any(map(str.strip, fields))]
    except csv.Error as error:
        raise ClaimFileError([f"{path}:{max(1, reader.line_num)}: not a valid table: {error}"]) from None
    (top, (_, *columns)), *rows = lines or [(1, [""])]
    problems = [
        f"{path}:{line}: {len(fields)} fields, but {len(columns) + 1} in the first line"
        for line, fields in rows
        if len(fields) != len(columns) + 1
    ]
    if rows and not columns:
        problems.append(f"{path}:{top}: no columns beside the row names; fields are separated by {delimiter!r}")
    for what, names in (("column", [(top, name) for name in columns]), ("row", [(at, row) for at, (row, *_) in rows])):
        numbered = [(i, line, name) for i, (line, name) in enumerate(names, 2)]
        first = {name: (i, line) for i, line, name in reversed(numbered)}
        problems += [
            f"{path}:{line}: {what} {name!r} stands twice, first on line {first[name][1]}; "
            "write what tells them apart into the name, as in 'ViT-L/16 7ep'"
            if name
            else f"{path}:{line}: {what} {i} has no name"
            for i, line, name in numbered
            if not name or first[name][0] != i
        ]
    given = [
        (f"{path}:{line}", row, column, value if _is_number(value) else field)
        for line, (row, *fields) in rows
        if len(fields) == len(columns)
        for column, field, value in zip(columns, fields, map(yamlfile.scalar, fields), strict=True)
    ]
    return given, problems


def _mapped(text: str, path: str) -> tuple[list[Given], list[str]]:
    """The cells of a mapping of mappings, and which rows are none."""
    document = yamlfile.parse(text, path)
    if not isinstance(document.value, dict):
        raise ClaimFileError([f"{document.where(())}: a table is a mapping of row to column to number"])
    rows = {row: cells for row, cells in document.value.items() if isinstance(cells, dict)}
    problems = [
        f"{document.where((row,))}: row {row!r} is not a mapping of column to number"
        for row in document.value
        if row not in rows
    ]
    given = [(document.where((row, c)), row, c, value) for row, cells in rows.items() for c, value in cells.items()]
    return given, problems


# --- comparing ----------------------------------------------------------------------------------


def compare_table(
    table: Mapping[str, Mapping[str, float]], candidates: Mapping[str, Mapping[str, float]]
) -> Comparison:
    """Hold a table that restates reported numbers against their source.

    A cell is found by row and column name together, in either order, whatever their case, spacing and
    punctuation. If there is none, words of the cell's name between the two may be missing, and first words of
    either may stand in the name of the source instead, as long as one cell fits best.

    Args:
        table: row -> column -> number; see `read_table`.
        candidates: source (a claim) -> cell -> number, in the unit of the table. The one counts of which most
            cells are repeated unchanged, then of which most are stated at all.
    """
    fitting = {name: _fitting(table, cells, set(_words(name))) for name, cells in candidates.items()}
    matches = {name: {at: fits[0] for at, fits in of.items() if len(fits) == 1} for name, of in fitting.items()}
    scores = {
        name: (sum(table[r][c] == candidates[name][cell] for (r, c), cell in of.items()), len(set(of.values())))
        for name, of in matches.items()
    }
    best = max(scores, key=scores.__getitem__, default=None)
    if best is None or not matches[best]:
        return Comparison(None, (), (), (), tuple(f"row {row!r}: no candidate has its cells" for row in table), ())
    cells, stated = candidates[best], set(matches[best].values())
    return Comparison(
        candidate=best,
        tied=tuple(name for name in candidates if name != best and scores[name] == scores[best]),
        matched=tuple(cell for cell in cells if cell in stated),
        differences=tuple(
            _difference(row, column, cell, table[row][column], cells[cell])
            for (row, column), cell in matches[best].items()
            if table[row][column] != cells[cell]
        ),
        unmatched=_unmatched(fitting[best]),
        absent=tuple(cell for cell in cells if cell not in stated),
    )


def _words(name: str) -> list[str]:
    text = name.lower()
    for pattern, spelling in SPELLINGS:
        text = re.sub(pattern, spelling, text)
    return re.findall(r"[^\W_]+", text)


def _fitting(
    table: Mapping[str, Mapping[str, float]], cells: Mapping[str, float], source: set[str]
) -> dict[tuple[str, str], list[str]]:
    """Row and column -> the cell that they name; none if there is no such cell, or several that fit as well."""
    ends: dict[tuple[str, ...], list[tuple[int, str]]] = {}  # words at its two ends -> how many are between, cell
    for cell, words in ((cell, _words(cell)) for cell in cells):
        for i, j in itertools.combinations(range(1, len(words) + 1), 2):
            for key in itertools.permutations(("".join(words[:i]), "".join(words[j - 1 :]))):
                ends.setdefault(key, []).append((j - 1 - i, cell))
    found: dict[tuple[str, str], list[str]] = {
        (row, column): [] for row, columns in table.items() for column in columns
    }
    for shortened, gap in itertools.product((False, True), repeat=2):
        taken = {fits[0] for fits in found.values() if len(fits) == 1}
        for row, column in [place for place, fits in found.items() if len(fits) != 1]:
            # each name as it is, and less the words at its start that stand in the name of the source
            (a, short_a), (b, short_b) = (
                ("".join(words), "".join(itertools.dropwhile(source.__contains__, words)))
                for words in (_words(row), _words(column))
            )
            keys = {(short_a, b), (a, short_b)} if shortened else {(a, b)}
            fits = [fit for key in keys for fit in ends.get(key, ()) if (fit[0] > 0) == gap and fit[1] not in taken]
            found[row, column] = sorted({c for between, c in fits if between == min(fits)[0]}) or found[row, column]
    return found


def _unmatched(found: Mapping[tuple[str, str], list[str]]) -> tuple[str, ...]:
    """One line for each row and column of which nothing is matched, and for each other cell that is not."""
    rows, columns = ({place[i] for place, fits in found.items() if len(fits) == 1} for i in (0, 1))
    missing = [(row, column, fits) for (row, column), fits in found.items() if len(fits) != 1]
    reasons: dict[str, list[str]] = {}
    for name, fits in (
        *((f"row {row!r}", fits) for row, _, fits in missing if row not in rows),
        *((f"column {column!r}", fits) for _, column, fits in missing if column not in columns),
        *((f"row {r!r}, column {c!r}", fits) for r, c, fits in missing if r in rows and c in columns),
    ):
        reasons[name] = reasons.get(name) or fits
    return tuple(f"{name}: {'fits ' + ', '.join(fits) if fits else 'no such cell'}" for name, fits in reasons.items())


def _difference(row: str, column: str, cell: str, value: float, source: float) -> Difference:
    coarse, decimals = shown_decimals(value), max(shown_decimals(value), shown_decimals(source))
    ours, theirs = (format(Decimal(repr(x)), f".{decimals}f") for x in (value, source))
    unlike = [(x, y) for x, y in zip(ours, theirs, strict=True) if x != y] if len(ours) == len(theirs) else []
    digits = {text.replace(".", "").strip("-0") for text in (ours, theirs)}
    causes: list[tuple[bool, Kind, str]] = [
        (
            coarse < decimals and 2 * abs(Decimal(ours) - Decimal(theirs)) <= Decimal(10) ** -coarse,
            "rounded",
            "the same to the digits shown",
        ),
        (
            len(unlike) == 1,
            "one digit",
            f"one digit differs, {', '.join(f'{x} for {y}' for x, y in unlike)}; likely a typo",
        ),
        (
            len(unlike) == 2 and unlike[0] == unlike[-1][::-1],
            "digits swapped",
            "the same but for two digits that changed places; likely a typo",
        ),
        (len(digits) == 1, "point moved", "the same digits with the point elsewhere"),
        (True, "other", "not a single wrong digit"),
    ]
    kind, cause = next((kind, cause) for holds, kind, cause in causes if holds)
    return Difference(row, column, cell, value, source, kind, f"{ours} where the source prints {theirs}: {cause}")
