from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vitrepro.errors import UsageError
from vitrepro.measure import attention
from vitrepro.measure.attention import (
    among_patches,
    attention_distance,
    attention_entropy,
    attention_rollout,
    attention_weights,
    encoder,
    of_class_token,
    uniform_distance,
)
from vitrepro.models import vit
from vitrepro.models.resnet import resnet
from vitrepro.recipe import HybridStem, ResNetSpec, ViTSpec

SMALL: dict[str, Any] = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}


def randomised(model: nn.Module) -> nn.Module:
    """The model with weights so large that attention is far from uniform."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def ours(image_size: int = 16, **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    return randomised(vit.ViT(ViTSpec(**{**SMALL, **fields}), image_size=image_size, channels=3, num_classes=10))


def timms(**options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 10}
    return randomised(VisionTransformer(**{**size, **options}))


def images(number: int = 2, size: int = 16) -> Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(2))


def distributions(seed: int, *shape: int) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).softmax(-1)


OURS: dict[str, Any] = {
    "learned_1d": {},
    "learned_2d": {"pos_embed": "learned_2d"},
    "relative": {"pos_embed": "relative"},
    "none, gap, no bias": {"pos_embed": "none", "pool": "gap", "qkv_bias": False},
    "relative, gap": {"pos_embed": "relative", "pool": "gap"},
    "dropout": {"dropout": 0.5},
    "norms after": {"norm": "post"},
    "first patch, ReLU": {"pool": "first", "activation": "relu"},
    "inverted scale": {"attention_scale": "inverted"},
    "inverted scale, relative": {"attention_scale": "inverted", "pos_embed": "relative"},
    "hybrid": {"image_size": 64, "patch_size": 1, "hybrid": HybridStem(layers=(1, 1, 1), width=32)},
}
TIMMS: dict[str, Any] = {
    "plain": {},
    "normed queries and keys": {"qk_norm": True},
    "registers": {"reg_tokens": 2},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "no bias": {"qkv_bias": False},
}


# --- capture


@torch.no_grad()
def assert_explains_every_layer(model: nn.Module, x: Tensor) -> None:
    """The captured weights times the values are what each layer gives its projection."""
    values: list[Tensor] = []
    projected: list[Tensor] = []
    layers = encoder(model).layers
    for layer in layers:
        layer.qkv.register_forward_hook(lambda _, __, qkv: values.append(qkv.chunk(3, dim=-1)[2]))
        layer.proj.register_forward_pre_hook(lambda _, inputs: projected.append(inputs[0]))
    weights = list(attention_weights(model, x))
    assert len(weights) == len(layers) == 3
    for w, v, expected in zip(weights, values, projected, strict=True):
        B, T, D = v.shape
        assert w.shape == (B, 3, T, T)
        assert w.max() > 2 / T  # not uniform
        torch.testing.assert_close(w.sum(-1), torch.ones(B, 3, T))
        found = w @ v.reshape(B, T, 3, D // 3).transpose(1, 2)
        torch.testing.assert_close(found.transpose(1, 2).reshape(B, T, D), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fields", OURS.values(), ids=OURS)
@pytest.mark.parametrize("kernel", ["products", "fused"])
def test_captured_weights_are_those_that_our_model_uses(
    fields: dict[str, Any], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit, "MATMUL_TOKENS", 256 if kernel == "products" else 0)
    model = ours(**fields)
    assert_explains_every_layer(model, images(size=fields.get("image_size", 16)))


@pytest.mark.parametrize("options", TIMMS.values(), ids=TIMMS)
@pytest.mark.parametrize("fused", [True, False])
def test_captured_weights_are_those_that_timms_model_uses(options: dict[str, Any], fused: bool) -> None:
    model = timms(**options)
    for layer in encoder(model).layers:
        layer.fused_attn = fused
    assert_explains_every_layer(model, images())


@pytest.mark.parametrize("options", TIMMS.values(), ids=TIMMS)
def test_captured_weights_are_those_that_timm_extracts(options: dict[str, Any]) -> None:
    from timm.utils import AttentionExtract

    model = timms(**options)
    found = list(attention_weights(model, images()))
    for layer in encoder(model).layers:
        layer.fused_attn = False
    expected = AttentionExtract(model, method="hook")(images())
    assert list(expected) == [f"blocks.{i}.attn.attn_drop" for i in range(3)]
    for ours, theirs in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(ours, theirs.detach())


@torch.no_grad()
@pytest.mark.parametrize("relative", [False, True])
def test_captured_weights_equal_a_softmax_written_by_hand(relative: bool) -> None:
    model = ours(pos_embed="relative" if relative else "learned_1d", depth=2)
    given: list[Tensor] = []
    for layer in encoder(model).layers:
        layer.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    for layer, x, weights in zip(
        encoder(model).layers, given, attention_weights(model, images(1)), strict=False
    ):  # fmt: skip
        q, k, _ = layer.qkv(x[0]).chunk(3, dim=-1)  # (T, D) each
        for head in range(3):
            mine = slice(8 * head, 8 * head + 8)
            for i in (0, 1, 9):
                logits = torch.stack([q[i, mine] @ k[j, mine] / math.sqrt(8) for j in range(17)])
                if relative and i > 0:
                    for j in range(1, 17):
                        logits[j] += q[i, mine] @ layer.pos_embed.table[i - j + 15] / math.sqrt(8)
                expected = logits.exp() / logits.exp().sum()
                torch.testing.assert_close(weights[0, head, i], expected)


def test_the_same_weights_attend_alike_in_our_model_and_in_timms() -> None:
    theirs = timms()
    mine = ours()
    mine.load_state_dict({{"pos_embed": "pos_embed.table"}.get(k, k): v for k, v in theirs.state_dict().items()})
    for a, b in zip(attention_weights(mine, images()), attention_weights(theirs, images()), strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
@pytest.mark.parametrize("make", [ours, partial(ours, pos_embed="relative"), timms], ids=["ours", "relative", "timm"])
def test_capturing_leaves_logits_and_model_as_they_were(make: Any) -> None:
    model = make()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = model(images())
    seen: list[Tensor] = []
    with model.register_forward_hook(lambda _, __, logits: seen.append(logits)):
        list(attention_weights(model, images()))
    assert before.abs().max() > 0.1
    assert len(seen) == 1
    assert torch.equal(seen[0], before)  # while captured
    assert torch.equal(model(images()), before)  # afterwards
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_captured_weights_carry_no_gradient() -> None:
    assert not any(w.requires_grad for w in attention_weights(ours(pos_embed="relative"), images()))
    assert not any(w.requires_grad for w in attention_weights(timms(qk_norm=True), images()))


def test_hooks_are_gone_when_the_model_refuses_the_images() -> None:
    model = ours()
    with pytest.raises(RuntimeError):
        list(attention_weights(model, images(size=20)))
    assert not any(module._forward_hooks for module in model.modules())


def test_tokens_before_the_patches_are_counted() -> None:
    found = {
        "cls": encoder(ours()), "gap": encoder(ours(pool="gap")), "timm": encoder(timms()),
        "registers": encoder(timms(reg_tokens=2)),
        "only registers": encoder(timms(reg_tokens=2, class_token=False, global_pool="avg")),
    }  # fmt: skip
    assert {name: (e.prefix, e.class_token) for name, e in found.items()} == {
        "cls": (1, True),
        "gap": (0, False),
        "timm": (1, True),
        "registers": (3, True),
        "only registers": (2, False),
    }


def test_attention_along_rows_and_columns_is_refused_and_not_taken_for_none() -> None:
    spec = ViTSpec(patch_size=4, embed_dim=16, depth=2, num_heads=2, pool="gap", attention="axial")
    with pytest.raises(UsageError, match="the attention of a ViT cannot be read"):
        encoder(vit.ViT(spec, image_size=16, channels=3, num_classes=10))


def test_attention_of_other_models_is_refused() -> None:
    from timm.models.vision_transformer import ParallelScalingBlock

    small = resnet(ResNetSpec(layers=(1,), block="basic", width=8), channels=3, num_classes=10)
    with pytest.raises(UsageError, match="the attention of a Sequential cannot be read"):
        next(attention_weights(small, images()))
    with pytest.raises(UsageError, match="with its plain self-attention"):
        encoder(timms(block_fn=ParallelScalingBlock))


# --- distance


def test_uniform_attention_reaches_half_the_image() -> None:
    assert uniform_distance(14, 16) == pytest.approx(116.5, abs=0.05)


@given(grid=st.integers(1, 5), patch_size=st.integers(1, 32))
def test_attention_to_itself_has_distance_zero(grid: int, patch_size: int) -> None:
    weights = torch.eye(grid**2).expand(2, 3, -1, -1)
    assert torch.equal(attention_distance(weights, grid, patch_size), torch.zeros(2, 3))


@given(grid=st.integers(1, 4), patch_size=st.integers(1, 32), seed=st.integers(0, 99))
def test_distance_is_a_weighted_mean_over_each_pair_of_patches(grid: int, patch_size: int, seed: int) -> None:
    N = grid**2
    weights = distributions(seed, 2, 3, N, N)
    expected = torch.zeros(2, 3)
    for i in range(N):
        for j in range(N):
            expected += weights[:, :, i, j] * patch_size * math.dist(divmod(i, grid), divmod(j, grid)) / N
    found = attention_distance(weights, grid, patch_size)
    torch.testing.assert_close(found, expected)
    assert (found <= patch_size * math.hypot(grid - 1, grid - 1) + 1e-4).all()


def test_attention_one_row_down_has_the_distance_of_a_patch() -> None:
    weights = torch.eye(16).roll(4, dims=1)  # from the last row back to the first, three rows away
    assert attention_distance(weights[None, None], 4, 16).item() == pytest.approx(16 * (12 * 1 + 4 * 3) / 16)


def test_weights_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="weights cover 10 patches, expected 3x3 = 9"):
        attention_distance(distributions(0, 1, 1, 10, 10), 3, 16)


@given(prefix=st.integers(0, 3), seed=st.integers(0, 99))
def test_attention_among_patches_is_that_of_a_softmax_without_the_other_tokens(prefix: int, seed: int) -> None:
    logits = torch.randn(2, 3, 9 + prefix, 9 + prefix, generator=torch.Generator().manual_seed(seed))
    found = among_patches(logits.log_softmax(-1), prefix)
    torch.testing.assert_close(found, logits[..., prefix:, prefix:].softmax(-1))
    if prefix:
        torch.testing.assert_close(of_class_token(logits.log_softmax(-1), prefix), logits[..., 0, prefix:].softmax(-1))


def test_patches_beside_a_token_that_takes_all_attention_still_sum_to_one() -> None:
    logits = torch.zeros(1, 1, 5, 5)
    logits[..., 0] = 1000.0  # whose weight is 1, and that of each patch 0 in float32
    logits[..., 1] = 1.0
    log_weights = logits.log_softmax(-1)
    assert log_weights.exp()[..., 1:].sum() == 0
    expected = torch.tensor([1.0, 0.0, 0.0, 0.0]).softmax(-1)
    torch.testing.assert_close(of_class_token(log_weights, 1)[0, 0], expected)
    torch.testing.assert_close(among_patches(log_weights, 1)[0, 0], expected.expand(4, 4))


# --- roll-out and entropy


@given(layers=st.integers(1, 4), seed=st.integers(0, 99))
def test_rows_of_a_rollout_sum_to_one(layers: int, seed: int) -> None:
    rollout = attention_rollout(distributions(seed, layers, 2, 3, 5, 5))
    assert rollout.shape == (2, 5, 5)
    assert (rollout >= 0).all()
    torch.testing.assert_close(rollout.sum(-1), torch.ones(2, 5))


def test_a_rollout_multiplies_the_layers_with_the_last_in_front() -> None:
    first, second = distributions(0, 2, 1, 3, 5, 5)
    a, b = ((w.mean(1)[0] + torch.eye(5)) / 2 for w in (first, second))
    torch.testing.assert_close(attention_rollout([first, second])[0], b @ a)
    assert not torch.allclose(attention_rollout([second, first])[0], b @ a)


def test_a_rollout_of_layers_that_attend_to_themselves_stays_where_it_is() -> None:
    stay = torch.eye(5).expand(1, 2, 5, 5)
    torch.testing.assert_close(attention_rollout([stay] * 3)[0], torch.eye(5))


def test_a_rollout_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        attention_rollout([])


def test_a_rollout_of_a_model_takes_its_weights_as_they_come() -> None:
    rollout = attention_rollout(attention_weights(ours(), images()))
    torch.testing.assert_close(rollout.sum(-1), torch.ones(2, 17))


@given(seed=st.integers(0, 99))
def test_entropy_is_scipys_and_between_none_and_that_of_uniform_attention(seed: int) -> None:
    from scipy.stats import entropy

    weights = distributions(seed, 2, 3, 16)
    found = attention_entropy(weights)
    torch.testing.assert_close(found, torch.from_numpy(entropy(weights.double().numpy(), axis=-1)).float())
    assert (found <= math.log(16)).all()
    assert attention_entropy(torch.eye(16)).abs().max() == 0
    assert attention_entropy(torch.full((16,), 1 / 16)).item() == pytest.approx(math.log(16))


# --- what distances say

RISING = torch.tensor([[0.1, 0.9], [0.2, 0.9], [0.5, 0.7], [0.6, 0.8], [0.8, 0.9], [0.8, 0.8]])


def test_the_lowest_third_of_layers_gives_the_extremes() -> None:
    assert attention.low_max(RISING) == pytest.approx(0.9)
    assert attention.low_min(RISING.flip(0)) == pytest.approx(0.8)
    assert attention.low_min(RISING) == pytest.approx(0.1)
    assert attention.low_min(RISING[1:3]) == pytest.approx(0.2)  # one layer of two


def test_layers_whose_mean_distance_grows_correlate_with_depth() -> None:
    from scipy.stats import spearmanr

    assert attention.depth_correlation(torch.tensor([[0.1, 0.2], [0.4, 0.2], [0.1, 0.9]])) == pytest.approx(1)
    assert attention.depth_correlation(torch.tensor([[0.5], [0.4], [0.1]])) == pytest.approx(-1)
    expected = spearmanr(range(6), RISING.mean(1).numpy()).statistic
    assert attention.depth_correlation(RISING) == pytest.approx(expected)
    assert expected < 1


def test_spread_is_between_the_heads_of_one_layer() -> None:
    steady = torch.tensor([[0.1, 0.1], [0.9, 0.9], [0.5, 0.5], [0.5, 0.5]])  # layers differ, heads do not
    assert attention.low_spread_excess(steady) == pytest.approx(0)
    first, second = ([0.8, 0.7, 0.2], [0.2, 0.1, 0.0])  # differences of two heads; sd is 1/sqrt 2 of them
    assert attention.low_spread_excess(RISING) == pytest.approx((sum(first) - sum(second)) / 3 / math.sqrt(2))
    assert attention.low_spread_excess(RISING.flip(0)) == pytest.approx((sum(second) - sum(first)) / 3 / math.sqrt(2))


def test_the_middle_layer_of_an_odd_number_is_in_neither_half() -> None:
    distance = torch.tensor([[0.1, 0.3], [0.0, 9.0], [0.8, 0.8]])
    assert attention.low_spread_excess(distance) == pytest.approx(0.2 / math.sqrt(2))
    assert attention.wide_share_second_half(distance) == 1


def test_wide_heads_are_counted_in_the_second_half() -> None:
    assert attention.wide_share_second_half(torch.tensor([[1.0, 1.0], [0.71, 0.69]])) == 0.5
    assert attention.wide_share_second_half(torch.tensor([[0.0, 0.0], [1.0, 1.3]])) == 1
    assert attention.wide_share_second_half(torch.tensor([[1.0, 1.0], [0.0, 0.1]])) == 0


@pytest.mark.parametrize("measure", ["depth_correlation", "low_spread_excess", "wide_share_second_half"])
def test_a_single_layer_has_nothing_to_compare(measure: str) -> None:
    with pytest.raises(UsageError, match=f"attention_{measure} compares layers, this model has one"):
        getattr(attention, measure)(RISING[:1])


def test_a_single_head_has_no_spread() -> None:
    with pytest.raises(UsageError, match="compares the heads of a layer"):
        attention.low_spread_excess(RISING[:, :1])
