"""fastai v1's small helpers for a model and its parts."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .checks import check_callable
from .torch_private import BATCH_NORMS, NORM_LAYERS

__all__ = ["children", "requires_grad", "trainable_params", "apply_init", "in_channels", "set_bn_eval"]


def children(m: nn.Module) -> list[nn.Module]:
    """The layers directly in a module.

    >>> len(children(nn.Sequential(nn.ReLU(), nn.ReLU())))
    2
    """
    return list(m.children())


def requires_grad(m: nn.Module, b: bool | None = None) -> bool | None:
    """Set whether a module's parameters are trained; without `b` whether the first one is, None if there is none.

    >>> layer = nn.Linear(2, 1)
    >>> requires_grad(layer, False)
    >>> requires_grad(layer)
    False
    """
    if b is None:
        return next((p.requires_grad for p in m.parameters()), None)
    for p in m.parameters():
        p.requires_grad = b
    return None


def trainable_params(m: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained.

    >>> len(trainable_params(nn.Linear(2, 1)))
    2
    """
    return [p for p in m.parameters() if p.requires_grad]


def apply_init(m: nn.Module, init_func: Callable[[Tensor], Any]) -> None:
    """Apply `init_func` to the weights of all layers but normalisation, and set their biases to 0.

    >>> layer = nn.Linear(2, 1)
    >>> apply_init(layer, nn.init.ones_)
    >>> layer.weight.tolist(), layer.bias.tolist()
    ([[1.0, 1.0]], [0.0])
    """
    check_callable("init", init_func)
    for layer in m.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(weight, Tensor) and weight.ndim > 1 and not isinstance(layer, NORM_LAYERS):
            init_func(weight)
            if isinstance(bias, Tensor):
                nn.init.zeros_(bias)


def in_channels(m: nn.Module) -> int:
    """How many channels the first layer with a weight matrix takes; ValueError if there is none.

    >>> in_channels(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3)))
    3
    """
    for layer in m.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            return int(weight.shape[1])
    raise ValueError(f"no layer of this {type(m).__name__} has a weight matrix")


def set_bn_eval(m: nn.Module) -> None:
    """Put the batch norm layers whose parameters are frozen into eval mode; `BnFreeze` does so in each epoch.

    >>> net = nn.Sequential(nn.BatchNorm1d(2))
    >>> requires_grad(net, False); set_bn_eval(net)
    >>> net[0].training
    False
    """
    for layer in m.modules():
        if isinstance(layer, BATCH_NORMS) and not any(p.requires_grad for p in layer.parameters()):
            layer.eval()
