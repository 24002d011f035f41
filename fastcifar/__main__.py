"""The `fastcifar` command: lists the commands and dispatches to `fastcifar/cli/`. Same as `python -m fastcifar`."""

import importlib

from fastcifar import __version__
from fastcifar.cli.console import run_command
from fastcifar.errors import UserError, choose_one

COMMANDS = {
    "prepare": "download or read CIFAR-10, check it and write it as beton files",
    "train": "train a recipe",
    "lr-find": "suggest learning rates for a recipe with a range test",
    "schedule": "plot a learning-rate schedule without training",
    "verify": "retrain a finished run and check that it is bit-identical",
    "evaluate": "evaluate a finished run: accuracy per class, confusion matrix, calibration",
    "report": "write an HTML report on one or more finished runs",
    "predict": "classify your own images with a finished run",
    "export": "export the network of a finished run to safetensors or ONNX",
    "doctor": "show versions, hardware and chosen settings, for a bug report",
}


def main(arguments: list[str]) -> None:
    """Runs the named command with the rest of the arguments; without one, lists the commands."""
    name = arguments[0] if arguments else "--help"
    if name == "--version":
        print(f"fastcifar {__version__}")
    elif name in ("-h", "--help"):
        print("usage: fastcifar COMMAND [OPTIONS]\n")
        print("\n".join(f"  {command:10}{text}" for command, text in COMMANDS.items()))
        print("\n`fastcifar COMMAND --help` lists the options of a command. `--debug` shows the traceback of an error.")
    elif name in COMMANDS:
        importlib.import_module(f"fastcifar.cli.{name.replace('-', '_')}").main(arguments[1:])
    else:
        raise UserError(f"unknown command {name!r}: {choose_one(name, COMMANDS)}")


def run() -> None:
    """Entry point of the console script."""
    run_command(main)


if __name__ == "__main__":
    run()
