"""`python -m fastcifar.prepare`, the same as `fastcifar prepare`."""

from fastcifar.cli.console import run_command
from fastcifar.cli.prepare import main

if __name__ == "__main__":
    run_command(main)
