"""A model's computation as plain values, computed without running code from a file.

A program is a list of calls of torch's own operations ("aten") on weights, inputs and earlier results, see `trace`. It
is computed call by call: no Python code is made from a file, no pickle is read, and no name in it is looked up anywhere
but among those operations.
"""
from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import few_of, short
from .torch_private import types_of
from .utils import tensors_in

__all__ = ["KINDS", "Operation", "Program", "filled", "function_of"]

NAME = re.compile(r"aten\.([a-z][a-z0-9_]*)\.([A-Za-z][A-Za-z0-9_]*)")
Operation = type(torch.ops.aten.add.Tensor)     # one function of torch, for arguments of certain types
# those that begin with _ are torch's inner ones, which trust their arguments
INNER = ("aten._adaptive_avg_pool2d.default", "aten._to_copy.default", "aten._softmax.default")
# these look at files and at memory that is not theirs, or wait
FORBIDDEN = ("from_file", "set", "set_", "set_data", "as_strided", "as_strided_", "resize", "resize_", "resize_as",
             "resize_as_", "save", "warn", "wait", "seed", "manual_seed", "initial_seed", "record_stream", "pin_memory",
             "empty_strided", "new_empty_strided", "copy_sparse_to_sparse_")
# of the others those that make tensors or numbers of tensors and plain values: none that writes files, or prints
MADE = {"Tensor", "List[Tensor]", "int", "SymInt", "List[int]", "List[SymInt]", "float", "SymFloat", "bool", "number"}
TAKEN = MADE | {"List[float]", "List[bool]", "List[number]", "List[Optional[Tensor]]", "Device", "str"}
KINDS = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}


def _on_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if not all(isinstance(x, (bool, int, float)) for x in args):
            raise TypeError(f"{function.__name__} is for numbers here, not for {short(args)}")
        return function(*args)
    return call


def _item(values: Any, i: Any) -> Any:
    if not isinstance(values, (list, tuple)) or not isinstance(i, int):
        raise TypeError(f"an item is taken from a list by its number, not {short(i)} of a {type(values).__name__}")
    return values[i]


# of sizes: Python's own, and torch's names for those that work with sizes that are not known yet
ON_NUMBERS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne",
                                                  "lt", "le", "gt", "ge")},
    "sym_max": max, "sym_min": min, "sym_float": float, "sym_int": int, "sym_not": operator.not_}


def _is_place(form: Any) -> bool:
    return isinstance(form, Mapping) and set(form) == {"tensor"} and type(form["tensor"]) is int


def filled(form: Any, tensors: Sequence[Tensor]) -> Any:
    """A nest with tensors in their places, each of which is written {"tensor": its number}."""
    if _is_place(form):
        return tensors[form["tensor"]]
    if isinstance(form, Mapping):
        return {k: filled(v, tensors) for k, v in form.items()}
    return type(form)(filled(v, tensors) for v in form) if isinstance(form, (list, tuple)) else form


def _taken(form: Any, x: Any) -> list[Any]:
    """The tensors of a nest, in the order of their places in `form`."""
    if _is_place(form):
        return [x]
    keys = form if isinstance(form, Mapping) else range(len(form)) if isinstance(form, (list, tuple)) else ()
    return [t for key in keys for t in _taken(form[key], x[key])]


def function_of(name: str) -> Callable[..., Any]:
    """The operation of that name; ValueError if it is none that a program may have."""
    if name in ON_NUMBERS:
        return _on_numbers(ON_NUMBERS[name])
    if name == "getitem":
        return _item
    found = NAME.fullmatch(name)
    if name in INNER:
        packet, overload = name.split(".")[1:]
    elif found is None or found[1] in FORBIDDEN:
        raise ValueError(f"{name} is none of torch's own operations that a program can be made of")
    else:
        packet, overload = found[1], found[2]
    function = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    if not isinstance(function, Operation):
        raise ValueError(f"this torch ({torch.__version__}) has no operation {name}")
    if (types := types_of(function)) is not None:
        made, taken = ({re.sub(r"^Optional\[(.*)\]$", r"\1", kind) for kind in kinds} for kinds in types)
        if not made or made - MADE or taken - TAKEN:
            raise ValueError(f"{name} is none of torch's own operations that a program can be made of")
    return function


class Program(nn.Module):
    """A model that computes what `trace` has written.

    program: what `trace` returned.
    weights: the model's state dict.

    It has the model's weights by their names, behind "weights.", and no gradients. ValueError for a program that is
    not well formed.

    >>> from minifast.tracing import trace
    >>> layer = nn.Linear(3, 2)
    >>> program = Program(trace(layer, torch.ones(1, 3)), layer.state_dict())
    >>> torch.equal(program(torch.ones(4, 3)), layer(torch.ones(4, 3)))
    True
    """

    def __init__(self, program: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        state, constants = program["state"], program["constants"]
        self.inputs, self.example, self.form = program["inputs"], program["example"], program["form"]
        self.weights, self.constants = nn.Module(), nn.Module()
        for name, value in weights.items():
            _put(self.weights, name, value)
        for name, value in constants.items():
            _put(self.constants, name, value)
        if missing := [name for name in state if name not in weights and name not in constants]:
            raise ValueError(f"there are no values of {few_of(missing, 'weights')}")
        self.state = [(name in weights, name.split(".")) for name in state]
        first = len(state) + len(self.inputs)
        self.calls = []
        for i, (name, args, kwargs) in enumerate(program["calls"]):
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                raise ValueError(f"the arguments of {short(name)} are no list and dict")
            for k in _results((args, kwargs)):
                if not 0 <= k < first + i:
                    raise ValueError(f"call {i} uses the result {k}, which is not there yet")
            self.calls.append((name, function_of(name), _made(args), _made(kwargs)))
        self.outputs = _made(program["outputs"])
        last = {k: i for i, (_, _, args, kwargs) in enumerate(self.calls) for k in _results((args, kwargs))}
        kept = set(_results(self.outputs))
        if any(not 0 <= k < first + len(self.calls) for k in kept):
            raise ValueError("an output is the result of no call")
        self.done = [[k for k, end in last.items() if end == i and k >= len(state) and k not in kept]
                     for i in range(len(self.calls))]
        super().train(False)

    def train(self, mode: bool = True) -> Program:
        """A program only predicts: it is in eval mode always."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given: Any = kwargs or (args[0] if _is_place(self.example) and args else args)
        try:
            tensors = _taken(self.example, given)
        except (KeyError, IndexError, TypeError):
            tensors = tensors_in(given)
        self._check(tensors)
        values: list[Any] = [_get(self.weights if own else self.constants, path) for own, path in self.state]
        device = next((t.device for t in [*self.parameters(), *tensors]), torch.device("cpu"))
        values += tensors
        with torch.no_grad():
            for (name, function, inputs, named), done in zip(self.calls, self.done, strict=True):
                try:
                    values.append(function(*_with(inputs, values, device), **_with(named, values, device)))
                except Exception as e:
                    e.add_note(f"this happened in the exported program, in {name}")
                    raise
                for k in done:
                    values[k] = None    # its memory is free again
            return filled(self.form, _with(self.outputs, values, device))

    def _check(self, tensors: Sequence[Any]) -> None:
        wanted = [(t["dtype"], tuple(t["shape"])) for t in self.inputs]
        given = [(str(t.dtype).removeprefix("torch."), tuple(t.shape[1:])) for t in tensors_in(list(tensors))]
        if given != wanted:
            said = [", ".join(f"{dtype} (n, {', '.join(map(str, shape))})" for dtype, shape in some)
                    for some in (wanted, given)]
            raise ValueError(f"the exported program takes {said[0]}, not {said[1]}")


def _put(tree: nn.Module, name: str, value: Any) -> None:
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise ValueError(f"the weight {short(name)} is a {type(value).__name__}, not a tensor")
    *outer, last = name.split(".")
    for part in outer:
        if part not in tree._modules:
            tree.add_module(part, nn.Module())
        tree = tree.get_submodule(part)
    if value.is_floating_point() or value.is_complex():
        tree.register_parameter(last, nn.Parameter(value, requires_grad=False))
    else:
        tree.register_buffer(last, value)


def _get(tree: Any, path: Sequence[str]) -> Any:
    for part in path[:-1]:
        tree = tree._modules[part]
    return tree._parameters.get(path[-1], tree._buffers.get(path[-1]))


class _Result(int):
    """The number of an earlier result, in the arguments of a call."""


class _Device:
    """The device of the weights, in the arguments of a call."""


def _results(x: Any) -> Iterator[int]:
    """The numbers of the results that arguments name, read or as written."""
    if isinstance(x, _Result):
        yield int(x)
    elif isinstance(x, Mapping):
        if set(x) == {"result"}:
            if type(x["result"]) is not int:
                raise ValueError(f"a result has no number: {short(x['result'])}")
            yield x["result"]
        else:
            yield from (k for v in x.values() for k in _results(v))
    elif isinstance(x, (list, tuple)):
        yield from (k for v in x for k in _results(v))


def _made(x: Any) -> Any:
    """Arguments as written, as torch takes them, except for results and devices."""
    if isinstance(x, dict):
        if set(x) == {"result"}:
            return _Result(x["result"])
        if set(x) == {"device"}:
            return _Device()
        for kind, kind_of in KINDS.items():
            if set(x) == {kind}:
                value = getattr(torch, str(x[kind]), None)
                if not isinstance(value, kind_of):
                    raise ValueError(f"torch has no {kind} {short(x[kind])}")
                return value
        return {k: _made(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_made(v) for v in x]
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    raise ValueError(f"a {type(x).__name__} can be no argument of a call")


def _with(x: Any, values: Sequence[Any], device: torch.device) -> Any:
    if isinstance(x, _Result):
        return values[x]
    if isinstance(x, list):
        return [_with(v, values, device) for v in x]
    if isinstance(x, dict):
        return {k: _with(v, values, device) for k, v in x.items()}
    return device if isinstance(x, _Device) else x
