"""What may change in loaders and data sets while batches are taken: generators, counters, small arrays."""
from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .kinds import (
    BY_VALUE,
    FUNCTIONS,
    OBJECT,
    PLAIN,
    behind,
    fields,
    has_state,
    in_function,
    is_code,
    is_generator,
    kind_of,
)
from .loaders import Loader
from .module_state import attributes

__all__ = ["data_objects", "held_by", "named_loaders", "own_generators"]

FEW = 1024          # items of a container that is state, not data
SMALL = 4096        # elements of an array that is state, not data


def named_loaders(data: Any) -> dict[str, Any]:
    """The loaders that there are, by name."""
    found = {name: getattr(data, f"{short}_dl") for short, name in (
        ("train", "training"), ("valid", "validation"), ("test", "test"), ("fix", "fixed"))}
    return {name: dl for name, dl in found.items() if dl is not None}


def data_objects(dl: Any, name: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """What may change in a loader and its data set while batches are taken: (place, object, attributes) of each object
    that is found there. Large arrays and long lists are data, and are left out; so are positions of loaders."""
    inner = dl.dl
    if isinstance(inner, Loader):
        first = [getattr(inner, part, None) for part in ("dataset", "collate_fn")]
    else:
        first = [] if has_state(inner) else [inner]
    places = [(f"{name} ({type(x).__name__})", x) for x in first]
    seen: set[int] = set()
    while places:
        place, x = places.pop()
        x = behind(x) or x
        if id(x) in seen or len(seen) > FEW:
            continue
        seen.add(id(x))
        if isinstance(x, (list, tuple)):
            places += [(f"{place}[{i}]", v) for i, v in enumerate(x)] if len(x) <= FEW else []
            continue
        parts = held_by(x)
        if isinstance(x, DataLoader):
            parts.pop("_iterator", None)    # of workers that are kept: see `DeviceDataLoader.load_state_dict`
        held = {key: v if _moves(v) or not isinstance(v, types.CellType) else v.cell_contents
                for key, v in parts.items()}
        moving = {key: v for key, v in held.items() if _moves(v)}
        if moving or hasattr(x, "__dict__") and not isinstance(x, (*FUNCTIONS, type)):
            yield place, x, moving  # without any too: it may get some
        places += [(f"{place}.{key}", v) for key, v in held.items() if key not in moving and _may_hold(v)]


def own_generators(dl: Any) -> list[str]:
    """The places of random generators that a loader's data set and its parts have."""
    return [f"{place}.{key}" for place, _, moving in data_objects(dl, "data") for key, v in moving.items()
            if is_generator(v)]


def held_by(x: Any) -> dict[str, Any]:
    """The parts of a module, function or object, by name."""
    if isinstance(x, nn.Module):
        return {**attributes(x), **x._buffers, **x._modules}
    if isinstance(x, functools.partial):
        return {"func": x.func, **{str(i): v for i, v in enumerate(x.args)}, **x.keywords}
    if isinstance(x, types.FunctionType):
        return {**in_function(x), **vars(x)}
    return fields(x) if kind_of(x) is OBJECT else {}


def _moves(x: Any) -> bool:
    """Whether it is state that may change, rather than data."""
    kind = kind_of(x)
    if behind(x) is not None:
        return is_generator(behind(x))      # a method of one
    if kind is None and not isinstance(x, tuple) and type(x) not in PLAIN:
        if isinstance(x, (Tensor, np.ndarray)):
            return (x.numel() if isinstance(x, Tensor) else x.size) <= SMALL
        return isinstance(x, (Iterator, np.generic)) and not is_code(x) or type(x) in BY_VALUE or isinstance(x, Enum)
    if kind is not None and kind.name == "cell":
        return all(map(_moves, kind.read(x)))
    if kind is OBJECT:
        return has_state(x) and _size(x, SMALL) <= SMALL
    return is_generator(x) or _size(x, FEW) <= FEW


def _size(x: Any, most: int, seen: set[int] | None = None) -> float:
    """How many numbers are in containers and modules, counted to `most`; infinite where there is something else,
    such as tensors: a tuple of them is data."""
    seen = set() if seen is None else seen
    if type(x) in PLAIN or id(x) in seen:
        return 1
    seen.add(id(x))
    if isinstance(x, nn.Module):
        return 1.0 + sum(t.numel() for t in (*x.parameters(), *x.buffers()) if not nn.parameter.is_lazy(t))
    kind = kind_of(x)
    if has_state(x):
        return 1
    if not isinstance(x, tuple) and (kind is None or kind is OBJECT):
        return float("inf")
    inner = x if isinstance(x, tuple) else kind.read(x)     # type: ignore[union-attr]
    found = 1.0
    for part in inner if isinstance(inner, (list, tuple)) else ():
        if found <= most:
            found += _size(part, most, seen)
    return found


def _may_hold(x: Any) -> bool:
    return kind_of(x) is OBJECT or isinstance(x, (list, tuple, *FUNCTIONS)) or behind(x) is not None
