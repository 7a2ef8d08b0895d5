"""What has changed in a claim since it was judged, in sentences."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vitrepro.changes import claim_changes, differences, earlier_changes, sentence
from vitrepro.spec import Claim
from vitrepro.store import Earlier, VerdictEntry

values = st.recursive(
    st.none() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["a", "b"]) | st.lists(st.integers(0, 3)),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)


def claim(by: float = 1.0, cells: dict[str, Any] | None = None, **change: Any) -> Claim:
    expect = {"all": [{"greater": "a", "than": "b", "by": by}]}
    scale = {"experiment": "e", "fidelity": "proxy", "deviations": ["smaller"], "expect": expect}
    fields = {
        "id": "p/c",
        "source": {"paper": "p", "where": "Table 1"},
        "kind": "ordering",
        "statement": "a is better than b.",
        "reported": {"unit": "%", "cells": {"a": 90.0, "b": 80.0} if cells is None else cells},
        "scales": {"cpu": scale},
    }
    return Claim.model_validate(fields | change)


def judged(*wordings: Claim, outcomes: str = "PASS FAIL PASS FAIL") -> VerdictEntry:
    """A verdict on the last of these wordings, and before it on the others."""
    parts = [
        {
            "claim_hash": c.hash,
            "entry": c.scales.cpu,
            "reported": c.reported,
            "outcome": outcome,
            "judged_at": f"2026-01-0{day}",
        }
        for day, (c, outcome) in enumerate(zip(wordings, outcomes.split(), strict=False), 1)
    ]
    return VerdictEntry(
        claim_id="p/c",
        scale="cpu",
        runs=(),
        registered_seeds=1,
        deviations=(),
        reason="",
        earlier=tuple(Earlier(**p) for p in parts[:-1]),
        **parts[-1],
    )


def changes(entry: VerdictEntry, now: Claim) -> list[str]:
    assert now.scales.cpu is not None
    return list(claim_changes(entry, now, now.scales.cpu))


# --- a claim ------------------------------------------------------------------------------------


def test_a_claim_that_reads_as_it_did_has_not_changed() -> None:
    assert changes(judged(claim()), claim()) == []


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (claim(by=2.5), "expect.all.0.by changed from 1 to 2.5"),
        (claim(cells={"a": 91.0, "b": 80.0}), "reported.cells.a.value changed from 90 to 91"),
        (claim(cells={"a": 90.0}), "reported.cells.b.value was removed; it was 80"),
        (claim(cells={"a": {"value": 90.0, "sd": 0.5}, "b": 80.0}), "reported.cells.a.sd was added: 0.5"),
        (
            claim(reported={"unit": "percent", "cells": {"a": 90.0, "b": 80.0}}),
            "reported.unit changed from % to percent",
        ),
        (
            claim(statement="b is worse than a."),
            "the claim file changed, but neither what is expected at this scale nor what is reported",
        ),
    ],
)
def test_what_was_moved_after_the_verdict_is_named_with_both_values(now: Claim, found: str) -> None:
    assert changes(judged(claim()), now) == [found]


def test_a_change_in_a_late_digit_shows() -> None:
    was, now = 99.05151757188499, 99.051517571885
    (found,) = changes(judged(claim(cells={"a": was})), claim(cells={"a": now}))
    assert found == "reported.cells.a.value changed from 99.05151757188499 to 99.051517571885"


def test_all_changes_are_named_in_the_order_of_the_file() -> None:
    now = claim(by=0.5, cells={"a": 90.0, "c": 1.0})
    assert changes(judged(claim()), now) == [
        "expect.all.0.by changed from 1 to 0.5",
        "reported.cells.b.value was removed; it was 80",
        "reported.cells.c.value was added: 1",
    ]


def test_a_deviation_that_was_added_later_is_named() -> None:
    was = claim()
    assert was.scales.cpu is not None
    now = was.scales.cpu.model_copy(update={"deviations": ("smaller", "shorter")})
    found = list(claim_changes(judged(was), was, now))
    assert found == ["deviations changed from smaller to smaller; shorter"]


# --- the times before the last ------------------------------------------------------------------


def test_a_wording_of_an_earlier_verdict_does_not_stay_unseen_after_the_claim_was_judged_by_the_new_one() -> None:
    strict, loose = claim(by=2.0), claim(by=0.5)
    assert changes(judged(strict, loose, outcomes="FAIL PASS"), loose) == [
        "since it was judged FAIL, 2026-01-01: expect.all.0.by changed from 2 to 0.5"
    ]


def test_a_wording_that_came_back_is_told_too() -> None:
    first, between = claim(by=1.0), claim(by=3.0)
    found = changes(judged(first, between, first), first)
    assert found == [
        "since it was judged PASS, 2026-01-01: it read otherwise in between and reads again as it did then",
        "since it was judged FAIL, 2026-01-02: expect.all.0.by changed from 3 to 1",
    ]
    assert first.scales.cpu is not None
    assert list(earlier_changes(judged(first, between, first), first, first.scales.cpu)) == found
    assert list(earlier_changes(judged(first), between, first.scales.cpu)) == []


# --- any values ---------------------------------------------------------------------------------


@given(values)
def test_nothing_differs_from_itself(value: Any) -> None:
    assert list(differences({"k": value}, {"k": value})) == []


@given(values, values)
def test_differences_are_the_same_seen_from_either_side(was: Any, now: Any) -> None:
    there = {(path, repr(a), repr(b)) for path, a, b in differences({"k": was}, {"k": now})}
    back = {(path, repr(b), repr(a)) for path, a, b in differences({"k": now}, {"k": was})}
    assert there == back


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_two_numbers_that_differ_never_look_alike(was: float, now: float) -> None:
    assume(was != now)
    _, _, numbers = sentence("k", was, now).partition(" from ")
    a, b = numbers.split(" to ")
    assert a != b
    assert (float(a), float(b)) == (was, now)


@pytest.mark.parametrize(
    ("was", "now", "text"),
    [
        (None, ["x", "y"], "k was added: x; y"),
        (["x"], None, "k was removed; it was x"),
        ([], ["x"], "k changed from nothing to x"),
        (0.001, 0.01, "k changed from 0.001 to 0.01"),
        (5, 6, "k changed from 5 to 6"),
        (True, False, "k changed from True to False"),
        ("a", "b", "k changed from a to b"),
    ],
)
def test_a_sentence_says_what_was_and_what_is(was: Any, now: Any, text: str) -> None:
    assert sentence("k", was, now) == text


def test_lists_of_plain_values_are_one_value_and_lists_of_mappings_are_entered() -> None:
    was = {"seeds": [0, 1], "all": [{"by": 1}, {"by": 2}]}
    now = {"seeds": [0, 1, 2], "all": [{"by": 1}, {"by": 3}]}
    assert list(differences(was, now)) == [("seeds", [0, 1], [0, 1, 2]), ("all.1.by", 2, 3)]
