"""Loads kernels from PTX and launches them by NVIDIA's driver API, on torch's streams.

A launch is three calls of the driver.
"""

from functools import cache
from typing import Any

import torch

from fastcifar.errors import RunFailedError, UserError

ADVICE = {
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "the driver is too old for the toolkit that made the PTX; update the driver",
    "CUDA_ERROR_INVALID_PTX": "the driver rejects the PTX; update the driver, or report this with `fastcifar doctor`",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "the PTX is for a newer GPU than this one",
    "CUDA_ERROR_JIT_COMPILER_NOT_FOUND": "the driver lacks libnvidia-ptxjitcompiler; reinstall the driver",
}


class CudaDriverError(RunFailedError):
    """A call of the driver API failed. The message has the call, the driver's name and text of the error, and advice.

    The error of a launch may be that of earlier work, which the driver reports at the next call.
    """


class Gpu:
    """A GPU, in the context that torch uses. Any thread may use it, whichever device is current there."""

    def __init__(self, device: torch.device, driver: Any = None) -> None:
        """`driver` stands in for `cuda.bindings.driver`. Raises CudaDriverError."""
        if driver is None:
            from cuda.bindings import driver  # type: ignore[attr-defined]
        self._api, self._torch_device = driver, device
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", device.index or 0)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)

    def capability(self) -> tuple[int, int]:
        """Compute capability, e.g. (9, 0). Raises CudaDriverError."""
        attribute = self._api.CUdevice_attribute
        major = self._call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._device)
        minor = self._call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._device)
        return major, minor

    def load(self, ptx: str, name: str) -> Any:
        """The kernel `name` of a PTX text, for `launch`; it stays loaded. Raises CudaDriverError."""
        with self:
            module = self._call("cuModuleLoadData", ptx.encode() + b"\0")
            return self._call("cuModuleGetFunction", module, name.encode())

    def launch(self, kernel: Any, blocks: int, threads: int, values: tuple[int, ...], kinds: tuple[type, ...]) -> None:
        """Queues a kernel on torch's current stream, with arguments `values` of the ctypes types `kinds`.

        It allocates no GPU memory and does not wait, so that a CUDA graph can capture it. Raises CudaDriverError.
        """
        with self:
            self._call("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, 0, self.stream(), (values, kinds), 0)

    def stream(self) -> int:
        """The driver's handle of torch's current stream on this GPU."""
        return torch.cuda.current_stream(self._torch_device).cuda_stream

    # the driver works in the calling thread's context: none in a thread that has not used CUDA, or another GPU's
    def __enter__(self) -> None:
        self._call("cuCtxPushCurrent", self._context)

    def __exit__(self, *_: object) -> None:
        self._call("cuCtxPopCurrent")

    def _call(self, name: str, *arguments: Any) -> Any:
        result, *values = getattr(self._api, name)(*arguments)
        if result != 0:
            raise CudaDriverError(f"{name}: {self._text(result)}")
        return values[0] if values else None

    def _text(self, result: Any) -> str:
        found = [self._api.cuGetErrorName(result)[1], self._api.cuGetErrorString(result)[1]]  # None if unknown
        name, text = (part.decode() if part else str(int(result)) for part in found)
        return f"{name}, {text}" + (f": {ADVICE[name]}" if name in ADVICE else "")


@cache
def gpu_of(device: torch.device) -> Gpu:
    """The GPU with torch's device, e.g. cuda:0. Raises UserError for another kind of device, and CudaDriverError."""
    if device.type != "cuda":
        raise UserError(f"the CUDA kernel cannot run on {device}")
    return Gpu(device)
