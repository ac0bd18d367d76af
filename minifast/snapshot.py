"""All that a run changes in a learner: out, and back; and `preserved`, after which all is as before."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .callback import Callback
from .layers import initialise_lazy
from .utils import rng_state, set_rng_state

__all__ = ["learner_state", "load_learner_state", "plain", "preserved"]


def learner_state(learn: Any) -> dict[str, Any]:
    """All that training changes in a learner: model, optimizer, open gradients, and the global random generators.

    The tensors are the living ones, not copies.
    """
    model, params = learn.model, list(learn.model.parameters())
    state = model.state_dict()
    return {"model": state,
            "buffers": {name: b for name, b in model.named_buffers() if name not in state},  # those kept out of files
            "training": [m.training for m in model.modules()],
            "trainable": [p.requires_grad for p in params],
            "grads": {i: p.grad for i, p in enumerate(params) if p.grad is not None},  # an open accumulation window
            "opt": plain(learn.opt.state_dict()), "rng": rng_state()}


def load_learner_state(learn: Any, state: dict[str, Any]) -> None:
    """Take back what `learner_state` gave; RuntimeError or ValueError if it belongs to another model or optimizer."""
    model, params = learn.model, list(learn.model.parameters())
    model.load_state_dict(state["model"])
    buffers = dict(model.named_buffers())
    for name, value in state["buffers"].items():
        buffers[name].copy_(value)
    if [p.requires_grad for p in params] != state["trainable"]:
        for p, trainable in zip(params, state["trainable"], strict=True):
            p.requires_grad_(trainable)
        learn.opt = None  # the next one holds what is trainable now
    learn.opt.load_state_dict(state["opt"])
    for m, training in zip(model.modules(), state["training"], strict=True):
        m.training = training
    for i, p in enumerate(params):
        grad = state["grads"].get(i)
        p.grad = None if grad is None else torch.empty_like(p).copy_(grad)  # laid out as the parameter is
    set_rng_state(state["rng"])


def plain(x: Any) -> Any:
    """`x` with numpy's numbers as Python's, however deep in lists, tuples and dicts."""
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return type(x)(map(plain, x)) if type(x) in (list, tuple) else x


@contextlib.contextmanager
def preserved(learn: Any, callbacks: Sequence[Callback] = (), weights: bool = True) -> Iterator[None]:
    """Whatever happens inside, afterwards all is as before, bit for bit; everything is kept in memory, none on disk.

    That is: the attributes of the learner, of its recorder and of `callbacks`, train/eval flags, random generators, the
    positions of the loaders, buffers, and with `weights=True` also the optimizer and all else that the modules of model
    and loss hold (parameters, gradients, attributes). Lists, dicts and tensors get their contents back in place,
    because somebody else may hold them too.
    """
    initialise_lazy(learn)
    parts = [part for part in (learn.model, learn.loss_func) if isinstance(part, nn.Module)]
    modules = [m for part in parts for m in part.modules()]
    params = [p for part in parts for p in part.parameters()] if weights else []
    opt = learn.opt.opt if weights and learn.has_opt else None
    contents: Contents = {}
    for owner in (learn, learn.recorder):
        _keep(vars(owner), contents, tensors=False)
    for cb in callbacks:
        _keep(vars(cb), contents)
    for m in modules:  # without `weights` its attributes are left: they may be what the caller wants to see
        _keep(vars(m) if weights else m._buffers, contents)
    if opt:
        _keep([opt.state, opt.param_groups], contents)
    flags = [(m, m.training) for m in modules]
    grads = [(p, p.requires_grad, None if p.grad is None else p.grad.clone()) for p in params]
    loaders = [(dl, dl.state_dict()) for dl in learn.data.dls]
    random_state = rng_state()
    try:
        yield
    finally:
        _put_back(contents)
        for p, requires_grad, grad in grads:
            p.requires_grad_(requires_grad)
            p.grad = grad
        for m, training in flags:
            m.training = training
        for dl, state in loaders:
            dl.load_state_dict(state)
        set_rng_state(random_state)


Contents = dict[int, tuple[Any, Any]]  # by id: a container or tensor, and a copy of it


def _keep(x: Any, contents: Contents, tensors: bool = True) -> None:
    """Add to `contents` each dict, list, set and (with `tensors`) tensor in `x`, however deep, with a copy of it."""
    if id(x) in contents:
        return
    if isinstance(x, Tensor):
        if tensors and x.is_leaf and not x.is_inference():  # what has a graph behind it is computed, not written
            contents[id(x)] = x, x.detach().clone()
    elif isinstance(x, (dict, list, set)):
        contents[id(x)] = x, x.copy()
    if isinstance(x, (dict, list, tuple)):
        for value in x.values() if isinstance(x, dict) else x:
            _keep(value, contents, tensors)


@torch.no_grad()
def _put_back(contents: Contents) -> None:
    for x, copied in contents.values():
        if isinstance(x, Tensor):
            if not torch.equal(x, copied):  # a write, even of the same, forbids the backward of a graph that needs `x`
                x.copy_(copied)
        elif isinstance(x, list):
            x[:] = copied
        else:
            x.clear()
            x.update(copied)
