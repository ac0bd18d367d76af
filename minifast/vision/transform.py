"""Random changes to training pictures, by torchvision, under fastai v1's names."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..utils import listify

__all__ = ["get_transforms", "rand_pad", "flip_lr"]

Transform = Callable[[Tensor], Tensor]


def get_transforms(do_flip: bool = True, flip_vert: bool = False, max_rotate: float = 10.0, max_zoom: float = 1.1,
                   max_lighting: float = 0.2, max_warp: float = 0.2, p_affine: float = 0.75, p_lighting: float = 0.75,
                   xtra_tfms: Any = None) -> tuple[list[Transform], list[Transform]]:
    """Transforms for `ds_tfms`: usual ones for training, none for validation.

    Mirrored with probability 1/2 (`do_flip`, and also upside down with `flip_vert`); with probability `p_affine` turned
    by up to `max_rotate` degrees and enlarged by up to `max_zoom`, and with the same seen from another side
    (`max_warp`, 0 to 1); with `p_lighting` brightness and contrast changed by up to the share `max_lighting`; then
    `xtra_tfms`.
    """
    from torchvision.transforms import InterpolationMode, v2  # type: ignore[import-untyped]
    smooth = InterpolationMode.BILINEAR
    tfms = [v2.RandomHorizontalFlip()] * do_flip + [v2.RandomVerticalFlip()] * (do_flip and flip_vert)
    if max_rotate or max_zoom > 1:
        tfms.append(v2.RandomApply([v2.RandomAffine(max_rotate, scale=(1, max_zoom), interpolation=smooth)], p_affine))
    if max_warp:
        tfms.append(v2.RandomPerspective(max_warp, p_affine, smooth))
    if max_lighting:
        tfms.append(v2.RandomApply([v2.ColorJitter(max_lighting, max_lighting)], p_lighting))
    return tfms + listify(xtra_tfms), []


def rand_pad(padding: int, size: int, mode: str = "reflect") -> list[Transform]:
    """Pad by `padding` pixels on each side, then cut out `size` x `size` at a random place."""
    from torchvision.transforms import v2
    return [v2.RandomCrop(size, padding, padding_mode=mode.removesuffix("ion"))]


def flip_lr(p: float = 0.5) -> Transform:
    """Mirror, with probability `p`."""
    from torchvision.transforms import v2
    flip: Transform = v2.RandomHorizontalFlip(p)
    return flip
