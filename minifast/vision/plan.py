"""What becomes of each picture of a batch: drawn for each sample, composed, not yet done."""
from __future__ import annotations

import math
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import did_you_mean, number
from .image import DifferentSizes, Size
from .warp import PADDINGS, Array

__all__ = ["ResizeMethod", "Span", "WholeSpan", "span", "share_span", "whole_span", "padding_name", "Pick", "Plan"]

Span = tuple[float, float]
WholeSpan = tuple[int, int]

GAMMA = 0x9E3779B97F4A7C15      # SplitMix64: 2**64 divided by the golden ratio


def span(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> Span:
    """`value`, a number or a range (low, high), as a range; ValueError or TypeError if it is neither, or does not lie
    between the limits, which it must not touch."""
    pair = tuple(number(name, v) for v in (value if isinstance(value, (tuple, list)) else [value, value]))
    if len(pair) != 2 or not low < pair[0] <= pair[1] < high:
        limits = f" above {low:g}" * (low > -math.inf) + f" below {high:g}" * (high < math.inf)
        raise ValueError(f"{name} must be a number{limits}, or a range (low, high) of them, not {value!r}")
    return pair[0], pair[1]


def share_span(name: str, value: Any) -> Span:
    """`value`, a share from 0 to 1 or a range (low, high) of them, as a range; else ValueError or TypeError."""
    low, high = span(name, value)
    if low < 0 or high > 1:
        raise ValueError(f"{name} must be from 0 to 1, or a range of such shares, not {value!r}")
    return low, high


def whole_span(name: str, value: Any, low: int = 0, high: float = math.inf) -> WholeSpan:
    """`value`, a whole number or a range (low, high) of them, as a range; else ValueError or TypeError."""
    first, last = span(name, value)
    if first % 1 or last % 1 or first < low or last > high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, or a range of them, not {value!r}")
    return int(first), int(last)


def padding_name(mode: Any) -> str:
    """`mode` if it is one of `PADDINGS`, else a ValueError."""
    if mode not in PADDINGS:
        raise ValueError(f"padding_mode must be one of {', '.join(PADDINGS)}, not {mode!r}."
                         + did_you_mean(mode, PADDINGS))
    return str(mode)


class ResizeMethod(Enum):
    """How a picture comes to `size`. CROP: its smaller side is brought there, and what is too much is cut off. PAD: its
    larger side, and what is missing is filled by the padding. SQUISH: both sides. NO: it is not resized.

    >>> ResizeMethod("pad")
    <ResizeMethod.PAD: 'pad'>
    """

    CROP, PAD, SQUISH, NO = "crop", "pad", "squish", "no"

    @classmethod
    def _missing_(cls, value: object) -> None:
        names = [method.value for method in cls]
        raise ValueError(f"there is no resize method {value!r}; there are {', '.join(names)}."
                         + did_you_mean(str(value), names))


class Pick:
    """The values that transforms draw for each sample of a batch: a function of the samples' seeds (n,) alone."""

    def __init__(self, seeds: Array) -> None:
        self.seeds, self.drawn = _mixed(seeds.astype(np.uint64)), 0     # neighbouring seeds differ in every bit now
        self.chosen = np.ones(len(seeds), bool)

    def choose(self, p: float) -> None:
        """Draw for which samples the next transform is chosen, each with probability `p`: `chosen` (n,)."""
        self.chosen = self.share() < p

    def share(self) -> Array:
        """(n,) numbers, uniform in [0, 1): the next of each sample's (SplitMix64, Steele et al. 2014)."""
        self.drawn += 1
        shares: Array = (_mixed(self.seeds + np.uint64(self.drawn * GAMMA % 2**64)) >> np.uint64(11)) / 2.0**53
        return shares

    def __call__(self, span: Span, neutral: float) -> Array:
        """(n,) numbers, uniform in `span`; `neutral` for samples for which the transform is not chosen."""
        low, high = span
        value = low if low == high else low + (high - low) * self.share()
        return np.where(self.chosen, value, neutral)

    def noise(self, rows: slice, size: Size, magnitude: Array) -> Tensor:
        """(k, 2, *size) numbers, uniform in plus or minus `magnitude` (n,): the same whenever they are drawn."""
        noise = [np.random.Generator(np.random.Philox(key=int(seed))).uniform(-1, 1, (2, *size)) * most
                 for seed, most in zip(self.seeds[rows], magnitude[rows], strict=True)]
        return torch.from_numpy(np.stack(noise)).float()

    def whole(self, span: WholeSpan, neutral: int) -> Array:
        """(n,) whole numbers from `span`, both ends included."""
        low, high = span
        return np.where(self.chosen, np.floor(low + (high + 1 - low) * self.share()), neutral).astype(int)


def _mixed(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = z ^ (z >> np.uint64(31))
    return mixed


class Plan:
    """What becomes of each picture of a batch; transforms change it.

    `frame` (n, 2): height and width by now. `matrix` (n, 3, 3): from places in the frame to places in the picture that
    it began as, see `warp`. `target`: the size that all shall have, or None. `light` (2, n): logits of pixels are
    multiplied by the first and then increased by the second. `jitter` (n,): by which share of the picture each pixel
    may be read beside its place. `holes`: boxes (n, 4) that become black: top, bottom, left, right.
    """

    def __init__(self, sizes: Array, target: Size | None, padding: str) -> None:
        self.sizes, self.frame, self.target, self.padding = sizes, sizes.copy(), target, padding
        self.matrix = np.tile(np.eye(3), (len(sizes), 1, 1))
        self.light = np.stack([np.ones(len(sizes)), np.zeros(len(sizes))])
        self.jitter = np.zeros(len(sizes))
        self.holes: list[Array] = []

    def move(self, *rows: Any) -> None:
        """A further map, its six or nine numbers row by row, each one for all samples or (n,)."""
        numbers = np.broadcast_arrays(*rows, *([0.0, 0.0, 1.0] if len(rows) == 6 else []), np.empty(len(self.frame)))
        self.matrix = self.matrix @ np.stack(numbers[:9], -1).reshape(-1, 3, 3)

    def see(self, down: Array, across: Array, row_pct: Array, col_pct: Array) -> None:
        """The frame shows this part of itself only, in its whole size: shares of its height and width, and of the space
        that is left above it and on its left."""
        self.move(across, 0, (1 - across) * (2 * col_pct - 1), 0, down, (1 - down) * (2 * row_pct - 1))

    def window(self, top: Array, left: Array, height: Array | int, width: Array | int) -> None:
        """Only this part of the frame, in its pixels, is seen from now on; the frame is left for the caller to set."""
        h, w = self.frame.T
        self.move(width / w, 0, (2 * left + width) / w - 1, 0, height / h, (2 * top + height) / h - 1)

    def resize(self, method: ResizeMethod) -> None:
        """The frame comes to the target by `method`; what is too much or missing is left for `crop`."""
        if self.target is None or method is ResizeMethod.NO:
            return
        ratio = np.array(self.target) / self.frame
        if method is not ResizeMethod.SQUISH:
            ratio = (ratio.max if method is ResizeMethod.CROP else ratio.min)(1, keepdims=True)
        self.frame = np.maximum(np.rint(self.frame * ratio), 1).astype(int)

    def crop(self, size: Size | None = None, row_pct: Array | float = 0.5, col_pct: Array | float = 0.5) -> None:
        """Cut the frame to the target, or to `size` if there is none, at that share of what there is too much; where
        the frame is smaller it is padded, the same on both sides."""
        if (size := self.target or size) is None:
            return
        spare = self.frame - np.array(size)
        share = np.stack(np.broadcast_arrays(row_pct, col_pct, np.empty(len(spare)))[:2], 1)
        top, left = np.where(spare < 0, -((1 - spare) // 2), np.minimum(np.floor((spare + 1) * share), spare)).T
        self.window(top, left, *size)
        self.frame = np.broadcast_to(np.array(size), self.frame.shape)

    @property
    def size(self) -> Size:
        """The size of the new pictures; DifferentSizes, a ValueError, if they do not have one."""
        sizes = np.unique(self.frame, axis=0)
        if len(sizes) > 1:
            listed = " and ".join(f"{h}x{w}" for h, w in sizes)
            raise DifferentSizes(f"pictures of one batch come to the sizes {listed} (h x w): give size=, or a "
                                 "transform that brings all to one")
        return int(sizes[0, 0]), int(sizes[0, 1])

    @property
    def copied(self) -> Array:
        """(n,): whether a picture's pixels all keep their places."""
        same: Array = np.abs(self.matrix - np.eye(3)).max((1, 2)) < 1e-9
        same &= (self.frame == self.sizes).all(1) & (self.jitter == 0)
        return same
