"""`OptimWrapper`: lr, mom, beta and wd for each layer group, over any torch optimizer."""
from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from .checks import did_you_mean, few_of
from .fused import AdamW as AdamW
from .fused import FusedAdam as FusedAdam
from .fused import KernelStep, family_of
from .optimizer_state import check_shapes, check_sparse, check_state, check_value, fit_state, gives_decay
from .torch_private import NORM_LAYERS, multiply_all_, unguarded
from .utils import listify

__all__ = ["DEFAULT_WD", "OptimWrapper"]

DEFAULT_WD = 1e-2   # a learner's


class OptimWrapper:
    """A torch optimizer whose hyper-parameters are set by layer group.

    `opt.lr`, `opt.mom`, `opt.beta`, `opt.wd` read the last layer group and write all of them (a number for all, or a
    list with one for each); `opt.values(name)` reads them all, and it and `opt.set(name, value)` take these and any
    other key of the parameter groups (`eps`, ...). `mom` is SGD's momentum or Adam's first beta, `beta` Adam's second
    or RMSprop's alpha. Nothing is cached: the torch optimizer's `param_groups` hold every value.

    `opt`: the torch optimizer. Its own parameter groups are the layer groups, and what they were given stays: a learner
    sets their learning rates in the ratios that they have (`lr_scale` of a group counts as a factor), and leaves their
    weight decay alone in a fit that names none. `wd`: weight decay for all groups, or a list with one for each;
    default: what each group has. `true_wd`: True decouples weight decay from the gradient, so that weights shrink by
    `lr * wd` before the step (Loshchilov & Hutter, arXiv 1711.05101); False is the optimizer's own L2 penalty;
    default: as the optimizer has it.

    SGD, Adam and AdamW of torch step by torch's fused kernel where the parameters allow it: see `KernelStep`.

    TypeError for an optimizer that is wrapped already, or that runs the model several times a step.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> groups = [{"params": net[0].parameters(), "lr": 0.01}, {"params": net[1].parameters()}]
    >>> opt = OptimWrapper(optim.SGD(groups, lr=0.1))
    >>> opt.values("lr")
    [0.01, 0.1]
    """

    def __init__(self, opt: optim.Optimizer, wd: float | Sequence[float] | None = None,
                 true_wd: bool | None = None) -> None:
        if isinstance(opt, OptimWrapper):
            raise TypeError("this optimizer is wrapped already")
        closure = inspect.signature(opt.step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise TypeError(f"{type(opt).__name__} runs the model several times a step, which the loop does not: "
                            "choose another optimizer")
        self.opt, groups = opt, opt.param_groups
        self.own_groups = any("layer_group" not in g for g in groups)   # the user has made them
        for i, g in enumerate(groups):
            if self.own_groups:
                g["layer_group"] = i
            g.setdefault("decays", True)
            g.setdefault("wd", g.get("weight_decay", 0.0))
        self.n_groups = 1 + max(g["layer_group"] for g in groups)
        # where a name lives in a parameter group: its key, and the index if that holds a tuple
        keys = groups[0].keys()
        hidden = {"params", "layer_group", "decays", "betas", "weight_decay", "decoupled_weight_decay", "param_names"}
        self._slots: dict[str, tuple[str, int | None]] = {key: (key, None) for key in sorted(keys - hidden)}
        if "betas" in keys:
            self._slots |= {"mom": ("betas", 0), "beta": ("betas", 1)}
        self._slots |= {name: (key, None) for name, key in (("mom", "momentum"), ("beta", "alpha")) if key in keys}
        self.decays_itself = "decoupled_weight_decay" in keys   # torch's Adam knows both kinds of decay
        own_way = groups[0].get("decoupled_weight_decay", "weight_decay" not in keys)
        self.true_wd = own_way if true_wd is None else true_wd
        self.given_lr = [float(lr) * g.get("lr_scale", 1.0) for lr, g in zip(self.values("lr"), groups, strict=False)]
        self.given_wd: list[float] | None = self.values("wd") if wd is None and self.own_groups else None
        self.kernel, self._stepped = KernelStep(opt), False
        if wd is not None or self.true_wd != own_way:
            self.wd = self.values("wd") if wd is None else wd

    @classmethod
    def create(cls, opt_func: Callable[..., optim.Optimizer], lr: Any, layer_groups: Sequence[nn.Module], wd: Any = 0.0,
               true_wd: bool = True, bn_wd: bool = True) -> OptimWrapper:
        """An optimizer `opt_func(param_groups, lr=...)` over the trainable parameters of the layer groups.

        `lr`, `wd`: a number, or a list with one for each layer group. `true_wd`: see the class. `bn_wd`: with False
        normalisation layers and biases do not decay. A `weight_decay` that `opt_func` gives, for the optimizer or for
        groups of its own, comes before `wd`, in the optimizer's own way.

        ValueError without a trainable parameter, and for a decay that is given twice.

        >>> OptimWrapper.create(AdamW, [1e-3, 1e-2], [nn.Linear(2, 2), nn.Linear(2, 1)]).values("lr")
        [0.001, 0.01]
        """
        groups: list[dict[str, Any]] = []
        seen: set[Tensor] = set()
        for i, layers in enumerate(layer_groups):
            params = [p for p in layers.parameters() if p.requires_grad and p not in seen]
            seen.update(params)
            spared = set() if bn_wd else {p for m in layers.modules() for name, p in m.named_parameters(recurse=False)
                                          if isinstance(m, NORM_LAYERS)
                                          or "_bias" in "_" + getattr(m, "own_name", name)}
            groups.append({"params": [p for p in params if p not in spared], "layer_group": i, "decays": True})
            if rest := [p for p in params if p in spared]:
                groups.append({"params": rest, "layer_group": i, "decays": False})
        if not seen:
            raise ValueError("the model has no trainable parameter: unfreeze some, or give it one")
        made = [list(map(id, g["params"])) for g in groups]
        torch_opt = opt_func(groups, lr=listify(lr)[-1] if isinstance(lr, (list, tuple)) else lr)
        own_groups = made != [list(map(id, g["params"])) for g in torch_opt.param_groups]
        if own_groups:
            for g in torch_opt.param_groups:
                g.pop("layer_group", None)
        own_decay = gives_decay(torch_opt)
        if own_decay and wd not in (0.0, DEFAULT_WD):
            raise ValueError(f"wd={wd}, and opt_func gives a weight_decay too: give one of them")
        if own_decay and own_groups and not bn_wd:
            raise ValueError("bn_wd=False is for groups that minifast makes: opt_func makes groups with a decay of "
                             "their own, so leave it out there")
        opt = cls(torch_opt) if own_decay else cls(torch_opt, wd, true_wd)
        if not own_groups:
            if own_decay:
                opt.given_wd = opt.values("wd")
                opt.wd = opt.given_wd   # not that of the spared ones
            opt.lr = lr
        return opt

    def step(self) -> None:
        """Decoupled weight decay, then the optimizer's step.

        RuntimeError, before anything is changed, for sparse gradients that this optimizer cannot take."""
        decouple = self.true_wd and not self.decays_itself
        if self.kernel(decouple):
            return
        if not self._stepped:
            check_sparse(self.opt)
            self._stepped = True
        if any(g.get("fused") for g in self.opt.param_groups):
            check_shapes(self.opt)
        if decouple:
            self._decay()
        self.opt.step()

    @torch.no_grad()
    def _decay(self) -> None:
        for g in self.opt.param_groups:
            if g["decays"] and (factor := 1 - g["lr"] * g["wd"]) != 1:
                if params := [p for p in g["params"] if p.grad is not None]:
                    multiply_all_(params, factor)  # one call for the group instead of one for each parameter

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for g in self.opt.param_groups:  # torch's own does this too, and enters its profiler first, which costs 10 µs
            for p in g["params"]:
                p.grad = None

    def align(self) -> None:
        """Make the state fit the parameters as they are now (dtype, device, order in memory): see `fit_state`."""
        family = family_of(self.opt)
        for g in self.opt.param_groups:
            for p in g["params"]:
                if p in self.opt.state:
                    fit_state(p, self.opt.state[p], family.moments(g) if family else ())
        self.kernel.look()

    def clear(self) -> None:
        """Forget the optimizer's state (moments, step counts)."""
        self.opt.state.clear()

    def params(self) -> list[list[Tensor]]:
        """The parameters of each layer group."""
        found: list[list[Tensor]] = [[] for _ in range(self.n_groups)]
        for g in self.opt.param_groups:
            found[g["layer_group"]] += g["params"]
        return found

    def missing(self, model: nn.Module) -> list[str]:
        """The names of the model's trainable parameters that are not the optimizer's.

        >>> net = nn.Linear(2, 1)
        >>> OptimWrapper(optim.SGD([net.weight], lr=0.1)).missing(net)
        ['bias']
        """
        held = {id(p) for g in self.opt.param_groups for p in g["params"]}
        return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]

    def check_holds(self, model: nn.Module) -> None:
        """ValueError unless all of the model's trainable parameters are the optimizer's: they would stay untrained."""
        if left_out := self.missing(model):
            raise ValueError(f"the optimizer does not hold {few_of(left_out, 'trainable parameters of the model')}, "
                             "so they would not be trained: freeze them (requires_grad_(False)), put them into one of "
                             "its groups, or, where the model was changed during a fit, set learn.opt = None then, and "
                             "it is made again")

    def take_over(self, other: OptimWrapper) -> None:
        """Go on as `other` did: its hyper-parameters, and its state of the parameters that are held here too.

        ValueError if these differ between its layer groups, and there is another number of groups here."""
        for name in other._slots.keys() & self._slots.keys():
            values = other.values(name)
            if self.n_groups != other.n_groups and any(v != values[0] for v in values):
                raise ValueError(f"{name} differs between the {other.n_groups} layer groups of the run in progress, "
                                 f"and there are {self.n_groups} now: cut the model before the fit")
            if not isinstance(values[-1], bool) and isinstance(values[-1], (int, float)):
                self.set(name, values if self.n_groups == other.n_groups else values[-1])
        held = {p for g in self.opt.param_groups for p in g["params"]}
        self.opt.state.update({p: s for p, s in other.opt.state.items() if p in held})

    @property
    def name(self) -> str:
        """The torch optimizer's class name."""
        return type(self.opt).__name__

    def values(self, name: str) -> list[Any]:
        """The hyper-parameter of each layer group; KeyError with a suggestion if the optimizer does not have it."""
        key, i = self._slot(name)
        groups = {g["layer_group"]: g for g in reversed(self.opt.param_groups)}
        return [g[key] if i is None else g[key][i] for _, g in sorted(groups.items())]

    def set(self, name: str, value: Any) -> None:
        """Set a hyper-parameter: one number for all layer groups, or a list (tuple, array) with one for each."""
        key, i = self._slot(name)
        per_group = False
        if type(value) is not float:  # the case of every batch, at once
            value = value.tolist() if hasattr(value, "tolist") else value  # a file could not hold numpy's numbers
            per_group = isinstance(value, (list, tuple))
        if per_group and len(value) == 1:
            value, per_group = value[0], False
        if per_group and len(value) != self.n_groups:
            raise ValueError(f"{name}={list(value)} has {len(value)} values for {self.n_groups} layer groups")
        for g in self.opt.param_groups:
            v = value[g["layer_group"]] if per_group else value
            old = g[key]
            if type(old) is float or (i is None and not isinstance(old, Tensor)):
                g[key] = v
            elif i is None:
                old.fill_(v)    # a captured graph reads it there
            else:
                g[key] = (v, *old[1:]) if i == 0 else (*old[:i], v, *old[i + 1:])
            if name == "wd":
                self._hand_on_decay(g, v)

    def spread(self, lr: float) -> list[float]:
        """Learning rates for the layer groups, the last one `lr`, in the ratios of `given_lr`."""
        if not self.given_lr[-1] > 0:
            raise ValueError(f"the optimizer's groups were given the learning rates {self.given_lr}, which have no "
                             "ratio to the last one: give a list with one for each group")
        return [lr * (own / self.given_lr[-1]) for own in self.given_lr]

    def _checked(self, name: str, value: Any) -> None:
        check_value(name, value)
        self.set(name, value)

    def _hand_on_decay(self, g: dict[str, Any], wd: float) -> None:
        if self.decays_itself:
            g["decoupled_weight_decay"] = self.true_wd
        if "weight_decay" in g:
            g["weight_decay"] = wd if g["decays"] and (self.decays_itself or not self.true_wd) else 0.0
        elif not self.true_wd and wd:
            raise ValueError(f"{self.name} has no weight decay of its own: use true_wd=True, or wd=0")

    def _slot(self, name: str) -> tuple[str, int | None]:
        if name not in self._slots:
            raise KeyError(f"{self.name} has no hyper-parameter {name!r}; it has {', '.join(sorted(self._slots))}."
                           + did_you_mean(name, self._slots))
        return self._slots[name]

    def _last(self, name: str) -> Any:
        if name not in self._slots:
            return None
        key, i = self._slots[name]
        value = self.opt.param_groups[-1][key]
        return value if i is None else value[i]

    lr = property(lambda self: self._last("lr"), lambda self, v: self._checked("lr", v), doc="Learning rate.")
    mom = property(lambda self: self._last("mom"), lambda self, v: self._checked("mom", v), doc="Momentum, or None.")
    beta = property(lambda self: self._last("beta"), lambda self, v: self._checked("beta", v),
                    doc="Second beta, or alpha.")
    wd = property(lambda self: self._last("wd"), lambda self, v: self._checked("wd", v), doc="Weight decay.")

    def state_dict(self) -> dict[str, Any]:
        """The torch optimizer's state, hyper-parameters included."""
        return unguarded(type(self.opt).state_dict)(self.opt)  # type: ignore[no-any-return]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; ValueError that says what is wrong, before anything is changed, if it
        belongs to other parameters or another optimizer, or is damaged."""
        family = family_of(self.opt)
        check_state(self.opt, state, family.moments if family else None, bool(family and family.counts))
        state = copy.deepcopy(state)  # torch would share the tensors with it
        for saved, own in zip(state["param_groups"], self.opt.param_groups, strict=True):
            for key, value in own.items():
                saved.setdefault(key, value)    # what an older file does not know
        unguarded(type(self.opt).load_state_dict)(self.opt, state)
        self.align()

    def __repr__(self) -> str:
        return f"OptimWrapper over {self.opt!r}"
