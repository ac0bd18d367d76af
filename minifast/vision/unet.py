"""A U-Net over a known network: a class, or a quantity, for each pixel."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import DataBunch
from ..hooks import hook_outputs
from ..layers import conv_layer
from ..learner import Learner
from .backbones import backbone, features_of
from .transfer import learner_of, outputs_of

__all__ = ["DynamicUnet", "unet_learner"]

NARROWEST = 32      # channels of a step of the way up


class UnetBlock(nn.Module):
    """A step of the way up: features are brought to the size of those from the way down, and joined with them.

    up, across: channels of the features from below, and of those from the way down.
    out: channels of the result.

    The size is changed by repeating pixels, and convolutions follow: no checkerboards (Odena et al. 2016).

    >>> UnetBlock(8, 4, 6)(torch.zeros(2, 8, 3, 3), torch.zeros(2, 4, 5, 5)).shape
    torch.Size([2, 6, 5, 5])
    """

    def __init__(self, up: int, across: int, out: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(across)
        self.convs = nn.Sequential(conv_layer(up + across, out), conv_layer(out, out))

    def forward(self, x: Tensor, across: Tensor) -> Tensor:
        x = F.interpolate(x, across.shape[-2:])
        out: Tensor = self.convs(torch.cat([x, self.norm(across)], 1))
        return out


class DynamicUnet(nn.Module):
    """A U-Net whose way down is a network without its last layers (Ronneberger et al. 2015).

    body: pictures (n, 3, h, w) to features (n, channels, h', w'); it is cut at each step that makes the map smaller.
    n_out: channels of the result.
    size: height and width of the pictures that it is tried with; None: the first of some that it takes.

    (n, 3, h, w) to (n, n_out, h, w). ValueError for a body that does not make its map smaller in steps.

    >>> unet = DynamicUnet(create_body(models.resnet18, pretrained=False), 4)
    >>> unet(torch.zeros(2, 3, 64, 64)).shape, len(unet.down)
    (torch.Size([2, 4, 64, 64]), 5)
    """

    def __init__(self, body: nn.Module, n_out: int, size: Sequence[int] | None = None) -> None:
        super().__init__()
        steps = _steps(body)
        while steps and isinstance(steps[-1], (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            steps.pop()
        shapes = _shapes(steps, size)
        cuts = [i for i in range(len(steps)) if shapes[i + 1][1:] < shapes[i][1:]]
        if len(cuts) < 2:
            raise ValueError("a U-Net needs a network that makes its map of features smaller in several steps; the "
                             f"maps of this one have the shapes {', '.join(map(str, shapes))}")
        starts = sorted({0, *cuts})
        self.down = nn.ModuleList(nn.Sequential(*steps[a:b]) for a, b in pairwise([*starts, len(steps)]))
        width = shapes[-1][0]
        convs = [conv_layer(width, width) for _ in range(2)]
        self.middle = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), *convs)
        blocks = []
        for start in reversed(starts):
            out = max(width // 2, NARROWEST)
            blocks.append(UnetBlock(width, shapes[start][0], out))
            width = out
        self.up = nn.ModuleList(blocks)
        self.head = nn.Conv2d(width, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = []
        for down in self.down:
            across.append(x)
            x = down(x)
        x = self.middle(x)
        for up in self.up:
            x = up(x, across.pop())
        out: Tensor = self.head(x)
        return out


def _steps(body: nn.Module) -> list[nn.Module]:
    """The modules that a body applies one after the other."""
    return [step for part in body for step in _steps(part)] if type(body) is nn.Sequential else [body]


def _shapes(steps: Sequence[nn.Module], size: Sequence[int] | None) -> list[tuple[int, ...]]:
    """(channels, height, width) of a picture, and of what each step makes of it."""
    picture = nn.Identity()
    with hook_outputs([picture, *steps]) as hooks:      # at the end they keep the outputs of the try that succeeded
        features_of(nn.Sequential(picture, *steps), size)
    first, *made = [tuple(output.shape[1:]) for output in hooks.stored]
    _, h, w = first
    # rounded, a map has the proportions of the picture: one with its channels last has not
    if any(len(shape) != 3 or abs(shape[1] * w - shape[2] * h) > 2 * max(h, w) for shape in made):
        raise ValueError("a U-Net needs maps (n, channels, h, w) after each step, and the steps of this network make "
                         f"{', '.join(map(str, made[:4]))}{', ...' * (len(made) > 4)}")
    return [first, *made]


def unet_learner(data: DataBunch, arch: Any, pretrained: Any = True, split_on: Any = None, cut: Any = None,
                 **learn_kwargs: Any) -> Learner:
    """A learner for masks whose model is a U-Net over a known network; a trained network is frozen.

    data: pictures with masks, see `SegmentationItemList`; normalised as for `cnn_learner`.
    arch, pretrained, cut: the network of the way down, see `create_body`.
    split_on: where layer groups begin; None: as for `cnn_learner`, the middle and the way up are the last group.
    learn_kwargs: of `Learner`.

    ValueError for a network without maps of features, such as a vision transformer.

    >>> from PIL import Image
    >>> for i in range(4):
    ...     Image.new("RGB", (64, 64)).save(f"{i}.jpg")
    ...     Image.new("L", (64, 64), i % 2).save(f"{i}_mask.png")
    >>> data = (SegmentationItemList.from_folder(".", extensions=".jpg").split_by_idx([3])
    ...         .label_from_func(lambda file: f"{file.stem}_mask.png", classes=["road", "sky"])
    ...         .databunch(bs=2, device="cpu"))
    >>> learn = unet_learner(data, models.resnet18, pretrained=False, silent=True)
    >>> learn.fit(1)
    >>> learn.predict("0.jpg")[0].shape
    torch.Size([64, 64])
    """
    found = backbone(arch, pretrained, cut)
    model = DynamicUnet(found.body, outputs_of(data), getattr(data, "size", None))
    return learner_of(data, model, found, pretrained, split_on, [model.middle], learn_kwargs)
