"""What the tests share: a cache of their own, tiny experiments, and real data where it is at hand."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import hypothesis
import pytest

# the same examples every time; HYPOTHESIS_PROFILE=explore looks for new ones
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

TINY_EXPERIMENT = """
id: tiny
type: train
title: two tiny models on digits
base:
  data: {name: digits, train_images: 200}
  train: {steps: 12, batch_size: 32, lr: 2e-3, precision: fp32}
factors:
  model:
    resnet: {model: {family: resnet, layers: [1, 1], block: basic, width: 8, stem: small}}
    vit: {model: {family: vit, patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2, dropout: 0.1}}
seeds: [0, 1, 2]
"""
DIVERGING_EXPERIMENT = """
id: diverging
type: train
title: one arm that cannot be trained, one that can
base:
  data: {name: digits, train_images: 200}
  train: {steps: 12, batch_size: 32, precision: fp32, optimizer: sgd}
  model: {family: vit, patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}
factors:
  lr:
    sound: {train: {lr: 1e-3}}
    absurd: {train: {lr: 1e+30}}
seeds: [0]
"""
TINY_CLAIMS = """
claims:
  - id: tiny/ordering
    source: {paper: none, where: tests}
    kind: ordering
    statement: The ResNet is better.
    scales:
      quick:
        experiment: tiny
        fidelity: proxy
        deviations: [it is tiny]
        expect: {all: [{greater: resnet, than: vit, by: 0}]}
  - id: tiny/value
    source: {paper: none, where: tests}
    kind: value
    statement: The ResNet reaches 45%.
    reported: {unit: percent, cells: {resnet: {value: 45, sd: 0.1, runs: 3}}}
    scales:
      quick: {experiment: tiny, fidelity: exact, expect: {cells: {resnet: {arm: resnet, margin: 17}}}}
  - id: tiny/diverging
    source: {paper: none, where: tests}
    kind: ordering
    statement: The absurd learning rate is worse.
    scales:
      quick:
        experiment: diverging
        fidelity: proxy
        deviations: [it is tiny]
        expect: {all: [{greater: sound, than: absurd}]}
  - id: tiny/cifar
    source: {paper: none, where: tests}
    kind: ordering
    statement: Needs data that is not there.
    scales:
      quick:
        experiment: tiny-cifar
        fidelity: proxy
        deviations: [it is tiny]
        expect: {all: [{greater: resnet, than: vit}]}
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need time, data or a GPU skip themselves, with the reason."""
    reasons = {}
    if "slow" not in config.getoption("-m"):
        reasons["slow"] = "takes more than ten seconds; run with -m slow"
    data = os.environ.get("VITREPRO_DATA")
    if not data or not (Path(data) / "cifar10").is_dir():
        reasons["data"] = "VITREPRO_DATA names no folder with cifar10/*.parquet"
    if any("gpu" in item.keywords for item in items):
        import torch

        if not torch.cuda.is_available():
            reasons["gpu"] = "no CUDA device"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """What is loaded stays: each full garbage collection in a test would look at all of it, for a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the caches, stores or settings of the person who runs it."""
    os.environ["VITREPRO_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    for name in ("VITREPRO_STORE", "NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)


@pytest.fixture
def tiny_claims(tmp_path: Path) -> Path:
    """A claims directory with experiments of a second."""
    folder = tmp_path / "claims"
    (folder / "experiments").mkdir(parents=True)
    (folder / "tiny.yaml").write_text(TINY_CLAIMS)
    (folder / "experiments" / "tiny.yaml").write_text(TINY_EXPERIMENT)
    (folder / "experiments" / "diverging.yaml").write_text(DIVERGING_EXPERIMENT)
    cifar = TINY_EXPERIMENT.replace("id: tiny", "id: tiny-cifar").replace("digits", "cifar10")
    (folder / "experiments" / "tiny-cifar.yaml").write_text(cifar)
    return folder
