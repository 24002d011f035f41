"""CUDA graphs: work that is recorded once and replayed as one launch, without Python in between.

A graph records kernels and memory addresses. What changes from replay to replay must lie in memory that stays in place.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fastcifar.runtime.device import Runtime

WARM_UP = 1
"""Calls before a recording, in which libraries load, choose algorithms and allocate. PyTorch's documentation takes
three; that one suffices no GPU has shown yet, and the self-check notices a graph that is wrong."""
Work = Callable[[], object]
Capture = Callable[[Work], Work]
"""Takes work and returns its replay. The work runs `WARM_UP` times; the caller undoes what these change."""


class CudaCapture:
    """Records work as CUDA graphs that share one memory pool; replay them one after the other, on one stream."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> Work:
        """See `Capture`. Raises what `work` raises, and RuntimeError for an operation that cannot be recorded."""
        current, graph = torch.cuda.current_stream(self._device), torch.cuda.CUDAGraph()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):  # torch.cuda.graph leaves its own current after a failure
            for _ in range(WARM_UP):
                work()
            # thread_local: a loader's thread may use the GPU meanwhile
            mode = {"pool": self._pool, "stream": self._stream, "capture_error_mode": "thread_local"}
            try:
                with torch.cuda.graph(graph, **mode):
                    work()
            except RuntimeError as error:  # ending a failed capture raises over what made it fail
                raise error.__context__ or error  # noqa: B904
        current.wait_stream(self._stream)
        return graph.replay


def new_capture(runtime: Runtime) -> Capture | None:
    """The capture of a run; None where there are no CUDA graphs. Not for ROCm either, where none was tried."""
    is_cuda = runtime.device.type == "cuda" and torch.version.hip is None
    return CudaCapture(runtime.device) if is_cuda else None


class GraphPredict:
    """Logits of a network by replays: one graph for each shape of batch that it meets while `recording`."""

    def __init__(self, predict: Callable[[Tensor], Tensor], capture: Capture) -> None:
        self._predict, self._capture, self.recording = predict, capture, True
        self._graphs: dict[torch.Size, tuple[Work, Tensor, Tensor]] = {}

    @property
    def shapes(self) -> dict[torch.Size, torch.device]:
        """The shapes of batch that are recorded, with their device."""
        return {shape: inputs.device for shape, (_, inputs, _) in self._graphs.items()}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of `images` (b, 3, s, s) on the device, in new memory."""
        if images.shape not in self._graphs:
            if not self.recording:
                return self._predict(images)
            self._graphs[images.shape] = self._record(images)
        replay, inputs, logits = self._graphs[images.shape]
        inputs.copy_(images)
        replay()
        return logits.clone()

    def _record(self, images: Tensor) -> tuple[Work, Tensor, Tensor]:
        inputs = images.clone(memory_format=torch.channels_last)
        logits = self._predict(inputs).clone()

        def work() -> None:
            logits.copy_(self._predict(inputs))

        return self._capture(work), inputs, logits
