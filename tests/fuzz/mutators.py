"""Mutations that keep JSON and TOML valid, so that the fuzzer reaches the code behind their parsers."""

import json
import random
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 2**64, 10**400, -0.0, 0.5, 1e308, 1e-320, float("nan"), float("inf"),
    "", "a", "\ud800", "\x00", "\x1b[2J", "..", "../x", "x" * 300, [], [[]], [[[1]]], [1, "a"], {}, {"a": {}},
)  # fmt: skip
LITERALS = (
    "0", "-1", "1.5", "true", "nan", "-inf", "1e999", "0x7fffffffffffffff", "0x" + "f" * 4000, "9" * 30, '""',
    '"a\\u0000b"', '"--help"', '"\\u001b"', "2026-11-21", "07:32:00", "[]", "[[]]", '["--debug"]',
    "[[1, 2], [0.5, 16]]", "[nan]", "{}", "{ a = 1 }", '"cuda"', '"resident"', '"muon"', '"speed"',
    '"resnet18"', "'''a\nb'''",
)  # fmt: skip


def mutate_json(content: bytes, random: random.Random) -> bytes:
    """Replaces one value by another of the document or by an unusual one, deletes it, or copies it to another key."""
    value = json.loads(content)
    places = list(_places(value))
    if not places:
        return json.dumps(random.choice(VALUES)).encode()
    inner, key = random.choice(places)
    chance = random.random()
    if chance < 0.1:
        del inner[key]
    elif chance < 0.15 and isinstance(inner, dict):
        inner[random.choice(("", "file", "seed", "\ud800", "x" * 100))] = inner[key]
    elif chance < 0.5:
        other, its_key = random.choice(places)
        inner[key] = json.loads(json.dumps(other[its_key]))
    else:
        inner[key] = random.choice(VALUES)
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def mutate_toml(content: bytes, random: random.Random) -> bytes:
    """Gives a line another value, duplicates it or deletes it."""
    lines = content.decode().split("\n")
    at = random.randrange(len(lines))
    name, equals, value = lines[at].partition(" = ")
    chance = random.random()
    if chance < 0.1:
        del lines[at]
    elif chance < 0.3:
        lines.insert(random.randrange(len(lines)), lines[at])
    elif equals and chance < 0.5:
        other = random.choice(lines).partition(" = ")[2]
        lines[at] = f"{name} = {other or value}"
    else:
        lines[at] = f"{name} = {random.choice(LITERALS)}"
    return "\n".join(lines).encode()


def mutate_checkpoint(content: bytes, random: random.Random) -> bytes:
    """Mutates the facts in a safetensors header, or the header itself, as JSON; the header length is updated."""
    length = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if random.random() < 0.7 and isinstance(metadata, dict) and isinstance(metadata.get("facts"), str):
        metadata["facts"] = mutate_json(metadata["facts"].encode(), random).decode()
        made = json.dumps(header, separators=(",", ":")).encode()
    else:
        made = mutate_json(content[8 : 8 + length], random)
    return len(made).to_bytes(8, "little") + made + rest


MUTATORS: dict[str, Mutator] = {
    "manifest": mutate_json,
    "verified": mutate_json,
    "config": mutate_toml,
    "checkpoint": mutate_checkpoint,
    "record": mutate_json,
}
