"""Transforms that move pixels: all of a list's are composed into one map. Numbers may be ranges to draw from."""
from __future__ import annotations

import numpy as np

from .augment import MOVE, TURN, RandTransform
from .plan import Pick, Plan, Span, WholeSpan, share_span, span, whole_span
from .warp import CORNERS, Array, homography

__all__ = ["flip_lr", "dihedral", "rotate", "zoom", "rand_zoom", "squish", "symmetric_warp", "perspective_warp", "skew",
           "tilt", "jitter"]

Number = float | tuple[float, float]


def flip_lr(p: float = 0.5) -> RandTransform:
    """Mirror, with probability `p`.

    >>> flip_lr(p=1.0)(torch.tensor([[[1, 2, 3]]], dtype=torch.uint8))
    tensor([[[3, 2, 1]]], dtype=torch.uint8)
    """
    return RandTransform(TURN, p, _flip_lr)


def _flip_lr(plan: Plan, pick: Pick) -> None:
    plan.move(np.where(pick.chosen, -1.0, 1.0), 0, 0, 0, 1, 0)


def dihedral(k: int | tuple[int, int] = (0, 7), p: float = 1.0) -> RandTransform:
    """One of the eight ways in which a square can be laid down.

    k: the way, or the range to draw it from: the sum of 1 (mirrored), 2 (upside down) and 4 (then rows become columns).
    p: the probability that a picture is changed.

    >>> dihedral(4)(torch.tensor([[[1, 2, 3], [4, 5, 6]]], dtype=torch.uint8))
    tensor([[[1, 4],
             [2, 5],
             [3, 6]]], dtype=torch.uint8)
    """
    return RandTransform(TURN, p, _dihedral, k=whole_span("k", k, 0, 7))


def _dihedral(plan: Plan, pick: Pick, k: WholeSpan) -> None:
    ways = pick.whole(k, 0)
    across, down, turned = 1.0 - 2 * (ways & 1), 1.0 - (ways & 2), ways > 3
    plan.move(np.where(turned, 0, across), np.where(turned, across, 0), 0,
              np.where(turned, down, 0), np.where(turned, 0, down), 0)
    plan.frame = np.where(turned[:, None], plan.frame[:, ::-1], plan.frame)


def rotate(degrees: Number = (-10.0, 10.0), p: float = 1.0) -> RandTransform:
    """Turn the picture about its middle.

    degrees: by how much, against the clock; a number, or the range to draw it from.
    p: the probability that a picture is changed.

    >>> rotate(180)(torch.tensor([[[1, 2, 3]]], dtype=torch.uint8))
    tensor([[[3, 2, 1]]], dtype=torch.uint8)
    """
    return RandTransform(MOVE, p, _rotate, degrees=span("degrees", degrees))


def _rotate(plan: Plan, pick: Pick, degrees: Span) -> None:
    angle = np.radians(pick(degrees, 0))
    h, w = plan.frame.T     # places are shares of height and width: a turn of the pixels is none of these
    plan.move(np.cos(angle), -np.sin(angle) * h / w, 0, np.sin(angle) * w / h, np.cos(angle), 0)


def zoom(scale: Number = 1.0, row_pct: Number = 0.5, col_pct: Number = 0.5, p: float = 1.0) -> RandTransform:
    """Enlarge a part of the picture to its whole size.

    scale: how many times; below 1 the picture becomes smaller.
    row_pct, col_pct: where that part lies: 0 is at the upper or left edge, 1 at the lower or right one.
    p: the probability that a picture is changed.

    >>> zoom(2, row_pct=0, col_pct=1)(torch.eye(4)[None]).shape
    torch.Size([1, 4, 4])
    """
    scale = span("scale", scale, 0)
    return RandTransform(MOVE, p, _zoom, enlarges=max(1.0, scale[1]), scale=scale,
                         row_pct=share_span("row_pct", row_pct), col_pct=share_span("col_pct", col_pct))


def _zoom(plan: Plan, pick: Pick, scale: Span, row_pct: Span, col_pct: Span) -> None:
    part = 1 / pick(scale, 1)
    plan.see(part, part, pick(row_pct, 0.5), pick(col_pct, 0.5))


def rand_zoom(scale: Number = (1.0, 1.1), p: float = 1.0) -> RandTransform:
    """`zoom` into a part that is drawn at random.

    >>> rand_zoom((1.0, 1.5))
    zoom(scale=(1.0, 1.5), row_pct=(0.0, 1.0), col_pct=(0.0, 1.0), p=1.0)
    """
    return zoom(scale, (0, 1), (0, 1), p)


def squish(scale: Number = 1.0, row_pct: Number = 0.5, col_pct: Number = 0.5, p: float = 1.0) -> RandTransform:
    """Stretch a part of the picture to its whole size: of its width if `scale` is below 1, else of its height.

    scale: the part of the width, or 1 through the part of the height.
    row_pct, col_pct: where that part lies, as for `zoom`.
    p: the probability that a picture is changed.

    >>> squish(0.5, col_pct=0)(torch.tensor([[[0, 0, 90, 90]]], dtype=torch.uint8))
    tensor([[[ 0,  0,  0, 22]]], dtype=torch.uint8)
    """
    return RandTransform(MOVE, p, _squish, scale=span("scale", scale, 0), row_pct=share_span("row_pct", row_pct),
                         col_pct=share_span("col_pct", col_pct))


def _squish(plan: Plan, pick: Pick, scale: Span, row_pct: Span, col_pct: Span) -> None:
    scales = pick(scale, 1)
    plan.see(np.minimum(1 / scales, 1), np.minimum(scales, 1), pick(row_pct, 0.5), pick(col_pct, 0.5))


def symmetric_warp(magnitude: Number = (-0.2, 0.2), p: float = 1.0) -> RandTransform:
    """As if the picture were seen from another side: each of its four edges is made longer or shorter.

    magnitude: by which share, from above -1 to below 1, drawn for each edge; edges that are made shorter let what lies
        beyond the borders be seen.
    p: the probability that a picture is changed.

    >>> symmetric_warp((-0.2, 0.2), p=0.75)(torch.zeros(3, 8, 8)).shape
    torch.Size([3, 8, 8])
    """
    return RandTransform(MOVE, p, _symmetric_warp, magnitude=span("magnitude", magnitude, -1, 1))


def _symmetric_warp(plan: Plan, pick: Pick, magnitude: Span) -> None:
    right, left, down, up = (pick(magnitude, 0) for _ in range(4))
    _corners(plan, [[up, left], [down, left], [up, right], [down, right]])


def perspective_warp(magnitude: Number = 0.0, p: float = 1.0) -> RandTransform:
    """Each corner is moved by itself, away from the middle.

    magnitude: by which share of half the width, and of half the height; drawn for each of these eight.
    p: the probability that a picture is changed.

    >>> perspective_warp((-0.1, 0.1))(torch.zeros(3, 8, 8)).shape
    torch.Size([3, 8, 8])
    """
    return RandTransform(MOVE, p, _perspective_warp, magnitude=span("magnitude", magnitude, -1, 1))


def _perspective_warp(plan: Plan, pick: Pick, magnitude: Span) -> None:
    _corners(plan, [[pick(magnitude, 0), pick(magnitude, 0)] for _ in CORNERS])


def skew(direction: int | tuple[int, int] = (0, 7), magnitude: Number = 0.0, p: float = 1.0) -> RandTransform:
    """One corner is moved along one edge.

    direction: which, 0 to 7, or the range to draw it from: twice the number of the corner (upper left, lower left,
        upper right, lower right), and 1 more for the vertical edge.
    magnitude: by which share of half the edge, away from the middle.
    p: the probability that a picture is changed.

    >>> skew(0, 0.3)(torch.zeros(3, 8, 8)).shape
    torch.Size([3, 8, 8])
    """
    return RandTransform(MOVE, p, _skew, direction=whole_span("direction", direction, 0, 7),
                         magnitude=span("magnitude", magnitude, -1, 1))


def _skew(plan: Plan, pick: Pick, direction: WholeSpan, magnitude: Span) -> None:
    ways, share = pick.whole(direction, 0), pick(magnitude, 0)
    _corners(plan, [[np.where(ways == 2 * corner + edge, share, 0) for edge in (0, 1)] for corner in range(4)])


def tilt(direction: int | tuple[int, int] = (0, 3), magnitude: Number = 0.0, p: float = 1.0) -> RandTransform:
    """One edge is made longer, as if it came nearer.

    direction: which, or the range to draw it from: 0 left, 1 right, 2 upper, 3 lower.
    magnitude: by which share; below 0 it is made shorter.
    p: the probability that a picture is changed.

    >>> tilt(2, (0, 0.4))(torch.zeros(3, 8, 8)).shape
    torch.Size([3, 8, 8])
    """
    return RandTransform(MOVE, p, _tilt, direction=whole_span("direction", direction, 0, 3),
                         magnitude=span("magnitude", magnitude, -1, 1))


def _tilt(plan: Plan, pick: Pick, direction: WholeSpan, magnitude: Span) -> None:
    ways, share = pick.whole(direction, 0), pick(magnitude, 0)
    left, right, up, down = (np.where(ways == way, share, 0) for way in range(4))
    _corners(plan, [[up, left], [down, left], [up, right], [down, right]])


def _corners(plan: Plan, shares: list[list[Array]]) -> None:
    """Move each corner away from the middle by these shares (x, y)."""
    moved = CORNERS * (1 + np.moveaxis(np.array(shares), 2, 0))
    plan.move(*homography(moved).reshape(-1, 9).T)


def jitter(magnitude: Number = 0.0, p: float = 1.0) -> RandTransform:
    """Each pixel is read a little beside its place.

    magnitude: by up to which share of half the picture's width, and of half its height.
    p: the probability that a picture is changed.

    >>> jitter((0, 0.02))(torch.zeros(3, 8, 8)).shape
    torch.Size([3, 8, 8])
    """
    return RandTransform(MOVE, p, _jitter, magnitude=span("magnitude", magnitude, -1, 1))


def _jitter(plan: Plan, pick: Pick, magnitude: Span) -> None:
    plan.jitter = plan.jitter + np.abs(pick(magnitude, 0))
