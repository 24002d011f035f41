"""Everything that changes from step to step, so that a checkpoint resumes a run bit for bit."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.optim.state import load_state_tensors, state_tensors
from fastcifar.runs.checkpoint import Checkpoint, copy_into
from fastcifar.training.clock import Clock
from fastcifar.training.history import History
from fastcifar.training.step import TrainStep

OPTIMIZER = "optimizer."
"""Prefix of the optimiser's tensors in a checkpoint."""


@dataclass(slots=True)
class TrainingState:
    """Network, optimiser, gradient scaler, losses and clocks; with them go torch's random generators."""

    train_step: TrainStep
    history: History
    clock: Clock
    resumed_at: list[int] = field(default_factory=list)
    """Steps at which the run was resumed."""

    def capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors by name, not copied, and the rest as JSON; waits for the device."""
        train_step = self.train_step
        tensors = {f"model.{name}": tensor for name, tensor in train_step.model.state_dict().items()}
        tensors |= {f"{OPTIMIZER}{name}": tensor for name, tensor in state_tensors(train_step.optimizer).items()}
        tensors["random.cpu"] = torch.get_rng_state()
        device = train_step.runtime.device
        if device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            tensors["random.mps"] = torch.mps.get_rng_state()
        scaler = None if train_step.scaler is None else train_step.scaler.state_dict()
        state = {"history": self.history.state(), "scaler": scaler}
        self.history.file.flush()
        return tensors, {
            "state": state,
            "metrics_bytes": os.fstat(self.history.file.fileno()).st_size,
            "train_accuracy": self.history.train_accuracy,
            "train_s": self.clock.train.so_far(),
            "run_s": self.clock.run.so_far(),
            "resumed_at": self.resumed_at,
        }

    def restore(self, saved: Checkpoint, config: Config) -> None:
        """Sets the state to that of the checkpoint; UserError for one of another network, optimiser or device."""
        train_step, facts = self.train_step, saved.facts
        copy_into(train_step.model.state_dict(), saved.tensors, "model.")
        state = {key.removeprefix(OPTIMIZER): t for key, t in saved.tensors.items() if key.startswith(OPTIMIZER)}
        load_state_tensors(train_step.optimizer, state, train_step.model, config.optimizer, config.batch_size)
        self.history.restore(facts["state"]["history"])
        self.history.train_accuracy = facts["train_accuracy"]
        try:
            torch.set_rng_state(saved.tensors["random.cpu"])
            device = train_step.runtime.device
            if device.type == "cuda":
                torch.cuda.set_rng_state(saved.tensors["random.cuda"], device)
            elif device.type == "mps":
                torch.mps.set_rng_state(saved.tensors["random.mps"])
            if train_step.scaler is not None:
                train_step.scaler.load_state_dict(facts["state"]["scaler"])
        except (KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"the checkpoint was written on another device or by another version ({error}); "
                "resume it there, or start a new run"
            ) from None
        self.clock.train.seconds += facts["train_s"]
        self.clock.run.seconds += facts["run_s"]
        self.resumed_at = [*facts["resumed_at"], saved.step]
