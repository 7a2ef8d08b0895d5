"""Vision Transformers that depart from the paper's as attempts at it did, against torch's own layers."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrepro.models.vit import ACTIVATIONS, Attention, ViT
from vitrepro.recipe import Activation, ViTSpec

D, HEADS, MLP = 48, 3, 80
SMALL: dict[str, Any] = {"patch_size": 4, "embed_dim": D, "depth": 2, "num_heads": HEADS, "mlp_dim": MLP}


def small(**fields: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(ViTSpec(**{**SMALL, **fields}), image_size=16, channels=3, num_classes=10)


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """The model in float64, with no parameter left at zero or one and attention far from uniform."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double()


def torchs(eps: float = 1e-6, **options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(D, HEADS, MLP, dropout=0.0, layer_norm_eps=eps, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def with_weights_of(ours: ViT, encoder: nn.TransformerEncoder) -> ViT:
    """Our model with the layers of torch's encoder."""
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
    }
    weights = {}
    for name, tensor in encoder.layers.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        weights[name] = tensor
    ours.blocks.load_state_dict(weights)
    return ours


# --- layers


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("attention", ["global", "batch"])
def test_the_layers_are_those_of_torchs_transformer_encoder(norm: str, activation: Any, attention: str) -> None:
    options = {"activation": activation, "norm_first": norm == "pre", "batch_first": attention == "global"}
    theirs = randomised(torchs(**options))
    ours = with_weights_of(small(norm=norm, activation=activation, attention=attention).double(), theirs)  # type: ignore[arg-type]
    tokens = torch.randn(5, 17, D, dtype=torch.float64)  # five images, and given as such to both
    expected = theirs(tokens)
    assert (expected - tokens).abs().max() > 0.5
    torch.testing.assert_close(ours.blocks(tokens), expected, atol=1e-12, rtol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("change", [{"norm": "post"}, {"activation": "relu"}, {"attention": "batch"}])
def test_each_departure_is_another_function_of_the_same_weights(change: dict[str, Any]) -> None:
    paper, other = randomised(small()), small(**change).double()
    other.load_state_dict(paper.state_dict())
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    assert (paper(images) - other(images)).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_layer_norm_has_the_epsilon_that_is_asked_for(eps: float, norm: str) -> None:
    model = small(layer_norm_eps=eps, norm=norm)
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {eps}
    assert sum(isinstance(m, nn.LayerNorm) for m in model.modules()) == 5


def test_every_activation_of_the_schema_has_its_function() -> None:
    assert set(ACTIVATIONS) == set(get_args(Activation))


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize(("name", "scale"), [("normal", 4**-1), ("inverted", 4)])
def test_attention_logits_are_scaled_as_asked_whichever_kernel_computes_them(
    kernel: bool, name: str, scale: float
) -> None:
    attn = randomised(Attention(ViTSpec(**SMALL, attention_scale=name), None))  # type: ignore[arg-type]
    attn.fused = kernel
    x = torch.randn(2, 7, D, dtype=torch.float64, requires_grad=True)
    q, k, v = attn.qkv(x).reshape(2, 7, 3, HEADS, 16).permute(2, 0, 3, 1, 4)  # heads of width 16
    expected = attn.proj(F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).reshape(2, 7, D))
    torch.testing.assert_close(attn(x), expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(attn.of_first_token(x), expected[:, :1], atol=1e-12, rtol=1e-12)


# --- across the batch


@torch.no_grad()
@pytest.mark.parametrize("pool", ["first", "gap"])
def test_across_the_batch_an_images_logits_depend_on_the_others_and_an_images_tokens_do_not_meet(pool: str) -> None:
    model = randomised(small(attention="batch", pool=pool)).eval()
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    assert (model(images)[:2] - model(images[:2])).abs().max() > 1e-3
    tokens = torch.randn(4, 16, D, dtype=torch.float64)
    changed = tokens.clone()
    changed[:, 5] += torch.randn(4, D, dtype=torch.float64)
    moved = (model.blocks(changed) - model.blocks(tokens)).abs().amax((0, 2))
    assert moved.nonzero().flatten().tolist() == [5]


@torch.no_grad()
def test_a_class_token_that_meets_other_class_tokens_alone_says_the_same_of_every_image() -> None:
    model = randomised(small(attention="batch")).eval()
    logits = model(torch.randn(4, 3, 16, 16, dtype=torch.float64))
    torch.testing.assert_close(logits, logits[:1].expand(4, -1), atol=1e-12, rtol=0)
    assert logits.abs().max() > 0.1


@pytest.mark.parametrize("attention", ["global", "axial", "batch"])
@pytest.mark.parametrize("pool", ["first", "gap"])
def test_every_parameter_receives_a_gradient(attention: str, pool: str) -> None:
    model = randomised(small(attention=attention, pool=pool, norm="post", activation="relu")).train()
    model(torch.randn(4, 3, 16, 16, dtype=torch.float64)).square().sum().backward()
    assert [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


# --- what the head reads


@torch.no_grad()
def test_the_head_reads_the_first_patch_after_the_last_norm_and_there_is_no_class_token() -> None:
    model = randomised(small(pool="first"))
    last: list[Tensor] = []
    model.norm.register_forward_hook(lambda _, __, output: last.append(output))
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(model.features(images), last[0][:, 0])
    assert last[0].shape == (2, 16, D)
    assert "cls_token" not in dict(model.named_parameters())


# --- how it starts


def test_torchs_patches_start_as_a_convolution_of_its_own_does() -> None:
    model = small(init="torch")
    torch.manual_seed(0)
    conv = nn.Conv2d(3, D, 4, stride=4)
    assert torch.equal(model.patch_embed.proj.weight, conv.weight)
    assert torch.equal(model.patch_embed.proj.bias, conv.bias)  # type: ignore[arg-type]


@torch.no_grad()
def test_torchs_queries_keys_and_values_start_as_in_its_multihead_attention() -> None:
    model, theirs = small(init="torch", depth=1), nn.MultiheadAttention(D, HEADS)
    for reset in (model._initialise_as_torch, theirs._reset_parameters):
        torch.manual_seed(5)
        reset()
    attn = model.blocks[0].attn
    assert torch.equal(attn.qkv.weight, theirs.in_proj_weight)
    assert torch.equal(attn.qkv.bias, theirs.in_proj_bias)
    assert torch.equal(attn.proj.bias, theirs.out_proj.bias)
    assert not torch.equal(attn.qkv.weight, small(init="torch", depth=1).blocks[0].attn.qkv.weight)  # was reset


@pytest.mark.parametrize("layer", ["blocks.1.attn.proj", "blocks.0.mlp.fc1", "blocks.1.mlp.fc2", "head"])
def test_torchs_other_layers_start_as_its_linear_layers_do(layer: str) -> None:
    ours = small(init="torch").get_submodule(layer)
    assert isinstance(ours, nn.Linear)
    theirs = nn.Linear(ours.in_features, ours.out_features)
    assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.1)
    assert ours.weight.abs().max().item() == pytest.approx(ours.in_features**-0.5, rel=0.02)
    assert ours.bias.any() == (layer != "blocks.1.attn.proj")  # MultiheadAttention zeroes this one


@pytest.mark.parametrize(("embed_init", "cls", "position"), [("small", 0, 0.02), ("unit", 1, 1)])
@pytest.mark.parametrize("init", ["paper", "torch"])
def test_embeddings_start_small_or_at_unit_deviation(embed_init: str, cls: float, position: float, init: str) -> None:
    model = small(embed_init=embed_init, init=init, embed_dim=192)
    assert model.cls_token is not None
    assert model.cls_token.std().item() == pytest.approx(cls, rel=0.2)
    assert model.pos_embed.table.std().item() == pytest.approx(position, rel=0.1)  # type: ignore[union-attr]
    assert model.blocks[0].attn.qkv.weight.std() < 0.1


@pytest.mark.parametrize("pos_embed", ["learned_2d", "relative"])
def test_all_kinds_of_position_embeddings_can_start_at_unit_deviation(pos_embed: str) -> None:
    model = small(embed_init="unit", pos_embed=pos_embed, embed_dim=192)
    tables = [p for name, p in model.named_parameters() if "pos_embed" in name]
    assert len(tables) == 2
    assert all(0.8 < table.std() < 1.2 for table in tables)


def test_embeddings_that_start_otherwise_leave_all_other_weights_as_they_would_be() -> None:
    usual, unit = small().state_dict(), small(embed_init="unit").state_dict()
    assert {k for k in usual if not torch.equal(usual[k], unit[k])} == {"cls_token", "pos_embed.table"}


@pytest.mark.parametrize(
    "fields", [{}, {"init": "torch"}, {"attention": "axial", "pool": "gap"}, {"pos_embed": "relative"}]
)
def test_copied_layers_start_alike_as_those_of_torchs_encoder_and_train_apart(fields: dict[str, Any]) -> None:
    theirs = torchs()
    assert all(torch.equal(*pair) for pair in zip(*(layer.parameters() for layer in theirs.layers), strict=True))
    each, model = small(**fields), small(layer_init="copied", **fields)
    first, second = (layer.state_dict() for layer in model.blocks)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(*pair) for pair in zip(*(b.parameters() for b in each.blocks), strict=True))
    usual, copied = each.state_dict(), model.state_dict()
    assert all(torch.equal(usual[k], copied[k]) for k in usual if not k.startswith("blocks.1."))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8)
    for _ in range(2):  # a head of zeros passes nothing back at first
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    now, other = (layer.attn if hasattr(layer, "attn") else layer.row.attn for layer in model.blocks)
    assert (now.proj.weight - other.proj.weight).abs().max() > 1e-6
