"""`Transform` for images in GPU memory: the same bits, without work on the host."""

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment.transform import Transform, check_inputs
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SIZE
from fastcifar.errors import UserError


class CudaTransform:
    """A `Transform` on a GPU. It queues all its work on torch's current stream and never waits for the GPU.

    The first call compiles the kernel, which takes a few seconds.
    """

    def __init__(self, transform: Transform, device: torch.device) -> None:
        """Takes its configuration, normalisation, seed and output dtype from `transform`."""
        self.config, self.seed, self.dtype, self.device = transform.config, transform.seed, transform.dtype, device
        self._scale_and_bias = torch.from_numpy(np.concatenate([transform.scale, transform.bias])).to(device)

    def __call__(
        self, images: Tensor, indices: Tensor, sample_ids: Tensor, epoch: int, size: int = IMAGE_SIZE
    ) -> Tensor:
        """A new channels_last tensor (b, 3, size, size) of `images[indices]`, as from `Transform.__call__`.

        `images` uint8 (n, 32, 32, 3), `indices` and `sample_ids` int64 (b,), C-contiguous and on the GPU; `epoch` in
        [0, 2**63). Raises UserError for another shape, dtype, device or size. The values of `indices` and `sample_ids`
        are not checked, because that would wait for the GPU: an index outside [0, n) reads foreign memory.
        """
        state = torch.zeros(2, dtype=torch.int64, device=self.device)
        state[:1].fill_(epoch)
        out = torch.empty((len(indices), size, size, CHANNELS), dtype=self.dtype, device=self.device)
        self.into(out, images, indices, sample_ids, state)
        return out.permute(0, 3, 1, 2)

    def into(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        """Fills `out` (b, size, size, 3), C-contiguous, of the transform's dtype; for capture in a CUDA graph.

        `state`, int64 (2,) on the GPU, holds the epoch and the position in `indices` and `sample_ids` of the first
        image; b entries must follow that position. The kernel reads it when it runs: advance it between replays.
        """
        self._check(out, images, indices, sample_ids, state)
        from fastcifar.augment.kernel_cuda import launch

        launch(out, images, indices, sample_ids, state, self._scale_and_bias, config=self.config, seed=self.seed)

    def _check(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        if out.dtype != self.dtype or out.shape != (len(out), out.shape[1], out.shape[1], 3) or len(out) > len(indices):
            raise UserError(f"the output cannot be {out.dtype} {tuple(out.shape)} for {len(indices)} indices")
        check_inputs(images, indices, sample_ids, out.shape[1])
        if state.dtype != torch.int64 or state.shape != (2,):
            raise UserError(f"state must be int64 (2,), got {state.dtype} {tuple(state.shape)}")
        for tensor in (out, images, indices, sample_ids, state):
            if tensor.device.type != "cuda" or not tensor.is_contiguous():
                raise UserError(f"tensors must be contiguous and on the GPU, got one on {tensor.device}")
        for tensor in (out, images):
            if tensor.data_ptr() % 16:
                raise UserError("images must start at an address that is a multiple of 16")
