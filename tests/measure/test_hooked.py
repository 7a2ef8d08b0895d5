from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrepro.errors import UsageError
from vitrepro.measure.hooked import MB, StepwiseViT, Summary, summarise
from vitrepro.models.vit import ViT
from vitrepro.recipe import HybridStem, ViTSpec

SMALL: dict[str, Any] = {"patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3}
SHAPE: dict[str, int] = {"image_size": 16, "channels": 3, "num_classes": 10}
ATTEMPT: dict[str, Any] = {"qkv_bias": False, "attention_norm": "unused", "final_norm": False}


def summary(model: type[nn.Module], shape: dict[str, int] | None = None, **fields: Any) -> Summary:
    shape = shape or SHAPE
    with torch.device("meta"):
        built = model(ViTSpec(**fields), **shape).eval()
        image = torch.empty(1, shape["channels"], shape["image_size"], shape["image_size"])
    return summarise(built, image)


def test_the_summary_of_the_attempt_is_the_printed_one() -> None:
    shape = {"image_size": 224, "channels": 3, "num_classes": 10}
    found = summary(StepwiseViT, shape, variant="B/16", **ATTEMPT)
    assert found.parameters == 85_606_666
    sizes = (found.input_mb(32), found.activation_mb(32), found.parameter_mb, found.total_mb(32))
    assert [f"{mb:.2f}" for mb in sizes] == ["18.38", "11336.94", "326.56", "11681.88"]


def test_a_convolutional_network_is_counted_by_hand() -> None:
    """What torchsummary 1.5.1 prints for it: convolution, ReLU, pool, flatten and two dense layers."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Sequential(nn.Linear(8 * 8 * 8, 20), nn.Linear(20, 10, bias=False)),
    )  # fmt: skip
    found = summarise(model, torch.zeros(1, 3, 16, 16))
    outputs = 8 * 16 * 16 * 2 + 8 * 8 * 8 * 2 + 20 + 10
    assert found == Summary((27 * 8 + 8) + (512 * 20 + 20) + 200, 3 * 16 * 16, outputs)
    assert found.total_mb(5) == pytest.approx((found.parameters + 5 * (768 + 2 * outputs)) * 4 / MB)


class Odd(nn.Module):
    """A layer that is called twice, one that never is, and a parameter of none."""

    def __init__(self, returned: type[Any] = Tensor) -> None:
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.never = nn.Linear(4, 4)
        self.table = nn.Parameter(torch.zeros(4))
        self.returned = returned
        self.inner: nn.Module | None = None if returned is Tensor else Odd()

    def forward(self, x: Tensor) -> Any:
        if self.inner is not None:
            return self.returned([x])
        return self.twice(self.twice(x)) + self.table


def test_modules_count_as_often_as_they_are_called() -> None:
    found = summarise(Odd(), torch.zeros(1, 4))
    assert (found.parameters, found.outputs) == (2 * 20, 2 * 4)


def test_a_module_that_returns_several_tensors_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot size what Odd returns, a tuple"):
        summarise(nn.Sequential(Odd(tuple)), torch.zeros(1, 4))


def test_what_the_whole_model_returns_is_not_looked_at() -> None:
    assert summarise(Odd(dict_of), torch.zeros(1, 4)).outputs == 0


def dict_of(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {"logits": tensors[0]}


def test_nothing_stays_hooked() -> None:
    model = Odd()
    summarise(model, torch.zeros(1, 4))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    "fields", [{}, {"qkv_bias": False}, {"attention_norm": "unused"}, {"final_norm": False}, ATTEMPT]
)
def test_the_stepwise_model_has_the_parameters_of_ours_and_calls_the_same(fields: dict[str, Any]) -> None:
    assert summary(StepwiseViT, **SMALL, **fields).parameters == summary(ViT, **SMALL, **fields).parameters
    total = [sum(p.numel() for p in m(ViTSpec(**SMALL, **fields), **SHAPE).parameters()) for m in (StepwiseViT, ViT)]
    assert total[0] == total[1]


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [{}, ATTEMPT, {"attention_scale": "inverted", "layer_norm_eps": 1e-2}],
    ids=["paper", "attempt", "scale and epsilon"],
)
def test_the_stepwise_model_computes_what_ours_does(fields: dict[str, Any]) -> None:
    torch.manual_seed(0)
    spec = ViTSpec(**SMALL, **fields)
    ours, stepwise = ViT(spec, **SHAPE).double().eval(), StepwiseViT(spec, **SHAPE).double().eval()
    for parameter in ours.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    weights: dict[str, Tensor] = {}
    for name, tensor in ours.state_dict().items():
        if ".qkv." in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                weights[name.replace("attn.qkv", part)] = third
        else:
            weights[name] = tensor

    def renamed(name: str) -> str:
        for old, new in (
            ("patch_embed.proj", "embedding.patches.proj"), ("cls_token", "embedding.cls_token"),
            ("pos_embed.table", "embedding.pos_embed"), ("blocks.", "encoder.layers."),
            ("norm1", "0.norm"), ("norm2", "1.norm"), ("attn.proj", "0.proj"), ("mlp.fc1", "1.net.0"),
            ("mlp.fc2", "1.net.3"), ("query", "0.query"), ("key", "0.key"), ("value", "0.value"),
        ):  # fmt: skip
            name = name.replace(old, new)
        return name

    stepwise.load_state_dict({renamed(k): v for k, v in weights.items()})
    images = torch.randn(2, 3, 16, 16).double()
    expected = ours(images)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(stepwise(images), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"pool": "gap"},
        {"pos_embed": "learned_2d"},
        {"pool": "gap", "attention": "axial"},
        {"attention": "batch"},
        {"pool": "first"},
        {"norm": "post"},
        {"activation": "relu"},
        {"hybrid": HybridStem(layers=(1,), width=32)},
    ],
)
def test_trees_that_nobody_printed_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"this one has another {next(iter(fields))}"):
        StepwiseViT(ViTSpec(**{**SMALL, "patch_size": 2, **fields}), **SHAPE)
