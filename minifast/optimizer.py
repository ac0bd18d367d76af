"""`OptimWrapper`: lr, mom, beta and wd for each layer group, over any torch optimizer."""
from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from .checks import did_you_mean, number
from .torch_private import (
    NORM_LAYERS,
    add_to_all_,
    can_step_fused,
    fused_step,
    has_step_hooks,
    multiply_all_,
    profiled,
    unguarded,
)
from .utils import listify

__all__ = ["OptimWrapper", "AdamW", "FusedAdam"]

BELOW = {"lr": float("inf"), "mom": 1.0, "beta": 1.0, "wd": float("inf")}


def AdamW(params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), **kwargs: Any) -> optim.Adam:
    """fastai v1's default optimizer: torch's Adam with these betas; the wrapper decouples the decay.

    Where all parameters are of one kind that torch has a fused kernel for, it is `FusedAdam`.
    """
    groups = list(params)
    every = [p for g in groups for p in (g["params"] if isinstance(g, dict) else [g])]
    kinds = {(p.device.type, p.dtype) for p in every}
    fused = can_step_fused() and (kinds <= {("cpu", torch.float32)} or kinds <= {("cuda", torch.float32)})
    # the kernel goes through memory in a line, and would write between the numbers of a parameter that has gaps
    fused = fused and all(torch.empty_like(p, device="meta").stride() == p.stride() for p in every)
    return FusedAdam(groups, lr, betas) if fused and not kwargs else optim.Adam(groups, lr, betas, **kwargs)


def check_value(name: str, value: Any) -> None:
    """A named error (TypeError or ValueError) for what lr, mom, beta or wd cannot be; other names are the optimizer's
    affair. `value`: a number, or several for the layer groups."""
    if name not in BELOW:
        return
    value = value.tolist() if hasattr(value, "tolist") else value
    for v in value if isinstance(value, (list, tuple)) else [value]:
        if not 0 <= number(name, v) < BELOW[name]:
            raise ValueError(f"{name} must be {'finite and ' if BELOW[name] > 1 else ''}at least 0"
                             f"{'' if BELOW[name] > 1 else ' and below 1'}, not {v}")


class FusedAdam(optim.Adam):
    """`torch.optim.Adam(fused=True)`, to the bit, with less around the kernel: a step of a small model takes 15 µs
    instead of 50 (and 97 without fusing), and the first one does not import torch's compiler, which takes a second."""

    # torch's own is this one behind a guard that imports the compiler
    add_param_group = unguarded(optim.Optimizer.add_param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for all parameters that have a gradient."""
        return self._hooked_step(closure) if has_step_hooks(self) else self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # else torch puts its profiler around every step: 10 µs

    @torch.no_grad()
    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for g in self.param_groups:
            if params := [p for p in g["params"] if p.grad is not None]:
                self._step_group(g, params)
        return loss

    _hooked_step = profiled(_step)

    def _step_group(self, g: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if p not in self.state:
                self.state[p] = {"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p),
                                 "exp_avg_sq": torch.zeros_like(p)}
            if g["amsgrad"] and "max_exp_avg_sq" not in self.state[p]:
                self.state[p]["max_exp_avg_sq"] = torch.zeros_like(p)
        states, grads = [self.state[p] for p in params], [p.grad for p in params if p.grad is not None]
        for i, (p, grad, s) in enumerate(zip(params, grads, states, strict=True)):
            if not p.stride() == grad.stride() == s["exp_avg"].stride():  # somebody has laid one of them out anew
                lay_out(p, s)
                grads[i] = torch.empty_like(p).copy_(grad)
        steps = [s["step"] for s in states]
        add_to_all_(steps, 1)
        peaks = [s["max_exp_avg_sq"] for s in states] if g["amsgrad"] else []
        kernel = fused_step(g["decoupled_weight_decay"])
        kernel(params, grads, [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], peaks, steps,
               lr=g["lr"], beta1=g["betas"][0], beta2=g["betas"][1], weight_decay=g["weight_decay"], eps=g["eps"],
               amsgrad=g["amsgrad"], maximize=g["maximize"])


def lay_out(p: Tensor, state: dict[str, Any]) -> None:
    """Lay an optimizer's state of the parameter `p` out in memory as `p` is now (channels last, say): fused kernels go
    through both in the order of memory and would pair the wrong numbers, without a word."""
    for name, t in state.items():
        if isinstance(t, Tensor) and t.shape == p.shape and t.stride() != p.stride():
            state[name] = torch.empty_like(p, dtype=t.dtype, device=t.device).copy_(t)


class OptimWrapper:
    """A torch optimizer whose hyper-parameters are set by layer group.

    `opt.lr`, `opt.mom`, `opt.beta`, `opt.wd` read the last layer group and write all of them (a number for all, or a
    list with one for each); `opt.values(name)` reads them all, and it and `opt.set(name, value)` take these and any
    other key of the parameter groups (`eps`, ...). `mom` is SGD's momentum or Adam's first beta, `beta` Adam's second
    or RMSprop's alpha. Nothing is cached: the torch optimizer's `param_groups` hold every value.

    `true_wd=True` decouples weight decay from the gradient: weights shrink by `lr * wd` before the step (Loshchilov &
    Hutter, arXiv 1711.05101); otherwise it is the optimizer's own L2 penalty. `bn_wd=False` spares normalisation layers
    and biases.
    """

    def __init__(self, opt: optim.Optimizer, wd: float | Sequence[float] = 0.0, true_wd: bool = True) -> None:
        if isinstance(opt, OptimWrapper):
            raise TypeError("this optimizer is wrapped already")
        closure = inspect.signature(opt.step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise TypeError(f"{type(opt).__name__} runs the model several times a step, which the loop does not: "
                            "choose another optimizer")
        self.opt, self.true_wd = opt, true_wd
        for i, group in enumerate(opt.param_groups):
            group.setdefault("layer_group", i)
            group.setdefault("decays", True)
        self.n_groups = 1 + max(g["layer_group"] for g in opt.param_groups)
        # where a name lives in a parameter group: its key, and the index if that holds a tuple
        keys = opt.param_groups[0].keys()
        hidden = {"params", "layer_group", "decays", "betas", "weight_decay", "decoupled_weight_decay"}
        self._slots: dict[str, tuple[str, int | None]] = {key: (key, None) for key in sorted(keys - hidden)}
        if "betas" in keys:
            self._slots |= {"mom": ("betas", 0), "beta": ("betas", 1)}
        self._slots |= {name: (key, None) for name, key in (("mom", "momentum"), ("beta", "alpha")) if key in keys}
        self.decays_itself = "decoupled_weight_decay" in keys   # torch's Adam knows both kinds of decay
        self._slots["wd"] = ("wd", None)
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
        if self.true_wd and not self.decays_itself:
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
        """Lay the state out in memory as the parameters are now: see `lay_out`."""
        for p, state in self.opt.state.items():
            lay_out(p, state)
            if isinstance(self.opt, FusedAdam):
                state["step"] = state["step"].to(p.device)  # torch's loading leaves it where it was saved

    def clear(self) -> None:
        """Forget the optimizer's state (moments, step counts)."""
        self.opt.state.clear()

    @property
    def name(self) -> str:
        """The torch optimizer's class name."""
        return type(self.opt).__name__

    def values(self, name: str) -> list[Any]:
        """The hyper-parameter of each layer group; KeyError with a suggestion if the optimizer does not have it."""
        key, i = self._slot(name)
        groups = {g["layer_group"]: g for g in self.opt.param_groups}.values()
        return [g[key] if i is None else g[key][i] for g in groups]

    def set(self, name: str, value: Any) -> None:
        """Set a hyper-parameter: one number for all layer groups, or a list (tuple, array) with one for each."""
        key, i = self._slot(name)
        per_group = False
        if type(value) is not float:  # the case of every batch, at once
            value = value.tolist() if hasattr(value, "tolist") else value  # a file could not hold numpy's numbers
            per_group = isinstance(value, (list, tuple))
        if per_group and len(value) != self.n_groups:
            raise ValueError(f"{name}={list(value)} has {len(value)} values for {self.n_groups} layer groups")
        for g in self.opt.param_groups:
            v = value[g["layer_group"]] if per_group else value
            g[key] = v if i is None else (*g[key][:i], v, *g[key][i + 1:])
            if name == "wd":
                self._hand_on_decay(g, v)

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
        """Take back what `state_dict` gave; ValueError if it belongs to other parameters or another optimizer."""
        def layout(groups: Sequence[dict[str, Any]]) -> list[Any]:
            return [(len(g["params"]), g.keys() & {"betas", "momentum", "alpha"}) for g in groups]

        if layout(state["param_groups"]) != layout(self.opt.param_groups):
            raise ValueError(f"the saved state is not that of {self.name} over these parameters: use the same opt_func,"
                             " layer groups and freezing as when it was saved, or load with with_opt=False")
        state = copy.deepcopy(state)  # torch would share the tensors with it
        unguarded(type(self.opt).load_state_dict)(self.opt, state)
        self.align()

    def __repr__(self) -> str:
        return f"OptimWrapper over {self.opt!r}"
