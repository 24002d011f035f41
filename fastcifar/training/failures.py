"""Failures of the machine during a run, as errors that say what to do."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import torch

from fastcifar.errors import RunFailedError

OUT_OF_MEMORY = re.compile("out of memory|allocate memory|_ALLOC_FAILED", re.IGNORECASE)
ON_GPU = re.compile("CUDA|CUDNN|CUBLAS|HIP")
GPU_FAILURES = {
    "no kernel image is available": "this torch was not built for the GPU; install one that is, or use --device cpu",
    "driver version is insufficient": "update its driver, or install a torch for an older CUDA",
    "device-side assert": "an index is out of range, such as a label; CUDA_LAUNCH_BLOCKING=1 and --debug show where",
    "illegal memory access|misaligned address|illegal instruction": (
        "please report this with what CUDA_LAUNCH_BLOCKING=1 and --debug show"
    ),
    "unspecified launch failure|ECC error|fallen off the bus|launch timed out|_EXECUTION_FAILED|unknown error": (
        "the cause may be the hardware or its driver; see nvidia-smi and the log of the system"
    ),
    "busy or unavailable": "another process has the GPU to itself; end that, or choose another --device",
}
"""What CUDA, cuDNN and cuBLAS say of failures that users meet, and what to do."""


def resume_command(folder: Path) -> str:
    """The command that resumes the run in `folder`."""
    return f"fastcifar train --resume {shlex.quote(str(folder))}"


@contextlib.contextmanager
def translate_failures(batch_size: int, folder: Path, device: torch.device) -> Iterator[None]:
    """Turns I/O errors, lack of memory and failures of `device` into RunFailedError with advice; other errors pass."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFailedError(f"{folder}: {reason}; fix this, then resume with {resume_command(folder)}") from error
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(text):
            advice = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller network"
            if device.type == "cuda" and ON_GPU.search(text) and (other := _gpu_with_more_memory(device)):
                advice += f" or --device {other}, which has more free memory"
            raise RunFailedError(f"out of memory with batch_size {batch_size}; try {advice}") from error
        if advice := _advice_on_gpu(text):
            raise RunFailedError(f"{device} failed: {advice}; then resume with {resume_command(folder)}") from error
        raise


def _gpu_with_more_memory(device: torch.device) -> torch.device | None:
    """The GPU with the most free memory, if that is more than `device` would have without this process."""
    with contextlib.suppress(RuntimeError):  # such as a GPU that another process has to itself
        gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        free = {gpu: torch.cuda.mem_get_info(gpu)[0] for gpu in gpus}
        free[device] += torch.cuda.memory_reserved(device)
        most = max(gpus, key=free.__getitem__)
        return most if most != device and free[most] > free[device] else None
    return None


def _advice_on_gpu(text: str) -> str:
    """The failure that an error's text names, and what to do about it; empty if it is not one of GPU_FAILURES."""
    for pattern, advice in GPU_FAILURES.items():
        found = re.search(f"[^:\n]*(?:{pattern})[^:\n]*", text)
        if found and ON_GPU.search(text):
            return f"{found[0].strip()}; {advice}"
    return ""
