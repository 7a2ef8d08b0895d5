"""The audit of verdicts: which of a store's could not have come out otherwise, and what is printed of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_store import Lab, claim, counting, ordering, position_embeddings
from paper_cases import lines, printed
from rich.console import Console
from typer.testing import CliRunner, Result

from vitrepro.cli import app
from vitrepro.errors import UsageError
from vitrepro.report.sensitive import LEGEND, Audited, as_json, audited, exit_code, print_audited, summary
from vitrepro.store import Store, VerdictEntry

ID = "vit/t8-none-worse"
RIGHT = {"none": [640, 650, 645], "learned-1d": [740, 745, 738]}


def only(lab: Lab) -> Audited:
    (found,) = audited(lab.registry, lab.store)
    return found


def shown(found: list[Audited]) -> list[str]:
    return lines(printed(lambda out: print_audited(out, found)))


def at_least(claim_id: str = "vit/never-fails", margin: float = 40.0) -> dict[str, Any]:
    """Ours is at least 30%, give or take 40: nothing fails it. `validate` would refuse it; a store can hold it."""
    cells = {"top1": {"arm": "learned-1d", "margin": margin, "direction": "at_least"}}
    return claim(claim_id, "value", {"cells": cells}, reported={"unit": "% top-1", "cells": {"top1": 30.0}})


def print_claim(claim_id: str, that: str, cells: Mapping[str, float]) -> dict[str, Any]:
    """A claim about printed numbers."""
    return {
        "id": claim_id,
        "source": {"paper": "none", "where": "tests"},
        "kind": "ordering",
        "statement": "It is so.",
        "reported": {"unit": "% top-1", "decimals": 1, "cells": cells},
        "scales": {"literal": {"expect": {"kind": "literal", "checks": {"check": {"that": that}}}}},
    }


def keep_literal(lab: Lab, *said: dict[str, Any]) -> None:
    """Store verdicts of printed numbers, as they are kept."""
    lab.say(*said)
    for each in said:
        of = lab.claims[each["id"]]
        lab.store.write_verdict(
            VerdictEntry(
                claim_id=of.id,
                claim_hash=of.hash,
                scale="literal",
                entry=of.scales.entries()["literal"],
                reported=of.reported,
                runs=(),
                registered_seeds=1,
                deviations=(),
                outcome="PASS",
                reason="it holds",
                judged_at="2026-01-02T03:04:05+00:00",
            )
        )


# --- what could have come out otherwise ---------------------------------------------------------


def test_a_pass_that_its_reverse_would_fail_is_no_defect(verified: Lab):
    found = only(verified)
    assert (found.claim_id, found.scale, found.outcome, found.why) == (ID, "cpu", "PASS", "")
    assert found.examined is not None
    assert found.examined.reversed is not None
    assert found.examined.reversed.outcome.value == "FAIL"
    assert not found.fixed
    assert exit_code([found]) == 0
    assert summary([found]) == "1 decided verdict: it could have come out otherwise."


def test_a_question_of_ours_is_audited_in_its_own_words(verified: Lab):
    verified.say({**ordering(), "by": "us"})
    told = " ".join(shown([only(verified)]))
    assert "fits" in told
    assert "does not fit" in told
    assert "PASS" not in told.partition("Under -3")[0]


def test_a_pass_that_nothing_could_have_failed_is_named(verified: Lab):
    verified.say(at_least())
    verified.verify("vit/never-fails", RIGHT)
    found = audited(verified.registry, verified.store)
    assert [a.fixed for a in found] == [True, False]
    assert exit_code(found) == 1
    last = shown(found)[-1]
    assert last == "1 of 2 decided verdicts could not have come out otherwise: vit/never-fails at cpu."


def test_the_claims_are_judged_as_they_read_now(verified: Lab):
    verified.say(ordering(by=18.0))
    assert only(verified).outcome == "FAIL"


def test_counts_and_printed_numbers_are_examined_too(lab: Lab):
    lab.design(counting())
    check = {"arm": "b16", "quantity": "parameters_m", "tolerance": 1.0}
    reported = {"unit": "millions", "cells": {"b16": 86.0}}
    lab.say(claim("vit/t1", "exact", {"cells": {"b16": check}}, reported=reported, experiment="model-sizes"))
    lab.verify("vit/t1", counted={"b16": {"parameters_m": 86.5, "depth": 12.0}})
    keep_literal(
        lab,
        print_claim("vit/better", "@a > @b", {"a": 60.2, "b": 60.0}),
        print_claim("vit/empty", "@a + 1 > @a", {"a": 60.0}),
    )
    better, empty, counts = audited(lab.registry, lab.store)
    assert (better.scale, better.outcome, better.fixed) == ("literal", "PASS", False)
    assert (empty.scale, empty.outcome, empty.fixed) == ("literal", "PASS", True)
    assert (counts.scale, counts.outcome, counts.fixed) == ("any", "PASS", False)


# --- what is undecided --------------------------------------------------------------------------


def test_what_a_cap_keeps_undecided_is_told_with_the_cap_and_no_defect(lab: Lab):
    lab.design(position_embeddings(seeds=[0, 1, 2, 3, 4]))
    lab.verify(ID, RIGHT)
    found = only(lab)
    assert found.outcome == "INCONCLUSIVE"
    assert found.examined is not None
    assert {t.outcome.value for t in found.examined.trials} == {"INCONCLUSIVE"}
    assert (found.decided, found.fixed, exit_code([found])) == (False, False, 0)
    told = shown([found])
    assert any(line.startswith(f"{ID} at cpu: INCONCLUSIVE: fewer seeds than registered") for line in told)
    assert told[-1] == "No decided verdict. 1 undecided."


@pytest.mark.parametrize("change", ["recipe", "missing", "gone", "infeasible"])
def test_what_cannot_be_judged_is_told_and_not_examined(lab: Lab, change: str):
    lab.verify(ID, RIGHT, skip=1 if change == "missing" else 0)
    if change == "recipe":
        longer = {"train": {"steps": 200, "batch_size": 32, "lr": 0.001}}
        lab.design(position_embeddings(base=position_embeddings()["base"] | longer))
    elif change == "gone":
        lab.claims.clear()
    elif change == "infeasible":
        lab.say(ordering() | {"scales": {"cpu": {"infeasible": "the data was withdrawn"}}})
    found = only(lab)
    because = {
        "recipe": ("INCONCLUSIVE", "the experiment file has changed since"),
        "missing": ("NOT_RUN", "5 of 6 runs are stored"),
        "gone": ("PASS", "not judged again: the claim is no longer in the claim files"),
        "infeasible": ("INFEASIBLE", "the data was withdrawn"),
    }
    outcome, why = because[change]
    assert found.outcome == outcome
    assert found.why.startswith(why)
    assert found.examined is None
    assert (found.decided, found.fixed) == (False, False)
    assert any(line.startswith(f"{ID} at cpu: {outcome}: {why}") for line in shown([found]))


# --- what is printed ----------------------------------------------------------------------------


def test_the_table_shows_every_margin_and_what_does_not_count_in_brackets(verified: Lab):
    verified.say(at_least())
    verified.verify("vit/never-fails", RIGHT)
    told = shown(audited(verified.registry, verified.store))
    assert told[0] == "claim scale outcome could have been nearest change -3 -2 -1 +1 +2 +3 reversed"
    assert told[2] == "vit/never-fails cpu PASS PASS or FAIL NONE PASS PASS PASS PASS PASS (FAIL)"
    nearest = "learned-1d - none reversed: FAIL"
    assert told[3] == f"{ID} cpu PASS PASS or FAIL {nearest} PASS PASS PASS PASS PASS PASS FAIL"
    assert LEGEND in told


def test_a_narrow_terminal_gets_a_block_for_each_verdict(verified: Lab):
    out = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    print_audited(out, [only(verified)])
    text = out.file.getvalue()  # type: ignore[attr-defined]
    reach = "could have been PASS or FAIL"
    nearest = "nearest change  learned-1d - none reversed: FAIL"
    assert text.startswith(f"PASS {ID} at cpu\n  {reach}\n  {nearest}\n  moved ")
    assert "+3 PASS" in text


def test_all_that_was_found_is_plain_json(verified: Lab):
    verified.say(at_least())
    verified.verify("vit/never-fails", RIGHT)
    document = json.loads(json.dumps(as_json(audited(verified.registry, verified.store)), allow_nan=False))
    fixed, other = document["verdicts"]
    assert (fixed["fixed"], fixed["decided"], fixed["nearest"], fixed["why_undecided"]) == (True, True, None, None)
    assert (other["fixed"], other["nearest"]["outcome"]) == (False, "FAIL")
    assert {"name": "+3 margins", "kind": "margins", "margins": 3, "outcome": "FAIL", "counts": False} in fixed[
        "trials"
    ]
    assert document["exit_code"] == 1
    assert document["summary"].startswith("1 of 2 decided verdicts")


# --- the command --------------------------------------------------------------------------------


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments])


@pytest.fixture
def files(lab: Lab, tmp_path: Path) -> list[str]:
    """Options that name a store with one verdict that can fail and one that cannot, and the files of their claims."""
    said = (
        print_claim("printed/better", "@a > @b", {"a": 60.2, "b": 60.0}),
        print_claim("printed/empty", "@a + 1 > @a", {"a": 60.0}),
    )
    keep_literal(lab, *said)
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / "printed.yaml").write_text(yaml.safe_dump({"claims": list(said)}))
    return ["--store", str(lab.store.root), "--claims-dir", str(folder)]


def test_the_command_ends_with_1_where_a_verdict_could_not_have_come_out_otherwise(files: list[str]):
    done = call("--verdicts", *files)
    assert done.exit_code == 1
    told = lines(done.stdout)
    assert told[-1] == "1 of 2 decided verdicts could not have come out otherwise: printed/empty at literal."
    row = "printed/better literal PASS literal a at 60: INCONCLUSIVE FAIL INCONCLUSIVE PASS PASS INCONCLUSIVE FAIL"
    assert row in told


def test_patterns_choose_claims(files: list[str]):
    done = call("--verdicts", "printed/b*", *files)
    assert done.exit_code == 0
    assert "printed/empty" not in done.stdout
    assert lines(done.stdout)[-1] == "1 decided verdict: it could have come out otherwise."


def test_json_is_one_document(files: list[str]):
    done = call("--verdicts", "--json", *files)
    document = json.loads(done.stdout)
    assert done.exit_code == document["exit_code"] == 1
    assert document["schema_version"] == 1
    assert [v["claim_id"] for v in document["verdicts"]] == ["printed/better", "printed/empty"]
    assert document["problems"] == []


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_damaged_verdict_is_named(files: list[str], as_json: tuple[str, ...]):
    (Path(files[1]) / "verdicts" / "broken@cpu.json").write_text("{")
    done = call("--verdicts", *as_json, *files)
    assert done.exit_code == 1
    assert "broken@cpu.json: damaged" in (done.stdout if as_json else done.stderr)


@pytest.mark.parametrize("other", [("--all",), ("--table", "x.csv")])
def test_reported_numbers_and_verdicts_are_two_audits(files: list[str], other: tuple[str, ...]):
    done = call("--verdicts", *other, *files)
    assert done.exit_code == 2
    assert f"{other[0]} looks at reported numbers and --verdicts at the verdicts of a store" in done.stderr


def test_a_store_is_refused_where_nothing_looks_at_it(files: list[str]):
    done = call(*files)
    assert done.exit_code == 2
    assert "only --verdicts looks" in done.stderr
    assert call("vit/t1-variants").exit_code == 0


def test_no_store_an_empty_one_and_one_without_the_claims_are_usage_errors(tmp_path: Path, files: list[str]):
    done = call("--verdicts", "--store", str(tmp_path / "none"))
    assert (done.exit_code, "no such store" in done.stderr) == (2, True)
    empty = Store(tmp_path / "empty")
    empty.prepare()
    done = call("--verdicts", "--store", str(empty.root))
    assert (done.exit_code, "holds no verdicts; `vitrepro verify` makes some" in done.stderr) == (2, True)
    done = call("--verdicts", "vit/t1-variants", *files)
    assert done.exit_code == 2
    assert "holds no verdict of these claims, only of printed/better, printed/empty" in done.stderr


def test_a_store_of_damaged_verdicts_says_so(lab: Lab):
    (lab.store.root / "verdicts").mkdir(exist_ok=True)
    (lab.store.root / "verdicts" / "broken@cpu.json").write_text("{")
    with pytest.raises(UsageError, match=r"holds no verdicts(.|\n)*broken@cpu\.json: damaged"):
        audited(lab.registry, lab.store)


def test_the_audit_of_verdicts_does_not_load_torch(verified: Lab):
    code = (
        "import sys\n"
        "from vitrepro.cli import app\n"
        "try: app(['audit', '--verdicts', '--store', sys.argv[1]])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'timm', 'datasets', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = str(verified.store.root)
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "1 undecided" in done.stdout  # the lab's claim is not among those that ship
