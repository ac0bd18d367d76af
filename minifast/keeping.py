"""Values of any type as plain values and tensors, for a file. `restoring.py` has the way back.

An object is never made by a name in a file: in a new process its contents go into the object that is in the
same place there. So reading a file runs no code.
"""
from __future__ import annotations

import collections
import enum
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .kinds import (
    BY_VALUE,
    KINDS,
    OBJECT,
    PLAIN,
    Kind,
    behind,
    class_name,
    described,
    fields,
    has_state,
    in_function,
    is_code,
    kind_of,
)
from .module_state import attributes, module_state

__all__ = ["Kept", "same", "small"]

TAG = "kept as"         # the key of a dict in place of a value that is not plain
WRITTEN = PLAIN - {bytes}   # as they are; torch.save writes empty bytes in a way that it does not read
SMALL = 4096            # elements of a tensor that is compared by its values


class Kept:
    """`value` in plain values and tensors (`.value`), and what of it could not be kept (`.lost`: place and type).

    own: names of objects, by id, that are kept elsewhere; a reference to one is kept as its name. None: no such.
    classes: the classes of objects that a new process has; None: all. An object of another class is lost, because
        nothing there could say what it is.

    The tensors are the living ones, not copies. `.classes` are those that were met.

    >>> kept = Kept({"rate": 0.5, "batches": iter([1])})
    >>> kept.value["rate"], kept.lost
    (0.5, [('batches', 'list_iterator')])
    """

    def __init__(self, value: Any, own: dict[int, str] | None = None, classes: dict[str, type] | None = None) -> None:
        self.own, self.allowed = own or {}, classes
        self.classes: dict[str, type] = {}
        self.lost: list[tuple[str, str]] = []
        self.shared = False     # whether something is held twice
        self._seen: dict[int, tuple[str, Any]] = {}     # with the object itself, so that its id is not used again
        try:
            self.value = self._kept(value, "")
        except RecursionError:
            self.value = self._lose(value, "")

    def _lose(self, x: Any, where: str) -> dict[str, Any]:
        self.lost.append((where, type(x).__name__))
        return {TAG: "nothing"}

    def _kept(self, x: Any, where: str) -> Any:
        if type(x) in WRITTEN:
            return x
        if id(x) in self.own:
            return {TAG: "own", "name": self.own[id(x)]}
        if type(x) is tuple:
            return x if _all_plain(x) else tuple(self._kept(v, f"{where}[{i}]") for i, v in enumerate(x))
        if isinstance(x, np.generic):
            return {TAG: "numpy scalar", "state": _array_out(np.asarray(x), self._kept, where)}
        if type(x) in BY_VALUE:
            return {TAG: type(x).__name__, "state": self._kept(BY_VALUE[type(x)][0](x), where)}
        if isinstance(x, enum.Enum):
            return self._of_class(x, where, "enum", x.name)
        if id(x) in self._seen:
            self.shared = True
            return {TAG: "same", "as": self._seen[id(x)][0]}
        self._seen[id(x)] = where, x
        if isinstance(x, tuple):
            return self._of_class(x, where, "tuple", list(x))
        if isinstance(x, Tensor):
            return self._tensor(x, where)
        if isinstance(x, np.ndarray):
            return {TAG: "numpy array", "state": _array_out(x, self._kept, where)}
        if isinstance(x, nn.Module):
            return {TAG: "module", "state": self._kept(module_state(x), f"{where}.state"), "attributes": {
                name: self._kept(attributes(m), f"{where}.{name}" if name else where) for name, m in x.named_modules()}}
        if (kind := kind_of(x)) is not None and kind is not OBJECT:
            return self._filled(kind, x, where)
        if has_state(x):
            return {TAG: "state_dict", "state": self._kept(x.state_dict(), where)}
        if is_code(x):
            return {TAG: "left", "is": described(x)}
        if kind is OBJECT:
            return self._of_class(x, where, "object", fields(x))
        if (of := behind(x)) is not None:
            return {TAG: "method", "of": self._kept(of, f"{where}.__self__")}
        if isinstance(x, functools.partial):
            return {TAG: "partial", "state": self._kept([x.func, list(x.args), x.keywords], where)}
        if isinstance(x, types.FunctionType):
            return self._function(x, where)
        return self._lose(x, where)

    def _filled(self, kind: Kind, x: Any, where: str) -> Any:
        if type(x) is list:
            return list(x) if _all_plain(x) else [self._kept(v, f"{where}[{i}]") for i, v in enumerate(x)]
        if type(x) is dict and all(type(key) in WRITTEN for key in x) and TAG not in x:
            return {key: v if type(v) in WRITTEN else self._kept(v, f"{where}.{key}" if where else str(key))
                    for key, v in x.items()}
        state = self._kept(kind.read(x), f"{where}.")
        found = {TAG: kind.name, "state": state}
        if isinstance(x, collections.defaultdict):
            found["factory"] = getattr(x.default_factory, "__name__", "")
        if type(x) not in KINDS and not isinstance(x, (np.random.BitGenerator, torch.Generator)):
            found |= {"class": class_name(x), "more": self._kept(fields(x), where)}
            if self._unknown(x):
                return self._lose(x, where)
        return found

    def _of_class(self, x: Any, where: str, tag: str, state: Any) -> dict[str, Any]:
        if self._unknown(x):
            return self._lose(x, where)
        return {TAG: tag, "class": class_name(x), "state": self._kept(state, where)}

    def _unknown(self, x: Any) -> bool:
        self.classes[class_name(x)] = type(x)
        return self.allowed is not None and class_name(x) not in self.allowed

    def _tensor(self, x: Tensor, where: str) -> Any:
        if x.is_meta or nn.parameter.is_lazy(x):
            return {TAG: "left", "is": "a tensor without values"}
        if x.is_nested:
            return self._lose(x, where)
        if not (x.requires_grad and x.is_leaf):
            return _bare(x)
        return {TAG: "parameter", "value": _bare(x), "grad": None if x.grad is None else _bare(x.grad),
                "of a module": isinstance(x, nn.Parameter)}

    def _function(self, x: Any, where: str) -> dict[str, Any]:
        return {TAG: "function", "is": described(x), "holds": {
            name: self._kept(value, f"{where}.{name}") for name, value in in_function(x).items()},
            "attributes": self._kept(dict(vars(x)), where)}


def _bare(x: Tensor) -> Tensor:
    """Without its graph, and of no class of the user's; a DTensor stays one, and is refused in writing."""
    x = x.detach()
    return x if type(x).__module__.startswith("torch") else x.as_subclass(Tensor)


def _all_plain(items: Any) -> bool:
    return all(type(v) in WRITTEN for v in items)


def _array_out(x: Any, kept: Callable[[Any, str], Any], where: str) -> Any:
    if isinstance(x, np.ma.MaskedArray):
        return {"data": _array_out(x.data, kept, where), "mask": _array_out(np.ma.getmaskarray(x), kept, where)}
    if x.dtype.hasobject:
        return {"shape": x.shape, "items": kept(x.ravel().tolist(), where)}
    x = np.asarray(x)
    if x.dtype.kind in "biufc" and x.dtype.isnative and x.dtype.itemsize <= (16 if x.dtype.kind == "c" else 8):
        good = x.flags.writeable and all(s >= 0 and s % x.itemsize == 0 for s in x.strides)
        return torch.from_numpy(x if good else x.copy())
    return {"dtype": np.lib.format.dtype_to_descr(x.dtype), "shape": x.shape, "bytes": kept(x.tobytes(), where)}


def small(kept: Any) -> Any:
    """A copy of what `Kept` made, without the values of large tensors: to see later what has changed."""
    if isinstance(kept, Tensor):
        return kept.detach().clone() if kept.numel() <= SMALL else None
    if isinstance(kept, dict):
        return {key: small(v) for key, v in kept.items()}
    return type(kept)(map(small, kept)) if type(kept) in (list, tuple) else kept


def same(a: Any, b: Any) -> bool:
    """Whether two values in plain values and tensors are equal; sparse tensors, which cannot be compared, never are."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return (isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype
                and a.device == b.device and a.layout == b.layout == torch.strided and bool(torch.equal(a, b)))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
