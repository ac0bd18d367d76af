"""A learner's layer groups: its optimizer over them, their learning rates, and which of them are trained."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from torch import nn, optim

from .checks import few_of, positive_float, short
from .fused import AdamW
from .layers import ParameterModule, initialise_lazy, split_model
from .optimizer import OptimWrapper
from .suggestion import RangeTest, RangeTests, Suggestion
from .torch_private import NORM_LAYERS
from .utils import even_mults, listify

__all__ = ["DEFAULT_LR", "LayerGroups", "LearningRate", "WeightDecay", "weight_decay"]

# one for all layer groups, or a list or a slice with one for each: see `LayerGroups.lr_range`
LearningRate = float | Sequence[float] | slice | Suggestion
WeightDecay = float | Sequence[float]   # a number, or one for each layer group
DEFAULT_LR = slice(3e-3)    # where none is named


class LayerGroups:
    """The part of a `Learner` that cuts its model into groups of layers, and makes the optimizer over them.

    The groups are the cut that `split` or `layer_groups=` has made; where the optimizer has parameter groups of its
    own, they are these; else the whole model is one.
    """

    data: Any
    model: nn.Module
    opt_func: Callable[..., optim.Optimizer]
    wd: WeightDecay
    true_wd: bool
    bn_wd: bool
    train_bn: bool
    handler: Any
    _opt: OptimWrapper | None
    _opt_before: OptimWrapper | None    # of the run in progress, where another one takes its place
    _cut: list[nn.Module]

    @property
    def opt(self) -> OptimWrapper:
        """The optimizer; made when it is first used, and made again when other parameters are to be trained.

        One of your own, `learn.opt = OptimWrapper(opt)`, keeps its parameter groups: they are the layer groups.
        ValueError at once if it leaves out trainable parameters. `learn.opt = None`: it is made again."""
        if self._opt is None:
            self._opt = self._make_opt()
        return self._opt

    @opt.setter
    def opt(self, opt: OptimWrapper | None) -> None:
        if not (opt is None or isinstance(opt, OptimWrapper)):
            raise TypeError(f"learn.opt must be an OptimWrapper, not {type(opt).__name__}: OptimWrapper(opt) makes one")
        if opt is not None and opt.own_groups:
            opt.check_holds(self.model)
            if not self.bn_wd:
                raise ValueError("bn_wd=False is for optimizers that the learner makes: here give normalisation layers "
                                 "and biases a group of their own, with weight_decay=0")
        self._opt_before = self._opt or self._opt_before
        self._opt = opt

    @property
    def has_opt(self) -> bool:
        """Whether an optimizer exists yet."""
        return self._opt is not None

    @property
    def layer_groups(self) -> list[nn.Module]:
        """The parts of the model that can have learning rates of their own, the first one first: `split` makes them."""
        if self._has_own_groups:
            return [nn.Sequential(*(ParameterModule(cast(nn.Parameter, p)) for p in params))
                    for params in self.opt.params()]
        return self._cut or [self.model]

    @layer_groups.setter
    def layer_groups(self, groups: Any) -> None:
        groups = listify(groups)
        if odd := [g for g in groups if not isinstance(g, nn.Module)]:
            raise TypeError(f"layer_groups must be modules, not {short(odd[0])}; learn.split makes them")
        self._cut = groups
        self.opt = None

    def lr_range(self, lr: LearningRate) -> float | list[float]:
        """Learning rates for the layer groups: a number stays one; `slice(a, b)` is spread from `a` for the first group
        to `b` for the last by equal factors; `slice(b)` is `b` for the last group and `b / 10` for all others.

        For an optimizer with parameter groups of its own a number is the learning rate of the last one, and the others
        keep their ratio to it; in a fit that names none they are the optimizer's.

        >>> fake_learner(layer_group_count=3).lr_range(slice(1e-2))
        [0.001, 0.001, 0.01]
        """
        if self._opt is None and self.opt_func is not AdamW:
            self.opt    # noqa: B018  it may have groups of its own
        if not self._has_own_groups:
            return _spread(lr, len(self._cut or [0]))
        if lr is DEFAULT_LR:
            return list(self.opt.given_lr)
        found = _spread(lr, self.opt.n_groups)
        return found if isinstance(found, list) else self.opt.spread(found)

    def split(self, split_on: Any) -> Self:
        """Cut the model into layer groups, each beginning at one of the given modules or parameters (or a function of
        the model that returns them, or a list of lists of layers and parameters). Returns itself.

        TypeError or ValueError, and nothing is changed, if that cannot be done; also in the middle of a fit where
        hyper-parameters differ between the layer groups so far, and for an optimizer that has groups of its own.

        >>> learn = fake_learner(layer_group_count=3)
        >>> len(learn.split([learn.model[-1]]).layer_groups)
        2
        """
        if self._has_own_groups:
            raise ValueError("the optimizer's parameter groups are the layer groups: to cut the model otherwise set "
                             "learn.opt = None first")
        is_part = isinstance(split_on, (nn.Module, nn.Parameter))
        splits = split_on(self.model) if callable(split_on) and not is_part else split_on
        try:
            groups = split_model(self.model, splits)
        except TypeError as e:
            raise TypeError("split_on must give modules of the model or lists of its layers, not "
                            f"{short(splits)}: {e}") from None
        before, self._cut = self._cut, groups
        self.opt = None
        if self.handler is not None:
            try:
                self.opt    # noqa: B018  what the run in progress cannot go on with is an error here
            except ValueError:
                self._cut, self._opt = before, self._opt_before
                raise
        return self

    def freeze_to(self, n: int) -> None:
        """Freeze the layer groups before the `n`-th (but with `train_bn` their normalisation layers), free the rest.

        Also in the middle of a fit, which then goes on with what is trained now. ValueError if there is no such group.

        >>> learn = fake_learner(layer_group_count=3)
        >>> learn.freeze_to(-1)
        >>> [next(g.parameters()).requires_grad for g in learn.layer_groups]
        [False, False, True]
        """
        groups = self.layer_groups
        if n not in range(-len(groups), len(groups)):
            raise ValueError(f"there is no layer group {n!r}: the model has {len(groups)}, see learn.split")
        norms = {p for m in self.model.modules() if isinstance(m, NORM_LAYERS) for p in m.parameters(recurse=False)}
        for i, group in enumerate(groups):
            for p in group.parameters():
                p.requires_grad = i >= n % len(groups) or self.train_bn and p in norms
        if not self._has_own_groups:    # one of the user's only goes by the gradients
            self.opt = None

    def freeze(self) -> None:
        """Train the last layer group only."""
        if len(self.layer_groups) == 1:
            raise ValueError("the model has one layer group, so nothing would be frozen: cut it with learn.split first")
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Train all layer groups."""
        self.freeze_to(0)

    @property
    def _has_own_groups(self) -> bool:
        return self._opt is not None and self._opt.own_groups

    def _make_opt(self) -> OptimWrapper:
        """A new optimizer; in the middle of a run it goes on as the one before did."""
        initialise_lazy(self)
        opt = OptimWrapper.create(self.opt_func, _spread(DEFAULT_LR, len(self._cut or [0])), self._cut or [self.model],
                                  self.wd, self.true_wd, self.bn_wd)
        if opt.own_groups and self._cut:
            raise ValueError("opt_func makes parameter groups of its own, which are the layer groups: the model cannot "
                             "be cut as well")
        if self.handler is not None and self._opt_before is not None:
            opt.take_over(self._opt_before)
        return opt

    def _set_opt(self, lr: Any, wd: WeightDecay | None) -> None:
        """Make the optimizer ready for a run at `lr`: over all that is to be trained, its state as parameters are."""
        if self.data.train_dl.length == 0:
            raise ValueError("there is no training data: this learner is for predictions on new samples only")
        self._opt_before = None
        if self.opt.missing(self.model):
            if self.opt.own_groups:
                self.opt.check_holds(self.model)
            self.opt = None
        if left_out := self.opt.missing(self.model):
            raise ValueError("the layer groups leave out some of the model's parameters: cut it again with "
                             f"learn.split, or freeze {few_of(left_out, 'parameters')}")
        self.opt.align()
        self.opt.lr = lr
        self.opt.wd = wd if wd is not None else self.wd if self.opt.given_wd is None else self.opt.given_wd


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


def weight_decay(wd: Any) -> WeightDecay:
    """`wd` if it is a finite number of at least 0, or a list with one for each layer group, else TypeError or
    ValueError."""
    if isinstance(wd, (list, tuple)):
        return [positive_float("a value of wd", each, or_zero=True) for each in wd]
    return positive_float("wd", wd, or_zero=True)
