"""The configuration of a training run. Its fields are the flags of the command line and the keys of TOML files."""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from fastcifar.config.components import (
    AugmentConfig,
    AugmentOp,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    require,
    require_each,
    require_finite,
)
from fastcifar.config.registry import AUGMENT_OPS, EVALUATIONS, MODELS, OPTIMIZERS, REGISTRIES, SCHEDULES
from fastcifar.config.types import normalise
from fastcifar.errors import UserError, shown

LARGEST_SEED = 2**63 - 1
CpuKernels = Literal["torch", "winograd", "winograd-fp16", "amx"]
Kernels = CpuKernels | Literal["compiled"]
"""What computes the layers of a network: `CpuKernels`, or PyTorch's compiled (`Config.compile`)."""
KERNEL_NAMES: dict[str, str] = {
    "torch": "PyTorch",
    "winograd": "Winograd",
    "winograd-fp16": "Winograd, float16",
    "amx": "AMX, bfloat16",
}
"""Display names of the CPU kernels."""


def checkpoint_interval(every: str) -> tuple[int, float]:
    """Steps and seconds between checkpoints, at least one of them 0; raises UserError for any other text."""
    seconds, number = every.endswith("s"), every.removesuffix("s")
    valid = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?" if seconds else "[0-9]{1,9}", number)
    require(valid is not None, f'checkpoint_every is {every!r}, but must be steps ("500"), seconds ("60s") or "0"')
    return (0, float(number)) if seconds else (int(number), 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A training run. Fields that are not given keep the values of the recipe."""

    recipe: str = "smoke"
    """Named recipe that the other values start from."""
    seed: int = 0
    """Seed of everything random in the run, 0 to 2**63 - 1."""
    epochs: float = 24.0
    """Passes over the training set, above 0 and at most 1e6; a fractional last epoch ends early."""
    batch_size: int = 512
    """Training images per step, at least 1; the smaller last batch of an epoch is dropped."""
    label_smoothing: float = 0.0
    """Fraction of the target that is spread evenly over all classes, in [0, 1) (arXiv 1512.00567)."""
    resolution: tuple[tuple[float, int], ...] = ((1.0, 32),)
    """Side of the training images: stages (end, pixels), each until `end` as a fraction of all steps.
    Ends ascend to 1, pixels are 16 to 32."""
    evaluate_every: int = 0
    """Epochs between evaluations during training, excluded from the train clock; 0 evaluates only at the end."""
    evaluation_batch_size: int = 1000
    """Images per batch in evaluations, at least 1; no influence on the result beyond rounding."""
    model: ModelConfig = field(default_factory=lambda: MODELS["resnet"]())
    """Network; --model NAME chooses another one."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OPTIMIZERS["sgd"]())
    """Optimiser; --optimizer NAME chooses another one."""
    schedule: ScheduleConfig = field(default_factory=lambda: SCHEDULES["one_cycle"]())
    """Learning rate schedule; --schedule NAME chooses another one."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation of training images, in one fused kernel."""
    augment_op: AugmentOp = field(default_factory=lambda: AUGMENT_OPS["none"]())
    """Operation on batches of training images after the fused kernel; --augment-op NAME chooses another one."""
    evaluation: EvaluationConfig = field(default_factory=lambda: EVALUATIONS["single_view"]())
    """Primary metric; --evaluation NAME chooses another one."""
    loader: Literal["auto", "resident", "stream"] = "auto"
    """resident: the whole set in memory. stream: FFCV's reader, with the same batches.
    auto: resident if the set fits in half of the free memory."""
    amp: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Floating-point type of the network's arithmetic; auto takes the fastest that the device supports well."""
    cpu_kernels: Literal["auto", "amx", "winograd-fp16", "winograd", "torch"] = "auto"
    """Kernels on a CPU: PyTorch's, fused Winograd kernels in float32 or with convolutions in float16, or fused direct
    ones in bfloat16 on AMX. auto: the last in this order that the CPU has, if amp allows it; torch without AVX-512."""
    device: str = "auto"
    """Device to train on: auto, cpu, cuda, cuda:1 for the second GPU, or mps; auto takes a GPU if there is one."""
    threads: int | None = None
    """CPU threads, 1 to 1024; None keeps PyTorch's default. Results are bit-identical for the same number."""
    weights: Literal["float32", "amp"] = "float32"
    """Type in which the filters of convolutions are kept between steps; amp needs fewer casts, but rounds updates."""
    graph: bool = True
    """Replay the training step as a CUDA graph on a GPU; where it cannot be captured, the ordinary step is taken."""
    compile: bool = False
    """Compile pooling, batch norm and activation with torch.compile on a GPU, before the run clock starts."""
    strict: bool = False
    """Refuse to train if the self-check on a GPU fails, instead of taking the next best way."""
    deterministic: bool = False
    """Use only bit-reproducible operations on a GPU, which is slower; on a CPU all of them are."""
    checkpoint_every: str = "60s"
    """Interval between checkpoints: steps ("500") or seconds ("60s"); "0" writes none."""
    checkpoint_keep: int = 2
    """Checkpoints kept during a run, at least 1; a finished run keeps the last one."""
    data: Path = Path("data")
    """Folder written by `fastcifar prepare`."""
    runs: Path = Path("runs")
    """Folder in which the folder of the run is created."""

    def __post_init__(self) -> None:
        self._normalise()
        for name in ("data", "runs"):
            path = str(getattr(self, name))
            require("\0" not in path, f"{name} is {path!r}, but must not contain NUL")
        require(0 <= self.seed <= LARGEST_SEED, f"seed is {self.seed}, but must be between 0 and 2**63 - 1")
        require_finite(self)
        require(0 < self.epochs <= 1e6, f"epochs is {self.epochs}, but must be above 0 and at most a million")
        counts = ("batch_size", "evaluation_batch_size", "checkpoint_keep")
        require_each(self, "", counts, lambda count: count >= 1, "at least 1")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, f"label_smoothing is {smoothing}, but must be at least 0 and below 1")
        require(self.evaluate_every >= 0, f"evaluate_every is {self.evaluate_every}, but must not be negative")
        checkpoint_interval(self.checkpoint_every)
        valid = re.fullmatch("auto|cpu|mps|cuda(:[0-9]{1,3})?", self.device) is not None
        require(valid, f"device is {self.device!r}, but must be auto, cpu, cuda, cuda:1 for the second GPU, or mps")
        require(self.threads is None or 1 <= self.threads <= 1024, f"threads is {self.threads}, but must be 1 to 1024")
        self.schedule.check(self.epochs)
        self._check_resolution()

    def _normalise(self) -> None:
        """Checks the types; the name of a component stands for the component with its defaults."""
        for section, registry in REGISTRIES.items():
            component = getattr(self, section)
            if isinstance(component, str):
                object.__setattr__(self, section, registry[component]())
            elif not isinstance(component, registry.base):
                wanted = f"a name, or an instance of a {registry.base.__name__}"
                raise UserError(f"{section} is {shown(component)}, but must be {wanted}")
        require(isinstance(self.augment, AugmentConfig), f"augment is {shown(self.augment)}, but must be AugmentConfig")
        sections = (*REGISTRIES, "augment")
        normalise(self, skip=sections)
        for section in sections:
            normalise(getattr(self, section), f"{section}.")

    def _check_resolution(self) -> None:
        ends = [end for end, _ in self.resolution]
        require(
            bool(ends) and all(a < b for a, b in pairwise([0.0, *ends])) and ends[-1] == 1,
            f"resolution is {shown(self.resolution)}, but its ends must ascend from above 0 to 1",
        )
        require(
            all(16 <= size <= 32 for _, size in self.resolution),
            f"resolution is {shown(self.resolution)}, but its pixels must be between 16 and 32",
        )
        smallest, needed = min(size for _, size in self.resolution), self.model.min_image_size
        require(
            smallest >= needed,
            f"resolution goes down to {smallest} pixels, but the model needs at least {needed}",
        )
