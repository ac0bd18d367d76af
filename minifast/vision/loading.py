"""From pictures and their labels to loaders: what all makers of an `ImageDataBunch` have in common."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor

from .. import device_loader, loaders
from ..checks import did_you_mean
from ..device_loader import DeviceDataLoader
from ..loaders import ItemLoader, Loader, TensorLoader
from .augment import Augment
from .dataset import ImageDataset, collate, collate_any, float_batch, split_transforms, stacked, transform_lists
from .image import DifferentSizes, Fit, Size, as_size, decode, decode_each, picture_shape
from .labels import Labels, labels_of
from .masks import Masks
from .plan import ResizeMethod

__all__ = ["Options", "Labelled", "make", "split_at_random", "split_rows"]

Labelled = tuple[Sequence[Path], Sequence[Any]]
Images = Tensor | Sequence[Tensor] | None
Bunch = TypeVar("Bunch")


class Options(TypedDict, total=False):
    """What every maker of an `ImageDataBunch` takes besides its own arguments: see there."""

    bs: int
    val_bs: int | None
    size: int | Size | None
    ds_tfms: Any
    num_workers: int
    device: torch.device | str | None
    max_memory: int
    classes: Sequence[Any] | None
    label_cls: type[Labels] | None
    resize_method: ResizeMethod | str
    padding_mode: str
    sampler: Any


def make(cls: type[Bunch], path: Path | str, train: Labelled, valid: Labelled, test: Sequence[Path] = (), *,
         bs: int = 64, val_bs: int | None = None, size: Any = None, ds_tfms: Any = None, num_workers: int = 0,
         device: torch.device | str | None = None, seed: int | None = None, max_memory: int = 2**30,
         classes: Sequence[Any] | None = None, label_cls: type[Labels] | None = None, labels: Labels | None = None,
         resize_method: ResizeMethod | str = ResizeMethod.CROP, padding_mode: str = "reflection",
         sampler: Any = None, **unknown: Any) -> Bunch:
    """An `ImageDataBunch` (`cls`) of these pictures with plain labels; its arguments are explained there."""
    for name in unknown:
        raise TypeError(f"ImageDataBunch does not know the argument {name!r}."
                        + did_you_mean(name, {*Options.__annotations__, "seed", "valid_pct", "label_delim"} - {name}))
    size, seed = as_size(size), loaders.seed_or_drawn(seed)
    (train_tfms, train_last), (valid_tfms, valid_last) = map(split_transforms, transform_lists(ds_tfms))
    device = device_loader.default_device() if device is None else device_loader.concrete_device(device)
    labels = labels_of([*train[1], *valid[1]], classes, label_cls) if labels is None else labels
    items = [list(train[0]), list(valid[0]), list(test)]
    y = [labels.targets(train[1]), labels.targets(valid[1]), labels.blank(len(test))]
    masked = isinstance(y[0], Masks)
    augmented = bool(train_last or valid_last) or ResizeMethod(resize_method) is not ResizeMethod.CROP
    augments = [Augment(last, size, resize_method, padding_mode, masked) for last in (train_last, valid_last)]
    # a mask is not shrunk, and its picture would be by a part of a pixel more or less
    by_batch = augmented and size is not None and not masked
    fits: list[Fit] = [augments[k > 0].shrink if by_batch else None if augmented else size for k in range(3)]
    may_differ = augmented or bool(train_tfms or valid_tfms)
    images = _in_memory(items, fits, max_memory, may_differ)
    if isinstance(images[0], Tensor) and not (augmented and size):
        size = (images[0].shape[2], images[0].shape[3])
        fits = [size] * 3
    for part in y:
        if isinstance(part, Masks):
            part.size = None if augmented else size
            if images[0] is not None:
                part.keep()
    on_device = [part.to(device) if isinstance(part, Tensor) else part for part in images]

    def dl(k: int, bs: int, train: bool = False) -> Loader:
        tfms = train_tfms if train else valid_tfms
        ds = ImageDataset(items[k], y[k], labels.classes, images[k], fits[k], tfms)
        x = on_device[k]
        if isinstance(x, Tensor) and isinstance(ds.y, Tensor) and not tfms:
            return TensorLoader(x, ds.y.to(device), bs, train, train, seed, ds)
        workers = num_workers if x is None or tfms else 0   # else there is nothing for others to do
        return ItemLoader(ds, bs, train, train, seed, workers, collate_any if augmented else collate, keep_workers=True)

    def prepared(dl: Loader, augment: Augment) -> Any:
        dl.seeded = augmented
        return DeviceDataLoader(dl, device, [augment]) if augmented else dl

    train_dl = prepared(loaders.require_batch(dl(0, bs, train=True)), augments[0])
    valid_dl, test_dl, fix_dl = (
        prepared(dl(k, bs if val_bs is None else val_bs), augments[1]) if items[k] else None for k in (1, 2, 0))
    make_bunch: Any = cls
    data = make_bunch(train_dl, valid_dl, fix_dl, test_dl, device, path=path, loss_func=labels.loss_func,
                      classes=labels.classes, sampler=sampler)
    data.size = size or (None if may_differ else picture_shape(items[0][0]))
    data.fit = fits[1] if augmented and size else data.size
    data.valid_tfms, data.num_workers, data.labels = valid_tfms, num_workers, labels
    data.add_tfm(float_batch)
    return data  # type: ignore[no-any-return]


def split_rows(n: int, pct: float, seed: int | None) -> tuple[list[int], list[int]]:
    """The numbers of the rows that train and of those that validate, drawn at random; both in ascending order."""
    n_valid = int(n * pct) if 0 < pct < 1 else 0
    if not 0 < n_valid < n:
        raise ValueError(f"valid_pct={pct} of {n} pictures: it must be between 0 and 1, and leave some to train on and "
                         "some to validate on")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(loaders.seed_or_drawn(seed))).tolist()
    return sorted(order[n_valid:]), sorted(order[:n_valid])


def split_at_random(items: Sequence[Path], labels: Sequence[Any], pct: float,
                    seed: int | None) -> tuple[Labelled, Labelled]:
    """Training and validation part, drawn at random; both in the order that was given."""
    train, valid = (([items[i] for i in rows], [labels[i] for i in rows]) for rows in split_rows(len(items), pct, seed))
    return train, valid


def _in_memory(sets: Sequence[Sequence[Path]], fits: Sequence[Fit], max_memory: int, may_differ: bool) -> list[Images]:
    """The pictures of each set, decoded, in one tensor if they have one size; None if all do not fit into memory."""
    items = sum(map(list, sets), [])
    h, w = fits[0] if isinstance(fits[0], tuple) else picture_shape(items[0])
    by = fits[0](h, w) if callable(fits[0]) else 1
    lengths = [len(part) for part in sets]
    if len(items) * 3 * (h // by) * (w // by) > max_memory:
        return [None] * len(sets)
    if isinstance(fits[0], tuple | None):
        try:
            return list(torch.split(decode(items, fits[0]), lengths))
        except DifferentSizes:
            if not may_differ:
                raise
    images = decode_each(items, [fit for fit, n in zip(fits, lengths, strict=True) for _ in range(n)], max_memory)
    if images is None:
        return [None] * len(sets)
    rest = iter(images)
    return [stacked(list(islice(rest, n))) for n in lengths]
