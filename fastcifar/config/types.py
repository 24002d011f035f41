"""Which values a field of a configuration takes, by its type: the same rules for Python, TOML files and components."""

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fastcifar.errors import UserError, shown

MAX_INT = 1 << 64
"""Largest whole number: larger ones overflow a float, and Python refuses to print those with thousands of digits."""


def field_hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields by name; raises UserError for one that is only imported for type checking."""
    try:
        hints = get_type_hints(kind)
    except NameError as error:
        raise UserError(
            f"{kind.__name__} has a field of an unknown type, {error.name}: import it at run time"
        ) from None
    return {item.name: hints[item.name] for item in fields(kind)}


def converted(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`, as TOML files and users write it; raises TypeError for a value of another type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        for argument in arguments:
            try:
                return converted(value, argument)
            except TypeError:
                continue
    elif hint in (None, type(None)):
        if value is None:
            return None
    elif origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in arguments):  # True == 1 == 1.0
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(hints) == len(value):
            return tuple(map(converted, value, hints))
    elif hint in (int, float) and type(value) is int and abs(value) <= MAX_INT:
        return hint(value)
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint in (bool, float, str) and type(value) is hint:
        return value
    raise TypeError


def described(hint: Any) -> str:
    """The values that `hint` allows, in words."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(described(argument) for argument in get_args(hint) if argument is not type(None))
    whole = "a whole number, at most 2**64"
    names = {bool: "true or false", int: whole, float: "a number", str: "a string", Path: "a string"}
    return names.get(hint, f"of the type {hint}".replace("typing.", ""))


def normalise(config: Any, prefix: str = "", skip: Collection[str] = ()) -> None:
    """Stores each field of the frozen dataclass `config` as its type: a text as a Path, a list as a tuple.

    Raises UserError, with the field and the value, for a value of another type and for a type that no configuration
    file can hold. Leaves out the fields in `skip`.
    """
    for name, hint in field_hints(type(config)).items():
        if name in skip:
            continue
        value = getattr(config, name)
        try:
            stored = converted(value, hint)
        except TypeError:
            raise UserError(f"{prefix}{name} is {shown(value)}, but must be {described(hint)}") from None
        if stored != value:  # 3 stays 3 where 3.0 is meant
            object.__setattr__(config, name, stored)
