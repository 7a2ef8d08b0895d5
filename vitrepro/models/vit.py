"""The Vision Transformer, with the names of timm's parameters so that its weights fit.

B: images, N: patches, G: patches per side, H: heads, T: tokens, D: width of a token, d: width of a head.

timm's state dict loads after one renaming, `pos_embed` to `pos_embed.table`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrepro.models.dropout import Dropout
from vitrepro.models.posemb import POS_EMBED, RelativePosBias
from vitrepro.models.resnet import hybrid_stem
from vitrepro.recipe import Activation, ViTSpec, check_grid

MATMUL_TOKENS = 256  # up to here plain products train faster on a CPU, 1.7 times in bfloat16 at 65 tokens


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


def fused_attention(device: str, tokens: int, *, drops: bool = False) -> bool:
    """Whether the fused kernel trains faster on this device, `cpu` or `cuda`, with that many keys.

    Args:
        drops: weights are dropped, which a CPU's kernel cannot do.
    """
    return device != "cpu" or (tokens > MATMUL_TOKENS and not drops)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    *,
    fused: bool,
    scale: float | None = None,
    drop: Dropout | None = None,
) -> Tensor:
    """Softmax attention of queries (B, H, Q, d) to keys and values (B, H, T, d): (B, H, Q, d).

    Args:
        bias: added to the logits, broadcastable to (B, H, Q, T).
        fused: by the kernel that never holds the weights, or by plain products.
        scale: of the products of queries and keys; d^-0.5 unless given.
        drop: dropout of the weights; none unless given.
    """
    B, H, Q, d = q.shape
    scale = d**-0.5 if scale is None else scale
    if fused:
        dropped = drop.p if drop is not None and drop.active else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropped, scale=scale)
    q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    logits = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)
    if bias is not None:
        logits = (logits.view(B, H, Q, -1) + bias).flatten(0, 1)
    weights = logits.softmax(dim=-1)
    return torch.bmm(weights if drop is None else drop(weights), v).view(B, H, Q, d)


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of an image, or among the images of a batch at each place.

    Args:
        pos_embed: gives a bias for the logits from the scaled queries, if there is one.

    Attributes:
        fused: which kernel trains; the faster one of the device and the length of the sequence where it is None.
            Without gradients it is always the fused one.
    """

    fused: bool | None = None

    def __init__(self, spec: ViTSpec, pos_embed: RelativePosBias | None) -> None:
        super().__init__()
        _, dim, _, self.num_heads, _ = spec.sizes
        self.scale = spec.logit_scale
        self.across_batch = spec.attention == "batch"
        self.qkv = nn.Linear(dim, 3 * dim, bias=spec.qkv_bias)
        self.pos_embed = pos_embed
        self.proj = nn.Linear(dim, dim)
        self.drop = Dropout(spec.dropout)
        self.weights_drop = Dropout(spec.attention_dropout) if spec.attention_dropout else None
        if self.weights_drop is not None:
            self.weights_drop.in_evaluation = spec.attention_dropout_in_evaluation

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        if self.across_batch:
            qkv = qkv.transpose(0, 1)  # places are now what images were
        B, T, _ = qkv.shape
        q, k, v = qkv.reshape(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        bias = None if self.pos_embed is None else self.pos_embed(q * self.scale)
        x = self._attend(q, k, v, bias).transpose(1, 2)  # (B, T, H, d)
        if self.across_batch:
            x = x.transpose(0, 1)  # back
        return self.drop(self.proj(x.flatten(2)))

    def of_first_token(self, x: Tensor) -> Tensor:
        """The first token's row of `forward`, (B, 1, D), from its query alone, where there is no bias."""
        B, T, D = x.shape
        H, d = self.num_heads, D // self.num_heads
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :1], weight[:D], None if bias is None else bias[:D]).reshape(B, 1, H, d).transpose(1, 2)
        kv = F.linear(x, weight[D:], None if bias is None else bias[D:])
        k, v = kv.reshape(B, T, 2, H, d).permute(2, 0, 3, 1, 4)
        out = self._attend(q, k, v).transpose(1, 2).reshape(B, 1, D)
        return self.drop(self.proj(out))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        drop = self.weights_drop
        fused = fused_attention(k.device.type, k.shape[2], drops=drop is not None) if self.fused is None else self.fused
        if not torch.is_grad_enabled():
            fused = True  # only its backward pass is slow on a CPU
        return attend(q, k, v, bias, fused=fused, scale=self.scale, drop=drop)


class Mlp(nn.Module):
    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        _, dim, _, _, hidden = spec.sizes
        self.fc1 = nn.Linear(dim, hidden)
        self.activation = ACTIVATIONS[spec.activation]
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = Dropout(spec.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.activation(self.fc1(x)))))


class Block(nn.Module):
    """One encoder layer, normalised before each half (equations 2 and 3), or after each, its residual included.

    An `attention_norm: unused` leaves norm1 out of the forward pass.
    """

    def __init__(self, spec: ViTSpec, attn: Attention) -> None:
        super().__init__()
        _, dim, _, _, _ = spec.sizes
        self.post_norm = spec.norm == "post"
        self.attention_norm = spec.attention_norm
        self.norm1 = nn.LayerNorm(dim, eps=spec.layer_norm_eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=spec.layer_norm_eps)
        self.mlp = Mlp(spec)

    def forward(self, x: Tensor) -> Tensor:
        return self._rest(x, self.attn(self._attended(x)))

    def of_first_token(self, x: Tensor) -> Tensor:
        """The first token's row of `forward`, (B, 1, D)."""
        return self._rest(x[:, :1], self.attn.of_first_token(self._attended(x)))

    def _attended(self, x: Tensor) -> Tensor:
        """What attention reads."""
        return x if self.post_norm or self.attention_norm == "unused" else self.norm1(x)

    def _rest(self, x: Tensor, attention: Tensor) -> Tensor:
        """All that follows attention, each token by itself."""
        x = x + attention
        if self.post_norm:
            x = self.norm1(x)
            return self.norm2(x + self.mlp(x))
        return x + self.mlp(self.norm2(x))


class AxialBlock(nn.Module):
    """One layer of an Axial-ViT: a block within each row of patches, then one within each column.

    Source: Appendix D.6.
    """

    def __init__(self, row: Block, column: Block) -> None:
        super().__init__()
        self.row = row
        self.column = column

    def forward(self, x: Tensor) -> Tensor:
        """Patches (B, N, D) in raster order, of a square grid."""
        B, N, D = x.shape
        G = math.isqrt(N)
        x = self.row(x.reshape(B * G, G, D))
        x = x.reshape(B, G, G, D).transpose(1, 2)  # columns first
        x = self.column(x.reshape(B * G, G, D))
        return x.reshape(B, G, G, D).transpose(1, 2).reshape(B, N, D)


class PatchEmbed(nn.Module):
    """Images (B, C, height, width) to patch tokens (B, N, D) in raster order.

    Args:
        backbone: makes the feature map that is cut into patches; the image itself without one.
        in_channels: of that map.

    Attributes:
        as_product: cut the patches out and multiply them by the kernel's matrix, where there is no backbone; else the
            kernel is a convolution. Both are the same sums.
    """

    as_product: bool = False

    def __init__(self, patch_size: int, in_channels: int, dim: int, backbone: nn.Module | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)

    def first(self, images: Tensor) -> Tensor:
        """The first patch of images, where there is no backbone."""
        height, width = self.proj.kernel_size
        return images[:, :, :height, :width]

    def forward(self, images: Tensor) -> Tensor:
        if self.as_product and self.backbone is None:
            B, C, height, width = images.shape
            P = self.proj.kernel_size[0]
            cut = images.reshape(B, C, height // P, P, width // P, P).permute(0, 2, 4, 1, 3, 5)
            return F.linear(cut.reshape(B, -1, C * P * P), self.proj.weight.flatten(1), self.proj.bias)
        maps = images if self.backbone is None else self.backbone(images)
        return self.proj(maps).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Images to logits.

    With `pool: gap` there is no class token, and the tokens are normalised, then averaged, as in the
    authors' code (timm does so with fc_norm=False; its default for averaging normalises afterwards); with
    `first` there is none either, and the first patch's token takes its place.
    Dropout follows every dense layer but qkv and the head, and the addition of the position embeddings; that of
    attention weights has a rate of its own.

    Args:
        image_size: pixels per side of the only size of image it takes.

    Attributes:
        skip_unread: leave out of the last layer what no logit depends on, where logits are read off the first
            token alone: the other tokens' queries, projections and MLP; all of the other tokens, where attention goes
            across the batch. The logits and the gradients are the same.
        narrow_tokens: under autocast, tokens between the layers are of the narrow type too; layers' statistics and
            the weights stay float32.

    Raises:
        ValueError: the patches do not cover an image of that size.

    Source: Section 3.1, Appendix B.1; D.3 for `gap`, D.6 for `axial`.
    """

    skip_unread: bool = False
    narrow_tokens: bool = False

    def __init__(self, spec: ViTSpec, *, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        patch_size, D, depth, num_heads, _ = spec.sizes
        grid = check_grid(spec, image_size)
        cls = spec.pool == "cls"
        self.averages, self.reads_first_token = spec.pool == "gap", spec.reads_first_token
        self.reads_one_place = spec.reads_one_place
        Position = POS_EMBED[spec.pos_embed]
        in_attention = issubclass(Position, RelativePosBias)

        if spec.hybrid is None:
            self.patch_embed = PatchEmbed(patch_size, channels, D, backbone=None)
        else:
            stem, features = hybrid_stem(spec.hybrid.layers, spec.hybrid.width, channels)
            self.patch_embed = PatchEmbed(patch_size, features, D, backbone=stem)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D)) if cls else None
        self.pos_embed = nn.Identity() if in_attention else Position(grid, cls, D)
        self.pos_drop = Dropout(spec.dropout)

        def block() -> Block:
            bias = RelativePosBias(grid, cls, D // num_heads) if in_attention else None
            return Block(spec, Attention(spec, bias))

        axial = spec.attention == "axial"
        self.blocks = nn.Sequential(*(AxialBlock(block(), block()) if axial else block() for _ in range(depth)))
        self.norm = nn.LayerNorm(D, eps=spec.layer_norm_eps) if spec.final_norm else nn.Identity()
        self.head = nn.Linear(D, num_classes)
        if spec.init == "paper":
            self._initialise()
        else:
            self._initialise_as_torch()
        if spec.embed_init == "unit":
            for name, parameter in self.named_parameters():
                if name == "cls_token" or "pos_embed" in name:
                    nn.init.normal_(parameter)
        if spec.layer_init == "copied":
            for layer in self.blocks[1:]:
                layer.load_state_dict(self.blocks[0].state_dict())

    def features(self, images: Tensor) -> Tensor:
        """What the head reads: the first token or the mean of the patches, after the last norm if any, (B, D)."""
        one_place = self.skip_unread and self.reads_one_place
        if self.cls_token is None:
            x = self.patch_embed(self.patch_embed.first(images) if one_place else images)
        else:
            x = torch.cat([self.cls_token.expand(len(images), -1, -1), self.patch_embed(images)], dim=1)
            x = x[:, :1] if one_place else x
        x = self.pos_embed(x)  # a single token is taken for one of every place
        x = self.pos_drop(x[:, :1].contiguous() if one_place else x)
        if self.narrow_tokens and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        last = self.blocks[-1]
        if self.skip_unread and self.reads_first_token and isinstance(last, Block):
            x = last.of_first_token(self.blocks[:-1](x))
        else:
            x = self.blocks(x)
        x = self.norm(x)
        return x.mean(dim=1) if self.averages else x[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    @torch.no_grad()
    def _initialise(self) -> None:
        """As the authors' code does: Xavier-uniform layers, LeCun-normal patches, a head of zeros.

        The class token starts at zero, position embeddings at a standard deviation of 0.02.
        """
        for block in self.blocks.modules():
            if not isinstance(block, Block):
                continue
            # q, k and v are three layers that share a matrix: Xavier's fan-out is D, not 3D
            for part in (*block.attn.qkv.weight.chunk(3), block.attn.proj.weight):
                nn.init.xavier_uniform_(part)
            for bias in (block.attn.qkv.bias, block.attn.proj.bias):
                if bias is not None:
                    nn.init.zeros_(bias)
            for layer in (block.mlp.fc1, block.mlp.fc2):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)
        proj = self.patch_embed.proj
        nn.init.normal_(proj.weight, std=proj.weight[0].numel() ** -0.5)
        assert proj.bias is not None
        for zero in (proj.bias, self.head.weight, self.head.bias):
            nn.init.zeros_(zero)

    @torch.no_grad()
    def _initialise_as_torch(self) -> None:
        """As torch.nn makes its layers, and q, k and v as its MultiheadAttention does: Xavier's fan-out is 3D."""
        for attn in self.blocks.modules():
            if isinstance(attn, Attention):
                nn.init.xavier_uniform_(attn.qkv.weight)
                for bias in (attn.qkv.bias, attn.proj.bias):
                    if bias is not None:
                        nn.init.zeros_(bias)
