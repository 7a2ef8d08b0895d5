from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_store import Lab, counting
from fake_store import claim as checked
from paper_cases import claim, entry, lines, literal, printed, registry, value

from vitrepro.claims import Registry
from vitrepro.errors import UsageError
from vitrepro.report.listing import HEADINGS, Filters, Listed, claim_scales, listed, print_claims, row
from vitrepro.spec import SCALES
from vitrepro.store import Places, Store

COUNTS = {"cells": {"b16": {"arm": "b16", "quantity": "depth", "tolerance": 0}}}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(Store(tmp_path / "store"), None, tmp_path / "cache")


def ids(known: Registry, places: Places, **filters: Any) -> list[str]:
    rows = listed(known, list(known.claims.values()), places, Filters(**filters), cuda=False)
    return [r.claim.id for r in rows]


def table(known: Registry, places: Places, *, feasible: bool = False, cells: bool = False, **filters: Any) -> list[str]:
    rows = listed(known, list(known.claims.values()), places, Filters(**filters), cuda=False)
    return lines(printed(lambda out: print_claims(out, rows, known, feasible=feasible, cells=cells)))


def several() -> Registry:
    """Claims of three kinds and two sources; of the first source, one can be checked."""
    return registry(
        literal("j/literal", tags=["printed"]),
        value("j/value", {"a": {"value": 90.25, "sd": 0.5, "decimals": 2, "runs": 3, "n": 10_000}, "b": 80.0}),
        claim("other/words", kind="qualitative", source={"paper": "Book", "where": "Chapter 3"}, tags=["words", "old"]),
    )


# --- filters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, ["j/literal", "j/value", "other/words"]),
        ({"kind": "value"}, ["j/value"]),
        ({"source": "journal:12"}, ["j/literal", "j/value"]),
        ({"source": "chapter"}, ["other/words"]),
        ({"source": "J/LIT"}, ["j/literal"]),
        ({"tag": "words"}, ["other/words"]),
        ({"scale": "literal"}, ["j/literal"]),
        ({"scale": "paper"}, ["j/value", "other/words"]),
        ({"outcome": "NOT_RUN"}, ["j/literal", "j/value", "other/words"]),
        ({"outcome": "FAIL"}, []),
        ({"kind": "value", "tag": "words"}, []),
    ],
)
def test_a_filter_leaves_the_claims_that_it_names_in_the_order_of_the_files(
    places: Places, filters: dict[str, Any], left: list[str]
):
    assert ids(several(), places, **filters) == left


def test_a_check_that_needs_no_scale_passes_the_filter_of_every_scale(lab: Lab, places: Places):
    lab.design(counting())
    lab.say(checked("vit/t1", "exact", COUNTS, experiment="model-sizes", reported={"unit": "1", "cells": {"b16": 12}}))
    for scale in SCALES:
        assert "vit/t1" in ids(lab.registry, places, scale=scale)
    assert ids(lab.registry, places, scale="cpu") == ["vit/t8-none-worse", "vit/t1"]
    assert ids(lab.registry, places, scale="literal") == []


def test_the_outcome_is_the_last_one_stored(places: Places):
    known = several()
    places.store.prepare()
    of = known.claims["j/literal"]
    places.store.write_verdict(entry(of, "literal", "FAIL", judged_at="2026-01-01"))
    assert ids(known, places, outcome="FAIL") == ["j/literal"]
    places.store.write_verdict(entry(of, "literal", "PASS", judged_at="2026-01-02"))
    assert ids(known, places, outcome="FAIL") == []
    assert ids(known, places, outcome="NOT_RUN") == ["j/value", "other/words"]


def test_an_unknown_tag_is_an_error_with_the_nearest_and_all_there_are(places: Places):
    with pytest.raises(
        UsageError, match=r"--tag 'wrods': no claim has it; did you mean 'words'.*\(known: old, printed, words\)"
    ):
        ids(several(), places, tag="wrods")
    with pytest.raises(UsageError, match=r"known: none"):
        ids(registry(claim()), places, tag="words")


def test_an_unknown_source_is_an_error_with_the_sources_there_are(places: Places):
    with pytest.raises(UsageError, match=r"--source 'magazine': .*\(sources: Book, journal:12\)"):
        ids(several(), places, source="magazine")


def test_a_filter_is_held_against_all_claims_not_only_those_that_were_named(places: Places):
    known = several()
    assert listed(known, [known.claims["j/value"]], places, Filters(tag="words"), cuda=False) == []


# --- rows ---------------------------------------------------------------------------------------


def test_a_row_says_how_each_scale_checks_and_what_came_of_it_with_its_fidelity(lab: Lab, places: Places):
    lab.verify("vit/t8-none-worse", {"none": [640, 650, 645], "learned-1d": [740, 745, 738]})
    in_lab = Places(lab.store, None, places.cache_dir)
    (item,) = listed(lab.registry, list(lab.claims.values()), in_lab, Filters(), cuda=False)
    cells = dict(zip(HEADINGS, row(item), strict=True))
    assert cells == {
        "claim": "vit/t8-none-worse",
        "where": "Table 8, D.4",
        "kind": "ordering",
        "cells": "2",
        "paper": "",
        "gpu": "",
        "cpu": "proxy",
        "quick": "",
        "literal": "",
        "here": "cpu",
        "outcome": "PASS (proxy)",
    }


def test_a_claim_that_was_never_judged_is_not_run_and_has_no_fidelity(places: Places):
    known = several()
    rows = listed(known, list(known.claims.values()), places, Filters(), cuda=False)
    told = [dict(zip(HEADINGS, row(r), strict=True)) for r in rows]
    assert [t["outcome"] for t in told] == ["NOT_RUN"] * 3
    assert [t["here"] for t in told] == ["literal", "no", "no"]
    assert [t["paper"] for t in told] == ["", "no", "no"]
    assert [t["literal"] for t in told] == ["yes", "", ""]
    assert [t["cells"] for t in told] == ["2", "2", ""]


def test_a_check_without_a_scale_stands_at_every_scale():
    scales = {"any": {"experiment": "e", "fidelity": "exact", "expect": COUNTS}}
    of = claim(kind="exact", reported={"unit": "1", "cells": {"b16": 12}}, scales=scales)
    assert claim_scales(of) == dict.fromkeys(SCALES, "exact")


def test_the_table_tells_how_many_of_all_claims_and_the_groups(places: Places):
    told = table(several(), places, kind="value")
    assert told[0].split() == list(HEADINGS)
    assert "1 of 3 claims. Groups: none." in told


def test_questions_of_ours_are_counted_apart_from_the_claims_of_their_source(places: Places):
    known = several()
    asked = claim("j/asked", kind="qualitative", by="us")
    told = table(registry(*known.claims.values(), asked), places)
    assert "4 of 4 claims, 1 of them questions of ours. Groups: none." in told
    (source,) = (line for line in told if line.startswith(f"{asked.source.paper} "))
    (ours,) = (line for line in told if line.startswith(f"our questions to {asked.source.paper} "))
    assert (source.split()[-2:], ours.split()[-2:]) == (["2", "NOT_RUN"], ["1", "NOT_RUN"])


# --- what is possible here ----------------------------------------------------------------------


def test_feasible_shows_what_can_be_checked_and_why_not_the_rest(places: Places):
    told = table(several(), places, feasible=True)
    assert [line.split()[0] for line in told if line.startswith(("j/", "other/"))] == [
        "j/literal",
        "j/value",
        "other/words",
    ]
    why = told[told.index("claim why not here") :]
    assert [line for line in why if line.startswith(("j/", "other/"))] == [
        "j/value paper: the data is private",
        "other/words paper: the data is private",
    ]
    assert "1 of 3 claims. Groups: none." in told
    assert "why not here" not in " ".join(table(several(), places))


def test_a_gpu_makes_a_scale_possible_that_is_not_without(lab: Lab, places: Places):
    lab.say(checked("vit/gpu", "ordering", {"all": [{"greater": "learned-1d", "than": "none"}]}, scale="gpu"))
    chosen = [lab.claims["vit/gpu"]]
    (without,) = listed(lab.registry, chosen, places, Filters(), cuda=False)
    (with_one,) = listed(lab.registry, chosen, places, Filters(), cuda=True)
    assert without.choice.scale is None
    assert "CUDA" in without.choice.why_not
    assert with_one.choice.scale == "gpu"


# --- cells --------------------------------------------------------------------------------------


def test_cells_are_listed_under_their_addresses_with_all_their_digits(places: Places):
    known = registry(
        value("j/value", {"a": {"value": 90.2, "sd": 0.5, "decimals": 2, "runs": 3, "n": 10_000}, "b": 80}),
        value("j/long", {"a": 99.05151757188499, "b": 0.1 + 0.2, "c": 1234567}, reported={"unit": "seconds"}),
        claim("j/words"),
    )
    told = table(known, places, cells=True)
    assert told[0] == "cell value sd runs n unit"
    assert [line for line in told if line.startswith("j/")] == [
        "j/value/a 90.20 0.50 3 10,000 % top-1",
        "j/value/b 80 % top-1",
        "j/long/a 99.05151757188499 seconds",
        "j/long/b 0.30000000000000004 seconds",
        "j/long/c 1234567 seconds",
    ]


# --- summary ------------------------------------------------------------------------------------


def test_the_summary_counts_claims_cells_scales_and_outcomes_by_source(places: Places):
    known = several()
    places.store.prepare()
    places.store.write_verdict(entry(known.claims["j/literal"], "literal", "PASS"))
    told = table(known, places)
    summary = told[told.index("source claims cells can be checked here last outcomes") :]
    assert summary[2:4] == ["journal:12 2 4 1 (1 literal) 1 PASS, 1 NOT_RUN", "Book 1 0 0 1 NOT_RUN"]


def test_a_stored_outcome_of_no_known_name_is_shown_and_not_counted(places: Places):
    known = several()
    rows = listed(known, [known.claims["j/literal"]], places, Filters(), cuda=False)
    places.store.prepare()
    places.store.write_verdict(entry(known.claims["j/literal"], "literal", "MAYBE"))
    (odd,) = listed(known, [known.claims["j/literal"]], places, Filters(), cuda=False)
    told = lines(printed(lambda out: print_claims(out, [odd], known, feasible=False, cells=False)))
    assert "MAYBE (literal)" in told[2]
    assert told[-2] == "journal:12 1 2 1 (1 literal)"
    assert replace(odd, last=None) == rows[0] == Listed(rows[0].claim, rows[0].choice, None)
