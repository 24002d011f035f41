"""One training step: forward in the run's dtype, backward, update.

A step does not wait for the device, except in float16: the gradient scaler must see whether a gradient overflowed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fastcifar.runtime.device import Runtime


class TrainStep:
    """Trains a model on one batch at a time; in float16 with a gradient scaler, because small gradients underflow."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, runtime: Runtime, label_smoothing: float) -> None:
        self.model, self.optimizer, self.runtime = model, optimizer, runtime
        self.label_smoothing = label_smoothing
        self.scaler = torch.amp.GradScaler(runtime.device.type) if runtime.dtype == torch.float16 else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (mean over the batch) and number of correct predictions, as 0-d tensors on the device.

        `images` (b, 3, s, s) and `labels` int64 (b,) on the device. The learning rates are those of the optimiser.
        """
        with self.runtime.autocast:
            logits = self.model(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()
