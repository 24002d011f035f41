"""The training step as a CUDA graph: one launch replays forward, backward and update without Python in between.

A graph records kernels and memory addresses, so each image size and each set of trained parameters needs its own. A
graph is captured when it is first needed; all of them share one memory pool.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastcifar.optim.rates import is_capturable, prepare_for_capture
from fastcifar.optim.state import state_tensors
from fastcifar.runtime.device import Runtime
from fastcifar.training.context import RunContext
from fastcifar.training.step import TrainStep

WARM_UP = 3
"""Steps before a capture, in which libraries choose algorithms and allocate; their effects are undone."""
Replay = Callable[[], None]
Key = tuple[torch.Size, tuple[bool, ...]]


def new_train_step(context: RunContext, model: nn.Module) -> TrainStep:
    """The step of a run, with a new optimiser of `model`: captured if the configuration asks for it, on a GPU."""
    config, runtime = context.config, context.runtime
    kind = GraphStep if config.graph and runtime.device.type == "cuda" else TrainStep
    return kind(model, config.optimizer.build(model, config.batch_size), runtime, config.label_smoothing)


class GraphStep(TrainStep):
    """A `TrainStep` that captures and replays itself; if a capture fails it says so and takes ordinary steps.

    The first step of each parameter is an ordinary one: it creates the optimiser's state, whose addresses a graph has.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, runtime: Runtime, label_smoothing: float
    ) -> None:
        super().__init__(model, optimizer, runtime, label_smoothing)
        self._enabled = self.scaler is None and is_capturable(optimizer)
        if self._enabled:
            prepare_for_capture(optimizer, runtime.device)
        else:
            why = "float16 needs a gradient scaler" if self.scaler else f"{type(optimizer).__name__} cannot be captured"
            print(f"no CUDA graph: {why}", file=sys.stderr, flush=True)
        self._graphs: dict[Key, tuple[Replay, tuple[Tensor, Tensor]]] = {}
        self._inputs: dict[torch.Size, tuple[Tensor, Tensor]] = {}
        self._stepped: set[nn.Parameter] = set()
        self._pool: Any = None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As `TrainStep.__call__`."""
        learning = {parameter for parameter in self.model.parameters() if parameter.requires_grad}
        if not self._enabled or not learning <= self._stepped:
            self._stepped |= learning
            return super().__call__(images, labels)
        if images.shape not in self._inputs:
            self._inputs[images.shape] = torch.empty_like(images), torch.empty_like(labels)
        for batch, captured in zip((images, labels), self._inputs[images.shape], strict=True):
            captured.copy_(batch)
        key = images.shape, tuple(parameter.requires_grad for parameter in self.model.parameters())
        if key not in self._graphs:
            try:
                self._graphs[key] = self._capture(*self._inputs[images.shape])
            except RuntimeError as error:
                self._enabled = False
                self.optimizer.zero_grad()  # of the steps whose effects were undone
                print(f"no CUDA graph ({error}); training continues without", file=sys.stderr, flush=True)
                return super().__call__(images, labels)
        replay, (loss, num_correct) = self._graphs[key]
        replay()
        return loss.clone(), num_correct.clone()  # the next replay overwrites them

    def _capture(self, images: Tensor, labels: Tensor) -> tuple[Replay, tuple[Tensor, Tensor]]:
        """A replay of the step on these tensors, and its results; leaves weights and all other state unchanged."""
        changed = [*self.model.state_dict().values(), *state_tensors(self.optimizer).values()]
        before = [tensor.clone() for tensor in changed]
        results: list[tuple[Tensor, Tensor]] = []

        def step() -> None:
            results.append(super(GraphStep, self).__call__(images, labels))

        is_cuda = self.runtime.device.type == "cuda"
        with torch.random.fork_rng([self.runtime.device] if is_cuda else []):
            try:
                return self._captured(step), results[-1]
            finally:
                with torch.no_grad():
                    for tensor, value in zip(changed, before, strict=True):
                        tensor.copy_(value)

    def _captured(self, step: Callable[[], None]) -> Replay:
        """Runs `step` to warm up, then captures it; the capture itself does not run it."""
        device = self.runtime.device
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream(device).wait_stream(side)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # thread_local: a loader's thread may use the GPU meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        return graph.replay
