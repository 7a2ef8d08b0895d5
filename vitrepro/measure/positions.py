"""What learned position embeddings know of the image's layout, by the cosines between them.

N: patches, in raster order; `grid` of them per side, N = grid**2. D: width of a token.

Source: Section 4.5, Figure 7 (centre); the authors confirm the cosine in google-research/vision_transformer#138.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrepro.arrays import Floats, Ints
from vitrepro.errors import UsageError
from vitrepro.models.posemb import Learned1d, Learned2d
from vitrepro.models.vit import ViT


def position_table(model: nn.Module) -> Tensor:
    """The learned vector that the model adds to each patch, (N, D), without gradient; not the class token's.

    That of `learned_2d` joins a row's and a column's vector, so patches of one row or column are alike before
    any training. Only in `learned_1d` and timm's models is all structure learned.

    Raises:
        UsageError: it adds none, or is no Vision Transformer of ours or timm's.
    """
    if isinstance(model, ViT):
        if isinstance(model.pos_embed, (Learned1d, Learned2d)):
            nothing = model.head.weight.new_zeros(1, 1, model.head.in_features)  # (1, 1, D)
            return model.pos_embed(nothing)[0, int(model.cls_token is not None) :].detach()
        raise UsageError(
            "this model adds no position embedding to its patches: measures of positions need pos_embed "
            "learned_1d or learned_2d"
        )
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(model, VisionTransformer) and model.pos_embed is not None:
        return model.pos_embed[0, 0 if model.no_embed_class else model.num_prefix_tokens :].detach()
    raise UsageError(
        f"{type(model).__name__} has no position embeddings to read: measures of positions need a Vision "
        "Transformer of family vit or timm that learns one vector per patch"
    )


def cosine_similarity(table: Tensor) -> Tensor:
    """Cosine between the embeddings of each two patches, (N, N), of a table (N, D)."""
    unit = F.normalize(table, dim=-1)
    return unit @ unit.t()


def offsets(grid: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """How many rows and how many columns lie between each two patches, (N, N) each, integers from 0."""
    place = torch.arange(grid**2, device=device)
    row, column = place // grid, place % grid
    return (row[:, None] - row).abs(), (column[:, None] - column).abs()


def distance_correlation(table: Tensor, grid: int) -> float:
    """Spearman correlation of nearness (negative Euclidean distance) and cosine, over pairs of different patches.

    Raises:
        ValueError: the table (N, D) does not cover the grid.
        UsageError: fewer than 2 x 2 patches.
    """
    from scipy.stats import spearmanr

    cosine, rows, columns = _pairs(table, grid, "position_distance_correlation", least=2)
    return float(spearmanr(cosine, -(rows**2 + columns**2)).statistic)  # squares: equal distances tie exactly


def row_column_excess(table: Tensor, grid: int) -> float:
    """How much more alike patches of one row or column are than others as far apart, in cosine.

    For each distance of k patches, k = 2 to grid - 1: the mean cosine of the pairs k apart in one row or one
    column, minus that of pairs in neither at distance k. Where the grid has no such pair, that is interpolated
    linearly between the nearest shorter and longer distance it has (square roots of 2 and 5 for k = 2). The
    differences are averaged with the number of row and column pairs as weights. Neighbours (k = 1) have no
    shorter off-axis pair and are left out.

    Returns:
        0 where the cosine falls linearly with distance and depends on nothing else, nearly 0 for other such
        laws; positive where sharing a row or a column makes patches alike, up to 2.

    Raises:
        ValueError: the table (N, D) does not cover the grid.
        UsageError: fewer than 3 x 3 patches.
    """
    cosine, rows, columns = _pairs(table, grid, "position_row_column_excess", least=3)
    on_axis = (rows == 0) | (columns == 0)
    squared = rows**2 + columns**2
    off_squared = np.unique(squared[~on_axis])
    off_cosine = [cosine[~on_axis & (squared == s)].mean() for s in off_squared]
    excess, weight = [], []
    for k in range(2, grid):
        on = cosine[on_axis & (squared == k**2)]
        excess.append(on.mean() - np.interp(k, np.sqrt(off_squared), off_cosine))
        weight.append(len(on))
    return float(np.average(excess, weights=weight))


def sinusoid_peak(table: Tensor, grid: int) -> float:
    """Share of the strongest sinusoid in how cosine varies along rows of patches.

    The cosines of a patch with all of its own row, itself included, are a profile of `grid` values. Their
    power spectra are summed over all patches, so that phase does not matter. The result is the power of the
    strongest frequency with at least two whole periods in a row, as a share of all that is not constant: a
    single period could as well be the mere fall of cosine with distance.

    Returns:
        1 for one pure sinusoid with whole periods; about 2 / (grid - 1), the share of one frequency in a flat
        spectrum, for unrelated embeddings. Undefined (NaN, or rounding) where cosine is constant along rows.

    Raises:
        ValueError: the table (N, D) does not cover the grid.
        UsageError: fewer than 4 x 4 patches.
    """
    _check(table, grid, "position_sinusoid_peak", least=4)
    cosine = cosine_similarity(table).cpu().double().numpy().reshape(grid, grid, grid, grid)
    profile = np.einsum("ijik->ijk", cosine)  # row, column of the patch, column of the other
    power = np.square(np.abs(np.fft.fft(profile))).sum(axis=(0, 1))  # (grid,), by frequency
    frequency = np.arange(1, grid)
    periods = np.minimum(frequency, grid - frequency)  # a sinusoid is a frequency and its negative
    strength = np.bincount(periods, weights=power[1:])
    return float(strength[2:].max() / strength.sum())


def _check(table: Tensor, grid: int, name: str, least: int) -> None:
    if len(table) != grid**2:
        raise ValueError(f"embeddings of {len(table)} patches, expected {grid}x{grid} = {grid**2}")
    if grid < least:
        raise UsageError(f"{name} needs {least} x {least} patches or more, this model has {grid} x {grid}")


def _pairs(table: Tensor, grid: int, name: str, least: int) -> tuple[Floats, Ints, Ints]:
    """Cosine, rows apart and columns apart of each two different patches, each pair once, (N (N - 1) / 2,)."""
    _check(table, grid, name, least)
    once = np.triu_indices(grid**2, k=1)
    rows, columns = offsets(grid)
    cosine = cosine_similarity(table).cpu().double().numpy()
    return cosine[once], rows.numpy()[once], columns.numpy()[once]
