"""What must be known to use a trained network, as Markdown beside its weights."""

from typing import Any

from fastcifar.config import evaluations_of
from fastcifar.models.layer_table import layers
from fastcifar.runs.load import TrainedRun

CARD = """# {recipe}, a classifier of images of 32x32

{mark}`{recipe}` of fastcifar {version}, seed {seed}: {epochs:g} epochs of {dataset}, batch {batch_size}, {amp};
{train_s:.0f} s of training on {machine}.

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

Without fastcifar: the tensors `network.*` are the network's own, `mean` and `std` normalise, the metadata of the file
describe the rest.

## Limits

Every image gets one of the {classes} classes, also one that shows none of them. Images of another size have to be
cut square and scaled to 32x32 first, as `fastcifar predict` does. The network was measured on the test set
named above and nowhere else.
"""

MORE_VIEWS = {
    "flip_tta": "the mean of the logits of an image and of its mirror image",
    "selective_tta": "for the fifth that one view is least sure of, the mean logits of six, mirrored and moved by a pixel",
}
"""What test-time augmentation did, by the kind of evaluation."""


def model_card(trained: TrainedRun) -> str:
    """The card of a finished run; every figure of another set than CIFAR-10 is marked."""
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
    counts = [
        " (this one counts)" if kind == record["evaluation"] else "" for kind in evaluations_of(record["evaluation"])
    ]
    kind, more = list(evaluations_of(record["evaluation"]).items())[1]
    network = layers(trained.config.model, len(trained.class_names))[0]
    mean, std = (", ".join(f"{value:.4f}" for value in record[key]) for key in ("mean_01", "std_01"))
    return [
        ("test accuracy, one view", f"{record['test_accuracy']:.2%}{counts[0]}"),
        (f"test accuracy, {more}", f"{record['test_accuracy_tta']:.2%}{counts[1]}: {MORE_VIEWS[kind]}"),
        ("measured on", f"{record['test_samples']:,} test images, after the last step"),
        ("train accuracy", f"{record['train_accuracy']:.2%}, last epoch, augmented images"),
        ("input", "`images`: float32 (n, 3, 32, 32), RGB, 0 to 1, which is uint8 / 255; not normalised"),
        ("output", f"`logits`: float32 (n, {len(trained.class_names)}); their softmax are probabilities"),
        ("classes, in the order of the logits", ", ".join(trained.class_names)),
        ("normalisation, inside", f"mean {mean}; deviation {std}"),
        ("network", f"{network.kind}, {network.parameters:,} parameters, {network.flops / 1e6:,.1f} MFLOP an image"),
        ("SHA-256 of the data", f"`{record.get('dataset_sha256')}`"),
        ("SHA-256 of the weights", f"`{record['weights_sha256']}`"),
        ("code", f"`{record.get('code_revision')}`"),
    ]  # fmt: skip
