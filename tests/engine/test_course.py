"""What training comes to epoch by epoch, and which epoch is kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrepro import checkpoint
from vitrepro.data.augment import normalize
from vitrepro.data.batches import batch_indices
from vitrepro.measure import accuracy
from vitrepro.models.build import build
from vitrepro.randomness import derive
from vitrepro.recipe import AugmentSpec, Recipe
from vitrepro.train import Stopped, Trained, train

torch.set_num_threads(1)

N, BATCH = 50, 16
ENDS = (3, 6, 9, 12)  # of epochs of 3.125 steps
VIT = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
RESNET = {"family": "resnet", "layers": [1], "block": "basic", "width": 8, "stem": "small"}


def recipe(model: Any = VIT, measures: Any = (), **changes: Any) -> Recipe:
    length = {"epochs": 4, "batch_size": BATCH, "lr": 1e-2, "optimizer": "sgd", "schedule": "constant", **changes}
    data = {"name": "digits", "train_images": N} | ({"dev_fraction": 0.5} if "dev" in str(changes) else {})
    if "dev_fraction" in data:
        data["train_images"] = 2 * N
    return Recipe.model_validate({"data": data, "model": model, "train": length, "measures": measures})


def images(n: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 10
    pictures = torch.randint(0, 100, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return pictures + (labels * 12).to(torch.uint8)[:, None, None, None], labels


def counting(r: Recipe, seen: list[str] | None = None) -> Any:
    """Right answers on the images of each split, as a run counts them; notes the weights that it was shown."""

    def count(model: nn.Module) -> Mapping[str, int]:
        found = {}
        for seed, split in enumerate(r.train.evaluate_epochs, 1):
            x, y = images(40, seed)
            said = accuracy.predict(model, x, AugmentSpec(), image_size=8, device="cpu", precision="fp32")
            found |= {f"{split}_correct": int((said == y.numpy()).sum()), f"{split}_n": 40}
        if seen is not None:
            seen.append(weights(model))
        return found

    return count


def fit(r: Recipe, folder: Path, **options: Any) -> tuple[nn.Module, Trained]:
    torch.manual_seed(derive(0, "weights"))
    model = build(r.model, image_size=8, channels=1, num_classes=10)
    x, y = images()
    folder.mkdir(exist_ok=True)
    options = {"count": counting(r), **options}
    return model, train(model, x, y, r, seed=0, device="cpu", precision="fp32", folder=folder, **options)


def weights(model: nn.Module) -> str:
    return checkpoint.weights_sha256(model.state_dict())


def resumed(r: Recipe, folder: Path, stop_at: int) -> tuple[nn.Module, Trained]:
    """Stopped after so many steps, and gone on with."""
    calls = itertools.count(1)
    with pytest.raises(Stopped):
        fit(r, folder, should_stop=lambda: next(calls) >= stop_at)
    return fit(r, folder)


def by_hand(r: Recipe) -> tuple[list[list[float]], list[float]]:
    """Losses by epoch and gradient norms, of a loop that knows of nothing but torch; plain SGD with momentum."""
    torch.manual_seed(derive(0, "weights"))
    model = build(r.model, image_size=8, channels=1, num_classes=10).train()
    x, y = images()
    optimizer = torch.optim.SGD(model.parameters(), lr=r.train.lr or 0.0, momentum=r.train.momentum)
    losses: list[list[float]] = []
    norms = []
    for step in range(ENDS[-1]):
        where = torch.from_numpy(batch_indices(N, BATCH, 0, step))
        loss = F.cross_entropy(model(normalize(x[where], AugmentSpec(), 8)), y[where])
        optimizer.zero_grad()
        loss.backward()
        norms.append(math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters())))  # type: ignore[union-attr]
        optimizer.step()
        losses += [[]] if step in (0, *ENDS) else []
        losses[-1].append(loss.item())
    return losses, norms


# --- losses and norms


def test_the_loss_of_each_epoch_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    _, done = fit(recipe(), tmp_path)
    losses, _ = by_hand(recipe())
    assert [(p.epoch, p.steps) for p in done.epochs] == list(enumerate(ENDS, 1))
    for point, of_epoch in zip(done.epochs, losses, strict=True):
        assert point.train_loss_sum == pytest.approx(sum(of_epoch), rel=1e-5)
        assert point.train_loss == pytest.approx(np.mean(of_epoch), rel=1e-5)
        assert (point.dev_n, point.test_n, point.dev_correct, point.test_correct) == (None,) * 4


def test_accumulated_micro_batches_have_the_loss_of_the_whole_batch(tmp_path: Path) -> None:
    _, whole = fit(recipe(), tmp_path / "a")
    _, parts = fit(recipe(micro_batch=4), tmp_path / "b")
    assert [p.train_loss_sum for p in parts.epochs] == pytest.approx([p.train_loss_sum for p in whole.epochs], rel=1e-4)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_gradient_norms_are_those_before_clipping(tmp_path: Path, clip: float | None) -> None:
    _, done = fit(recipe(measures=["gradient_norm_spread"], clip_norm=clip), tmp_path)
    assert len(done.gradient_norms) == ENDS[-1]
    norms = by_hand(recipe())[1]
    assert min(norms) > 0.5  # or nothing would have been clipped
    shown = 1 if clip else ENDS[-1]  # after a clipped step the weights are others
    assert done.gradient_norms[:shown] == pytest.approx(norms[:shown], rel=1e-4)


def test_no_more_than_a_hundred_gradient_norms_are_kept_and_none_unasked(tmp_path: Path) -> None:
    _, done = fit(recipe(epochs=35, measures=["gradient_norm_spread"]), tmp_path / "a")
    assert (done.steps, len(done.gradient_norms)) == (109, 100)
    assert fit(recipe(), tmp_path / "b")[1].gradient_norms == ()


def test_steps_are_counted_whose_gradient_was_clipped_and_finite(tmp_path: Path) -> None:
    norms = sorted(by_hand(recipe())[1])
    clip = (norms[4] + norms[5]) / 2
    r = recipe(measures=["gradient_norm_spread", "clipped_share"], clip_norm=clip)
    _, done = fit(r, tmp_path / "a")
    assert done.clipped_steps == sum(norm > clip for norm in done.gradient_norms)
    assert 0 < done.clipped_steps < ENDS[-1]
    assert fit(recipe(clip_norm=clip), tmp_path / "b")[1].clipped_steps == 0  # unasked


def test_where_steps_are_given_there_are_no_epochs(tmp_path: Path) -> None:
    assert fit(recipe(epochs=None, steps=9), tmp_path)[1].epochs == ()


# --- kills


EVERYTHING = {
    "evaluate_epochs": ["dev", "test"],
    "keep": "best-on-dev",
    "measures": ["gradient_norm_spread", "clipped_share"],
    "optimizer": "adamw",
    "clip_norm": 1.0,
}


@pytest.mark.parametrize("stop_at", range(1, 12))
def test_a_stopped_run_comes_to_what_an_uninterrupted_one_does(tmp_path: Path, stop_at: int) -> None:
    r = recipe(**EVERYTHING)
    model, whole = fit(r, tmp_path / "whole")
    again, parts = resumed(r, tmp_path / "parts", stop_at)
    assert parts.resumed_at == (stop_at,)
    assert (parts.epochs, parts.kept_epoch, parts.gradient_norms, parts.clipped_steps) == (
        whole.epochs,
        whole.kept_epoch,
        whole.gradient_norms,
        whole.clipped_steps,
    )
    assert len(whole.epochs) == 4
    assert weights(again) == weights(model)


def test_a_run_killed_after_its_last_step_still_knows_its_best_epoch(tmp_path: Path) -> None:
    r = recipe(**EVERYTHING)
    model, whole = fit(r, tmp_path, checkpoint_seconds=0.0)
    again, done = fit(r, tmp_path)
    assert done.resumed_at == (12,)
    assert (weights(again), done.epochs, done.kept_epoch) == (weights(model), whole.epochs, whole.kept_epoch)


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with_and_tells_no_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = fit(recipe(), tmp_path / "whole")
    load = checkpoint.load_newest

    def without(*args: Any) -> Any:
        state = load(*args)
        return state and {key: value for key, value in state.items() if key != "course"}

    monkeypatch.setattr(checkpoint, "load_newest", without)
    model, done = resumed(recipe(), tmp_path / "parts", 5)
    assert (weights(model), done.epochs) == (weights(whole), ())


# --- evaluating leaves no trace


@pytest.mark.parametrize(
    ("model", "train"),
    [
        *(({**VIT, "dropout": 0.2, "pos_embed": p, "pool": "gap"}, {}) for p in ("none", "learned_2d", "relative")),
        ({**VIT, "dropout": 0.2}, {"optimizer": "adamw", "polyak": 0.9}),
        ({**VIT, "attention_dropout": 0.2, "attention_dropout_in_evaluation": True}, {}),
        (RESNET, {}),
        (RESNET, {"polyak": 0.9}),
    ],
)
def test_evaluating_after_each_epoch_changes_no_weight(tmp_path: Path, model: Any, train: Any) -> None:
    plain, _ = fit(recipe(model, **train), tmp_path / "a")
    seen: list[str] = []
    r = recipe(model, evaluate_epochs=["test"], **train)
    looked, done = fit(r, tmp_path / "b", count=counting(r, seen))
    assert weights(looked) == weights(plain) == seen[-1]  # what was evaluated last is what the run ends with
    assert len(set(seen)) == 4
    assert [p.test_n for p in done.epochs] == [40] * 4
    assert any(m.training for m in looked.modules())


# --- which epoch is kept


@pytest.mark.parametrize("polyak", [None, 0.5])
@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_first_of_the_best_epochs_is_kept(tmp_path: Path, split: str, polyak: float | None) -> None:
    right = {"dev": [3, 9, 9, 4], "test": [5, 2, 7, 7]}
    seen: list[str] = []

    def count(model: nn.Module) -> dict[str, int]:
        seen.append(weights(model))
        now = len(seen) - 1
        return {"dev_correct": right["dev"][now], "dev_n": 10, "test_correct": right["test"][now], "test_n": 10}

    r = recipe(evaluate_epochs=["dev", "test"], keep=f"best-on-{split}", polyak=polyak)
    model, done = fit(r, tmp_path, count=count)
    first = right[split].index(max(right[split]))
    assert done.kept_epoch == first + 1
    assert weights(model) == seen[first]
    assert len(set(seen)) == 4


def test_the_last_epoch_is_kept_unless_asked(tmp_path: Path) -> None:
    r = recipe(evaluate_epochs=["test"])
    model, done = fit(r, tmp_path / "a", count=lambda _: {"test_correct": 1, "test_n": 2})
    assert done.kept_epoch is None
    assert weights(model) == weights(fit(recipe(), tmp_path / "b")[0])


# --- patience


RIGHT = [3, 5, 5, 4, 9, 1, 1, 1, 1, 1]  # answers after each epoch
EPOCH_OF: dict[str, int] = {}  # by its weights, so that a resumed run is counted like another


def scripted(model: nn.Module) -> dict[str, int]:
    return {"test_correct": RIGHT[EPOCH_OF[weights(model)]], "test_n": 10}


def patient(patience: int | None, **changes: Any) -> Recipe:
    kept = {"evaluate_epochs": ["test"], "keep": "best-on-test", "schedule": "cosine", "epochs": 10}
    return recipe(patience=patience, **{**kept, **changes})


@pytest.fixture
def unhurried(tmp_path: Path) -> Trained:
    """The run without patience, whose epochs are then known by their weights."""
    EPOCH_OF.clear()

    def count(model: nn.Module) -> dict[str, int]:
        return {"test_correct": RIGHT[EPOCH_OF.setdefault(weights(model), len(EPOCH_OF))], "test_n": 10}

    return fit(patient(None), tmp_path / "unhurried", count=count)[1]


@pytest.mark.parametrize(("patience", "made", "kept"), [(1, 3, 2), (2, 4, 2), (3, 8, 5), (5, 10, 5), (6, 10, 5)])
def test_training_is_over_after_so_many_epochs_without_a_new_best(
    tmp_path: Path, unhurried: Trained, patience: int, made: int, kept: int
) -> None:
    seen: list[dict[str, float]] = []
    model, done = fit(patient(patience), tmp_path / "patient", count=scripted, log=seen.append)
    assert done.epochs == unhurried.epochs[:made]  # of the same schedule
    assert (done.steps, done.kept_epoch) == (unhurried.epochs[made - 1].steps, kept)
    assert EPOCH_OF[weights(model)] == kept - 1
    assert seen[-1]["step"] == done.steps


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("stop_at", [1, 3, 4, 6, 8, 11])
def test_a_patient_run_that_was_stopped_is_over_when_an_uninterrupted_one_is(tmp_path: Path, stop_at: int) -> None:
    r = patient(2)
    model, whole = fit(r, tmp_path / "whole", count=scripted)
    assert whole.steps == 12  # at which it cannot be stopped any more
    calls = itertools.count(1)
    folder = tmp_path / "parts"
    with pytest.raises(Stopped):
        fit(r, folder, should_stop=lambda: next(calls) >= stop_at, count=scripted)
    again, parts = fit(r, folder, count=scripted)
    assert (parts.steps, parts.epochs, parts.kept_epoch) == (whole.steps, whole.epochs, whole.kept_epoch)
    assert (weights(again), parts.final_loss) == (weights(model), whole.final_loss)


@pytest.mark.usefixtures("unhurried")
def test_a_patient_run_killed_after_its_last_step_makes_no_other(tmp_path: Path) -> None:
    r = patient(1)
    model, whole = fit(r, tmp_path, checkpoint_seconds=0.0, count=scripted)
    again, done = fit(r, tmp_path, count=scripted)
    assert done.resumed_at == (whole.steps,)
    assert (weights(again), done.steps, done.epochs) == (weights(model), whole.steps, whole.epochs)
