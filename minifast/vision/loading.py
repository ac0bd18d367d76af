"""From pictures and their labels to loaders: what all makers of an `ImageDataBunch` have in common."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor

from .. import device_loader, loaders
from ..checks import did_you_mean
from ..loaders import ItemLoader, Loader, TensorLoader
from .dataset import ImageDataset, Transform, collate, float_batch, transform_lists
from .image import DifferentSizes, Size, as_size, decode, picture_shape
from .labels import Labels, labels_of
from .masks import Masks

__all__ = ["Options", "Labelled", "make", "split_at_random", "split_rows"]

Labelled = tuple[Sequence[Path], Sequence[Any]]
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


def make(cls: type[Bunch], path: Path | str, train: Labelled, valid: Labelled, test: Sequence[Path] = (), *,
         bs: int = 64, val_bs: int | None = None, size: Any = None, ds_tfms: Any = None, num_workers: int = 0,
         device: torch.device | str | None = None, seed: int | None = None, max_memory: int = 2**30,
         classes: Sequence[Any] | None = None, label_cls: type[Labels] | None = None, labels: Labels | None = None,
         **unknown: Any) -> Bunch:
    """An `ImageDataBunch` (`cls`) of these pictures with plain labels; its arguments are explained there."""
    for name in unknown:
        raise TypeError(f"ImageDataBunch does not know the argument {name!r}."
                        + did_you_mean(name, [*Options.__annotations__, "seed", "valid_pct", "label_delim"]))
    size, seed, (train_tfms, valid_tfms) = as_size(size), loaders.settled(seed), transform_lists(ds_tfms)
    device = device_loader.default_device() if device is None else device_loader.resolved(device)
    labels = labels_of([*train[1], *valid[1]], classes, label_cls) if labels is None else labels
    items = [list(train[0]), list(valid[0]), list(test)]
    y = [labels.targets(train[1]), labels.targets(valid[1]), labels.blank(len(test))]
    images = _in_memory(sum(items, []), size, max_memory, may_differ=bool(train_tfms or valid_tfms))
    if images is not None:
        size = (images.shape[2], images.shape[3])
    for part in y:
        if isinstance(part, Masks):
            part.size = size
    on_cpu, on_device = (_parts(images, items, where) for where in ("cpu", device))

    def dl(k: int, tfms: Sequence[Transform], bs: int, train: bool = False) -> Loader:
        ds = ImageDataset(items[k], y[k], labels.classes, on_cpu[k], size, tfms)
        x = on_device[k]
        if x is None or tfms or not isinstance(ds.y, Tensor):
            return ItemLoader(ds, bs, train, train, seed, num_workers, collate)
        return TensorLoader(x, ds.y.to(device), bs, train, train, seed, ds)

    train_dl = loaders.filled(dl(0, train_tfms, bs, train=True))
    valid_dl, test_dl, fix_dl = (dl(k, valid_tfms, bs if val_bs is None else val_bs) if items[k] else None
                                 for k in (1, 2, 0))
    given: Any = (train_dl, valid_dl, test_dl, device, path, labels.loss_func, labels.classes, fix_dl)
    data: Any = cls(*given)
    data.size = size or (None if train_tfms or valid_tfms else picture_shape(items[0][0]))
    data.valid_tfms, data.num_workers, data.labels = valid_tfms, num_workers, labels
    data.add_tfm(float_batch)
    return data  # type: ignore[no-any-return]


def split_rows(n: int, pct: float, seed: int | None) -> tuple[list[int], list[int]]:
    """The numbers of the rows that train and of those that validate, drawn at random; both in ascending order."""
    n_valid = int(n * pct) if 0 < pct < 1 else 0
    if not 0 < n_valid < n:
        raise ValueError(f"valid_pct={pct} of {n} pictures: it must be between 0 and 1, and leave some to train on and "
                         "some to validate on")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(loaders.settled(seed))).tolist()
    return sorted(order[n_valid:]), sorted(order[:n_valid])


def split_at_random(items: Sequence[Path], labels: Sequence[Any], pct: float,
                    seed: int | None) -> tuple[Labelled, Labelled]:
    """Training and validation part, drawn at random; both in the order that was given."""
    train, valid = (([items[i] for i in rows], [labels[i] for i in rows]) for rows in split_rows(len(items), pct, seed))
    return train, valid


def _in_memory(items: Sequence[Path], size: Size | None, max_memory: int, may_differ: bool) -> Tensor | None:
    """All pictures decoded; None if they do not fit, or differ in size where transforms may yet bring them to one."""
    h, w = size or picture_shape(items[0])
    if len(items) * 3 * h * w > max_memory:
        return None
    try:
        return decode(items, size)
    except DifferentSizes:
        if may_differ:
            return None
        raise


def _parts(images: Tensor | None, items: Sequence[Any], device: Any) -> Sequence[Tensor | None]:
    """The pictures of each set, views of one tensor on the device."""
    if images is None:
        return [None] * len(items)
    return torch.split(images.to(device), [len(part) for part in items])
