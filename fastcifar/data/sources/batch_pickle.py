"""Reads CIFAR-10's pickled batches without running what a pickle asks for.

The batches are Python 2 pickles of a dictionary: `data`, a uint8 array (10000, 3072), and `labels`, a list. They name
three globals. Each gets a stand-in that only keeps what it is told and checks it; every other one is refused. The
array is then built here from the bytes. The interpreter of the pickle is Python's own in Python: the one in C
allocates whatever a forged memo index asks for. It gets only the operations that a batch needs and a bounded number of
them: a few bytes could ask for gigabytes otherwise, or for the hash of nested tuples, which takes for ever.
"""

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from fastcifar.data.cifar10 import IMAGE_BYTES
from fastcifar.errors import UserError, shown

_MAX_ROWS = 1_000_000
_MAX_OPERATIONS = 5_000_000  # a batch of 10,000 images has 60,000
_OPERATIONS = frozenset(b"".join((
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
    pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1,
    pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8,
    pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8,
    pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS,
    pickle.EMPTY_DICT, pickle.DICT, pickle.SETITEM, pickle.SETITEMS,
    pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD,
    pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GET, pickle.BINGET, pickle.LONG_BINGET,
)))  # fmt: skip
_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class _NdarrayType:
    """Stands for `numpy.ndarray`; a pickle hands it to `_reconstruct` and must not call it."""

    def __init__(self, *arguments: object) -> None:
        raise pickle.UnpicklingError("it calls numpy.ndarray")


class _Dtype:
    """Stands for `numpy.dtype('u1')`."""

    def __init__(self, name: object, *_: object) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of type {shown(name)}, expected u1")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment: of no meaning for single bytes."""


class _Array:
    """Stands for an array under construction; `rows` is uint8 (n, 3072) afterwards."""

    def __init__(self, kind: object, shape: object, code: object) -> None:
        if kind is not _NdarrayType:
            raise pickle.UnpicklingError("_reconstruct of something that is not numpy.ndarray")
        self.rows: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or fortran:
            raise pickle.UnpicklingError("the pixels are not a plain array of bytes, rows first")
        if not isinstance(content, bytes) or not isinstance(shape, tuple) or len(shape) != 2:
            raise pickle.UnpicklingError("the pixels are not a table of bytes")
        count, width = shape
        if type(width) is not int or width != IMAGE_BYTES:
            raise pickle.UnpicklingError(f"rows of {shown(width)} bytes, expected {IMAGE_BYTES}")
        if type(count) is not int or not 0 <= count <= _MAX_ROWS or count * width != len(content):
            raise pickle.UnpicklingError(f"{len(content)} bytes of pixels for {shown(count)} rows of {width}")
        self.rows = np.frombuffer(content, np.uint8).reshape(count, width)


class _Operations(dict[int, Callable[[Any], None]]):
    """What the interpreter does by the code of an operation; ends a pickle that has too many of them."""

    left = _MAX_OPERATIONS

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it has more than {_MAX_OPERATIONS} operations")
        if code not in self:
            raise pickle.UnpicklingError(f"it has the operation {code:#04x}, which no batch needs")
        return super().__getitem__(code)


class _CifarUnpickler(pickle._Unpickler):  # type: ignore[name-defined]
    _ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _NdarrayType,
        ("numpy", "dtype"): _Dtype,
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        operations = {code: self.dispatch[code] for code in _OPERATIONS}
        operations[pickle.SETITEM[0]], operations[pickle.SETITEMS[0]] = _set_item, _set_items
        operations[pickle.DICT[0]], operations[pickle.BUILD[0]] = _new_dict, _set_state
        self.dispatch = _Operations(operations)  # pyright: ignore[reportAttributeAccessIssue]  (counts, so it is ours)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            wanted = " ".join(f"{module:.60}.{name:.60}".split())
            raise UserError(f"the pickle asks for {wanted}, which no CIFAR-10 batch needs; refused")
        return self._ALLOWED[module, name]


def _set_state(unpickler: Any) -> None:
    state = unpickler.stack.pop()
    if not isinstance(unpickler.stack[-1], _Array | _Dtype):  # of anything else, attributes would be set
        raise pickle.UnpicklingError("it gives a state to something that has none")
    unpickler.stack[-1].__setstate__(state)


def _set_item(unpickler: Any) -> None:
    value, key = unpickler.stack.pop(), unpickler.stack.pop()
    _fill(unpickler.stack[-1], [key, value])


def _set_items(unpickler: Any) -> None:
    items = unpickler.pop_mark()
    _fill(unpickler.stack[-1], items)


def _new_dict(unpickler: Any) -> None:
    items = unpickler.pop_mark()
    unpickler.append(_fill({}, items))


def _fill(target: Any, items: list[Any]) -> Any:
    if type(target) is not dict or len(items) % 2 or not all(isinstance(key, str | bytes) for key in items[::2]):
        raise pickle.UnpicklingError("it fills something that is no dictionary of texts")
    target.update(zip(items[::2], items[1::2], strict=True))
    return target


def read_batch(where: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a batch: uint8 (n, 3072) and int64 (n,) labels; UserError naming `where` for anything else."""
    batch = _load(where, content)
    data, labels = batch.get("data"), batch.get("labels")
    if not isinstance(data, _Array) or data.rows is None:
        raise UserError(f"{where}: its `data` is {type(data).__name__}, expected an array")
    if not isinstance(labels, list) or not all(type(label) is int and abs(label) < 1 << 31 for label in labels):
        raise UserError(f"{where}: its `labels` are no list of whole numbers")
    if len(labels) != len(data.rows) or not labels:
        raise UserError(f"{where}: {len(data.rows)} images and {len(labels)} labels")
    return data.rows, np.array(labels, np.int64)


def read_class_names(where: str, content: bytes) -> tuple[str, ...]:
    """The class names of `batches.meta`, in label order; UserError naming `where` for anything else."""
    names = _load(where, content).get("label_names")
    if not isinstance(names, list) or len(names) < 2:
        raise UserError(f"{where}: its `label_names` are no list of at least two names")
    decoded = tuple(_text(name) for name in names)
    if not all(isinstance(name, str) and name for name in decoded) or len(set(decoded)) != len(decoded):
        raise UserError(f"{where}: its `label_names` are not different texts")
    return decoded


def _load(where: str, content: bytes) -> dict[Any, Any]:
    try:
        value = _CifarUnpickler(content).load()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where} is no batch of CIFAR-10, or damaged: {reason:.200}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} is no batch of CIFAR-10: it holds a {type(value).__name__}, expected a dict")
    return {_text(key): item for key, item in value.items()}


def _text(value: Any) -> Any:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
