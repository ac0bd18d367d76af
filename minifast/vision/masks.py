"""Masks: a class for each pixel, from picture files."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..losses import CrossEntropyFlat
from .image import TURNS, Size, in_threads, orientation, unreadable
from .labels import Labels, plain

__all__ = ["SegmentationLabelList", "Masks"]


class SegmentationLabelList(Labels):
    """A mask for each picture: the target is the class of each pixel, (n, H, W) int64; the loss is `CrossEntropyFlat`
    with the classes along the second axis of the outputs.

    labels: the file of each picture's mask, of one channel: its values, or the numbers of its palette's colours, are
        those of the classes.
    classes: their names in their order.
    div: masks are 0 and 255 for two classes: divide by 255.
    ignore_index: the value of pixels that count for nothing, 255 for example; None: there are none.

    TypeError without classes; ValueError that names a mask with a value that belongs to no class.

    >>> SegmentationLabelList([], ["road", "sky"]).classes
    ['road', 'sky']
    """

    def __init__(self, labels: Sequence[Any], classes: Sequence[Any] | None = None, div: bool = False,
                 ignore_index: int | None = None) -> None:
        if classes is None or isinstance(classes, (str, bytes)):
            raise TypeError(f"masks need classes=, a list of the names of the values 0, 1, 2, ..., not {classes!r}")
        if wrong := [label for label in labels if not isinstance(label, (str, os.PathLike))]:
            raise TypeError(f"the label of a picture must be the file of its mask, not {wrong[0]!r}")
        self.classes: list[Any] = plain(list(classes))
        self.div, self.ignore_index = div, ignore_index
        self.loss_func: Callable[..., Tensor] = CrossEntropyFlat(
            axis=1, **({} if ignore_index is None else {"ignore_index": ignore_index}))

    def targets(self, labels: Sequence[Any]) -> Masks:
        return Masks([Path(label) for label in labels], len(self.classes), self.div, self.ignore_index)

    def blank(self, n: int) -> Tensor:
        return torch.zeros(n, 1, 1, dtype=torch.uint8)

    def text(self, target: Tensor) -> str:
        return ""


class Masks(Sequence[Tensor]):
    """Masks that are read when they are needed: item `i` is (H, W) uint8.

    paths: their files.
    n_classes: values from 0 to below this are those of classes.
    div, ignore_index: see `SegmentationLabelList`.
    size: height and width to scale and centre-crop to, each pixel that of the nearest; None: masks keep their sizes.
    """

    def __init__(self, paths: Sequence[Path], n_classes: int, div: bool = False, ignore_index: int | None = None,
                 size: Size | None = None) -> None:
        self.paths, self.n_classes, self.div = paths, n_classes, div
        self.ignore_index, self.size = ignore_index, size
        self.kept: list[Tensor] | None = None

    def keep(self) -> None:
        """Read all of them now, and keep them in memory."""
        self.kept = in_threads(self._read, self.paths, "Reading masks")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: Any) -> Any:
        return self._read(self.paths[i]) if self.kept is None else self.kept[i]

    def _read(self, path: Path) -> Tensor:
        mask = _read(path, self.size)
        if self.div:
            mask = mask // 255
        wrong = mask >= self.n_classes
        if self.ignore_index is not None:
            wrong &= mask != self.ignore_index
        if wrong.any():
            value = int(mask[wrong].max())
            hint = {255: "; where 255 is the second of two classes give div=True, where it is none ignore_index=255"}
            raise ValueError(f"{path} has the value {value}, and there are {self.n_classes} classes, 0 to "
                             f"{self.n_classes - 1}{hint.get(value, '')}")
        return mask


def _read(path: Path, size: Size | None) -> Tensor:
    """(H, W) uint8: the values of the one channel, or the numbers of the palette's colours."""
    from PIL import Image, ImageOps
    try:
        with Image.open(path) as im:
            if im.mode not in ("L", "P", "1"):
                raise ValueError(f"a mask has one channel of 8 bits, or a palette, and this has the mode {im.mode}")
            mask: Any = im
            if turn := TURNS.get(orientation(im)):
                mask = im.transpose(Image.Transpose[turn])
            if size and size != (mask.height, mask.width):
                mask = ImageOps.fit(mask, (size[1], size[0]), Image.Resampling.NEAREST)
            return torch.from_numpy(np.array(mask, dtype=np.uint8))
    except Exception as e:
        raise unreadable(path, e) from e
