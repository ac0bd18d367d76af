"""fastai v1's transforms of pictures: its usual set, and those that crop, pad and change pixels."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import number, positive_int
from ..utils import listify
from .augment import CROP, PAD, PIXELS, RandTransform
from .geometry import Number, dihedral, flip_lr, rand_zoom, rotate, symmetric_warp, zoom
from .image import Size, as_size
from .plan import Pick, Plan, Span, WholeSpan, padding_name, share_span, span, whole_span

__all__ = ["get_transforms", "crop", "crop_pad", "rand_crop", "zoom_crop", "rand_resize_crop", "pad", "rand_pad",
           "brightness", "contrast", "cutout"]

TRIES = 10  # of windows, until one fits


def get_transforms(do_flip: bool = True, flip_vert: bool = False, max_rotate: float = 10.0, max_zoom: float = 1.1,
                   max_lighting: float = 0.2, max_warp: float = 0.2, p_affine: float = 0.75, p_lighting: float = 0.75,
                   xtra_tfms: Any = None) -> tuple[list[Callable[..., Any]], list[Callable[..., Any]]]:
    """Transforms for `ds_tfms`, (for training, for validation): fastai v1's set.

    For training, each drawn for each picture:

    do_flip: mirrored with probability 1/2; with `flip_vert` instead one of eight ways, see `dihedral`.
    max_warp: seen from another side, each edge longer or shorter by up to this share, with probability `p_affine`.
    max_rotate: turned by up to so many degrees, with probability `p_affine`.
    max_zoom: enlarged by up to this factor about a point drawn at random, with probability `p_affine`.
    max_lighting: brightness changed by up to this share of the middle grey, and contrast by up to the factor 1 /
        (1 - max_lighting), each with probability `p_lighting`.
    xtra_tfms: further transforms.

    0 (for `max_zoom` 1) leaves one out. Where the data has a `size`, pictures are resized and cropped to it, at random
    places for training and in the middle for validation.

    >>> train, valid = get_transforms(max_rotate=20)
    >>> train[3], valid
    (rotate(degrees=(-20.0, 20.0), p=0.75), [crop_pad(size=None, row_pct=0.5, col_pct=0.5, p=1.0)])
    """
    tfms: list[Callable[..., Any]] = [rand_crop()]
    if do_flip:
        tfms.append(dihedral() if flip_vert else flip_lr())
    if max_warp:
        tfms.append(symmetric_warp((-max_warp, max_warp), p_affine))
    if max_rotate:
        tfms.append(rotate((-max_rotate, max_rotate), p_affine))
    if number("max_zoom", max_zoom) > 1:
        tfms.append(rand_zoom((1.0, max_zoom), p_affine))
    if max_lighting:
        span("max_lighting", max_lighting, 0, 1)
        tfms.append(brightness((0.5 * (1 - max_lighting), 0.5 * (1 + max_lighting)), p_lighting))
        tfms.append(contrast((1 - max_lighting, 1 / (1 - max_lighting)), p_lighting))
    return tfms + listify(xtra_tfms), [crop_pad()]


def crop(size: int | Size, row_pct: Number = 0.5, col_pct: Number = 0.5, p: float = 1.0) -> RandTransform:
    """Cut out a part; a picture that is smaller is padded, the same on both sides.

    size: height and width of the part (one number: both); the data's `size`, where there is one, comes first.
    row_pct, col_pct: where the part lies, 0 at the upper or left edge, 1 at the lower or right one; numbers, or ranges
        to draw them from.
    p: the probability with which the place is drawn; it is the middle otherwise.

    >>> crop((1, 2), row_pct=1, col_pct=0)(torch.tensor([[[1, 2, 3], [4, 5, 6]]], dtype=torch.uint8))
    tensor([[[4, 5]]], dtype=torch.uint8)
    """
    return crop_pad(size, row_pct, col_pct, p)


def crop_pad(size: int | Size | None = None, row_pct: Number = 0.5, col_pct: Number = 0.5,
             p: float = 1.0) -> RandTransform:
    """`crop` to the data's `size`, or to this one where the data has none; without either, pictures are left unchanged.

    >>> crop_pad()(torch.tensor([[[1, 2, 3]]], dtype=torch.uint8))
    tensor([[[1, 2, 3]]], dtype=torch.uint8)
    """
    return RandTransform(CROP, p, _crop_pad, size=as_size(size), row_pct=share_span("row_pct", row_pct),
                         col_pct=share_span("col_pct", col_pct))


def _crop_pad(plan: Plan, pick: Pick, size: Size | None, row_pct: Span, col_pct: Span) -> None:
    plan.crop(size, pick(row_pct, 0.5), pick(col_pct, 0.5))


def rand_crop(size: int | Size | None = None, p: float = 1.0) -> RandTransform:
    """`crop_pad` at a place that is drawn at random.

    >>> rand_crop(2)(torch.zeros(3, 5, 6)).shape
    torch.Size([3, 2, 2])
    """
    return crop_pad(size, (0, 1), (0, 1), p)


def zoom_crop(scale: Number, do_rand: bool = False, p: float = 1.0) -> list[RandTransform]:
    """`zoom` by `scale`, with probability `p`, and `crop_pad`: in the middle, or with `do_rand` at random places.

    >>> zoom_crop((1.0, 1.5), do_rand=True)[0]
    zoom(scale=(1.0, 1.5), row_pct=(0.0, 1.0), col_pct=(0.0, 1.0), p=1.0)
    """
    return [rand_zoom(scale, p), rand_crop()] if do_rand else [zoom(scale, p=p), crop_pad()]


def rand_resize_crop(size: int | Size | None = None, max_scale: float = 2.0,
                     ratios: tuple[float, float] = (0.75, 4 / 3), scale: tuple[float, float] | None = None,
                     p: float = 1.0) -> list[RandTransform]:
    """A part of random size, shape and place is brought to `size`.

    size: height and width of the result (one number: both); the data's `size`, where there is one, comes first.
    max_scale: the part is enlarged by a factor from 1 to this, uniform: its area is 1 / factor**2 of the picture's.
    ratios: range of the part's width over its height, by that of the result; uniform in its logarithm.
    scale: range of the area, uniform, instead of `max_scale`; (0.08, 1) is usual for ImageNet (Szegedy et al. 2015).
    p: the probability with which a part is drawn; it is the largest one in the middle otherwise.

    >>> [tfm] = rand_resize_crop(4, scale=(0.08, 1.0))
    >>> tfm(torch.zeros(3, 9, 12)).shape
    torch.Size([3, 4, 4])
    """
    areas = None if scale is None else share_span("scale", scale)
    factors = span("max_scale", (1.0, max_scale), 0)
    return [RandTransform(CROP, p, _rand_resize_crop, enlarges=factors[1] if areas is None else areas[0]**-0.5,
                          size=as_size(size), factors=factors, ratios=span("ratios", ratios, 0), areas=areas)]


def _rand_resize_crop(plan: Plan, pick: Pick, size: Size | None, factors: Span, ratios: Span,
                      areas: Span | None) -> None:
    h, w = plan.frame.T.astype(float)
    if (size := plan.target or size) is None:
        raise ValueError("rand_resize_crop needs a size: its own, or that of the data")
    shape = size[1] / size[0]
    height, width = np.minimum(h, w / shape), np.minimum(h * shape, w)     # the largest of that shape
    fits = ~pick.chosen
    for _ in range(TRIES):
        area = h * w * (pick(areas, 1) if areas else pick(factors, 1)**-2)
        ratio = shape * np.exp(pick((math.log(ratios[0]), math.log(ratios[1])), 0))
        new = ~fits & (np.sqrt(area / ratio) <= h) & (np.sqrt(area * ratio) <= w)
        height, width = np.where(new, np.sqrt(area / ratio), height), np.where(new, np.sqrt(area * ratio), width)
        fits |= new
    drawn = fits & pick.chosen
    top, left = ((side - part) * np.where(drawn, pick((0, 1), 0.5), 0.5) for side, part in ((h, height), (w, width)))
    plan.window(top, left, height, width)
    plan.frame = np.broadcast_to(np.array(size), plan.frame.shape)


def pad(padding: int, mode: str = "reflection", p: float = 1.0) -> RandTransform:
    """Add `padding` pixels on each side, before all other geometry but turns and the resizing.

    mode: what they are filled by, and what then lies beyond the borders of the picture: "reflection", "border" or
        "zeros".
    p: the probability that a picture is padded; where it is not, the size is another.

    >>> pad(1, "border")(torch.tensor([[[7, 9]]], dtype=torch.uint8))
    tensor([[[7, 7, 9, 9],
             [7, 7, 9, 9],
             [7, 7, 9, 9]]], dtype=torch.uint8)
    """
    return RandTransform(PAD, p, _pad, padding=positive_int("padding", padding, or_zero=True), mode=padding_name(mode))


def _pad(plan: Plan, pick: Pick, padding: int, mode: str) -> None:
    by = np.where(pick.chosen, padding, 0)
    h, w = plan.frame.T
    plan.window(-by, -by, h + 2 * by, w + 2 * by)
    plan.frame, plan.padding = plan.frame + 2 * by[:, None], mode


def rand_pad(padding: int, size: int | Size, mode: str = "reflection") -> list[RandTransform]:
    """`pad` by `padding` pixels on each side, then `rand_crop` to `size`.

    >>> rand_pad(4, 32)[1]
    crop_pad(size=(32, 32), row_pct=(0.0, 1.0), col_pct=(0.0, 1.0), p=1.0)
    """
    return [pad(padding, mode), rand_crop(size)]


def brightness(change: Number = 0.5, p: float = 1.0) -> RandTransform:
    """Brighter or darker: the logit of `change` is added to the logit of every pixel.

    change: between 0 (black) and 1 (white); 0.5 changes nothing. A number, or the range to draw it from.
    p: the probability that a picture is changed.

    >>> brightness(0.75)(torch.tensor([[[0.5, 0.25, 1.0]]])).round(decimals=3)
    tensor([[[0.7500, 0.5000, 1.0000]]])
    """
    return RandTransform(PIXELS, p, _brightness, change=span("change", change, 0, 1))


def _brightness(plan: Plan, pick: Pick, change: Span) -> None:
    share = pick(change, 0.5)
    plan.light[1] += np.log(share / (1 - share))


def contrast(scale: Number = 1.0, p: float = 1.0) -> RandTransform:
    """More or less contrast: the logit of every pixel is multiplied by `scale`.

    scale: above 0; 1 changes nothing. A number, or the range to draw it from, uniform in its logarithm.
    p: the probability that a picture is changed.

    >>> contrast(2.0)(torch.tensor([[[0.5, 0.25, 1.0]]])).round(decimals=3)
    tensor([[[0.5000, 0.1000, 1.0000]]])
    """
    return RandTransform(PIXELS, p, _contrast, scale=span("scale", scale, 0))


def _contrast(plan: Plan, pick: Pick, scale: Span) -> None:
    plan.light *= np.exp(pick((math.log(scale[0]), math.log(scale[1])), 0))


def cutout(n_holes: int | tuple[int, int] = 1, length: int | tuple[int, int] = 40, p: float = 1.0) -> RandTransform:
    """Square holes, black, at random places; those near an edge are cut off by it (DeVries and Taylor 2017).

    n_holes: how many; a number, or the range to draw it from.
    length: their sides in pixels, drawn for each.
    p: the probability that a picture is changed.

    >>> int((cutout(length=2)(torch.ones(3, 8, 8)) == 0).sum()) in (3, 6, 12)
    True
    """
    return RandTransform(PIXELS, p, _cutout, n_holes=whole_span("n_holes", n_holes),
                         length=whole_span("length", length))


def _cutout(plan: Plan, pick: Pick, n_holes: WholeSpan, length: WholeSpan) -> None:
    number_of, (h, w) = pick.whole(n_holes, 0), plan.frame.T
    for i in range(n_holes[1]):
        side = np.where(i < number_of, pick.whole(length, 0), 0)
        top, left = (np.floor(n * pick.share()).astype(int) - side // 2 for n in (h, w))
        plan.holes.append(np.stack([top, top + side, left, left + side], 1))
