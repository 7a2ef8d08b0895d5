"""What the public attempts to reproduce the paper report, against the claims made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitrepro import claims
from vitrepro.claims import Registry
from vitrepro.recipe import Recipe, ViTSpec
from vitrepro.spec import Cell

REPORTED = Path(__file__).parents[2] / "shared" / "seeds" / "results.yaml"
Place = tuple[str | int, ...]

# Where the registry holds what stands at a place of the file: claim and cell. A field of braces is a part of the
# place; {i} counts list items from 1.
CELLS: dict[str, dict[str, str]] = {
    "re-vit": {
        "reported/vit-l16-i21k/*": "vit-l16-i21k/{2}",
        "reported/bit-m-r152x4/*": "bit-m-r152x4/{2}",
        "hours/vit-l16-i21k/*": "vit-l16-times/{2}",
        "hours/bit-m-r152x4/*": "bit-m-r152x4-times/{2}",
        "protocol/vit/resolution": "vit-recipe/resolution",
        "protocol/vit/batch": "vit-recipe/batch",
        "protocol/vit/epochs": "vit-recipe/epochs",
        "protocol/vit/lr": "vit-recipe/lr",
        "protocol/vit/lr_pets": "vit-recipe/lr-pets",
        "compute_table/*": "core-days/{1}",
    },
    "student-cifar10": {
        "reported/small-vit-10-classes/top1": "small-vit-10-classes/top1",
        "reported/small-vit-10-classes/model/*": "recipe/small-{3}",
        "reported/small-vit-10-classes/training/*": "recipe/small-{3}",
        "reported/small-vit-10-classes/epoch_loss_sums/*": "small-vit-losses/epoch-{i}",
        "reported/small-vit-10-classes/wall": "wall-time/small",
        "reported/small-vit-10-classes/chance": "small-vit-above-guessing/guessing",
        "reported/vit-base-4-classes/top1": "vit-base-4-classes/top1",
        "reported/vit-base-4-classes/model/*": "recipe/base-{3}",
        "reported/vit-base-4-classes/training/*": "recipe/base-{3}",
        "reported/vit-base-4-classes/epoch_loss/*": "vit-base-curves/loss-{i}",
        "reported/vit-base-4-classes/epoch_val_top1/*": "vit-base-curves/top1-{i}",
        "reported/vit-base-4-classes/chance": "second-run-better/guessing-4",
    },
    "vit-project": {},  # prints no number
    "replicate-ai": {
        "reported/*/top1": "{1}/top1",
        "reported/label-smoothing-0/lr": "recipe/smoothing-0-lr",
        "reported/label-smoothing-0/epochs": "recipe/smoothing-0-epochs",
        "reported/label-smoothing-0/stopped_at": "recipe/smoothing-0-stopped",
        "reported/label-smoothing-0.1/lr": "recipe/smoothing-0.1-lr",
        "reported/label-smoothing-0.1/epochs": "recipe/smoothing-0.1-epochs",
        "reported/label-smoothing-0.1/stopped_at": "recipe/smoothing-0.1-stopped",
        "reported/label-smoothing-0.1-augmented/lr": "recipe/augmented-lr",
        "reported/label-smoothing-0.1-augmented/epochs": "recipe/augmented-epochs",
        "reported/label-smoothing-0.1-augmented/stopped_at": "recipe/augmented-stopped",
        "reported/*/batch": "recipe/batch",
        "model/layer_norm_eps": "recipe/layer-norm-eps",
        "model/*": "recipe/{1}",
        "parameters/reported": "parameters/vit-b16",
        "memory_mb/forward_backward": "memory/forward-backward",
        "memory_mb/*": "memory/{1}",
    },
}


# What a newer version of the source has replaced; the older number stands under `elsewhere`, or nowhere.
SUPERSEDED = {
    "replicate-ai/label-smoothing-0.1-augmented/top1": 64.3567,
    "replicate-ai/recipe/augmented-stopped": 35,
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return claims.load()


@pytest.fixture(scope="module")
def attempts() -> dict[str, Any]:
    if not REPORTED.is_file():
        pytest.skip(f"{REPORTED} is not here; it holds what the attempts report")
    return {a["id"]: a for a in yaml.safe_load(REPORTED.read_text())["attempts"]}


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every scalar below a value, with its keys and indices."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*place, key))
    else:
        yield place, value


def seconds(text: str) -> float | None:
    """Of a text that starts with a time as hh:mm:ss."""
    parts = text.split(" ")[0].split(":")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return None
    hours, minutes, rest = map(int, parts)
    return 3600.0 * hours + 60 * minutes + rest


def number(value: Any) -> float | None:
    if isinstance(value, str):
        return seconds(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def fits(pattern: str, place: Place) -> bool:
    parts = pattern.split("/")
    return len(parts) == len(place) and all(p in ("*", str(k)) for p, k in zip(parts, place, strict=True))


def cell_of(attempt: str, place: Place) -> str | None:
    """Claim and cell that hold what stands at a place, by the first pattern that fits it."""
    address = next((a for pattern, a in CELLS[attempt].items() if fits(pattern, place)), None)
    index = place[-1] + 1 if isinstance(place[-1], int) else 0
    return None if address is None else f"{attempt}/{address.format(*place, i=index)}"


def find(registry: Registry, address: str) -> Cell:
    claim_id, _, cell = address.rpartition("/")
    reported = registry.claims[claim_id].reported
    assert reported is not None, claim_id
    return reported.cells[cell]


def test_every_attempt_has_claims_and_a_file_about_it(registry: Registry, attempts: dict[str, Any]) -> None:
    for attempt in attempts:
        papers = {c.source.paper for name, c in registry.claims.items() if name.startswith(f"{attempt}/")}
        assert len(papers) == 1, f"{attempt}: {papers}"
        assert papers <= registry.papers.keys()


def test_every_number_that_an_attempt_reports_stands_in_the_registry(
    registry: Registry, attempts: dict[str, Any]
) -> None:
    assert attempts.keys() == CELLS.keys()
    held = 0
    for name, attempt in attempts.items():
        for place, value in leaves(attempt):
            reported = number(value)
            if reported is None or place[-1] in ("n", "k"):
                continue
            address = cell_of(name, place)
            assert address is not None, f"{name}: no claim holds {value} at {place}"
            expected = SUPERSEDED.get(address, find(registry, address).value)
            assert expected == reported, f"{address} is not {value}"
            held += 1
    assert held > 90


def test_counts_behind_the_accuracies_of_replicate_ai_agree_with_the_cells(
    registry: Registry, attempts: dict[str, Any]
) -> None:
    for row, reported in attempts["replicate-ai"]["reported"].items():
        cell = find(registry, f"replicate-ai/{row}/top1")
        assert cell.n == reported["n"]
        assert cell.decimals is not None
        printed = SUPERSEDED.get(f"replicate-ai/{row}/top1", cell.value)
        assert round(100 * reported["k"] / cell.n, cell.decimals) == printed


def test_the_replaced_number_of_the_repeated_row_stands_beside_the_later_one(
    registry: Registry, attempts: dict[str, Any]
) -> None:
    address = "replicate-ai/label-smoothing-0.1-augmented/top1"
    note = attempts["replicate-ai"]["reported"]["label-smoothing-0.1-augmented"]["note"]
    assert f"{find(registry, address).value:g}" in note
    (other,) = registry.claims["replicate-ai/label-smoothing-0.1-augmented"].elsewhere
    assert other.cells["top1"] == (SUPERSEDED[address],)


def test_every_pattern_fits_a_place(attempts: dict[str, Any]) -> None:
    for name, patterns in CELLS.items():
        places = [place for place, _ in leaves(attempts[name])]
        unused = [p for p in patterns if not any(fits(p, place) for place in places)]
        assert unused == [], name


def most_correlated(recipe: Recipe) -> float:
    """The correlation of nearness and cosine, over 20 starts, if every number of the embeddings moved as far as it can.

    No step of Adam moves one by much more than the rate. All move alike on either side of a line through the image.
    """
    import torch

    from vitrepro.measure.positions import distance_correlation

    assert isinstance(recipe.model, ViTSpec)
    assert recipe.model.patch_size
    assert recipe.model.embed_dim
    assert recipe.train.lr
    draw = torch.Generator().manual_seed(0)
    grid, width = recipe.image_size // recipe.model.patch_size, recipe.model.embed_dim
    place = torch.arange(grid**2).unsqueeze(1)
    row, column = (place // grid / (grid - 1) - 0.5), (place % grid / (grid - 1) - 0.5)
    found = []
    for _ in range(20):
        start = {"small": 0.02, "unit": 1.0}[recipe.model.embed_init] * torch.randn(grid**2, width, generator=draw)
        angle, aside = 2 * torch.pi * torch.rand(width, generator=draw), 0.25 * torch.randn(width, generator=draw)
        side = (column * angle.cos() + row * angle.sin() - aside).sign()
        found.append(distance_correlation(start + recipe.train.lr * recipe.steps * side, grid))
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("experiment", "most"), [("label-smoothing-imagenette-full", 0.3), ("label-smoothing-imagenette", 0.0)]
)
def test_position_embeddings_as_coded_cannot_come_to_correlate(
    registry: Registry, experiment: str, most: float
) -> None:
    """The reason for which replicate-ai/near-patches-correlate is not judged."""
    recipes = claims.recipes(registry.experiment(experiment))  # type: ignore[arg-type]
    for smoothing in ("0", "0.1"):
        assert most_correlated(recipes[f"coded-smoothing-{smoothing}"]) == pytest.approx(most, abs=0.05)
