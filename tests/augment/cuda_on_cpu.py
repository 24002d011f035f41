"""A GPU that is not there: `CudaTransform` on CPU tensors, with a driver that runs the kernel's functions on the CPU.

numba types the functions as for a GPU and compiles them for the CPU. This differs from numba's simulator, which runs
them as Python: numba's uint32 + uint32 is a uint64, so what wraps around in NumPy need not wrap around in a kernel.
"""

import ctypes
import importlib.util
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numba
import numpy as np
import torch
from numba import extending, types

from fastcifar.augment import launch_cuda
from fastcifar.augment.pixel import FLOAT32
from fastcifar.runtime import numba_cuda
from fastcifar.runtime.cuda_driver import Gpu

CONTEXT, MODULE = "context", "module"


@cache
def kernel_on_cpu() -> ModuleType:
    """A second copy of `kernel_cuda`, whose functions are compiled for the CPU."""
    fake = SimpleNamespace(jit=lambda device, inline: numba.njit(inline=inline), extending=extending)
    with mock.patch.object(numba_cuda, "import_numba_cuda", return_value=fake), mock.patch.dict(sys.modules):
        for name in ("cuda_intrinsics", "kernel_cuda"):
            path = Path(launch_cuda.__file__).with_name(f"{name}.py")
            spec: Any = importlib.util.spec_from_file_location(f"fastcifar.augment.{name}", path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
    return module


def _pointer(typing_context: Any, address: Any, item: Any) -> Any:

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(item.dtype)(types.uint64, item), code


pointer: Any = extending.intrinsic(_pointer)
"""pointer(address, dtype): the pointer that a kernel on a GPU gets."""


@cache
def block_by_block(dtype: int, wide: bool) -> Callable[..., None]:
    """The kernel with the threads of a block one after the other: all up to the barrier, then all from there on."""
    kernel = kernel_on_cpu()
    load, store, words, threads = kernel._load, kernel._build_store(dtype, wide), kernel.WORDS, kernel.THREADS
    word = np.uint64 if wide else np.uint32 if dtype == FLOAT32 else np.uint16

    @numba.njit
    def run(blocks, images, indices, ids, state, scale_and_bias, out, pad, reflect, crop_size, flip, cutout, size):
        stored, rows, samples = pointer(images, np.uint64), pointer(indices, np.int64), pointer(ids, np.int64)
        state_, normalise, bits = pointer(state, np.int64), pointer(scale_and_bias, np.float32), pointer(out, word)
        tile, geometry = np.empty(words, np.uint64), np.empty(5, np.int32)
        for image in range(blocks):
            for thread in range(threads):
                load(thread, image, tile, geometry, stored, rows, samples, state_, pad, crop_size, flip, cutout)
            for thread in range(threads):
                store(thread, image, tile, geometry, reflect, crop_size, cutout, size, normalise, bits)

    return run


class CpuDriver:
    """What `Gpu` calls of `cuda.bindings.driver`. The current context is each thread's own, as in the driver."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=9, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=0
    )

    def __init__(self) -> None:
        self.thread, self.streams = threading.local(), []
        self.cuInit = self.cuDeviceGet = lambda *_: (0, 0)
        self.cuDeviceGetAttribute = lambda which, device: (0, which)
        self.cuDevicePrimaryCtxRetain = lambda device: (0, CONTEXT)

    def cuCtxPushCurrent(self, context: str) -> tuple[int]:  # noqa: N802  (the driver's names)
        self.thread.context = context
        return (0,)

    def cuCtxPopCurrent(self) -> tuple[int, str]:  # noqa: N802
        del self.thread.context
        return 0, CONTEXT

    def cuModuleLoadData(self, image: bytes) -> tuple[int, str]:  # noqa: N802
        assert self.thread.context == CONTEXT
        return 0, MODULE

    def cuModuleGetFunction(self, module: str, name: bytes) -> tuple[int, Any]:  # noqa: N802
        assert module == MODULE
        _, dtype, wide = name.decode().split("_")
        return 0, block_by_block(int(dtype), bool(int(wide)))

    def cuLaunchKernel(self, run: Any, *launch: Any) -> tuple[int]:  # noqa: N802
        assert self.thread.context == CONTEXT
        blocks, *others, stream, (values, kinds), extra = launch
        assert (others, extra) == ([1, 1, launch_cuda.THREADS, 1, 1, 0], 0)
        sized = {ctypes.c_void_p: np.uint64, ctypes.c_int: np.int32}
        arguments = [sized[kind](kind(value).value) for value, kind in zip(values, kinds, strict=True)]
        run(np.int32(blocks), *arguments)
        self.streams.append(stream)
        return (0,)


class CpuGpu(Gpu):
    """Runs launches at once, on CPU tensors."""

    def __init__(self) -> None:
        self.driver = CpuDriver()
        super().__init__(torch.device("cpu"), self.driver)

    def stream(self) -> int:
        return id(torch.cpu.current_stream())


def named_ptx(dtype: int, wide: bool, capability: tuple[int, int]) -> str:
    """In place of `launch_cuda.ptx`: its kernel's name says which kernel it is."""
    assert capability == (9, 0)
    return f".visible .entry augment_{dtype}_{int(wide)}("
