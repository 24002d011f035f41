"""Reads CIFAR-10's pickled batches without trusting them.

A batch is a pickled dictionary: `data`, a uint8 array (10000, 3072), and `labels`, a list of integers. Its pickle names
three NumPy globals, for which `find_class` returns harmless stand-ins; every other global is refused. The array is
built here, from the bytes.

A restricted `find_class` alone is not enough. With it, a few bytes still make `pickle.Unpickler` allocate gigabytes
(LONG_BINPUT with a large memo index), overflow the C stack (hash a deeply nested tuple as a dictionary key), hash for
hours (a tuple holding the same tuple twice, forty levels deep; long integers chosen to collide as keys) or change the
stand-ins (BUILD on a class). With NumPy's own classes as the allowed globals, it allocates arrays of any size and makes
object arrays. So `_scanned` scans the pickle with `pickletools` before anything is built:

- Only the opcodes that pickle protocols 2 to 5 use for a batch are allowed, and at most `_MAX_OPCODES` of them.
- Those that nest, call or make large integers may occur `_MAX_NESTING` times in total.
- A memo index is at most the number of opcodes before it, because picklers number the entries consecutively.
- The memo gives back only texts and globals, so no container is shared or contains itself.
- FRAME is removed: if an opcode crosses the end of a frame, the C unpickler skips bytes and parses unscanned opcodes.
"""

import io
import pickle
import pickletools
import warnings
from typing import Any, cast

import numpy as np

from fastcifar.data.cifar10 import IMAGE_BYTES
from fastcifar.errors import MALFORMED, UserError, reason, shown

_MAX_OPCODES = 1_000_000  # a batch of 10,000 images has 60,000
_MAX_NESTING = 64  # a batch has about 20
_NESTING = frozenset((
    "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "GLOBAL",
    "STACK_GLOBAL", "REDUCE", "BUILD", "LONG1",
))  # fmt: skip
_TEXTS_AND_GLOBALS = frozenset((
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE",
    "GLOBAL", "STACK_GLOBAL",
))  # fmt: skip
_PUTS = frozenset(("BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GETS = frozenset(("BINGET", "LONG_BINGET"))
_OTHERS = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS",
))  # fmt: skip
_ALLOWED = _NESTING | _TEXTS_AND_GLOBALS | _PUTS | _GETS | _OTHERS
_NDARRAY = "numpy.ndarray"  # stands for the class; a text can be neither called nor given a state


class _Dtype:
    """Stands for `numpy.dtype('u1')`."""

    def __init__(self, name: object, *_: object) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of type {shown(name)}, expected u1")

    def __setstate__(self, state: object) -> None:
        """Ignores byte order and alignment, which single bytes do not have."""


class _Array:
    """Stands for `numpy._core.multiarray._reconstruct` and its result; BUILD sets `rows`, uint8 (n, 3072)."""

    rows: np.ndarray | None = None

    def __init__(self, kind: object, shape: object, code: object) -> None:
        if kind != _NDARRAY:
            raise pickle.UnpicklingError("_reconstruct of something that is not numpy.ndarray")

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or fortran or not isinstance(content, bytes):
            raise pickle.UnpicklingError("the pixels are not an array of bytes in C order")
        if len(content) % IMAGE_BYTES or shape != (len(content) // IMAGE_BYTES, IMAGE_BYTES):
            raise pickle.UnpicklingError(
                f"{len(content)} bytes of pixels in an array of shape {shown(shape)}, expected rows of {IMAGE_BYTES}"
            )
        self.rows = np.frombuffer(content, np.uint8).reshape(-1, IMAGE_BYTES)


class _Unpickler(pickle.Unpickler):
    _STAND_INS = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {shown(f'{module}.{name}')}, which no CIFAR-10 batch needs")
        return self._STAND_INS[module, name]


def _scanned(content: bytes) -> bytes:
    """The pickle without frames; UnpicklingError unless loading it is bounded in memory, time and depth, as above."""
    memo: dict[Any, str] = {}  # the opcode that made each entry
    pieces, start = [], 0
    latest, nesting = "", 0
    for number, (opcode, argument, position) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if name not in _ALLOWED:
            raise pickle.UnpicklingError(f"it has the opcode {name}, which no batch of protocol 2 or later needs")
        nesting += name in _NESTING
        if number >= _MAX_OPCODES or nesting > _MAX_NESTING:
            raise pickle.UnpicklingError(f"it has more than {_MAX_OPCODES} opcodes, or {_MAX_NESTING} that nest")
        if name == "FRAME":
            pieces.append(content[start:position])
            start = cast("int", position) + 9
        if name in _PUTS:
            index = len(memo) if argument is None else argument
            if index > number:
                raise pickle.UnpicklingError(f"its opcode {number} has the memo index {index}")
            memo[index] = latest
            continue
        if name in _GETS and memo.get(argument) not in _TEXTS_AND_GLOBALS:
            raise pickle.UnpicklingError(f"memo entry {argument} is neither a text nor a global")
        latest = name
    return b"".join((*pieces, content[start:]))


def read_batch(where: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Reads a batch: uint8 (n, 3072) pixels and int64 (n,) labels; UserError naming `where` for anything else."""
    batch = _load(where, content)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, _Array) or data.rows is None:
        raise UserError(f"{where}: `data` is {type(data).__name__}, expected an array")
    if not isinstance(labels, list) or not all(type(label) is int and abs(label) < 1 << 31 for label in labels):
        raise UserError(f"{where}: `labels` is not a list of integers")
    if len(labels) != len(data.rows) or not labels:
        raise UserError(f"{where}: {len(data.rows)} images and {len(labels)} labels")
    return data.rows, np.array(labels, np.int64)


def read_class_names(where: str, content: bytes) -> tuple[str, ...]:
    """Reads the class names of `batches.meta`, in label order; UserError naming `where` for anything else."""
    names = _load(where, content).get("label_names")
    if not isinstance(names, list) or len(names) < 2:
        raise UserError(f"{where}: `label_names` is not a list of at least two names")
    decoded = tuple(_text(name) for name in names)
    if not all(isinstance(name, str) and name for name in decoded) or len(set(decoded)) != len(decoded):
        raise UserError(f"{where}: `label_names` are not distinct texts")
    return decoded


def _load(where: str, content: bytes) -> dict[Any, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # pickletools parses backslashes in global names as escapes
            scanned = _scanned(content)
        value = _Unpickler(io.BytesIO(scanned), encoding="bytes").load()
    except (pickle.UnpicklingError, *MALFORMED) as error:
        raise UserError(f"{where} is not a CIFAR-10 batch, or damaged: {reason(error):.200}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a CIFAR-10 batch: it holds a {type(value).__name__}, expected a dict")
    return {_text(key): item for key, item in value.items()}


def _text(value: Any) -> Any:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
