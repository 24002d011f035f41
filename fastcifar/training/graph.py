"""The training step as CUDA graphs: forward, backward and update are launched by one call, without Python in between.

A graph is a recording of kernels and addresses, so a step has one for every size of its images and every set of
parameters that learn; they are recorded when first met and lr_scale their memory.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastcifar.training.step import TrainStep

WARM_UP = 3
"""Steps before a recording, in which libraries choose their algorithms and allocate; their effects are undone."""
Replay = Callable[[], None]
Key = tuple[torch.Size, tuple[bool, ...]]


class GraphStep(TrainStep):
    """A `TrainStep` that records itself and replays; takes the ordinary step where recording fails, and says so."""

    _graphs: dict[Key, tuple[Replay, tuple[Tensor, Tensor]]]
    _inputs: dict[torch.Size, tuple[Tensor, Tensor]]
    _lr_scale: Tensor | None = None
    _failed = False

    def __call__(self, images: Tensor, labels: Tensor, lr_scale: float | Tensor) -> tuple[Tensor, Tensor]:
        """As `TrainStep.__call__`."""
        if self._failed or self.scaler is not None or not self.optimizer.capturable:
            return super().__call__(images, labels, lr_scale)
        if self._lr_scale is None:
            self._graphs, self._inputs = {}, {}
            self._lr_scale = torch.zeros((), device=images.device)
        if images.shape not in self._inputs:
            self._inputs[images.shape] = torch.empty_like(images), torch.empty_like(labels)
        for here, there in zip((images, labels), self._inputs[images.shape], strict=True):
            there.copy_(here)
        self._lr_scale.fill_(lr_scale)
        learning = tuple(parameter.requires_grad for parameter in self.model.parameters())
        key = images.shape, learning
        if key not in self._graphs:
            try:
                self._graphs[key] = self._record(*self._inputs[images.shape], self._lr_scale)
            except RuntimeError as error:
                self._failed = True
                print(f"no CUDA graph ({error}); training goes on without", file=sys.stderr, flush=True)
                return super().__call__(images, labels, lr_scale)
        replay, (loss, num_correct) = self._graphs[key]
        replay()
        return loss.clone(), num_correct.clone()  # the next replay writes to them

    def _record(self, images: Tensor, labels: Tensor, lr_scale: Tensor) -> tuple[Replay, tuple[Tensor, Tensor]]:
        """The step on these very tensors as a replay, and its results; weights and all else are as before."""
        changed = [*self.model.state_dict().values(), *self.optimizer.state().values()]
        before = [tensor.clone() for tensor in changed]
        random = self._random_state()
        try:
            results: list[tuple[Tensor, Tensor]] = []

            def step() -> None:
                results.append(super(GraphStep, self).__call__(images, labels, lr_scale))

            replay = self._captured(step)
            return replay, results[-1]
        finally:
            with torch.no_grad():
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(value)
            self._restore_random_state(random)

    def _captured(self, step: Callable[[], None]) -> Replay:
        """Runs `step` to warm up and records it; it is not run by the recording."""
        device = self.runtime.device
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: a loader's thread may use the GPU in the meantime
        with torch.cuda.graph(graph, pool=self._pool(), capture_error_mode="thread_local"):
            step()
        return graph.replay

    def _pool(self) -> Any:
        if not hasattr(self, "_memory"):
            self._memory = torch.cuda.graph_pool_handle()
        return self._memory

    def _random_state(self) -> Tensor:
        return torch.cuda.get_rng_state(self.runtime.device)

    def _restore_random_state(self, state: Tensor) -> None:
        torch.cuda.set_rng_state(state, self.runtime.device)
