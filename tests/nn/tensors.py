"""Random tensors for the tests of the CPU kernels, and the mark of tests that need float16 arithmetic."""

import pytest
import torch
from torch import Tensor

from fastcifar.runtime.device import cpu_facts, supports

needs_fp16 = pytest.mark.skipif("avx512_fp16" not in cpu_facts()[1], reason="this CPU has no AVX-512 FP16")
needs_amx = pytest.mark.skipif(not supports("amx"), reason="this CPU has no AMX")
PRECISIONS = [pytest.param(False, id="fp32"), pytest.param(True, id="fp16", marks=needs_fp16)]
KERNELS = ["winograd", pytest.param("winograd-fp16", marks=needs_fp16)]


def noise(*shape: int, seed: int) -> Tensor:
    """Normally distributed; with four dimensions channels_last."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x
