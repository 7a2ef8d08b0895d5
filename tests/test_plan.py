from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from vitrepro import plan
from vitrepro.claims import Registry
from vitrepro.errors import UsageError
from vitrepro.plan import (
    Choice,
    ClaimPlan,
    Override,
    Run,
    apply,
    choose_scale,
    first_seeds,
    obstacles,
    plan_claim,
    unique_runs,
)
from vitrepro.recipe import Recipe
from vitrepro.spec import AnalyticArm, Claim, Experiment, Scale

VIT = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
EXPERIMENT: dict[str, Any] = {
    "id": "models",
    "type": "train",
    "title": "three arms",
    "base": {"data": {"name": "digits"}, "train": {"steps": 100, "batch_size": 8, "lr": 1e-3}, "model": VIT},
    "factors": {"arm": {"a": {}, "b": {"train": {"lr": 2e-3}}, "c": {"train": {"lr": 3e-3}}}},
    "seeds": [3, 5],
}
COUNTS: dict[str, Any] = {
    "id": "counts",
    "type": "analytic",
    "title": "counted",
    "arms": {name: {"model": {"family": "vit", "variant": "B/16"}, "quantities": ["depth"]} for name in ("x", "y")},
}
ENTRY = {"experiment": "models", "fidelity": "exact", "expect": {"all": [{"greater": "a", "than": "b"}]}}


def claim(claim_id: str = "t/order", kind: str = "ordering", **scales: Any) -> Claim:
    source = {"paper": "p", "where": "w"}
    values = {"id": claim_id, "source": source, "kind": kind, "statement": "s", "scales": scales or {"quick": ENTRY}}
    return Claim.model_validate(values)


def registry(*experiments: dict[str, Any]) -> Registry:
    made: list[Any] = [TypeAdapter(Experiment).validate_python(e) for e in experiments or (EXPERIMENT, COUNTS)]
    return Registry({}, {e.id: e for e in made}, {}, {})


def planned(
    of: Claim | None = None,
    known: Registry | None = None,
    scale: Any = "quick",
    settings: tuple[str, ...] = (),
    seeds: int | None = None,
    precision: Any = "fp32",
) -> ClaimPlan:
    of = of or claim()
    choice = Choice(of, scale, of.scales.entries()[scale], {})
    overrides = [Override.parse(text) for text in settings]
    return plan_claim(
        known or registry(), choice, resolve=lambda p: precision if p == "auto" else p, seeds=seeds, overrides=overrides
    )


def ids(made: ClaimPlan) -> list[str]:
    return [r.id for r in made.runs]


def edited(path: str, value: Any) -> Registry:
    """The experiment with the value at a dotted path replaced."""
    changed = copy.deepcopy(EXPERIMENT)
    *keys, last = path.split(".")
    place = changed
    for key in keys:
        place = place.setdefault(key, {})
    place[last] = value
    return registry(changed)


# --- the identity of a run ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("base.train.lr", 1.1e-3),
        ("base.train.steps", 101),
        ("base.train.batch_size", 16),
        ("base.train.micro_batch", 4),
        ("base.train.optimizer", "sgd"),
        ("base.train.weight_decay", 0.1),
        ("base.train.warmup_steps", 1),
        ("base.train.precision", "bf16"),
        ("base.model.depth", 3),
        ("base.model.pos_embed", "none"),
        ("base.data.train_images", 999),
        ("base.data.classes", [0, 1]),
        ("base.data.dev_fraction", 0.1),
        ("base.augment.flip", True),
        ("seeds", [4, 6]),
    ],
)
def test_a_run_gets_another_id_when_its_weights_would_change(path: str, value: Any) -> None:
    changed = planned(known=edited(path, value))
    if path == "base.train.lr":  # the second arm has a rate of its own
        assert ids(changed)[0] != ids(planned())[0]
        assert ids(changed)[1] == ids(planned())[1]
    else:
        assert not set(ids(changed)) & set(ids(planned()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "models"),
        ("title", "another title"),
        ("notes", "some notes"),
        ("base.train.lr", "1e-3"),
        ("base.train.steps", 100.0),
        ("base.model.pool", "cls"),
        ("base.augment", {}),
        ("base.train", {"lr": 1e-3, "batch_size": 8, "steps": 100}),
        ("factors.arm", {"c": {"train": {"lr": 3e-3}}, "b": {"train": {"lr": 2e-3}}, "a": {}}),
    ],
)
def test_a_run_keeps_its_id_when_its_weights_would_not_change(path: str, value: Any) -> None:
    assert ids(planned(known=edited(path, value))) == ids(planned())


def test_what_a_claim_says_is_no_part_of_a_run() -> None:
    other = claim("t/other", quick={**ENTRY, "expect": {"all": [{"greater": "a", "than": "b", "by": 5.0}]}})
    assert ids(planned(other)) == ids(planned())


def test_the_name_of_arm_and_experiment_is_no_part_of_a_run() -> None:
    recipe = planned().runs[0].config
    assert Run("one", "a", 3, recipe).id == Run("two", "b", 3, recipe).id


def test_the_id_holds_the_precision_that_auto_stands_for() -> None:
    assert not set(ids(planned(precision="bf16"))) & set(ids(planned(precision="fp32")))
    asked = planned(known=edited("base.train.precision", "bf16"), precision="fp32")
    assert ids(asked) == ids(planned(precision="bf16"))


def test_a_new_generation_of_the_engine_makes_all_runs_new(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids(planned())
    monkeypatch.setattr(plan, "ENGINE", plan.ENGINE + 1)
    assert not set(ids(planned())) & set(before)


def test_all_seeds_of_an_arm_share_one_config_hash_and_no_id() -> None:
    runs = [r for r in planned().runs if r.arm == "a"]
    assert len({r.config_hash for r in runs}) == 1
    assert len({r.id for r in runs}) == len(runs) == 2
    assert all(len(r.id) == 16 and int(r.id, 16) >= 0 for r in runs)


def test_an_id_of_version_four_stays_what_it_was() -> None:
    """Stored results are found by it: if this fails, raise ENGINE or undo the change of defaults."""
    assert ids(planned())[0] == "91e32ccdf02463e0"


@pytest.mark.parametrize(
    ("key", "default", "other"),
    [
        ("norm", "pre", "post"),
        ("attention_scale", "normal", "inverted"),
        ("activation", "gelu", "relu"),
        ("layer_norm_eps", 1e-6, 1e-5),
        ("init", "paper", "torch"),
        ("embed_init", "small", "unit"),
    ],
)
def test_a_departure_from_the_papers_model_is_part_of_a_run_only_where_it_is_made(
    key: str, default: Any, other: Any
) -> None:
    assert ids(planned(known=edited(f"base.model.{key}", default))) == ids(planned())
    assert not set(ids(planned(known=edited(f"base.model.{key}", other)))) & set(ids(planned()))
    changed = planned(settings=(f"model.{key}={other}",))  # the key is known by its name, default or not
    assert ids(changed) == ids(planned(known=edited(f"base.model.{key}", other)))
    assert [(d.path, d.used, d.registered) for d in changed.runs[0].deviations] == [
        (f"model.{key}", str(other), str(default))
    ]


def test_looking_at_epochs_and_keeping_one_are_part_of_the_id_only_where_they_are_asked_for() -> None:
    by_epochs = edited("base.train", {"epochs": 2, "batch_size": 8, "lr": 1e-3})
    looked = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "evaluate_epochs": ["test"]}
    seen = [ids(planned(known=by_epochs))]
    for keep in ("last", "best-on-test"):
        seen.append(ids(planned(known=edited("base.train", {**looked, "keep": keep}))))
    assert not set(seen[0]) & set(seen[1])
    assert not set(seen[1]) & set(seen[2])
    asked = {**looked, "evaluate_epochs": [], "keep": "last"}
    assert ids(planned(known=edited("base.train", asked))) == seen[0]
    config = planned(known=by_epochs).runs[0].config.model_dump(mode="json")
    assert not {"keep", "evaluate_epochs"} & config["train"].keys()


def test_which_epoch_is_kept_can_be_set_by_hand() -> None:
    by_epochs = edited("base.train", {"epochs": 2, "batch_size": 8, "lr": 1e-3})
    made = planned(known=by_epochs, settings=("train.evaluate_epochs=[test]", "train.keep=best-on-test"))
    assert [str(d) for d in made.runs[0].deviations] == [
        "train.evaluate_epochs ['test'], registered ()",
        "train.keep best-on-test, registered last",
    ]


# --- arms and seeds -------------------------------------------------------------------------------


def test_exactly_the_arms_of_the_expectation_are_planned_whole_seeds_first() -> None:
    made = planned()
    assert [(r.seed, r.arm) for r in made.runs] == [(3, "a"), (3, "b"), (5, "a"), (5, "b")]
    assert made.registered_seeds == 2
    assert {r.name for r in made.runs} >= {"models/a seed 3", "models/b seed 5"}


@pytest.mark.parametrize(
    ("kind", "expect", "arms"),
    [
        ("ordering", {"all": [{"greater": "c", "than": "a"}, {"greater": "c", "than": "b"}]}, ["c", "a", "b"]),
        ("trend", {"increasing": ["b", "a", "c"]}, ["b", "a", "c"]),
        ("equivalence", {"equal": ["c", "b"], "within": 1}, ["c", "b"]),
        ("value", {"cells": {"n": {"arm": "b", "margin": 1}, "m": {"arm": "b", "margin": 2}}}, ["b"]),
    ],
)
def test_every_kind_of_expectation_names_its_arms_once(kind: str, expect: Any, arms: list[str]) -> None:
    of = claim(kind=kind, quick={**ENTRY, "expect": expect})
    assert [r.arm for r in planned(of, seeds=1).runs] == arms


def test_an_analytic_claim_has_one_run_an_arm_and_no_seeds() -> None:
    expect = {"cells": {"n": {"arm": "y", "quantity": "depth", "tolerance": 0}}}
    of = claim(kind="exact", any={"experiment": "counts", "fidelity": "exact", "expect": expect})
    made = planned(of, scale="any", seeds=7)
    assert [(r.arm, r.seed, r.name) for r in made.runs] == [("y", 0, "counts/y")]
    assert isinstance(made.runs[0].config, AnalyticArm)
    with pytest.raises(UsageError, match=r"train\.lr: t/order counts and trains nothing"):
        planned(of, scale="any", settings=("train.lr=1",))


def test_a_claim_that_cannot_be_checked_has_no_runs() -> None:
    made = plan_claim(registry(), Choice(claim(), None, None, {}), resolve=lambda _: "fp32")
    assert made.runs == ()


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6, unique=True), st.integers(1, 12))
def test_more_seeds_extend_the_registered_ones_and_fewer_are_the_first(registered: list[int], count: int) -> None:
    seeds = first_seeds(registered, count)
    assert len(seeds) == len(set(seeds)) == count
    assert list(seeds[: len(registered)]) == registered[:count]
    assert all(s > max(registered) for s in seeds[len(registered) :])
    assert first_seeds(registered, None) == tuple(registered)


def test_adding_seeds_keeps_the_runs_that_exist() -> None:
    assert ids(planned(seeds=4))[:4] == ids(planned())
    assert ids(planned(seeds=1)) == ids(planned())[:2]


def test_runs_that_claims_share_are_counted_once_and_stay_in_the_order_of_the_claims() -> None:
    second = claim("t/second", quick={**ENTRY, "expect": {"all": [{"greater": "c", "than": "b"}]}})
    plans = [planned(), planned(second)]
    runs = unique_runs(plans)
    assert [r.id for r in runs] == list(dict.fromkeys(ids(plans[0]) + ids(plans[1])))
    assert len(runs) == 6
    assert unique_runs([]) == ()


# --- scales ---------------------------------------------------------------------------------------


def able(*scales: str) -> Any:
    return lambda scale, _: None if scale in scales else f"no {scale} here"


LADDER = {"paper": {"infeasible": "the data is private"}, "gpu": ENTRY, "cpu": ENTRY, "quick": ENTRY}


@pytest.mark.parametrize(
    ("can", "wanted", "chosen", "reasons"),
    [
        (("gpu", "cpu", "quick"), None, "gpu", {"paper": "the data is private"}),
        (("quick", "cpu"), None, "cpu", {"paper": "the data is private", "gpu": "no gpu here"}),
        (("quick",), "quick", "quick", {}),
        (("quick",), "cpu", None, {"cpu": "no cpu here"}),
        (("paper",), "paper", None, {"paper": "the data is private"}),
        ((), None, None, {"paper": "the data is private"} | {s: f"no {s} here" for s in ("gpu", "cpu", "quick")}),
    ],
)
def test_the_most_faithful_scale_that_can_run_is_chosen_and_the_rest_have_reasons(
    can: tuple[str, ...], wanted: Any, chosen: str | None, reasons: dict[str, str]
) -> None:
    choice = choose_scale(claim(**LADDER), wanted, why_not=able(*can))
    assert choice.scale == chosen
    assert choice.reasons == reasons
    assert all(scale in choice.why_not for scale in reasons)


def test_a_scale_that_the_claim_does_not_have_is_a_reason() -> None:
    choice = choose_scale(claim(), "gpu", why_not=able("gpu"))
    assert choice.scale is None
    assert choice.reasons == {"gpu": "the claim has no check at this scale (it has quick)"}


@pytest.mark.parametrize("wanted", [None, "quick", "paper"])
def test_a_check_for_any_scale_serves_every_scale(wanted: Any) -> None:
    expect = {"cells": {"n": {"arm": "y", "quantity": "depth", "tolerance": 0}}}
    of = claim(kind="exact", any={"experiment": "counts", "fidelity": "exact", "expect": expect})
    assert choose_scale(of, wanted, why_not=lambda *_: None).scale == "any"
    blocked = choose_scale(of, wanted, why_not=lambda *_: "no")
    assert (blocked.scale, blocked.reasons) == (None, {"any": "no"})


def test_data_that_is_missing_and_a_missing_gpu_are_obstacles(tmp_path: Path) -> None:
    known = edited("base.data.name", "cifar10")
    entry = Scale.model_validate({**ENTRY, "expect": {"kind": "ordering", **ENTRY["expect"]}})  # type: ignore[dict-item]
    without = obstacles(known, None, tmp_path, cuda=False)
    assert "needs a CUDA device" in str(without("gpu", entry))
    assert "cifar10" in str(without("cpu", entry))
    assert "vitrepro data fetch cifar10" in str(obstacles(known, None, tmp_path, cuda=True)("gpu", entry))
    assert obstacles(registry(), None, tmp_path, cuda=False)("quick", entry) is None


# --- settings changed by hand ---------------------------------------------------------------------


def changed(*settings: str, epochs: float | None = None) -> tuple[Recipe, tuple[Any, ...]]:
    base = planned(known=edited("base.train", {"epochs": epochs, "batch_size": 8, "lr": 1e-3}) if epochs else None)
    recipe = base.runs[0].config
    assert isinstance(recipe, Recipe)
    return apply(recipe, [Override.parse(s) for s in settings])


def test_a_setting_is_laid_over_every_arm_and_listed_with_the_registered_value() -> None:
    made = planned(settings=("train.batch_size=16", "augment.crop_padding=1"))
    for run in made.runs:
        assert isinstance(run.config, Recipe)
        assert (run.config.train.batch_size, run.config.augment.crop_padding) == (16, 1)
        assert [str(d) for d in run.deviations] == [
            "train.batch_size 16, registered 8",
            "augment.crop_padding 1, registered 0",
        ]
    assert not set(ids(made)) & set(ids(planned()))


@pytest.mark.parametrize("setting", ["train.steps=100", "train.lr=1.0e-3", "train.epochs=null", "augment.flip=false"])
def test_a_setting_that_is_registered_so_is_no_deviation(setting: str) -> None:
    recipe, deviations = changed(setting)
    assert deviations == ()
    assert recipe == planned().runs[0].config


def test_values_are_read_as_yaml() -> None:
    recipe, _ = changed("train.lr=1e-2", "data.classes=[0, 1]", "augment.random_resized_crop={scale: [0.5, 1]}")
    assert (recipe.train.lr, recipe.data.classes) == (0.01, (0, 1))
    assert recipe.augment.random_resized_crop is not None
    assert recipe.augment.random_resized_crop.scale == (0.5, 1.0)


def test_steps_replace_epochs_and_epochs_steps() -> None:
    recipe, (deviation,) = changed("train.steps=50", epochs=2)
    assert (recipe.steps, recipe.train.epochs) == (50, None)
    assert str(deviation) == "train.steps 50, registered 250 steps"
    recipe, (deviation,) = changed("train.epochs=0.4")
    assert (recipe.steps, recipe.train.steps) == (50, None)
    assert str(deviation) == "train.epochs 0.4, registered 100 steps"


def test_deviations_compare_what_is_used_with_what_is_registered() -> None:
    _, deviations = changed("train.steps=5", "train.steps=10")
    assert [str(d) for d in deviations] == ["train.steps 10, registered 100"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.lr", "expected key.path=value"),
        ("=3", "expected key.path=value"),
        ("train.stpes=5", "no such setting; did you mean 'train.steps'"),
        ("trian.steps=5", "no such setting"),
        ("train=5", "train"),
        ("model.hybrid.width=64", "no such setting; known: nothing below it"),
        ("train.lr.x=5", "no such setting"),
        ("train.lr=fast", "valid number.*found fast"),
        ("train.lr=-1", "greater than 0.*found -1"),
        ("train.steps=true", "no numbers"),
        ("train.steps=null", "give either steps or epochs"),
        ("train.optimizer=lion", "'sgd', 'adamw' or 'adam'.*found lion"),
        ("data.name=mnist", "'digits', 'cifar10', 'cifar100', 'imagenette', 'pets' or 'flowers'"),
        ("train.warmup_steps=100", "leaves nothing of 100 steps"),
        ("model.patch_size=3", "not covered by patches of 3"),
        ("train.lr=[", r"train\.lr:2:1: not valid YAML"),
        ("train.lr=!!python/name:os.system", r"train\.lr:1:1: tag"),
        ("data={nme: digits}", "nme"),
    ],
)
def test_a_setting_that_does_not_exist_or_cannot_be_is_a_usage_error(setting: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"--set.*{words}"):
        changed(setting)
