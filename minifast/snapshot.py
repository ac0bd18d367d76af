"""All that a run changes in a learner, kept in memory: `Moment`, and `preserved`, after which all is as before."""
from __future__ import annotations

import contextlib
import copy
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .callback import Callback
from .data_objects import data_objects, held_by, named_loaders, own_generators
from .kinds import FUNCTIONS, OBJECT, PLAIN, Kind, behind, fields, is_code, kind_of
from .layers import initialise_lazy
from .loaders import ItemLoader
from .module_state import attributes, module_state, set_attributes, set_module_state
from .torch_private import exchange_workers
from .utils import listify, rng_state, set_rng_state
from .workers import exchange_kept

__all__ = ["Moment", "copied", "learner_state", "load_learner_state", "plain", "preserved", "words"]



def learner_state(learn: Any) -> dict[str, Any]:
    """The tensors and flags of model, loss and optimizer, open gradients, and the global random generators, in plain
    values and tensors.

    The tensors are the living ones, not copies. What else a run changes: see `minifast.run_state`.
    """
    loss = learn.loss_func
    return {"model": module_state(learn.model), "loss": module_state(loss) if isinstance(loss, nn.Module) else None,
            "opt": plain(learn.opt.state_dict()), "rng": rng_state()}


def load_learner_state(learn: Any, state: dict[str, Any]) -> None:
    """Take back what `learner_state` returned; RuntimeError or ValueError if it is that of another model or optimizer.
    """
    frozen = [p.requires_grad for p in learn.model.parameters()]
    set_module_state(learn.model, state["model"])
    if frozen != state["model"]["trainable"]:
        learn.opt = None  # the next one holds what is trainable now
    if state["loss"] is not None and isinstance(learn.loss_func, nn.Module):
        set_module_state(learn.loss_func, state["loss"])
    learn.opt.load_state_dict(state["opt"])
    set_rng_state(state["rng"])


def plain(x: Any) -> Any:
    """`x` with numpy's numbers as Python's, in lists, tuples and dicts too."""
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return type(x)(map(plain, x)) if type(x) in (list, tuple) else x


SCRIPTED = Kind("scripted module", attributes, set_attributes, None)


class Moment:
    """A learner at this moment; `put_back()` makes it so again, as often as wanted.

    learn: the learner.
    callbacks: whose attributes are kept too.
    weights: whether all that modules hold is kept too, and the optimizer; else only their buffers and modes.
    device: where copies of tensors are; None: where the tensors are.
    record: whether the learner's own attributes and its record are kept too.

    Every object, container and tensor gets its contents back in place, because something else may hold it too.
    `lost`: places and types of what cannot be kept.

    >>> learn = fake_learner()
    >>> before = Moment(learn)
    >>> learn.fit(1)
    >>> before.put_back()
    >>> learn.has_opt
    False
    """

    def __init__(self, learn: Any, callbacks: Sequence[Callback] = (), weights: bool = True,
                 device: torch.device | str | None = None, record: bool = True) -> None:
        self.learn, self.opt, self.device = learn, learn.opt if learn.has_opt else None, device
        self.lost: list[tuple[str, str]] = []
        self._seen: dict[int, Any] = {}
        self._contents: list[tuple[Any, Any, Any]] = []     # object, its kind, its contents
        self._tensors: list[tuple[Tensor, Tensor, bool, Tensor | None]] = []    # with copy, requires_grad, gradient
        self._arrays: list[tuple[Any, Any]] = []
        self._names: list[tuple[Any, set[str]]] = []    # of the attributes of data sets and the like
        roots = [(name, part) for name, part in (("model", learn.model), ("loss function", learn.loss_func))]
        modules = [m for _, part in roots if isinstance(part, nn.Module) for m in part.modules()]
        # what the learner holds is not walked through from a callback that refers to it
        for x in (learn, self.opt, learn.data, learn.handler, getattr(learn.handler, "state", None), *learn.data.dls):
            self._seen[id(x)] = x
        for owner in (learn, learn.recorder) if record else ():
            self._shallow(vars(owner))
        if weights:
            for name, part in roots:
                self._walk(part, name)
            if learn.has_opt:
                self._walk([learn.opt.opt.state, learn.opt.opt.param_groups], "optimizer")
        else:
            for m in modules:
                self._walk(m._buffers, "buffers")
                self._seen[id(m)] = m
            for part in roots:
                for p in part[1].parameters() if isinstance(part[1], nn.Module) else ():
                    self._seen[id(p)] = p
        for cb in callbacks:
            self._walk(vars(cb), f"callback {type(cb).__name__}")
        self._flags = [(m, m.training) for m in modules]
        self._loaders = [(dl, dl.state_dict()) for dl in learn.data.dls]
        for kind, dl in named_loaders(learn.data).items():
            for i, tfm in enumerate(dl.tfms):
                self._walk(tfm, f"transform {i} of {kind} batches ({type(tfm).__name__})")
            for place, x, moving in data_objects(dl, f"{kind} data"):
                self._keep_moving(x, moving, place)
        self._random_state = rng_state()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None     # a copy of a learner is in no run

    def _keep_moving(self, x: Any, moving: dict[str, Any], place: str) -> None:
        if not hasattr(x, "__dict__"):
            self._contents.append((x, OBJECT, fields(x)))
        else:
            self._contents.append((x, None, dict(vars(x))))
            self._names.append((x, set(vars(x))))
        for key, value in moving.items():
            self._walk(value, f"{place}.{key}")

    def _shallow(self, x: Any) -> None:
        """Containers only: what else a learner holds has its own way."""
        if isinstance(x, (dict, list, set)) and id(x) not in self._seen:
            self._see(x)
        if isinstance(x, (dict, list, tuple)):
            for value in x.values() if isinstance(x, dict) else x:
                if isinstance(value, (dict, list, set, tuple)) and id(value) not in self._seen:
                    self._shallow(value)

    def _see(self, x: Any) -> Any:
        kind = kind_of(x)
        assert kind is not None
        self._seen[id(x)] = x
        state = kind.read(x)
        self._contents.append((x, kind, state))
        return state

    def _walk(self, x: Any, place: str) -> None:
        todo: list[tuple[Any, Any]] = [(x, place)]
        while todo:
            x, at = todo.pop()      # what it is, and the place where it is: a name, or (a place, a key there)
            if type(x) in PLAIN or id(x) in self._seen:
                continue
            inner: Any = ()
            if isinstance(x, Tensor):
                self._seen[id(x)] = x
                self._keep_tensor(x)
            elif isinstance(x, np.ndarray):
                self._seen[id(x)] = x
                self._arrays.append((x, x.copy()))
                inner = x.ravel().tolist() if x.dtype.hasobject else ()
            elif kind_of(x) is not None:
                inner = self._see(x)
                if isinstance(x, torch.jit.ScriptModule):   # what it holds is not among its attributes
                    self._contents.append((x, SCRIPTED, held := attributes(x)))
                    todo += [(v, at) for v in (*held.values(), *x.children(), *x.parameters(), *x.buffers())]
            elif isinstance(x, (tuple, frozenset)):
                inner = x
            elif isinstance(x, FUNCTIONS) or behind(x) is not None:
                inner = held_by(x) or [behind(x)]
                if isinstance(x, types.FunctionType) and vars(x):
                    self._contents.append((x, None, dict(vars(x))))
            elif not is_code(x) and isinstance(x, Iterator):
                self.lost.append((_spelled(at), type(x).__name__))
            if isinstance(inner, dict):
                todo += [(v, (at, key)) for key, v in inner.items() if type(v) not in PLAIN]
            elif isinstance(inner, (list, tuple, frozenset)):
                pairs = isinstance(x, dict)
                todo += [(v[1], (at, v[0])) if pairs else (v, at) for v in inner if type(v) not in PLAIN]

    def _keep_tensor(self, x: Tensor) -> None:
        # what has a graph behind it is computed, not written
        if x.is_leaf and not x.is_inference() and not x.is_meta and not nn.parameter.is_lazy(x):
            self._tensors.append((x, self._copy(x), x.requires_grad, None if x.grad is None else self._copy(x.grad)))

    def _copy(self, x: Tensor) -> Tensor:
        return x.detach().clone() if self.device is None else x.detach().to(self.device, copy=True)

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything as it was."""
        self.learn.opt = self.opt
        for x, kind, state in self._contents:
            if kind is None:
                vars(x).update({key: v for key, v in state.items() if key in vars(x)})
            elif not _unchanged(x, state):
                kind.fill(x, state)
        for x, names in self._names:
            for name in vars(x).keys() - names:
                delattr(x, name)
        for x, copied in self._arrays:
            if x.flags.writeable:
                x[...] = copied
        for x, copied, requires_grad, grad in self._tensors:
            _put_tensor(x, copied)
            if x.requires_grad != requires_grad:
                x.requires_grad_(requires_grad)
            x.grad = None if grad is None else torch.empty_like(x).copy_(grad)
        for m, training in self._flags:
            m.training = training
        for dl, state in self._loaders:
            dl.load_state_dict(state)
        set_rng_state(self._random_state)


def _spelled(place: Any) -> str:
    """A place in words: not before it is wanted, since a key may be a tensor, which takes long to print."""
    if not isinstance(place, tuple):
        return str(place)
    where, key = place
    return f"{_spelled(where)}.{type(key).__name__ if isinstance(key, Tensor) else key}"


def _unchanged(x: Any, state: Any) -> bool:
    """Whether a container holds the very objects that it held: then it is not written to."""
    if isinstance(x, dict):
        return len(x) == len(state) and all(a is k and b is v for (a, b), (k, v) in zip(x.items(), state, strict=True))
    return isinstance(x, list) and len(x) == len(state) and all(a is b for a, b in zip(x, state, strict=True))


def _put_tensor(x: Tensor, copied: Tensor) -> None:
    if x.layout != torch.strided:
        x.copy_(copied)
    elif x.shape != copied.shape or x.dtype != copied.dtype or x.stride() != copied.stride():
        x.data = copied.to(x.device, copy=True)
    else:
        copied = copied.to(x.device)
        if not torch.equal(x, copied):  # a write, even of the same, forbids the backward of a graph that needs `x`
            x.copy_(copied)


def copied(learn: Any, memo: dict[int, Any]) -> dict[str, Any]:
    """A deep copy of a learner's attributes: it is in no run, and its callbacks have None for what belongs to this
    process, such as open files."""
    attributes = {**vars(learn), "handler": None, "interrupted": False}
    if learn.handler is not None:
        memo[id(learn.handler.state.pbar)] = None
    for cb in (*attributes.values(), *listify(learn.callbacks)):
        for part in vars(cb).values() if isinstance(cb, Callback) else ():
            if is_code(part):
                try:
                    copy.deepcopy(part)
                except Exception:   # each kind of thing has its own
                    memo[id(part)] = None
    return copy.deepcopy(attributes, memo)


def words(lost: Iterable[tuple[str, str]], most: int = 5) -> str:
    """Places and types of what is lost, in one line."""
    found = [f"{place.strip('.')} (a {kind})" for place, kind in dict.fromkeys(lost)]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


@contextlib.contextmanager
def preserved(learn: Any, callbacks: Sequence[Callback] = (), weights: bool = True) -> Iterator[None]:
    """Whatever happens inside, afterwards the learner is as before, bit for bit: see `Moment`, which has the arguments.

    What cannot be put back is named in a warning, where `weights` is True.

    >>> learn = fake_learner()
    >>> with preserved(learn): learn.fit(1)
    >>> learn.has_opt
    False
    """
    initialise_lazy(learn)
    before = Moment(learn, callbacks, weights)
    if before.lost and weights:
        warnings.warn(f"this cannot be put back afterwards, so what is done now may leave a trace there: "
                      f"{words(before.lost)}")
    loaders = [dl.dl for dl in learn.data.dls]
    workers = [exchange_workers(dl) for dl in loaders]      # persistent ones know nothing of what happens inside
    items = [(dl.dl, exchange_kept(dl.dl)) for dl in learn.data.dls if isinstance(dl.dl, ItemLoader)
             and dl.dl.num_workers and own_generators(dl)]
    try:
        yield
    finally:
        for dl, theirs in zip(loaders, workers, strict=True):
            exchange_workers(dl, theirs)
        for loader, own in items:
            exchange_kept(loader, own)
        before.put_back()
