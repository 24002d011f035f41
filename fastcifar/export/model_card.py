"""The model card: how to use a trained network and how well it works, as Markdown."""

from typing import Any

from fastcifar.config.registry import EVALUATIONS
from fastcifar.evaluation import evaluations_of
from fastcifar.models.layer_table import layers
from fastcifar.runs.load import TrainedRun

CARD = """# {recipe}: a classifier of 32x32 images

{mark}Trained with fastcifar {version}, recipe `{recipe}`, seed {seed}: {epochs:g} epochs of {dataset} with batch size
{batch_size} in {amp}, {train_s:.0f} s on {machine}.

| | |
|---|---|
{table}

## Use it

With ONNX Runtime, from `model.onnx`:

```python
import numpy as np
import onnxruntime

images = np.asarray(images_nhwc, np.float32).transpose(0, 3, 1, 2) / 255  # uint8 (n, 32, 32, 3), RGB
logits = onnxruntime.InferenceSession("model.onnx").run(None, {{"images": images}})[0]
```

With PyTorch and fastcifar, from `model.safetensors`:

```python
from pathlib import Path
import torch
from fastcifar.export.classifier import load_classifier

classifier = load_classifier(Path("model.safetensors"))
images = torch.from_numpy(images_nhwc).permute(0, 3, 1, 2).float() / 255  # uint8 (n, 32, 32, 3), RGB
with torch.inference_mode():
    logits = classifier(images)
names = [classifier.class_names[i] for i in logits.argmax(1)]
```

Without fastcifar, build the network from the metadata of the file: the tensors `network.*` are its state dict, `mean`
and `std` normalise the input.

## Limits

The network assigns one of the {classes} classes to every image, even if it shows none of them. Crop other images to a
square and scale them to 32x32 first, as `fastcifar predict` does. The network was tested only on the test set named
above.
"""


def model_card(trained: TrainedRun) -> str:
    """The card of a finished run; it says so if the data is not CIFAR-10."""
    record = trained.record
    hardware = record.get("hardware", {})
    return CARD.format(
        **{key: record[key] for key in ("recipe", "seed", "epochs", "batch_size", "dataset", "amp")},
        mark="" if record["dataset"] == "cifar10" else f"**Trained on a {record['dataset']} set, not on CIFAR-10.** ",
        version=record.get("versions", {}).get("fastcifar"),
        train_s=record["clock"]["train_s"],
        machine=hardware.get("gpu") or hardware.get("cpu"),
        classes=len(trained.class_names),
        table="\n".join(f"| {name} | {value} |" for name, value in _facts(trained, record)),
    )


def _facts(trained: TrainedRun, record: dict[str, Any]) -> list[tuple[str, str]]:
    (_, single), (kind, tta) = evaluations_of(record["evaluation"]).items()
    single_mark, tta_mark = (
        " (primary metric)" if view == record["evaluation"] else "" for view in ("single_view", kind)
    )
    network = layers(trained.config.model, len(trained.class_names))[0]
    mean, std = (", ".join(f"{value:.4f}" for value in record[key]) for key in ("mean_01", "std_01"))
    return [
        (f"test accuracy, {single}", f"{record['test_accuracy']:.2%}{single_mark}"),
        (f"test accuracy, {tta}", f"{record['test_accuracy_tta']:.2%}{tta_mark}: {EVALUATIONS[kind].summary}"),
        ("measured on", f"{record['test_samples']:,} test images, after the last step"),
        ("train accuracy", f"{record['train_accuracy']:.2%}, mean over the last epoch, on augmented images"),
        ("input", "`images`: float32 (n, 3, 32, 32), RGB, 0 to 1 (uint8 / 255), not normalised"),
        ("output", f"`logits`: float32 (n, {len(trained.class_names)}); their softmax gives probabilities"),
        ("classes, in the order of the logits", ", ".join(trained.class_names)),
        ("normalisation, built in", f"mean {mean}; standard deviation {std}"),
        ("network", f"{network.kind}, {network.parameters:,} parameters, {network.flops / 1e6:,.1f} MFLOP per image"),
        ("SHA-256 of the data", f"`{record.get('dataset_sha256')}`"),
        ("SHA-256 of the weights", f"`{record['weights_sha256']}`"),
        ("code", f"`{record.get('code_revision')}`"),
        *((f"import first `{name}`", f"SHA-256 `{digest}`") for name, digest in record.get("imports", {}).items()),
    ]  # fmt: skip
