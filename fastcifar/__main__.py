"""`fastcifar COMMAND` and `fastcifar COMMAND`: lists the commands and dispatches to them."""

import importlib

from fastcifar import __version__
from fastcifar.cli.console import run_command
from fastcifar.errors import UserError

COMMANDS = {
    "prepare": "CIFAR-10, from wherever it is, into beton files",
    "train": "train a recipe to the end",
    "lr-find": "suggest learning rates for a recipe, by a range test",
    "schedule": "draw the learning rates that a recipe plans, or cycles",
    "verify": "train a finished run again and say whether it comes out the same",
    "evaluate": "measure a finished run on the whole test set",
    "report": "finished runs as one HTML page, to read, to print, to hand in",
    "predict": "name what is in your own images",
    "export": "a run's network as one file for others, safetensors or ONNX, with a model card",
    "doctor": "what is installed and what will be used, for a bug report",
}


def main(arguments: list[str]) -> None:
    """Runs the named command with the rest of the arguments; without one, lists them."""
    name = arguments[0] if arguments else "--help"
    if name == "--version":
        print(f"fastcifar {__version__}")
    elif name in ("-h", "--help"):
        print("usage: fastcifar COMMAND [--help]\n")
        print("\n".join(f"  {command:10}{text}" for command, text in COMMANDS.items()))
    elif name in COMMANDS:
        importlib.import_module(f"fastcifar.cli.{name.replace('-', '_')}").main(arguments[1:])
    else:
        raise UserError(f"no command is called {name!r}: choose one of {', '.join(COMMANDS)}")


def run() -> None:
    """The console script."""
    run_command(main)


if __name__ == "__main__":
    run()
