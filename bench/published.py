"""Results that the five systems publish, and their table beside ours."""

from collections.abc import Callable
from typing import Any

from bench.measure import Table

FIGURES = {
    "test_accuracy": "test",
    "train_accuracy": "train",
    "epoch_1_test_accuracy": "test after epoch 1",
    "epoch_s": "s per epoch",
}
"""What is compared, with its name in tables. Training accuracy is the mean over the last epoch's augmented images."""
PUBLISHED: dict[str, dict[str, float | None]] = {
    name: dict(zip(FIGURES, figures, strict=True))
    for name, figures in {
        "system_a": (0.9002, None, None, None),
        "system_b": (0.9070, 0.9887, 0.6224, None),
        "system_c": (None, None, None, None),
        "system_d": (0.9098, 0.9621, 0.4872, 22.5),  # 91.06% in its best epoch; 22 to 23 s per epoch
        "system_e": (0.9177, 0.9840, 0.6137, 62.0),
    }.items()
}
"""None where a system publishes nothing. The hardware behind the seconds is not published."""
PARAMETERS = {
    "system_a": 6_573_130,
    "system_b": 6_573_120,
    "system_c": 6_574_090,
    "system_d": 6_573_130,
    "system_e": 11_173_962,
}
"""Parameters of the published networks."""


def cut_of(result: dict[str, Any], name: str) -> str:
    """How far a system was trained, in words."""
    system, cut = result["systems"][name], result["cut"]
    if system["epochs"] == system["published_epochs"]:
        return f"all {system['epochs']:g} epochs"
    if cut["fraction"] is None:
        return f"first {system['epochs']:g} of {system['published_epochs']:g} epochs"
    return f"schedule of {system['published_epochs']:g} epochs shortened to {system['epochs']:g}"


def comparison(result: dict[str, Any]) -> Table:
    """A row for each system, published / ours for each figure."""
    rows = []
    for name, system in result["systems"].items():
        cells = [" / ".join(published_and_ours(key, system)) for key in FIGURES]
        failed = f"; {system['failed']} of {len(system['runs'])} runs failed" if system["failed"] else ""
        rows.append([name, cut_of(result, name) + failed, *cells])
    return ["system", "trained for", *(f"{label}: published / ours" for label in FIGURES.values())], rows


def published_and_ours(key: str, system: dict[str, Any]) -> tuple[str, str]:
    """One of FIGURES as text, "-" for none; ours is the mean of the runs with half of its 95% interval."""
    show: Callable[[float], str] = (lambda v: f"{v:.3g}") if key == "epoch_s" else (lambda v: f"{v:.2%}")
    published, ours = system["published"][key], system["ours"][key]
    spread = f" ± {100 * ours['ci95']:.2f}" if ours and ours["ci95"] and key != "epoch_s" else ""
    return "-" if published is None else show(published), "-" if ours is None else show(ours["mean"]) + spread
