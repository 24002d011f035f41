"""Loading and launching by the driver API: on stand-ins for the driver, as this needs no GPU."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastcifar.errors import RunFailedError, UserError
from fastcifar.runtime.cuda_driver import CudaDriverError, Gpu, gpu_of

PTX = ".entry name()"
KINDS = (ctypes.c_void_p, ctypes.c_int)


class Driver:
    """Remembers its calls, and the contexts of each thread; the calls named in `errors` return these."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=9, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=0
    )

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.contexts: dict[int, list[Any]] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            stack = self.contexts.setdefault(threading.get_ident(), [])
            self.calls.append((name, *arguments, *stack[-1:]))
            if name in self.errors:
                return (self.errors[name],)
            if name == "cuCtxPushCurrent":
                stack.append(arguments[0])
            if name == "cuCtxPopCurrent":
                stack.pop()
            return 0, " ".join((name, *map(str, arguments[-1:])))

        return call

    def cuGetErrorName(self, error: int) -> tuple[int, bytes | None]:  # noqa: N802
        names = {222: b"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", 218: b"CUDA_ERROR_INVALID_PTX", 700: b"CUDA_ERROR_OTHER"}
        return int(error not in names), names.get(error)

    def cuGetErrorString(self, error: int) -> tuple[int, bytes | None]:  # noqa: N802
        return (0, b"the text") if error in (222, 218, 700) else (1, None)


class AnyGpu(Gpu):
    def stream(self) -> int:
        return 7


def used(driver: Driver, index: int = 0) -> None:
    gpu = AnyGpu(torch.device("cuda", index), driver)
    gpu.capability()
    gpu.launch(gpu.load(PTX, "name"), 3, 192, (2**63, -1), KINDS)


def test_every_call_works_in_the_devices_own_context_and_leaves_the_threads_as_it_was() -> None:
    driver, stack = Driver(), ["context of another GPU"]
    driver.contexts[threading.get_ident()] = stack
    used(driver, index=1)
    own = "cuDevicePrimaryCtxRetain cuDeviceGet 1"
    in_context = ("cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel")
    assert [call for call in driver.calls if call[0] in in_context] == [
        ("cuModuleLoadData", b".entry name()\0", own),
        ("cuModuleGetFunction", "cuModuleLoadData b'.entry name()\\x00'", b"name", own),
        ("cuLaunchKernel", "cuModuleGetFunction b'name'", 3, 1, 1, 192, 1, 1, 0, 7, ((2**63, -1), KINDS), 0, own),
    ]  # fmt: skip
    assert stack == ["context of another GPU"]


def test_a_thread_without_a_context_gets_one_for_the_call() -> None:
    driver = Driver()
    thread = threading.Thread(target=used, args=(driver,))
    thread.start()
    thread.join()
    assert driver.calls[-2][-1] == "cuDevicePrimaryCtxRetain cuDeviceGet 0"
    assert list(driver.contexts.values()) == [[]]


CALLS = (
    "cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuDeviceGetAttribute", "cuCtxPushCurrent", "cuModuleLoadData",
    "cuModuleGetFunction", "cuLaunchKernel", "cuCtxPopCurrent",
)  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_an_error_of_any_call_is_raised_with_its_names(name: str) -> None:
    driver = Driver()
    driver.errors[name] = 700
    with pytest.raises(CudaDriverError, match=f"^{name}: CUDA_ERROR_OTHER, the text$"):
        used(driver)
    if name != "cuCtxPopCurrent":
        assert driver.contexts == {threading.get_ident(): []}


def test_the_list_of_calls_is_complete() -> None:
    driver = Driver()
    used(driver)
    assert {call[0] for call in driver.calls} == set(CALLS)


@pytest.mark.parametrize(("error", "advice"), [(222, "update the driver"), (218, "doctor"), (12345, "12345")])
def test_errors_of_loading_come_with_advice_and_unknown_ones_with_their_number(error: int, advice: str) -> None:
    driver = Driver()
    driver.errors["cuModuleLoadData"] = error
    with pytest.raises(RunFailedError, match=f"cuModuleLoadData: .*{advice}"):
        used(driver)


def test_only_a_cuda_device_is_a_gpu() -> None:
    with pytest.raises(UserError, match="cpu"):
        gpu_of(torch.device("cpu"))


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_nvidias_bindings_pass_what_the_launcher_gives_them(tmp_path: Path) -> None:
    """The bindings themselves, over a library in place of the driver's."""
    here = Path(__file__).parent
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", library, here / "libcuda.c", "-ldl"], check=True)
    code = """
import ctypes, torch
from fastcifar.runtime.cuda_driver import CudaDriverError, Gpu
class G(Gpu):
    handle = 7
    def stream(self): return self.handle
gpu = G(torch.device("cuda", 3))
major, minor = gpu.capability()
kernel = gpu.load("PTX", "name")
def launch(): gpu.launch(kernel, 5, 192, (2**63 + 1, -2), (ctypes.c_void_p, ctypes.c_int))
launch()
gpu.handle = 222
try:
    launch()
except CudaDriverError as error:
    message = str(error)
print(major, minor, message)
"""
    environment = os.environ | {"PYTHONPATH": str(here.parents[1]), "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    launched = "launch 0x30 5 1 1 192 1 1 0 {} 0 8000000000000001 -2"
    assert sorted(done.stdout.splitlines()) == sorted([
        "push 0x13", "load PTX", "function 0x20 name", "pop",
        "push 0x13", launched.format("0x7"), "pop",
        "push 0x13", launched.format("0xde"), "pop",
        "75 76 cuLaunchKernel: CUDA_ERROR_NAME, a text",
    ])  # fmt: skip
