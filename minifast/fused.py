"""A step of torch's own optimizers at the price of its kernel, and what keeps that kernel from harm."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle, repeat
from operator import attrgetter, is_, itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn, optim

from .optimizer_state import fit_state, kind_of, order_of
from .torch_private import (
    FUSED_KERNELS,
    add_one_to_all_,
    can_step_fused,
    has_step_hooks,
    multiply_all_,
    profiled,
    unguarded,
)

__all__ = ["AdamW", "FusedAdam"]

Group = dict[str, Any]
# functions in C: over the parameters of a step they take a third of what a comprehension takes
DTYPE: Callable[[Tensor], torch.dtype] = attrgetter("dtype")
IS_CUDA: Callable[[Tensor], bool] = attrgetter("is_cuda")
GRAD: Callable[[Tensor], Tensor] = attrgetter("grad")
STEP: Callable[[Mapping[str, Tensor]], Tensor] = itemgetter("step")


class FusedAdam(optim.Adam):
    """`torch.optim.Adam(fused=True)` that does not import torch's compiler, which takes a second, when it is made.

    >>> FusedAdam(nn.Linear(2, 1).parameters(), lr=0.1).param_groups[0]["fused"]
    True
    """

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, lr, betas, fused=True)

    # torch's own is this one behind a guard that imports the compiler
    add_param_group = unguarded(optim.Optimizer.add_param_group)


def AdamW(params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), **kwargs: Any) -> optim.Adam:
    """fastai v1's default optimizer: torch's Adam with these betas; the wrapper decouples the decay.

    `params`: parameters or groups of them. `kwargs`: any other arguments of `optim.Adam`. Without these, where all
    parameters are of one kind that torch has a fused kernel for, it is `FusedAdam`, else `optim.Adam` itself.

    >>> AdamW(nn.Linear(2, 1).parameters(), lr=0.1).param_groups[0]["betas"]
    (0.9, 0.99)
    """
    groups = list(params)
    every = [p for g in groups for p in (g["params"] if isinstance(g, dict) else [g])]
    kinds = {(p.device.type, p.dtype) for p in every}
    fused = None not in map(FUSED_KERNELS.get, ("adam", "adamw")) and not kwargs and (
        kinds <= {("cpu", torch.float32)} or kinds <= {("cuda", torch.float32)}) and all(map(is_dense, every))
    opt = FusedAdam(groups, lr, betas) if fused else None
    return opt if opt is not None and can_step_fused(opt) else optim.Adam(groups, lr, betas, **kwargs)


# ---- what the optimizers differ in

# a call of a kernel: a group, parameters of it, their gradients, their moments by name, their step counts, and whether
# the moments hold nothing yet
Job = tuple[Group, list[Tensor], list[Tensor], list[list[Tensor]], list[Tensor], bool]


class Family(NamedTuple):
    """The optimizers that share a kernel."""

    moments: Callable[[Group], tuple[str, ...]]     # names of the state tensors that are shaped as the parameter
    counts: bool                                    # whether it counts its steps, in "step"
    new: Callable[[Tensor], Tensor]                 # such a tensor before the first step
    kernels: tuple[str, ...]                        # the kernels that it needs
    run: Callable[..., None]                        # calls one of them, with all of a `Job`


def _sgd_moments(g: Group) -> tuple[str, ...]:
    return ("momentum_buffer",) if g["momentum"] else ()


def _run_sgd(g: Group, params: list[Tensor], grads: list[Tensor], moments: list[list[Tensor]], steps: list[Tensor],
             first: bool) -> None:
    FUSED_KERNELS["sgd"](params, grads, *(moments or [[]]), lr=g["lr"], momentum=g["momentum"],
                         dampening=g["dampening"], weight_decay=g["weight_decay"], nesterov=g["nesterov"],
                         maximize=g["maximize"], is_first_step=first)


def _adam_moments(g: Group) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if g["amsgrad"] else ("exp_avg", "exp_avg_sq")


def _run_adam(g: Group, params: list[Tensor], grads: list[Tensor], moments: list[list[Tensor]], steps: list[Tensor],
              first: bool) -> None:
    (beta1, beta2), amsgrad = g["betas"], g["amsgrad"]
    FUSED_KERNELS["adamw" if g["decoupled_weight_decay"] else "adam"](
        params, grads, *moments, *([] if amsgrad else [[]]), steps, lr=g["lr"], beta1=beta1, beta2=beta2,
        weight_decay=g["weight_decay"], eps=g["eps"], amsgrad=amsgrad, maximize=g["maximize"])


_SGD = Family(_sgd_moments, False, torch.empty_like, ("sgd",), _run_sgd)
_ADAM = Family(_adam_moments, True, torch.zeros_like, ("adam", "adamw"), _run_adam)
_FAMILIES: dict[type[optim.Optimizer], Family] = {
    optim.SGD: _SGD, optim.Adam: _ADAM, optim.AdamW: _ADAM, FusedAdam: _ADAM}


def family_of(opt: optim.Optimizer) -> Family | None:
    """What is known about torch's optimizer of exactly this class, None for any other."""
    return _FAMILIES.get(type(opt))


# ---- the step

class KernelStep:
    """Steps a torch optimizer by its fused kernel, wherever that is right.

    `opt`: one of `optim.SGD`, `optim.Adam`, `optim.AdamW`; others are left to themselves. The numbers are those of
    torch's own class with `fused=True`, to the bit; without that torch goes another way on the CPU, whose numbers may
    differ in the last place. `fused=False` or a `foreach` of the user's is respected. What surrounds the kernel costs a
    third of what torch puts there (a step of a small model takes 15 µs instead of 50), most of it checks: the kernel
    itself trusts shapes, and would write past the end of a moment that is too small.

    >>> net = nn.Linear(2, 1)
    >>> step = KernelStep(optim.SGD(net.parameters(), lr=0.1, momentum=0.9))
    >>> net(torch.ones(1, 2)).sum().backward()
    >>> step()
    True
    """

    def __init__(self, opt: optim.Optimizer) -> None:
        self.opt, self.family = opt, family_of(opt)
        self.look()

    def look(self) -> None:
        """See again whether the kernel can be used: after parameters or options have changed."""
        self.usable = self.family is not None and can_step_fused(self.opt) and None not in map(
            FUSED_KERNELS.get, self.family.kernels) and all(map(_takes_kernel, self.opt.param_groups))

    def __call__(self, decouple: bool = False) -> bool:
        """Step, and say so; or change nothing and return False: the step is left to the optimizer's own `step`.

        `decouple`: parameters shrink by lr * wd of their group before it, unless its "decays" is False."""
        if not self.usable or "step" in vars(self.opt):     # another step is in place of torch's
            return False
        if has_step_hooks(self.opt):
            return bool(profiled(lambda opt: self._step(decouple))(self.opt))
        return self._step(decouple)

    def _step(self, decouple: bool) -> bool:
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(False)   # takes half as long as `torch.no_grad()`
        try:
            jobs: list[Job] = []
            for g in self.opt.param_groups:
                params, grads = g["params"], [*map(GRAD, g["params"])]
                if any(map(is_, grads, repeat(None))):
                    params = [p for p in params if p.grad is not None]
                    grads = [*map(GRAD, params)]
                if params:
                    job = self._job(g, params, grads)
                    if job is not None:
                        jobs.append(job)
                    elif (fitted := self._fitted(g, params, grads)) is not None:
                        jobs += fitted
                    else:
                        return False
            steps: list[Tensor] = []
            for job in jobs:
                steps += job[4]
            if steps:
                add_one_to_all_(steps)      # one call for all groups
            for job in jobs:
                g, p = job[0], job[1][0]
                if decouple and g["decays"] and (factor := 1 - g["lr"] * g["wd"]) != 1:
                    # all are of one kind: a factor of that kind takes 3 µs instead of 8 for six of them
                    multiply_all_(job[1], factor if p.is_cuda else torch.scalar_tensor(factor, dtype=p.dtype))
                self.family.run(*job)  # type: ignore[union-attr]
            return True
        finally:
            torch.set_grad_enabled(before)

    def _job(self, g: Group, params: list[Tensor], grads: list[Tensor]) -> Job | None:
        """What the kernel is called with, None unless all of it fits together.

        This is the whole check of a step, half a microsecond a parameter. The kernel goes through memory in a line:
        equal numbers of elements make it safe, an equal order in memory pairs the right ones."""
        family, state = self.family, self.opt.state
        assert family is not None
        moments, steps = [], []
        try:
            if names := family.moments(g):
                states = [*map(state.__getitem__, params)]
                for name in names:
                    moments.append([*map(itemgetter(name), states)])
                if family.counts:
                    steps = [*map(STEP, states)]
            laid_out = params + grads + (moments[0] if moments else [])
            sized = laid_out + [t for ms in moments[1:] for t in ms] if len(moments) > 1 else laid_out
            strides, sizes, n = [*map(Tensor.stride, laid_out)], [*map(Tensor.numel, sized)], len(params)
            if sizes != sizes[:n] * (len(sizes) // n):
                return None
            if strides != strides[:n] * (len(strides) // n) and not all(
                    own == theirs or order_of(t) == order_of(p) for own, theirs, t, p in zip(
                        strides, cycle(strides[:n]), laid_out, cycle(params), strict=False)):
                return None
            if moments and [*map(DTYPE, params)] != [*map(DTYPE, moments[0])]:
                return None
            # the kernel would read them on the device
            if steps and params[0].is_cuda and not all(map(IS_CUDA, steps)):
                return None
        except (KeyError, TypeError, RuntimeError):     # no state yet; no tensor; a sparse one, which has no strides
            return None
        return g, params, grads, moments, steps, False

    def _fitted(self, g: Group, params: list[Tensor], grads: list[Tensor]) -> list[Job] | None:
        """As `_job`, for the rare cases: state is made, or made to fit. None if the kernel cannot be used."""
        family = self.family
        assert family is not None
        for i, (p, grad) in enumerate(zip(params, grads, strict=True)):
            if grad.layout is not torch.strided:
                return None
            if grad.shape != p.shape or grad.dtype != p.dtype or grad.device != p.device:
                raise RuntimeError(f"the gradient of a parameter is {kind_of(grad)}, and it is {kind_of(p)} now: "
                                   "it was changed after the backward pass")
            if order_of(grad) != order_of(p):
                grads[i] = torch.empty_like(p).copy_(grad)
        names, state = family.moments(g), self.opt.state
        if self._job(g, params, grads) is None:
            self.look()     # a parameter may be of another kind by now
            if not self.usable:
                return None
            for p in params if names else []:
                fit_state(p, state[p], names)
        jobs = []
        for first in (False, True):
            part = [i for i, p in enumerate(params) if all(name in state[p] for name in names) is not first]
            if not part:
                continue
            ps = [params[i] for i in part]
            for p in ps:
                for name in names:
                    if name not in state[p]:
                        state[p][name] = family.new(p)
                if family.counts and "step" not in state[p]:
                    state[p]["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            job = self._job(g, ps, [grads[i] for i in part])
            assert job is not None
            jobs.append((*job[:-1], first))
        return jobs


def is_dense(p: Tensor) -> bool:
    """Whether its numbers lie in memory one after the other, whatever the order of its dimensions: a kernel that goes
    through memory in a line would write between those of any other."""
    return torch.empty_like(p, device="meta").stride() == p.stride()


def _takes_kernel(g: Group) -> bool:
    """Whether torch's fused kernel may step this group: its options, and its parameters, all of one kind."""
    if g["fused"] is False or g["foreach"] is not None or g["differentiable"] or g.get("capturable"):
        return False
    if any(isinstance(v, Tensor) for v in (g["lr"], g["weight_decay"], *g.get("betas", ()))):
        return False
    kinds = {(type(p), p.dtype, p.device) for p in g["params"]}
    return len({(dtype, device) for _, dtype, device in kinds}) <= 1 and all(
        kind in (nn.Parameter, Tensor) and dtype in (torch.float32, torch.float64) and device.type in ("cpu", "cuda")
        for kind, dtype, device in kinds) and all(map(is_dense, g["params"]))
