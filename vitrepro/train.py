"""The training loop, read from top to bottom."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vitrepro import checkpoint, distributed, optim
from vitrepro.arrays import Ints
from vitrepro.course import Course
from vitrepro.data.augment import augment
from vitrepro.data.batches import batches
from vitrepro.data.stream import Images, Resident
from vitrepro.engine import Engine, choose, compilation_pays, has_unused
from vitrepro.errors import RunError
from vitrepro.passes import Passes
from vitrepro.randomness import derive
from vitrepro.recipe import Arithmetic, Recipe
from vitrepro.record import EpochPoint

CHECK_STEPS = 20  # at most, between looks at the losses on a GPU: a look waits for the device
WARM_STEPS = 10  # at least, before steps are timed: the first ones choose kernels, allocate and record
TIMED_STEPS = 30  # at least, before it is decided whether to compile
MAX_SKIPPED = 50  # fp16 steps in a row that the loss scaler may drop before the run counts as diverged


class Diverged(RunError):
    """Training that led to numbers that are not finite."""


class Stopped(Exception):
    """Training was asked to stop; it wrote a checkpoint and can go on from there."""


@dataclass(frozen=True)
class Trained:
    """How the weights came about.

    Attributes:
        steps: made, all that were planned unless patience ended it.
        seconds: spent in the loop, over all attempts, less those spent on evaluating after epochs.
        resumed_at: steps at which a stopped or killed run went on.
        micro_batch: images per backward pass of a process.
        compiled_at: step from which on the compiled model was used; None for never.
        compile_seconds: that the last attempt took for it.
        not_recorded: why the passes could not be recorded as CUDA graphs, where that was tried.
        kept_epoch: whose weights the model has in the end; None for the last step's.
        gradient_norms: of the first steps, before clipping, where the recipe measures them.
        clipped_steps: whose finite gradient was clipped, where the recipe measures that.
    """

    steps: int
    skipped_steps: int
    final_loss: float
    seconds: float
    resumed_at: tuple[int, ...]
    micro_batch: int
    compiled_at: int | None = None
    compile_seconds: float | None = None
    not_recorded: str | None = None
    epochs: tuple[EpochPoint, ...] = ()
    kept_epoch: int | None = None
    gradient_norms: tuple[float, ...] = ()
    eval_seconds: float = 0.0
    clipped_steps: int = 0


def train(
    model: nn.Module,
    images: Tensor | Images,
    labels: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    precision: Arithmetic,
    folder: Path,
    engine: Engine | None = None,
    micro_batch: int | None = None,
    log: Callable[[dict[str, float]], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 30.0,
    stage: int = 0,
    count: Callable[[nn.Module], Mapping[str, int]] = lambda _: {},
    passes: Passes | None = None,
) -> Trained:
    """Train a model in place, from the newest checkpoint in `folder` if there is one.

    Batches, augmentation and dropout are functions of seed and step, so a resumed run sees what an
    uninterrupted one would have seen. Processes that share the run (torch.distributed) each take a share of
    every batch and end with the same weights; the first of them writes checkpoints and logs.

    Args:
        images: uint8, (N, C, H, W), on the device; or opened, to be read ahead of the steps.
        labels: int64, (N,), on the device.
        folder: checkpoints are kept here, every `checkpoint_seconds`.
        engine: the choices made for speed; those of the recipe and the device unless given.
        micro_batch: images per backward pass, instead of the recipe's; gradients are accumulated.
        stage: whose checkpoints to go on from, where a run trains several times.
        log: called about a hundred times with step, loss, lr and the training accuracy since the last call.
        count: right answers and images after an epoch, by the fields of `EpochPoint`.
        passes: the model's, where several calls share what was recorded or compiled; else made here.

    Raises:
        Diverged: the loss is not finite, with the step; nothing is saved after it.
        Stopped: `should_stop` said so; a checkpoint is written.
    """
    spec, steps = recipe.train, recipe.steps
    engine = engine or choose(recipe, device, precision)
    first, share = distributed.share(spec.batch_size)
    micro = min(micro_batch or spec.micro_batch or spec.batch_size, share)
    world = spec.batch_size // share
    log_every = max(1, steps // 100)
    check_every = 1 if device == "cpu" and world == 1 else min(log_every, CHECK_STEPS)
    optimizer = optim.build(model, spec, fused=engine.fused_optimizer)

    start, skipped, in_a_row, loss, before, resumed_at = 0, 0, 0, math.nan, 0.0, ()
    compiled_at: int | None = None
    weights = [p for p in model.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in weights] if spec.polyak else []
    course = Course.of(recipe)
    state = checkpoint.load_newest(folder, device, stage)
    if state is not None:
        start, loss, before = state["step"], state["loss"], state["seconds"]
        skipped, in_a_row, compiled_at = state["skipped"], state["in_a_row"], state["compiled_at"]
        resumed_at = (*state["resumed_at"], start)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average = state["average"]
        course.restore(state.get("course"))
    distributed.agree(start, "go on from another step")

    shared = distributed.share_gradients(model, device, some_unused=has_unused(model)) if world > 1 else None
    source = Resident(images) if isinstance(images, Tensor) else images
    own = passes is None
    passes = passes or Passes(
        model, device=device, precision=precision, label_smoothing=spec.label_smoothing, shared=shared
    )
    scaler = passes.scaler
    if state is not None:
        scaler.load_state_dict(state["scaler"])
    if compiled_at is not None:
        passes.compile()
    to_record = engine.graphs and world == 1 and micro == share and not passes.recorded  # nothing is accumulated
    undecided = engine.may_compile and compiled_at is None
    timed_from: tuple[int, float] | None = None  # a step, and when it was done
    began = saved = time.monotonic()
    evaluated_before = course.seconds

    def elapsed() -> float:
        """Seconds of this attempt, less those of evaluating."""
        return time.monotonic() - began - (course.seconds - evaluated_before)

    def save(step: int) -> None:
        values = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "average": average,
            "loss": loss,
            "skipped": skipped,
            "in_a_row": in_a_row,
            "seconds": before + elapsed(),
            "resumed_at": resumed_at,
            "compiled_at": compiled_at,
            "course": course.state(),
        }
        checkpoint.save(folder, step, values, stage)

    def positions() -> Iterator[Ints]:
        """Of this process's share of every batch."""
        for batch in batches(len(labels), spec.batch_size, start if course.over else steps, seed, start):
            yield batch[first : first + share]

    model.train()
    of_images, of_labels = itertools.tee(positions())  # images may be read ahead
    losses: list[Tensor] = []  # on the device, of the steps since the last look
    loss_sum, seen, hits = 0.0, 0, torch.zeros((), dtype=torch.int64, device=device)
    done = start
    for step, (stored, where) in enumerate(zip(source.batches(of_images), of_labels, strict=True), start):
        done = step + 1
        look = done % check_every == 0 or done % log_every == 0 or done == steps or done in course.ends
        rate = optim.learning_rate(step, steps, spec)
        for group in optimizer.param_groups:
            group["lr"] = rate
        x, target = augment(
            stored,
            labels[distributed.to_device(torch.from_numpy(where), labels.device)],
            recipe.augment,
            num_classes=recipe.data.num_classes,
            image_size=recipe.image_size,
            seed=seed,
            step=step,
            first=first,
            batch_size=spec.batch_size,
        )

        if to_record:
            passes.record(x.contiguous(memory_format=torch.channels_last) if engine.channels_last else x, target)
            to_record = False
        distributed.reseed(device, derive(seed, f"dropout from {first}" if first else "dropout", step))
        batch_loss = torch.zeros((), device=device)
        for begin in range(0, share, micro):
            part = slice(begin, begin + micro)
            last = begin + micro >= share
            with shared.no_sync() if shared is not None and not last else contextlib.nullcontext():
                logits, part_loss = passes(x[part], target[part], len(x[part]) / spec.batch_size)
            batch_loss += part_loss
            if target.ndim == 1:
                hits += (logits.argmax(1) == target[part]).sum()

        losses.append(batch_loss)
        if look:
            found = distributed.total(torch.stack(losses)).tolist()
            bad = next((i for i, value in enumerate(found) if not math.isfinite(value)), None)
            if bad is not None:
                at = done - len(found) + bad
                raise Diverged(f"the loss is {found[bad]} at step {at} of {steps}; the run has diverged")
            loss, loss_sum, seen, losses = found[-1], loss_sum + sum(found), seen + len(found), []
            course.add(found)
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm) if spec.clip_norm is not None else None
        if done <= course.norms_of:
            norm = (
                norm if norm is not None else nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
            )
            course.norms.append(norm)
        if course.clip_norm is not None and norm is not None:
            course.clipped = course.clipped + ((norm > course.clip_norm) & norm.isfinite())
        scale = scaler.get_scale()
        scaler.step(optimizer)  # leaves the step out where a gradient is infinite
        scaler.update()
        dropped = scaler.is_enabled() and scaler.get_scale() < scale
        skipped, in_a_row = (skipped + 1, in_a_row + 1) if dropped else (skipped, 0)
        if in_a_row > MAX_SKIPPED:
            raise Diverged(f"{in_a_row} fp16 steps in a row overflowed, up to step {step} of {steps}")
        passes.clear()
        if spec.polyak is not None:
            torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - spec.polyak)

        if done in course.ends:
            with _replaced(weights, average if spec.evaluate_epochs else []):
                since = time.monotonic()
                with torch.compiler.set_stance("force_eager"):  # or it would be compiled for evaluation as well
                    counts = count(model) if spec.evaluate_epochs else {}
                course.seconds += time.monotonic() - since
                course.end_epoch(done, counts, model)
            model.train()

        last = done == steps or course.over
        if look and (done % log_every == 0 or last):
            row = {"step": float(done), "steps": float(steps), "loss": loss_sum / seen, "lr": rate}
            if target.ndim == 1:
                row["train_top1"] = 100 * int(distributed.total(hits)) / (seen * spec.batch_size)
            if first == 0:
                log(row)
            loss_sum, seen, hits = 0.0, 0, torch.zeros_like(hits)
        if not look:
            continue
        stop = distributed.any_of(should_stop()) and not last
        if first == 0 and (stop or time.monotonic() - saved > checkpoint_seconds):
            save(done)
            saved = time.monotonic()
        if stop:
            raise Stopped(f"stopped after step {done} of {steps}")
        if last:
            break
        if undecided and timed_from is None and done >= start + WARM_STEPS:
            timed_from = (done, elapsed())
        elif undecided and timed_from is not None and done >= timed_from[0] + TIMED_STEPS:
            undecided = False
            pace = (elapsed() - timed_from[1]) / (done - timed_from[0])
            if distributed.any_of(compilation_pays(recipe.model, pace, steps - done)):
                passes.compile()
                compiled_at = done

    if own:
        passes.release()
    if course.best is not None:
        model.load_state_dict(course.best)
    elif spec.polyak is not None:
        _copy(average, weights)
    norms = torch.stack(course.norms).tolist() if course.norms else []
    return Trained(
        done,
        skipped,
        loss,
        before + elapsed(),
        resumed_at,
        micro,
        compiled_at,
        passes.compile_seconds,
        passes.refusal,
        tuple(course.points),
        course.kept_epoch,
        tuple(norms),
        course.seconds,
        int(course.clipped),
    )


@contextlib.contextmanager
def _replaced(weights: Sequence[Tensor], average: Sequence[Tensor]) -> Iterator[None]:
    """The average in place of the weights, where one is kept: it is what is evaluated."""
    own = [weight.detach().clone() for weight in weights] if average else []
    _copy(average, weights)
    yield
    _copy(own, weights)


def _copy(values: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    for value, weight in zip(values, into, strict=False):  # none where no average is kept
        weight.data.copy_(value)
