from __future__ import annotations

import copy
import json
import re
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
from vitrepro.spec import SCALES, Claim, Expect, Kind, Quantity, ScaleName, TrainExperiment

TRAINED = """\
id: models
type: train
title: three models on digits
base:
  data: {name: digits}
  train: {steps: 10, batch_size: 8, lr: 1e-3}
factors:
  model:
    small: {model: {family: vit, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}}
    large: {model: {family: vit, patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2}}
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
SOUND = {
    "order.yaml": ORDERING,
    "value.yaml": VALUE,
    "exact.yaml": EXACT,
    "experiments/models.yaml": TRAINED,
    "experiments/counts.yaml": COUNTED,
}
Load = Callable[..., Registry]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load files given as name=text beside the sound ones, from a directory called `mine`; None leaves one out."""
    monkeypatch.chdir(tmp_path)

    def loaded(files: dict[str, str | None] | None = None) -> Registry:
        folder = Path("mine")
        for name, text in {**SOUND, **(files or {})}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).unlink(missing_ok=True)
            if text is not None:
                (folder / name).write_text(text)
        return claims.load([folder])

    return loaded


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def only_problem(registry: Registry) -> str:
    """The one fault, beside those of claims whose experiment it spoils."""
    (problem,) = [p for p in registry.problems if "has faults, see there" not in p]
    return problem


# --- the claims that come with vitrepro ---------------------------------------------------------


@pytest.fixture(scope="module")
def builtin() -> Registry:
    return claims.load()


def test_the_built_in_claims_have_no_faults(builtin: Registry) -> None:
    assert builtin.problems == ()
    assert len(builtin.claims) >= 10
    assert all(builtin.files[name] for name in (*builtin.claims, *builtin.experiments))


def test_every_scale_of_every_built_in_claim_plans_and_costs(builtin: Registry) -> None:
    planned = 0
    for claim in builtin.claims.values():
        for name, entry in claim.scales.entries().items():
            if entry.infeasible:
                continue
            plan = plan_claim(builtin, Choice(claim, name, entry, {}), resolve=lambda _: "fp32")  # type: ignore[arg-type]
            priced = cost.total(plan.runs, cost.Timings([], "cpu", 1), slots=1)
            assert priced.runs == len(plan.runs) > 0
            assert priced.flops is not None
            planned += 1
    assert planned > len(builtin.claims)


def test_every_built_in_experiment_is_used(builtin: Registry) -> None:
    entries = [e for c in builtin.claims.values() for e in c.scales.entries().values()]
    assert set(builtin.experiments) == {e.experiment for e in entries if e.experiment}


def test_the_claims_of_a_group_can_be_checked_at_its_scale(builtin: Registry) -> None:
    assert builtin.groups
    for name, group in builtin.groups.items():
        chosen, found = claims.select(builtin, [name])
        assert found is group
        assert len(chosen) >= len(group.claims)
        for claim in chosen:
            entry = claim.scales.entry(group.scale)
            assert entry is not None, f"{claim.id} has no check at {group.scale}"
            assert entry.infeasible is None


def test_naming_the_built_in_directory_again_changes_nothing(builtin: Registry) -> None:
    assert claims.load([claims.builtin_dir()]) == builtin


# --- the schema ---------------------------------------------------------------------------------


def test_the_json_schema_is_json_and_describes_the_settings() -> None:
    schema = json.loads(json.dumps(claims.json_schema(), allow_nan=False))
    assert {"Claim", "Family", "TrainExperiment", "AnalyticExperiment"} <= set(schema["$defs"])
    assert schema["$defs"]["Cell"]["properties"].keys() == {"value", "sd", "runs"}


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


def test_the_kinds_and_scales_of_the_schema_agree_with_their_tables() -> None:
    expectations = get_args(get_args(Expect)[0])
    assert {get_args(e.model_fields["kind"].annotation)[0] for e in expectations} == set(get_args(Kind))
    assert set(SCALES) == set(get_args(ScaleName))


def test_every_quantity_of_the_schema_can_be_measured() -> None:
    from vitrepro.measure.analytic import QUANTITIES

    assert set(QUANTITIES) == set(get_args(Quantity))


# --- faults of one file, with their place ---------------------------------------------------------


def test_the_sound_files_have_no_faults(load: Load) -> None:
    registry = load()
    assert registry.problems == ()
    assert {"paper/order", "paper/value", "paper/exact"} <= set(registry.claims)
    assert registry.files["paper/order"] == "mine/order.yaml"


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
        ("name: digits", "name: cifar11", "name: c", "base.data.name: ", "did you mean 'cifar10'?"),
        ("width: 8", "pos_embed: x", "pos_embed: x", "factors.model.resnet.model.pos_embed: ", "unknown key"),
        ("embed_dim: 32", "embed_dim: 32, pos_embed: learned1d", "pos_embed", "factors.model.large.model.pos_embed: ",
         "did you mean 'learned_1d', 'learned_2d'?"),
        ("embed_dim: 32", "embed_dim: 33", "model: {family: vit, patch_size: 4, embed_dim: 33",
         "factors.model.large.model: ", "not a multiple of num_heads"),
        ("family: resnet", "family: resnt", "model: {family: resnt", "factors.model.resnet.model: ", "'resnet'?"),
        ("layers: [1, 1]", "layers: []", "layers", "factors.model.resnet.model.layers: ", "needs at least 1"),
        ("type: train", "type: trian", "id:", "", "type 'trian' is not one of 'train', 'analytic'; did you mean 'trai"),
        ("base:", "bse:", "bse", "bse: ", "did you mean 'base'"),
        ("{name: digits}", "{name: digits, classes: [1, 1]}", "data:", "base.data: ", "classes holds a label twice"),
        ("    resnet:", "    Res Net:", "Res Net", "factors.model.Res Net", "not a name of lower-case letters"),
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
        (VALUE, "{large: 90}", "{large: ninety}", "large: ninety", "reported.cells.large", "valid number"),
        (VALUE, "{large: 90}", "{larger: 90}", "large: {", f"{CELL}: ", "no reported cell 'large'; did you mean"),
        (VALUE, "arm: large", "arm: larg", "arm: ", "scales.quick.expect", "no arm 'larg'; did you mean 'large'?"),
        (VALUE, "experiment: models", "experiment: model", "experiment", "scales.quick.experiment: ", "'models'?"),
        (VALUE, "experiment: models", "experiment: counts", "experiment", "scales.quick.experiment: ", "type train"),
        (VALUE, "fidelity: exact", "fidelity: exat", "fidelity", "scales.quick.fidelity: ", "did you mean 'exact'?"),
        (VALUE, "fidelity: exact", "fidelity: proxy", "quick", "scales.quick: ", "names its deviations"),
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
    ],
)  # fmt: skip
def test_a_fault_of_a_claim_is_shown_at_its_line_and_key(
    load: Load, text: str, old: str, new: str, at: str, path: str, words: str
) -> None:
    text = changed(text, old, new).replace("id: paper/", "id: mine/")
    problem = only_problem(load({"mine.yaml": text}))
    assert problem.startswith(f"mine/mine.yaml:{place(text, at)}: {path}")
    assert words in problem


def test_all_faults_of_a_file_are_shown_at_once(load: Load) -> None:
    text = changed(TRAINED, "seeds: [0, 1]", "seeds: [3, 3]\nnoets: hm")
    text = changed(changed(text, "steps: 10", "stpes: 10"), "name: digits", "name: digit")
    faults = "\n".join(load({"experiments/models.yaml": text}).problems)
    for words in ("seeds: a number stands twice", "noets: unknown key", "stpes: unknown key", "'digit' is not one of"):
        assert words in faults


def test_all_faults_of_a_claim_are_shown_at_once(load: Load) -> None:
    text = VALUE.replace("margin: 2", "margin: -1").replace("where:", "were:").replace("{large: 90}", "{large: x}")
    problems = load({"value.yaml": text}).problems
    assert [re.sub(r"^\S+ ([^:]*): .*", r"\1", p) for p in problems] == [
        "source.where",
        "source.were",
        "reported.cells.large.value",
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


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_claim_of_one_kind_refuses_the_expectation_of_another(kind: str, load: Load) -> None:
    expectations = {
        "exact": "{kind: exact, cells: {large: {arm: b16, quantity: depth, tolerance: 0}}}",
        "value": "{kind: value, cells: {large: {arm: large, margin: 2}}}",
        "ordering": "{kind: ordering, all: [{greater: large, than: small}]}",
        "trend": "{kind: trend, increasing: [small, large, resnet]}",
        "equivalence": "{kind: equivalence, equal: [small, large], within: 2}",
    }
    for other, expect in expectations.items():
        text = f"""
id: mine/kinds
source: {{paper: p, where: w}}
kind: {kind}
statement: s
reported: {{unit: percent, cells: {{large: 90}}}}
scales: {{quick: {{experiment: {"counts" if other == "exact" else "models"}, fidelity: exact, expect: {expect}}}}}
"""
        registry = load({"kinds.yaml": text})
        if other == kind:
            assert registry.problems == ()
        else:
            assert "mine/kinds" not in registry.claims
            assert "is of kind" in only_problem(registry)


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


def test_a_claim_with_the_id_of_a_built_in_one_leaves_that_one_in_place(load: Load) -> None:
    registry = load({"mine.yaml": ORDERING.replace("paper/order", "vit/t1-variants")})
    assert "exists already, at claims/vit/t1-variants.yaml:1:1" in only_problem(registry)
    assert registry.claims["vit/t1-variants"].kind == "exact"


def test_files_are_named_as_the_user_reaches_them(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load({"order.yaml": "a: &x 1", "experiments/models.yaml": None, "value.yaml": None})
    assert claims.load([tmp_path / "mine"]).problems[0].startswith(f"{tmp_path}/mine/order.yaml:1:")
    monkeypatch.chdir(tmp_path / "mine")
    assert claims.load([Path(".")]).problems[0].startswith("order.yaml:1:")


def test_directories_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "claims" / "experiments").mkdir(parents=True)
        (tmp_path / folder / "claims" / "experiments" / "counts.yaml").write_text(COUNTED)
    (problem,) = claims.load([tmp_path / "one" / "claims", tmp_path / "two" / "claims"]).problems
    assert problem.startswith(f"{tmp_path}/two/claims/experiments/counts.yaml:1:1: ")
    assert problem.endswith(f"{tmp_path}/one/claims/experiments/counts.yaml:1:1")


@pytest.mark.parametrize("broken", ["a: [", "id: paper/bad", "claims: [{id: 3}]", "a: &x 1", "\tx"])
def test_a_broken_file_leaves_the_others_listed(load: Load, broken: str) -> None:
    registry = load({"bad.yaml": broken})
    assert registry.problems
    assert all(p.startswith("mine/bad.yaml:") for p in registry.problems)
    assert {"paper/order", "paper/value", "paper/exact", "vit/t1-variants"} <= set(registry.claims)


def test_a_broken_experiment_costs_the_claims_that_need_it_and_no_others(load: Load) -> None:
    registry = load({"experiments/models.yaml": changed(TRAINED, "steps: 10", "steps: 0")})
    assert "paper/exact" in registry.claims
    assert not {"paper/order", "paper/value"} & set(registry.claims)
    told = [p for p in registry.problems if "the file of 'models' has faults, see there" in p]
    assert [p.partition(":")[0] for p in told] == ["mine/order.yaml", "mine/value.yaml"]


def test_a_broken_group_leaves_the_other_groups(load: Load) -> None:
    text = """
bad: {title: t, scale: quik, claims: [paper/order]}
unknown: {title: t, scale: quick, claims: [paper/ordr]}
good: {title: t, scale: quick, claims: [paper/order, paper/exact]}
"""
    registry = load({"groups.yaml": text})
    assert len(registry.problems) == 2
    assert "groups.yaml:2:17: bad.scale: 'quik' is not one of" in registry.problems[0]
    assert "groups.yaml:3:44: no claim matches 'paper/ordr'; did you mean 'paper/order'" in registry.problems[1]
    assert [c.id for c in claims.select(registry, ["good"])[0]] == ["paper/exact", "paper/order"]


def test_a_directory_that_does_not_exist_or_holds_no_claims_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such directory"):
        claims.load([tmp_path / "nowhere"])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"holds no \*\.yaml file"):
        claims.load([tmp_path])


def test_single_files_are_held_against_what_is_known(load: Load, tmp_path: Path) -> None:
    registry = load()
    files = {
        "good.yaml": ORDERING.replace("paper/order", "mine/new"),
        "bad.yaml": ORDERING.replace("paper/order", "mine/bad").replace("than: small", "than: smal"),
        "groups.yaml": "mine: {title: t, scale: quick, claims: [paper/order, vit/*]}",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert claims.check_files([Path("good.yaml"), Path("groups.yaml")], registry) == ()
    (problem,) = claims.check_files([Path("bad.yaml")], registry)
    assert problem.startswith("bad.yaml:6:")
    assert "did you mean 'small'" in problem
    (missing,) = claims.check_files([Path("missing.yaml")], registry)
    assert missing.startswith("missing.yaml: cannot be read")


# --- selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["paper/order"], ["paper/order"]),
        (["paper/*"], ["paper/exact", "paper/order", "paper/value"]),
        (["paper/[ev]*"], ["paper/exact", "paper/value"]),
        (["paper/value", "paper/exact", "paper/value", "*/exact"], ["paper/exact", "paper/value"]),
        (["paper/exact/layers"], ["paper/exact"]),
        (["vit/t1-variants/vit-b-mlp"], ["vit/t1-variants"]),
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
    assert group.scale == "quick"
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
    with pytest.raises(UsageError, match="1 faults in claim files, see `vitrepro validate`"):
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


def mutations(value: Any) -> st.SearchStrategy[Any]:
    """The value with some of its parts replaced by anything."""
    if isinstance(value, dict):
        parts = st.fixed_dictionaries({k: mutations(v) for k, v in value.items()})
        changes = st.just({}) | st.dictionaries(st.sampled_from(KEYS), anything, max_size=1)
        return st.tuples(parts, changes).map(lambda pair: {**pair[0], **pair[1]})
    if isinstance(value, list) and value:
        return st.tuples(*map(mutations, value)).map(list)
    return st.sampled_from([value] * 9 + [None]).flatmap(lambda v: anything if v is None else st.just(v))


known = {
    "models": "small-data-digits",
    "counts": "patch-order",
    "large": "vit-1k",
    "small": "vit-100",
}  # built-in names
sources = [re.sub(r": (models|counts|large|small)\b", lambda m: f": {known[m[1]]}", text) for text in SOUND.values()]
documents = st.sampled_from([yaml.safe_load(text) for text in sources]).flatmap(mutations)


@given(documents | st.dictionaries(st.sampled_from(KEYS), anything, max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_mapping_loads_or_has_faults_with_their_place(
    builtin: Registry, tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(value))
    for problem in claims.check_files([path], builtin):
        assert re.match(re.escape(str(path)) + r":\d+:\d+: .", problem), problem
        assert len(problem.splitlines()) == 1


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
