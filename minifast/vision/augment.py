"""Transforms of pictures, applied to a whole batch on its device with one interpolation for all geometry."""
from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import number
from ..loaders import Batch, Seeded
from ..utils import listify, one_thread, shape_of
from .image import Size, as_size
from .plan import Pick, Plan, ResizeMethod, padding_name
from .warp import strides, warp

__all__ = ["RandTransform", "Augment"]

TURN, PAD, MOVE, CROP, PIXELS = range(5)    # in this order, whatever the order in the list; the resizing follows TURN
PIXELS_AT_ONCE = 2**14  # of one channel, on the CPU: what a step works on then fits in the processor's cache
EPS = 1e-6              # black and white have no logit: this far from them pixels are cut off


class RandTransform:
    """One kind of change, for `ds_tfms`: made by `rotate`, `zoom`, `brightness` and the like.

    In a list its geometry is composed with that of the others (see `Augment`). Called with one picture, a tensor
    (channels, h, w) of bytes, or of floats in [0, 1], it returns another of that kind, drawn by torch's global
    generator. `p`: the probability that a sample is changed.

    >>> rotate((-10, 10), p=0.75)
    rotate(degrees=(-10.0, 10.0), p=0.75)
    >>> rotate(90)(torch.tensor([[[10, 20], [30, 40]]], dtype=torch.uint8))
    tensor([[[20, 40],
             [10, 30]]], dtype=torch.uint8)
    """

    def __init__(self, stage: int, p: float, change: Callable[..., None], /, enlarges: float = 1.0,
                 **values: Any) -> None:
        if not 0 <= number("p", p) <= 1:
            raise ValueError(f"p is a probability, from 0 to 1, not {p}")
        self.stage, self.p, self.enlarges = stage, p, enlarges
        self.change = partial(change, **values)

    def __call__(self, x: Tensor) -> Tensor:
        return Augment([self]).picture(x)

    def plan(self, plan: Plan, pick: Pick) -> None:
        """Make the change in the plan, for the samples for which it is chosen."""
        pick.choose(self.p)
        self.change(plan, pick)

    @property
    def name(self) -> str:
        """Of the function that it was made by."""
        return self.change.func.__name__[1:]

    def __repr__(self) -> str:
        values = {name: v[0] if isinstance(v, tuple) and v[0] == v[1] and name != "size" else v
                  for name, v in [*self.change.keywords.items(), ("p", self.p)]}
        return f"{self.name}({', '.join(f'{name}={v}' for name, v in values.items())})"


class Augment:
    """A batch transform: every picture is changed by `tfms` as drawn for it, with one interpolation for all geometry.

    tfms: what functions like `rotate` make. Turns come first, then the resizing to `size`, padding, the other geometry
        in the order of the list, cropping, and what changes pixels.
    size: height and width of the result (one number: both), also for crops in `tfms`. Default: pictures keep theirs, or
        get that of a crop.
    resize_method: a `ResizeMethod`, or its name.
    padding_mode: what lies beyond a picture's borders: "reflection" of it, "border" (its last pixels) or "zeros".
    masks: whether the targets are masks (n, h, w) or (n, 1, h, w), which are moved as the pictures are; each pixel
        takes the value of the nearest one.

    Called with a batch (x, y): x is pictures (n, channels, h, w), bytes or floats in [0, 1], on any device, or a list
    of pictures (channels, h, w) of various sizes; y is returned unchanged, or moved. The new x is floats in [0, 1].
    What is drawn is a function of each sample's seed if x is `Seeded`, and comes from torch's global generator if not.

    ValueError for an unknown method or mode, and for pictures that do not come to one size.

    >>> augment = Augment([flip_lr(p=1.0), rand_crop()], size=2)
    >>> x, y = augment((torch.rand(1, 3, 4, 5), torch.tensor([7])))
    >>> x.shape, y
    (torch.Size([1, 3, 2, 2]), tensor([7]))
    """

    def __init__(self, tfms: Sequence[RandTransform], size: int | Size | None = None,
                 resize_method: ResizeMethod | str = ResizeMethod.CROP, padding_mode: str = "reflection",
                 masks: bool = False) -> None:
        self.tfms, self.size, self.method = listify(tfms), as_size(size), ResizeMethod(resize_method)
        self.padding, self.masks = padding_name(padding_mode), masks

    def __call__(self, batch: Batch) -> Batch:
        x, y = batch
        pictures, seeds = x if isinstance(x, Seeded) else (x, None)
        plan, pick = self.plan(pictures, seeds)
        moved = self.masks and y[0].ndim > 1    # what is only to be predicted has none
        return _moved(pictures, plan, pick), _moved(y, plan, pick, nearest=True) if moved else y

    def picture(self, x: Tensor) -> Tensor:
        """One picture (channels, h, w), of bytes or of floats in [0, 1], as another of that kind."""
        if not isinstance(x, Tensor) or x.ndim != 3:
            raise TypeError(f"a transform takes one picture, a tensor (channels, height, width), not {shape_of(x)}")
        new = _moved(x[None], *self.plan(x[None]))[0]
        return new.mul_(255).round_().to(x.dtype) if x.dtype == torch.uint8 else new.to(x.dtype)

    def plan(self, pictures: Tensor | Sequence[Tensor], seeds: Any = None) -> tuple[Plan, Pick]:
        """What is drawn for each of these pictures; `seeds` (n,), whole numbers, one for each."""
        pick = Pick(np.asarray(torch.randint(2**62, (len(pictures),)) if seeds is None else seeds))
        plan = Plan(np.array([picture.shape[-2:] for picture in pictures]), self.size, self.padding)
        for stage in range(PIXELS + 1):
            for tfm in self.tfms:
                if tfm.stage == stage:
                    tfm.plan(plan, pick)
            if stage == TURN:
                plan.resize(self.method)
            if stage == CROP and self.method is not ResizeMethod.NO:
                plan.crop()
        return plan, pick

    def shrink(self, h: int, w: int) -> int:
        """By which whole number both sides of a picture may be divided when it is decoded: no pixel is then made of
        less than one, also where `tfms` enlarge it."""
        if self.size is None or self.method is ResizeMethod.NO:
            return 1
        ratio = h / self.size[0], w / self.size[1]
        apart = max(ratio) if self.method is ResizeMethod.PAD else min(ratio)
        return max(1, int(apart / math.prod(tfm.enlarges for tfm in self.tfms)))


def _moved(pictures: Tensor | Sequence[Tensor], plan: Plan, pick: Pick, nearest: bool = False) -> Tensor:
    """The pictures as planned, floats in [0, 1]; with `nearest` masks, with values that they have already."""
    n, first = len(pictures), pictures[0]
    if first.ndim == 2:
        planes = pictures[:, None] if isinstance(pictures, Tensor) else [mask[None] for mask in pictures]
        return _moved(planes, plan, pick, nearest)[:, 0]
    size, device, on_cpu = plan.size, first.device, first.device.type == "cpu"
    channels = max(len(picture) for picture in pictures)
    at_once = n if isinstance(pictures, Tensor) else 1
    if on_cpu:
        at_once = min(at_once, max(1, PIXELS_AT_ONCE // math.prod(size)))
    out = torch.empty(n, channels, *size, dtype=first.dtype if nearest else torch.float32, device=device)
    matrix = torch.tensor(plan.matrix, dtype=torch.float32, device=device)
    light = torch.tensor(plan.light, dtype=torch.float32, device=device).view(2, n, 1, 1, 1)
    fewer = strides(plan.matrix, plan.sizes, size)
    lit = (plan.light != [[1], [0]]).any(0)
    copied = plan.copied
    scale = 255 if first.dtype == torch.uint8 and not nearest else 1
    with one_thread() if on_cpu else contextlib.nullcontext():
        for start in range(0, n, at_once):
            rows = slice(start, start + at_once)
            x = (pictures[rows] if isinstance(pictures, Tensor) else pictures[start][None]).float()
            if not copied[rows].all():
                noise = pick.noise(rows, size, plan.jitter).to(device) if plan.jitter[rows].any() else None
                x = x if nearest else _averaged(x, *fewer[rows].min(0).astype(int))
                x = warp(x, matrix[rows], size, plan.padding, nearest, noise)
            new = out[rows]     # written to in place: memory that is new costs as much as the work on it
            torch.div(x.expand_as(new), scale, out=new) if scale > 1 else new.copy_(x)
            if lit[rows].any() and not nearest:
                torch.addcmul(light[1, rows], new.logit_(EPS), light[0, rows], out=new).sigmoid_()
    return out if nearest else _with_holes(out, plan)


def _averaged(x: Tensor, down: int, across: int) -> Tensor:
    """Pictures smaller by whole numbers, each pixel the mean of those that it covers: what is only interpolated where
    neighbours lie several pixels apart shows patterns that are not there."""
    if max(down, across) < 2:
        return x
    h, w = x.shape[2:]
    return F.interpolate(x, (max(1, round(h / max(1, down))), max(1, round(w / max(1, across)))), mode="area")


def _with_holes(x: Tensor, plan: Plan) -> Tensor:
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape[2:])
    for hole in plan.holes:
        top, bottom, left, right = torch.from_numpy(hole).to(x.device).T[:, :, None]
        down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        x = x.masked_fill(down[:, None, :, None] & across[:, None, None], 0)
    return x
