"""Transfer learning: a trained network with a new head, and a learner for it."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..blocks import bn_drop_lin
from ..checks import number, positive_int
from ..data import DataBunch
from ..layers import AdaptiveConcatPool2d, Flatten
from ..learner import Learner
from ..torch_core import apply_init
from ..utils import listify
from .backbones import Backbone, backbone, features_of
from .data import ImageDataBunch
from .labels import FloatList

__all__ = ["cnn_learner", "create_cnn", "create_cnn_model", "create_head"]

Init = Callable[[Tensor], Any]


def create_head(nf: int, nc: int, lin_ftrs: Sequence[int] | None = None, ps: float | Sequence[float] = 0.5,
                concat_pool: bool = True, bn_final: bool = False) -> nn.Sequential:
    """The last layers of a network: features (n, channels, h, w) to outputs (n, nc).

    nf: features after pooling: with `concat_pool` twice the channels.
    nc: outputs.
    lin_ftrs: the widths of the linear layers between; None: one of 512.
    ps: dropout before each linear layer; one number: half of it before all but the last, which has the whole.
    concat_pool: pool by `AdaptiveConcatPool2d`, the maximum and the mean; else the mean alone.
    bn_final: batch norm behind all, with momentum 0.01.

    Each linear layer comes after batch norm and dropout, and all but the last are followed by a ReLU.

    >>> create_head(1024, 10)(torch.ones(2, 512, 3, 3)).shape
    torch.Size([2, 10])
    """
    widths = [positive_int(name, n) for name, n in
              (("nf", nf), *(("lin_ftrs", n) for n in ([512] if lin_ftrs is None else lin_ftrs)), ("nc", nc))]
    drops = [number("ps", p) for p in listify(ps)]
    if len(drops) == 1:
        drops = [drops[0] / 2] * (len(widths) - 2) + drops
    if len(drops) != len(widths) - 1 or not all(0 <= p < 1 for p in drops):
        raise ValueError(f"ps={ps} must be one number from 0 to below 1, or one for each of the {len(widths) - 1} "
                         "linear layers")
    layers: list[nn.Module] = [AdaptiveConcatPool2d() if concat_pool else nn.AdaptiveAvgPool2d(1), Flatten()]
    for i, p in enumerate(drops):
        layers += bn_drop_lin(widths[i], widths[i + 1], True, p, nn.ReLU(True) if i < len(drops) - 1 else None)
    return nn.Sequential(*layers, *([nn.BatchNorm1d(nc, momentum=0.01)] if bn_final else []))


def create_cnn_model(base_arch: Any, nc: int, cut: Any = None, pretrained: Any = True,
                     lin_ftrs: Sequence[int] | None = None, ps: float | Sequence[float] = 0.5,
                     custom_head: nn.Module | None = None, bn_final: bool = False,
                     concat_pool: bool = True) -> nn.Sequential:
    """`Sequential(body, head)`: the network `base_arch` without its last layers, and a new head for `nc` outputs.

    base_arch, cut, pretrained: see `create_body`. The other arguments: see `cnn_learner`.

    >>> create_cnn_model(models.resnet18, 3, pretrained=False)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 3])
    """
    return _with_head(backbone(base_arch, pretrained, cut), nc, lin_ftrs, ps, custom_head, bn_final, concat_pool)


def _with_head(found: Backbone, nc: int, lin_ftrs: Any, ps: Any, custom_head: Any, bn_final: bool,
               concat_pool: bool) -> nn.Sequential:
    head = custom_head
    if head is None:
        channels = features_of(found.body).shape[1]
        concat_pool = concat_pool and not found.pooled      # of one place the maximum is the mean
        head = create_head(channels * (1 + concat_pool), nc, lin_ftrs, ps, concat_pool, bn_final)
    return nn.Sequential(found.body, head)


def cnn_learner(data: DataBunch, base_arch: Any, cut: Any = None, pretrained: Any = True,
                lin_ftrs: Sequence[int] | None = None, ps: float | Sequence[float] = 0.5,
                custom_head: nn.Module | None = None, split_on: Any = None, bn_final: bool = False,
                init: Init | None = nn.init.kaiming_normal_, concat_pool: bool = True,
                **learn_kwargs: Any) -> Learner:
    """A learner for pictures whose model is a known network with a new head; a trained body is frozen.

    data: pictures, with `classes` or quantities. If it is not normalised, it is normalised as the pictures were from
        which the weights were learned; a warning says so if it is normalised otherwise.
    base_arch: a function of torchvision such as `models.resnet34`, or a model, see `create_body`.
    cut: where its last layers begin; None: as is known of its family.
    pretrained: whether the body has been trained: True, the name of weights, or False. Then only the head is trained,
        until `learn.unfreeze()`.
    lin_ftrs, ps, bn_final, concat_pool: of the head, see `create_head`.
    custom_head: in place of the head.
    split_on: where layer groups begin, see `Learner.split`; None: as is known of the family (a ResNet's first half, its
        second half, the head); of others the body and the head.
    init: applied to the weights of the head's layers, batch norm apart; their biases are 0. None: torch's own.
    learn_kwargs: of `Learner`.

    ConnectionError that says where to put the file if weights cannot be downloaded; ValueError for pictures of a size
    that the network does not take.

    >>> from minifast.fakes import fake_pictures
    >>> learn = cnn_learner(fake_pictures(), models.resnet18, pretrained=False, metrics=accuracy, silent=True)
    >>> len(learn.layer_groups), learn.lr_range(slice(1e-5, 1e-3))
    (3, [1e-05, 0.0001, 0.001])
    """
    n_outputs = outputs_of(data)
    found = backbone(base_arch, pretrained, cut)
    model = _with_head(found, n_outputs, lin_ftrs, ps, custom_head, bn_final, concat_pool)
    if init is not None:
        apply_init(model[1], init)
    return learner_of(data, model, found, pretrained, split_on, [model[1]], learn_kwargs)


create_cnn = cnn_learner    # its first name in fastai v1


def learner_of(data: DataBunch, model: nn.Module, found: Backbone, pretrained: Any, split_on: Any,
               last: Sequence[nn.Module], learn_kwargs: dict[str, Any]) -> Learner:
    """A learner of a model that begins with a known network; `last`: the first module of its last layer group."""
    size = getattr(data, "size", None)
    if size is not None:
        features_of(found.body, size)   # an error that names the size, before anything is changed
    learn = Learner(data, model, **learn_kwargs)
    learn.split([*found.groups, *last] if split_on is None else split_on)
    if pretrained:
        if found.stats is not None and isinstance(data, ImageDataBunch):
            _normalised(data, found.stats)
        learn.freeze()
    return learn


def _normalised(data: ImageDataBunch, stats: tuple[Sequence[float], Sequence[float]]) -> None:
    """Normalise the data as the weights' pictures were, or warn where it is normalised in another way."""
    if data.norm is None:
        data.normalize(stats)
        return
    own = [part.flatten().tolist() for part in (data.norm.mean, data.norm.std)]
    if not np.allclose(own, stats, atol=5e-3):
        given = "), (".join(", ".join(f"{x:.3g}" for x in part) for part in own)
        warnings.warn(f"the weights have seen pictures that were normalised by {stats}, and this data is normalised by "
                      f"(({given})): make the data without normalize(), and it is done here, or with those numbers")


def outputs_of(data: DataBunch) -> int:
    """How many outputs a model of this data has: one for each class or quantity."""
    if data.classes is not None:
        return len(data.classes)
    labels = getattr(data, "labels", None)
    if isinstance(labels, FloatList):
        return int(torch.numel(labels.blank(1)))
    raise ValueError("it is not known how many outputs the model needs: the data has neither classes nor quantities. "
                     "Give the data classes=, or make a Learner with create_cnn_model(arch, nc)")
