"""What a run on a GPU relies on, checked before its clock starts: the bits of the images, and the recorded steps."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcifar.augment import reference
from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_device import DeviceTransform
from fastcifar.data.cifar10 import IMAGE_SHAPE
from fastcifar.evaluation.logits import Predict
from fastcifar.models.hooks import before_step
from fastcifar.training.graph import GraphPredict
from fastcifar.training.graph_steps import GraphSteps
from fastcifar.training.loop import EagerSteps, Steps
from fastcifar.training.step import TrainStep

IMAGES, EPOCH = 8, 3
STEPS = 2
"""The second step sees the first one's update."""
LOSS_TOLERANCE, UPDATE_TOLERANCE = 0.02, 0.2
"""Relative. A GPU may add in another order every time, which 16 bits and Muon amplify, we estimate to a few percent; a
step that reads old memory or misses an update is wrong by 100%."""
ROUNDINGS = 5
"""A change of less than so many roundings of the values themselves is not compared."""


def images_difference(kind: type[DeviceTransform], transform: Transform, size: int, device: torch.device) -> str | None:
    """How images of `size` pixels by `kind` differ from the NumPy reference; None if all bits of 8 are equal."""
    numbers = np.random.default_rng(size)
    images = numbers.integers(0, 256, (IMAGES, *IMAGE_SHAPE), dtype=np.uint8)
    rows, samples = numbers.permutation(IMAGES), numbers.integers(0, 2**31, IMAGES)
    stored, indices, sample_ids = (torch.from_numpy(array).to(device) for array in (images, rows, samples))
    found = kind(transform, device)(stored, indices, sample_ids, EPOCH, size).permute(0, 2, 3, 1).cpu()
    bits = found.contiguous().view(torch.uint8).numpy().view(np.uint32 if found.itemsize == 4 else np.uint16)
    for number, (row, sample) in enumerate(zip(rows, samples.tolist(), strict=True)):
        expected = reference.augment_one(images[row], transform, epoch=EPOCH, sample_id=sample, size=size)
        wrong = np.count_nonzero(bits[number] != expected)
        if wrong:
            return f"gives other images than the reference: {wrong} of {expected.size} values, size {size}"
    return None


def steps_difference(steps: GraphSteps, initial: nn.Module) -> str | None:
    """How recorded steps differ from ordinary ones on the same batches; None if losses and updates are equal.

    Replays each graph, and the step after it, from the network `initial`; leaves network and optimiser changed.
    """
    differences = (_difference_from(first, steps, initial) for first in steps.firsts)
    return next(filter(None, differences), None)


def _difference_from(first: int, steps: GraphSteps, initial: nn.Module) -> str | None:
    context = steps.context
    steps.reset(initial)
    twin = copy.deepcopy(steps.train_step.model)
    optimizer = context.config.optimizer.build(twin, context.config.batch_size)
    eager = EagerSteps(context, TrainStep(twin, optimizer, context.runtime, context.config.label_smoothing))
    numbers = range(first, min(first + STEPS, context.total))
    batches = [steps.eager_batch(number) for number in numbers]
    steps.rewind(first)
    found, expected = _losses(steps, numbers, [None for _ in numbers]), _losses(eager, numbers, batches)
    if not (found - expected).abs().max() <= LOSS_TOLERANCE * expected.abs().max():  # not: NaN compares false
        return f"gives losses {found.tolist()} from step {first}, but ordinary steps {expected.tolist()}"
    buffers = [list(model.buffers()) for model in (initial, steps.train_step.model, twin)]
    start = dict(zip(twin.parameters(), initial.parameters(), strict=True))
    parts: dict[str, list[list[Tensor]]] = {"buffers": buffers}
    groups = zip(steps.train_step.optimizer.param_groups, optimizer.param_groups, strict=True)
    for number, (recorded, ordinary) in enumerate(groups):
        before: list[Tensor] = [start[parameter] for parameter in ordinary["params"]]
        parts[str(recorded.get("name", f"group {number}"))] = [before, recorded["params"], ordinary["params"]]
    for name, tensors in parts.items():
        if (error := _relative_error(*tensors)) > UPDATE_TOLERANCE:
            return f"updates {name} otherwise than ordinary steps, from step {first}, by {error:.0%}"
    return None


def _relative_error(before: list[Tensor], found: list[Tensor], expected: list[Tensor]) -> float:
    """Of the change from `before` to `found`, if that to `expected` is right; infinite for NaN."""
    missed = total = unsure = 0.0
    for start, one, other in zip(before, found, expected, strict=True):
        if start.is_floating_point():
            missed += (one - other).float().square().sum().item()
            total += (other - start.to(other.device)).float().square().sum().item()
            unsure += (ROUNDINGS * torch.finfo(start.dtype).eps * other.float()).square().sum().item()
    return math.sqrt(missed / max(total, unsure, 1e-30)) if missed >= 0 else math.inf


def _losses(steps: Steps, numbers: Iterable[int], batches: list[Any]) -> Tensor:
    """Of some steps, on the CPU, with the same random numbers at every call."""
    torch.manual_seed(0)
    steps.train_step.model.train()
    found: list[Tensor] = []
    for number, batch in zip(numbers, batches, strict=True):
        before_step(steps.train_step.model, number, steps.context.steps_per_epoch)
        found.append(steps.take(number, batch).loss.clone())
    return torch.stack(found).cpu()


def predictions_difference(recorded: GraphPredict, predict: Predict, dtype: torch.dtype) -> str | None:
    """How replayed logits of random images of each recorded shape differ from ordinary ones; None if they are equal."""
    for shape, device in recorded.shapes.items():
        images = torch.randn(shape).to(device, dtype)
        found, expected = recorded(images), predict(images)
        if not (found - expected).norm() <= LOSS_TOLERANCE * expected.norm():
            return f"gives other logits for {shape[0]} test images than ordinary operations"
    return None
