"""Single view: each test image once, as it is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fastcifar.config import EvaluationConfig, register_evaluation


@register_evaluation("single_view")
@dataclass(frozen=True, kw_only=True, slots=True)
class SingleView(EvaluationConfig):
    """Each test image once."""

    title: ClassVar[str] = "single view"
    summary: ClassVar[str] = "logits of the image itself"

    def logits(
        self, predict: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], single_view: Tensor
    ) -> Tensor:
        """See `EvaluationConfig.logits`."""
        return single_view
