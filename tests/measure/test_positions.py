from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vitrepro.errors import UsageError
from vitrepro.measure.positions import (
    cosine_similarity,
    distance_correlation,
    offsets,
    position_table,
    row_column_excess,
    sinusoid_peak,
)
from vitrepro.models.resnet import resnet
from vitrepro.models.vit import ViT
from vitrepro.recipe import ResNetSpec, ViTSpec


def random(grid: int, dim: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(grid**2, dim, generator=torch.Generator().manual_seed(seed))


def with_cosines(cosine: Tensor) -> Tensor:
    """Embeddings with these cosines, (N, N), positive semidefinite with ones on the diagonal."""
    values, vectors = torch.linalg.eigh(cosine)
    assert values.min() > -1e-9
    table = vectors * values.clamp(min=0).sqrt()
    torch.testing.assert_close(cosine_similarity(table), cosine, atol=1e-6, rtol=0)
    return table.float()


def squared_distance(grid: int) -> Tensor:
    rows, columns = offsets(grid)
    return (rows**2 + columns**2).double()


def isotropic(grid: int, law: str, scale: float) -> Tensor:
    """Embeddings whose cosine is a function of distance alone."""
    squared = squared_distance(grid)
    return with_cosines({"exponential": (-squared.sqrt() / scale).exp(), "normal": (-squared / scale**2).exp()}[law])


def separable(grid: int, scale: float) -> Tensor:
    """A part for the row and a part for the column, each alike in neighbours: `learned_2d` when it has learned."""
    rows, columns = offsets(grid)
    return with_cosines(((-rows.double() / scale).exp() + (-columns.double() / scale).exp()) / 2)


def waves(grid: int, periods: float) -> Tensor:
    column = torch.arange(grid**2) % grid
    angle = 2 * math.pi * periods * column / grid
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


# --- reading the table


def vit(**fields: Any) -> ViT:
    spec = ViTSpec(**{"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, **fields})
    return ViT(spec, image_size=12, channels=3, num_classes=10)


@pytest.mark.parametrize("pool", ["cls", "gap"])
@pytest.mark.parametrize("name", ["learned_1d", "learned_2d"])
def test_the_table_is_what_our_model_adds_to_its_patches(name: str, pool: str) -> None:
    model = vit(pos_embed=name, pool=pool)
    tokens = torch.randn(1, 9 + (pool == "cls"), 8)
    table = position_table(model)
    assert table.shape == (9, 8)
    assert not table.requires_grad
    torch.testing.assert_close(table, (model.pos_embed(tokens) - tokens)[0, -9:].detach())


@pytest.mark.parametrize("no_embed_class", [True, False])
@pytest.mark.parametrize("registers", [0, 2])
def test_the_table_is_what_timms_model_adds_to_its_patches(registers: int, no_embed_class: bool) -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=12,
        patch_size=4,
        embed_dim=8,
        depth=1,
        num_heads=2,
        reg_tokens=registers,
        no_embed_class=no_embed_class,
    )
    tokens = torch.randn(1, 9, 8)
    added = model._pos_embed(tokens)[0, 1 + registers :] - tokens[0]
    table = position_table(model)
    assert not table.requires_grad
    torch.testing.assert_close(table, added.detach())


@pytest.mark.parametrize("name", ["none", "relative"])
def test_a_model_that_adds_no_position_has_no_table(name: str) -> None:
    with pytest.raises(UsageError, match="adds no position embedding"):
        position_table(vit(pos_embed=name, pool="gap"))


def test_other_models_have_no_table() -> None:
    from timm.models.vision_transformer import VisionTransformer

    small = resnet(ResNetSpec(layers=(1,), block="basic", width=8), channels=3, num_classes=10)
    bare = VisionTransformer(img_size=12, patch_size=4, embed_dim=8, depth=1, num_heads=2, pos_embed="none")
    for model in (small, bare):
        with pytest.raises(UsageError, match="has no position embeddings to read"):
            position_table(model)


def test_offsets_count_rows_and_columns() -> None:
    rows, columns = offsets(3)
    assert (rows[1, 8], columns[1, 8]) == (2, 1)  # row 0, column 1 and row 2, column 2
    assert (rows[8, 1], columns[8, 1]) == (2, 1)
    assert (rows[3, 5], columns[3, 5]) == (0, 2)


# --- correlation with distance


@given(grid=st.integers(2, 5), seed=st.integers(0, 99))
def test_the_correlation_is_scipys_over_pairs_of_different_patches(grid: int, seed: int) -> None:
    from scipy.stats import rankdata, spearmanr

    table = random(grid, seed=seed).numpy().astype(float)
    cosines, nearness = [], []
    for i in range(grid**2):
        for j in range(i):
            cosines.append(table[i] @ table[j] / np.linalg.norm(table[i]) / np.linalg.norm(table[j]))
            nearness.append(-math.dist(divmod(i, grid), divmod(j, grid)))
    found = distance_correlation(torch.from_numpy(table), grid)
    assert found == pytest.approx(spearmanr(cosines, nearness).statistic, abs=1e-9)
    assert found == pytest.approx(np.corrcoef(rankdata(cosines), rankdata(nearness))[0, 1], abs=1e-9)


def test_the_correlation_is_one_where_cosine_falls_with_distance_and_none_at_random() -> None:
    assert distance_correlation(isotropic(7, "exponential", 3), 7) > 0.99  # rounding tells equal cosines apart
    assert distance_correlation(separable(7, 2), 7) > 0.8
    assert abs(distance_correlation(random(14, 768), 14)) < 0.02


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_no_measure_depends_on_the_length_of_embeddings(scale: float, seed: int) -> None:
    table = random(5, seed=seed)
    longer = scale * (1 + torch.rand(25, 1)) * table
    for measure in (distance_correlation, row_column_excess, sinusoid_peak):
        assert measure(longer, 5) == pytest.approx(measure(table, 5), abs=2e-3)


# --- rows and columns


@pytest.mark.parametrize("law", ["exponential", "normal"])
@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("grid", [4, 7, 14])
def test_embeddings_of_distance_alone_have_no_excess_of_rows_and_columns(law: str, scale: float, grid: int) -> None:
    assert abs(row_column_excess(isotropic(grid, law, scale), grid)) < 0.02


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("grid", [4, 7, 14])
def test_embeddings_of_rows_and_columns_have_an_excess(scale: float, grid: int) -> None:
    assert row_column_excess(separable(grid, scale), grid) > 0.05


def test_the_excess_of_one_hot_rows_and_columns_is_a_half() -> None:
    rows, columns = offsets(6)
    assert row_column_excess(with_cosines(((rows == 0).double() + (columns == 0)) / 2), 6) == pytest.approx(
        0.5, abs=1e-5
    )


def test_the_excess_at_five_patches_is_held_against_three_by_four() -> None:
    cosine = torch.eye(36, dtype=torch.float64)
    rows, columns = offsets(6)
    cosine[(rows == 5) & (columns == 0)] = 0.1  # 6 pairs
    cosine[(rows == 3) & (columns == 4)] = 0.04  # half of the pairs at this distance
    pairs = {k: 2 * 6 * (6 - k) for k in range(2, 6)}
    expected = pairs[5] * (0.1 / 2 - 0.04 / 2) / sum(pairs.values())
    assert row_column_excess(with_cosines(cosine), 6) == pytest.approx(expected, abs=1e-6)


def test_random_embeddings_have_no_excess() -> None:
    assert abs(row_column_excess(random(14, 768), 14)) < 0.005


def test_an_untrained_2d_embedding_has_an_excess_and_an_untrained_1d_one_has_none() -> None:
    spec = {"patch_size": 1, "embed_dim": 512}
    assert row_column_excess(position_table(vit(**spec, pos_embed="learned_2d")), 12) > 0.4
    assert abs(row_column_excess(position_table(vit(**spec, pos_embed="learned_1d")), 12)) < 0.01


# --- sinusoids


@pytest.mark.parametrize("periods", [2, 3, 5, 7])
def test_a_sinusoid_along_rows_has_all_power_in_one_frequency(periods: int) -> None:
    assert sinusoid_peak(waves(14, periods), 14) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("grid", [7, 8, 14])
def test_no_frequency_stands_out_at_random(grid: int) -> None:
    assert sinusoid_peak(random(grid, 768), grid) == pytest.approx(2 / (grid - 1), rel=0.05)


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_a_sinusoid_is_found_in_noise(noise: float) -> None:
    signal = torch.cat([waves(14, 3), torch.zeros(196, 62)], dim=1)
    assert sinusoid_peak(signal + noise * random(14, 64) / 8, 14) > 0.5


def test_a_sinusoid_between_two_frequencies_is_shared_by_them() -> None:
    assert 0.3 < sinusoid_peak(waves(14, 2.5), 14) < 0.6


@pytest.mark.parametrize("scale", [2.0, 4.0, 8.0])
def test_the_fall_of_cosine_with_distance_is_no_sinusoid(scale: float) -> None:
    assert sinusoid_peak(isotropic(14, "normal", scale), 14) < 0.3
    assert sinusoid_peak(isotropic(14, "exponential", scale), 14) < 0.2
    assert sinusoid_peak(waves(14, 1), 14) < 1e-6


def test_sinusoids_are_looked_for_along_rows_and_not_along_columns() -> None:
    turned = waves(14, 3).reshape(14, 14, 2).transpose(0, 1).reshape(196, 2)
    mixed = torch.cat([turned, random(14, 62) / 8], dim=1)
    assert sinusoid_peak(mixed, 14) < 0.2


# --- refusals


@pytest.mark.parametrize(
    ("measure", "least"), [(distance_correlation, 2), (row_column_excess, 3), (sinusoid_peak, 4)]
)  # fmt: skip
def test_grids_too_small_or_of_another_size_are_refused(measure: Any, least: int) -> None:
    assert math.isfinite(measure(random(least), least))
    with pytest.raises(UsageError, match=f"needs {least} x {least} patches or more, this model has"):
        measure(random(least - 1), least - 1)
    with pytest.raises(ValueError, match="embeddings of 26 patches, expected 5x5 = 25"):
        measure(torch.randn(26, 8), 5)
