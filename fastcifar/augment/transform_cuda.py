"""`DeviceTransform` by the fused CUDA kernel."""

from torch import Tensor

from fastcifar.augment.transform_device import DeviceTransform
from fastcifar.errors import UserError


class CudaTransform(DeviceTransform):
    """A `Transform` on a GPU, by one kernel. The first call compiles it or loads it from the disk cache."""

    title = "CUDA kernel"

    def _queue(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        from fastcifar.augment.kernel_cuda import launch

        launch(out, images, indices, sample_ids, state, self._scale_and_bias, config=self.config, seed=self.seed)

    def _check(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        super()._check(out, images, indices, sample_ids, state)
        if self.device.type != "cuda":
            raise UserError(f"the CUDA kernel cannot run on {self.device}")
        for tensor in (out, images):
            if tensor.data_ptr() % 16:
                raise UserError("images must start at an address that is a multiple of 16")
