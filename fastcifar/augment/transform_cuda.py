"""`DeviceTransform` by the fused CUDA kernel."""

import torch
from torch import Tensor

from fastcifar.augment.launch_cuda import launch
from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_device import DeviceTransform
from fastcifar.errors import UserError
from fastcifar.runtime.cuda_driver import Gpu, gpu_of


class CudaTransform(DeviceTransform):
    """A `Transform` on a GPU, by one kernel. The first call compiles it or loads it from the disk cache.

    Calls raise UserError where the kernel cannot be compiled, and CudaDriverError.
    """

    def __init__(self, transform: Transform, device: torch.device, gpu: Gpu | None = None) -> None:
        """`gpu` stands in for that of `device`."""
        super().__init__(transform, device)
        self._gpu = gpu

    title = "CUDA kernel"

    def _queue(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        gpu = self._gpu or gpu_of(out.device)
        launch(gpu, out, images, indices, sample_ids, state, self._scale_and_bias, self.config)

    def _check(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        super()._check(out, images, indices, sample_ids, state)
        device = self._scale_and_bias.device  # has an index, which `self.device` need not have
        for tensor in (out, images, indices, sample_ids, state):
            if tensor.device != device:
                raise UserError(f"tensors must be on {device}, got one on {tensor.device}")
        for tensor in (out, images):
            if tensor.data_ptr() % 16:
                raise UserError("images must start at an address that is a multiple of 16")
