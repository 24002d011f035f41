"""`Transform` for images in GPU memory: the same images, bit for bit, and the host does none of the work."""

import numpy as np
import torch
from torch import Tensor

from fastcifar.augment.transform import SIDE, Transform
from fastcifar.errors import UserError


class CudaTransform:
    """A `Transform` on a GPU; everything it does is queued on torch's current stream, and it waits for nothing.

    Compiling is left to the first call, which takes a few seconds.
    """

    def __init__(self, transform: Transform, device: torch.device) -> None:
        """Takes its options, its normalisation, its seed and its output type from `transform`."""
        self.config, self.seed, self.dtype, self.device = transform.config, transform.seed, transform.dtype, device
        self._scale_and_bias = torch.from_numpy(np.concatenate([transform.scale, transform.bias])).to(device)

    def __call__(self, images: Tensor, rows: Tensor, samples: Tensor, epoch: int, size: int = SIDE) -> Tensor:
        """A fresh tensor (b, 3, size, size), channels_last, of the images at `rows`; as `Transform.__call__`.

        `images` uint8 (n, 32, 32, 3), `rows` and `samples` int64 (b,), C-contiguous and on the GPU; `epoch` in [0,
        2**63). Raises UserError for another shape, type, device or size. The values of `rows` and `samples` are not
        checked, as that would wait for the GPU: a row outside [0, n) reads foreign memory.
        """
        state = torch.zeros(2, dtype=torch.int64, device=self.device)
        state[:1].fill_(epoch)
        out = torch.empty((len(rows), size, size, 3), dtype=self.dtype, device=self.device)
        self.into(out, images, rows, samples, state)
        return out.permute(0, 3, 1, 2)

    def into(self, out: Tensor, images: Tensor, rows: Tensor, samples: Tensor, state: Tensor) -> None:
        """Fills `out` (b, size, size, 3), C-contiguous, of the transform's type; for capture in a CUDA graph.

        `state`, int64 (2,) on the GPU, holds the epoch and the position in `rows` and `samples` of the first image;
        both must be at least b longer than that. It is read when the kernel runs: advance it between replays.
        """
        self._check(out, images, rows, samples, state)
        from fastcifar.augment.kernel_cuda import launch

        launch(out, images, rows, samples, state, self._scale_and_bias, config=self.config, seed=self.seed)

    def _check(self, out: Tensor, images: Tensor, rows: Tensor, samples: Tensor, state: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
            raise UserError(f"images must be uint8 (n, 32, 32, 3), got {images.dtype} {tuple(images.shape)}")
        for name, index in (("rows", rows), ("samples", samples), ("state", state)):
            length = 2 if name == "state" else len(rows)
            if index.dtype != torch.int64 or index.ndim != 1 or len(index) != length:
                raise UserError(f"{name} must be int64 ({length},), got {index.dtype} {tuple(index.shape)}")
        if out.dtype != self.dtype or out.ndim != 4 or out.shape[2:] != (out.shape[1], 3) or len(out) > len(rows):
            raise UserError(f"the output cannot be {out.dtype} {tuple(out.shape)} of {len(rows)} rows")
        if not 1 <= out.shape[1] <= SIDE:
            raise UserError(f"the output size is {out.shape[1]}, but must be between 1 and {SIDE}")
        for tensor in (out, images, rows, samples, state):
            if tensor.device.type != "cuda" or not tensor.is_contiguous():
                raise UserError(f"tensors must be contiguous and on the GPU, got one on {tensor.device}")
        for tensor in (out, images):
            if tensor.data_ptr() % 16:
                raise UserError("images must start at an address that is a multiple of 16")
