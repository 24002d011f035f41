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
    KERNEL_NAMES,
    VIEW_NAMES,
    Config,
    CpuKernels,
    ModelConfig,
    OptimizerConfig,
    checkpoint_interval,
    views_of,
)

__all__ = [
    "KERNEL_NAMES",
    "NO_AUGMENTATION",
    "VIEW_NAMES",
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
    "views_of",
]
