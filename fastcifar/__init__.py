"""fastcifar: from raw CIFAR-10 to a trained ResNet in the least wall-clock, with figures you can trust.

Importing it only defines names: it probes no device, changes no thread count and compiles nothing. The names below are
loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcifar.analysis.evaluation import Evaluation
    from fastcifar.api import evaluate, load_run, open_loader, predict, recipe, train
    from fastcifar.config import (
        AugmentConfig,
        AugmentOp,
        Config,
        Draws,
        EvaluationConfig,
        ModelConfig,
        OptimizerConfig,
        ScheduleConfig,
        register_augment_op,
        register_evaluation,
        register_model,
        register_optimizer,
        register_schedule,
    )
    from fastcifar.errors import InterruptedRunError, RunFailedError, UserError
    from fastcifar.runs.load import TrainedRun

__version__ = "0.1.0"
__all__ = [
    "AugmentConfig",
    "AugmentOp",
    "Config",
    "Draws",
    "Evaluation",
    "EvaluationConfig",
    "InterruptedRunError",
    "ModelConfig",
    "OptimizerConfig",
    "RunFailedError",
    "ScheduleConfig",
    "TrainedRun",
    "UserError",
    "__version__",
    "evaluate",
    "load_run",
    "open_loader",
    "predict",
    "recipe",
    "register_augment_op",
    "register_evaluation",
    "register_model",
    "register_optimizer",
    "register_schedule",
    "train",
]
_ELSEWHERE = {
    **dict.fromkeys(("evaluate", "load_run", "open_loader", "predict", "recipe", "train"), "fastcifar.api"),
    **dict.fromkeys(("InterruptedRunError", "RunFailedError", "UserError"), "fastcifar.errors"),
    "Evaluation": "fastcifar.analysis.evaluation",
    "TrainedRun": "fastcifar.runs.load",
}
"""Modules of the names that do not come from `fastcifar.config`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_ELSEWHERE.get(name, "fastcifar.config")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
