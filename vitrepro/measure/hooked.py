"""What a summary by forward hooks prints of a model: parameters, and an estimate of memory.

Such a tool (torchsummary 1.5.1 is one) hooks every module but containers and the whole model, runs it
once, and adds up `weight` and `bias` of the modules that were called and the sizes of what they returned.
It misses parameters that are neither, such as class tokens and position embeddings, and modules that are
never called; and its memory depends on which steps happen to be modules.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrepro.errors import UsageError
from vitrepro.recipe import ViTSpec, check_grid

BYTES = 4  # of a float32
MB = 2**20


@dataclass(frozen=True)
class Summary:
    """Counts of one image's forward pass.

    Attributes:
        parameters: in `weight` and `bias` of the hooked modules, once for each call.
        inputs, outputs: numbers in the image, and in what the hooked modules returned.
    """

    parameters: int
    inputs: int
    outputs: int

    @property
    def parameter_mb(self) -> float:
        return self.parameters * BYTES / MB

    def input_mb(self, batch_size: int) -> float:
        return batch_size * self.inputs * BYTES / MB

    def activation_mb(self, batch_size: int) -> float:
        """Outputs and as many gradients."""
        return batch_size * 2 * self.outputs * BYTES / MB

    def total_mb(self, batch_size: int) -> float:
        return self.input_mb(batch_size) + self.activation_mb(batch_size) + self.parameter_mb


@torch.no_grad()
def summarise(model: nn.Module, image: Tensor) -> Summary:
    """The counts of a model, run on one image (1, C, S, S) of the meta device.

    Raises:
        UsageError: a module returns something else than one tensor, whose size such a summary cannot tell.
    """
    parameters, outputs = 0, 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal parameters, outputs
        if not isinstance(output, Tensor):
            raise UsageError(
                f"a summary by forward hooks cannot size what {type(module).__name__} returns, a "
                f"{type(output).__name__}; it needs a model whose modules each return one tensor"
            )
        own = (getattr(module, name, None) for name in ("weight", "bias"))
        parameters += sum(p.numel() for p in own if isinstance(p, Tensor))
        outputs += output.numel()

    with ExitStack() as hooks:
        for module in model.modules():
            if module is not model and not isinstance(module, nn.Sequential | nn.ModuleList):
                hooks.enter_context(module.register_forward_hook(count))
        model(image)
    return Summary(parameters, image.numel(), outputs)


# --- a ViT with one module for each step


# vitrepro.models.vit computes q, k and v in one layer, GELU and flattening by functions, and the weights of
# attention inside a kernel: its summary would have half of the outputs


class StepwiseViT(nn.Module):
    """A ViT whose every step is a module, for `summarise`.

    Source: the module tree that duoan/ReplicateAI prints of its model, which has no final norm, no biases
    of q, k and v, and norms before attention that are not called.

    Raises:
        UsageError: a variant of the architecture for which no such tree is known.
        ValueError: the patches do not cover the image.
    """

    def __init__(self, spec: ViTSpec, *, image_size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        plain = {"pool": "cls", "pos_embed": "learned_1d", "attention": "global", "hybrid": None}
        plain |= {"norm": "pre", "activation": "gelu"}
        other = [name for name, value in plain.items() if getattr(spec, name) != value]
        if other:
            raise UsageError(
                "a summary by forward hooks is known for a ViT with pool cls, pos_embed learned_1d, global attention, "
                f"norm pre, GELU and no hybrid; this one has another {', '.join(other)}"
            )
        _, D, depth, _, _ = spec.sizes
        self.embedding = _Embedding(spec, check_grid(spec, image_size) ** 2, channels)
        self.encoder = _Encoder([nn.Sequential(_Attention(spec), _FeedForward(spec)) for _ in range(depth)])
        norm, nothing = nn.LayerNorm(D, eps=spec.layer_norm_eps), nn.Sequential()  # that is empty, and never hooked
        self.norm = norm if spec.final_norm else nothing
        self.head = nn.Linear(D, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.encoder(self.embedding(images)))[:, 0])


class _Embedding(nn.Module):
    def __init__(self, spec: ViTSpec, num_patches: int, channels: int) -> None:
        super().__init__()
        _, D, *_ = spec.sizes
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.patches = _Patches(spec, channels)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches + 1, D))
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        return self.dropout(tokens + self.pos_embed)


class _Patches(nn.Module):
    def __init__(self, spec: ViTSpec, channels: int) -> None:
        super().__init__()
        patch_size, D, *_ = spec.sizes
        self.proj = nn.Conv2d(channels, D, patch_size, stride=patch_size)
        self.flatten = nn.Flatten(start_dim=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.flatten(self.proj(images)).transpose(1, 2)


class _Encoder(nn.Module):
    def __init__(self, layers: list[nn.Sequential]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Attention(nn.Module):
    """Norm, attention and the residual; the weights of attention pass a dropout of their own."""

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        _, D, _, self.num_heads, _ = spec.sizes
        self.pre_norm = spec.attention_norm == "pre"
        self.scale = spec.logit_scale
        self.norm = nn.LayerNorm(D, eps=spec.layer_norm_eps)
        self.query = nn.Linear(D, D, bias=spec.qkv_bias)
        self.key = nn.Linear(D, D, bias=spec.qkv_bias)
        self.value = nn.Linear(D, D, bias=spec.qkv_bias)
        self.weights_dropout = nn.Dropout(spec.dropout)
        self.proj = nn.Linear(D, D)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        y = self.norm(x) if self.pre_norm else x
        q, k, v = (
            layer(y).reshape(B, T, self.num_heads, -1).transpose(1, 2)  # (B, H, T, d)
            for layer in (self.query, self.key, self.value)
        )
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        attended = (self.weights_dropout(weights) @ v).transpose(1, 2).reshape(B, T, D)
        return x + self.dropout(self.proj(attended))


class _FeedForward(nn.Module):
    """Norm, MLP and the residual."""

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        _, D, _, _, mlp_dim = spec.sizes
        self.norm = nn.LayerNorm(D, eps=spec.layer_norm_eps)
        self.net = nn.Sequential(
            nn.Linear(D, mlp_dim),
            nn.GELU(),
            nn.Dropout(spec.dropout),
            nn.Linear(mlp_dim, D),
            nn.Dropout(spec.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(self.norm(x))
