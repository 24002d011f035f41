"""Every tunable, as frozen dataclasses: unit, meaning, source. The command line and the TOML files are these fields."""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

from fastcifar.config.components import (
    AdamConfig,
    AugmentConfig,
    FfcvNetConfig,
    MuonConfig,
    ResNet18Config,
    ResNetConfig,
    ScheduleConfig,
    SgdConfig,
    SpeedNetConfig,
    require,
    require_finite,
)

LARGEST_SEED = 2**63 - 1
ModelConfig = ResNetConfig | SpeedNetConfig | ResNet18Config | FfcvNetConfig
CpuKernels = Literal["torch", "winograd", "winograd-fp16"]
KERNEL_NAMES: dict[str, str] = {"torch": "torch's", "winograd": "ours", "winograd-fp16": "ours, in float16"}
"""The kinds of kernels that layers on a CPU may use, as people read them."""
OptimizerConfig = SgdConfig | AdamConfig | MuonConfig
EVALUATION_NAMES = {"single_view": "one view", "flip_tta": "mirrored views", "selective_tta": "six when unsure"}
"""The kinds of evaluation, as people read them."""


def evaluations_of(evaluation: str) -> dict[str, str]:
    """The two kinds of views a run is evaluated by, and their names: one view, and that of its recipe or mirrored."""
    kinds = (
        "single_view",
        evaluation if evaluation in EVALUATION_NAMES and evaluation != "single_view" else "flip_tta",
    )
    return {kind: EVALUATION_NAMES[kind] for kind in kinds}


def checkpoint_interval(every: str) -> tuple[int, float]:
    """Steps and seconds between checkpoints, of which one is 0; raises UserError for what is neither."""
    seconds, number = every.endswith("s"), every.removesuffix("s")
    valid = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?" if seconds else "[0-9]{1,9}", number)
    require(valid is not None, f'checkpoint_every is {every!r}, but must be steps ("500"), seconds ("60s") or "0"')
    return (0, float(number)) if seconds else (int(number), 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A whole training run. What is not given comes from the recipe."""

    recipe: str = "smoke"
    """The named recipe these values started from."""
    seed: int = 0
    """Everything random in the run follows from it, 0 to 2**63 - 1."""
    epochs: float = 24.0
    """Passes over the training set; a fraction ends within an epoch."""
    batch_size: int = 512
    """Images a step; a last, smaller batch of an epoch is left out."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in [0, 1) (arXiv 1512.00567)."""
    resolution: tuple[tuple[float, int], ...] = ((1.0, 32),)
    """Side of the training images: (fraction of the steps until which, pixels), ascending fractions, the last one 1."""
    evaluation: Literal["single_view", "flip_tta", "selective_tta"] = "single_view"
    """The evaluation that counts: one view of a test image; the mean of the logits of it and its mirror image; or,
    for the fifth of the images that one view is least sure of, of six views, mirrored and moved by a pixel."""
    evaluate_every: int = 0
    """Epochs between evaluations while training, off the train clock; 0 evaluates at the end only."""
    evaluation_batch_size: int = 1000
    """Images a batch in evaluations; no influence on the result."""
    model: ModelConfig = field(default_factory=ResNetConfig)
    """The network."""
    optimizer: OptimizerConfig = field(default_factory=SgdConfig)
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate against steps."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What happens to the training images."""
    loader: Literal["auto", "resident", "stream"] = "auto"
    """Images in memory, or FFCV's streaming reader, with the same batches; auto takes memory where they fit well."""
    amp: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the arithmetic in the network; auto takes the fastest that the device supports well."""
    cpu_kernels: Literal["auto", "winograd-fp16", "winograd", "torch"] = "auto"
    """Layers on a CPU in float32: torch's kernels, our own, or those with convolutions in float16. auto
    takes ours where the CPU has AVX-512, with float16 where that is part of it and amp is auto."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU where there is one."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice. Bits repeat for the same number."""
    graph: bool = False
    """On a GPU, the step as a CUDA graph; the ordinary one where it cannot be recorded."""
    deterministic: bool = False
    """On a GPU, only operations whose bits repeat, which are slower; on a CPU they always do."""
    checkpoint_every: str = "60s"
    """When a checkpoint is written: every so many steps ("500") or seconds ("60s"); "0" for never."""
    checkpoint_keep: int = 2
    """Checkpoints kept of a run under way; a finished one keeps its last."""
    data: Path = Path("data")
    """Folder that `fastcifar prepare` wrote."""
    runs: Path = Path("runs")
    """Folder in which the run's own folder is made."""

    def __post_init__(self) -> None:
        for name in ("data", "runs"):
            path = str(getattr(self, name))
            require("\0" not in path, f"{name} is {path!r}, but a path has no NUL")
        require(0 <= self.seed <= LARGEST_SEED, f"seed is {self.seed}, but must be between 0 and 2**63 - 1")
        require_finite(self)
        require(0 < self.epochs <= 1e6, f"epochs is {self.epochs}, but must be above 0 and at most a million")
        for name in ("batch_size", "evaluation_batch_size"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, but must be at least 1")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, f"label_smoothing is {smoothing}, but must be at least 0 and below 1")
        require(self.evaluate_every >= 0, f"evaluate_every is {self.evaluate_every}, but must not be negative")
        checkpoint_interval(self.checkpoint_every)
        require(self.checkpoint_keep >= 1, f"checkpoint_keep is {self.checkpoint_keep}, but must be at least 1")
        require(self.threads is None or 1 <= self.threads <= 1024, f"threads is {self.threads}, but must be 1 to 1024")
        require(
            self.schedule.peak_epoch <= self.epochs,
            f"schedule.peak_epoch is {self.schedule.peak_epoch:g}, but the run ends at epoch {self.epochs:g}; lower it",
        )
        self._check_resolution()

    def _check_resolution(self) -> None:
        fractions = [fraction for fraction, _ in self.resolution]
        require(
            bool(fractions) and all(a < b for a, b in pairwise([0.0, *fractions])) and fractions[-1] == 1,
            f"resolution is {self.resolution}, but its fractions must ascend to 1",
        )
        require(
            all(16 <= size <= 32 for _, size in self.resolution),
            f"resolution is {self.resolution}, but its sides must be between 16 and 32 pixels",
        )
        if isinstance(self.model, SpeedNetConfig):
            smallest, blocks = min(size for _, size in self.resolution), len(self.model.widths)
            require(
                smallest - 1 >= 2**blocks,  # the stem takes a pixel, a block halves
                f"resolution goes down to {smallest} pixels, too few for the {blocks} blocks of model.widths",
            )
