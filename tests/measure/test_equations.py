"""Each step of the paper's equations against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrepro.measure import equations

T, D, H = 7, 12, 3


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_patches_are_cut_in_raster_order() -> None:
    image = random(3, 12, 12)
    assert torch.equal(torch.stack(equations.patches(image, 4)), F.unfold(image[None], 4, stride=4)[0].t())


def test_attention_is_that_of_torch() -> None:
    theirs = torch.nn.MultiheadAttention(D, H, batch_first=True, dtype=torch.float64)
    torch.nn.init.normal_(theirs.in_proj_bias)
    torch.nn.init.normal_(theirs.out_proj.bias)
    layer = {
        "attn.qkv.weight": theirs.in_proj_weight,
        "attn.qkv.bias": theirs.in_proj_bias,
        "attn.proj.weight": theirs.out_proj.weight,
        "attn.proj.bias": theirs.out_proj.bias,
    }
    z = random(T, D)
    torch.testing.assert_close(equations.msa(layer, z, H), theirs(z, z, z)[0])


def test_the_mlp_has_an_exact_gelu() -> None:
    fc1, fc2 = torch.nn.Linear(D, 20).double(), torch.nn.Linear(20, D).double()
    layer = {f"mlp.{n}.{k}": p for n, fc in (("fc1", fc1), ("fc2", fc2)) for k, p in fc.named_parameters()}
    z = random(T, D)
    torch.testing.assert_close(equations.mlp(layer, z), fc2(F.gelu(fc1(z))), atol=1e-12, rtol=0)


def test_the_norm_is_that_of_torch() -> None:
    z, weight, bias = random(T, D), random(D), random(D)
    torch.testing.assert_close(equations.layer_norm(z, weight, bias), F.layer_norm(z, (D,), weight, bias, 1e-6))


def test_a_softmax_of_large_numbers_is_finite() -> None:
    logits = 1e4 * random(T, T)
    torch.testing.assert_close(equations.softmax(logits), logits.softmax(-1))
