"""A learner's layer groups: its optimizer over them, their learning rates, and which of them are trained.

They are the learner's cut of the model; where the optimizer has parameter groups of its own, they are these.
"""
from __future__ import annotations

from typing import Any

from torch import nn

from .checks import few_of, positive_float, short
from .fused import AdamW
from .layers import ParameterModule, initialise_lazy, split_model
from .optimizer import OptimWrapper
from .suggestion import RangeTest, RangeTests, Suggestion
from .torch_private import NORM_LAYERS
from .utils import even_mults

__all__ = ["DEFAULT_LR", "check_own", "cut", "freeze_before", "groups_of", "learning_rates", "make_opt", "set_opt",
           "weight_decay"]

DEFAULT_LR = slice(3e-3)    # where none is named


def groups_of(learn: Any) -> list[nn.Module]:
    """The layer groups: those of the optimizer where it has its own, else the cut, else the whole model."""
    opt = learn._opt
    if opt is not None and opt.own_groups:
        return [nn.Sequential(*map(ParameterModule, params)) for params in opt.params()]
    return learn._cut or [learn.model]


def make_opt(learn: Any) -> OptimWrapper:
    """A new optimizer for the learner; in the middle of a run it goes on as the one before did."""
    initialise_lazy(learn)
    opt = OptimWrapper.create(learn.opt_func, _spread(DEFAULT_LR, len(learn._cut or [0])), learn._cut or [learn.model],
                              learn.wd, learn.true_wd, learn.bn_wd)
    if opt.own_groups and learn._cut:
        raise ValueError("opt_func makes parameter groups of its own, which are the layer groups: the model cannot be "
                         "cut as well")
    if learn.handler is not None and learn._opt_before is not None:
        opt.take_over(learn._opt_before)
    return opt


def check_own(learn: Any, opt: OptimWrapper) -> None:
    """ValueError if an optimizer that is given to the learner does not go with it."""
    if opt.own_groups:
        opt.check_holds(learn.model)
        if not learn.bn_wd:
            raise ValueError("bn_wd=False is for optimizers that the learner makes: here give normalisation layers and "
                             "biases a group of their own, with weight_decay=0")


def set_opt(learn: Any, lr: Any, wd: float | None) -> None:
    """Make the optimizer ready for a run at `lr`: over all that is to be trained, its state as the parameters are."""
    learn._opt_before = None
    if learn.opt.missing(learn.model):
        if learn.opt.own_groups:
            learn.opt.check_holds(learn.model)
        learn.opt = None
    if left_out := learn.opt.missing(learn.model):
        raise ValueError("the layer groups leave out some of the model's parameters: cut it again with learn.split, or "
                         f"freeze {few_of(left_out, 'parameters')}")
    learn.opt.align()
    learn.opt.lr = lr
    learn.opt.wd = wd if wd is not None else learn.wd if learn.opt.given_wd is None else learn.opt.given_wd


def learning_rates(learn: Any, lr: Any) -> float | list[float]:
    """See `Learner.lr_range`."""
    if learn._opt is None and learn.opt_func is not AdamW:
        learn.opt   # noqa: B018  it may have groups of its own
    opt = learn._opt if learn._opt is not None and learn._opt.own_groups else None
    if opt is None:
        return _spread(lr, len(learn._cut or [0]))
    if lr is DEFAULT_LR:
        return list(opt.given_lr)
    found = _spread(lr, opt.n_groups)
    return found if isinstance(found, list) else opt.spread(found)


def _spread(lr: Any, n: int) -> float | list[float]:
    if isinstance(lr, slice):
        if lr.step is not None:
            raise ValueError(f"{lr} has three values, and a slice of learning rates has two: for one value a layer "
                             "group give a list")
        stop = _learning_rate(lr.stop)
        if lr.start is None:
            return [stop / 10] * (n - 1) + [stop]
        return even_mults(_learning_rate(lr.start), stop, n)
    if isinstance(lr, (list, tuple)) or bool(getattr(lr, "ndim", 0)):
        if len(lr) != n:
            raise ValueError(f"lr={lr} has {len(lr)} values for {n} layer group{'s' * (n > 1)}")
        return [_learning_rate(x) for x in lr]
    return _learning_rate(lr)


def _learning_rate(lr: Any) -> float:
    if isinstance(lr, (RangeTest, RangeTests)):
        hint = "its .suggestion" if isinstance(lr, RangeTest) else f"the .suggestion of one: {', '.join(map(repr, lr))}"
        raise TypeError(f"the learning rate must be a number, not a {type(lr).__name__}: pass {hint}")
    # without a learning rate a suggestion says why
    return positive_float("the learning rate", float(lr) if isinstance(lr, Suggestion) else lr)


def weight_decay(wd: Any) -> float:
    """`wd` if it is a finite number of at least 0, else TypeError or ValueError."""
    return positive_float("wd", wd, or_zero=True)


def cut(learn: Any, split_on: Any) -> None:
    """See `Learner.split`."""
    if learn._opt is not None and learn._opt.own_groups:
        raise ValueError("the optimizer's parameter groups are the layer groups: to cut the model otherwise set "
                         "learn.opt = None first")
    is_part = isinstance(split_on, (nn.Module, nn.Parameter))
    splits = split_on(learn.model) if callable(split_on) and not is_part else split_on
    try:
        groups = split_model(learn.model, splits)
    except TypeError as e:
        raise TypeError(f"split_on must give modules of the model or lists of its layers, not {short(splits)}: {e}"
                        ) from None
    before, learn._cut = learn._cut, groups
    _remake(learn)
    if learn.handler is not None:
        try:
            learn.opt   # noqa: B018  what the run in progress cannot go on with is an error here
        except ValueError:
            learn._cut, learn._opt = before, learn._opt_before
            raise


def freeze_before(learn: Any, n: int) -> None:
    """See `Learner.freeze_to`."""
    groups = learn.layer_groups
    if n not in range(-len(groups), len(groups)):
        raise ValueError(f"there is no layer group {n!r}: the model has {len(groups)}, see learn.split")
    norms = {p for m in learn.model.modules() if isinstance(m, NORM_LAYERS) for p in m.parameters(recurse=False)}
    for i, group in enumerate(groups):
        for p in group.parameters():
            p.requires_grad = i >= n % len(groups) or learn.train_bn and p in norms
    if not (learn._opt is not None and learn._opt.own_groups):  # one of the user's only goes by the gradients
        _remake(learn)


def _remake(learn: Any) -> None:
    learn.opt = None
