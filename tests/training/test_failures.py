"""Failures of the machine as errors with advice; test_resume.py has those that a training meets on any machine."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastcifar.errors import RunFailedError
from fastcifar.training.failures import translate_failures

FakeGpus = Callable[..., None]
GIB = 2**30
CUDA_0, CUDA_1 = torch.device("cuda", 0), torch.device("cuda", 1)


def failure(error: Exception, device: torch.device = CUDA_0, batch_size: int = 50) -> str:
    """The line of the run that fails by `error` in the folder runs/a."""
    with pytest.raises(RunFailedError) as caught, translate_failures(batch_size, Path("runs/a"), device):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_out_of_memory_names_a_gpu_with_more_free_memory(error: Exception, fake_gpus: FakeGpus) -> None:
    full, free = {"free": GIB, "reserved": 20 * GIB}, {"free": 70 * GIB}
    fake_gpus(full, free)
    assert "--batch-size 25 or --device cuda:1" in failure(error)
    fake_gpus(full, {"free": 30 * GIB}, free)
    assert "--device cuda:2" in failure(error)
    assert "--device" not in failure(error, torch.device("cuda", 2))
    for only in ((full,), (full, {"free": 21 * GIB})):  # the process itself takes 20
        fake_gpus(*only)
        assert "--batch-size 25" in failure(error)
        assert "--device" not in failure(error)
    assert "a smaller network" in failure(error, batch_size=1)


def test_a_lack_of_the_hosts_memory_is_no_reason_for_another_gpu(fake_gpus: FakeGpus) -> None:
    fake_gpus({"free": GIB}, {"free": 70 * GIB})
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")):
        assert "--device" not in failure(error)


def test_gpus_that_cannot_be_asked(fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(device: object) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")

    fake_gpus({}, {})
    monkeypatch.setattr(torch.cuda, "mem_get_info", busy)
    assert "--batch-size 25" in failure(OUT_OF_MEMORY[0])


HINT = "\nCUDA kernel errors might be asynchronously reported at some other API call\nCompile with `TORCH_USE_CUDA_DSA`"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CUDA error: no kernel image is available for execution on the device" + HINT, "no kernel image"),
        ("CUDA error: CUDA driver version is insufficient for CUDA runtime version" + HINT, "driver version"),
        ("CUDA error: device-side assert triggered" + HINT, "device-side assert triggered"),
        ("CUDA error: unspecified launch failure" + HINT, "unspecified launch failure"),
        ("CUDA error: an illegal memory access was encountered" + HINT, "illegal memory access"),
        ("CUDA error: uncorrectable ECC error encountered" + HINT, "uncorrectable ECC error"),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`", "CUBLAS_STATUS_EXECUTION"),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_EXECUTION_FAILED"),
        ("HIP error: unspecified launch failure", "unspecified launch failure"),
        ("CUDA error: all CUDA-capable devices are busy or unavailable" + HINT, "busy or unavailable"),
    ],
)
def test_a_gpu_that_fails_is_named_with_the_reason(text: str, reason: str) -> None:
    line = failure(RuntimeError(text), CUDA_1)
    assert reason in line
    assert "cuda:1" in line
    assert "--resume runs/a" in line
    assert "asynchronously" not in line


@pytest.mark.parametrize("text", ["unknown error", "CUDA error: operation not permitted when stream is capturing"])
def test_other_errors_stay_what_they_are(text: str) -> None:
    error = RuntimeError(text)
    with pytest.raises(RuntimeError) as caught, translate_failures(50, Path("runs/a"), CUDA_0):
        raise error
    assert caught.value is error
