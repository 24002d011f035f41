"""`python -m bench`: lists the benchmarks and dispatches to them."""

import importlib

from fastcifar.cli.console import run_command
from fastcifar.errors import UserError

COMMANDS = {
    "time_to_accuracy": "train a recipe with several seeds: accuracy with its confidence interval, and three clocks",
    "ablations": "train a recipe with one component replaced at a time",
    "loaders": "images per second of our loaders, FFCV, torchvision and NumPy",
    "layers": "training steps on a CPU with PyTorch's layers and with ours",
    "kernels": "the fused augmentation kernel against the bandwidth of a memory copy",
    "epochs": "training epochs from plain PyTorch to fastcifar, one change at a time",
    "overhead": "what the trainer adds to each step: metrics, checks, progress, checkpoint schedule",
    "reproduce": "train the five published systems and compare with their published results",
    "learning_rates": "trainings at the rates of the range test, at others and at those of the recipe",
    "soak": "long runs of the fault tests: damaged data, fuzzing, leaks, killed runs",
    "gpu": "all that is worth measuring on a GPU, within a number of minutes",
    "environment": "the device, driver, clocks, power and versions that results depend on",
    "kernel_bits": "the fused augmentation, in every implementation, against the NumPy reference",
    "self_check": "what the self-check before a training finds",
    "profile": "kernels of the training steps, and the gaps between them",
    "search": "faster settings of a recipe, judged on held-out training images",
    "report": "write REPORT.md and plots/ from results/*.json",
}


def main(arguments: list[str]) -> None:
    """Runs the named benchmark with the rest of the arguments; without one, lists them."""
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print("usage: python -m bench COMMAND [OPTIONS]\n")
        print("\n".join(f"  {command:18}{text}" for command, text in COMMANDS.items()))
    elif name in COMMANDS:
        importlib.import_module(f"bench.{name}").main(arguments[1:])
    else:
        raise UserError(f"unknown benchmark {name!r}; choose one of {', '.join(COMMANDS)}")


if __name__ == "__main__":
    run_command(main)
