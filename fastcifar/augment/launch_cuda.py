"""Compiles, loads and launches the kernel of `kernel_cuda.py`, whose PTX is cached on disk.

`kernel_cuda.py` and with it numba-cuda are imported only to compile, so a process that finds the PTX needs neither.
"""

import ctypes
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from fastcifar import rng
from fastcifar.augment import pixel, transform_device
from fastcifar.augment.pixel import FLOAT32
from fastcifar.augment.transform import DTYPE_CODES, crop_size
from fastcifar.config import AugmentConfig
from fastcifar.data import cifar10
from fastcifar.data.cifar10 import CHANNELS, IMAGE_BYTES
from fastcifar.runtime import numba_cuda
from fastcifar.runtime.cuda_driver import Gpu
from fastcifar.runtime.kernel_cache import cached_text, source_digest

THREADS = IMAGE_BYTES // 16
"""Threads of a block, of which each loads 16 bytes of the image."""
NONE, RANDOM, ALTERNATING = 0, 1, 2
FLIPS = {"none": NONE, "random": RANDOM, "alternating": ALTERNATING}
DTYPE_NAMES = {code: str(dtype).removeprefix("torch.") for dtype, code in DTYPE_CODES.items()}
KINDS = (ctypes.c_void_p,) * 6 + (ctypes.c_int,) * 6
"""Types of the kernel's parameters: addresses of six arrays, and six numbers."""


def is_wide(dtype: int, size: int) -> bool:
    """Whether an image is a multiple of 16 bytes, so that it can be stored 16 bytes at a time."""
    return CHANNELS * size * size * (4 if dtype == FLOAT32 else 2) % 16 == 0


def ptx(dtype: int, wide: bool, capability: tuple[int, int]) -> str:
    """The kernel as PTX for a GPU's compute capability, from the disk cache or compiled (seconds).

    `dtype`: a code of `pixel.py`; `wide`: see `is_wide`. Raises UserError, see `numba_cuda.compile_to_ptx`.
    """

    def compiled() -> str:
        from fastcifar.augment import kernel_cuda

        arguments = kernel_cuda.signature(dtype, wide)
        return numba_cuda.compile_to_ptx(kernel_cuda.build(dtype, wide), arguments, capability)

    target = f"sm_{capability[0]}{capability[1]}"
    name = f"augment-{DTYPE_NAMES[dtype]}-{'wide' if wide else 'narrow'}-{target}.ptx"
    return cached_text(name, f"{name} {_versions()}", compiled)


@cache
def _versions() -> str:
    """What the PTX depends on besides its arguments: the kernel's sources and the compilers' versions."""
    here = Path(__file__)
    kernel = [here, here.with_name("kernel_cuda.py"), here.with_name("cuda_intrinsics.py")]
    digest = source_digest(*kernel, pixel, rng, cifar10, transform_device, numba_cuda)
    packages = ("numba-cuda", "numba", "llvmlite", "numpy", *numba_cuda.NVVM_PACKAGES)
    versions = [f"{name} {found.version}" for name in packages for found in metadata.distributions(name=name)]
    return " ".join((digest, *versions))


@cache
def _kernel(gpu: Gpu, dtype: int, wide: bool) -> Any:
    text = ptx(dtype, wide, gpu.capability())
    return gpu.load(text, re.findall(r"\.visible \.entry (\w+)", text)[0])


def launch(
    gpu: Gpu, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor, scale_and_bias: Tensor,
    config: AugmentConfig,
) -> None:  # fmt: skip
    """Queues the kernel on torch's current stream. After a first launch for the same kind of output, which loads or
    compiles the kernel, it allocates nothing, does not wait, and can be captured.

    Tensors on the GPU, all C-contiguous and not empty: `out` (b, size, size, 3) in float32, bfloat16 or float16, and
    `images` uint8 (n, 32, 32, 3), both at addresses that are multiples of 16; `indices`, `sample_ids`, `state` and
    `scale_and_bias` as in `kernel_cuda.build`. The indices are not checked: an index outside [0, n) reads foreign
    memory. Raises UserError and CudaDriverError.
    """
    blocks, size = out.shape[:2]
    dtype = DTYPE_CODES[out.dtype]
    values = (
        images.data_ptr(), indices.data_ptr(), sample_ids.data_ptr(), state.data_ptr(), scale_and_bias.data_ptr(),
        out.data_ptr(), config.pad, int(config.pad_mode == "reflect"), crop_size(config, size), FLIPS[config.flip],
        config.cutout, size,
    )  # fmt: skip
    gpu.launch(_kernel(gpu, dtype, is_wide(dtype, size)), blocks, THREADS, values, KINDS)
