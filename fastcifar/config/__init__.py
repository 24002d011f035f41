"""Every tunable of a training run, as frozen dataclasses: the command line and the TOML files are these fields."""

from fastcifar.config.components import (
    NO_AUGMENTATION,
    AugmentConfig,
    AugmentOp,
    Draws,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from fastcifar.config.registry import (
    register_augment_op,
    register_evaluation,
    register_model,
    register_optimizer,
    register_schedule,
)
from fastcifar.config.schema import KERNEL_NAMES, Config, CpuKernels, Kernels, checkpoint_interval

__all__ = [
    "KERNEL_NAMES",
    "NO_AUGMENTATION",
    "AugmentConfig",
    "AugmentOp",
    "Config",
    "CpuKernels",
    "Draws",
    "EvaluationConfig",
    "Kernels",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "checkpoint_interval",
    "register_augment_op",
    "register_evaluation",
    "register_model",
    "register_optimizer",
    "register_schedule",
]
