"""What a pickle of lists, dictionaries, texts and numbers holds, read without running what the file says.

A pickle is a program that calls what it names. Here the few names that arrays of numpy are pickled under stand for
recipients of ours, which take bare numbers; a file that names anything else, or does anything else, is refused.
"""

import io
import itertools
import math
import pickle
import pickletools
from typing import Any

import numpy as np

MOST = 2_000_000  # operations of a file; those of the published ones are some 100,000
# What builds containers, texts and numbers, and calls what has been looked up; nothing that finds or makes a class.
OPERATIONS = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET"),
    *("LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINBYTES", "SHORT_BINBYTES"),
}
PLACES = {"PUT", "BINPUT", "LONG_BINPUT"}  # the memo is as long as the largest of them


def read(content: bytes) -> Any:
    """Its containers, texts and numbers; arrays are float64, int64 or bool. Raises ValueError in one line for whatever
    else it may be."""
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
            if operation.name not in OPERATIONS:
                raise ValueError(f"it does more than hold values ({operation.name})")
            if number >= MOST or (operation.name in PLACES and int(argument) >= MOST):
                raise ValueError(f"it takes more than {MOST:,} operations")
        return _plain(_Reader(io.BytesIO(content), encoding="latin1").load())
    except RecursionError:
        raise ValueError("it nests without end") from None
    except ValueError as error:
        raise ValueError(str(error).splitlines()[0][:200] if str(error) else "it is damaged") from None
    except Exception as error:  # a damaged program fails anywhere
        raise ValueError(f"it is damaged ({type(error).__name__})") from None


class _Named:
    """What stands for a name of numpy's: it is called, or only handed on, and nothing of it can be changed."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes what it names")


class _Kind(_Named):
    """A dtype of numbers, of the byte order that a pickle says afterwards."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any):
        if not isinstance(code, str) or code.lstrip("<>|=") not in _CODES:
            raise ValueError("it holds an array of something else than numbers")
        self.dtype = np.dtype(code.lstrip("<>|="))

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError("it holds an array of an unknown order of bytes")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(_Named):
    __slots__ = ("values",)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, numbers = state
        self.values = _numbers(kind, numbers).reshape(_sides(shape), order="F" if by_columns else "C")


class _Maker(_Named):
    """Called as the function of this name of numpy's, or of Python's for bytes in old pickles."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *given: Any) -> Any:
        if self.name == "encode":
            text, coding = given
            if coding != "latin1":
                raise ValueError("it holds bytes in an unknown coding")
            return text.encode("latin1")
        if self.name == "bytes" and not given:  # so are none pickled
            return b""
        if self.name == "dtype":
            return _Kind(given[0])
        if self.name == "_reconstruct":
            return _Array()
        if self.name == "scalar":
            kind, number = given
            return _numbers(kind, number)[0].item()
        raise ValueError("it calls what is no function")


_CODES = {"b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8"}
_NAMES = {
    **{
        (f"numpy.{core}.multiarray", name): name
        for core, name in itertools.product(("core", "_core"), ("_reconstruct", "scalar"))
    },
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Maker:
        if (module, name) not in _NAMES:
            raise ValueError(f"it would run {module}.{name}")
        return _Maker(_NAMES[module, name])


def _numbers(kind: Any, numbers: Any) -> np.ndarray:
    if not isinstance(kind, _Kind):
        raise ValueError("it holds an array of something else than numbers")
    if isinstance(numbers, str):  # as Python 2 wrote bytes
        numbers = numbers.encode("latin1")
    found = np.frombuffer(numbers, kind.dtype)
    return found.astype(bool if kind.dtype.kind == "b" else np.float64 if kind.dtype.kind == "f" else np.int64)


def _sides(shape: Any) -> tuple[int, ...]:
    sides = tuple(shape)
    if len(sides) > 8 or any(type(side) is not int or side < 0 for side in sides) or math.prod(sides) > MOST:
        raise ValueError("it holds an array of an impossible shape")
    return sides


def _plain(value: Any, left: list[int] | None = None) -> Any:
    """`value` with arrays in the places of what stands for them. One that holds itself, or the same again and again,
    is refused."""
    left = [MOST] if left is None else left
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"it holds more than {MOST:,} values")
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, _Named):
        raise ValueError("it holds something else than values")
    if isinstance(value, dict):
        return {key: _plain(each, left) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(each, left) for each in value)
    return value
