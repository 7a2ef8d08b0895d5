from __future__ import annotations

from typing import Any

import pytest
from fake_store import VIT, Lab, claim, counting, position_embeddings, sizes
from paper_cases import claim as unchecked
from paper_cases import registry

from vitrepro import claims
from vitrepro.claims import Registry
from vitrepro.cost import images
from vitrepro.flops import executed_macs, training_flops
from vitrepro.recipe import Recipe
from vitrepro.report.protocol import SETTINGS, side_by_side
from vitrepro.spec import Claim

WITH_EMBEDDING = {"all": [{"greater": "learned-1d", "than": "none"}]}
BASE = {"data": {"name": "digits"}, "train": {"steps": 100, "batch_size": 32, "lr": 0.001}}


def protocol(of: Claim, known: Registry) -> dict[str, dict[str, str]]:
    """Column -> setting -> text, of what is told at all."""
    headings, rows = side_by_side(of, known)
    assert headings[0] == "setting"
    return {name: {row[0]: row[i] for row in rows if row[i]} for i, name in enumerate(headings) if i}


def used(lab: Lab, expect: dict[str, Any], experiment: str = "position-embeddings", **change: Any) -> dict[str, str]:
    """What the experiment of one claim does, by setting."""
    kind = "exact" if "cells" in expect else "ordering"
    lab.say(claim("j/one", kind, expect, experiment=experiment, **change))
    (column,) = [c for name, c in protocol(lab.claims["j/one"], lab.registry).items() if name != "as reported"]
    return column


# --- the table ----------------------------------------------------------------------------------


def test_a_scale_with_an_experiment_is_a_column_and_one_without_is_none(lab: Lab):
    check = {"expect": {"checks": {"above": {"that": "@a > @b"}}}}
    entry = {
        "experiment": "position-embeddings",
        "fidelity": "proxy",
        "expect": WITH_EMBEDDING,
        "deviations": ["small"],
    }
    scales = {"paper": {"infeasible": "private data"}, "gpu": entry, "quick": entry, "literal": check}
    lab.say(claim("j/one", "ordering", {}, scales=scales, reported={"unit": "%", "cells": {"a": 2, "b": 1}}))
    columns = protocol(lab.claims["j/one"], lab.registry)
    assert list(columns) == ["as reported", "gpu (proxy)", "quick (proxy)"]


def test_settings_stand_in_one_order_and_those_of_which_nothing_is_known_are_left_out():
    of = unchecked(needs={"work": ["training"], "recipe": "Table 3", "compute": "1 exaFLOP"})
    headings, rows = side_by_side(of, registry(of))
    assert headings == ["setting", "as reported"]
    assert rows == [["work", "training"], ["optimisation", "Table 3"], ["operations", "1 exaFLOP, by our count"]]


def test_the_protocols_of_all_claims_that_ship_use_every_setting_in_its_order():
    known = claims.load()
    told = set()
    for each in known.claims.values():
        settings = [row[0] for row in side_by_side(each, known)[1]]
        assert settings == [s for s in SETTINGS if s in settings], each.id
        told |= set(settings)
    assert told == set(SETTINGS)


def test_what_the_source_prints_is_not_called_our_count() -> None:
    of = unchecked(needs={"compute": "43 exaFLOPs (Table 6)"})
    assert protocol(of, registry(of))["as reported"]["operations"] == "43 exaFLOPs (Table 6)"


def test_the_claim_that_holds_the_settings_is_pointed_to() -> None:
    of = unchecked(needs={"recipe": "j/recipe"})
    known = registry(of, unchecked("j/recipe"))
    assert protocol(of, known)["as reported"]["optimisation"] == "as in j/recipe"
    assert protocol(of, registry(of))["as reported"]["optimisation"] == "j/recipe"


# --- as reported --------------------------------------------------------------------------------


def test_data_and_models_have_their_titles_where_the_source_is_known():
    of = unchecked(needs={"work": ["training"], "data": ["flowers", "mnist"], "weights": ["small"], "baselines": ["x"]})
    told = protocol(of, registry(of))["as reported"]
    assert told["data"] == "Flowers-102, mnist"
    assert told["models"] == "the small model, x"
    assert protocol(of, registry(of, papers={}))["as reported"]["data"] == "flowers, mnist"


def test_a_model_that_is_used_and_compared_with_is_named_once():
    of = unchecked(needs={"weights": ["small", "large"], "baselines": ["large"]})
    assert protocol(of, registry(of))["as reported"]["models"] == "the small model, the large model"


def test_the_runs_behind_the_reported_values_stand_in_the_row_of_seeds():
    cells = {"a": {"value": 1, "runs": 3}, "b": {"value": 2, "runs": 3}, "c": 3}
    of = unchecked(reported={"unit": "%", "cells": cells})
    assert protocol(of, registry(of))["as reported"]["seeds"] == "3 runs"


# --- as run here --------------------------------------------------------------------------------


def test_a_training_experiment_is_told_setting_by_setting(lab: Lab):
    base = {
        "data": {"name": "digits", "train_images": 320},
        "model": {**VIT, "dropout": 0.1},
        "augment": {"flip": True, "crop_padding": 1, "mixup": 0.2},
        "train": {
            "steps": 1000,
            "batch_size": 32,
            "lr": 0.001,
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "label_smoothing": 0.1,
            "warmup_steps": 50,
            "polyak": 0.999,
        },
    }
    lab.design(position_embeddings(base=base))
    told = used(lab, WITH_EMBEDDING)
    assert told.pop("operations").endswith(" gigaFLOPs in 6 runs")
    assert told == {
        "work": "training",
        "data": "320 of scikit-learn digits",
        "models": "ViT depth 2 width 16 heads 2 patch 2",
        "resolution": "8 px",
        "optimisation": "adamw, lr 0.001, decay 0.05, cosine, warm-up 50 steps, clip 1, label smoothing 0.1, "
        "dropout 0.1, averaged weights (0.999)",
        "length": "1,000 steps of 32 (100 epochs)",
        "augmentation": "flip, shift by 1 px, mixup 0.2",
        "seeds": "3 seeds, 2 arms",
    }


def test_in_what_a_model_departs_from_the_papers_is_told(lab: Lab):
    one = {**VIT, "attention": "batch", "pool": "first", "norm": "post", "activation": "relu", "init": "torch"}
    other = {**VIT, "attention_scale": "inverted", "layer_norm_eps": 1e-5, "embed_init": "unit"} | {
        "attention_norm": "unused",
        "final_norm": False,
        "qkv_bias": False,
        "pool": "gap",
    }
    lab.design(position_embeddings(factors={"m": {"none": {"model": one}, "learned-1d": {"model": other}}}, base=BASE))
    assert used(lab, WITH_EMBEDDING)["models"].split("; ") == [
        "ViT depth 2 width 16 heads 2 patch 2, norms before attention unused, no norm at the end, no biases of "
        "queries, keys and values, attention logits times root d, read off the mean of the patches, layer norm epsilon "
        "1e-05, embeddings that start at deviation 1",
        "ViT depth 2 width 16 heads 2 patch 2, norms after, attention across the batch, read off the first patch, "
        "ReLU, layers that start as torch's",
    ]


def test_the_compute_of_attention_across_the_batch_is_that_of_the_batch(lab: Lab):
    def exaflops(batch_size: int) -> float:
        model = {**VIT, "attention": "batch", "pool": "gap", "depth": 1, "embed_dim": 4}
        train = {**BASE["train"], "batch_size": batch_size, "steps": 64_000 // batch_size}  # as many images
        levels = {name: {"model": {**model, "pos_embed": name}} for name in ("none", "learned_1d")}
        made = position_embeddings(
            factors={"m": {k.replace("_", "-"): v for k, v in levels.items()}}, base={**BASE, "train": train}
        )
        lab.design(made)
        return float(used(lab, WITH_EMBEDDING)["operations"].split()[0])

    assert exaflops(640) > 5 * exaflops(1)


def test_only_the_arms_that_the_claim_uses_are_told(lab: Lab):
    lab.design(sizes((100, 300, 1000)))
    told = used(lab, {"all": [{"greater": "vit-n1000", "than": "vit-n100"}]}, "training-sizes")
    assert told["data"] == "1,000 of scikit-learn digits; 100 of scikit-learn digits"
    assert told["models"] == "ViT depth 2 width 16 heads 2 patch 2"
    assert told["seeds"] == "3 seeds, 2 arms"


def test_more_than_four_different_texts_are_counted(lab: Lab):
    many = (50, 100, 200, 300, 400, 500)
    lab.design(sizes(many))
    comparisons = [{"greater": f"vit-n{n}", "than": "vit-n50"} for n in many[1:]]
    told = used(lab, {"all": comparisons}, "training-sizes")
    assert told["data"].endswith("; and 2 more")
    assert told["data"].count("digits") == 4
    assert told["models"].count("ViT") == 1


@pytest.mark.parametrize("grid", [None, [0.001, 0.003, 0.01]])
def test_compute_is_what_every_seed_arm_and_rate_of_a_grid_carries_out(lab: Lab, grid: list[float] | None):
    data = {"name": "digits", **({"dev_fraction": 0.1} if grid else {})}
    rate = {"lr_grid": grid} if grid else {"lr": 0.001}
    base = {**position_embeddings()["base"], "data": data, "train": {"steps": 100, "batch_size": 32, **rate}}
    lab.design(position_embeddings(base=base))
    told = used(lab, WITH_EMBEDDING)
    flops = 0.0
    for run in lab.plan("j/one").runs:
        assert isinstance(run.config, Recipe)
        macs = executed_macs(run.config.model, image_size=8, channels=1, num_classes=10)
        assert macs is not None
        trained, evaluated = images(run)
        flops += training_flops(macs, trained) + 2 * macs * evaluated
    assert told["operations"] == f"{flops / 1e9:.3g} gigaFLOPs in 6 runs"
    assert ("lr chosen on the dev split" in told["optimisation"]) == bool(grid)


def test_a_model_without_a_closed_form_leaves_the_compute_open(lab: Lab):
    model = {"family": "timm", "name": "resnet18", "image_size": 32}
    lab.design(position_embeddings(factors={"m": {"none": {"model": VIT}, "learned-1d": {"model": model}}}, base=BASE))
    told = used(lab, WITH_EMBEDDING)
    assert told["models"] == "timm resnet18; ViT depth 2 width 16 heads 2 patch 2"
    assert "operations" not in told


def test_starting_from_released_weights_is_fine_tuning_and_the_weights_are_named(lab: Lab):
    released = "vit_base_patch32_224.orig_in21k"
    model = {"family": "vit", "variant": "B/32", "image_size": 224}
    levels = {"none": {"model": model}, "learned-1d": {"model": {**model, "weights": released}}}
    lab.design(position_embeddings(factors={"start": levels}, base=BASE))
    told = used(lab, WITH_EMBEDDING)
    assert told["work"] == "fine-tuning; training"
    assert told["models"] == f"ViT B/32 patch 32 from {released}; ViT B/32 patch 32"
    lab.design(position_embeddings(factors={"start": dict.fromkeys(levels, levels["learned-1d"])}, base=BASE))
    assert used(lab, WITH_EMBEDDING)["work"] == "fine-tuning"


def test_what_is_counted_is_said_to_be_so(lab: Lab):
    lab.design(counting())
    cells = {"b16": {"arm": "b16", "quantity": "depth", "tolerance": 0}}
    told = used(lab, {"cells": cells}, "model-sizes", reported={"unit": "layers", "cells": {"b16": 12}})
    assert told["work"] == "counted or computed, nothing trained"
    assert told["models"] == "ViT B/16 patch 16"
    assert told["resolution"] == "224 px"
    assert "seeds" not in told
