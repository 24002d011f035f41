"""All that changes from step to step, taken out of a run and put back, bit for bit."""

from typing import Any

import torch
from torch import Tensor

from fastcifar.errors import UserError
from fastcifar.runs.checkpoint import copy_into
from fastcifar.training.history import History
from fastcifar.training.step import TrainStep


class TrainingState:
    """Weights, statistics, the optimiser's memory, the gradient scaler, torch's random generators and the losses."""

    def __init__(self, step: TrainStep, history: History) -> None:
        self._step, self._history = step, history
        self._device = step.runtime.device

    def capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors themselves, by name, and the rest for JSON; waits for the device."""
        tensors = {f"model.{name}": tensor for name, tensor in self._step.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in self._step.optimizer.state().items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._device)
        scaler = self._step.scaler
        return tensors, {
            "history": self._history.state(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Puts back what `capture` returned; raises UserError for tensors of another network, optimiser or device."""
        copy_into(self._step.model.state_dict(), tensors, "model.")
        copy_into(self._step.optimizer.state(), tensors, "optimizer.")
        self._history.restore(facts["history"])
        try:
            torch.set_rng_state(tensors["random.cpu"])
            if self._device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self._device)
            if self._step.scaler is not None:
                self._step.scaler.load_state_dict(facts["scaler"])
        except (KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"the checkpoint is another device's or version's ({error}): resume it there, or start a new run"
            ) from None
