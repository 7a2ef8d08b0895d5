"""Forward and backward pass of a training step: as the model is written, recorded as a CUDA graph, or compiled."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrepro.distributed import autocast, rank_and_world
from vitrepro.models.vit import Block
from vitrepro.recipe import Arithmetic

HARMLESS = ("Attempting to run cuBLAS", "The AccumulateGrad node's stream")  # torch's, of passes on another stream
WARM_UP = 3  # passes before they are recorded: libraries choose their kernels and allocate what they work in


class Passes:
    """The loss of a batch under mixed precision, and its gradients.

    Args:
        label_smoothing: of the cross-entropy.
        shared: the model whose gradients are averaged over processes, where several share the run.

    Attributes:
        scaler: of the loss, in fp16.
        refusal: why the passes could not be recorded, where that was tried.
        compile_seconds: that compiling and recording anew took; None where that was not done.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: str,
        precision: Arithmetic,
        label_smoothing: float = 0.0,
        shared: nn.Module | None = None,
    ) -> None:
        self.model, self.device, self.precision = model, device, precision
        self.label_smoothing = label_smoothing
        self.scaler = torch.amp.GradScaler(device.partition(":")[0], enabled=precision == "fp16")
        self.refusal: str | None = None
        self.compile_seconds: float | None = None
        self._forward: Callable[[Tensor], Tensor] = shared or model
        self._blocks: list[Block] = []
        self._recorded: _Recorded | None = None

    def __call__(self, images: Tensor, target: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """Gradients of a batch added to those of the parameters; its logits and loss, on the device.

        Args:
            target: classes, or the probabilities of classes.
            weight: of the loss: the share that these images have of the step's.
        """
        if self._recorded is not None:
            return self._recorded.replay(images, target)
        return self._pass(images, target, weight)

    def _pass(self, images: Tensor, target: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        with autocast(self.device, self.precision):
            logits = self._forward(images)
        loss = F.cross_entropy(logits.float(), target, label_smoothing=self.label_smoothing) * weight
        world = rank_and_world()[1]  # gradients are averaged over the processes
        self.scaler.scale(loss * world).backward()
        return logits.detach(), loss.detach()

    @property
    def recorded(self) -> bool:
        """Whether a batch is one launch; its gradients then take the place of those before."""
        return self._recorded is not None

    def clear(self) -> None:
        """Forget the gradients, where the next pass would add to them."""
        if self._recorded is None:
            self.model.zero_grad(set_to_none=True)

    def record(self, images: Tensor, target: Tensor) -> None:
        """Record the passes of batches like this one: a graph is one launch, where a small model waits for hundreds.

        The kernels and what they compute are those of the model. A model that cannot be recorded stays as it is, and
        `refusal` tells why. Other threads may use the device meanwhile, on streams of their own.

        Raises:
            torch.OutOfMemoryError: there is no room for the tensors that the graph keeps.
        """
        self._forget()
        with torch.cuda.device(self.device), _unmoved(self.model), warnings.catch_warnings():
            for message in HARMLESS:
                warnings.filterwarnings("ignore", message=message)
            try:
                self._recorded = _Recorded(self._pass, self.model, images.clone(), target.clone())
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.refusal = (str(error).splitlines() or [type(error).__name__])[0]
                self.model.zero_grad(set_to_none=True)

    def compile(self) -> None:
        """Compile a ViT's layers, which share their code, or another model whole; record anew what was recorded."""
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
        batch = None if self._recorded is None else (self._recorded.images, self._recorded.target)
        self._forget()
        self._blocks = [module for module in self.model.modules() if isinstance(module, Block)]
        for block in self._blocks:
            for name in ("forward", "of_first_token"):
                setattr(block, name, torch.compile(getattr(block, name)))
        if not self._blocks:
            self._forward = torch.compile(self._forward)
        if batch is not None:
            began = time.monotonic()
            self.record(*batch)
            self.compile_seconds = time.monotonic() - began

    def release(self) -> None:
        """Give back the memory of the graph, and the model as it was."""
        self._forget()
        for block in self._blocks:
            for name in ("forward", "of_first_token"):
                delattr(block, name)  # the compiled one, in front of the class's own
        self._blocks = []

    def _forget(self) -> None:
        if self._recorded is not None:
            self._recorded = None
            self.model.zero_grad(set_to_none=True)  # they lie in the graph's memory


class _Recorded:
    """A CUDA graph of the passes of one batch, and the tensors that it reads and writes."""

    def __init__(
        self,
        passes: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]],
        model: nn.Module,
        images: Tensor,
        target: Tensor,
    ) -> None:
        self.images, self.target = images, target
        model.zero_grad(set_to_none=True)
        beside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                passes(images, target, 1.0)
                model.zero_grad(set_to_none=True)  # or the graph would add to them
        here.wait_stream(beside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.logits, self.loss = passes(images, target, 1.0)

    def replay(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        self.images.copy_(images)
        self.target.copy_(target)
        self.graph.replay()
        return self.logits, self.loss


@contextmanager
def _unmoved(model: nn.Module) -> Iterator[None]:
    """What warms up counts for nothing: batch norm has its running statistics afterwards as before."""
    before: Sequence[tuple[Tensor, Tensor]] = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, was in before:
            buffer.copy_(was)
