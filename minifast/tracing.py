"""What `torch.export` sees of a model, written as plain values: see `Program`, which computes it."""
from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .checks import short
from .program import KINDS, Operation, filled, function_of
from .torch_private import uncompiled
from .utils import is_plain, map_tensors, run_model, tensors_in

__all__ = ["Flat", "repeated", "trace"]

ROWS = 5        # of the batch that is traced: 0 and 1 are special to torch, small numbers are often sizes of something
CHECKED = re.compile(r"aten\.(_assert\w*|sym_constrain\w*)\.\w+")   # what torch notes for itself of sizes


def trace(model: nn.Module, x: Any) -> dict[str, Any]:
    """The computation of `model` in eval mode, for batches like `x` of any length, in plain values and tensors.

    x: a batch of inputs as the model takes it: a tensor, or a list, tuple or dict of tensors with a row for each
        sample.

    ValueError that names the part of the model that cannot be written down. Modes are as before afterwards.
    """
    rows = repeated(x)
    whole = Flat(model, x)
    shapes = ({0: torch.export.Dim.DYNAMIC},) * len(rows)
    flags = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        with torch.no_grad(), uncompiled(model):
            example = _form(x, "the inputs are")
            form = _form(run_model(model, map_tensors(x, lambda t: t)), "the model returns")
            try:
                made = torch.export.export(whole, tuple(rows), dynamic_shapes={"tensors": shapes}, strict=False)
            except Exception as e:  # it has dozens of ways to say no
                raise ValueError(f"{_where(e, model)} cannot be exported: {type(e).__name__}: {_first_lines(e)}") from e
    finally:
        for m, training in flags:
            m.training = training
    return {**_written(made, set(model.state_dict())), "example": example, "form": form,
            "inputs": [{"shape": list(t.shape[1:]), "dtype": str(t.dtype).removeprefix("torch.")} for t in rows]}


def repeated(x: Any, n: int = ROWS) -> list[Tensor]:
    """The tensors of a batch with `n` samples each: its own, from the first again where it has fewer."""
    found = tensors_in(x)
    if not found or any(not t.ndim or not len(t) for t in found):
        raise ValueError("a model is exported with a batch of inputs, tensors with a row for each sample: this one has "
                         "none")
    return [t[torch.arange(n, device=t.device) % len(t)].contiguous() for t in found]


class Flat(nn.Module):
    """A model whose inputs and outputs are tensors in a row."""

    def __init__(self, model: nn.Module, x: Any) -> None:
        super().__init__()
        self.model, self.example = model, _numbered(x)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        x = filled(self.example, tensors)
        return tuple(tensors_in(run_model(self.model, x)))


def _numbered(x: Any) -> Any:
    numbers: Iterator[int] = iter(range(10**6))
    return map_tensors(x, lambda t: {"tensor": next(numbers)})


def _form(x: Any, what: str) -> Any:
    form = _numbered(x)
    if not tensors_in(x) or not is_plain(form):
        raise ValueError(f"{what} a {type(x).__name__}: only a tensor, or lists, tuples and dicts of tensors, can be "
                         "exported")
    return form


def _written(made: Any, weights: set[str]) -> dict[str, Any]:
    """What torch.export found, as plain values."""
    specs = {spec.arg.name: spec for spec in made.graph_signature.input_specs}
    places: dict[Any, int] = {}
    state: list[str] = []
    constants: dict[str, Tensor] = {}
    inputs = []
    for node in made.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = specs[node.name]
        if spec.kind.name == "USER_INPUT":
            inputs.append(node)
            continue
        name = spec.target.removeprefix("model.")
        if name not in weights:
            value = made.constants.get(spec.target, made.state_dict.get(spec.target))
            if not isinstance(value, Tensor):
                raise ValueError(f"{name} cannot be exported: it is a {type(value).__name__}, not a tensor")
            constants[name] = value.detach()
        places[node] = len(state)
        state.append(name)
    places.update({node: len(state) + i for i, node in enumerate(inputs)})
    calls = []
    for node in made.graph.nodes:
        if node.op == "call_function" and not CHECKED.fullmatch(str(node.target)):
            calls.append([_operation(node), _plain(node.args, places, node), _plain(node.kwargs, places, node)])
            places[node] = len(places)
        elif node.op == "output":
            outputs = [_plain(arg, places, node) for arg in node.args[0]]
        elif node.op not in ("placeholder", "call_function"):
            raise ValueError(f"{_part(node)} cannot be exported: it has a {node.op} in it")
    return {"state": state, "constants": constants, "calls": calls, "outputs": outputs}


def _operation(node: Any) -> str:
    if isinstance(node.target, Operation):
        name = str(node.target)
    else:
        name = getattr(node.target, "__name__", str(node.target))
    try:
        function_of(name)
    except ValueError as e:
        raise ValueError(f"{_part(node)} cannot be exported: {e}") from None
    return name


def _plain(x: Any, places: Mapping[Any, int], node: Any) -> Any:
    if isinstance(x, torch.fx.Node):
        return {"result": places[x]}
    if isinstance(x, (list, tuple)):
        return [_plain(v, places, node) for v in x]
    if isinstance(x, dict):
        return {str(k): _plain(v, places, node) for k, v in x.items()}
    if isinstance(x, torch.device):
        return {"device": ""}   # that of the weights when it is computed
    for kind, kind_of in KINDS.items():
        if isinstance(x, kind_of):
            return {kind: str(x).removeprefix("torch.")}
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    raise ValueError(f"{_part(node)} cannot be exported: {node.target} has {short(x)} among its arguments")


def _part(node: Any) -> str:
    """The module of the model that a node comes from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    path = re.sub(r"^L\['self'\]\.?", "", str(path)).removeprefix("model").removeprefix(".")
    return _named(path, str(getattr(kind, "__name__", kind)).rsplit(".", 1)[-1])


def _named(path: str, kind: str) -> str:
    return f"the part {path!r} of the model (a {kind})" if path else f"the model{f' (a {kind})' * bool(kind)}"


def _where(e: BaseException, model: nn.Module) -> str:
    """The innermost module of the model in which an error arose."""
    names = {id(m): (name, type(m).__name__) for name, m in model.named_modules()}
    found = None
    cause: BaseException | None = e
    while cause is not None and found is None:
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            found = names.get(id(frame.f_locals.get("self")), found)
        cause = cause.__cause__ or cause.__context__
    return _named(*(found or ("", type(model).__name__)))


def _first_lines(e: BaseException) -> str:
    return " ".join(str(e).split())[:300]
