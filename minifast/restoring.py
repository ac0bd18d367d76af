"""What `Kept` has made of a value, back into the objects of this process."""
from __future__ import annotations

import collections
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .keeping import TAG
from .kinds import (
    BY_VALUE,
    FACTORIES,
    KINDS,
    PLAIN,
    Kind,
    behind,
    class_name,
    described,
    fields,
    fill_object,
    has_state,
    in_function,
    of_library,
)
from .module_state import attributes, set_attributes, set_module_state

__all__ = ["check_alike", "put_back"]

MISSING: Any = object()     # the living value where there is none
VALUES = {cls.__name__: make for cls, (_, make) in BY_VALUE.items()}
NAMED = {kind.name: (cls, kind) for cls, kind in KINDS.items()}
SORTS: dict[str, Any] = {"nothing": type(None), "flag": (bool, np.bool_), "text": (str, bytes), "dict": dict,
                         "number": (int, float, np.number, Tensor, np.ndarray),
                         "list": (list, tuple, collections.deque, set, bytearray)}
WRONG = (KeyError, TypeError, AttributeError, IndexError, RuntimeError, RecursionError, OverflowError)


def put_back(living: Any, kept: Any, own: Mapping[str, Any] | None = None, classes: Mapping[str, type] | None = None,
             lost: list[tuple[str, str]] | None = None, owner: type | None = None) -> Any:
    """The value that `kept` stands for, in the objects of `living` where it has such: they are filled.

    living: the value that is in the same place in this process.
    kept: what `Kept(value).value` is.
    own: the objects that `Kept` was given as its `own`, by name. None: no such.
    classes: the classes of which new objects may be made, by name. None: no such.
    lost: a list that gets places and types of what could not be put back. None: they are dropped.
    owner: the class whose attributes these are, by name. None: it is a value.

    ValueError if `kept` is nothing that `Kept` makes, or has a text where a number must be, and the like, in an
    attribute of a class of minifast or torch.

    >>> from collections import Counter
    >>> from minifast.keeping import Kept
    >>> here = {"seen": Counter()}
    >>> put_back(here, Kept({"seen": Counter("aab")}).value) is here, here["seen"]["a"]
    (True, 2)
    """
    try:
        before = dict(living) if owner is not None else {}
        found = _Back(own or {}, classes or {}, [] if lost is None else lost).get(living, kept, "")
        check_alike(owner, before, found if owner is not None else {}, "")
        return found
    except WRONG as e:
        raise ValueError(f"what is kept there cannot be read: {type(e).__name__}: {e}") from e


def check_alike(owner: type | None, before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """ValueError where an attribute, of a class whose types are known, has a value of another sort than before."""
    if owner is None or not of_library(owner.__module__):
        return
    for name, value in now.items():
        old, new = _sort(before.get(name)), _sort(value)
        if old not in ("nothing", new) and (new != "nothing" or old in ("flag", "number", "object")):
            place = f"{where}.{name}" if where else name
            raise ValueError(f"{place} of {owner.__name__} is a {type(value).__name__} there, not a {old}")


def _sort(x: Any) -> str:
    """What a value may be exchanged for: a number for another number, not for a text."""
    return next((name for name, types in SORTS.items() if isinstance(x, types)), "object")


def _memory(x: Tensor) -> int:
    """Where a tensor's numbers are; 0 if it has none."""
    # one of a class of its own, such as a part of a tensor that is spread over processes, may have no memory itself
    plain = type(x) in (Tensor, nn.Parameter) and x.layout is torch.strided and not x.is_meta
    return x.untyped_storage().data_ptr() if plain else 0


class _Back:
    def __init__(self, own: Mapping[str, Any], classes: Mapping[str, type], lost: list[tuple[str, str]]) -> None:
        self.own, self.classes, self.lost = own, classes, lost
        self.ours = {id(x) for x in own.values()}
        self.memory = {_memory(x) for x in own.values() if isinstance(x, Tensor)} - {0}
        self.at: dict[str, Any] = {}        # what has been put back, by its place
        self.taken: dict[int, Any] = {}     # the same by id: two values do not go into one living object

    def get(self, living: Any, kept: Any, where: str) -> Any:
        if type(kept) in PLAIN:
            return kept
        if isinstance(kept, Tensor):
            return self._tensor(living, kept, where)
        if type(kept) is tuple:
            return tuple(self._items(living if isinstance(living, tuple) else (), kept, where))
        if type(kept) is list:
            return self._fill(KINDS[list], self._target(living, [], where), kept, where)
        if TAG not in kept:
            return self._fill(KINDS[dict], self._target(living, {}, where), list(kept.items()), where)
        return self._tagged(living, kept, kept[TAG], kept.get("state"), where)

    def _items(self, living: Any, kept: Any, where: str) -> list[Any]:
        found = [self.get(living[i] if i < len(living) else MISSING, v, f"{where}[{i}]") for i, v in enumerate(kept)]
        return [None if v is MISSING else v for v in found]

    def _free(self, living: Any) -> bool:
        return id(living) not in self.taken and id(living) not in self.ours

    def _target(self, living: Any, new: Any, where: str) -> Any:
        """The living object where it can be filled, else the new one."""
        return self._put(living if type(living) is type(new) and self._free(living) else new, where)

    def _put(self, x: Any, where: str) -> Any:
        self.taken[id(x)] = self.at[where] = x
        return x

    def _lose(self, living: Any, name: str, where: str) -> Any:
        self.lost.append((where, name.rpartition(".")[2]))
        return living

    def _fill(self, kind: Kind, x: Any, state: Any, where: str) -> Any:
        if isinstance(x, dict):
            old = dict(x)
            new = [(k := self.get(MISSING, key, f"{where}[]"),
                    self.get(old.get(k, MISSING), v, f"{where}.{k}" if where else str(k))) for key, v in state]
            kind.fill(x, [(k, v) for k, v in new if v is not MISSING])
        elif isinstance(x, list):
            x[:] = self._items(list(x), state, where)
        else:
            kind.fill(x, self.get(kind.read(x), state, f"{where}."))
        return x

    def _tensor(self, living: Any, kept: Tensor, where: str) -> Tensor:
        if isinstance(living, Tensor):
            alike = [(t.shape, t.dtype, t.layout) for t in (living, kept)]
            if _memory(living) in self.memory:  # a view of a weight, which has been put back
                kept = living if alike[0] == alike[1] and torch.equal(living, kept) else kept.to(living.device)
            elif self._free(living) and living.is_leaf and not living.is_inference() and alike[0] == alike[1]:
                with torch.no_grad():
                    living.copy_(kept)
                kept = living
            else:
                kept = kept.to(living.device)
        self._put(kept, where)
        return kept

    def _tagged(self, living: Any, kept: dict[str, Any], tag: str, state: Any, where: str) -> Any:
        if tag == "same":
            return self.at.get(kept["as"], living)
        if tag == "own":
            return self.own.get(kept["name"], living)
        if tag == "nothing":
            return living
        if tag in VALUES:
            return VALUES[tag](self.get(MISSING, state, where))
        if tag in NAMED:
            return self._of_kind(*NAMED[tag], living, kept, where)
        if tag in ("object", "tuple", "enum"):
            return self._of_class(living, kept, where)
        how = getattr(self, f"_{tag.replace(' ', '_')}", None)
        if tag not in ("left", "function", "method", "partial", "parameter", "numpy scalar", "numpy array", "module",
                       "state_dict") or how is None:
            raise ValueError(f"{tag!r} is no kind of value")
        return how(living, kept, where)

    def _left(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        return living if described(living) == kept["is"] else self._lose(living, kept["is"], where)

    def _function(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        if described(living) != kept["is"]:
            return self._lose(living, kept["is"], where)
        for name, value in in_function(living).items():
            found = self.get(value, kept["holds"][name], f"{where}.{name}") if name in kept["holds"] else value
            if not isinstance(found, Tensor if isinstance(value, Tensor) else type(value)):
                raise ValueError(f"{where}.{name} is no {type(value).__name__} there")
        vars(living).update(self.get(dict(vars(living)), kept["attributes"], where))
        return living

    def _method(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        if (of := behind(living)) is not None:
            self.get(of, kept["of"], f"{where}.__self__")
        return living

    def _partial(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        if isinstance(living, functools.partial):
            self.get([living.func, list(living.args), living.keywords], kept["state"], where)
        return living

    def _parameter(self, living: Any, kept: dict[str, Any], where: str) -> Tensor:
        x = self._tensor(living, kept["value"], where).requires_grad_()
        if kept["of a module"] and not isinstance(living, Tensor):
            x = self._put(nn.Parameter(x), where)
        x.grad = None if kept["grad"] is None else torch.empty_like(x).copy_(kept["grad"])
        return x

    def _numpy_scalar(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        return self._array(kept["state"], where)[()]

    def _numpy_array(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        found = self._array(kept["state"], where, living)
        if isinstance(living, np.ndarray) and self._free(living) and living.flags.writeable \
                and living.shape == found.shape and living.dtype == found.dtype:
            living[...] = found
            found = living
        return self._put(found, where)

    def _array(self, state: Any, where: str, living: Any = None) -> Any:
        if isinstance(state, Tensor):
            return state.cpu().numpy()
        if "mask" in state:
            return np.ma.MaskedArray(self._array(state["data"], where), self._array(state["mask"], where))
        shape = tuple(state["shape"])
        if "items" in state:
            found = np.empty(len(state["items"]), object)
            old = living.ravel().tolist() if isinstance(living, np.ndarray) and living.dtype.hasobject else []
            found[:] = self._items(old, state["items"], where)
            return found.reshape(shape)
        dtype = np.lib.format.descr_to_dtype(state["dtype"])
        if dtype.hasobject:
            raise ValueError("there is an array of objects where none can be")
        return np.frombuffer(self.get(MISSING, state["bytes"], where), dtype).reshape(shape).copy()

    def _module(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        if not isinstance(living, nn.Module):
            return self._lose(living, "a module", where)
        set_module_state(living, self.get(MISSING, kept["state"], f"{where}.state"))
        for name, m in living.named_modules():
            inner, before = f"{where}.{name}" if name else where, attributes(m)
            found = self.get(dict(before), kept["attributes"][name], inner)
            check_alike(type(m), before, found, inner)
            set_attributes(m, found)
        return self._put(living, where)

    def _state_dict(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        if not has_state(living):
            return self._lose(living, "an object with a state_dict", where)
        living.load_state_dict(self.get(MISSING, kept["state"], where))
        return self._put(living, where)

    def _of_kind(self, cls: type, kind: Kind, living: Any, kept: dict[str, Any], where: str) -> Any:
        state = kept["state"]
        if "class" in kept:     # derived from a kind
            own: Any = type(living) if class_name(living) == kept["class"] else self.classes.get(kept["class"])
            if own is None:
                return self._lose(living, kept["class"], where)
            x = self._target(living, own.__new__(own), where)
            vars(x).update(self.get(dict(vars(x)), kept["more"], where))
        elif cls is collections.defaultdict:
            factory = FACTORIES.get(kept["factory"]) if type(living) is not cls else living.default_factory
            x = self._target(living, collections.defaultdict(factory), where)
        elif isinstance(living, cls) and self._free(living) and getattr(living, "maxlen", None) == (
                state[1] if cls is collections.deque else None):
            x = self._put(living, where)
        elif kind.make is None:
            return self._lose(living, kind.name, where)
        else:
            x = self._put(kind.make(state), where)
        return self._fill(kind, x, state, where)

    def _of_class(self, living: Any, kept: dict[str, Any], where: str) -> Any:
        name, state = kept["class"], kept["state"]
        here = class_name(living) == name
        cls: Any = type(living) if here else self.classes.get(name)
        if cls is None:
            return self._lose(living, name, where)
        if kept[TAG] == "enum":
            return cls[state]
        if kept[TAG] == "tuple":
            return tuple.__new__(cls, self._items(living if here else (), state, where))
        try:
            x = self._put(living if type(living) is cls and self._free(living) else cls.__new__(cls), where)
        except TypeError:   # it is only made with arguments
            return self._lose(living, name, where)
        old = fields(x)
        new = {key: self.get(old.get(key, MISSING), v, f"{where}.{key}") for key, v in state.items()}
        check_alike(cls, old, new, where)
        fill_object(x, {**old, **{key: v for key, v in new.items() if v is not MISSING}})
        return x
