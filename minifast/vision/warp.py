"""Pictures seen through maps of the plane: one interpolation for all that is composed into the map.

Positions are shares of a picture: -1 is its left or upper edge, 1 its right or lower one. A map is a 3x3 matrix that
takes (x, y, 1) in the new picture to the place in the old one where its colour is read (divided by the third number).
"""
from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PADDINGS", "CORNERS", "homography", "strides", "warp", "centres"]

Array = np.ndarray[Any, Any]

PADDINGS = ("reflection", "zeros", "border")
CORNERS = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])      # (x, y): left two, right two
HORIZON = 0.05      # what is seen from a side is cut off where a pixel would be this many times further away (1/20)


def homography(quads: Array) -> Array:
    """The maps (n, 3, 3) that move the `CORNERS` of each picture to `quads` (n, 4, 2)."""
    # the place p in the new picture reads the old one's corner c: (m0 p + m1) / (m2 p + 1) = c, two rows a corner
    n = len(quads)
    x, y = quads[..., 0], quads[..., 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    cx, cy = np.broadcast_to(CORNERS[:, 0], (n, 4)), np.broadcast_to(CORNERS[:, 1], (n, 4))
    a = np.concatenate([np.stack([x, y, one, zero, zero, zero, -cx * x, -cx * y], -1),
                        np.stack([zero, zero, zero, x, y, one, -cy * x, -cy * y], -1)], 1)
    b = np.concatenate([cx, cy], 1)[..., None]
    return np.concatenate([np.linalg.solve(a, b)[..., 0], np.ones((n, 1))], 1).reshape(n, 3, 3)


def strides(matrix: Array, old: Array, size: tuple[int, int]) -> Array:
    """How many pixels of pictures of the sizes `old` (n, 2) lie between neighbours in the new ones, all of `size`: (n,
    2), downward and across, in the middle of the picture."""
    per_share = np.abs(matrix[:, 1::-1, 1::-1] / matrix[:, 2:, 2:])     # y before x, as in sizes
    apart: Array = (per_share * old[:, :, None] / np.array(size)).max(2)
    return apart


def warp(x: Tensor, matrix: Tensor, size: tuple[int, int], padding: str = "reflection", nearest: bool = False,
         noise: Tensor | None = None) -> Tensor:
    """Pictures `x` (n, channels, h, w), floats, through the maps `matrix` (n, 3, 3): (n, channels, *size).

    Bilinear, or the nearest pixel. `padding`: what lies beyond the borders, one of `PADDINGS`; "reflection" is scipy's
    mode "reflect", d c b a | a b c d | d c b a. `noise` (n, 2, *size): added to the places (x, y) that are read.
    """
    rows, columns = (centres(n, x.device) for n in size)
    m = matrix[:, :, :, None, None]
    # one fused multiplication for all three numbers; a matrix product would lose digits where TF32 is switched on
    places = torch.addcmul(m[:, :, 1] * rows[:, None] + m[:, :, 2], m[:, :, 0], columns)
    places = places[:, :2] / places[:, 2:].clamp_min_(HORIZON)
    if noise is not None:
        places += noise
    return F.grid_sample(x, places.permute(0, 2, 3, 1), "nearest" if nearest else "bilinear", padding,
                         align_corners=False)


@functools.lru_cache(maxsize=16)
def centres(n: int, device: torch.device) -> Tensor:
    """The places of `n` pixels in a row, from -1 to 1."""
    return torch.arange(1, 2 * n, 2, device=device) / n - 1
