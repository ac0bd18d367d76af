"""`ImageDataset`: pictures with their targets, one by one; and what is done with a batch of them."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ..loaders import Batch
from ..utils import listify
from .augment import RandTransform
from .image import DifferentSizes, Fit, as_floats, pixels

__all__ = ["ImageDataset", "Transform", "Normalizer", "transformed", "transform_lists", "split_transforms",
           "float_batch", "collate", "collate_any", "stacked", "channel_stats"]

Transform = Callable[[Any], Any]

TO_MEASURE = 2000   # pictures, where they are not in memory: a channel's mean is then good to about a hundredth
ROUNDING = 1e-3     # by which floats may lie outside of [0, 1]


class ImageDataset(Dataset[Any]):
    """Pictures and their targets; an item is (picture (3, H, W), target).

    items: paths, PIL images or tensors.
    y: the targets, a row for each item: a tensor, or `Masks`.
    classes: the names of the classes, or None.
    images: all pictures decoded, uint8 (n, 1 or 3, H, W), or a list of them, or None, and then each is decoded when it
        is needed.
    fit: what pictures come to when they are decoded: height and width; or fewer pixels, see `Augment.shrink`; None
        leaves each unchanged.
    tfms: functions that each picture goes through, as bytes (3, H, W); see `transformed`. Items that are tensors
        already are left unchanged.

    >>> data = ImageDataset([torch.zeros(3, 4, 4)], torch.tensor([1]), ["a", "b"])
    >>> len(data), data[0][1]
    (1, tensor(1))
    """

    def __init__(self, items: Sequence[Any], y: Any, classes: Sequence[Any] | None = None,
                 images: Tensor | Sequence[Tensor] | None = None, fit: Fit = None,
                 tfms: Sequence[Transform] = ()) -> None:
        self.items, self.y, self.classes = items, y, classes
        self.images, self.fit, self.tfms = images, fit, tfms

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = self.raw(i)
        return image if isinstance(self.items[i], Tensor) else transformed(image, self.tfms), self.y[i]

    def raw(self, i: int) -> Tensor:
        """Picture `i` as bytes (3, H, W), before any transform."""
        image = pixels(self.items[i], self.fit) if self.images is None else self.images[i]
        return image.repeat(3 // image.shape[0], 1, 1)


def transform_lists(ds_tfms: Any) -> tuple[list[Transform], list[Transform]]:
    """(for training, for all other uses), each a list, of what is given as `ds_tfms`."""
    if ds_tfms is None:
        return [], []
    if not isinstance(ds_tfms, (list, tuple)) or len(ds_tfms) != 2:
        raise ValueError("ds_tfms must be a pair: (transforms for training, transforms for validation), each None, a "
                         f"function or a list of functions; not {ds_tfms!r}")
    return _flat(ds_tfms[0]), _flat(ds_tfms[1])


def _flat(tfms: Any) -> list[Transform]:
    """A list of functions; the habits of torchvision's users are seen to."""
    flat: list[Transform] = []
    for tfm in listify(tfms):
        name = type(tfm).__name__ if type(tfm).__module__.startswith("torchvision.") else ""
        if name == "Compose":
            flat += _flat(list(tfm.transforms))
        elif name == "Normalize":
            raise ValueError(f"{tfm} in ds_tfms would normalise behind the back of the data, whose pictures are floats "
                             "in [0, 1] until they are normalised as a batch: leave it out, and write "
                             f"data.normalize(({list(tfm.mean)}, {list(tfm.std)}))")
        elif not callable(tfm):
            raise TypeError(f"a transform must be a function of a picture, not {tfm!r}")
        else:
            flat.append(_to_floats if name == "ToTensor" else tfm)
    return flat


def split_transforms(tfms: Sequence[Transform]) -> tuple[list[Transform], list[RandTransform]]:
    """(those that each picture goes through by itself, those that a batch can go through, behind them)."""
    alone: list[Transform] = []
    last: list[RandTransform] = []
    for tfm in tfms:
        if isinstance(tfm, RandTransform):
            last.append(tfm)
        else:
            alone, last = [*alone, *last, tfm], []
    return alone, last


def _to_floats(image: Any) -> Tensor:
    """torchvision's ToTensor, which takes no tensor."""
    return as_floats(pixels(image)[None])[0]


def transformed(image: Tensor, tfms: Sequence[Transform]) -> Tensor:
    """A picture (3, H, W), uint8, after these functions: uint8 or floats in [0, 1], (1 or 3, H, W).

    On the way it may be what they make of it, a PIL image for example. TypeError or ValueError that names the function
    if it fails, or makes no such picture.
    """
    steps: list[Any] = [image]
    for tfm in tfms:
        try:
            steps.append(tfm(steps[-1]))
        except Exception as e:
            kind = type(e) if type(e) in (TypeError, ValueError) else RuntimeError
            raise kind(f"the transform {_name(tfm)} fails on {_looks(steps[-1])}: {type(e).__name__}: {e}. The first "
                       "transform gets a tensor of bytes (3, height, width); one that needs floats in [0, 1] goes "
                       "behind torchvision's ToTensor(), one that needs a PIL image behind ToPILImage()") from e
    return _picture(steps, tfms)


def _picture(steps: list[Any], tfms: Sequence[Transform]) -> Tensor:
    image = steps[-1]
    if type(image).__module__.startswith("PIL."):
        image = steps[-1] = pixels(image)
    if not isinstance(image, Tensor):
        raise TypeError(f"the transform {_name(tfms[-1])} made a {type(image).__name__} of a tensor (3, height, width);"
                        " it must make a tensor again")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"the transform {_name(tfms[-1])} made a picture of {image.dtype}: it must be uint8, or floats "
                        "in [0, 1]")
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"the transform {_name(tfms[-1])} made a picture of the shape {tuple(image.shape)}: it must "
                         "be (1 or 3, height, width)")
    if image.is_floating_point() and not _in_range(image):
        at = next(i for i, x in enumerate(steps) if isinstance(x, Tensor) and x.is_floating_point()
                  and not _in_range(x))
        raise ValueError(f"the transform {_name(tfms[at - 1])} made floats from {float(steps[at].min()):.4g} to "
                         f"{float(steps[at].max()):.4g}, and a picture's floats must be in [0, 1]: divide by 255 "
                         "(ToDtype(torch.float32, scale=True)), or clamp; to normalise use data.normalize()")
    return image if image.dtype in (torch.uint8, torch.float32) else image.float()


def _in_range(x: Tensor) -> bool:
    low, high = x.aminmax()
    return bool(low >= -ROUNDING) and bool(high <= 1 + ROUNDING)    # false for NaN


def _name(tfm: Any) -> str:
    return str(getattr(tfm, "__qualname__", tfm))


def _looks(x: Any) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


# ---- batches

def float_batch(batch: Batch) -> Batch:
    """The batch transform of all pictures: bytes to floats in [0, 1], grey to three channels, masks to int64."""
    x, y = batch
    return as_floats(x), y.long() if isinstance(y, Tensor) and y.dtype == torch.uint8 else y


class Normalizer:
    """A batch transform: subtracts each channel's mean, divides by its standard deviation.

    mean, std: a number for each channel, of pixels in [0, 1].
    device: where the batches are.

    ValueError if a standard deviation is not above 0.

    >>> norm = Normalizer([0.5] * 3, [0.25] * 3, torch.device("cpu"))
    >>> norm((torch.ones(1, 3, 2, 2), None))[0].max()
    tensor(2.)
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.mean, self.std = (torch.as_tensor(s, dtype=torch.float32, device=device).view(-1, 1, 1)
                               for s in (mean, std))
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(f"a mean and a standard deviation are needed for each of three channels, not {mean} and "
                             f"{std}")
        if not bool((self.std > 0).all()):
            raise ValueError(f"the standard deviation of each channel must be above 0: {self.std.flatten().tolist()}")

    def __call__(self, batch: Batch) -> Batch:
        return (batch[0] - self.mean) / self.std, batch[1]

    def undo(self, x: Tensor) -> Tensor:
        """Normalised pictures back in [0, 1]."""
        return x * self.std.to(x.device) + self.mean.to(x.device)


def collate_any(items: list[tuple[Tensor, Tensor]]) -> Any:
    """A batch of pictures and targets: each a tensor, or a list of tensors where their sizes differ."""
    x, y = zip(*items, strict=True)
    return stacked(x), stacked(y)


def stacked(tensors: Sequence[Tensor]) -> Tensor | Sequence[Tensor]:
    """One tensor of them all if they have one shape, else a list of them."""
    return torch.stack(list(tensors)) if len({t.shape for t in tensors}) == 1 else list(tensors)


def collate(items: list[tuple[Tensor, Tensor]]) -> Any:
    """A batch of pictures; ValueError if their sizes differ."""
    shapes = {tuple(x.shape) for x, _ in items}
    if len(shapes) > 1:
        raise DifferentSizes(f"pictures of one batch have the shapes {' and '.join(map(str, sorted(shapes)))}: give "
                             "size=, or a transform that brings all to one")
    return default_collate(items)


def channel_stats(ds: ImageDataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, exact for the pictures that are looked at."""
    some = range(0, len(ds), -(-len(ds) // TO_MEASURE))
    images = [ds.images.transpose(0, 1)] if isinstance(ds.images, Tensor) else (ds.raw(i) for i in some)
    counts = torch.zeros(1, 256, dtype=torch.float64)
    for image in images:
        counts = counts + torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in image])
    values, share = torch.arange(256, dtype=torch.float64) / 255, counts / counts.sum(1, keepdim=True)
    mean = share @ values
    return mean.tolist(), (share @ values**2 - mean**2).sqrt().tolist()
