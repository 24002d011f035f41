"""`python -m bench`: lists the measurements and dispatches to them."""

import importlib

from fastcifar.cli.console import run_command
from fastcifar.errors import UserError

COMMANDS = {
    "time_to_accuracy": "train a recipe with several seeds: accuracy with its interval, and the three clocks",
    "ablations": "a recipe as it is and with one of its levers taken away at a time, seed by seed",
    "loaders": "images a second of our loaders, FFCV's operations, torchvision and plain NumPy",
    "layers": "training steps on a CPU with our layers and with torch's",
    "kernels": "the fused kernel against the bandwidth of a copy, by batch size, type and threads",
    "epochs": "whole training epochs, from plain PyTorch to all of ours, one change at a time",
    "overhead": "what the trainer adds to its steps: metrics, checks, progress, the checkpoint_schedule of checkpoints",
    "reproduce": "train the five published systems: what they publish beside what came out",
    "soak": "damaged betons, fuzzed input, leaks: done so often that the figure means something",
    "report": "results/*.json as REPORT.md and plots",
}


def main(arguments: list[str]) -> None:
    """Runs the named measurement with the rest of the arguments; without one, lists them."""
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print("usage: python -m bench COMMAND [--help]\n")
        print("\n".join(f"  {command:18}{text}" for command, text in COMMANDS.items()))
    elif name in COMMANDS:
        importlib.import_module(f"bench.{name}").main(arguments[1:])
    else:
        raise UserError(f"no measurement is called {name!r}: choose one of {', '.join(COMMANDS)}")


if __name__ == "__main__":
    run_command(main)
