"""`Transform` for images in a device's memory: the same bits, queued on the device, without work on the host."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment.transform import Transform, check_inputs
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SIZE
from fastcifar.errors import UserError

EPOCH, POSITION, SEED = 0, 1, 2
"""Entries of a state: what changes from batch to batch, read when the work runs, so that a CUDA graph can repeat it."""


class DeviceTransform(ABC):
    """A `Transform` on a device. It queues all its work on torch's current stream and never waits for the device."""

    title: ClassVar[str]
    """What does the work, in messages and records."""

    def __init__(self, transform: Transform, device: torch.device) -> None:
        """Takes its configuration, normalisation, seed and output dtype from `transform`."""
        self.config, self.seed, self.dtype, self.device = transform.config, transform.seed, transform.dtype, device
        self._scale_and_bias = torch.from_numpy(np.concatenate([transform.scale, transform.bias])).to(device)
        start = np.zeros(3, np.uint64)
        start[SEED] = self.seed
        self._start = torch.from_numpy(start.view(np.int64)).to(device)

    def new_state(self) -> Tensor:
        """A state int64 (3,) on the device: epoch 0, position 0, and the bits of the transform's seed."""
        return self._start.clone()

    def __call__(
        self, images: Tensor, indices: Tensor, sample_ids: Tensor, epoch: int, size: int = IMAGE_SIZE
    ) -> Tensor:
        """A new channels_last tensor (b, 3, size, size) of `images[indices]`, as from `Transform.__call__`.

        `images` uint8 (n, 32, 32, 3), `indices` and `sample_ids` int64 (b,), C-contiguous and on the device; `epoch` in
        [0, 2**63). Raises UserError for another shape, dtype, device or size. The values of `indices` and `sample_ids`
        are not checked, because that would wait for the device: an index outside [0, n) reads foreign memory.
        """
        state = self.new_state()
        state[:1].fill_(epoch)
        out = torch.empty((len(indices), size, size, CHANNELS), dtype=self.dtype, device=self.device)
        self.into(out, images, indices, sample_ids, state)
        return out.permute(0, 3, 1, 2)

    def into(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        """Fills `out` (b, size, size, 3), C-contiguous, of the transform's dtype; for capture in a CUDA graph.

        `state`, as from `new_state`, holds the epoch, the position in `indices` and `sample_ids` of the first image (b
        entries must follow it), and the seed. It is read when the work runs: change it between replays.
        """
        self._check(out, images, indices, sample_ids, state)
        if len(out):
            self._queue(out, images, indices, sample_ids, state)

    @abstractmethod
    def _queue(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        """Queues the work; the arguments, of `into`, are checked, and `out` is not empty."""

    def _check(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        if out.dtype != self.dtype or out.shape != (len(out), out.shape[1], out.shape[1], 3) or len(out) > len(indices):
            raise UserError(f"the output cannot be {out.dtype} {tuple(out.shape)} for {len(indices)} indices")
        check_inputs(images, indices, sample_ids, out.shape[1])
        if state.dtype != torch.int64 or state.shape != (3,):
            raise UserError(f"state must be int64 (3,), got {state.dtype} {tuple(state.shape)}")
        for tensor in (out, images, indices, sample_ids, state):
            if tensor.device.type != self.device.type or not tensor.is_contiguous():
                raise UserError(f"tensors must be contiguous and on {self.device}, got one on {tensor.device}")


def default_transform(device: torch.device) -> type[DeviceTransform] | None:
    """The CUDA kernel on NVIDIA's GPUs, tensor operations on other devices; None on a CPU, which has its own kernel."""
    from fastcifar.augment.transform_cuda import CudaTransform
    from fastcifar.augment.transform_torch import TorchTransform

    if device.type == "cpu":
        return None
    return CudaTransform if device.type == "cuda" and torch.version.hip is None else TorchTransform
