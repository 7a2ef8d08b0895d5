"""How a Vision Transformer knows where a patch was, one class per row of Table 8, and fixed sinusoids.

B: images, H: heads, N: patches, T: tokens (N, or N + 1 with a class token in front), D: width of a token,
d: width of a head. Every parameter here has `pos_embed` in its full name and gets no weight decay.

Source: Appendix D.4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrepro.recipe import PosEmbed


class NoPosEmbed(nn.Module):
    """The tokens as they are: a bag of patches."""

    def __init__(self, grid: int, class_token: bool, dim: int) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


class Learned1d(nn.Module):
    """Tokens plus one learned vector for each place in the sequence, the class token's included.

    Args:
        grid: patches per side; N = grid**2, in raster order.
        class_token: whether a class token stands before the patches.
        dim: D.
    """

    def __init__(self, grid: int, class_token: bool, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, grid**2 + class_token, dim))  # (1, T, D), timm's `pos_embed`
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table


class Learned2d(nn.Module):
    """Tokens plus the concatenation of a vector for the column and one for the row, D/2 each.

    The class token is in no row and gets nothing: it is itself a learned vector, so a second one added
    to it would change no function. Arguments as for `Learned1d`.
    """

    def __init__(self, grid: int, class_token: bool, dim: int) -> None:
        super().__init__()
        self.class_token = class_token
        self.x = nn.Parameter(torch.empty(grid, dim // 2))
        self.y = nn.Parameter(torch.empty(grid, dim // 2))
        nn.init.trunc_normal_(self.x, std=0.02)
        nn.init.trunc_normal_(self.y, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        grid = len(self.x)
        x = self.x[None, :].expand(grid, grid, -1)  # (row, column, D/2)
        y = self.y[:, None].expand(grid, grid, -1)
        table = torch.cat([x, y], dim=-1).flatten(0, 1)  # (N, D)
        return tokens + F.pad(table, (0, 0, int(self.class_token), 0))


class Sinusoid2d(nn.Module):
    """Tokens plus fixed sines and cosines of a patch's row, then of its column, D/2 each; the class token gets nothing.

    Not trained, and no part of the model's state. Arguments as for `Learned1d`.

    Source: Section 4.1 of Chen et al., arXiv 2104.02057 (MoCo v3), and its code.
    """

    table: Tensor

    def __init__(self, grid: int, class_token: bool, dim: int) -> None:
        super().__init__()
        frequency = 10_000 ** -(torch.arange(dim // 4) / (dim // 4))
        angle = torch.arange(grid)[:, None] * frequency
        of_place = torch.cat([angle.sin(), angle.cos()], dim=-1)  # (grid, D/2)
        table = torch.cat([of_place.repeat_interleave(grid, 0), of_place.repeat(grid, 1)], dim=-1)  # (N, D)
        self.register_buffer("table", F.pad(table, (0, 0, int(class_token), 0)), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table


class RelativePosBias(nn.Module):
    """A bias on attention logits that depends on the query and on how far, and which way, the key is.

    1-dimensional relative attention, as the paper describes it: each offset between two places of the
    raster order has a learned embedding, and the query's product with it is added to the query's product
    with the key. Not said there, decided here: each layer has its own embeddings, its heads share them
    (as in Shaw et al., arXiv 1803.02155); the class token has no offset to any patch, so its row and
    column are 0. Where logits are read from the class token, the last layer's bias therefore does nothing,
    and a single layer is blind to position.

    Args:
        grid: patches per side; N = grid**2, in raster order.
        class_token: whether a class token stands before the patches.
        dim: d.
    """

    offset: Tensor

    def __init__(self, grid: int, class_token: bool, dim: int) -> None:
        super().__init__()
        N = grid**2
        self.class_token = class_token
        self.table = nn.Parameter(torch.empty(2 * N - 1, dim))  # row N - 1 is offset 0
        nn.init.trunc_normal_(self.table, std=0.02)
        place = torch.arange(N)
        self.register_buffer("offset", place[:, None] - place + N - 1, persistent=False)  # (query, key)

    def forward(self, q: Tensor) -> Tensor:
        """The bias for queries (B, H, T, d), already scaled as for their product with keys: (B, H, T, T)."""
        cls = int(self.class_token)
        every_offset = q[:, :, cls:] @ self.table.t()  # (B, H, N, 2N - 1)
        bias = every_offset.gather(-1, self.offset.expand(*q.shape[:2], -1, -1))  # (B, H, N, N)
        return F.pad(bias, (cls, 0, cls, 0))


POS_EMBED: dict[PosEmbed, type[NoPosEmbed | Learned1d | Learned2d | RelativePosBias | Sinusoid2d]] = {
    "none": NoPosEmbed,
    "learned_1d": Learned1d,
    "learned_2d": Learned2d,
    "relative": RelativePosBias,
    "sinusoid_2d": Sinusoid2d,
}
