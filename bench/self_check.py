"""`python -m bench self_check`: what the self-check before a training finds for some recipes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.training import Device, recipe_config
from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.errors import RunFailedError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run the self-check of recipes; exits with 1 if it finds something."""

    recipes: tuple[str, ...] = ("fast90", "fast94", "resnet24")
    """Names of the recipes."""
    data: Path = Path("data")
    """Folder of the prepared data."""
    device: Device = "auto"
    """Device to check."""
    quick: bool = False
    """Small networks, to check that the command works."""


def main(arguments: list[str]) -> None:
    """Prints every finding, and JSON as the last line. Raises RunFailedError if there is one."""
    options = parse(Options, arguments, prog="python -m bench self_check")
    check = available_check()
    findings: dict[str, list[str]] = {}
    for name in options.recipes:
        config = recipe_config(name, options.data, options.device, quick=options.quick)
        findings[name] = [] if check is None else [str(finding) for finding in check(config)]
        for finding in findings[name]:
            print(f"{name}: {finding}", flush=True)
    print(json.dumps({"what": "self_check", "available": check is not None, "findings": findings}))
    if count := sum(map(len, findings.values())):
        raise RunFailedError(f"the self-check has {count} findings; see above")


def available_check() -> Callable[[Config], list[str]] | None:
    """The self-check; None where this version has none."""
    try:
        from fastcifar.training.self_check import self_check  # type: ignore[import-not-found]
    except ImportError:
        return None
    return self_check
