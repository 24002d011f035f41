"""Every tunable of a training run, as frozen dataclasses: the command line and the TOML files are these fields."""

from fastcifar.config.components import (
    NO_AUGMENTATION,
    AdamConfig,
    AugmentConfig,
    FfcvNetConfig,
    MuonConfig,
    ResNet18Config,
    ResNetConfig,
    ScheduleConfig,
    SgdConfig,
    SpeedNetConfig,
)
from fastcifar.config.schema import (
    EVALUATION_NAMES,
    KERNEL_NAMES,
    Config,
    CpuKernels,
    ModelConfig,
    OptimizerConfig,
    checkpoint_interval,
    evaluations_of,
)

__all__ = [
    "EVALUATION_NAMES",
    "KERNEL_NAMES",
    "NO_AUGMENTATION",
    "AdamConfig",
    "AugmentConfig",
    "Config",
    "CpuKernels",
    "FfcvNetConfig",
    "ModelConfig",
    "MuonConfig",
    "OptimizerConfig",
    "ResNet18Config",
    "ResNetConfig",
    "ScheduleConfig",
    "SgdConfig",
    "SpeedNetConfig",
    "checkpoint_interval",
    "evaluations_of",
]
