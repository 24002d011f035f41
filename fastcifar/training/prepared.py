"""What a run needs before it sees data: compiled kernels, network, optimiser, CUDA graphs. Made before its clocks.

Runs that differ only in their seed share it, and each has the same bits as in a process of its own.
"""

import copy
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_torch import TorchTransform
from fastcifar.config import NO_AUGMENTATION
from fastcifar.config.registry import AUGMENT_OPS
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SHAPE, IMAGE_SIZE
from fastcifar.errors import RunFailedError, reason
from fastcifar.evaluation import tta_of
from fastcifar.evaluation.logits import Predict, accuracy, evaluate_logits, predict_logits, predictor
from fastcifar.models.hooks import InitFromData
from fastcifar.optim.rates import is_capturable
from fastcifar.training.checks import images_difference, predictions_difference, steps_difference
from fastcifar.training.context import RunContext
from fastcifar.training.graph import Capture, GraphPredict, new_capture
from fastcifar.training.graph_steps import CopyFeed, Feed, GraphSteps, ResidentFeed
from fastcifar.training.loop import EagerSteps, Steps
from fastcifar.training.step import TrainStep
from fastcifar.training.warm_up import compile_kernels

REPORT = "please report this line with the output of `fastcifar doctor`"


class PreparedTraining:
    """Begins runs. On a GPU the constructor checks what it prepares, and takes the next best way where a check fails.

    Raises RunFailedError instead if the configuration is strict.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.findings: list[str] = []
        """What the self-check found, a sentence each; empty if all is well."""
        self.storage: tuple[Tensor, Tensor] | None = None
        """Where a resident loader puts the training set, because graphs read it there; None without graphs."""
        self.predict: Predict | None = None
        """The logits of a batch by replays; None without graphs."""
        self._graph_steps: GraphSteps | None = None
        if context.device_transform is not None:
            print(f"preparing and checking {context.runtime.device}", file=sys.stderr, flush=True)
        self._check_images()
        if context.device_transform is None:
            return
        capture = new_capture(context.runtime) if context.config.graph else None
        with torch.random.fork_rng([context.runtime.device] if context.runtime.device.type == "cuda" else []):
            if capture is not None:
                self._record(capture)
            if self._graph_steps is None:
                _warm_up_steps(context)

    @property
    def paths(self) -> dict[str, str]:
        """Which way the images and the steps of the runs take, for the record."""
        kind = self._context.device_transform
        return {
            "augmentation": "cpu kernel" if kind is None else kind.title,
            "step": "eager" if self._graph_steps is None else "graph",
        }

    def begin(self, context: RunContext) -> Steps:
        """The steps of a run that differs from the prepared one at most in its seed, in the state before the first.

        Replaces the network of a run that began before.
        """
        context.device_transform = self._context.device_transform
        if self._graph_steps is None:
            return EagerSteps(context, _train_step(context, context.new_model()))
        self._graph_steps.context = context
        self._graph_steps.reset(context.new_model())
        return self._graph_steps

    def _check_images(self) -> None:
        context = self._context
        kind = context.device_transform
        if kind is None:
            compile_kernels(context.runtime)
            return
        finding = _finding(lambda: _images_differ(context))
        if finding and kind is not TorchTransform:
            self._fall_back(f"the augmentation by the {kind.title} {finding}", "by tensor operations")
            context.device_transform = TorchTransform
            finding = _finding(lambda: _images_differ(context))
        if finding:
            raise RunFailedError(f"the augmentation by tensor operations {finding}; use --device cpu, and {REPORT}")

    def _record(self, capture: Capture) -> None:
        """Records the steps and the evaluation, and keeps them if they pass the check."""
        context = self._context
        train_step = _train_step(context, context.new_model())
        if train_step.scaler is not None or not is_capturable(train_step.optimizer):
            why = "float16 needs a gradient scaler" if train_step.scaler else "its optimiser cannot be recorded"
            print(f"no CUDA graph: {why}", file=sys.stderr, flush=True)
            return
        finding = _finding(lambda: self._recorded(train_step, capture))
        if finding:
            train_step.optimizer.zero_grad()
            self._graph_steps = self.predict = self.storage = None
            self._fall_back(f"the CUDA graph of the training step {finding}", "by ordinary steps")

    def _recorded(self, train_step: TrainStep, capture: Capture) -> str | None:
        """What is wrong with the recorded work; None, and keeps it, if nothing is."""
        context, model, initial = self._context, train_step.model, self._context.new_model()
        steps = GraphSteps(context, train_step, self._feed(), capture)
        predict = GraphPredict(predictor(model, context.runtime), capture)
        _warm_up_evaluation(context, model, predict)
        predict.recording = False
        if difference := steps_difference(steps, initial):
            return difference
        steps.reset(initial)
        if difference := predictions_difference(predict, predictor(model, context.runtime), context.runtime.dtype):
            return difference
        self._graph_steps, self.predict = steps, predict
        return None

    def _feed(self) -> Feed:
        """Where recorded steps get their batches from; random ones until a run begins."""
        context = self._context
        kind, device = context.device_transform, context.runtime.device
        is_plain = AUGMENT_OPS.name_of(context.config.augment_op) == "none"
        if kind is None or context.loader_kind != "resident" or not is_plain:
            return CopyFeed(context)
        images = torch.empty((context.samples, *IMAGE_SHAPE), dtype=torch.uint8, device=device).random_(0, 256)
        labels = torch.randint(context.classes, (context.samples,), device=device)
        self.storage = images, labels
        return ResidentFeed(context, kind(context.transform("train"), device), self.storage)

    def _fall_back(self, finding: str, instead: str) -> None:
        self.findings.append(finding)
        if self._context.config.strict:
            raise RunFailedError(f"self-check: {finding}; without --strict it goes on {instead}; {REPORT}")
        print(f"self-check: {finding}; going on {instead}, which is slower; {REPORT}", file=sys.stderr, flush=True)


def _finding(check: Callable[[], str | None]) -> str | None:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  (whatever it is, there is another way)
        return f"fails: {type(error).__name__}: {reason(error)}"


def _train_step(context: RunContext, model: nn.Module) -> TrainStep:
    config = context.config
    optimizer = config.optimizer.build(model, config.batch_size)
    return TrainStep(model, optimizer, context.runtime, config.label_smoothing)


def _images_differ(context: RunContext) -> str | None:
    """See `images_difference`: of the training images at every size of the run, and of the test images."""
    kind, device = context.device_transform, context.runtime.device
    assert kind is not None
    cases = [(context.transform("train"), size) for size in context.sizes] + [(context.transform("test"), IMAGE_SIZE)]
    return next(filter(None, (images_difference(kind, *case, device) for case in cases)), None)


def _random_images(context: RunContext, count: int, size: int) -> Tensor:
    # drawn on the CPU, because a failed capture may leave the GPU's generator unusable
    images = torch.randn((count, CHANNELS, size, size)).to(context.runtime.device, context.runtime.dtype)
    return images.contiguous(memory_format=torch.channels_last)


def _warm_up_steps(context: RunContext) -> None:
    """Takes a step on random images of every size and evaluates: libraries load, and choose their algorithms."""
    train_step, count = _train_step(context, context.new_model()), context.config.batch_size
    labels = torch.zeros(count, dtype=torch.int64, device=context.runtime.device)
    for size in context.sizes:
        train_step(_random_images(context, count, size), labels)
    _warm_up_evaluation(context, train_step.model, predictor(train_step.model, context.runtime))


def _warm_up_evaluation(context: RunContext, model: nn.Module, predict: Predict) -> None:
    """Evaluates random images, in all shapes of batch of the test set, and takes statistics from random images."""
    config, device, count = context.config, context.runtime.device, context.manifest.splits["test"].samples
    size = min(config.evaluation_batch_size, count)
    images = _random_images(context, size, IMAGE_SIZE)
    labels = torch.zeros(size, dtype=torch.int64, device=device)
    sizes = [size] * (count // size) + ([count % size] if count % size else [])
    batches = [(images[:part], labels[:part]) for part in sizes]
    logits, all_labels = predict_logits(predict, batches)
    tta = evaluate_logits(tta_of(config.evaluation), predict, batches, logits)
    accuracy(tta, all_labels)
    if isinstance(model, InitFromData):
        plain = TorchTransform(Transform(NO_AUGMENTATION, (0.5,) * CHANNELS, (0.5,) * CHANNELS), device)

        def plain_images(count: int) -> Tensor:
            rows = torch.arange(count, device=device)
            stored = torch.randint(256, (count, *IMAGE_SHAPE), dtype=torch.uint8).to(device)
            return plain(stored, rows, rows, 0)

        copy.deepcopy(model).init_from_data(plain_images)  # a copy: it may replace tensors
