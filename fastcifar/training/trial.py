"""Tries the components that are not ours before a run begins: a mistake must not cost a training."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcifar.config.registry import REGISTRIES
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SIZE
from fastcifar.errors import UserError, reason
from fastcifar.evaluation.logits import evaluate_logits, predict_logits, predictor
from fastcifar.models.build import build_model
from fastcifar.models.hooks import before_step
from fastcifar.optim.rates import set_lr
from fastcifar.optim.state import state_tensors
from fastcifar.runtime.device import Runtime
from fastcifar.training.context import RunContext
from fastcifar.training.flops import training_flops
from fastcifar.training.steps import lr_scale

IMAGES = 2
"""In a batch; one is too few for batch norm."""


def try_components(context: RunContext) -> None:
    """Raises UserError, naming the component, if one of the user's cannot take its part in the run.

    Does nothing if all components are ours. Else it tries a small copy of the run on the CPU: forward and backward at
    every image size, two steps of the optimiser, its state, some steps of the schedule, the FLOPs; and the evaluation,
    on the device of the run.
    Leaves torch's random numbers as they were.
    """
    config = context.config
    own = {section: registry.is_own(getattr(config, section)) for section, registry in REGISTRIES.items()}
    if all(own.values()):
        return
    with torch.random.fork_rng(devices=[]):
        if not own["schedule"]:
            for step in {0, 1, context.total // 2, context.total - 1} & set(range(context.total)):
                with _explained(context, "schedule"):
                    lr_scale(config, step, context.total)
        with _explained(context, "model"):
            model = build_model(config.model, context.classes, config.seed)
            _check_state(model)
        images = [torch.randn(IMAGES, CHANNELS, size, size) for size in sorted({s for _, s in config.resolution})]
        if not (own["model"] and own["optimizer"]):
            _try_steps(context, copy.deepcopy(model), images)
        if not (own["model"] and own["evaluation"]):
            _try_evaluation(context, model)
        if not own["model"]:
            with _explained(context, "model"):
                training_flops(context)


@contextmanager
def _explained(context: RunContext, section: str) -> Iterator[None]:
    """Turns an error inside into a UserError that names the component of `section`."""
    registry, config = REGISTRIES[section], getattr(context.config, section)
    where = f"the {registry.noun} {registry.name_of(config)}"
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:
        raise UserError(f"{where} fails: {type(error).__name__}: {reason(error)}") from error


def _check_state(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(f"its build returns {type(model).__name__}, but must return a torch.nn.Module")
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"its state dict has {name} of the type {type(value).__name__}, but must be tensors")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("it has no parameter that learns")


def _logits(context: RunContext, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    shape = f"{images.shape[2]}x{images.shape[3]}"
    try:
        logits = model(images.contiguous(memory_format=torch.channels_last))
    except Exception as error:
        raise UserError(f"images of {shape} pixels fail: {type(error).__name__}: {reason(error)}") from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (len(images), context.classes):
        wanted = (len(images), context.classes)
        raise UserError(f"{len(images)} images of {shape} pixels give {found}, but must give logits {wanted}")
    return logits


def _try_steps(context: RunContext, model: nn.Module, images: list[Tensor]) -> None:
    config = context.config
    with _explained(context, "optimizer"):
        optimizer = config.optimizer.build(model, config.batch_size)
        other = config.optimizer.with_lr(config.optimizer.lr / 2).build(copy.deepcopy(model), config.batch_size)
        if all(a["lr"] == b["lr"] for a, b in zip(optimizer.param_groups, other.param_groups, strict=True)):
            raise UserError("its build does not use the field lr, which --lr and the range test set")
        set_lr(optimizer, 1.0)
        groups = [{key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups]
    states: list[set[str]] = []
    for number in range(2):
        model.train()
        with _explained(context, "model"):
            before_step(model, number, context.steps_per_epoch)
            for batch in images:
                labels = torch.arange(IMAGES) % context.classes
                F.cross_entropy(_logits(context, model, batch).float(), labels).backward()
        with _explained(context, "optimizer"):
            optimizer.step()
            optimizer.zero_grad()
            states.append(set(state_tensors(optimizer)))
    with _explained(context, "optimizer"):
        now = [{key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups]
        if states[0] != states[1] or now != groups:
            raise UserError(
                "its state changes outside of the tensors it has after its first step; resuming would lose it"
            )
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    with _explained(context, "model"):
        for step in (0, context.steps_per_epoch, context.total - 1):
            before_step(model, step, context.steps_per_epoch)
            late = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in known]
            if late:
                raise UserError(f"{late[0]} learns at step {step}, but did not when the optimiser was built")


def _try_evaluation(context: RunContext, model: nn.Module) -> None:
    images, labels = torch.randn(IMAGES, CHANNELS, IMAGE_SIZE, IMAGE_SIZE), torch.zeros(IMAGES, dtype=torch.int64)
    with _explained(context, "model"), torch.inference_mode():
        _logits(context, model.eval(), images)
    device = context.runtime.device  # an evaluation that mixes it with the CPU would fail at the end of the run
    predict = predictor(copy.deepcopy(model).to(device), Runtime(device, torch.float32, 1))
    batches = [(images.to(device), labels.to(device))]
    with _explained(context, "evaluation"):
        logits, _ = predict_logits(predict, batches)
        evaluate_logits(context.config.evaluation, predict, batches, logits)
