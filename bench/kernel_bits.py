"""`python -m bench kernel_bits`: every implementation of the fused augmentation against the NumPy reference.

All options, types and image sizes; the bits must be equal. On a GPU the CUDA kernel and the tensor operations are
checked, on a CPU the compiled kernel and the tensor operations.
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.training import Device
from fastcifar.augment.reference import augment_one
from fastcifar.augment.transform import DTYPE_CODES, Transform
from fastcifar.augment.transform_cuda import CudaTransform
from fastcifar.augment.transform_device import DeviceTransform
from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.cli.parsing import parse
from fastcifar.config import AugmentConfig, Config
from fastcifar.errors import RunFailedError
from fastcifar.runtime.device import select_runtime

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
INDICES, SAMPLE_IDS = np.array([0, 7, 39, 7]), np.array([0, 49_999, 3, 2**62])
MANY, MANY_QUICK = 4999, 299
"""Images of a batch that fills a GPU; compared with the compiled CPU kernel, because the reference is slow."""
SIZES, EPOCHS = (32, 31, 24, 20, 16, 7), (1, 2**40)
SHOWN = 5  # differing cases that are named
Bits = Callable[[Transform, "Case"], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare implementations of the augmentation with the reference; exits with 1 if one differs or fails."""

    device: Device = "auto"
    """Device whose implementations are checked."""
    quick: bool = False
    """A few cases only."""


@dataclass(frozen=True)
class Case:
    """The arguments of a call."""

    config: AugmentConfig
    dtype: torch.dtype
    size: int
    epoch: int
    indices: np.ndarray = field(repr=False)
    sample_ids: np.ndarray = field(repr=False)


def main(arguments: list[str]) -> None:
    """Prints a line for each implementation, and JSON as the last line. Raises RunFailedError if one differs."""
    options = parse(Options, arguments, prog="python -m bench kernel_bits")
    device = select_runtime(Config(device=options.device)).device
    checked = implementations(device)
    found: dict[str, dict[str, Any]] = {name: {"cases": 0, "differing": []} for name in checked}
    for case, expected in expected_bits(options.quick):
        transform = Transform(case.config, MEAN, STD, seed=5, dtype=case.dtype)
        for name, bits in checked.items():
            _check(found[name], case, expected, functools.partial(bits, transform, case))
    for name, one in found.items():
        differing = one["differing"]
        print("\n  ".join([f"{name}: {one['cases']} cases, {len(differing)} differ", *differing[:SHOWN]]))
        one["differing"] = len(differing)
    print(json.dumps({"what": "kernel_bits", "device": device.type, "implementations": found}))
    if wrong := [name for name, one in found.items() if one["differing"]]:
        raise RunFailedError(f"{' and '.join(wrong)} differ from the reference; see above")


def _check(found: dict[str, Any], case: Case, expected: np.ndarray, bits: Callable[[], np.ndarray]) -> None:
    found["cases"] += 1
    if found["differing"] and found["differing"][-1].startswith("failed"):
        return  # it does not run at all: once is enough
    try:
        result = bits()
    except Exception as error:  # noqa: BLE001  (the others are checked in any case)
        found["differing"].append(f"failed for {case}: {type(error).__name__}: {error}")
        return
    if not np.array_equal(result, expected):
        values = np.count_nonzero(result != expected) if result.shape == expected.shape else "all"
        found["differing"].append(f"{case}, {len(case.indices)} images: {values} values differ")


def expected_bits(quick: bool) -> Iterator[tuple[Case, np.ndarray]]:
    """Cases with their bits (b, size, size, 3): small batches by the reference, large ones by the compiled kernel."""
    sizes = SIZES[: 2 if quick else None]
    for config, dtype, size, epoch in itertools.product(_configs(quick), DTYPE_CODES, sizes, EPOCHS):
        case = Case(config, dtype, size, epoch, INDICES, SAMPLE_IDS)
        transform = Transform(config, MEAN, STD, seed=5, dtype=dtype)
        pairs = zip(INDICES, SAMPLE_IDS.tolist(), strict=True)
        yield case, np.stack([augment_one(IMAGES[i], transform, epoch=epoch, sample_id=s, size=size) for i, s in pairs])
    many = MANY_QUICK if quick else MANY
    rows = np.random.default_rng(1).integers(0, len(IMAGES), many)
    for dtype, size in itertools.product(DTYPE_CODES, sizes):
        case = Case(AugmentConfig(), dtype, size, 3, rows, np.arange(many))
        yield case, _compiled(Transform(case.config, MEAN, STD, seed=5, dtype=dtype), case)


def _configs(quick: bool) -> list[AugmentConfig]:
    options = itertools.product(
        ((4, 8), (0, 0), (16, 7)), ("zero", "reflect"), ("alternating", "none", "random"), ("area", "crop")
    )
    found = [
        AugmentConfig(pad=pad, pad_mode=mode, flip=flip, cutout=cutout, small=small)
        for (pad, cutout), mode, flip, small in options
    ]
    return found[::9] if quick else found


def implementations(device: torch.device) -> dict[str, Bits]:
    """The implementations for a device by name."""
    found: dict[str, Bits] = {"Transform": _compiled}
    if device.type == "cuda":
        found = {"CudaTransform": _on_device(CudaTransform, device)}
    return found | {"TorchTransform": _on_device(TorchTransform, device)}


def _compiled(transform: Transform, case: Case) -> np.ndarray:
    return _bits(transform(IMAGES, case.indices, case.sample_ids, case.epoch, case.size))


def _on_device(kind: type[DeviceTransform], device: torch.device) -> Bits:
    images = torch.from_numpy(IMAGES).to(device)

    def bits(transform: Transform, case: Case) -> np.ndarray:
        indices, sample_ids = (torch.from_numpy(array).to(device) for array in (case.indices, case.sample_ids))
        return _bits(kind(transform, device)(images, indices, sample_ids, case.epoch, case.size))

    return bits


def _bits(images: torch.Tensor) -> np.ndarray:
    """(b, 3, s, s) to the bit patterns (b, s, s, 3), unsigned."""
    words = torch.int32 if images.dtype == torch.float32 else torch.int16
    pixels = images.permute(0, 2, 3, 1).contiguous().view(words).cpu().numpy()
    return pixels.view(np.uint32 if images.dtype == torch.float32 else np.uint16)
