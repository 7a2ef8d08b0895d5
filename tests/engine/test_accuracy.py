"""Evaluation: integer counts over the whole split, each image once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitrepro.distributed import gather_by_position
from vitrepro.measure.accuracy import predict
from vitrepro.models.build import build
from vitrepro.recipe import AugmentSpec, ViTSpec

torch.set_num_threads(1)

N = 331  # a prime: no batch size or number of processes divides it


def model_and_images() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    spec = ViTSpec(patch_size=4, embed_dim=32, depth=2, num_heads=2)
    model = build(spec, image_size=16, channels=3, num_classes=10)
    nn.init.normal_(model.get_parameter("head.weight"))
    return model, torch.randint(0, 256, (N, 3, 16, 16), dtype=torch.uint8)


def answers(batch_size: int) -> np.ndarray:
    model, images = model_and_images()
    return predict(model, images, AugmentSpec(), image_size=16, device="cpu", precision="fp32", batch_size=batch_size)


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/meet", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    np.save(f"{folder}/{rank}.npy", answers(64))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_predictions_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    assert len(np.unique(answers(N))) > 3  # the model says different things of different images
    np.testing.assert_array_equal(answers(batch_size), answers(N))


def test_two_processes_predict_what_one_does_and_both_hold_the_whole(tmp_path: Path) -> None:
    import torch.multiprocessing as mp

    mp.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        np.testing.assert_array_equal(np.load(tmp_path / f"{rank}.npy"), answers(64))


def test_evaluation_uses_the_model_without_dropout_and_leaves_its_weights_alone() -> None:
    torch.manual_seed(0)
    spec = ViTSpec(patch_size=4, embed_dim=32, depth=1, num_heads=2, dropout=0.5)
    model = build(spec, image_size=16, channels=3, num_classes=10)
    nn.init.normal_(model.get_parameter("head.weight"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    options = {"image_size": 16, "device": "cpu", "precision": "fp32"}
    first = predict(model, images, AugmentSpec(), **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, predict(model, images, AugmentSpec(), **options))  # type: ignore[arg-type]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("positions", [[0, 1, 1], [0, 1], [0, 1, 3], [0, 1, 2, 2]])
def test_an_image_missing_or_counted_twice_is_no_evaluation(positions: list[int]) -> None:
    where = np.array(positions)
    with pytest.raises(ValueError, match="for 3 images"):
        gather_by_position(where, np.zeros_like(where), 3)
