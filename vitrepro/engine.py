"""How a recipe is computed on a device: what makes it fast and leaves alone what it computes.

Every choice is written down with its reason, in the run's record and by `vitrepro show --engine`; a recipe
with `engine: plain` makes none of them.
"""

from __future__ import annotations

import copy
import itertools
import os
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vitrepro import memory
from vitrepro.errors import RunError
from vitrepro.models.dropout import Dropout
from vitrepro.models.vit import MATMUL_TOKENS, Attention, Block, PatchEmbed, ViT, fused_attention
from vitrepro.recipe import Arithmetic, ModelSpec, Recipe, ResNetSpec, ViTSpec, attends_across_batch, check_grid


class Compilation(NamedTuple):
    """What compiling took and gained where it was measured, on an H100 with torch 2.11 and recorded passes.

    Attributes:
        seconds: for kernels that were never compiled on that machine.
        gain: of the step's time.
    """

    seconds: float
    gain: float


LAYERS = Compilation(12.0, 0.25)  # of ViT-B/16 at 224 px, batches of 256
WHOLE = Compilation(44.0, 0.29)  # of ResNet-50 at 224 px, batches of 256


@dataclass(frozen=True)
class Engine:
    """The choices for one recipe, device and arithmetic.

    Attributes:
        fused_attention: one kernel that never holds the weights, or plain products; None for other models.
        skip_unread, narrow_tokens: as `ViT` has them.
        patches_as_product: as `PatchEmbed` has it.
        short_masks: dropout that draws 16 bits for an element.
        folded: batch norm is part of the convolutions in evaluation, where it is a fixed scale and shift.
        eval_batch: images that are classified at once.
        channels_last: the layout in which convolutions are fast.
        fused_optimizer: one kernel for all parameters.
        graphs: forward and backward pass recorded as CUDA graphs, where one process has whole batches.
        may_compile: `torch.compile`, once the measured steps say that it pays back within the run.
        deterministic: only kernels that give the same bits again.
    """

    fused_attention: bool | None
    skip_unread: bool
    narrow_tokens: bool
    patches_as_product: bool
    short_masks: bool
    folded: bool
    eval_batch: int
    channels_last: bool
    fused_optimizer: bool
    graphs: bool
    may_compile: bool
    deterministic: bool
    told: dict[str, str]


def choose(recipe: Recipe, device: str, precision: Arithmetic) -> Engine:
    """The choices for training and evaluating a recipe; `device` is `cpu` or `cuda:0`."""
    kind = device.partition(":")[0]
    fast, model, deterministic = recipe.train.engine == "fast", recipe.model, recipe.train.deterministic
    reasons: dict[str, str] = {}
    fused, skip, narrow, as_product = None, False, False, False
    if isinstance(model, ViTSpec):
        patches = check_grid(model, recipe.image_size)
        batch = recipe.train.batch_size
        keys = {"global": patches**2 + (model.pool == "cls"), "axial": patches, "batch": batch}[model.attention]
        fused = fused_attention(kind, keys, drops=model.attention_dropout > 0) if fast else True
        skip = fast and (model.reads_first_token or model.reads_one_place)
        narrow = fast and precision == "bf16"
        as_product = fast and kind == "cpu" and model.hybrid is None
        if fused:
            reasons["attention"] = f"the fused kernel, {keys} keys on {kind}"
        elif model.attention_dropout:
            reasons["attention"] = "plain products: a CPU's fused kernel drops no weights"
        else:
            reasons["attention"] = (
                f"plain products: up to {MATMUL_TOKENS} keys they train faster on a CPU, here {keys}; "
                "the fused kernel in evaluation"
            )
        token = "class token" if model.pool == "cls" else "first patch"
        layers = "every layer" if model.reads_one_place else "last layer"
        reasons[layers] = f"of the {token} alone: no logit depends on the others" if skip else "of every token"
        if model.attention == "batch":
            reasons["predictions"] = (
                f"of {batch} images together, on all of which each depends: attention is across them"
            )
        reasons["patches"] = "cut out and multiplied, faster on a CPU" if as_product else "by a convolution"
        if (model.dropout or model.attention_dropout) and fast and kind == "cpu":
            reasons["dropout"] = "of 16 random bits for an element; torch's own takes four times as long on a CPU"
        reasons["tokens between layers"] = "bfloat16" if narrow else "float32"
    folded = fast and isinstance(model, ResNetSpec) and model.style == "bn"
    if folded:
        reasons["batch norm"] = "of the batch in training, folded into the convolutions in evaluation"
    in_caches = fast and kind == "cpu" and not attends_across_batch(model)
    eval_batch = memory.fits_in_caches(recipe, precision) if in_caches else recipe.eval_batch
    if eval_batch < recipe.eval_batch:
        reasons["evaluation"] = f"{eval_batch} images at a time, whose tensors stay in a CPU's caches"
    scaled = precision == "fp16"  # fused SGD leaves its momentum unwritten where the scaler skips the first step
    graphs = fast and kind == "cuda" and isinstance(model, ViTSpec | ResNetSpec)
    may_compile = fast and kind == "cuda" and not deterministic
    reasons["arithmetic"] = {
        "fp32": "float32 throughout",
        "tf32": "products in TF32, float32 elsewhere",
        "bf16": "products in bfloat16; weights, gradients' sums and statistics in float32",
        "fp16": "products in float16 with a loss scaler; weights and statistics in float32",
    }[precision]
    reasons["layout"] = "channels last" if fast else "as allocated"
    reasons["optimizer"] = "one fused kernel" if fast and not scaled else "a kernel for each parameter or group"
    if kind == "cuda":
        recorded = "both passes recorded as CUDA graphs, where one process has whole batches"
        reasons["launches"] = recorded if graphs else "each kernel by itself"
    if may_compile:
        seconds, gain = compilation(model)
        reasons["compilation"] = (
            f"once the measured steps of a run say that {seconds:.0f} s are paid back twice by steps that are "
            f"{100 * gain:.0f}% shorter, as on an H100"
        )
    elif not fast or deterministic:
        reasons["compilation"] = "none, as the recipe asks"
    else:
        reasons["compilation"] = "none: on a CPU it gains a few percent at most and takes up to a minute"
    reasons["kernels"] = "deterministic" if deterministic else "the fastest"
    return Engine(
        fused_attention=fused,
        skip_unread=skip,
        narrow_tokens=narrow,
        patches_as_product=as_product,
        short_masks=fast and kind == "cpu",
        folded=folded,
        eval_batch=eval_batch,
        channels_last=fast,
        fused_optimizer=fast and not scaled,
        graphs=graphs,
        may_compile=may_compile,
        deterministic=deterministic,
        told=reasons,
    )


def settle(engine: Engine, precision: Arithmetic) -> None:
    """Settings of this process: TF32 exactly where the recipe says so, deterministic kernels where it does."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = not engine.deterministic
    if engine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order
    torch.use_deterministic_algorithms(engine.deterministic)


def configure(model: nn.Module, engine: Engine | None) -> nn.Module:
    """The model, told the choices that are its own; as it is written down where there is no engine."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.fused = engine.fused_attention if engine else None
        if isinstance(module, Dropout):
            module.sixteen_bits = engine is not None and engine.short_masks
        if isinstance(module, PatchEmbed):
            module.as_product = engine is not None and engine.patches_as_product
    if isinstance(model, ViT):
        model.skip_unread = engine is not None and engine.skip_unread
        model.narrow_tokens = engine is not None and engine.narrow_tokens
    if engine is not None and engine.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model


def for_evaluation(model: nn.Module, engine: Engine) -> nn.Module:
    """The model as it is evaluated: itself, or a copy whose convolutions scale and shift as batch norm would.

    The copy's logits are the model's but for rounding.
    """
    if not engine.folded:
        return model
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        for (_, conv), (name, norm) in itertools.pairwise(list(parent.named_children())):
            if type(conv) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm):
                fused = fuse_conv_bn_eval(conv, norm)
                conv.weight, conv.bias = fused.weight, fused.bias
                setattr(parent, name, nn.Identity())
    return model


def share_statistics(model: nn.Module, batch_norm: Literal["batch", "process"], device: str) -> nn.Module:
    """The model, whose batch norm sees the whole batch though several processes share it, where the recipe says so.

    Raises:
        RunError: torch has no such layer on a CPU.
    """
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if batch_norm == "process" or not normed:
        return model
    if device == "cpu":
        raise RunError(
            "batch norm over several processes' images needs CUDA devices; run it in one process, or take each "
            "process's own statistics, a deviation: --set train.batch_norm=process"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def check_processes(recipe: Recipe, processes: int) -> None:
    """Refuse to share a run whose model needs all images of a batch in one place.

    Raises:
        RunError: attention goes across the batch, and there are several processes.
    """
    if processes > 1 and attends_across_batch(recipe.model):
        raise RunError(
            f"model.attention batch goes across all {recipe.train.batch_size} images of a batch, in evaluation too, "
            f"and {processes} processes would each see a share of them; run it in one process, without torchrun"
        )


def has_unused(model: nn.Module) -> bool:
    """Whether the model holds parameters that are defined and never called."""
    return any(isinstance(module, Block) and module.attention_norm == "unused" for module in model.modules())


def compilation(model: ModelSpec) -> Compilation:
    """What compiling such a model takes and gains: a ViT's layers share their code, other models are compiled whole."""
    return LAYERS if isinstance(model, ViTSpec) else WHOLE


def compilation_pays(model: ModelSpec, step_seconds: float, steps_left: int) -> bool:
    """Whether compiling would be paid back twice by the steps that are left, at their measured pace."""
    seconds, gain = compilation(model)
    return steps_left * step_seconds * gain > 2 * seconds
