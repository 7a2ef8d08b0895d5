"""A statement held against the numbers that its own source prints. Nothing is run and nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vitrepro.formula import Comparison, Formula, Span, expand, fill
from vitrepro.spec import Cell, LiteralExpect


class FormulaError(ValueError):
    """A formula that cannot be evaluated, and its key path inside the expectation."""

    def __init__(self, place: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Checked:
    """One comparison of one check.

    Attributes:
        check: its name in the claim.
        case: which combination of `each`; empty without.
        cells: address -> printed number, of the cells it names.
    """

    check: str
    case: str
    text: str
    cells: dict[str, Cell]
    comparison: Comparison


def evaluate(expect: LiteralExpect, find: Callable[[str], Cell]) -> tuple[Checked, ...]:
    """Every comparison of an expectation, in the order of the file.

    Args:
        find: the cell at an address.

    Raises:
        FormulaError: an address that names nothing, or a formula without a value.
    """
    checked = []
    for made in _evaluated(expect, find):
        if isinstance(made, FormulaError):
            raise made
        checked.append(made)
    return tuple(checked)


def faults(expect: LiteralExpect, find: Callable[[str], Cell]) -> tuple[FormulaError, ...]:
    """Why an expectation cannot be evaluated, every reason; none where `evaluate` succeeds."""
    return tuple(made for made in _evaluated(expect, find) if isinstance(made, FormulaError))


def _evaluated(expect: LiteralExpect, find: Callable[[str], Cell]) -> Iterator[Checked | FormulaError]:
    defined: dict[str, Span] = {}
    failed: set[str] = set()  # what refers to them fails for the same reason

    def lookup(address: str) -> Span:
        if address.startswith("@") and address[1:] in defined:
            return defined[address[1:]]
        cell = find(address)
        return Span.printed(cell.value, cell.decimals)

    keys = {fill(key, values): key for key, let in expect.let.items() for values in expand(let.each)}
    for name, formula in expect.definitions().items():
        try:
            if failed.isdisjoint(formula.addresses):
                defined[name] = formula.value(lookup)
                continue
        except (KeyError, ValueError) as error:
            yield FormulaError(("let", keys[name], "value"), _message(error))
        failed.add(f"@{name}")
    for name, check in expect.checks.items():
        for case, formula in check.formulas():
            if not failed.isdisjoint(formula.addresses):
                continue
            try:
                comparison = formula.compare(lookup, check.within)
            except (KeyError, ValueError) as error:
                yield FormulaError(("checks", name, "that"), _message(error))
            else:
                yield Checked(name, case, formula.text, _cells(formula, defined, find), comparison)


def _cells(formula: Formula, defined: dict[str, Span], find: Callable[[str], Cell]) -> dict[str, Cell]:
    named = [a for a in formula.addresses if not (a.startswith("@") and a[1:] in defined)]
    return {address: find(address) for address in named}


def _message(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)
