"""Checks of a source's own printed numbers: which comparisons they come to, and what cannot be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from vitrepro import literal
from vitrepro.claims import find_cell
from vitrepro.literal import Checked, FormulaError
from vitrepro.spec import Cell, Claim, LiteralCheck, LiteralExpect

CELLS = {"a": 81.4, "b": 81.3, "c": {"value": 81.35, "decimals": None}, "d": {"value": 300, "decimals": -2}}


def claim(name: str, cells: Mapping[str, Any], expect: Mapping[str, Any] | None = None) -> Claim:
    scale = {"literal": {"expect": expect}} if expect else {"paper": {"infeasible": "why"}}
    return Claim.model_validate(
        {
            "id": name,
            "source": {"paper": "p", "where": "w"},
            "kind": "ordering",
            "statement": "s",
            "reported": {"unit": "%", "decimals": 1, "cells": dict(cells)},
            "scales": scale,
        }
    )


CLAIMS = {
    c.id: c
    for c in (
        claim("paper/one", CELLS),
        claim("paper/two", {"a": 90, "b": 80, "x.y-z": 70}),
        claim("other/one", {"a": 10}),
        claim("paper/deep/er", {"a": 5}),
    )
}


def cell(address: str) -> Cell:
    return find_cell(CLAIMS, CLAIMS["paper/one"], address)


def checked(**expect: Any) -> tuple[Checked, ...]:
    return literal.evaluate(LiteralExpect.model_validate(expect), cell)


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "value"),
    [("@a", 81.4), ("one/a", 81.4), ("two/a", 90), ("paper/two/a", 90), ("other/one/a", 10), ("deep/er/a", 5),
     ("two/x.y-z", 70)],
)  # fmt: skip
def test_a_cell_is_found_by_its_claim_with_or_without_the_source(address: str, value: float) -> None:
    assert cell(address).value == value


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("@z", "@z: neither a cell of this claim nor a definition"),
        ("@aa", "did you mean 'a'?"),
        ("two/z", "two/z: paper/two reports no cell 'z'"),
        ("two/x.y_z", "did you mean 'x.y-z'?"),
        ("tow/a", "tow/a: no claim 'tow'; did you mean 'paper/two'"),
        ("others/one/a", "no claim 'others/one'; did you mean"),
    ],
)
def test_an_address_of_nothing_names_what_is_near(address: str, words: str) -> None:
    with pytest.raises(KeyError) as caught:
        cell(address)
    assert words in str(caught.value.args[0])


def test_a_claim_of_the_same_source_comes_before_one_with_the_whole_id() -> None:
    nested = {**CLAIMS, "paper/other/one": claim("paper/other/one", {"a": 77})}
    assert find_cell(nested, nested["paper/one"], "other/one/a").value == 77


# --- evaluation -----------------------------------------------------------------------------------


def test_every_combination_is_one_comparison_in_the_order_of_the_file() -> None:
    found = checked(
        checks={
            "each": {"that": "two/{x} > @{y}", "each": {"x": ["a", "b"], "y": ["a", "d"]}},
            "one": {"that": "@a > @b"},
        }
    )
    assert [(c.check, c.case, c.comparison.holds) for c in found] == [
        ("each", "a-a", True),
        ("each", "a-d", False),
        ("each", "b-a", False),
        ("each", "b-d", False),
        ("one", "", True),
    ]
    assert found[1].text == "two/a > @d"
    assert {address: c.value for address, c in found[1].cells.items()} == {"two/a": 90, "@d": 300}


def test_definitions_carry_the_rounding_of_their_cells_into_the_checks() -> None:
    found = checked(
        let={"gap": {"value": "@a - @b"}, "half-{x}": {"value": "@gap / {x}", "each": {"x": ["2", "4"]}}},
        checks={"gap": {"that": "@gap < 0.21"}, "small": {"that": "@half-4 < 0.04"}, "cell": {"that": "@c > @half-2"}},
    )
    by_name = {c.check: c for c in found}
    assert by_name["gap"].comparison.holds is True  # at most 81.45 - 81.25
    assert by_name["gap"].comparison.left.high == pytest.approx(0.2)
    assert by_name["small"].comparison.holds is None
    assert by_name["small"].cells == {}  # a definition is no cell
    assert list(by_name["cell"].cells) == ["@c"]


def test_a_definition_comes_before_a_cell_of_its_name() -> None:
    (found,) = checked(let={"a": {"value": "1"}}, checks={"it": {"that": "@a < 2"}})
    assert found.comparison.holds is True
    assert found.cells == {}


def test_equal_within_is_the_difference_allowed_and_without_it_what_is_printed() -> None:
    def holds(that: str, **more: Any) -> bool | None:
        (found,) = checked(checks={"it": {"that": that, **more}})
        return found.comparison.holds

    assert holds("@a == @b") is False
    assert holds("@c == @b") is True
    assert holds("@a == @b", within=0.3) is True
    assert holds("@a == @b", within=0.1) is None
    assert holds("two/a == @b", within=0.1) is False


FAULTY = {
    "let": {
        "bad-{x}": {"value": "@{x} + 1", "each": {"x": ["a", "z"]}},
        "worse": {"value": "@bad-z + 1"},
        "good": {"value": "@bad-a + 1"},
        "zero": {"value": "1 / (@a - @b - 0.1)"},
    },
    "checks": {
        "follows": {"that": "@worse > 1"},
        "sound": {"that": "@good > 1"},
        "wrong": {"that": "tw/{x} > 1", "each": {"x": ["a", "b"]}},
    },
}


def test_every_fault_is_told_with_its_place_and_none_that_only_follows_from_another() -> None:
    found = literal.faults(LiteralExpect.model_validate(FAULTY), cell)
    assert [(f.place, str(f).partition(";")[0]) for f in found] == [
        (("let", "bad-{x}", "value"), "@z: neither a cell of this claim nor a definition"),
        (("let", "zero", "value"), "a division by what may be zero"),
        (("checks", "wrong", "that"), "tw/a: no claim 'tw'"),
        (("checks", "wrong", "that"), "tw/b: no claim 'tw'"),
    ]


def test_what_cannot_be_evaluated_raises_its_first_fault() -> None:
    with pytest.raises(FormulaError, match="@z: neither a cell") as caught:
        checked(**FAULTY)
    assert caught.value.place == ("let", "bad-{x}", "value")


# --- what a file may say --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"that": "@a"}, "compares nothing"),
        ({"that": "@a > 1", "within": 1}, "within goes with =="),
        ({"that": "@a == 1", "within": -1}, "greater than or equal to 0"),
        ({"that": "@a > 1", "holds": "most"}, "most needs three combinations or more"),
        ({"that": "@{x} > 1", "holds": "most", "each": {"x": ["a", "b"]}}, "most needs three combinations"),
        ({"that": "@{y} > 1", "each": {"x": ["a"]}}, "{y} is not one of {x}"),
        ({"that": "@a > 1", "each": {"x": []}}, "at least 1 item"),
        ({"that": "@a > 1", "otherwise": "PASS"}, "'FAIL' or 'EXCEEDS'"),
        ({"that": "@a > 1", "each": {str(i): list("0123456789") for i in range(9)}}, "1,000,000,000 combinations"),
        ({"that": "eval('1') > 0"}, "has no place in a formula"),
    ],
)
def test_a_check_that_tells_nothing_is_refused(check: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LiteralCheck.model_validate(check)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("let", "words"),
    [
        ({"x": {"value": "@a > 1"}}, "'@a > 1' is a comparison; a value is expected"),
        ({"x": {"value": "@x + 1"}}, "@x is defined after it, or by itself"),
        ({"x": {"value": "@y"}, "y": {"value": "1"}}, "@y is defined after it, or by itself"),
        ({"x-{i}": {"value": "@x-2", "each": {"i": ["1", "2"]}}}, "@x-2 is defined after it, or by itself"),
    ],
)
def test_a_definition_without_a_value_of_its_own_is_refused(let: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LiteralExpect.model_validate({"let": let, "checks": {"it": {"that": "@a > 1"}}})
    assert words in str(caught.value)
