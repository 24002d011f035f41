"""What a report says in words and figures: a run's record, checked, as rows and tiles."""

from pathlib import Path
from typing import Any

from fastcifar.analysis.evaluation import Evaluation, summarise
from fastcifar.analysis.metrics import wilson_interval
from fastcifar.config import KERNEL_NAMES, evaluations_of
from fastcifar.errors import UserError
from fastcifar.runs.record import RECORD_NAME, load_record

ACCURACIES = ("test_accuracy", "test_accuracy_tta")
"""What a record calls the accuracies of its two views, in the order of `evaluations_of`."""
CLOCKS = {
    "train": "first training byte touched to last optimiser step, evaluations taken out",
    "run": "opening the data to the accuracy that counts, with initialisation, augmentation and evaluation",
    "process": "command to result, with imports and compilation",
}
Number = (int, float)
NEEDED: dict[str, Any] = {
    **dict.fromkeys(("recipe", "dataset", "weights_sha256"), str),
    **dict.fromkeys(("seed", "steps", "parameters", "batch_size"), int),
    **dict.fromkeys(("epochs", "test_accuracy", "test_accuracy_tta", "train_accuracy"), Number),
    **{"test_samples": int, "clock": dict, "class_names": list, "versions": dict, "hardware": dict},
}
"""What a record must say, and of which type."""


def checked_record(folder: Path) -> dict[str, Any]:
    """The record of a finished run; raises UserError where there is none, or one that lacks what a report shows."""
    record = load_record(folder)
    wrong = [name for name, kind in NEEDED.items() if not isinstance(record.get(name), kind)]
    if not wrong:
        wrong = [f"clock.{name}_s" for name in CLOCKS if not isinstance(record["clock"].get(f"{name}_s", 0), Number)]
        wrong += [name for name in ACCURACIES if not 0 <= record[name] <= 1]
    if wrong:
        raise UserError(f"{folder / RECORD_NAME} lacks {', '.join(wrong)}; train again")
    return record


def mark_of(*datasets: str) -> str:
    """What is put beside every figure where any of the data is not CIFAR-10, else nothing."""
    other = next((name for name in datasets if name != "cifar10"), None)
    return "" if other is None else f"{other} data, not CIFAR-10"


def accuracies_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Both views: "name", "fraction" and its 95% interval "low" to "high", all in 0..1, and whether it "counts"."""
    samples, found = record["test_samples"], []
    for (view, name), key in zip(
        evaluations_of(record.get("evaluation", "single_view")).items(), ACCURACIES, strict=True
    ):
        low, high = wilson_interval(round(record[key] * samples), samples)
        counts = view == record.get("evaluation", "single_view")
        found.append({"name": name, "fraction": record[key], "low": low, "high": high, "counts": counts})
    return found


def facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What was trained, on what and how far, as rows."""
    rows = [
        ("recipe", f"{record['recipe']}, seed {record['seed']}"),
        ("length", f"{record['epochs']:g} epochs, {record['steps']:,} steps of {record['batch_size']:,} images"),
        ("train accuracy", f"{record['train_accuracy']:.2%}, last epoch, augmented images"),
        ("parameters", f"{record['parameters']:,}"),
        ("machine", str(record["hardware"].get("gpu") or record["hardware"].get("cpu"))),
        ("arithmetic", f"{record.get('amp')} on {record.get('device')}"),
        ("kernels", KERNEL_NAMES.get(str(record.get("cpu_kernels")), "torch's")),
    ]
    if record.get("resumed_at"):
        rows.append(("resumed", f"after step {', '.join(map(str, record['resumed_at']))}"))
    return rows


def environment(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Versions, hardware, and what tells data, weights and code from others, as rows."""
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
    """What to say where the answers of now are not those that the record counted, else nothing."""
    views = summarise(evaluation)["views"]
    now = [views[view]["accuracy"]["fraction"] for view in evaluations_of(evaluation.counts)]
    then = [record[key] for key in ACCURACIES]
    if now == then and len(evaluation.labels) == record["test_samples"]:
        return ""
    names = " and with ".join(evaluations_of(evaluation.counts).values())
    figures = [" and ".join(f"{fraction:.2%}" for fraction in fractions) for fractions in (now, then)]
    return (
        f"The answers below were computed again for this page: {figures[0]} of {len(evaluation.labels):,} images are "
        f"right with {names}, where the run had counted {figures[1]} of "
        f"{record['test_samples']:,}. Another device rounds differently; other data would differ more."
    )
