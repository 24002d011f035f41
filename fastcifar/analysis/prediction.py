"""Class probabilities of single images."""

import numpy as np
import torch

from fastcifar.runs.load import TrainedRun


def predict(trained: TrainedRun, images: list[np.ndarray]) -> list[dict[str, float]]:
    """Probabilities by class name of each image, uint8 (32, 32, 3) RGB: mean logits of it and its mirror image."""
    rows = np.arange(len(images))
    tensor = trained.transform()(np.stack(images), rows, rows, 0)
    with torch.inference_mode():
        logits = (trained.model(tensor) + trained.model(tensor.flip(3))) / 2
    return [dict(zip(trained.class_names, row.tolist(), strict=True)) for row in logits.softmax(1)]
