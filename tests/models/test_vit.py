from __future__ import annotations

import math
from functools import partial
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from vitrepro.models.posemb import POS_EMBED, Learned1d, Learned2d, RelativePosBias
from vitrepro.models.vit import AxialBlock, Block, ViT, attend, fused_attention
from vitrepro.recipe import HybridStem, Pool, PosEmbed, ViTSpec

SMALL: dict[str, Any] = {"patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3}
POSITIONS = get_args(PosEmbed)


def small(image_size: int = 16, channels: int = 3, **fields: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(ViTSpec(**{**SMALL, **fields}), image_size=image_size, channels=channels, num_classes=10)


def randomised(model: nn.Module) -> nn.Module:
    """The model with no parameter left at zero or one, so that each of them matters to the logits."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def of_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {{"pos_embed": "pos_embed.table"}.get(name, name): tensor for name, tensor in weights.items()}


@torch.no_grad()
def assert_same_logits(ours: nn.Module, theirs: nn.Module, image_size: int) -> None:
    images = torch.randn(2, 3, image_size, image_size)
    expected = theirs(images)
    assert expected.abs().max() > 0.1  # not the zeros of an untrained head
    torch.testing.assert_close(ours.eval()(images), expected, atol=1e-5, rtol=0)


# --- parity with timm


@pytest.mark.parametrize(("variant", "name"), [("Ti/16", "vit_tiny_patch16_224"), ("S/32", "vit_small_patch32_224")])
def test_timm_weights_give_timm_logits(variant: str, name: str) -> None:
    import timm

    theirs = randomised(timm.create_model(name, pretrained=False))
    ours = ViT(ViTSpec(variant=variant), image_size=224, channels=3, num_classes=1000)
    ours.load_state_dict(of_timm(theirs.state_dict()))
    assert_same_logits(ours, theirs, 224)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_average_pooling_is_timms_with_the_norm_before_the_mean(qkv_bias: bool) -> None:
    from timm.models.vision_transformer import VisionTransformer

    theirs = randomised(
        VisionTransformer(
            img_size=16, patch_size=4, embed_dim=48, depth=2, num_heads=3, num_classes=10, qkv_bias=qkv_bias,
            global_pool="avg", class_token=False, fc_norm=False,
        )
    )  # fmt: skip
    ours = small(pool="gap", qkv_bias=qkv_bias)
    ours.load_state_dict(of_timm(theirs.state_dict()))
    assert_same_logits(ours, theirs, 16)


def test_a_hybrid_is_timms_vision_transformer_on_its_group_norm_resnet() -> None:
    from timm.layers import HybridEmbed, StdConv2dSame
    from timm.models.resnetv2 import ResNetV2
    from timm.models.vision_transformer import VisionTransformer

    backbone = ResNetV2(
        layers=[1, 2, 1], channels=(128, 256, 512), stem_chs=32, num_classes=0, global_pool="",
        preact=False, stem_type="same", conv_layer=partial(StdConv2dSame, eps=1e-8),
    )  # fmt: skip
    theirs = randomised(
        VisionTransformer(
            img_size=64, patch_size=2, embed_dim=48, depth=2, num_heads=3, num_classes=10,
            embed_layer=partial(HybridEmbed, backbone=backbone),
        )
    )  # fmt: skip
    ours = small(64, patch_size=2, hybrid=HybridStem(layers=(1, 2, 1), width=32))

    def our_name(name: str) -> str:
        for old, new in (
            ("stem.conv", "conv1"), ("stem.norm", "bn1"), ("blocks.", ""),
            ("stages.0", "layer1"), ("stages.1", "layer2"), ("stages.2", "layer3"),
            ("downsample.conv", "downsample.0"), ("downsample.norm", "downsample.1"), (".norm", ".bn"),
        ):  # fmt: skip
            name = name.replace(old, new) if "backbone" in name else name
        return name

    ours.load_state_dict(of_timm({our_name(k): v for k, v in theirs.state_dict().items()}))
    assert_same_logits(ours, theirs, 64)


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("B/16", "vit_base_patch16_224"),
        ("B/32", "vit_base_patch32_224"),
        ("L/16", "vit_large_patch16_224"),
        ("L/32", "vit_large_patch32_224"),
        ("H/14", "vit_huge_patch14_224"),
    ],
)
def test_named_variants_have_as_many_parameters_as_timms(variant: str, name: str) -> None:
    import timm

    with torch.device("meta"):
        ours = ViT(ViTSpec(variant=variant), image_size=224, channels=3, num_classes=1000)
        theirs = timm.create_model(name, pretrained=False, num_classes=1000)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


# --- attention


@pytest.mark.parametrize("bias", [None, "per head", "per image and head"])
def test_both_attention_kernels_agree_in_values_and_gradients(bias: str | None) -> None:
    torch.manual_seed(0)
    shapes = [(2, 3, 17, 8)] * 3 + ({None: [], "per head": [(3, 17, 17)]}.get(bias, [(2, 3, 17, 17)]))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    results = {}
    for kernel in (False, True):
        out = attend(*inputs, fused=kernel)
        results[kernel] = (out, *torch.autograd.grad(out.square().sum(), inputs))
    for plain, fused in zip(results[False], results[True], strict=True):
        torch.testing.assert_close(plain, fused, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("device", "tokens", "fused"), [("cpu", 1, False), ("cpu", 256, False), ("cpu", 257, True), ("cuda", 1, True)]
)
def test_the_kernel_depends_on_the_device_and_the_length_of_the_sequence(device: str, tokens: int, fused: bool) -> None:
    assert fused_attention(device, tokens) is fused


@pytest.mark.parametrize("kernel", [None, True, False])
def test_a_model_uses_the_kernel_that_it_is_told(kernel: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda q, *_, attn_mask, **__: used.append(attn_mask) or q
    )
    model = small(depth=2)
    for block in model.blocks:
        block.attn.fused = kernel
    model(torch.zeros(1, 3, 16, 16))
    assert len(used) == (2 if kernel else 0)
    with torch.no_grad():
        model(torch.zeros(1, 3, 16, 16))
    assert len(used) == (4 if kernel else 2)  # without gradients always the fused one


# --- what no logit depends on


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention_norm": "unused"},
        {"qkv_bias": False},
        {"depth": 1},
        {"norm": "post", "activation": "relu"},
        {"pool": "first"},
        {"attention_scale": "inverted"},
        {"pool": "first", "attention": "batch"},
        {"pool": "cls", "attention": "batch", "norm": "post"},
        {"pool": "first", "attention": "batch", "pos_embed": "learned_2d"},
    ],
)
def test_skipping_what_no_logit_depends_on_changes_neither_logits_nor_gradients(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = small(**settings).double()
    torch.nn.init.normal_(model.head.weight)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    found = []
    for skip in (False, True):
        model.skip_unread = skip
        logits = model(images)
        gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()), allow_unused=True)
        found.append([logits, *(g for g in gradients if g is not None)])
    for whole, short in zip(*found, strict=True):
        torch.testing.assert_close(whole, short, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize(
    "settings",
    [
        {"pool": "gap"},
        {"pool": "gap", "attention": "axial"},
        {"pool": "first", "attention": "axial"},
        {"pool": "gap", "attention": "batch"},
        {"pos_embed": "relative"},
    ],
)
def test_where_logits_depend_on_every_token_or_the_bias_of_positions_nothing_is_skipped(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Block, "of_first_token", never)
    model = small(**settings)
    model.skip_unread = True
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_where_attention_is_across_the_batch_the_read_token_is_the_only_one_made() -> None:
    tokens: list[int] = []
    for pool in ("first", "cls"):
        model = small(pool=pool, attention="batch", depth=2)
        for block in model.blocks:
            block.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[1]))
        for skip in (False, True):
            model.skip_unread = skip
            model(torch.zeros(2, 3, 16, 16))
    assert tokens == [16, 16, 1, 1, 17, 17, 1, 1]


def test_tokens_are_narrow_only_where_told_and_only_under_autocast() -> None:
    model = small()
    types = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: types.append(inputs[0].dtype))
    images = torch.zeros(1, 3, 16, 16)
    for narrow in (False, True):
        model.narrow_tokens = narrow
        model(images)
        with torch.autocast("cpu", torch.bfloat16):
            model(images)
    assert types == [torch.float32, torch.float32, torch.float32, torch.bfloat16]


# --- position


def test_every_position_embedding_of_the_schema_can_be_built() -> None:
    assert set(POS_EMBED) == set(POSITIONS)
    for name in POSITIONS:
        for pool in get_args(Pool):
            logits = small(pos_embed=name, pool=pool)(torch.randn(2, 3, 16, 16))
            assert logits.shape == (2, 10)


def test_a_2d_embedding_joins_a_column_and_a_row_and_leaves_the_class_token() -> None:
    position = Learned2d(grid=3, class_token=True, dim=4)
    added = position(torch.zeros(1, 10, 4))[0]
    assert torch.equal(added[0], torch.zeros(4))
    row, column = 2, 1
    assert torch.equal(added[1 + 3 * row + column], torch.cat([position.x[column], position.y[row]]))


def test_a_1d_embedding_has_a_vector_for_the_class_token_too() -> None:
    assert Learned1d(grid=3, class_token=True, dim=4).table.shape == (1, 10, 4)
    assert Learned1d(grid=3, class_token=False, dim=4).table.shape == (1, 9, 4)


@pytest.mark.parametrize("cls", [0, 1])
def test_a_relative_bias_is_the_query_times_the_embedding_of_the_offset(cls: int) -> None:
    torch.manual_seed(0)
    N = 9
    relative = RelativePosBias(grid=3, class_token=bool(cls), dim=4)
    q = torch.randn(2, 3, N + cls, 4)
    bias = relative(q)
    expected = torch.zeros(2, 3, N + cls, N + cls)
    for i in range(N):
        for j in range(N):
            expected[:, :, cls + i, cls + j] = q[:, :, cls + i] @ relative.table[i - j + N - 1]
    torch.testing.assert_close(bias, expected)


def test_a_relative_bias_of_one_patch_is_allowed() -> None:
    assert RelativePosBias(grid=1, class_token=False, dim=4)(torch.randn(1, 1, 1, 4)).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("name", POSITIONS)
def test_position_parameters_are_known_by_their_name(name: str) -> None:
    with_position = {k for k, _ in small(pos_embed=name).named_parameters()}
    without = {k for k, _ in small(pos_embed="none").named_parameters()}
    assert all("pos_embed" in k for k in with_position - without)
    assert bool(with_position - without) == (name not in ("none", "sinusoid_2d"))


# --- variants of the encoder layer


@torch.no_grad()
def test_an_axial_layer_is_a_block_on_every_row_and_then_one_on_every_column() -> None:
    layer = randomised(small(pool="gap", attention="axial")).blocks[0]
    assert isinstance(layer, AxialBlock)
    x = torch.randn(2, 4, 4, 48)  # B, row, column, D
    rows = torch.stack([layer.row(x[:, i]) for i in range(4)], dim=1)
    columns = torch.stack([layer.column(rows[:, :, j]) for j in range(4)], dim=2)
    torch.testing.assert_close(layer(x.flatten(1, 2)), columns.flatten(1, 2), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_patch_reaches_its_row_in_half_an_axial_layer_and_all_patches_in_a_whole_one() -> None:
    layer = randomised(small(pool="gap", attention="axial")).blocks[0].double()
    x = torch.randn(1, 16, 48).double()
    changed = x.clone()
    changed[0, 6] = torch.randn(48).double()  # row 1, column 2

    def moved(part: nn.Module, *shape: int) -> list[int]:
        difference = (part(changed.reshape(shape)) - part(x.reshape(shape))).reshape(16, 48)
        return difference.abs().amax(-1).nonzero().flatten().tolist()

    assert moved(layer.row, 4, 4, 48) == [4, 5, 6, 7]
    assert moved(layer, 1, 16, 48) == list(range(16))


def test_an_axial_model_starts_each_of_its_blocks_like_others() -> None:
    model = small(pool="gap", attention="axial")
    bound = math.sqrt(6 / (48 + 48))
    for layer in model.blocks:
        for block in (layer.row, layer.column):
            assert 0.9 * bound < block.attn.qkv.weight.abs().max() <= bound
            assert torch.equal(block.attn.proj.bias, torch.zeros(48))


def test_every_parameter_of_an_axial_model_receives_a_gradient() -> None:
    model = randomised(small(pool="gap", attention="axial")).train()
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("fields", [{"pool": "cls"}, {"pool": "gap", "pos_embed": "relative"}])
def test_axial_attention_is_refused_where_rows_and_columns_are_not_all_there_is(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="axial attention runs along rows and columns"):
        ViTSpec(**SMALL, **fields, attention="axial")


@torch.no_grad()
def test_an_unused_norm_is_there_and_changes_nothing() -> None:
    model = randomised(small(attention_norm="unused"))
    images = torch.randn(2, 3, 16, 16)
    before = model(images)
    for block in model.blocks:
        nn.init.normal_(block.norm1.weight)
    assert torch.equal(model(images), before)
    assert {k for k, _ in model.named_parameters()} == {k for k, _ in small().named_parameters()}


@torch.no_grad()
@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_without_a_final_norm_the_head_reads_what_the_last_layer_says(pool: str) -> None:
    model = randomised(small(pool=pool, final_norm=False))
    last: list[Tensor] = []
    model.blocks.register_forward_hook(lambda _, __, output: last.append(output))
    features = model.features(torch.randn(2, 3, 16, 16))
    assert torch.equal(features, last[0][:, 0] if pool == "cls" else last[0].mean(1))
    assert not [k for k, _ in model.named_parameters() if k.startswith("norm.")]


# --- initialisation and training


def test_a_new_model_says_nothing_yet() -> None:
    model = small()
    assert torch.equal(model(torch.randn(2, 3, 16, 16)), torch.zeros(2, 10))


def test_q_k_and_v_start_as_three_square_layers() -> None:
    weight = small(embed_dim=192).blocks[0].attn.qkv.weight
    bound = math.sqrt(6 / (192 + 192))
    assert weight.shape == (3 * 192, 192)
    assert 0.99 * bound < weight.abs().max() <= bound


def test_the_same_seed_starts_the_same_model() -> None:
    a, b = small(pos_embed="relative"), small(pos_embed="relative")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_every_parameter_that_can_matter_receives_a_gradient(name: str, pool: str) -> None:
    model = randomised(small(pos_embed=name, pool=pool)).train()
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    still = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # offsets are between patches, and in the last layer only the class token's query is read
    assert still == (["blocks.1.attn.pos_embed.table"] if (name, pool) == ("relative", "cls") else [])


def test_dropout_acts_in_training_only() -> None:
    model = randomised(small(dropout=0.5))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_dropout_follows_every_dense_layer_but_qkv_and_the_head() -> None:
    model = small(dropout=0.5, depth=1, mlp_dim=80)
    seen: list[tuple[str, int]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.5
            module.register_forward_pre_hook(lambda _, x, name=name: seen.append((name, x[0].shape[-1])))
    model(torch.randn(1, 3, 16, 16))
    assert seen == [("pos_drop", 48), ("blocks.0.attn.drop", 48), ("blocks.0.mlp.drop", 80), ("blocks.0.mlp.drop", 48)]


def test_patches_that_do_not_cover_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="not covered"):
        small(image_size=18)


@pytest.mark.parametrize("name", POSITIONS)
def test_bfloat16_autocast_gives_about_the_same_logits(name: str) -> None:
    model = randomised(small(pos_embed=name))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(images)
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)


# --- fixed sinusoids


@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_sinusoids_are_those_of_moco_v3_and_timm_on_patches_alone(pool: Pool) -> None:
    from timm.layers import build_sincos2d_pos_embed

    model = small(pos_embed="sinusoid_2d", pool=pool)
    theirs = build_sincos2d_pos_embed([4, 4], 48, interleave_sin_cos=True)
    cls = int(pool == "cls")
    added = model.pos_embed(torch.zeros(2, 16 + cls, 48))
    torch.testing.assert_close(added[1, cls:], theirs, rtol=0, atol=1e-6)
    assert not added[:, :cls].any()
    halves = added[0, cls:].view(4, 4, 2, 24)  # row, column, of row or column
    assert torch.equal(halves[:, :1, 0].expand(-1, 4, -1), halves[:, :, 0])
    assert torch.equal(halves[:1, :, 1].expand(4, -1, -1), halves[:, :, 1])


def test_sinusoids_are_neither_trained_nor_a_part_of_the_models_state() -> None:
    fixed, none = small(pos_embed="sinusoid_2d"), small(pos_embed="none")
    assert fixed.state_dict().keys() == none.state_dict().keys()
    assert dict(fixed.named_parameters()).keys() == dict(none.named_parameters()).keys()
