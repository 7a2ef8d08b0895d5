"""The claims of the ViT paper as a whole: every printed number, every claim, and what its own numbers say of it.

A digest of all numbers is kept below, so that a changed one is seen where the checked facts are not at hand.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitrepro import claims
from vitrepro.claims import Registry
from vitrepro.judge.printed import judge_literal
from vitrepro.literal import evaluate
from vitrepro.spec import Cell, Claim, LiteralExpect, Paper

ROOT = Path(__file__).parent.parent
FACTS = ROOT.parent / "shared" / "paper"
PAPER = "arxiv:2010.11929v2"
DIGEST = "50f6f7c4a9e8d7b2d07fb17325bf5b70713a2c242678d6a9bfc817227fe462c1"
CELLS = 436  # that have a short id in the facts
CLAIMS = 95
DROPPED = {"vit/t5-more-data-better"}  # no sentence of the paper; what others say of it is a claim of theirs

# every statement that is held against the numbers printed beside it, and what comes of it
LITERAL = {
    "vit/fig3-full-benefit-only-jft": "PASS",
    "vit/fig3-large-below-base-on-i1k": "PASS",
    "vit/fig3-similar-on-i21k": "PASS",
    "vit/fig5-2-to-4x-less-compute": "EXCEEDS",  # L/32 saves more than fourfold
    "vit/fig5-hybrid-better-when-small": "PASS",
    "vit/fig5-no-saturation": "PASS",
    "vit/fig5-vit-dominates": "PASS",
    "vit/fig8-compute-predicts-better": "PASS",
    "vit/fig8-patch-size-free-gain": "PASS",
    "vit/s42-i21k-8-cores-30-days": "PASS",
    "vit/s46-ssl-below-supervised": "PASS",
    "vit/s46-ssl-beats-scratch": "PASS",
    "vit/s5-conclusion": "PASS",
    "vit/t2-cheaper-pretraining": "PASS",
    "vit/t2-h14-improves-hard-sets": "PASS",
    "vit/t2-h14-new-best": "INCONCLUSIVE",
    "vit/t2-i21k-does-well": "PASS",
    "vit/t2-l16-beats-bit-l": "FAIL",  # VTAB is 0.01 lower, ReaL a tie
    "vit/t3-pretraining-recipe": "FAIL",  # the text names one weight decay for all, and hybrids like their ViTs
    "vit/t7-adam-better-on-average": "PASS",
    "vit/t8-none-clearly-worse": "PASS",
    "vit/t8-variants-equal": "PASS",
}


def facts(name: str) -> Any:
    path = FACTS / name
    if not path.is_file():
        pytest.skip(f"the checked facts are not here: {path}")
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def registry() -> Registry:
    return claims.load()


@pytest.fixture(scope="module")
def paper(registry: Registry) -> Paper:
    return registry.papers[PAPER]


def of_paper(registry: Registry) -> list[Claim]:
    return [c for c in registry.claims.values() if c.source.paper == PAPER]


def cells(registry: Registry) -> dict[str, Cell]:
    """Address -> reported cell, over all claims of the paper."""
    return {f"{c.id}/{n}": cell for c in of_paper(registry) if c.reported for n, cell in c.reported.cells.items()}


def digest(registry: Registry) -> str:
    """SHA-256 of the canonical JSON of {address: [value, deviation, decimals]}."""
    numbers = {address: [c.value, c.sd, c.decimals] for address, c in cells(registry).items()}
    return hashlib.sha256(json.dumps(numbers, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- the tables, cell by cell --------------------------------------------------------------------


def short_ids(tables: dict[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """Short id, value and printed deviation of every cell that has one, from the tables alone."""
    for table in tables["tables"]:
        short = f"t{table['id'].removeprefix('table-')}"
        for row, columns in table["cells"].items():
            for name, value in _columns(short, row, columns):
                yield name, value, table.get("std", {}).get(row, {}).get(name.removeprefix(f"{short}-{row}-"))
    for scalar in tables["scalars"]:
        if scalar["id"].startswith("d9-"):
            yield scalar["id"], scalar["value"], None


def _columns(short: str, row: str, columns: dict[str, Any]) -> Iterator[tuple[str, float]]:
    match short:
        case "t3":
            for name, key in (("lr", "base_lr"), ("wd", "weight_decay"), ("dropout", "dropout")):
                yield f"{short}-{row}-{name}", columns[key]
            for epochs in columns["epochs"]:
                yield f"{short}-{row}-epochs-{epochs}", epochs
        case "t4":
            yield f"{short}-{row}-steps", columns["steps"]
            for i, rate in enumerate(columns["base_lr_grid"], 1):
                yield f"{short}-{row}-lr{i}", rate
        case "t5":  # the pre-training set comes first
            model, _, data = row.rpartition("-")
            yield from ((f"{short}-{data}-{model}-{c}", value) for c, value in columns.items())
        case _:
            yield from ((f"{short}-{row}-{c}", v) for c, v in columns.items() if (short, c) != ("t6", "epochs"))


def addresses(registry: Registry) -> dict[str, list[str]]:
    """What a short id may be called here: the rest of it after the claim's own id, or after the table."""
    found = defaultdict(list)
    for address in cells(registry):
        claim, _, cell = address.removeprefix("vit/").rpartition("/")
        for short in {f"{claim}-{cell}", f"{claim.partition('-')[0]}-{cell}"}:
            found[short].append(address)
    return found


def test_every_printed_cell_stands_in_exactly_one_claim_with_its_value_and_deviation(registry: Registry) -> None:
    printed = list(short_ids(facts("tables.yaml")))
    assert len({name for name, _, _ in printed}) == len(printed) == CELLS
    found, known = addresses(registry), cells(registry)
    missing = [name for name, _, _ in printed if len(found[name]) != 1]
    wrong = [
        (name, (value, sd), (known[address].value, known[address].sd))
        for name, value, sd in printed
        for address in found[name]
        if (known[address].value, known[address].sd) != (value, sd)
    ]
    assert (missing, wrong) == ([], []), f"{len(missing)} of {CELLS} stand in no claim or in several; {wrong} differ"


def test_the_numbers_of_the_text_are_those_of_the_facts(registry: Registry) -> None:
    known = cells(registry)
    text = {s["id"]: s["value"] for s in facts("tables.yaml")["scalars"]}
    assert known["vit/s46-ssl-imagenet/imagenet"].value == text["s46-ssl-imagenet"]
    assert known["vit/s42-i21k-8-cores-30-days/days"].value == text["s42-i21k-days"]
    extra = next(t["extra"] for t in facts("tables.yaml")["tables"] if t["id"] == "table-2")
    assert known["vit/t2-h14-new-best/earlier-fixefficientnet-imagenet"].value == extra["noisy-student.imagenet-alt"]


def test_no_number_has_changed_since_the_digest_was_taken(registry: Registry) -> None:
    assert digest(registry) == DIGEST, (
        f"a value, deviation or printed precision of {PAPER} differs; look at the difference of claims/vit, and if it "
        f"is wanted, write {digest(registry)} into DIGEST"
    )


def test_every_number_has_as_many_digits_as_its_decimals_say(registry: Registry) -> None:
    for address, cell in cells(registry).items():
        if cell.decimals is not None:
            assert cell.value == pytest.approx(round(cell.value, cell.decimals), abs=1e-12), address
            assert cell.sd is None or cell.sd == round(cell.sd, cell.decimals), address


def test_numbers_said_to_be_of_another_table_stand_in_its_column(registry: Registry) -> None:
    tables = {t["id"]: list(t["cells"].values()) for t in facts("tables.yaml")["tables"]}
    compared = 0
    for claim in of_paper(registry):
        for other in claim.elsewhere:
            table, same_paper, _ = other.by.partition(" of the same paper")
            if not same_paper:
                continue
            rows = tables[table.lower().replace(" ", "-")]
            for name, values in other.cells.items():
                column = {v for row in rows for c, v in row.items() if f"-{name}".endswith(f"-{c}")}
                assert set(values) <= column, (claim.id, other.by, name)
                compared += 1
    assert compared


# --- the claims ----------------------------------------------------------------------------------


def test_every_claim_of_the_facts_is_here(registry: Registry) -> None:
    ids = [f"vit/{c['id']}" for c in facts("claims.yaml")["claims"]]
    assert len(set(ids)) == len(ids) == CLAIMS
    missing = {i for i in ids if i not in registry.claims}
    assert missing == DROPPED, f"{len(missing)} of {CLAIMS}"


def test_every_claim_says_of_each_scale_how_it_is_checked_or_why_not(registry: Registry) -> None:
    for claim in of_paper(registry):
        scales = claim.scales
        assert scales.any or (scales.paper and scales.gpu and scales.cpu), claim.id


def test_every_claim_says_what_the_papers_own_protocol_takes(registry: Registry) -> None:
    assert [c.id for c in of_paper(registry) if not c.needs.work] == []


def test_statements_agree_with_the_printed_numbers_or_not_as_recorded_here(registry: Registry) -> None:
    found = {}
    for claim in of_paper(registry):
        entry = claim.scales.literal
        if entry and isinstance(entry.expect, LiteralExpect):
            checked = evaluate(entry.expect, registry.cells(claim))
            found[claim.id] = judge_literal(claim, checked).outcome.value
    assert found == LITERAL


# --- the source ----------------------------------------------------------------------------------


def test_every_checkpoint_and_data_set_of_the_facts_is_in_the_file_of_the_source(paper: Paper) -> None:
    known = facts("claims.yaml")
    tags = {name: tag for name, tag in known["checkpoints"].items() if name != "note"}
    assert {name: (tag,) if tag else () for name, tag in tags.items()} == {n: paper.weights[n].names for n in tags}
    for name, data in known["datasets"].items():
        assert paper.data[name].test == data.get("test", paper.data[name].test), name
    assert set(paper.differences) == {d["id"] for d in facts("author-resources.yaml")["paper_versus_code"]}


def test_every_name_of_released_weights_has_its_tag_in_timm(paper: Paper) -> None:
    import timm

    names = [n for w in paper.weights.values() for n in w.names if "://" not in n]
    assert names
    assert [n for n in names if "." not in n] == []
    assert set(names) <= set(timm.list_pretrained())
