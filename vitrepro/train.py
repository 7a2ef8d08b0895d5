"""The training loop, read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrepro import checkpoint, optim
from vitrepro.data.augment import augment
from vitrepro.data.batches import batches
from vitrepro.distributed import Arithmetic, autocast
from vitrepro.errors import RunError
from vitrepro.randomness import derive
from vitrepro.recipe import Recipe

MAX_SKIPPED = 50  # fp16 steps in a row that the loss scaler may drop before the run counts as diverged


class Diverged(RunError):
    """Training that led to numbers that are not finite."""


class Stopped(Exception):
    """Training was asked to stop; it wrote a checkpoint and can go on from there."""


@dataclass(frozen=True)
class Trained:
    """How the weights came about.

    Attributes:
        seconds: spent in the loop, over all attempts.
        resumed_at: steps at which a stopped or killed run went on.
    """

    steps: int
    skipped_steps: int
    final_loss: float
    seconds: float
    resumed_at: tuple[int, ...]


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    precision: Arithmetic,
    folder: Path,
    log: Callable[[dict[str, float]], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 30.0,
    stage: int = 0,
) -> Trained:
    """Train a model in place, from the newest checkpoint in `folder` if there is one.

    Batches, augmentation and dropout are functions of seed and step, so a resumed run sees what an
    uninterrupted one would have seen.

    Args:
        images: uint8, (N, C, H, W), on the device.
        labels: int64, (N,), on the device.
        folder: checkpoints are kept here, every `checkpoint_seconds`.
        stage: whose checkpoints to go on from, where a run trains several times.
        log: called about a hundred times with step, loss, lr and the training accuracy since the last call.

    Raises:
        Diverged: the loss is not finite; before the update, with the step.
        Stopped: `should_stop` said so; a checkpoint is written.
    """
    spec, steps = recipe.train, recipe.steps
    micro = spec.micro_batch or spec.batch_size
    log_every = max(1, steps // 100)
    scaler = torch.amp.GradScaler(device.partition(":")[0], enabled=precision == "fp16")
    optimizer = optim.build(model, spec, fused=not scaler.is_enabled())

    start, skipped, in_a_row, loss, before, resumed_at = 0, 0, 0, math.nan, 0.0, ()
    weights = [p for p in model.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in weights] if spec.polyak else []
    state = checkpoint.load_newest(folder, device, stage)
    if state is not None:
        start, loss, before = state["step"], state["loss"], state["seconds"]
        skipped, in_a_row = state["skipped"], state["in_a_row"]
        resumed_at = (*state["resumed_at"], start)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        average = state["average"]

    began = saved = time.monotonic()

    def save(step: int) -> None:
        values = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "average": average,
            "loss": loss,
            "skipped": skipped,
            "in_a_row": in_a_row,
            "seconds": before + time.monotonic() - began,
            "resumed_at": resumed_at,
        }
        checkpoint.save(folder, step, values, stage)

    model.train()
    loss_sum, hits, seen = 0.0, 0, 0
    for step, index in enumerate(batches(len(images), spec.batch_size, steps, seed, start), start):
        rate = optim.learning_rate(step, steps, spec)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(derive(seed, "dropout", step))
        where = torch.from_numpy(index).to(images.device)
        x, target = augment(
            images[where],
            labels[where],
            recipe.augment,
            num_classes=recipe.data.num_classes,
            image_size=recipe.image_size,
            seed=seed,
            step=step,
        )

        batch_loss = torch.zeros((), device=device)
        for first in range(0, spec.batch_size, micro):
            part = slice(first, first + micro)
            with autocast(device, precision):
                logits = model(x[part])
            share = len(logits) / spec.batch_size
            part_loss = F.cross_entropy(logits.float(), target[part], label_smoothing=spec.label_smoothing) * share
            scaler.scale(part_loss).backward()
            batch_loss += part_loss.detach()
            if target.ndim == 1:
                hits += int((logits.detach().argmax(1) == target[part]).sum())

        loss = float(batch_loss)
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {step} of {steps}; the run has diverged")
        scaler.unscale_(optimizer)
        if spec.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm)
        scale = scaler.get_scale()
        scaler.step(optimizer)  # leaves the step out where a gradient is infinite
        scaler.update()
        dropped = scaler.is_enabled() and scaler.get_scale() < scale
        skipped, in_a_row = (skipped + 1, in_a_row + 1) if dropped else (skipped, 0)
        if in_a_row > MAX_SKIPPED:
            raise Diverged(f"{in_a_row} fp16 steps in a row overflowed, up to step {step} of {steps}")
        optimizer.zero_grad(set_to_none=True)
        if spec.polyak is not None:
            torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - spec.polyak)

        loss_sum, seen = loss_sum + loss, seen + 1
        done = step + 1
        if done % log_every == 0 or done == steps:
            row = {"step": float(done), "steps": float(steps), "loss": loss_sum / seen, "lr": rate}
            if target.ndim == 1:
                row["train_top1"] = 100 * hits / (seen * spec.batch_size)
            log(row)
            loss_sum, hits, seen = 0.0, 0, 0
        stop = should_stop() and done < steps
        if stop or time.monotonic() - saved > checkpoint_seconds:
            save(done)
            saved = time.monotonic()
        if stop:
            raise Stopped(f"stopped after step {done} of {steps}")

    if spec.polyak is not None:
        for parameter, mean in zip(weights, average, strict=True):
            parameter.data.copy_(mean)
    return Trained(steps, skipped, loss, before + time.monotonic() - began, resumed_at)
