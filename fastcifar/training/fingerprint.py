"""Digests of what a run starts from. A run records them at its end; `verify` compares them."""

import hashlib

import numpy as np
import torch

from fastcifar.loader.base import Loader
from fastcifar.loader.order import epoch_order
from fastcifar.runs.record import weights_sha256
from fastcifar.training.context import RunContext

EPOCHS = 3
"""Number of epochs whose order is hashed; more would not reveal other changes."""


def fingerprints(context: RunContext, loader: Loader) -> dict[str, str]:
    """SHA-256 of the sample order, of the first and last batch with its labels, and of the initial weights."""
    samples = context.manifest.splits["train"].samples
    order = hashlib.sha256()
    for epoch in range(EPOCHS):
        order.update(epoch_order(samples, context.config.seed, epoch).astype("<i8").tobytes())
    pixels = hashlib.sha256()
    for step in (0, context.total - 1):
        images, labels = next(iter(loader.epoch(*divmod(step, context.steps_per_epoch))))
        nhwc = images.permute(0, 2, 3, 1).contiguous().cpu()
        pixels.update(nhwc.view(torch.uint8).numpy().tobytes())
        pixels.update(labels.cpu().numpy().astype(np.int64).tobytes())
    return {
        "order": order.hexdigest(),
        "images": pixels.hexdigest(),
        "initial weights": weights_sha256(context.initial_model(loader).state_dict()),
    }
