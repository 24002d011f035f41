"""Configurations as TOML: what a run writes beside its result can be given back to `--config` and repeats it.

The keys are the fields of `Config`; the sections of the network and of the optimiser say which one they are by `kind`.
"""

import json
import tomllib
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from fastcifar.config import (
    AdamConfig,
    Config,
    FfcvNetConfig,
    MuonConfig,
    ResNet18Config,
    ResNetConfig,
    SgdConfig,
    SpeedNetConfig,
)
from fastcifar.errors import UserError, shown
from fastcifar.files import read_at_most

KINDS: dict[str, dict[str, type]] = {
    "model": {"resnet": ResNetConfig, "speed": SpeedNetConfig, "resnet18": ResNet18Config, "ffcv": FfcvNetConfig},
    "optimizer": {"sgd": SgdConfig, "adam": AdamConfig, "muon": MuonConfig},
}
"""What `kind` means in the sections that have a choice."""
MAX_BYTES = 1 << 14  # of a file; a whole configuration has 700, and dotted keys take the square of their length
LARGEST = 1 << 64  # of whole numbers; no field takes more


def to_toml(config: Config) -> str:
    """Every field of `config`; fields that are None are left out, as TOML has no such value."""
    lines: list[str] = []
    sections: list[str] = []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            sections += ["", f"[{field.name}]"]
            sections += [f'kind = "{kind}"' for kind, of in KINDS.get(field.name, {}).items() if type(value) is of]
            sections += [f"{inner.name} = {_literal(getattr(value, inner.name))}" for inner in fields(value)]
        elif value is not None:
            lines.append(f"{field.name} = {_literal(value)}")
    return "\n".join(lines + sections) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    # JSON's numbers and strings are TOML's, but for escapes of surrogates, which it lacks, and DEL, which it escapes
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file; raises UserError where it cannot be read."""
    try:
        return tomllib.loads(read_at_most(path, MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}; name a TOML file") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: whole numbers of thousands of digits, too
        raise UserError(f"{path} is not valid TOML: {error}") from None


def with_kinds(config: Config, table: dict[str, Any], path: Path) -> Config:
    """`config` with the network and the optimiser that the file names by `kind`, which is taken out of `table`."""
    for section, kinds in KINDS.items():
        inner = table.get(section)
        name = inner.pop("kind", None) if isinstance(inner, dict) else None
        if name is None:
            continue
        if not isinstance(name, str) or name not in kinds:
            raise UserError(f"{path} has the {section}.kind {shown(name)}: choose one of {', '.join(kinds)}")
        if type(getattr(config, section)) is not kinds[name]:
            config = replace(config, **{section: kinds[name]()})
    return config


def to_arguments(table: dict[str, Any], config: Any, path: Path, prefix: str = "") -> list[str]:
    """The command-line arguments that say the same as `table`, so that both are checked in one place.

    Raises UserError for a key that is not a field of `config`.
    """
    known = [field.name for field in fields(config)]
    arguments: list[str] = []
    for key, value in table.items():
        if key not in known:
            raise UserError(f"{path} has the unknown key {prefix}{key}; known there are {', '.join(known)}")
        current, flag = getattr(config, key), f"--{prefix}{key}".replace("_", "-")
        if isinstance(value, dict) != is_dataclass(current) or (isinstance(current, bool) > isinstance(value, bool)):
            raise UserError(f"{path} has {prefix}{key} = {shown(value)}, but that is {_described(current)}")
        if isinstance(value, dict):
            arguments += to_arguments(value, current, path, f"{prefix}{key}.")
        elif isinstance(current, bool):
            arguments.append(flag if value else f"--{prefix}no-{key}".replace("_", "-"))
        elif isinstance(value, list):
            arguments += [flag, *map(str, _numbers(value, f"{path} has {prefix}{key}"))]
        elif _is_number(value) or isinstance(value, str):
            arguments.append(f"{flag}={value}")
        else:
            raise UserError(f"{path} has {prefix}{key} = {shown(value)}, but that is a number or a text")
    return arguments


def _described(value: Any) -> str:
    if is_dataclass(value):
        return f"a section with {', '.join(field.name for field in fields(value))}"
    return "true or false" if isinstance(value, bool) else "one value"


def _numbers(values: list[Any], where: str) -> list[int | float]:
    """The numbers in a list of numbers and lists; a text could pass for a flag."""
    found: list[int | float] = []
    for value in values:
        if isinstance(value, list):
            found += _numbers(value, where)
        elif _is_number(value):
            found.append(value)
        else:
            raise UserError(f"{where} with {shown(value)} in it, but its values are numbers")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < LARGEST)
