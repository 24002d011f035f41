"""`python -m fastcifar.train`, the same as `fastcifar train`. As an import it is the function of the public API."""

import sys

from fastcifar.cli.console import run_command

if __name__ == "__main__":
    from fastcifar.cli.train import main

    run_command(main)
else:
    from fastcifar.api import train

    sys.modules[__name__] = train  # type: ignore[assignment]  (or importing this module would hide the function)
