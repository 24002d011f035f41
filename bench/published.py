"""What the five systems publish, and the table of it beside what was reached here."""

from collections.abc import Callable
from typing import Any

FIGURES = {
    "test_accuracy": "test",
    "train_accuracy": "train",
    "epoch_1_test_accuracy": "test after epoch 1",
    "epoch_s": "s an epoch",
}
"""What is compared, and its name in tables. Train accuracies are of augmented images, a mean over the last epoch."""
PUBLISHED: dict[str, dict[str, float | None]] = {
    name: dict(zip(FIGURES, figures, strict=True))
    for name, figures in {
        "system_a": (0.9002, None, None, None),
        "system_b": (0.9070, 0.9887, 0.6224, None),
        "system_c": (None, None, None, None),
        "system_d": (0.9098, 0.9621, 0.4872, 22.5),  # its best epoch 91.06%, 22 to 23 s
        "system_e": (0.9177, 0.9840, 0.6137, 62.0),
    }.items()
}
"""As the systems state them, None where they do not; the machines behind their seconds are not stated."""


def cut_of(result: dict[str, Any], name: str) -> str:
    """What a system's training was cut to, in words."""
    one, cut = result["systems"][name], result["cut"]
    if one["epochs"] == one["published_epochs"]:
        return f"all {one['epochs']:g} epochs"
    what = "the first" if cut["fraction"] is None else "squeezed into"
    return f"{what} {one['epochs']:g} of {one['published_epochs']:g} epochs"


def comparison(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: published / ours for each figure."""
    rows = []
    for name, one in result["systems"].items():
        cells = [_pair(key, one) for key in FIGURES]
        failed = f"; {one['failed']} of {len(one['runs'])} runs failed" if one["failed"] else ""
        rows.append([name, cut_of(result, name) + failed, *cells])
    return ["system", "trained for", *(f"{label}: published / ours" for label in FIGURES.values())], rows


def _pair(key: str, one: dict[str, Any]) -> str:
    show: Callable[[float], str] = (lambda v: f"{v:.3g}") if key == "epoch_s" else (lambda v: f"{v:.2%}")
    published, ours = one["published"][key], one["ours"][key]
    spread = f" ± {100 * ours['ci95']:.2f}" if ours and ours["ci95"] and key != "epoch_s" else ""
    return f"{'-' if published is None else show(published)} / {'-' if ours is None else show(ours['mean']) + spread}"
