"""Configurations as TOML: the config.toml that a run writes can be given back to `--config` and repeats the run.

The keys are the fields of `Config`; `kind` in the sections `model` and `optimizer` selects the component.
"""

import json
import tomllib
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastcifar.config.components import (
    AdamConfig,
    FfcvNetConfig,
    MuonConfig,
    ResNet18Config,
    ResNetConfig,
    SgdConfig,
    SpeedNetConfig,
)
from fastcifar.config.schema import Config
from fastcifar.errors import UserError, shown
from fastcifar.files import read_at_most

KINDS: dict[str, dict[str, type]] = {
    "model": {"resnet": ResNetConfig, "speed": SpeedNetConfig, "resnet18": ResNet18Config, "ffcv": FfcvNetConfig},
    "optimizer": {"sgd": SgdConfig, "adam": AdamConfig, "muon": MuonConfig},
}
"""What `kind` selects in each section that has a choice."""
MAX_BYTES = 1 << 14
"""Largest file, in bytes: a whole configuration has 700, and dotted keys cost the square of their length."""
MAX_INT = 1 << 64
T = TypeVar("T")


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


def apply_table(config: T, table: dict[str, Any], path: Path, prefix: str = "") -> T:
    """`config`, a dataclass, with the values of `table` in place of its own.

    Raises UserError that names `path`, the key and the value for an unknown key, a value of the wrong type and a value
    that the dataclass refuses.
    """
    known = [field.name for field in fields(config)]  # type: ignore[arg-type]
    hints = get_type_hints(type(config))
    changed: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UserError(f"{path} has the unknown key {prefix}{key}; known there are {', '.join(known)}")
        current = getattr(config, key)
        if is_dataclass(current) and isinstance(value, dict):
            section, rest = _of_kind(key, current, value, path)
            changed[key] = apply_table(section, rest, path, f"{key}.")
            continue
        try:
            changed[key] = _converted(value, hints[key])
        except TypeError:
            wanted = _described(current, hints[key])
            raise UserError(f"{path} has {prefix}{key} = {shown(value)}, but that is {wanted}") from None
    try:
        return replace(config, **changed)  # type: ignore[type-var]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _of_kind(section: str, current: Any, table: dict[str, Any], path: Path) -> tuple[Any, dict[str, Any]]:
    """What the section's table is applied to, and the table without `kind`.

    That is `current` unless `kind` names another component: then the defaults of that one.
    """
    kinds = KINDS.get(section)
    if kinds is None or "kind" not in table:
        return current, table
    name, rest = table["kind"], {key: value for key, value in table.items() if key != "kind"}
    if not isinstance(name, str) or name not in kinds:
        raise UserError(f"{path} has {section}.kind = {shown(name)}: choose one of {', '.join(kinds)}")
    return (current if type(current) is kinds[name] else kinds[name]()), rest


def _converted(value: Any, hint: Any) -> Any:
    """`value`, as TOML has it, as the type `hint`; raises TypeError where it is of another type."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (argument for argument in arguments if argument is not NoneType)
        return _converted(value, hint)
    if get_origin(hint) is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(_converted(inner, kind) for inner, kind in zip(value, kinds, strict=True))
    elif get_origin(hint) is Literal and (type(value), value) in [(type(argument), argument) for argument in arguments]:
        return value
    elif hint is float and type(value) is int and abs(value) <= MAX_INT:
        return float(value)
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif (hint is int and type(value) is int and abs(value) <= MAX_INT) or (
        hint in (bool, str, float) and type(value) is hint
    ):
        return value
    raise TypeError


def _described(current: Any, hint: Any) -> str:
    if is_dataclass(current):
        return f"a section with {', '.join(field.name for field in fields(current))}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", Path: "a path"}
    return names.get(hint, f"of the form {shown(current)}" if current is not None else "a whole number")
