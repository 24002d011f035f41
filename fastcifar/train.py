"""`python -m fastcifar.train`, the same as `fastcifar train`."""

from fastcifar.cli.console import run_command
from fastcifar.cli.train import main

if __name__ == "__main__":
    run_command(main)
