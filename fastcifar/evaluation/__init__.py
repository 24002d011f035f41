"""Test accuracy: single view and test-time augmentation (TTA), one file each. Every run is evaluated by two of them."""

from fastcifar.config import EvaluationConfig
from fastcifar.config.registry import EVALUATIONS

SINGLE_VIEW, DEFAULT_TTA = "single_view", "flip_tta"


def tta_of(primary: EvaluationConfig) -> EvaluationConfig:
    """The evaluation beside single view: the primary metric, or flip TTA where that is single view itself."""
    return EVALUATIONS[DEFAULT_TTA]() if EVALUATIONS.name_of(primary) == SINGLE_VIEW else primary


def evaluations_of(primary: str) -> dict[str, str]:
    """The two evaluations of a run and their display names: single view, then TTA. `primary` is a registered name."""
    second = DEFAULT_TTA if primary == SINGLE_VIEW else primary
    return {name: title_of(name) for name in (SINGLE_VIEW, second)}


def title_of(name: str) -> str:
    """The display name of an evaluation; raises UserError for an unknown one."""
    return EVALUATIONS[name].title or name
