"""What a finished run leaves: its weights and its record."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastcifar.config.registry import EVALUATIONS
from fastcifar.files import write_json
from fastcifar.runs.record import RECORD_NAME, WEIGHTS_NAME, save_tensors, weights_sha256
from fastcifar.training.context import RunContext
from fastcifar.training.flops import training_flops
from fastcifar.training.state import TrainingState


def final_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a trained network on the CPU, in float32 even where the training kept 16 bits."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def write_results(context: RunContext, folder: Path, state: TrainingState, measured: dict[str, Any]) -> dict[str, Any]:
    """Writes the weights and the record; returns the record, which ends with `measured`. Raises OSError."""
    config, manifest = context.config, context.manifest
    model = state.train_step.model
    weights = final_weights(model)
    save_tensors(folder / WEIGHTS_NAME, weights)
    record = {
        "recipe": config.recipe,
        "seed": config.seed,
        "dataset": manifest.dataset,
        "epochs": config.epochs,
        "steps": context.total,
        "batch_size": config.batch_size,
        "flops": training_flops(context),
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": str(context.runtime.device),
        "amp": str(context.runtime.dtype).removeprefix("torch."),
        "loader": context.loader_kind,
        "evaluation": EVALUATIONS.name_of(config.evaluation),
        "test_samples": manifest.splits["test"].samples,
        "train_accuracy": state.history.train_accuracy,
        "resumed_at": state.resumed_at,
        "clock": state.clock.seconds(),
        "class_names": list(manifest.class_names),
        "mean_01": list(manifest.mean_01),
        "std_01": list(manifest.std_01),
        "dataset_sha256": manifest.content_sha256,
        "weights_sha256": weights_sha256(weights),
        **measured,
    }
    write_json(folder / RECORD_NAME, record)
    return record
