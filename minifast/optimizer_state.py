"""The state of an optimizer: whether a saved one belongs to it, and how it is kept fit for its parameters."""
from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, optim

from .checks import number, short

__all__ = ["check_shapes", "check_sparse", "check_state", "check_value", "fit_state", "gives_decay", "kind_of",
           "order_of"]

Group = dict[str, Any]
BELOW = {"lr": float("inf"), "mom": 1.0, "beta": 1.0, "wd": float("inf")}
MAY_BE_NONE = ("foreach", "fused", "capturable")    # torch then chooses
TAKE_SPARSE = ("SGD", "SparseAdam", "Adagrad")     # of torch's optimizers


def check_value(name: str, value: Any) -> None:
    """TypeError or ValueError if `value` is invalid for lr, mom, beta or wd; other names are not checked.

    `value`: a number, or several for the layer groups.

    >>> check_value("mom", 1.5)
    Traceback (most recent call last):
    ...
    ValueError: mom must be at least 0 and below 1, not 1.5
    """
    if name not in BELOW:
        return
    value = value.tolist() if hasattr(value, "tolist") else value
    for v in value if isinstance(value, (list, tuple)) else [value]:
        if not 0 <= number(name, v) < BELOW[name]:
            raise ValueError(f"{name} must be {'finite and ' if BELOW[name] > 1 else ''}at least 0"
                             f"{'' if BELOW[name] > 1 else ' and below 1'}, not {v}")


def kind_of(t: Tensor) -> str:
    """A tensor in an error message, without its numbers.

    >>> kind_of(torch.zeros(2, 3))
    'float32 (2, 3) on cpu'
    """
    return f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)} on {t.device}"


def fit_state(p: Tensor, state: dict[str, Any], names: Sequence[str] = ()) -> None:
    """Make the optimizer state of the parameter `p` fit its present form, in place.

    `names`: tensors that must be of the parameter's shape, dtype and device; where one has another shape the whole
    state is dropped with a warning, so that it begins again. Whatever else has the parameter's shape is only laid out
    in memory as the parameter is: a fused kernel goes through both in that order.

    >>> state = {"momentum_buffer": torch.ones(3)}
    >>> fit_state(torch.zeros(3, dtype=torch.float64), state, ["momentum_buffer"])
    >>> state["momentum_buffer"].dtype
    torch.float64
    """
    for name in names:
        t = state.get(name)
        if isinstance(t, Tensor) and t.shape == p.shape and t.is_floating_point() and t.layout is torch.strided \
                and t.is_meta == p.is_meta:
            continue
        if t is not None:
            warnings.warn(f"{name} in the optimizer's state is {kind_of(t) if isinstance(t, Tensor) else repr(t)}, and "
                          f"its parameter is {kind_of(p)}: the state of that parameter begins again")
            state.clear()
        else:
            state.pop(name, None)
    if names and isinstance(t := state.get("step"), Tensor) and (t.numel() != 1 or t.is_meta != p.is_meta):
        warnings.warn(f"step in the optimizer's state is {kind_of(t)}, not one number: the state of that parameter "
                      "begins again")
        state.clear()
    for name, t in state.items():
        if not isinstance(t, Tensor) or t.layout is not torch.strided or p.layout is not torch.strided:
            continue
        if name == "step" and names:
            state[name] = t.to(p.device, torch.float32).reshape(())
        elif name in names and kind_of(t) != kind_of(p) or t.shape == p.shape and order_of(t) != order_of(p):
            like = p if name in names else t
            state[name] = torch.empty_like(p, dtype=like.dtype, device=like.device).copy_(t)


def order_of(t: Tensor) -> tuple[int, ...]:
    """How a tensor lies in memory: its strides, except in dimensions of one element, whose stride may be any number.

    >>> a = torch.zeros(8, 1, 3, 3)
    >>> b = a.to(memory_format=torch.channels_last)
    >>> a.stride() == b.stride(), order_of(a) == order_of(b)
    (False, True)
    """
    return tuple(stride for n, stride in zip(t.shape, t.stride(), strict=True) if n > 1)


def check_state(opt: optim.Optimizer, state: Any, names: Callable[[Group], Sequence[str]] | None = None,
                counts: bool = False) -> None:
    """ValueError that says what is wrong with `state`, unless it can be loaded into `opt`; nothing is changed.

    `names` gives the tensors, of a parameter's shape, that its state needs, for a group of hyper-parameters;
    `counts`: and "step", a number. Without `names` only the form is checked.

    >>> opt = optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    >>> check_state(opt, {})
    Traceback (most recent call last):
    ...
    ValueError: the saved state of SGD holds no 'state': it is none, or damaged
    """
    what = f"the saved state of {type(opt).__name__}"
    _need(isinstance(state, dict), f"{what} is a {type(state).__name__}, not a dict")
    for key, kind in (("state", dict), ("param_groups", list)):
        _need(isinstance(state.get(key), kind), f"{what} holds no {key!r}: it is none, or damaged")
    saved, own = state["param_groups"], opt.param_groups
    for g in saved:
        _need(isinstance(g, dict) and isinstance(g.get("params"), list), f"{what} has a group without 'params'")

    def layout(groups: Sequence[Group]) -> list[Any]:
        return [(len(g["params"]), g.keys() & {"betas", "momentum", "alpha"}) for g in groups]

    _need(layout(saved) == layout(own),
          f"the saved state is not that of {type(opt).__name__} over these parameters: use the same opt_func, layer "
          "groups and freezing as when it was saved, or load with with_opt=False")
    for g, of_own in zip(saved, own, strict=True):
        _check_group(what, g, of_own)
        for i, p in zip(g["params"], of_own["params"], strict=True):
            _need(type(i) is int, f"{what} names a parameter {i!r}, not by a number")
            if i in state["state"]:
                _check_one(f"{what} for a parameter of shape {tuple(p.shape)}", p, state["state"][i],
                           names(g) if names else (), counts)


def _check_group(what: str, saved: Group, own: Group) -> None:
    for key, now in own.items():
        if key == "params":
            continue
        if key not in saved:
            _need(key not in ("lr", "betas", "momentum", "alpha", "weight_decay", "eps"), f"{what} lacks {key!r}")
            continue
        if now is None or isinstance(now, bool):
            good = (bool, type(None), int, float) if now is None else (bool, type(None)) if key in MAY_BE_NONE else bool
            _need(isinstance(saved[key], good),
                  f"{key!r} in {what} must be True or False, not {short(saved[key])}")
        for value, like in zip(*([v] if not isinstance(v, (tuple, list)) else v for v in (saved[key], now)),
                               strict=False):
            if isinstance(like, (int, float)) and not isinstance(like, bool):
                try:
                    number(f"{key!r} in {what}", value)
                except TypeError as e:
                    raise ValueError(str(e)) from None
        _need(not isinstance(now, (tuple, list)) or isinstance(saved[key], (tuple, list))
              and len(saved[key]) == len(now), f"{key!r} in {what} must be {len(now) if isinstance(now, tuple) else ''}"
              f" numbers, not {saved[key]!r}")


def _check_one(what: str, p: Tensor, state: Any, names: Sequence[str], counts: bool) -> None:
    _need(isinstance(state, dict) and all(isinstance(k, str) for k in state), f"{what} is {type(state).__name__}")
    strings = [k for k, v in state.items() if isinstance(v, (str, bytes))]
    _need(not strings, f"{what} holds a text for {', '.join(strings)}, not a tensor")
    if not state:
        return
    for name in names:
        t = state.get(name)
        if t is None and name in ("momentum_buffer", "max_exp_avg_sq"):     # made when they are first needed
            continue
        _need(t is not None, f"{what} lacks {name}")
        _need(isinstance(t, Tensor), f"{what} holds a {type(t).__name__} for {name}, not a tensor")
        _need(t.shape == p.shape and t.is_floating_point() and t.layout is torch.strided,
              f"{what} holds {kind_of(t)} for {name}")
    if counts:
        step = state.get("step")
        good = step.numel() == 1 if isinstance(step, Tensor) else type(step) in (int, float)
        _need(good, f"{what} needs one number for step: {kind_of(step) if isinstance(step, Tensor) else repr(step)}")


def check_shapes(opt: optim.Optimizer) -> None:
    """RuntimeError if state of a `fused=True` group has not its parameter's shape: torch's own fused steps trust it."""
    for g in opt.param_groups:
        for p in g["params"] if g.get("fused") else []:
            for name, t in opt.state.get(p, {}).items():
                if name != "step" and t is not None and (not isinstance(t, Tensor) or t.shape != p.shape):
                    raise RuntimeError(f"{name} in the state of {type(opt).__name__} is "
                                       f"{kind_of(t) if isinstance(t, Tensor) else repr(t)}, and its parameter is "
                                       f"{kind_of(p)}: the optimizer's state must be made again")


def check_sparse(opt: optim.Optimizer) -> None:
    """RuntimeError if there are sparse gradients that the optimizer cannot take; it names those that can."""
    name = next(k.__name__ for k in type(opt).__mro__ if k.__module__.startswith("torch.optim"))
    grads = [p.grad for g in opt.param_groups for p in g["params"] if p.grad is not None]
    n_sparse = sum(g.layout is not torch.strided for g in grads)
    takes = name in ("Optimizer", *TAKE_SPARSE)     # of an optimizer that is not torch's nothing is known
    if n_sparse and not takes or name == "SparseAdam" and n_sparse < len(grads):
        raise RuntimeError(f"{n_sparse} of {len(grads)} parameters have sparse gradients, and {type(opt).__name__} "
                           "cannot train that: choose opt_func=optim.SGD, optim.SparseAdam where all of them are "
                           "sparse, or layers without sparse=True")


def gives_decay(opt: optim.Optimizer) -> bool:
    """Whether weight decay was given to the optimizer or to one of its groups: it is not the class's own default."""
    default = inspect.signature(type(opt)).parameters.get("weight_decay")
    if default is None or "weight_decay" not in opt.defaults:
        return False
    return any(g["weight_decay"] != default.default for g in opt.param_groups)


def _need(good: bool, otherwise: str) -> None:
    if not good:
        raise ValueError(otherwise)
