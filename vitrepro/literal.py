"""A statement held against the numbers that its own source prints. Nothing is run and nothing is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vitrepro.formula import Comparison, Formula, Span
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
    defined: dict[str, Span] = {}

    def lookup(address: str) -> Span:
        if address[1:] in defined and address.startswith("@"):
            return defined[address[1:]]
        cell = find(address)
        return Span.printed(cell.value, cell.decimals)

    for name, formula in expect.definitions().items():
        try:
            defined[name] = formula.value(lookup)
        except (KeyError, ValueError) as error:
            raise FormulaError(("let",), f"{name}: {_message(error)}") from None
    checked = []
    for name, check in expect.checks.items():
        for case, formula in check.formulas():
            try:
                comparison = formula.compare(lookup, check.within)
            except (KeyError, ValueError) as error:
                raise FormulaError(("checks", name), _message(error)) from None
            checked.append(Checked(name, case, formula.text, _cells(formula, defined, find), comparison))
    return tuple(checked)


def _cells(formula: Formula, defined: dict[str, Span], find: Callable[[str], Cell]) -> dict[str, Cell]:
    named = [a for a in formula.addresses if not (a.startswith("@") and a[1:] in defined)]
    return {address: find(address) for address in named}


def _message(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)
