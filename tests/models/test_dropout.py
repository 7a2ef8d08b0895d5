"""Dropout of 16 random bits an element is dropout."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from vitrepro.engine import choose, configure
from vitrepro.models.build import build
from vitrepro.models.dropout import Dropout, mask
from vitrepro.models.vit import Attention, attend
from vitrepro.recipe import Recipe, ViTSpec


def short(p: float) -> Dropout:
    drop = Dropout(p)
    drop.sixteen_bits = True
    return drop


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_elements_are_zeroed_at_the_rate_and_the_others_enlarged(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1_000_001, dtype=dtype)  # not a multiple of four
    y = short(p)(x)
    zeros = int((y == 0).sum())
    assert stats.binomtest(zeros, y.numel(), round(65536 * p) / 65536).pvalue > 1e-3
    kept = torch.tensor(65536 / (65536 - round(65536 * p)), dtype=dtype)
    assert torch.equal(y[y != 0].unique(), kept[None])
    assert kept.float() == pytest.approx(1 / (1 - p), rel=1e-4 if dtype == torch.float32 else 4e-3)


def test_elements_that_share_a_word_are_zeroed_independently() -> None:
    torch.manual_seed(1)
    zero = (mask(torch.empty(400_000), 0.1) == 0).view(-1, 4).long()
    pattern = (zero * torch.tensor([1, 2, 4, 8])).sum(1)
    seen = torch.bincount(pattern, minlength=16).numpy()
    rate = 6554 / 65536
    expected = [len(pattern) * rate ** bin(k).count("1") * (1 - rate) ** (4 - bin(k).count("1")) for k in range(16)]
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_gradients_pass_where_elements_do() -> None:
    x = torch.randn(8, 16, requires_grad=True)
    y = short(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 2.0))
    assert 0 < int((y == 0).sum()) < y.numel()


def test_masks_are_of_the_seed_and_new_at_every_call() -> None:
    drop, x = short(0.3), torch.ones(64, 64)
    torch.manual_seed(3)
    first, second = drop(x), drop(x)
    torch.manual_seed(3)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("p", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_rates_at_the_ends_are_exact(p: float, expected: float) -> None:
    assert torch.equal(short(p)(torch.ones(100)), torch.full((100,), expected))


def test_evaluation_drops_nothing() -> None:
    x = torch.randn(10, 10)
    assert torch.equal(short(0.5).eval()(x), x)


@pytest.mark.parametrize(
    ("engine", "device", "expected"), [("fast", "cpu", True), ("plain", "cpu", False), ("fast", "cuda", False)]
)
def test_the_fast_engine_draws_short_masks_on_a_cpu(engine: str, device: str, expected: bool) -> None:
    recipe = Recipe.model_validate(
        {
            "data": {"name": "digits"},
            "model": {"family": "vit", "patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.1},
            "train": {"steps": 2, "batch_size": 8, "lr": 1e-3, "engine": engine},
        }
    )
    chosen = choose(recipe, device, "bf16")
    model = configure(build(recipe.model, image_size=8, channels=1, num_classes=10), chosen)
    drops = [module for module in model.modules() if isinstance(module, Dropout)]
    assert len(drops) == 3
    assert {module.sixteen_bits for module in drops} == {expected}
    assert ("dropout" in chosen.told) == expected


# --- of attention weights


@torch.no_grad()
@pytest.mark.parametrize("kernel", ["fused", "products", "products and short masks"])
@pytest.mark.parametrize("always", [False, True])
def test_attention_weights_are_dropped_at_the_rate_and_the_others_enlarged(kernel: str, always: bool) -> None:
    torch.manual_seed(0)
    tokens, p = 64, 0.3
    q, k = torch.randn(2, 5, 8, tokens, tokens)
    values = torch.eye(tokens).expand(5, 8, tokens, tokens)  # so that what comes out are the weights
    drop = short(p) if "short" in kernel else Dropout(p)
    drop.in_evaluation = always
    whole = attend(q, k, values, fused=False)
    dropped = attend(q, k, values, fused=kernel == "fused", drop=drop)
    left = dropped != 0
    assert stats.binomtest(int((~left).sum()), left.numel(), p).pvalue > 1e-3
    torch.testing.assert_close(dropped[left], whole[left] / (1 - p), rtol=1e-4, atol=1e-6)
    drop.eval()
    again = attend(q, k, values, fused=kernel == "fused", drop=drop)
    assert bool((again == 0).any()) == always


@pytest.mark.parametrize("always", [False, True])
def test_attention_dropout_acts_in_training_and_where_it_is_asked_for_in_evaluation(always: bool) -> None:
    spec = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "attention_dropout": 0.5}
    attention = Attention(ViTSpec.model_validate({**spec, "attention_dropout_in_evaluation": always}), None)
    without = Attention(ViTSpec.model_validate({**spec, "attention_dropout": 0.0}), None)
    without.load_state_dict(attention.state_dict())
    x = torch.randn(3, 17, 16)

    def said(seed: int, of: Attention = attention) -> torch.Tensor:
        torch.manual_seed(seed)
        return of(x)

    assert not torch.equal(said(0), said(1))
    assert torch.equal(said(0), said(0))
    attention.eval()
    assert torch.equal(said(0), said(0))
    with torch.no_grad():  # by the kernel of evaluation
        assert torch.equal(said(0), said(0))
        assert torch.equal(said(0), said(1)) != always
        assert torch.equal(said(0), said(0, without.eval())) != always
