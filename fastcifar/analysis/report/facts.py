"""A run's record, checked, and the rows of text and numbers that a report takes from it."""

from pathlib import Path
from typing import Any

from fastcifar.analysis.evaluation import Evaluation, summarise
from fastcifar.analysis.metrics import wilson_interval
from fastcifar.config import KERNEL_NAMES
from fastcifar.config.registry import EVALUATIONS
from fastcifar.errors import UserError
from fastcifar.evaluation import evaluations_of
from fastcifar.runs.record import RECORD_NAME, load_record

ACCURACIES = ("test_accuracy", "test_accuracy_tta")
"""Keys of a record's two test accuracies, in the order of `evaluations_of`."""
CLOCKS = {
    "train": "from the first training byte to the last optimiser step, without evaluations",
    "run": "from opening the data to the primary metric, with initialisation, augmentation and evaluation",
    "process": "from the command to the result, with imports and compilation",
}
Number = (int, float)
NEEDED: dict[str, Any] = {
    **dict.fromkeys(("recipe", "dataset", "weights_sha256", "evaluation"), str),
    **dict.fromkeys(("seed", "steps", "parameters", "batch_size", "test_samples"), int),
    **dict.fromkeys(("epochs", "test_accuracy", "test_accuracy_tta", "train_accuracy"), Number),
    "class_names": list,
    **dict.fromkeys(("clock", "versions", "hardware"), dict),
}
"""Keys that a record must have, and their types."""


def checked_record(folder: Path) -> dict[str, Any]:
    """The record of a finished run; raises UserError if there is none, or if it lacks what a report shows."""
    record = load_record(folder)
    wrong = [name for name, kind in NEEDED.items() if not isinstance(record.get(name), kind)]
    if not wrong:
        clocks = {name: record["clock"].get(f"{name}_s") for name in CLOCKS}  # a resumed run has no process clock
        wrong = [f"clock.{name}_s" for name, value in clocks.items() if not isinstance(value, (*Number, type(None)))]
        wrong += [name for name in ACCURACIES if not 0 <= record[name] <= 1]
        wrong += ["evaluation"] if record["evaluation"] not in EVALUATIONS.names() else []
    if wrong:
        raise UserError(f"{folder / RECORD_NAME} lacks {', '.join(wrong)}; train again")
    return record


def mark_of(*datasets: str) -> str:
    """The mark beside every measured figure if any of the data sets is not CIFAR-10, else an empty string."""
    other = next((name for name in datasets if name != "cifar10"), None)
    return "" if other is None else f"{other} data, not CIFAR-10"


def accuracies_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Both test accuracies: "name", "value" and its 95% interval "low" to "high", in 0..1, and if it "is_primary"."""
    samples, found = record["test_samples"], []
    for (kind, name), key in zip(evaluations_of(record["evaluation"]).items(), ACCURACIES, strict=True):
        low, high = wilson_interval(round(record[key] * samples), samples)
        is_primary = kind == record["evaluation"]
        found.append({"name": name, "value": record[key], "low": low, "high": high, "is_primary": is_primary})
    return found


def facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What was trained, on what and for how long, as rows."""
    rows = [
        ("recipe", f"{record['recipe']}, seed {record['seed']}"),
        ("length", f"{record['epochs']:g} epochs, {record['steps']:,} steps, batch size {record['batch_size']:,}"),
        ("train accuracy", f"{record['train_accuracy']:.2%}, mean over the last epoch, on augmented images"),
        ("parameters", f"{record['parameters']:,}"),
        ("machine", str(record["hardware"].get("gpu") or record["hardware"].get("cpu"))),
        ("number format", f"{record.get('amp')} on {record.get('device')}"),
        ("kernels", KERNEL_NAMES.get(str(record.get("cpu_kernels")), KERNEL_NAMES["torch"])),
    ]
    if record.get("resumed_at"):
        rows.append(("resumed", f"after step {', '.join(map(str, record['resumed_at']))}"))
    return rows


def environment(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Versions, hardware, and the checksums of data and weights, as rows."""
    hardware = record["hardware"]
    return [
        *((name, str(version)) for name, version in record["versions"].items()),
        ("CPU", f"{hardware.get('cpu')}, {hardware.get('cores')} cores, {hardware.get('threads')} threads used"),
        ("GPU", str(hardware.get("gpu", "none used"))),
        ("system", str(record.get("system"))),
        ("loader", str(record.get("loader", "not recorded"))),
        ("code revision", str(record.get("code_revision"))),
        ("data, SHA-256", str(record.get("dataset_sha256"))),
        ("weights, SHA-256", record["weights_sha256"]),
    ]


def disagreement(record: dict[str, Any], evaluation: Evaluation) -> str:
    """A note if the accuracies of `evaluation` are not those of the record, else an empty string."""
    views = summarise(evaluation)["views"]
    kinds = evaluations_of(evaluation.primary)
    now = [views[kind]["accuracy"]["value"] for kind in kinds]
    then = [record[key] for key in ACCURACIES]
    if now == then and len(evaluation.labels) == record["test_samples"]:
        return ""
    now_text, then_text = (
        ", ".join(f"{value:.2%} ({name})" for value, name in zip(values, kinds.values(), strict=True))
        for values in (now, then)
    )
    return (
        f"The test set was evaluated again for this page: {now_text} of {len(evaluation.labels):,} images. The run "
        f"recorded {then_text} of {record['test_samples']:,}. Rounding on another device explains small differences; "
        "larger ones mean that the data is not the same."
    )
