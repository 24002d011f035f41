"""`python -m fastcifar.evaluate RUN`: accuracy of a finished run on the whole test set, overall and per class."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from fastcifar.command_line import parse
from fastcifar.console import run_command


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Measure a finished run on the whole test set."""

    run: tyro.conf.Positional[str] = "latest"
    """Folder of the run, its name inside --runs, or "latest"."""
    runs: Path = Path("runs")
    """Folder in which runs are looked up."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Prepared data; by default the run's own."""


def main(arguments: list[str]) -> None:
    """Parses, evaluates, prints. Raises UserError."""
    options = parse(EvaluateArguments, arguments, prog="python -m fastcifar.evaluate")

    from fastcifar.engine.bundle import load_bundle
    from fastcifar.engine.record import find_run

    bundle = load_bundle(find_run(options.run, options.runs))
    print(table(measure(bundle, bundle.config.data if options.data is None else options.data)))


def measure(bundle: Any, data: Path) -> dict[str, Any]:
    """Accuracies as fractions: "plain" and "mirrored" overall, "per_class" {name: [plain, mirrored, samples]}.

    Raises UserError where the data has other classes than the run was trained on.
    """
    import torch

    from fastcifar.data.beton import load_manifest
    from fastcifar.device import place, using
    from fastcifar.engine.evaluate import accuracy, predict_logits
    from fastcifar.errors import UserError
    from fastcifar.loader import open_loader

    manifest = load_manifest(data)
    if list(manifest.class_names) != bundle.class_names:
        raise UserError(
            f"{data} has the classes {', '.join(manifest.class_names)}, the run was trained on "
            f"{', '.join(bundle.class_names)}; name the right data with --data"
        )
    config = replace(bundle.config, device="auto")
    placement = place(config)
    model = bundle.model.to(placement.device)
    with (
        using(placement),
        open_loader(
            "resident",
            data,
            "test",
            bundle.transform(placement.dtype),
            batch_size=config.evaluation_batch_size,
            seed=0,
            shuffle=False,
            drop_last=False,
            device=placement.device,
        ) as loader,
    ):
        plain, labels = predict_logits(model, loader.epoch(0), placement)
        mirrored = plain + predict_logits(model, loader.epoch(0), placement, mirror=True)[0]
    per_class: dict[str, list[float]] = {}
    for label, name in enumerate(bundle.class_names):
        of_class = torch.nonzero(labels == label).flatten()
        if len(of_class):
            figures = [accuracy(logits[of_class], labels[of_class]) for logits in (plain, mirrored)]
            per_class[name] = [*figures, len(of_class)]
    return {
        "dataset": manifest.dataset,
        "plain": accuracy(plain, labels),
        "mirrored": accuracy(mirrored, labels),
        "samples": len(labels),
        "per_class": per_class,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as text; those of a synthetic set are marked."""
    mark = "  [synthetic data, not CIFAR-10]" if result["dataset"] == "synthetic" else ""
    width = max(len("all"), *(len(name) for name in result["per_class"]))
    lines = [f"{'class':{width}}  pictures  one view  mirrored views"]
    rows = [*result["per_class"].items(), ("all", [result["plain"], result["mirrored"], result["samples"]])]
    lines += [f"{name:{width}}  {count:8.0f}  {plain:8.2%}  {both:14.2%}{mark}" for name, (plain, both, count) in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
