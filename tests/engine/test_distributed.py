"""Devices and arithmetic of this process."""

from __future__ import annotations

import pytest
import torch

from vitrepro import provenance
from vitrepro.distributed import devices, resolve_precision
from vitrepro.errors import UsageError
from vitrepro.launch import slots


def test_the_cpu_has_a_slot_per_usable_core_and_threads_are_never_promised_twice() -> None:
    assert devices("cpu") == ("cpu",) * provenance.cores()
    for wanted in ("cpu", "cpu:1", "cpu:3"):
        shares = slots(devices(wanted))
        assert sum(s.threads for s in shares) <= max(provenance.cores(), len(shares))
        assert all(s.threads >= 1 for s in shares)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("gpu", "'gpu' is no device"),
        ("cpu:0", "from 1 to 1024"),
        ("cpu:x", "from 1 to 1024"),
        ("cuda:99", "is not visible"),
        ("cuda:", "is no device"),
        ("cpu,cuda:0", "'cpu' is no device"),
        ("", "is no device"),
    ],
)
def test_a_device_that_is_not_here_is_refused_with_those_that_are(wanted: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        devices(wanted)
    assert "cpu" in str(caught.value)


def test_every_visible_cuda_device_is_used_and_numbers_must_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices("auto") == ("cuda:0", "cuda:1", "cuda:2") == devices("cuda")
    assert devices("cuda:2,cuda:0") == ("cuda:2", "cuda:0")
    with pytest.raises(UsageError, match="stands twice"):
        devices("cuda:1,cuda:1")


def test_auto_precision_is_what_the_hardware_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrepro.distributed._cpu_multiplies_bf16", lambda: True)
    assert resolve_precision("auto", ["cpu"]) == "bf16"
    monkeypatch.setattr("vitrepro.distributed._cpu_multiplies_bf16", lambda: False)
    assert resolve_precision("auto", ["cpu"]) == "fp32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: (9, 0) if d == "cuda:0" else (7, 5))
    assert resolve_precision("auto", ["cuda:0"]) == "bf16"
    assert resolve_precision("auto", ["cuda:0", "cuda:1"]) == "fp16"  # the weakest decides
    assert resolve_precision("fp32", ["cuda:0"]) == "fp32"
    with pytest.raises(UsageError, match="needs a CUDA device"):
        resolve_precision("fp16", ["cpu"])


def test_a_gpu_that_this_torch_cannot_use_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # NVML sees it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # its driver is too old
    assert set(devices("auto")) == {"cpu"}
