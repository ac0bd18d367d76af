"""Test-time augmentation: eight views of each picture."""
from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from ..device_loader import DeviceDataLoader
from .augment import CROP, TURN, Augment, RandTransform
from .geometry import flip_lr, zoom
from .transform import crop_pad

__all__ = ["tta_tfms", "tta_loaders"]

SCALE = 1.35


def tta_tfms(tfms: Sequence[Any], scale: float = SCALE) -> list[list[Any]]:
    """The transforms of the eight passes: enlarged by `scale` at each corner, first unflipped, then flipped; and those
    of `tfms`, the transforms for training, that do not crop, flip, turn by quarters or zoom.

    >>> tta_tfms(get_transforms(max_lighting=0, max_warp=0)[0])[5]     # doctest: +NORMALIZE_WHITESPACE
    [rotate(degrees=(-10.0, 10.0), p=0.75), zoom(scale=1.35, row_pct=1.0, col_pct=0.0, p=1.0),
     crop_pad(size=None, row_pct=1.0, col_pct=0.0, p=1.0), flip_lr(p=1.0)]
    """
    kept = [tfm for tfm in tfms if not isinstance(tfm, RandTransform)
            or tfm.stage not in (TURN, CROP) and tfm.name != "zoom"]
    passes = []
    for flip in ([], [flip_lr(p=1.0)]):
        for row, col in (0, 0), (1, 0), (0, 1), (1, 1):
            passes.append([*kept, zoom(scale, row, col), crop_pad(None, row, col), *flip])
    return passes


def tta_loaders(dl: DeviceDataLoader, tfms: Sequence[RandTransform],
                scale: float = SCALE) -> Iterator[DeviceDataLoader]:
    """The batches of `dl` eight times, each pass with its own transforms, see `tta_tfms`, and its own draws.

    dl: batches of pictures that go through an `Augment`; it is left unchanged, its position too. It must not shuffle
        if the results of passes are to be compared.
    tfms: the transforms for training.

    ValueError if `dl` has no `Augment`.

    >>> dl = DeviceDataLoader(TensorLoader(torch.rand(3, 3, 8, 8), torch.zeros(3)), "cpu", [Augment([], size=8)])
    >>> [next(iter(view))[0].shape for view in tta_loaders(dl, get_transforms()[0])][7]
    torch.Size([3, 3, 8, 8])
    """
    old = next((tfm for tfm in dl.tfms if isinstance(tfm, Augment)), None)
    if old is None:
        raise ValueError("test-time augmentation needs data whose pictures go through transforms: give ds_tfms="
                         "get_transforms(), and size= where they differ")
    for k, views in enumerate(tta_tfms(tfms, scale)):
        inner = copy.copy(dl.dl)
        inner.passes = dl.dl.passes + k     # what is drawn is a function of the pass
        new = Augment(views, old.size, old.method, old.padding, old.masks)
        yield DeviceDataLoader(inner, dl.device, [new if tfm is old else tfm for tfm in dl.tfms])
