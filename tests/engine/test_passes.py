"""Passes of a training step, as far as a CPU can show: their sums, and what compiling and recording leave behind."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrepro import passes as recording
from vitrepro.models.build import build
from vitrepro.models.vit import Block
from vitrepro.passes import Passes
from vitrepro.recipe import Recipe

VIT = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
RESNET = {"family": "resnet", "layers": [1], "block": "basic", "width": 8, "stem": "small"}


def model(of: Any = VIT) -> nn.Module:
    spec = Recipe.model_validate(
        {"data": {"name": "digits"}, "model": of, "train": {"steps": 1, "batch_size": 4, "lr": 1e-3}}
    )
    torch.manual_seed(0)
    return build(spec.model, image_size=8, channels=1, num_classes=10)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8)


def test_a_pass_gives_logits_loss_and_gradients_of_the_cross_entropy() -> None:
    net, (x, y) = model(), batch()
    expected = F.cross_entropy(net(x), y, label_smoothing=0.1)
    grads = torch.autograd.grad(expected, list(net.parameters()))
    logits, loss = Passes(net, device="cpu", precision="fp32", label_smoothing=0.1)(x, y)
    assert loss == expected
    assert torch.equal(logits, net(x))
    assert not logits.requires_grad
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads, strict=True) if p.grad is not None)
    assert all(p.grad is not None for p in net.parameters())


def test_passes_of_parts_add_up_to_those_of_the_whole() -> None:
    net, (x, y) = model(), batch()
    passes = Passes(net, device="cpu", precision="fp32")
    passes(x, y)
    whole = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    passes.clear()
    assert all(p.grad is None for p in net.parameters())
    for part in (slice(0, 2), slice(2, 8)):
        passes(x[part], y[part], len(x[part]) / 8)
    torch.testing.assert_close([p.grad for p in net.parameters()], whole, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("of", "parts"), [(VIT, 4), (RESNET, 1)], ids=["layers", "whole"])
def test_compiling_is_of_the_layers_or_of_the_whole_and_is_undone(
    of: Any, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda call: made.append(call) or (lambda *a: call(*a)))
    net, (x, y) = model(of), batch()
    passes = Passes(net, device="cpu", precision="fp32")
    _, before = passes(x, y)
    passes.compile()
    assert len(made) == parts
    assert passes(x, y)[1] == pytest.approx(float(before))
    assert passes.compile_seconds is None  # nothing was recorded, so nothing was compiled yet
    passes.release()
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    assert not any({"forward", "of_first_token"} & set(vars(block)) for block in blocks)


def test_what_cannot_be_recorded_stays_as_it_is_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (x, y) = model(RESNET), batch()
    passes = Passes(net, device="cpu", precision="fp32")

    def fails(call: Any, *_: Any) -> None:
        call(x, y, 1.0)  # as it warms up
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recording, "_Recorded", fails)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    before = {name: value.clone() for name, value in net.named_buffers()}
    passes.record(x, y)
    assert not passes.recorded
    assert passes.refusal == "operation not permitted when stream is capturing"
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())  # batch norm's too


def test_a_lack_of_memory_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(recording, "_Recorded", fails)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    with pytest.raises(torch.OutOfMemoryError):
        Passes(model(), device="cpu", precision="fp32").record(*batch())
