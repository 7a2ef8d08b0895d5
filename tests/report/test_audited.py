from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from paper_cases import claim, lines, printed, value

from vitrepro.errors import ClaimFileError
from vitrepro.report.audited import Audited, as_json, audited, percent, print_audit, rows
from vitrepro.spec import Claim, Reported

PETS = 3669  # test images
FULL = 83.12619902412345  # of full precision; no count
BATCHES = 100 * (16 / 32 + 4 / 7) / 2  # an unweighted mean over a batch of 32 and one of 7


def shown(found: Audited, *, everything: bool = False) -> list[str]:
    return lines(printed(lambda out: print_audit(out, found, everything=everything)))


def statuses(*claims: Claim) -> dict[str, str]:
    return {a.number.name: a.status for a in audited(claims, []).numbers}


# --- which numbers ------------------------------------------------------------------------------


def test_every_accuracy_with_a_known_number_of_images_is_audited_and_nothing_else():
    of = value("j/v", {"a": {"value": 50, "n": 10}, "b": 50, "above": {"value": 140, "n": 10}})
    seconds = value("j/s", {"a": {"value": 50, "n": 10}}, reported={"unit": "seconds"})
    assert set(statuses(of, seconds, claim("j/words"))) == {"j/v/a"}


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        ("% top-1", 1.0),
        ("Percent", 1.0),
        ("accuracy, as a fraction", 100.0),
        ("5-shot linear Accuracy on ImageNet, as a Fraction", 100.0),
        ("seconds", None),
        ("fraction of the compute", None),
    ],
)
def test_the_unit_tells_whether_a_number_is_an_accuracy_and_on_which_scale(unit: str, scale: float | None):
    assert percent(Reported.model_validate({"unit": unit, "cells": {"a": 1}})) == scale


def test_a_fraction_is_audited_in_percent_with_the_digits_that_were_printed():
    unit = {"unit": "accuracy, as a fraction", "decimals": 3}
    of = value("j/f", {"one": {"value": 0.125, "n": 8}, "two": {"value": 0.126, "n": 8}}, reported=unit)
    first, second = audited([of], []).numbers
    assert (first.number.value, first.number.decimals) == (12.5, 1)
    assert (first.status, second.status) == ("possible as k/n", "not possible as any of these")


def test_the_runs_that_the_source_states_are_tried():
    of = value("j/v", {"a": {"value": 100 * 11 / 70, "n": 10, "runs": 7}})
    assert statuses(of) == {"j/v/a": "only as a mean of r runs"}
    assert statuses(value("j/v", {"a": {"value": 100 * 11 / 70, "n": 10}})) == {"j/v/a": "not possible as any of these"}


def test_a_mean_of_batches_is_told_from_a_count():
    of = value("j/v", {"count": {"value": 100 * 20 / 39, "n": 39}, "batches": {"value": BATCHES, "n": 39}})
    assert statuses(of) == {"j/v/count": "possible as k/n", "j/v/batches": "only as a mean of batch accuracies"}


# --- rows that repeat ---------------------------------------------------------------------------

SIZES = {"n": {"*-cifar": 10_000, "*-pets": PETS}}


def repeats(*claims: Claim) -> list[tuple[str, str]]:
    return [c.rows for c in audited(claims, []).copies]


def test_globs_divide_the_names_of_cells_into_rows_and_columns():
    of = value("j/v", {"b16-cifar": 1, "b16-pets": 2, "l16-pets": 3, "note": 4}, reported=SIZES)
    made = {row: {column: c.value for column, c in columns.items()} for row, columns in rows(of).items()}
    assert made == {"b16": {"cifar": 1.0, "pets": 2.0}, "l16": {"pets": 3.0}, "note": {"": 4.0}}
    assert rows(claim()) == {}


def test_a_whole_row_that_stands_in_another_claim_too_is_found():
    one = value("j/one", {"b16-cifar": 91.2, "b16-pets": 80.1, "l16-cifar": 95, "l16-pets": 85}, reported=SIZES)
    two = value("j/two", {"h14-cifar": 91.2, "h14-pets": 80.1}, reported=SIZES)
    three = value("j/three", {"h14-cifar": 91.2, "h14-pets": 80.2}, reported=SIZES)
    assert repeats(one, two, three) == [("j/one/b16", "j/two/h14")]
    assert repeats(one, three) == []


def test_a_single_number_counts_as_copied_only_with_many_digits_and_within_its_source_and_test_set():
    cells = {"a": {"value": FULL, "n": PETS}, "b": {"value": FULL, "n": PETS}, "c": {"value": 12.5, "n": PETS}}
    cells |= {"d": {"value": 12.5, "n": PETS}}  # two decimals and fewer may be chance
    other = value("j/other", {"x": {"value": FULL, "n": PETS + 1}})
    assert repeats(value("j/v", cells), other) == [("j/v/a", "j/v/b")]
    same = value("j/same", {"x": {"value": FULL, "n": PETS}})
    assert repeats(value("j/one", {"a": {"value": FULL, "n": PETS}}), same) == [("j/one/a", "j/same/x")]


def test_numbers_without_a_number_of_images_are_no_rows_of_accuracies():
    assert repeats(value("j/v", {"a": FULL, "b": FULL})) == []


# --- elsewhere ----------------------------------------------------------------------------------


def test_a_number_that_is_stated_elsewhere_with_another_value_is_listed():
    others = [{"by": "the appendix", "cells": {"a": [90.0], "b": [81.0, 80.0]}}]
    found = audited([value("j/v", {"a": 90.0, "b": 80.0}, elsewhere=others)], [])
    assert [(e.name, e.value, e.by, e.others) for e in found.elsewhere] == [
        ("j/v/b", 80.0, "the appendix", (81.0, 80.0))
    ]
    assert "1 number is stated elsewhere with another value; --all lists them." in shown(found)
    assert "j/v/b 80 81, 80 the appendix" in shown(found, everything=True)


# --- tables -------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str, name: str = "theirs.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_wrong_digit_of_a_table_is_found_in_the_claim_that_it_restates(tmp_path: Path):
    cells = {"b16-cifar": 98.13, "b16-pets": 93.81, "l16-cifar": 97.86, "l16-pets": 93.64}
    right = value("j/right", cells, reported=SIZES)
    wrong = value("j/wrong", {name: v - 20 for name, v in cells.items()}, reported=SIZES)
    path = written(tmp_path, "model,cifar,pets\nB16,98.13,93.31\nL16,97.86,-\n")
    found = audited([wrong, right], [path])
    comparison = found.tables[str(path)]
    assert comparison.candidate == "j/right"
    (difference,) = comparison.differences
    assert (difference.cell, difference.kind, difference.value, difference.source) == (
        "b16-pets",
        "one digit",
        93.31,
        93.81,
    )
    told = shown(found)
    assert f"{path}: restates j/right: 3 cells, 1 differs, 1 of its cells are not stated" in told
    assert any(line.startswith("B16 pets b16-pets 93.31 93.81 93.31 where the source prints 93.81") for line in told)


def test_claims_of_one_table_of_a_source_are_compared_together(tmp_path: Path):
    one = value("j/t5-small", {"b16-cifar": 98.13, "b16-pets": 93.81}, reported=SIZES)
    two = value("j/t5-large", {"b16-cifar": 99.5, "b16-pets": 97.5, "h14-cifar": 99.9}, reported=SIZES)
    path = written(tmp_path, "model,cifar,pets\nB16 small,98.13,93.81\nB16 large,99.5,97.0\nH14,99.9,-\n", "table.csv")
    comparison = audited([one, two], [path]).tables[str(path)]
    assert comparison.candidate == "journal:12, Table 1"
    assert [(d.row, d.column) for d in comparison.differences] == [("B16 large", "pets")]
    assert comparison.unmatched == comparison.absent == ()


def test_a_table_of_something_else_restates_nothing(tmp_path: Path):
    path = written(tmp_path, "fruit,price\napple,3\n")
    found = audited([value("j/v", {"b16-cifar": 98.13})], [path])
    assert f"{path}: restates no cells that are known here" in shown(found)
    assert "not matched: row 'apple': no candidate has its cells" in shown(found)


def test_a_number_with_many_digits_is_shown_with_all_of_them_beside_one_that_nearly_is_it(tmp_path: Path):
    path = written(tmp_path, "model,cifar\nB16,83.12619902412399\n")
    told = shown(audited([value("j/v", {"b16-cifar": FULL})], [path]))
    assert any(line.startswith(f"B16 cifar b16-cifar 83.12619902412399 {FULL!r} ") for line in told)


def test_a_file_that_is_no_table_is_an_error_with_its_place(tmp_path: Path):
    path = written(tmp_path, "model,cifar\nB16,many\n")
    with pytest.raises(ClaimFileError, match=r"theirs\.csv:2: row 'B16', column 'cifar': 'many' is not a number"):
        audited([], [path])


# --- what is printed ----------------------------------------------------------------------------


def test_only_what_stands_out_is_listed_unless_all_is_asked_for():
    of = value("j/v", {"count": {"value": 50, "n": 10}, "none": {"value": 51, "n": 10}})
    told, everything = shown(audited([of], [])), shown(audited([of], []), everything=True)
    assert not any(line.startswith("j/v/count") for line in told)
    assert any(line.startswith("j/v/count 50 10 possible as k/n") for line in everything)
    for text in (told, everything):
        assert any(line.startswith("j/v/none 51 10 not possible as any of these") for line in text)
        last = "2 accuracies with a known number of test images: 1 possible as k/n, 1 not possible as any of these. "
        assert text[-1] == last + "This is information about the printed numbers; no verdict depends on it."


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ({"value": 99.05151757188499, "n": 10_000}, "99.05151757188499"),
        ({"value": 91, "decimals": 2, "n": PETS}, "91.00"),
        ({"value": 50, "n": 10}, "50"),
    ],
)
def test_a_number_is_shown_with_the_digits_that_were_printed(cell: dict[str, Any], text: str):
    told = shown(audited([value("j/v", {"a": cell})], []), everything=True)
    assert any(line.startswith(f"j/v/a {text} {cell['n']:,} ") for line in told)


def test_the_power_of_the_check_stands_beside_what_it_found():
    """Of the 1,001 numbers with one decimal, 11 are a count of 10 images."""
    of = value("j/v", {"count": {"value": 50, "n": 10}, "none": {"value": 51.1, "n": 10}}, reported={"decimals": 1})
    told = shown(audited([of], []))
    assert told[told.index("n digits numbers no k/n rejects") + 2] == f"10 1 2 1 {100 * 990 / 1001:.1f}% of any numbers"


def test_without_a_number_there_is_one_sentence():
    (told,) = shown(audited([claim()], []))
    assert told.startswith("0 accuracies with a known number of test images: none.")


def test_all_that_was_found_is_plain_json(tmp_path: Path):
    path = written(tmp_path, "model,cifar\nB16,98.31\n")
    others = [{"by": "the appendix", "cells": {"b16-cifar": [90.0]}}]
    of = value("j/v", {"b16-cifar": {"value": 98.13, "n": 10_000}}, elsewhere=others)
    document = json.loads(json.dumps(as_json(audited([of], [path])), allow_nan=False))
    assert document["numbers"][0]["status"] == "possible as k/n"
    assert document["elsewhere"] == [{"name": "j/v/b16-cifar", "value": 98.13, "by": "the appendix", "others": [90.0]}]
    assert document["tables"][str(path)]["differences"][0]["kind"] == "digits swapped"
    assert document["copies"] == []
