"""`OptimWrapper`: lr, mom, beta and wd for each layer group, over any torch optimizer."""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim

from .utils import did_you_mean, listify

__all__ = ["OptimWrapper", "AdamW", "NORM_LAYERS"]

NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
               nn.modules.instancenorm._InstanceNorm)

# fastai v1's default: Adam's steps with its betas; the wrapper does the decoupled decay
AdamW = partial(optim.Adam, betas=(0.9, 0.99))


class OptimWrapper:
    """A torch optimizer whose hyper-parameters are set by layer group.

    `opt.lr`, `opt.mom`, `opt.beta`, `opt.wd` read the last layer group and write all of them (a number for all, or a list
    with one for each); `opt.values(name)` and `opt.set(name, value)` do the same for these and any other key of the
    parameter groups (`eps`, ...). `mom` is SGD's momentum or Adam's first beta, `beta` Adam's second or RMSprop's alpha.
    Nothing is cached: the torch optimizer's `param_groups` hold every value.

    `true_wd=True` decouples weight decay from the gradient: weights shrink by `lr * wd` before the step (Loshchilov &
    Hutter, arXiv 1711.05101); otherwise it is the optimizer's own L2 penalty. `bn_wd=False` spares normalisation layers
    and biases.
    """

    def __init__(self, opt: optim.Optimizer, wd: float | Sequence[float] = 0.0, true_wd: bool = True) -> None:
        if isinstance(opt, OptimWrapper):
            raise TypeError("this optimizer is wrapped already")
        self.opt, self.true_wd = opt, true_wd
        for i, group in enumerate(opt.param_groups):
            group.setdefault("layer_group", i)
            group.setdefault("decays", True)
        self.n_groups = 1 + max(g["layer_group"] for g in opt.param_groups)
        self.wd = wd

    @classmethod
    def create(cls, opt_func: Callable[..., optim.Optimizer], lr: Any, layer_groups: Sequence[nn.Module], wd: Any = 0.0,
               true_wd: bool = True, bn_wd: bool = True) -> OptimWrapper:
        """An optimizer `opt_func(param_groups, lr=...)` over the trainable parameters of the layer groups."""
        groups: list[dict[str, Any]] = []
        seen: set[Tensor] = set()
        for i, layers in enumerate(layer_groups):
            params = [p for p in layers.parameters() if p.requires_grad and p not in seen]
            seen.update(params)
            spared = set() if bn_wd else {p for m in layers.modules() for name, p in m.named_parameters(recurse=False)
                                          if isinstance(m, NORM_LAYERS) or name == "bias"}
            groups.append({"params": [p for p in params if p not in spared], "layer_group": i, "decays": True})
            if rest := [p for p in params if p in spared]:
                groups.append({"params": rest, "layer_group": i, "decays": False})
        if not seen:
            raise ValueError("the model has no trainable parameter: unfreeze some, or give it one")
        opt = cls(opt_func(groups, lr=listify(lr)[-1] if isinstance(lr, (list, tuple)) else lr), wd, true_wd)
        opt.lr = lr
        return opt

    def step(self) -> None:
        """Decoupled weight decay, then the optimizer's step."""
        if self.true_wd:
            self._decay()
        self.opt.step()

    @torch.no_grad()
    def _decay(self) -> None:
        for g in self.opt.param_groups:
            if g["decays"] and (factor := 1 - g["lr"] * g["wd"]) != 1:
                if params := [p for p in g["params"] if p.grad is not None]:
                    torch._foreach_mul_(params, factor)  # one call for the group instead of one for each parameter

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self.opt.zero_grad()

    def clear(self) -> None:
        """Forget the optimizer's state (moments, step counts)."""
        self.opt.state.clear()

    @property
    def name(self) -> str:
        """The torch optimizer's class name."""
        return type(self.opt).__name__

    def values(self, name: str) -> list[Any]:
        """The hyper-parameter of each layer group; KeyError with a suggestion if the optimizer has none of that name."""
        groups = self._one_of_each_group()
        return [self._read(g, name) for g in groups]

    def set(self, name: str, value: Any) -> None:
        """Set a hyper-parameter: one number for all layer groups, or a list (tuple, array) with one for each."""
        per_group = hasattr(value, "__len__")
        if per_group and len(value) != self.n_groups:
            raise ValueError(f"{name}={list(value)} has {len(value)} values for {self.n_groups} layer groups")
        for g in self.opt.param_groups:
            self._write(g, name, float(value[g["layer_group"]]) if per_group else value)

    def _one_of_each_group(self) -> Iterable[dict[str, Any]]:
        return {g["layer_group"]: g for g in self.opt.param_groups}.values()

    def _read(self, g: dict[str, Any], name: str) -> Any:
        if (slot := self._slot(g, name)) is None:
            known = sorted({"lr", "wd", "mom", "beta"} | g.keys() - {"params", "layer_group", "decays"})
            raise KeyError(f"{self.name} has no hyper-parameter {name!r}; it has {', '.join(known)}."
                           + did_you_mean(name, known))
        key, i = slot
        return g[key] if i is None else g[key][i]

    def _write(self, g: dict[str, Any], name: str, value: Any) -> None:
        if name == "wd":
            g["wd"] = value
            if "weight_decay" in g:
                g["weight_decay"] = 0.0 if self.true_wd or not g["decays"] else value
            elif not self.true_wd and value:
                raise ValueError(f"{self.name} has no weight decay of its own: use true_wd=True, or wd=0")
            return
        self._read(g, name)  # raises for an unknown name
        key, i = self._slot(g, name)  # type: ignore[misc]
        g[key] = value if i is None else (*g[key][:i], value, *g[key][i + 1:])

    def _slot(self, g: dict[str, Any], name: str) -> tuple[str, int | None] | None:
        """Where `name` lives in a parameter group: its key, and the index if that holds a tuple."""
        if name == "mom":
            return ("momentum", None) if "momentum" in g else ("betas", 0) if "betas" in g else None
        if name == "beta":
            return ("betas", 1) if "betas" in g else ("alpha", None) if "alpha" in g else None
        return (name, None) if name in g else None

    def _last(self, name: str) -> Any:
        g = self.opt.param_groups[-1]
        return self._read(g, name) if self._slot(g, name) else None

    lr = property(lambda self: self._last("lr"), lambda self, v: self.set("lr", v), doc="Learning rate.")
    mom = property(lambda self: self._last("mom"), lambda self, v: self.set("mom", v), doc="Momentum, None if it has none.")
    beta = property(lambda self: self._last("beta"), lambda self, v: self.set("beta", v), doc="Second beta, or alpha.")
    wd = property(lambda self: self._last("wd"), lambda self, v: self.set("wd", v), doc="Weight decay.")

    def state_dict(self) -> dict[str, Any]:
        """The torch optimizer's state, hyper-parameters included."""
        return self.opt.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; ValueError if it belongs to other parameters."""
        self.opt.load_state_dict(copy.deepcopy(state))  # torch would share the tensors with `state`

    def __repr__(self) -> str:
        return f"OptimWrapper over {self.opt!r}"
