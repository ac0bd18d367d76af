"""The kinds of objects whose contents change in a run: how each is read, filled, and made.

`Kept` (keeping.py) and `put_back` (restoring.py) take them to a file and back; snapshot.py keeps them in memory.
"""
from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import functools
import io
import logging
import pathlib
import queue
import random
import re
import types
import uuid
import weakref
from collections.abc import Callable, Mapping
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Kind", "behind", "class_name", "described", "fields", "fill_object", "has_state", "in_function", "is_code",
           "is_generator", "kind_of", "of_library"]

PLAIN = {type(None), bool, int, float, str, bytes}


def _in_order(x: Any) -> list[Any]:
    return sorted(x, key=repr)      # equal sets are to be equal in files


# values that are made again from plain ones
BY_VALUE: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    complex: (lambda x: (x.real, x.imag), lambda s: complex(*s)),
    range: (lambda x: (x.start, x.stop, x.step), lambda s: range(*s)),
    slice: (lambda x: (x.start, x.stop, x.step), lambda s: slice(*s)),
    datetime.datetime: (lambda x: x.isoformat(), datetime.datetime.fromisoformat),
    datetime.date: (lambda x: x.isoformat(), datetime.date.fromisoformat),
    datetime.timedelta: (lambda x: (x.days, x.seconds, x.microseconds), lambda s: datetime.timedelta(*s)),
    decimal.Decimal: (str, decimal.Decimal),
    fractions.Fraction: (str, fractions.Fraction),
    uuid.UUID: (str, uuid.UUID),
    torch.Size: (tuple, torch.Size),
    frozenset: (_in_order, frozenset),
    bytes: (lambda x: torch.tensor(list(x), dtype=torch.uint8), lambda s: s.numpy().tobytes()),
    **{path: (str, path) for path in (pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath,
                                      pathlib.PureWindowsPath)},
}
BIT_GENERATORS = {cls.__name__: cls for cls in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937,
                                                np.random.Philox, np.random.SFC64)}
FACTORIES = {cls.__name__: cls for cls in (int, float, list, dict, set, str, bool)}

# what a program brings itself, and what belongs to a process: never kept, and no reason for a warning
CODE = (type, types.ModuleType, types.BuiltinFunctionType, types.MethodWrapperType, types.CodeType, np.ufunc, np.dtype,
        property, re.Pattern, weakref.ref, logging.Logger, logging.Handler, io.IOBase, random.SystemRandom, torch.dtype,
        torch.device, torch.layout, torch.memory_format, torch.Stream, types.MappingProxyType, BaseException,
        types.TracebackType, types.FrameType)
FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)   # there may be something behind them
PROCESS = {"_thread", "threading", "socket", "multiprocessing", "concurrent", "asyncio",
           "subprocess", "tempfile", "contextlib", "weakref", "selectors", "ssl", "sqlite3", "ctypes", "signal",
           "importlib", "torch", "numpy", "fastprogress", "tensorboard", "IPython", "matplotlib", "mlflow", "wandb",
           "optuna"}     # packages


class Kind(NamedTuple):
    """How objects of a type are read and filled: `read(x)` is their contents, `fill(x, contents)` the way back,
    `make(contents)` an empty one where there is none yet (None: it takes one)."""

    name: str
    read: Callable[[Any], Any]
    fill: Callable[[Any, Any], None]
    make: Callable[[Any], Any] | None


def _fill_list(x: Any, items: Any) -> None:
    x[:] = items


def _fill_dict(x: Any, items: Any) -> None:
    x.clear()
    for key, value in items:
        x[key] = value


def _fill_set(x: Any, items: Any) -> None:
    x.clear()
    x.update(items)


def _fill_deque(x: Any, state: Any) -> None:
    x.clear()
    x.extend(state[0])


def _fill_array(x: Any, state: Any) -> None:
    del x[:]
    x.frombytes(state[1])


def _fill_queue(x: Any, items: Any) -> None:
    x.queue.clear()
    x.queue.extend(items)


def _set_value(x: Any, value: Any) -> None:
    x.value = value


def _set_bits(x: Any, state: Any) -> None:
    x.state = state


def _set_numpy(x: Any, state: Any) -> None:
    x.bit_generator.state = state


def _set_random(x: Any, state: Any) -> None:
    x.setstate((state[0], tuple(state[1]), state[2]))


def fields(x: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    slots = [name for cls in type(x).__mro__ for name in _names(vars(cls).get("__slots__", ()))]
    found = {name: getattr(x, name) for name in slots if hasattr(x, name) and not name.startswith("__")}
    return {**found, **getattr(x, "__dict__", {})}


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def fill_object(x: Any, contents: Mapping[str, Any]) -> None:
    """Give an object these attributes, and no others."""
    for name in [name for name in getattr(x, "__dict__", {}) if name not in contents]:
        del x.__dict__[name]
    for name, value in contents.items():
        if name in getattr(x, "__dict__", {}) or not hasattr(type(x), name):
            x.__dict__[name] = value
        elif getattr(x, name, x) is not value:
            object.__setattr__(x, name, value)  # a slot, also of a frozen dataclass


def _fill_cell(x: Any, contents: Any) -> None:
    if contents:
        x.cell_contents = contents[0]


def _read_cell(x: Any) -> list[Any]:
    try:
        return [x.cell_contents]
    except ValueError:  # empty
        return []


KINDS: dict[type, Kind] = {
    list: Kind("list", list, _fill_list, lambda s: []),
    dict: Kind("dict", lambda x: list(x.items()), _fill_dict, lambda s: {}),
    collections.OrderedDict: Kind("OrderedDict", lambda x: list(x.items()), _fill_dict,
                                  lambda s: collections.OrderedDict()),
    collections.Counter: Kind("Counter", lambda x: list(x.items()), _fill_dict, lambda s: collections.Counter()),
    collections.defaultdict: Kind("defaultdict", lambda x: list(x.items()), _fill_dict, None),
    set: Kind("set", _in_order, _fill_set, lambda s: set()),
    collections.deque: Kind("deque", lambda x: (list(x), x.maxlen), _fill_deque,
                            lambda s: collections.deque(maxlen=s[1])),
    bytearray: Kind("bytearray", bytes, _fill_list, lambda s: bytearray()),
    array.array: Kind("array", lambda x: (x.typecode, x.tobytes()), _fill_array, lambda s: array.array(s[0])),
    random.Random: Kind("Random", lambda x: x.getstate(), _set_random, lambda s: random.Random()),
    np.random.Generator: Kind("Generator", lambda x: x.bit_generator.state, _set_numpy,
                              lambda s: np.random.Generator(BIT_GENERATORS[s["bit_generator"]]())),
    np.random.RandomState: Kind("RandomState", lambda x: x.get_state(legacy=False),
                                lambda x, s: x.set_state(s), lambda s: np.random.RandomState()),
    np.random.BitGenerator: Kind("BitGenerator", lambda x: x.state, _set_bits,
                                 lambda s: BIT_GENERATORS[s["bit_generator"]]()),
    torch.Generator: Kind("torch.Generator", lambda x: x.get_state(), lambda x, s: x.set_state(s.cpu()),
                          lambda s: torch.Generator()),
    queue.Queue: Kind("Queue", lambda x: list(x.queue), _fill_queue, None),
    Synchronized: Kind("shared number", lambda x: x.value, _set_value, None),
    SynchronizedArray: Kind("shared row", lambda x: list(x[:]), _fill_list, None),
    types.CellType: Kind("cell", _read_cell, _fill_cell, None),
}
OBJECT = Kind("object", fields, fill_object, None)


@functools.cache
def _kind(cls: type) -> Kind | None:
    if cls in KINDS:
        return KINDS[cls]
    if issubclass(cls, (*CODE, *FUNCTIONS, Tensor, np.ndarray, np.generic, enum.Enum)) or cls in BY_VALUE:
        return None
    for base in cls.__mro__[1:-1]:
        if base in KINDS:
            return KINDS[base]
    package = cls.__module__.partition(".")[0]
    if hasattr(cls, "state_dict") or cls.__module__.startswith("torch.utils.data"):
        return OBJECT
    has_fields = cls.__dictoffset__ != 0 or any(_names(vars(c).get("__slots__", ())) for c in cls.__mro__)
    return OBJECT if has_fields and package not in {"builtins", *PROCESS} and not issubclass(cls, tuple) else None


def kind_of(x: Any) -> Kind | None:
    """How `x` is read and filled, or None where it is no container, generator or object."""
    return _kind(type(x))   # type: ignore[arg-type]


def behind(x: Any) -> Any:
    """The object that a method is one of, else None: it may be a generator."""
    x = getattr(x, "__self__", None) if isinstance(x, (types.MethodType, types.BuiltinFunctionType)) else None
    return None if isinstance(x, (type, types.ModuleType)) else x


def in_function(x: Any) -> dict[str, Any]:
    """What a function may change from call to call: the cells of its closure, and containers, generators and the like
    in its defaults. Functions of minifast and torch only change the tensors, generators and functions there."""
    own = not of_library(x.__module__)
    cells = dict(zip(x.__code__.co_freevars, x.__closure__ or (), strict=True))
    found = {name: cell for name, cell in cells.items() if any(_of_function(v, own) for v in _read_cell(cell))}
    defaults = {f"default {i}": value for i, value in enumerate(x.__defaults__ or ())}
    return {**found, **{name: value for name, value in defaults.items() if type(value) not in PLAIN
                        and _of_function(value, own)}}


def _of_function(x: Any, own: bool) -> bool:
    if isinstance(x, (Tensor, np.ndarray, *FUNCTIONS)) or is_generator(x) or behind(x) is not None:
        return True
    return own and not is_code(x)


def of_library(module: str | None) -> bool:
    """Whether the module is minifast's or torch's: the types of attributes are known there."""
    return (module or "").partition(".")[0] in ("minifast", "torch")


def is_generator(x: Any) -> bool:
    """Whether it is a generator of random numbers."""
    kind = kind_of(x)
    return kind is not None and kind.name in ("Random", "Generator", "RandomState", "BitGenerator", "torch.Generator")


def is_code(x: Any) -> bool:
    """Whether it is what a program brings itself (functions, classes, constants) or what belongs to a process."""
    if isinstance(x, (*FUNCTIONS, Tensor, np.ndarray, np.generic, enum.Enum)) or type(x) in BY_VALUE \
            or kind_of(x) is not None or behind(x) is not None or has_state(x):
        return False
    return isinstance(x, CODE) or type(x).__module__.partition(".")[0] in PROCESS


def class_name(x: Any) -> str:
    """The name of its class, with the module's."""
    return f"{type(x).__module__}.{type(x).__qualname__}"


def has_state(x: Any) -> bool:
    """Whether the object says itself what its state is, as torch's modules, optimizers and schedulers do."""
    names = ("state_dict", "load_state_dict")
    return not isinstance(x, type) and all(callable(getattr(x, name, None)) for name in names)


def described(x: Any) -> str:
    """A function, class or constant in a word, to see whether it is another one."""
    if isinstance(x, (torch.dtype, torch.device, torch.layout, torch.memory_format, re.Pattern, np.dtype)):
        return str(x)
    name = getattr(x, "__qualname__", None)
    return f"{getattr(x, '__module__', '')}.{name}" if isinstance(name, str) else f"a {type(x).__name__}"
