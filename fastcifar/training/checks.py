"""What a run on a GPU relies on, checked before its clock starts: the bits of the images, and the recorded steps."""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment import reference
from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_device import DeviceTransform
from fastcifar.data.cifar10 import IMAGE_SHAPE
from fastcifar.models.hooks import before_step
from fastcifar.training.graph_steps import GraphSteps
from fastcifar.training.loop import EagerSteps, Steps
from fastcifar.training.step import TrainStep

IMAGES, EPOCH = 8, 3
STEPS = 2
"""The second step sees the first one's update."""
LOSS_TOLERANCE, UPDATE_TOLERANCE = 0.02, 0.2
"""Relative. A GPU may add in another order every time, which 16 bits and Muon amplify to a few percent; a step that
reads old memory or misses an update is wrong by 100%."""


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


def steps_difference(steps: GraphSteps) -> str | None:
    """How recorded steps differ from ordinary ones on the same batches; None if losses and updates are equal.

    The network must be in its initial state, and the optimiser in that before its first step; both change.
    """
    context, model = steps.context, steps.train_step.model
    initial = [parameter.detach().clone() for parameter in model.parameters()]
    twin = copy.deepcopy(model)
    optimizer = context.config.optimizer.build(twin, context.config.batch_size)
    eager = EagerSteps(context, TrainStep(twin, optimizer, context.runtime, context.config.label_smoothing))
    numbers = range(min(STEPS, context.total))
    steps.rewind(0)
    found = _losses(steps, [None for _ in numbers])
    expected = _losses(eager, [steps.eager_batch(number) for number in numbers])
    if (found - expected).abs().max() > LOSS_TOLERANCE * expected.abs().max():
        return f"gives losses {found.tolist()}, but ordinary steps {expected.tolist()}"
    missed = total = 0.0
    for before, recorded, ordinary in zip(initial, model.parameters(), twin.parameters(), strict=True):
        missed += (recorded - ordinary).float().square().sum().item()
        total += (ordinary - before).float().square().sum().item()
    if missed > UPDATE_TOLERANCE**2 * total:
        return f"gives updates that differ from ordinary steps by {math.sqrt(missed / total) if total else 1:.0%}"
    return None


def _losses(steps: Steps, batches: list[Any]) -> Tensor:
    """Of the first steps, on the CPU, with the same random numbers at every call."""
    torch.manual_seed(0)
    steps.train_step.model.train()
    found: list[Tensor] = []
    for number, batch in enumerate(batches):
        before_step(steps.train_step.model, number, steps.context.steps_per_epoch)
        found.append(steps.take(number, batch).loss.clone())
    return torch.stack(found).cpu()
