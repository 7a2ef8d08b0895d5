from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrepro import claims, cost, yamlfile
from vitrepro.claims import Registry
from vitrepro.errors import ClaimFileError, UsageError
from vitrepro.plan import Choice, plan_claim
from vitrepro.recipe import LibraryModelSpec
from vitrepro.spec import (
    CHECKS,
    SCALES,
    CheckName,
    Claim,
    Expect,
    Kind,
    Quantity,
    Reported,
    ScaleName,
    Scales,
    TrainExperiment,
    ValueExpect,
)

TRAINED = """\
id: models
type: train
title: three models on digits
base:
  data: {name: digits}
  train: {steps: 10, batch_size: 8, lr: 1e-3}
factors:
  model:
    small: {model: {family: vit, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}, measures: [attention_low_max]}
    large: {model: {family: vit, patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2}, measures: [attention_low_max]}
    resnet: {model: {family: resnet, layers: [1, 1], block: basic, width: 8}}
seeds: [0, 1]
"""
COUNTED = """\
id: counts
type: analytic
title: what is counted
arms:
  b16: {model: {family: vit, variant: B/16}, quantities: [depth, tokens]}
"""
ORDERING = """\
id: paper/order
source: {paper: "arxiv:1", where: Table 1}
kind: ordering
statement: Large is better than small.
scales:
  quick: {experiment: models, fidelity: exact, expect: {all: [{greater: large, than: small}]}}
"""
VALUE = """\
id: paper/value
source: {paper: "arxiv:1", where: Table 2}
kind: value
statement: Large reaches 90%.
reported: {unit: percent, cells: {large: 90}}
scales:
  quick:
    experiment: models
    fidelity: exact
    expect:
      cells:
        large: {arm: large, margin: 2}
"""
EXACT = """\
id: paper/exact
source: {paper: "arxiv:1", where: Table 3}
kind: exact
statement: Base has 12 layers.
reported: {unit: count, cells: {layers: 12}}
scales:
  any: {experiment: counts, fidelity: exact, expect: {cells: {layers: {arm: b16, quantity: depth, tolerance: 0}}}}
"""
LITERAL = """\
id: paper/literal
source: {paper: "arxiv:1", where: Table 4}
kind: ordering
statement: B is above A, and above what the other table says.
reported: {unit: percent, decimals: 1, cells: {a: 81.3, b: 84.2}}
needs: {data: [digits], weights: [small], differences: [resolution]}
scales:
  paper: {infeasible: the models are private}
  literal:
    expect:
      let:
        gain: {value: "@b - @a"}
      checks:
        order: {that: "@b > value/large - 30 * @gain"}
        exceeds: {that: "@{better} > exact/layers", each: {better: [a, b]}}
"""
SOURCE = """\
paper: "arxiv:1"
title: A paper
data: {digits: {title: Digits, access: bundled}}
weights: {small: {title: A small model}}
differences: {resolution: {text: 224 pixels, code: 384 pixels}}
"""
SOUND = {
    "order.yaml": ORDERING,
    "value.yaml": VALUE,
    "exact.yaml": EXACT,
    "literal.yaml": LITERAL,
    "source.yaml": SOURCE,
    "experiments/models.yaml": TRAINED,
    "experiments/counts.yaml": COUNTED,
}


def family(*texts: str) -> str:
    """A file of several claims."""
    return "claims:\n" + "".join("  - " + textwrap.indent(text, "    ").lstrip() for text in texts)


SHIPPED_ORDER = ORDERING.replace("models", "digits")
BUILTIN = {
    "vit/shapes.yaml": EXACT.replace("paper/exact", "vit/shapes").replace("counts", "shapes"),
    "vit/family.yaml": family(*(SHIPPED_ORDER.replace("paper/order", f"vit/order-{i}") for i in range(3))),
    "vit/paper.yaml": SOURCE.replace("arxiv:1", "arxiv:vit"),
    "experiments/shapes.yaml": COUNTED.replace("counts", "shapes"),
    "experiments/digits.yaml": TRAINED.replace("models\n", "digits\n"),
    "groups.yaml": "basics: {title: what ships, scale: [any, quick], claims: [vit/*]}\n",
}
Load = Callable[..., Registry]
ROOT = Path(__file__).parent.parent


def written(folder: Path, files: dict[str, str | None]) -> Path:
    """The folder with these files as name=text; None takes one away."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            (folder / name).write_text(text)
    return folder


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few claims in the place of those that come with vitrepro."""
    folder = written(tmp_path / "claims", dict(BUILTIN))
    monkeypatch.setattr("vitrepro.claims.files.builtin_dir", lambda: folder)
    return folder


@pytest.fixture
def load(tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load files given as name=text beside the sound ones, from a directory called `mine`; None leaves one out."""
    assert shipped.is_dir()
    monkeypatch.chdir(tmp_path)

    def loaded(files: dict[str, str | None] | None = None) -> Registry:
        return claims.load([written(Path("mine"), {**SOUND, **(files or {})})])

    return loaded


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def only_problem(registry: Registry) -> str:
    """The one fault, beside those of claims that it spoils."""
    (problem,) = [p for p in registry.problems if "has faults, see there" not in p]
    return problem


# --- the claims that come with vitrepro ---------------------------------------------------------


@pytest.fixture(scope="module")
def builtin() -> Registry:
    return claims.load()


def test_the_built_in_claims_have_no_faults(builtin: Registry) -> None:
    assert builtin.problems == ()
    assert builtin.warnings == ()
    assert len(builtin.claims) >= 10
    assert all(builtin.files[name] for name in (*builtin.claims, *builtin.experiments))


def test_every_scale_of_every_built_in_claim_plans_and_costs(builtin: Registry) -> None:
    planned = 0
    for claim in builtin.claims.values():
        for name, entry in claim.scales.entries().items():
            if entry.infeasible:
                continue
            plan = plan_claim(builtin, Choice(claim, name, entry, {}), resolve=lambda _: "fp32")  # type: ignore[arg-type]
            if name == "literal":
                assert plan.checked
                assert not plan.runs
                continue
            priced = cost.total(plan.runs, cost.Timings([], "cpu", 1), slots=1)
            assert priced.runs == len(plan.runs) > 0
            library = any(r.type == "train" and isinstance(r.config.model, LibraryModelSpec) for r in plan.runs)
            assert (priced.flops is None) == library  # nobody but the library knows what its models compute
            planned += 1
    assert planned >= 10


def test_every_built_in_experiment_is_used(builtin: Registry) -> None:
    entries = [e for c in builtin.claims.values() for e in c.scales.entries().values()]
    assert set(builtin.experiments) == {e.experiment for e in entries if e.experiment}


def test_the_claims_of_a_group_can_be_checked_at_its_scale(builtin: Registry) -> None:
    assert builtin.groups
    for name, group in builtin.groups.items():
        chosen, found = claims.select(builtin, [name])
        assert found is group
        for scale in group.scale:
            entries = [claim.scales.entry(scale) for claim in chosen]
            assert any(e is not None and e.infeasible is None for e in entries), f"{name}: nothing at scale {scale}"


def test_naming_the_built_in_directory_again_changes_nothing(builtin: Registry) -> None:
    assert claims.load([claims.builtin_dir()]) == builtin


# --- the schema ---------------------------------------------------------------------------------


def test_the_json_schema_is_json_and_describes_the_settings() -> None:
    schema = json.loads(json.dumps(claims.json_schema(), allow_nan=False))
    assert {"Claim", "Family", "TrainExperiment", "AnalyticExperiment"} <= set(schema["$defs"])
    assert schema["$defs"]["Cell"]["properties"].keys() == {"value", "sd", "runs", "decimals", "n"}


def test_the_built_in_files_are_valid_by_the_json_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(claims.json_schema())))
    validator.check_schema(validator.schema)
    for path in claims.builtin_dir().rglob("*.yaml"):
        if path.name != "groups.yaml":
            validator.validate(yamlfile.read(path).value)


def test_reported_cells_may_be_plain_numbers_in_the_json_schema() -> None:
    (cell,) = claims.json_schema()["$defs"]["Reported"]["properties"]["cells"]["patternProperties"].values()
    assert cell["anyOf"] == [{"type": "number"}, {"$ref": "#/$defs/Cell"}]


def test_the_forms_and_scales_of_the_schema_agree_with_their_tables() -> None:
    forms = {get_args(e.model_fields["kind"].annotation)[0] for e in get_args(get_args(Expect)[0])}
    assert forms == {*get_args(Kind), "literal"} - {"cost", "qualitative"}
    assert set(SCALES) == set(get_args(ScaleName))
    assert set(CHECKS) == set(get_args(CheckName)) == set(Scales.model_fields)


def test_every_quantity_of_the_schema_can_be_measured() -> None:
    from vitrepro.measure.analytic import QUANTITIES

    assert set(QUANTITIES) == set(get_args(Quantity))


# --- faults of one file, with their place ---------------------------------------------------------


def test_the_sound_files_have_no_faults(load: Load) -> None:
    registry = load()
    assert registry.problems == ()
    assert {"paper/order", "paper/value", "paper/exact", "paper/literal", "vit/order-2"} <= set(registry.claims)
    assert registry.files["paper/order"] == "mine/order.yaml"
    assert registry.files["vit/order-2"] == "claims/vit/family.yaml"
    assert registry.files["arxiv:1"] == "mine/source.yaml"
    assert registry.places["claim", "vit/order-2"].shown == "claims/vit/family.yaml:14:5"


def place(text: str, at: str) -> str:
    """line:column at which this part of the text begins."""
    before = text[: text.index(at)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


@pytest.mark.parametrize(
    ("old", "new", "at", "path", "words"),
    [
        ("steps: 10", "stpes: 10", "stpes", "base.train.stpes: ", "unknown key; did you mean 'steps'?"),
        ("steps: 10", "steps: -10", "steps", "base.train.steps: ", "-10: input should be greater than 0"),
        ("steps: 10", "steps: ten", "steps", "base.train.steps: ", "'ten': input should be a valid integer"),
        ("steps: 10", "steps: 10.5", "steps", "base.train.steps: ", "10.5: input should be a valid integer"),
        ("steps: 10", "steps: true", "steps", "base.train.steps: ", "true and false are no numbers"),
        ("lr: 1e-3", "lr: nan", "lr", "base.train.lr: ", "finite number"),
        ("lr: 1e-3", "lr: 1e999", "lr", "base.train.lr: ", "finite number"),
        ("seeds: [0, 1]", "seeds: []", "seeds", "seeds: ", "needs at least 1, found 0"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "seeds", "seeds: ", "a number stands twice: [1, 1]"),
        ("seeds: [0, 1]", "seeds: [0, 1099511627776]", "1099511627776", "seeds.1: ", "less than 2147483648"),
        ("seeds: [0, 1]", "seeds: [-1]", "-1]", "seeds.0: ", "greater than or equal to 0"),
        ("seeds: [0, 1]", "seeds: 2", "seeds", "seeds: ", "a list is expected, found 2"),
        ("name: digits", "name: cifar11", "name: c", "base.data.name: ", "did you mean 'cifar10', 'cifar100'"),
        ("width: 8", "pos_embed: x", "pos_embed: x", "factors.model.resnet.model.pos_embed: ", "unknown key"),
        ("embed_dim: 32", "embed_dim: 32, pos_embed: learned1d", "pos_embed", "factors.model.large.model.pos_embed: ",
         "did you mean 'learned_1d', 'learned_2d'?"),
        ("embed_dim: 32", "embed_dim: 33", "model: {family: vit, patch_size: 4, embed_dim: 33",
         "factors.model.large.model: ", "not a multiple of num_heads"),
        ("embed_dim: 32", "embed_dim: 32, norm: pots", "norm", "factors.model.large.model.norm: ",
         "did you mean 'post'"),
        ("embed_dim: 32", "embed_dim: 32, attention: batch, norm: post, attention_norm: unused",
         "model: {family: vit, patch_size: 4, embed_dim: 32", "factors.model.large.model: ", "norm post there is none"),
        ("embed_dim: 32", "embed_dim: 32, attention: batch", "large: {", "factors.model.large: ",
         "attention_low_max is of attention among all tokens of an image"),
        ("family: resnet", "family: resnt", "model: {family: resnt", "factors.model.resnet.model: ", "'resnet'?"),
        ("layers: [1, 1]", "layers: []", "layers", "factors.model.resnet.model.layers: ", "needs at least 1"),
        ("type: train", "type: trian", "id:", "", "type 'trian' is not one of 'train', 'analytic'; did you mean 'trai"),
        ("base:", "bse:", "bse", "bse: ", "did you mean 'base'"),
        ("{name: digits}", "{name: digits, classes: [1, 1]}", "data:", "base.data: ", "classes holds a label twice"),
        ("    resnet:", "    Res Net:", "Res Net", "factors.model.Res Net", "not a name of lower-case letters"),
        ("steps: 10", "epochs: 1e308", "small: {", "", "a number is too large"),
        ("embed_dim: 32", "embed_dim: 16", "large:", "factors.model.large: ",
         "arms 'small' and 'large' have one recipe: they would be one run, not two"),
    ],
)  # fmt: skip
def test_a_fault_of_an_experiment_is_shown_at_its_line_and_key(
    load: Load, old: str, new: str, at: str, path: str, words: str
) -> None:
    text = changed(TRAINED, old, new)
    expected = f"mine/experiments/models.yaml:{place(text, at)}: {path}"
    problems = load({"experiments/models.yaml": text}).problems
    assert any(p.startswith(expected) and words in p for p in problems), problems


CELL = "scales.quick.expect.cells.large"


@pytest.mark.parametrize(
    ("text", "old", "new", "at", "path", "words"),
    [
        (VALUE, "margin: 2", "margin: nan", "margin", f"{CELL}.margin: ", "finite number"),
        (VALUE, "margin: 2", "margin: 0", "margin", f"{CELL}.margin: ", "greater than 0"),
        (VALUE, "margin: 2", "margin: 120", "margin", f"{CELL}.margin: ", "less than 50"),
        (VALUE, "margin: 2", "margin: true", "margin", f"{CELL}.margin: ", "true and false are no numbers"),
        (VALUE, "margin: 2", "margin: 40", "large: {", f"{CELL}: ", "half the distance of 90.0 to chance, 10"),
        (VALUE, "margin: 2", "margin: 2, margn: 2", "margn", f"{CELL}.margn: ", "did you mean 'margin'"),
        (VALUE, "{large: 90}", "{large: 173}", "large: {", f"{CELL}: ", "between 0 and 100"),
        (VALUE, "{large: 90}", "{large: ninety}", "large: ninety", "reported.cells.large: ", "valid number"),
        (VALUE, "{large: 90}", "{larger: 90}", "large: {", f"{CELL}: ", "no reported cell 'large'; did you mean"),
        (VALUE, "arm: large", "arm: larg", "arm: ", "scales.quick.expect", "no arm 'larg'; did you mean 'large'?"),
        (VALUE, "experiment: models", "experiment: model", "experiment", "scales.quick.experiment: ", "'models'?"),
        (VALUE, "experiment: models", "experiment: counts", "experiment", "scales.quick.experiment: ", "type train"),
        (VALUE, "fidelity: exact", "fidelity: exat", "fidelity", "scales.quick.fidelity: ", "did you mean 'exact'?"),
        (VALUE, "fidelity: exact", "fidelity: proxy", "quick", "scales.quick: ", "names its deviations"),
        (VALUE, "fidelity: exact", "fidelity: exact\n    deviations: [fewer steps]", "fidelity",
         "scales.quick.fidelity: ", "is not exact"),
        (VALUE, "margin: 2", "margin: 2, same_weights: true", "large: {", f"{CELL}: ", "and models trains"),
        (VALUE, "where: Table 2", "where: Table 2; a reading of it", "id", "",
         "source.where says 'a reading of', so that the source does not say it; add `by: us`"),
        (ORDERING, "scales:\n", "scales:\n  cpu: {experiment: models, fidelity: exact, expect: {all: [{greater: large, "
         "than: small, by: 1}]}}\n",
         "experiment: models, fidelity: exact, expect: {all: [{greater: large, than: small}",
         "scales.quick.experiment: ", "scale cpu has the same runs (models, arm large)"),
        (ORDERING, "all: [", "given: [{greater: large, than: smal}], all: [", "than: smal}", "scales.quick.expect: ",
         "no arm 'smal'; did you mean 'small'?"),
        (ORDERING, "all: [", "given: [{arm: large, metric: selection_gain, above: 1}], all: [", "{arm: large",
         "scales.quick.expect: ", "does not measure selection_gain"),
        (VALUE, "quick:", "quik:", "quik", "scales.quik: ", "did you mean 'quick'?"),
        (VALUE, "kind: value", "kind: valeu", "kind", "kind: ", "did you mean 'value'"),
        (VALUE, "id: paper/value", "id: Paper/Value", "id", "id: ", "lower-case letters"),
        (VALUE, "id: paper/value", "id: paper/a--b", "id", "id: ", "holds '--'"),
        (EXACT, "quantity: depth", "quantity: mlp_dim", "layers: {", "scales.any.expect.cells.layers: ",
         "arm 'b16' of counts does not measure mlp_dim"),
        (EXACT, "quantity: depth", "quantity: dept", "quantity", "scales.any.expect.cells.layers.quantity", "'depth'?"),
        (EXACT, "tolerance: 0", "tolerance: -1", "tolerance", "scales.any.expect.cells.layers.tolerance", "equal to 0"),
        (EXACT, "  any:", "  cpu: {infeasible: why}\n  any:", "scales", "scales: ", "stands beside cpu"),
        (ORDERING, "experiment: models", "experiment: counts", "experiment", "scales.quick.experiment: ", "type train"),
        (ORDERING, "than: small", "than: large", "{greater", "scales.quick.expect.all.0: ", "compared with itself"),
        (ORDERING, "source: {paper: \"arxiv:1\", where: Table 1}", "source: arxiv", "source", "source: ",
         "a mapping is expected, found text"),
        (VALUE, "{large: 90}", "{large: {value: 90, dcimals: 1}}", "dcimals", "reported.cells.large.dcimals",
         "did you mean 'decimals'"),
        (VALUE, "unit: percent", "unit: percent, decimals: 13", "decimals", "reported.decimals: ", "less than or e"),
        (VALUE, "unit: percent", "unit: percent, runs: 0", "runs", "reported.runs: ", "greater than 0"),
        (VALUE, "unit: percent", "unit: percent, n: {'b*': 10}", "reported", "reported: ", "no cell matches 'b*'"),
        (VALUE, "unit: percent", "unit: percent, n: 10", "n: 10", "reported.n: ", "a mapping is expected, found 10"),
        (VALUE, "scales:", "elsewhere: [{by: others, cells: {lrge: [90]}}]\nscales:", "id", "",
         "elsewhere (others): no reported cell 'lrge'"),
        (VALUE, "scales:", "needs: {wrk: [model]}\nscales:", "wrk", "needs.wrk: ", "did you mean 'work'?"),
        (VALUE, "scales:", "needs: {work: [modl]}\nscales:", "modl", "needs.work.0: ", "did you mean 'model'"),
        (VALUE, "scales:", "needs: {data: [digts]}\nscales:", "digts", "needs.data.0: ",
         "the file of arxiv:1 has no 'digts'; did you mean 'digits'?"),
        (VALUE, "scales:", "needs: {weights: [large]}\nscales:", "large]", "needs.weights.0: ",
         "the file of arxiv:1 has no 'large'; it has small"),
        (VALUE, "scales:", "needs: {differences: [resolutoin]}\nscales:", "resolutoin", "needs.differences.0: ",
         "did you mean 'resolution'"),
        (VALUE, "expect:\n      cells", "expect:\n      cels", "cels", "scales.quick.expect.cels: ",
         "did you mean 'cells'"),
    ],
)  # fmt: skip
def test_a_fault_of_a_claim_is_shown_at_its_line_and_key(
    load: Load, text: str, old: str, new: str, at: str, path: str, words: str
) -> None:
    text = changed(text, old, new).replace("id: paper/", "id: mine/")
    problems = load({"mine.yaml": text}).problems
    expected = f"mine/mine.yaml:{place(text, at)}: {path}"
    assert any(p.startswith(expected) and words in p for p in problems), problems
    assert len(problems) == 1 + ("cels" in text)  # the right key is missing, too


def test_all_faults_of_a_file_are_shown_at_once(load: Load) -> None:
    text = changed(TRAINED, "seeds: [0, 1]", "seeds: [3, 3]\nnoets: hm")
    text = changed(changed(text, "steps: 10", "stpes: 10"), "name: digits", "name: digit")
    faults = "\n".join(load({"experiments/models.yaml": text}).problems)
    for words in ("seeds: a number stands twice", "noets: unknown key", "stpes: unknown key", "'digit' is not one of"):
        assert words in faults


def test_all_faults_of_a_claim_are_shown_at_once(load: Load) -> None:
    text = VALUE.replace("margin: 2", "margin: -1").replace("where:", "were:").replace("{large: 90}", "{large: x}")
    problems = load({"value.yaml": text, "literal.yaml": None}).problems
    assert [re.sub(r"^\S+ ([^:]*): .*", r"\1", p) for p in problems] == [
        "source.where",
        "source.were",
        "reported.cells.large",
        "scales.quick.expect.cells.large.margin",
    ]


def test_a_fault_stays_on_one_line_whatever_the_key_holds(load: Load) -> None:
    problem = only_problem(load({"order.yaml": ORDERING + '"two\\nlines": 1\n'}))
    assert problem.startswith("mine/order.yaml:7:1: 'two\\nlines': unknown key")


@pytest.mark.parametrize(
    ("text", "found"), [("", "nothing"), ("some words", "text"), ("- a", "a list"), ("3", "3"), ("claims: 3", "3")]
)
def test_a_file_that_is_no_mapping_of_claims_says_what_it_is(load: Load, text: str, found: str) -> None:
    problem = only_problem(load({"odd.yaml": text}))
    assert problem.startswith("mine/odd.yaml:1:1: ")
    assert problem.endswith(f"is expected, found {found}")


FORMS = {  # what says which form of `expect` it is
    "exact": "{cells: {large: {arm: b16, quantity: depth, tolerance: 0}}}",
    "value": "{cells: {large: {arm: large, margin: 2}}}",
    "ordering": "{all: [{greater: large, than: small}, {arm: large, metric: attention_low_max, above: 0.5}]}",
    "trend": "{increasing: [small, large, resnet]}",
    "equivalence": "{equal: [small, large], within: 2}",
    "literal": "{checks: {it: {that: '@large > 1'}}}",
}


def of_kind(kind: str, form: str, expect: str) -> str:
    """A claim of this kind that expects something of this form."""
    entry = f"experiment: {'counts' if form == 'exact' else 'models'}, fidelity: exact, "
    scale = "literal" if form == "literal" else "quick"
    return f"""
id: mine/kinds
source: {{paper: p, where: w}}
kind: {kind}
statement: s
reported: {{unit: percent, cells: {{large: 90}}}}
scales: {{{scale}: {{{"" if form == "literal" else entry}expect: {expect}}}}}
"""


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("form", FORMS)
def test_the_keys_of_expect_tell_its_form_and_numbers_are_checked_as_numbers(kind: str, form: str, load: Load) -> None:
    registry = load({"kinds.yaml": of_kind(kind, form, FORMS[form])})
    if kind in ("exact", "value") and form not in (kind, "literal"):
        assert "mine/kinds" not in registry.claims
        assert registry.problems
    else:
        assert registry.problems == ()
        (entry,) = registry.claims["mine/kinds"].scales.entries().values()
        assert entry.expect is not None
        assert entry.expect.kind == form


@pytest.mark.parametrize("kind", ["exact", "value"])
@pytest.mark.parametrize("form", ["ordering", "exact", "value"])
def test_a_form_that_is_named_must_be_that_of_a_number(kind: str, form: str, load: Load) -> None:
    problems = load({"kinds.yaml": of_kind(kind, form, FORMS[form].replace("{", f"{{kind: {form}, ", 1))}).problems
    assert bool(problems) == (kind != form)
    assert all(f"scales.quick.expect is of kind {form}, the claim of kind {kind}" in p for p in problems)


@pytest.mark.parametrize("kind", ["cost", "qualitative"])
@pytest.mark.parametrize("expect", ["{}", "{margin: 3}", "{al: [{greater: large, than: small}]}"])
def test_an_expectation_that_nothing_tells_the_form_of_is_a_fault(kind: str, expect: str, load: Load) -> None:
    problem = only_problem(load({"kinds.yaml": of_kind(kind, "ordering", expect)}))
    assert problem.startswith("mine/kinds.yaml:7:")
    assert "scales.quick.expect: nothing here tells what is expected; it has cells" in problem


@pytest.mark.parametrize(
    ("comparison", "faults"),
    [
        ("{greater: large, thn: small}", ["than: is missing", "thn: unknown key; did you mean 'than'"]),
        ("{greater: large, than: smal}", ["models has no arm 'smal'; did you mean 'small'"]),
        ("{greater: large, than: small, by: -60}", ["by: -60: of accuracies it should be greater than -50"]),
        ("{arm: large, metrc: attention_low_max, above: 1}",
         ["metric: is missing", "metrc: unknown key; did you mean 'metric'"]),
        ("{arm: lrge, metric: attention_low_max, above: 1}", ["models has no arm 'lrge'; did you mean 'large'"]),
        ("{arm: large, metric: attention_low_max, above: 1, below: 2}", ["give either above or below"]),
        ("{amr: large, metric: attention_low_max, above: 1}",
         ["greater: is missing", "than: is missing", "amr: unknown key; did you mean 'arm'", "above: unknown key"]),
        ("{arm: large, metric: attention_low_max, above: no}", ["above: 'no': input should be a valid number"]),
        ("{arm: large, metric: attention_low_mx, above: 1}", ["'attention_low_mx' is not one of 'top1', 'position_"]),
        ("{arm: large, metric: attention_low_mx, above: 1}", ["did you mean 'attention_low_max'"]),
        ("{greater: large, than: small, metric: top}", ["metric: 'top' is not one of 'top1', 'position_distance"]),
        ("{greater: large, than: small, metric: attention_low_mx}", ["did you mean 'attention_low_max'"]),
        ("{arm: resnet, metric: attention_low_max, above: 1}", ["arm 'resnet' of models does not measure"]),
        ("{greater: large, than: small, metric: attention_low_min}",
         ["arm 'large' of models does not measure attention_low_min; its recipe's measures are: attention_low_max",
          "arm 'small' of models does not measure attention_low_min"]),
        ("large", ["a mapping is expected, found text"]),
        ("[large, small]", ["a mapping is expected, found a list"]),
        ("3", ["a mapping is expected, found 3"]),
    ],
)  # fmt: skip
def test_a_typo_in_a_comparison_or_a_bound_is_told_in_its_own_terms(
    load: Load, comparison: str, faults: list[str]
) -> None:
    problems = load({"kinds.yaml": of_kind("ordering", "ordering", f"{{all: [{comparison}]}}")}).problems
    assert len(problems) == len(faults)
    for fault in faults:
        (told,) = [p for p in problems if fault in p]
        assert re.match(r"mine/kinds.yaml:7:\d+: scales.quick.expect", told)
        assert "literal[" not in told
        assert "Comparison" not in told
        assert "Bound" not in told


def test_what_is_said_once_for_all_cells_is_filled_in_where_a_cell_does_not_say_it() -> None:
    reported = Reported.model_validate(
        {
            "unit": "percent",
            "decimals": 1,
            "runs": 3,
            "n": {"a-*": 100, "*-x": 200, "b-*": 300},
            "cells": {"a-x": 1, "b-x": {"value": 2, "decimals": 2}, "b-y": {"value": 3, "n": 7, "runs": 5}, "c": 4},
        }
    )
    said = {name: (c.value, c.decimals, c.runs, c.n) for name, c in reported.cells.items()}
    assert said == {"a-x": (1, 1, 3, 100), "b-x": (2, 2, 3, 200), "b-y": (3, 1, 5, 7), "c": (4, 1, 3, None)}


@pytest.mark.parametrize(("key", "value"), [("decimals", "one"), ("runs", -1), ("n", {"*": "many"})])
def test_a_fault_in_what_is_said_once_is_told_once(load: Load, key: str, value: Any) -> None:
    cells = {f"c{i}": i for i in range(9)} | {"large": 90}
    text = changed(VALUE, "{unit: percent, cells: {large: 90}}", json.dumps({"unit": "%", key: value, "cells": cells}))
    problem = only_problem(load({"value.yaml": text}))
    assert f": reported.{key}" in problem


def test_a_scale_of_a_group_may_be_one_or_several(load: Load) -> None:
    text = "one: {title: t, scale: quick, claims: [paper/*]}\ntwo: {title: t, scale: [literal, any], claims: [paper/*]}"
    groups = load({"groups.yaml": text}).groups
    assert groups["one"].scale == ("quick",)
    assert groups["two"].scale == ("literal", "any")


def test_two_arms_of_one_name_are_refused(load: Load) -> None:
    factors = "factors:\n  a: {x-y: {}, x: {}}\n  b: {z: {}, y-z: {}}\n"
    text = re.sub(r"factors:\n(  .*\n)+", factors, TRAINED)
    assert "factors: 2 arms are named 'x-y-z'" in "\n".join(load({"experiments/models.yaml": text}).problems)


def test_a_factor_without_levels_is_refused(load: Load) -> None:
    text = re.sub(r"factors:\n(  .*\n)+", "factors: {model: {}}\n", TRAINED)
    assert "factors: 'model' has no levels" in "\n".join(load({"experiments/models.yaml": text}).problems)


def test_ten_billion_arms_are_refused_before_they_are_made(load: Load) -> None:
    levels = ", ".join(f"l{i}: {{}}" for i in range(10))
    factors = "factors:\n" + "".join(f"  f{i}: {{{levels}}}\n" for i in range(10))
    text = re.sub(r"factors:\n(  .*\n)+", factors, TRAINED)
    assert "10,000,000,000 arms" in "\n".join(load({"experiments/models.yaml": text}).problems)


# --- files against each other ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["order.yaml", "experiments/models.yaml"])
def test_two_files_with_one_id_are_both_named_and_the_first_counts(load: Load, name: str) -> None:
    again = name.replace(".yaml", "2.yaml")
    registry = load({again: SOUND[name]})
    problem = only_problem(registry)
    assert problem.startswith(f"mine/{again}:1:1: ")
    assert problem.endswith(f"exists already, at mine/{name}:1:1")
    assert "paper/order" in registry.claims


@pytest.mark.parametrize(
    ("name", "text", "what", "first"),
    [
        ("mine.yaml", ORDERING.replace("paper/order", "vit/shapes"), "claim 'vit/shapes'", "vit/shapes.yaml:1:1"),
        ("mine.yaml", ORDERING.replace("paper/order", "vit/order-1"), "claim 'vit/order-1'", "vit/family.yaml:8:5"),
        ("experiments/mine.yaml", BUILTIN["experiments/digits.yaml"], "experiment 'digits'",
         "experiments/digits.yaml:1:1"),
        ("groups.yaml", "basics: {title: t, scale: quick, claims: [paper/*]}", "group 'basics'", "groups.yaml:1:1"),
        ("mine.yaml", BUILTIN["vit/paper.yaml"], "source 'arxiv:vit'", "vit/paper.yaml:1:1"),
    ],
)  # fmt: skip
def test_what_has_the_name_of_a_built_in_one_leaves_that_in_place_and_both_files_are_named(
    load: Load, tmp_path: Path, name: str, text: str, what: str, first: str
) -> None:
    before = claims.load()
    for _ in range(2):  # read, and from the snapshot
        registry = load({name: text})
        assert only_problem(registry) == f"mine/{name}:1:1: {what} exists already, at claims/{first}"
        for section in ("claims", "experiments", "groups", "papers"):
            there = getattr(registry, section)
            assert {key: there[key] for key in getattr(before, section)} == getattr(before, section)
    found = claims.check_files([tmp_path / "mine" / name], claims.load())
    assert f"{tmp_path}/mine/{name}:1:1: {what} exists already, at claims/{first}" in found


def test_files_are_named_as_the_user_reaches_them(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load({"order.yaml": "a: &x 1", "experiments/models.yaml": None, "value.yaml": None})
    assert claims.load([tmp_path / "mine"]).problems[0].startswith(f"{tmp_path}/mine/order.yaml:1:")
    monkeypatch.chdir(tmp_path / "mine")
    assert claims.load([Path(".")]).problems[0].startswith("order.yaml:1:")


@pytest.mark.usefixtures("shipped")
def test_directories_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "claims" / "experiments").mkdir(parents=True)
        (tmp_path / folder / "claims" / "experiments" / "counts.yaml").write_text(COUNTED)
    (problem,) = claims.load([tmp_path / "one" / "claims", tmp_path / "two" / "claims"]).problems
    assert problem.startswith(f"{tmp_path}/two/claims/experiments/counts.yaml:1:1: ")
    assert problem.endswith(f"{tmp_path}/one/claims/experiments/counts.yaml:1:1")


@pytest.mark.parametrize("broken", ["a: [", "id: paper/bad", "claims: [{id: 3}]", "a: &x 1", "\tx"])
def test_a_broken_file_leaves_the_others_listed(load: Load, broken: str) -> None:
    registry = load({"bad.yaml": broken, "experiments/worse.yaml": broken})
    assert registry.problems
    assert {p.partition(":")[0] for p in registry.problems} == {"mine/bad.yaml", "mine/experiments/worse.yaml"}
    only = load({"bad.yaml": broken, "experiments/worse.yaml": None})
    assert only.claims == registry.claims
    registry = only
    assert all(p.startswith("mine/bad.yaml:") for p in registry.problems)
    assert {"paper/order", "paper/value", "paper/exact", "vit/shapes"} <= set(registry.claims)


def test_a_broken_experiment_costs_the_claims_that_need_it_and_no_others(load: Load) -> None:
    registry = load({"experiments/models.yaml": changed(TRAINED, "steps: 10", "steps: 0")})
    assert "paper/exact" in registry.claims
    assert not {"paper/order", "paper/value", "paper/literal"} & set(registry.claims)
    told = [p for p in registry.problems if "has faults, see there" in p]
    assert [p.partition(":")[0] for p in told] == ["mine/order.yaml", "mine/value.yaml", "mine/literal.yaml"]
    assert "the file of 'models' has faults" in told[0]
    assert "value/large: claim 'paper/value' has faults" in told[2]  # its formula names a cell of it


def test_a_faulty_claim_of_a_family_does_not_take_the_others_with_it(load: Load) -> None:
    parts = [ORDERING.replace("paper/order", f"paper/part-{i}") for i in range(4)]
    parts[1] = changed(parts[1], "statement", "statment")
    parts[2] = changed(parts[2], "than: small", "than: smal")
    registry = load({"order.yaml": family(*parts)})
    assert [c for c in registry.claims if "part" in c] == ["paper/part-0", "paper/part-3"]
    assert [p.split(": ")[:2] for p in registry.problems] == [
        ["mine/order.yaml:8:5", "claims.1.statement"],
        ["mine/order.yaml:11:5", "claims.1.statment"],
        ["mine/order.yaml:19:84", "claims.2.scales.quick.expect"],
    ]
    assert registry.broken == {"paper/part-1", "paper/part-2"}


def test_claims_that_name_cells_of_a_faulty_one_are_lost_with_it_one_after_the_other(load: Load) -> None:
    chain = {
        f"{i}.yaml": LITERAL.replace("paper/literal", f"paper/chain-{i}").replace("value/large", f"chain-{i + 1}/a")
        for i in range(3)
    }
    whole = load({**chain, "3.yaml": VALUE.replace("paper/value", "paper/chain-3").replace("large:", "a:", 1)})
    assert [p.partition(":")[0] for p in whole.problems] == [f"mine/{i}.yaml" for i in (3, 2, 1, 0)]
    assert "no reported cell 'large'" in whole.problems[0]
    assert all("has faults, see there" in p for p in whole.problems[1:])
    assert whole.broken == {f"paper/chain-{i}" for i in range(4)}


def test_a_claim_with_an_unused_key_of_an_experiment_is_still_a_claim(load: Load) -> None:
    problem = only_problem(load({"typed.yaml": ORDERING.replace("paper/", "mine/") + "type: ordering\n"}))
    assert problem.startswith("mine/typed.yaml:7:1: type: unknown key")


def test_a_broken_group_leaves_the_other_groups(load: Load) -> None:
    text = """
bad: {title: t, scale: quik, claims: [paper/order]}
unknown: {title: t, scale: quick, claims: [paper/ordr]}
good: {title: t, scale: quick, claims: [paper/order, paper/exact]}
"""
    registry = load({"groups.yaml": text})
    assert len(registry.problems) == 2
    assert registry.problems[0].startswith("mine/groups.yaml:2:17: bad.scale: 'quik' is not one of")
    assert "groups.yaml:3:44: no claim matches 'paper/ordr'; did you mean 'paper/order'" in registry.problems[1]
    assert [c.id for c in claims.select(registry, ["good"])[0]] == ["paper/exact", "paper/order"]


@pytest.mark.usefixtures("shipped")
def test_a_directory_that_does_not_exist_or_holds_no_claims_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such directory"):
        claims.load([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"holds no \*\.yaml file"):
        claims.load([written(tmp_path / "empty", {"notes.txt": ""})])


def test_a_group_that_names_a_faulty_claim_is_not_at_fault(load: Load) -> None:
    groups = "mine: {title: t, scale: quick, claims: [paper/value, paper/order]}"
    registry = load({"value.yaml": changed(VALUE, "margin: 2", "margin: 0"), "groups.yaml": groups})
    assert not [p for p in registry.problems if "groups.yaml" in p]
    assert [c.id for c in claims.select(registry, ["mine"])[0]] == ["paper/order"]


def test_a_source_with_the_name_of_a_claim_does_not_hide_its_file(load: Load) -> None:
    registry = load({"source.yaml": SOURCE.replace("arxiv:1", "paper/order")})
    assert registry.files["paper/order"] == "mine/order.yaml"
    assert registry.places["source", "paper/order"].shown == "mine/source.yaml:1:1"


def test_the_faults_of_other_files_are_not_those_of_a_single_one(load: Load, tmp_path: Path) -> None:
    registry = load({"bad.yaml": "id: paper/bad"})
    assert registry.problems
    good = written(tmp_path, {"good.yaml": ORDERING.replace("paper/order", "mine/new")}) / "good.yaml"
    assert claims.check_files([good], registry) == ()


def test_single_files_are_held_against_what_is_known(load: Load, tmp_path: Path) -> None:
    registry = load()
    files: dict[str, str | None] = {
        "good.yaml": ORDERING.replace("paper/order", "mine/new"),
        "needs.yaml": LITERAL.replace("paper/literal", "paper/new"),
        "bad.yaml": ORDERING.replace("paper/order", "mine/bad").replace("than: small", "than: smal"),
        "groups.yaml": "mine: {title: t, scale: quick, claims: [paper/order, vit/*]}",
    }
    written(tmp_path, files)
    assert claims.check_files([Path("good.yaml"), Path("needs.yaml"), Path("groups.yaml")], registry) == ()
    (problem,) = claims.check_files([Path("bad.yaml")], registry)
    assert problem.startswith("bad.yaml:6:")
    assert "did you mean 'small'" in problem
    (missing,) = claims.check_files([Path("missing.yaml")], registry)
    assert missing.startswith("missing.yaml: cannot be read")


@pytest.mark.parametrize("name", SOUND)
def test_a_file_that_is_known_already_is_no_duplicate_of_itself(load: Load, tmp_path: Path, name: str) -> None:
    registry = load()
    itself, again = Path("mine") / name, tmp_path / "mine" / name
    assert claims.check_files([itself, again], registry) == ()
    (tmp_path / "elsewhere.yaml").write_text(itself.read_text())
    (problem,) = claims.check_files([tmp_path / "elsewhere.yaml"], registry)
    assert problem.startswith(f"{tmp_path}/elsewhere.yaml:1:1: ")
    assert problem.endswith(f"exists already, at mine/{name}:1:1")
    itself.write_text(itself.read_text() + "surplus: 1\n")
    (problem,) = claims.check_files([itself], registry)
    assert "surplus: unknown key" in problem


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("order.yaml", "statement: ", "statment: ", "statment: unknown key; did you mean 'statement'"),
        ("order.yaml", "than: small", "than: smal", "models has no arm 'smal'; did you mean 'small'"),
        ("exact.yaml", "quantity: depth", "quantity: mlp_dim", "arm 'b16' of counts does not measure mlp_dim"),
        ("exact.yaml", "quantity: depth", "quantity: dept", "did you mean 'depth'"),
        ("value.yaml", "margin: 2", "margin: 45", "half the distance of 90.0 to chance"),
        ("value.yaml", "margin: 2", "margn: 2", "unknown key; did you mean 'margin'"),
        ("literal.yaml", "value/large", "value/lrge", "paper/value reports no cell 'lrge'; did you mean 'large'?"),
        ("literal.yaml", "value/large", "vale/large", "no claim 'vale'; did you mean 'paper/value'"),
        ("literal.yaml", "@b - @a", "@b - @c", "let.gain.value: @c: neither a cell of this claim nor a definition"),
        ("literal.yaml", "30 * @gain", "30 * @gin", "@gin: neither a cell of this claim nor a definition"),
        ("literal.yaml", "@{better} > exact/layers", "@{beter} > 1", "{beter} is not one of {better}"),
        ("literal.yaml", "@{better} > exact/layers", "exact/layers + 1", "compares nothing"),
        ("literal.yaml", "@{better} > exact/layers", "@{better} > 1 / (@a - @a)", "a division by what may be zero"),
        ("literal.yaml", "@{better} > exact/layers", "__import__('os').system('touch x')", "has no place in a formula"),
        ("literal.yaml", "data: [digits]", "data: [digts]", "arxiv:1 has no 'digts'; did you mean 'digits'"),
        ("experiments/models.yaml", "embed_dim: 32", "embed_dim: 16", "have one recipe: they would be one run"),
        ("experiments/models.yaml", "lr: 1e-3", "lr: 1e-3, lr: 1", "key 'lr' stands twice"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_new_file_is_found_before_anything_runs(
    load: Load, tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    registry = load()
    text = SOUND[name].replace("id: paper/", "id: paper/new-").replace("id: models", "id: others")
    assert claims.check_files([written(tmp_path, {"new.yaml": text}) / "new.yaml"], registry) == ()
    found = claims.check_files([written(tmp_path, {"new.yaml": changed(text, old, new)}) / "new.yaml"], registry)
    assert any(words in p for p in found), found
    assert all(re.match(re.escape(f"{tmp_path}/new.yaml") + r":\d+:\d+: ", p) for p in found)
    assert not (tmp_path / "x").exists()


def test_every_fault_of_a_literal_check_is_told_and_what_follows_from_a_faulty_definition_is_not(load: Load) -> None:
    text = LITERAL.replace("@b - @a", "@b - @c").replace("exact/layers", "exact/layer").replace("[a, b]", "[a, b, c]")
    assert [p.split(": ", 2)[2] for p in load({"literal.yaml": text}).problems] == [
        "@c: neither a cell of this claim nor a definition",
        "exact/layer: paper/exact reports no cell 'layer'; did you mean 'layers'?",
        "@c: neither a cell of this claim nor a definition",
    ]


# --- installed packages ---------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a package with claims and an entry point, as if it had been installed."""

    def installed(name: str, module: str, target: str = "CLAIMS", files: dict[str, str | None] | None = None) -> Path:
        site = tmp_path / f"site-{name}"
        written(site, {f"{name}.py": module, **{f"{name}_claims/{k}": v for k, v in (files or {}).items()}})
        entry = f"[vitrepro.claims]\n{name} = {name}:{target}\n"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
        written(site / f"{name}-1.2.dist-info", {"METADATA": metadata, "entry_points.txt": entry})
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(site)
        return site

    return installed


GIVES_FOLDER = """\
from pathlib import Path
CLAIMS = Path(__file__).parent / "{}_claims"
def claims(): return str(CLAIMS)
"""


@pytest.mark.parametrize("target", ["CLAIMS", "claims"])
def test_claims_of_an_installed_package_are_read(load: Load, install: Callable[..., Path], target: str) -> None:
    files = {"a.yaml": ORDERING.replace("paper/order", "theirs/order").replace("models", "digits")}
    site = install("good", GIVES_FOLDER.format("good"), target, files)
    registry = load()
    assert registry.warnings == registry.problems == ()
    assert registry.files["theirs/order"] == f"{site}/good_claims/a.yaml"
    assert "vit/shapes" in registry.claims


@pytest.mark.parametrize(
    ("module", "target", "reason"),
    [
        ("raise RuntimeError('broken\\non import')", "CLAIMS", "RuntimeError: broken on import"),
        ("import nowhere_to_be_found", "CLAIMS", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(3)", "CLAIMS", "SystemExit: 3"),
        ("def claims(): raise ValueError('x' * 10_000)", "claims", "ValueError: xxx"),
        ("CLAIMS = 3", "CLAIMS", "TypeError: "),
        ("CLAIMS = '/nowhere/at/all'", "CLAIMS", "/nowhere/at/all: no such directory of claims"),
        ("", "CLAIMS", "AttributeError: module 'bad' has no attribute 'CLAIMS'"),
        (")", "CLAIMS", "SyntaxError: unmatched ')'"),
        (GIVES_FOLDER.format("bad"), "CLAIMS", "no such directory of claims"),
    ],
)
def test_an_installed_package_that_fails_is_one_warning_and_all_other_claims_are_read(
    load: Load,
    install: Callable[..., Path],
    module: str,
    target: str,
    reason: str,
) -> None:
    without = load()
    install("bad", module, target)
    install("good", GIVES_FOLDER.format("good"), files={"a.yaml": SHIPPED_ORDER.replace("paper/", "theirs/")})
    registry = load()
    (warning,) = registry.warnings
    assert warning.startswith("claims of the installed package bad 1.2 are left out: ")
    assert reason in warning
    assert len(warning.splitlines()) == 1
    assert len(warning) < 400
    assert registry.problems == ()
    assert set(registry.claims) == {*without.claims, "theirs/order"}


def test_a_package_that_fails_is_a_line_on_stderr_and_the_list_is_whole(
    install: Callable[..., Path], shipped: Path, tmp_path: Path
) -> None:
    site = install("bad", "print('to stdout')\nraise RuntimeError('broken on import')")
    code = (
        "from pathlib import Path; from vitrepro.claims import files\n"
        f"files.builtin_dir = lambda: Path({str(shipped)!r})\n"
        "from vitrepro.cli import run; run()\n"
    )
    path = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])

    def listed(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "list-claims", *more]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done

    warning = "claims of the installed package bad 1.2 are left out: RuntimeError: broken on import"
    document = json.loads(listed("--json").stdout)
    assert {c["id"] for c in document["claims"]} == {"vit/shapes", *(f"vit/order-{i}" for i in range(3))}
    assert document["warnings"] == [warning]
    table = listed()
    assert [line for line in table.stderr.splitlines() if "bad 1.2" in line] == [f"Warning: {warning}"]
    assert "vit/order-2" in table.stdout


# --- selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["paper/order"], ["paper/order"]),
        (["paper/*"], ["paper/exact", "paper/literal", "paper/order", "paper/value"]),
        (["paper/[ev]*"], ["paper/exact", "paper/value"]),
        (["paper/value", "paper/exact", "paper/value", "*/exact"], ["paper/exact", "paper/value"]),
        (["paper/exact/layers"], ["paper/exact"]),
        (["vit/shapes/layers", "*/order*"], ["vit/order-0", "vit/order-1", "vit/order-2", "vit/shapes", "paper/order"]),
    ],
)
def test_ids_globs_and_cells_select_claims_once_in_the_order_of_the_files(
    load: Load, patterns: list[str], expected: list[str]
) -> None:
    chosen, group = claims.select(load(), patterns)
    assert [c.id for c in chosen] == expected
    assert group is None


def test_a_group_brings_its_scale_only_when_it_is_named_alone(builtin: Registry) -> None:
    chosen, group = claims.select(builtin, ["quickstart"])
    assert group is not None
    assert group.scale == ("quick",)
    assert [c.id for c in chosen] == [c for c in builtin.claims if c in group.claims]
    more, none = claims.select(builtin, ["quickstart", "vit/t8-variants-equal"])
    assert none is None
    assert len(more) == len(chosen) + 1


@pytest.mark.parametrize("pattern", ["vit/t1-variant", "vit/t8-non", "quickstrt", "zzz*", "paper/exact/layrs", "?"])
def test_what_names_nothing_is_an_error(load: Load, pattern: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"no claim matches {pattern!r}")):
        claims.select(load(), [pattern])
    with pytest.raises(UsageError, match="no claim matches"):
        claims.select(load(), ["paper/order", pattern])


def test_an_unknown_id_gives_the_three_nearest(builtin: Registry) -> None:
    with pytest.raises(UsageError) as caught:
        claims.select(builtin, ["vit/t8-none-clearly-wors"])
    near = re.findall(r"'([^']+)'", str(caught.value))[1:]
    assert near[0] == "vit/t8-none-clearly-worse"
    assert len(near) == 3


def test_an_unknown_cell_gives_the_nearest_cells_of_its_claim(builtin: Registry) -> None:
    with pytest.raises(UsageError, match="did you mean 'vit/t1-variants/vit-b-layers'"):
        claims.select(builtin, ["vit/t1-variants/vit-b-layer"])


def test_nothing_selected_is_an_error(builtin: Registry) -> None:
    with pytest.raises(UsageError, match="no claim is named"):
        claims.select(builtin, [])


def test_a_claim_that_is_missing_for_its_faults_points_to_them(load: Load) -> None:
    registry = load({"value.yaml": changed(VALUE, "margin: 2", "margin: 0")})
    with pytest.raises(UsageError, match=r"no claim matches 'paper/value', for its file has faults .* `vitrepro valid"):
        claims.select(registry, ["paper/value"])


# --- arms and hashes ------------------------------------------------------------------------------


def test_arms_are_all_combinations_named_by_their_levels(load: Load) -> None:
    sizes = "  size: {few: {data: {train_images: 100}}, all: {}}\nseeds"
    registry = load({"experiments/models.yaml": changed(TRAINED, "seeds", sizes)})
    experiment = registry.experiments["models"]
    assert isinstance(experiment, TrainExperiment)
    names = [f"{model}-{size}" for model in ("small", "large", "resnet") for size in ("few", "all")]
    assert list(claims.arm_names(experiment)) == list(claims.recipes(experiment)) == names
    recipe = claims.recipes(experiment)["resnet-few"]
    assert (recipe.model.family, recipe.data.train_images, recipe.steps) == ("resnet", 100, 10)


def test_merging_replaces_lists_and_scalars_and_leaves_its_inputs_alone() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    before = copy.deepcopy(base)
    assert claims.merge(base, {"a": {"c": [3]}, "d": {"e": 1}}) == {"a": {"b": 1, "c": [3]}, "d": {"e": 1}}
    assert base == before


def test_the_hash_of_a_claim_changes_with_what_it_says_and_not_with_the_order_of_keys() -> None:
    values = yamlfile.parse(VALUE).value
    claim = Claim.model_validate(values)
    assert Claim.model_validate(dict(reversed(values.items()))).hash == claim.hash
    assert Claim.model_validate({**values, "statement": "Another."}).hash != claim.hash
    margin = copy.deepcopy(values)
    margin["scales"]["quick"]["expect"]["cells"]["large"]["margin"] = 2.5
    assert Claim.model_validate(margin).hash != claim.hash


# --- any file at all ------------------------------------------------------------------------------

KEYS = sorted(
    {"id", "type", "kind", "source", "statement", "reported", "cells", "scales", "any", "quick", "cpu", "experiment"}
    | {"fidelity", "expect", "all", "greater", "than", "by", "base", "factors", "seeds", "arms", "quantities", "model"}
    | {"family", "variant", "data", "name", "train", "steps", "lr", "title", "claims", "layers", "unit", "larger_gain"}
)
WORDS = [*get_args(Kind), "train", "analytic", "vit", "resnet", "timm", "B/16", "R50", "digits", "small-data-digits"]
words = st.sampled_from([*WORDS, "a/b", "large", "exact", "nan", ""]) | st.text(max_size=4)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | words
anything = st.recursive(
    leaves,
    lambda t: st.lists(t, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | words, t, max_size=5),
    max_leaves=15,
)


EXAMPLES = [yaml.safe_load(text) for text in SOUND.values()]


@st.composite
def mutated(draw: st.DrawFn, examples: list[Any]) -> Any:
    """A file's content with one to three of its parts replaced, renamed, doubled or taken away."""
    value = copy.deepcopy(draw(st.sampled_from(examples)))
    for _ in range(draw(st.integers(1, 3))):
        place = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.integers(0, 4)):
                place = place[key]
                continue
            change = draw(st.sampled_from(("replace", "rename", "remove", "wrap")))
            if change == "wrap":
                place[key] = [place[key]]
            elif change == "replace" or isinstance(place, list):
                place[key] = draw(anything)
            else:
                old = place.pop(key)
                if change == "rename":
                    place[draw(st.sampled_from(KEYS))] = old
            break
    return value


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], tuple[str, ...]]:
    """Faults of a file that holds this value, beside the sound ones and those that ship."""
    folder = tmp_path_factory.mktemp("any")
    registry = claims.load([written(folder / "mine", dict(SOUND))])

    def faults(value: Any) -> tuple[str, ...]:
        path = folder / "mine" / "any.yaml"
        path.write_text(yaml.safe_dump(value))
        found = claims.check_files([path], registry)
        for problem in found:
            assert re.match(re.escape(str(path)) + r":\d+:\d+: .", problem), problem
            assert len(problem.splitlines()) == 1
        return found

    return faults


@given(st.dictionaries(st.sampled_from(KEYS) | words, anything, max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_mapping_has_faults_with_their_place(checked: Callable[[Any], tuple[str, ...]], value: Any) -> None:
    assert checked(value)


@given(mutated(EXAMPLES))
@settings(max_examples=150, deadline=None)
def test_a_changed_file_loads_or_has_faults_with_their_place(
    checked: Callable[[Any], tuple[str, ...]], value: Any
) -> None:
    if isinstance(value, dict) and str(value.get("id")).startswith("paper/"):
        value["id"] = "paper/another"
    checked(value)


SHIPPED = [yamlfile.read(p).value for p in sorted(claims.builtin_dir().rglob("*.yaml")) if p.name != "groups.yaml"]


@given(mutated([{"claims": [c]} for f in SHIPPED for c in f.get("claims", [])] + [f for f in SHIPPED if "id" in f]))
@settings(max_examples=100, deadline=None)
def test_a_changed_file_of_those_that_ship_loads_or_has_faults_with_their_place(
    checked: Callable[[Any], tuple[str, ...]], value: Any
) -> None:
    checked(value)


def test_faults_keep_their_lines_and_the_exit_code_of_what_a_user_must_fix() -> None:
    error = ClaimFileError(["a.yaml:1:1: x", "b.yaml:2:2: y"])
    assert str(error).splitlines() == list(error.problems)
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("reported", "check", "message"),
    [
        ("{unit: fraction of 1, cells: {x: 0.99}}", "{arm: large, margin: 0.5, direction: at_least}", "in percent"),
        (
            "{unit: percent, cells: {x: 0}}",
            "{arm: large, margin: 4.9, direction: at_least}",
            "distance of 0.0 to chance",
        ),
    ],
)
def test_a_value_that_any_model_reaches_is_refused(reported: str, check: str, message: str, load: Load) -> None:
    (problem,) = load(
        {
            "a.yaml": "id: mine/value\nsource: {paper: p, where: w}\nkind: value\nstatement: s\n"
            f"reported: {reported}\n"
            f"scales: {{quick: {{experiment: models, fidelity: exact, expect: {{cells: {{x: {check}}}}}}}}}\n"
        }
    ).problems
    assert message in problem


def test_a_bound_on_a_final_accuracy_is_a_condition_and_no_ordering(load: Load) -> None:
    bound = "{arm: large, metric: top1, above: 80}"
    asked = {"given": f"{{given: [{bound}], all: [{{greater: large, than: small}}]}}", "all": f"{{all: [{bound}]}}"}
    problems = {
        where: load(
            {
                "a.yaml": "id: mine/order\nsource: {paper: p, where: w}\nkind: ordering\nstatement: s\n"
                f"scales: {{quick: {{experiment: models, fidelity: exact, expect: {expect}}}}}\n"
            }
        ).problems
        for where, expect in asked.items()
    }
    assert problems["given"] == ()
    assert "a bound on it stands under given" in problems["all"][0]


@pytest.mark.parametrize(
    ("cell", "check", "refused"),
    [
        ("307", "tolerance: 0.5", False),
        ("307", "tolerance: 0.6", True),
        ("307", "relative_tolerance: 0.015", True),
        ("{value: 18.38, decimals: 2}", "tolerance: 0.005", False),
        ("18.38", "tolerance: 0.02", True),
        ("{value: 2500, decimals: -2}", "tolerance: 50", False),
        ("307", "tolerance: 100, direction: at_most", False),
    ],
)
def test_a_count_is_called_exact_only_where_it_rounds_to_what_is_printed(
    cell: str, check: str, refused: bool, load: Load
) -> None:
    problems = load(
        {
            "a.yaml": "id: mine/exact\nsource: {paper: p, where: w}\nkind: exact\nstatement: s\n"
            f"reported: {{unit: layers, cells: {{x: {cell}}}}}\n"
            "scales: {any: {experiment: counts, fidelity: exact, expect: {cells: {x: "
            f"{{arm: b16, quantity: depth, {check}}}}}}}}}}}\n"
        }
    ).problems
    assert ["exact is a count that rounds to what is printed" in p for p in problems] == [True] * refused


@pytest.mark.parametrize(
    ("value", "check", "message"),
    [(3, "tolerance: 1.0e+9", "nearly anything passes"), (0, "tolerance: 0, direction: at_least", "cannot fail")],
)
def test_a_count_that_nothing_can_miss_is_refused(value: int, check: str, message: str, load: Load) -> None:
    (problem,) = load(
        {
            "a.yaml": "id: mine/exact\nsource: {paper: p, where: w}\nkind: exact\nstatement: s\n"
            f"reported: {{unit: layers, cells: {{x: {value}}}}}\n"
            "scales: {any: {experiment: counts, fidelity: exact, expect: {cells: {x: "
            f"{{arm: b16, quantity: depth, {check}}}}}}}}}}}\n"
        }
    ).problems
    assert message in problem


# --- measures of training runs ------------------------------------------------------------------

ALONG = """\
id: along
type: train
title: looked at after every epoch
base:
  data: {name: digits, dev_fraction: 0.1}
  train: {epochs: 3, batch_size: 9, lr: 1e-3, evaluate_epochs: [dev, test], keep: best-on-test}
  measures: [overconfidence]
factors:
  patch:
    patch-4: {model: {family: vit, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}}
    patch-2: {model: {family: vit, patch_size: 2, embed_dim: 16, depth: 2, num_heads: 2}}
seeds: [0, 1, 2]
"""
LOSSES = """\
id: paper/losses
source: {paper: "arxiv:1", where: Table 5}
kind: value
statement: The sums of the losses of each epoch are those printed.
reported: {unit: "loss in nats; % top-1", cells: {epoch-1: 120.5, epoch-3: 40.25, dev: 91.5, sure: 3.0}}
scales:
  quick:
    experiment: along
    fidelity: exact
    expect:
      cells:
        epoch-1: {arm: patch-4, metric: train_loss_sum_epoch_1, margin: 12.5}
        epoch-3: {arm: patch-4, metric: train_loss_sum_epoch_3, margin: 60}
        dev: {arm: patch-4, metric: dev_top1_epoch_3, margin: 2, direction: at_least}
        sure: {arm: patch-2, metric: overconfidence, margin: 1}
"""
GAPS = """\
id: paper/gaps
source: {paper: "arxiv:1", where: Figure 5}
kind: ordering
statement: Smaller patches learn faster, and the choice of the epoch flatters.
scales:
  quick:
    experiment: along
    fidelity: exact
    expect:
      all:
        - {greater: patch-4, than: patch-2, metric: train_loss_epoch_1, by: 0.1}
        - {greater: patch-2, than: patch-4, metric: train_loss_sum_epoch_1, by: -120}
        - {arm: patch-2, metric: selection_gain, above: 0.5}
        - {arm: patch-2, metric: test_top1_epoch_2, below: 95}
"""


def test_what_training_comes_to_along_the_way_can_be_claimed(load: Load) -> None:
    made = load({"experiments/along.yaml": ALONG, "losses.yaml": LOSSES, "gaps.yaml": GAPS})
    assert made.problems == ()
    expect = made.claims["paper/losses"].scales.entries()["quick"].expect
    assert isinstance(expect, ValueExpect)
    assert expect.measures[0] == ("patch-4", "train_loss_sum_epoch_1")


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("losses", "train_loss_sum_epoch_1", "train_loss_sum_epoch_4",
         "mine/losses.yaml:12:9: scales.quick.expect: arm 'patch-4' of along does not measure train_loss_sum_epoch_4; "
         "its recipe has 3 epochs"),
        ("losses", "metric: train_loss_sum_epoch_1", "metric: train_los_epoch_1",
         "mine/losses.yaml:12:33: scales.quick.expect.cells.epoch-1.metric: 'train_los_epoch_1' is not one of 'top1'"),
        ("losses", "metric: overconfidence", "metric: confidence",
         "mine/losses.yaml:15:9: scales.quick.expect: arm 'patch-2' of along does not measure confidence; its recipe's "
         "measures are: overconfidence"),
        ("losses", "margin: 12.5", "margin: 141",
         "mine/losses.yaml:12:9: scales.quick.expect.cells.epoch-1: margin 141.0 is not below half the distance of "
         "120.5 to that of a model that knows nothing, 230.259"),
        ("losses", "epoch-1: 120.5", "epoch-1: -1.5",
         "mine/losses.yaml:12:9: scales.quick.expect.cells.epoch-1: reported -1.5; train_loss_sum_epoch_1 lies between "
         "0 and inf"),
        ("losses", "loss in nats; % top-1", "loss in nats",
         "mine/losses.yaml:14:9: scales.quick.expect.cells.dev: accuracies are compared in percent"),
        ("losses", "margin: 12.5}", "margin: 12.5, direction: at_least}",
         "mine/losses.yaml:12:9: scales.quick.expect.cells.epoch-1: direction at_least is for accuracies"),
        ("losses", "margin: 12.5}", "margin: 12.5, same_weights: true}",
         "mine/losses.yaml:12:9: scales.quick.expect.cells.epoch-1: same_weights is for the final accuracy"),
        ("losses", "margin: 2,", "margin: 50,",
         "mine/losses.yaml:14:55: scales.quick.expect.cells.dev.margin: 50: of an accuracy it should be less than 50"),
        ("gaps", "above: 0.5", "above: 0",
         "mine/gaps.yaml:13:50: scales.quick.expect: selection_gain is never below 0; the bound cannot be missed"),
        ("gaps", "below: 95", "below: 100",
         "mine/gaps.yaml:14:53: scales.quick.expect: test_top1_epoch_2 is never above 100; the bound cannot be missed"),
        ("experiments/along", "evaluate_epochs: [dev, test], keep: best-on-test", "evaluate_epochs: [dev]",
         "mine/gaps.yaml:13:11: scales.quick.expect: arm 'patch-2' of along does not measure selection_gain; "
         "train.evaluate_epochs does not have test"),
        ("experiments/along", "[overconfidence]", "[train_loss_epoch_1]",
         "mine/experiments/along.yaml:7:3: base.measures: train_loss_epoch_1 follows from the epochs of every run"),
        ("experiments/along", "keep: best-on-test", "keep: best-on-train",
         "mine/experiments/along.yaml:6:77: base.train.keep: 'best-on-train' is not one of 'last', 'best-on-dev' or "),
        ("experiments/along", "[dev, test]", "[test, train]",
         "mine/experiments/along.yaml:6:71: base.train.evaluate_epochs.1: 'train' is not one of 'dev' or 'test'"),
    ],
)  # fmt: skip
def test_a_measure_that_cannot_be_had_or_shows_nothing_is_a_fault(
    load: Load, file: str, old: str, new: str, fault: str
) -> None:
    files = {"losses": LOSSES, "gaps": GAPS, "experiments/along": ALONG}
    files[file] = changed(files[file], old, new)
    problems = load({f"{name}.yaml": text for name, text in files.items()}).problems
    assert any(p.startswith(fault) for p in problems), problems
