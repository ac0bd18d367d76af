"""`ImageDataBunch`: pictures from folders, tables and lists, as batches."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from .. import loaders
from ..data import DataBunch, DatasetType
from ..layers import CrossEntropyFlat
from ..loaders import Batch, ItemLoader, Loader, TensorLoader
from ..plots import show
from ..utils import as_path, did_you_mean, listify
from .image import DifferentSizes, Size, as_floats, as_size, decode, get_image_files, picture_shape, pixels

__all__ = ["ImageDataBunch", "ImageDataset", "mnist_stats", "cifar_stats", "imagenet_stats"]

Transform = Callable[[Tensor], Tensor]
Labelled = tuple[Sequence[Path], Sequence[Any]]

# mean and standard deviation of each channel, pixels in [0, 1]
mnist_stats = ([0.131] * 3, [0.308] * 3)
cifar_stats = ([0.491, 0.482, 0.447], [0.247, 0.243, 0.261])
imagenet_stats = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

TO_MEASURE = 2000  # pictures, where they are not in memory: a channel's mean is then good to about a hundredth


class ImageDataset(Dataset[Any]):
    """Pictures and the indices of their classes: `items` are paths, `y` (n,) whole numbers, `classes` their names.

    An item is (picture (3, H, W), uint8 or what `tfms` make of it, index). `images`: all of them decoded, uint8
    (n, 1 or 3, H, W), or None, and then each is decoded when it is asked for.
    """

    def __init__(self, items: Sequence[Path], y: Tensor, classes: Sequence[Any], images: Tensor | None = None,
                 size: Size | None = None, tfms: Sequence[Transform] = ()) -> None:
        self.items, self.y, self.classes = items, y, classes
        self.images, self.size, self.tfms = images, size, tfms

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return transformed(self.raw(i), self.tfms), self.y[i]

    def raw(self, i: int) -> Tensor:
        """Picture `i` as bytes (3, H, W), before any transform."""
        image = pixels(self.items[i], self.size) if self.images is None else self.images[i]
        return image.repeat(3 // image.shape[0], 1, 1)


def transformed(image: Tensor, tfms: Sequence[Transform]) -> Tensor:
    for tfm in tfms:
        image = tfm(image)
        if not isinstance(image, Tensor):
            raise TypeError(f"the transform {tfm} made a {type(image).__name__} of a tensor (3, height, width); "
                            "it must make a tensor again")
    return image


def float_batch(batch: Batch) -> Batch:
    """The batch transform of all pictures: bytes to floats in [0, 1], grey to three channels."""
    return as_floats(batch[0]), batch[1]


class Normalizer:
    """A batch transform: subtracts each channel's mean, divides by its standard deviation (ValueError if that is 0)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.mean, self.std = (torch.tensor(s, dtype=torch.float32, device=device).view(-1, 1, 1) for s in (mean, std))
        if not bool((self.std > 0).all()):
            raise ValueError(f"the standard deviation of each channel must be above 0: {self.std.flatten().tolist()}")

    def __call__(self, batch: Batch) -> Batch:
        return (batch[0] - self.mean) / self.std, batch[1]

    def undo(self, x: Tensor) -> Tensor:
        """What was normalised, as it was."""
        return x * self.std.to(x.device) + self.mean.to(x.device)


class ImageDataBunch(DataBunch):
    """Pictures as batches: x float (n, 3, H, W) in [0, 1] unless normalised, y the indices of `classes`.

    Made by `from_folder`, `from_csv`, `from_df`, `from_lists`, `from_name_func` and `from_name_re`, which all take:

    `bs`, `val_bs`: batch sizes (default of the second: the first). `size`: height and width (one number: both) to scale
    and centre-crop to; without it all must have one size. `ds_tfms`: (for training, for all other uses), each None, a
    function of a picture (3, H, W) uint8 or a list of them, torchvision's for example; it may return uint8 or floats in
    [0, 1]. `num_workers`: processes that decode and transform item by item. `device`: default is the GPU if there is
    one. `seed`: of the order of training, of what transforms draw, and of a random split. `max_memory`: pictures are
    decoded once and kept as bytes if all of them, in colour, need no more than this many; else they are decoded each
    time.
    """

    size: Size | None = None
    valid_tfms: Sequence[Transform] = ()
    norm: Normalizer | None = None

    # ---- where they come from

    @classmethod
    def from_folder(cls, path: Path | str, train: str = "train", valid: str = "valid", test: str | None = None,
                    valid_pct: float | None = None, seed: int | None = None, classes: Sequence[Any] | None = None,
                    **kwargs: Any) -> ImageDataBunch:
        """From `path/train/<class>/...` and `path/valid/<class>/...`: a picture's class is the name of its folder.

        `test`: a folder of pictures without classes. `valid_pct`: instead of using the folders `train` and `valid`, a
        random part of all pictures under `path` (but for `test`) validates. `classes`: their order (default: sorted).
        FileNotFoundError or ValueError that names what is missing, unreadable or does not fit.
        """
        path = as_path("path", path)
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        tests = _found(path / test) if test else []
        if valid_pct is not None:
            held_back = set(tests)
            sets = _split(*_by_folder([item for item in _found(path) if item not in held_back]), valid_pct, seed)
        elif not (path / valid).is_dir():
            raise FileNotFoundError(f"there is no folder {path / valid} to validate on: give valid= another name, or "
                                    "valid_pct=0.2 to hold back a random fifth of the pictures")
        else:
            sets = _by_folder(_found(path / train)), _by_folder(_found(path / valid))
        return cls._create(path, *sets, tests, classes=classes, seed=seed, **kwargs)

    @classmethod
    def from_lists(cls, path: Path | str, fnames: Sequence[Path | str], labels: Sequence[Any], valid_pct: float = 0.2,
                   seed: int | None = None, classes: Sequence[Any] | None = None, **kwargs: Any) -> ImageDataBunch:
        """From file names (relative to `path`, or absolute) and their labels; a random part, `valid_pct`, validates."""
        if len(fnames) != len(labels):
            raise ValueError(f"there are {len(fnames)} file names and {len(labels)} labels")
        items = [Path(path) / name for name in fnames]
        return cls._create(path, *_split(items, labels, valid_pct, seed), classes=classes, seed=seed, **kwargs)

    @classmethod
    def from_name_func(cls, path: Path | str, fnames: Sequence[Path | str], label_func: Callable[[Path], Any],
                       **kwargs: Any) -> ImageDataBunch:
        """From file names, each one's label given by a function of its path. `kwargs` as for `from_lists`."""
        return cls.from_lists(path, fnames, [label_func(Path(name)) for name in fnames], **kwargs)

    @classmethod
    def from_name_re(cls, path: Path | str, fnames: Sequence[Path | str], pat: str, **kwargs: Any) -> ImageDataBunch:
        """From file names, each one's label the first group of the regular expression `pat` found in its path."""
        def label(name: Path) -> str:
            if match := re.search(pat, name.as_posix()):
                return match[1]
            raise ValueError(f"{pat!r} is not found in {name}")
        return cls.from_name_func(path, fnames, label, **kwargs)

    @classmethod
    def from_df(cls, path: Path | str, df: Any, folder: Path | str | None = None, fn_col: int | str = 0,
                label_col: int | str = 1, suffix: str = "", **kwargs: Any) -> ImageDataBunch:
        """From a table's columns of file names (relative to `path/folder`, without `suffix`) and of labels."""
        names, labels = ((df.iloc[:, c] if isinstance(c, int) else df[c]).tolist() for c in (fn_col, label_col))
        return cls.from_lists(path, [Path(folder or "") / f"{name}{suffix}" for name in names], labels, **kwargs)

    @classmethod
    def from_csv(cls, path: Path | str, folder: Path | str | None = None, csv_labels: Path | str = "labels.csv",
                 **kwargs: Any) -> ImageDataBunch:
        """`from_df` with the table in the file `path/csv_labels`, which has a header."""
        import pandas as pd
        return cls.from_df(path, pd.read_csv(Path(path) / csv_labels), folder, **kwargs)

    @classmethod
    def _create(cls, path: Path | str, train: Labelled, valid: Labelled, test: Sequence[Path] = (), *,
                classes: Sequence[Any] | None = None, bs: int = 64, val_bs: int | None = None, size: Any = None,
                ds_tfms: Any = None, num_workers: int = 0, device: torch.device | str | None = None,
                seed: int | None = None, max_memory: int = 2**30) -> ImageDataBunch:
        size, seed, (train_tfms, valid_tfms) = as_size(size), loaders.settled(seed), _two_lists(ds_tfms)
        device = loaders.default_device() if device is None else loaders.resolved(device)
        classes = _classes(train[1], valid[1], classes)
        index = {c: i for i, c in enumerate(classes)}
        items = [list(train[0]), list(valid[0]), list(test)]
        labels = [torch.tensor(part, dtype=torch.long) for part in (
            [index[c] for c in train[1]], [index[c] for c in valid[1]], [0] * len(test))]
        images = _in_memory(sum(items, []), size, max_memory, may_differ=bool(train_tfms or valid_tfms))
        if images is not None:
            size = (images.shape[2], images.shape[3])
        on_cpu, on_device = (_parts(images, items, where) for where in ("cpu", device))

        def dl(k: int, tfms: Sequence[Transform], bs: int, train: bool = False) -> Loader:
            ds = ImageDataset(items[k], labels[k], classes, on_cpu[k], size, tfms)
            x = on_device[k]
            if x is None or tfms:
                return ItemLoader(ds, bs, train, train, seed, num_workers, collate)
            return TensorLoader(x, ds.y.to(device), bs, train, train, seed, ds)

        train_dl = loaders.filled(dl(0, train_tfms, bs, train=True))
        valid_dl, test_dl, fix_dl = (dl(k, valid_tfms, bs if val_bs is None else val_bs) if items[k] else None
                                     for k in (1, 2, 0))
        data = cls(train_dl, valid_dl, test_dl, device, path, CrossEntropyFlat(), classes, fix_dl)
        data.size = size or (None if train_tfms or valid_tfms else picture_shape(items[0][0]))
        data.valid_tfms = valid_tfms
        data.add_tfm(float_batch)
        return data

    # ---- what is done with them

    def normalize(self, stats: tuple[Sequence[float], Sequence[float]] | None = None) -> ImageDataBunch:
        """Subtract each channel's mean and divide by its standard deviation, in all batches; returns the data itself.

        `stats`: (means, standard deviations), of pixels in [0, 1]; default: those of the training pictures (of 2,000 of
        them at even distances, where they are not in memory). RuntimeError if it is done already, ValueError for a
        standard deviation of 0.
        """
        if self.norm is not None:
            raise RuntimeError("the data is normalised already")
        if stats is None and not isinstance(self.train_ds, ImageDataset):
            raise ValueError("these batches come from elsewhere and are not measured: give stats=(means, deviations)")
        self.norm = Normalizer(*(stats or _measured(self.train_ds)), self.device)
        self.add_tfm(self.norm)
        return self

    def denorm(self, x: Tensor) -> Tensor:
        """Pictures as they were before `normalize`."""
        return x if self.norm is None else self.norm.undo(x)

    def prepare_item(self, item: Any) -> Tensor:
        """One picture as a batch (1, 3, H, W) for the model: a path or PIL image goes the way of the validation
        pictures, scaled to their size; a tensor is taken as the dataset gives it, bytes or floats in [0, 1]."""
        image = pixels(item, self.size)
        if not isinstance(item, Tensor):
            image = transformed(image.repeat(3 // image.shape[0], 1, 1), self.valid_tfms)
        return self._prepared(as_floats(image[None])[0])

    def show_batch(self, rows: int = 5, ds_type: DatasetType = DatasetType.Train,
                   figsize: tuple[float, float] | None = None, return_fig: bool = False) -> Any:
        """Draw up to `rows` x `rows` pictures of a batch with their classes; returns the figure with `return_fig`."""
        import matplotlib.pyplot as plt
        x, y = self.one_batch(ds_type)
        figsize = figsize or (1.6 * rows, 1.8 * rows)
        fig, axes = plt.subplots(rows, rows, figsize=figsize, layout="constrained", squeeze=False)
        for ax in axes.flat:
            ax.axis("off")
        for ax, image, label in zip(axes.flat, x.clamp(0, 1), y.tolist(), strict=False):
            ax.imshow(image.permute(1, 2, 0).numpy())
            ax.set_title(str(label if self.classes is None else self.classes[label]))
        if return_fig:
            return fig
        show(fig)
        return None


def _found(path: Path) -> list[Path]:
    items = get_image_files(path, recurse=True)
    if not items:
        raise ValueError(f"there are no pictures in {path}")
    return items


def _by_folder(items: Sequence[Path]) -> Labelled:
    return items, [item.parent.name for item in items]


def _split(items: Sequence[Path], labels: Sequence[Any], pct: float, seed: int | None) -> tuple[Labelled, Labelled]:
    """Training and validation part, drawn at random; both in the order that was given."""
    n = int(len(items) * pct) if 0 < pct < 1 else 0
    if not 0 < n < len(items):
        raise ValueError(f"valid_pct={pct} of {len(items)} pictures: it must be between 0 and 1, and leave some to "
                         "train on and some to validate on")
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(loaders.settled(seed))).tolist()

    def part(rows: list[int]) -> Labelled:
        return [items[i] for i in rows], [labels[i] for i in rows]
    return part(sorted(order[n:])), part(sorted(order[:n]))


def _classes(train: Sequence[Any], valid: Sequence[Any], classes: Sequence[Any] | None) -> list[Any]:
    """The classes, checked: there are two or more, and each label is one of them."""
    labels = set(train)
    classes = sorted(labels) if classes is None else list(classes)
    for label in sorted(labels.union(valid).difference(classes), key=str):
        raise ValueError(f"the label {label!r} is none of the classes of the training pictures, {classes}."
                         + did_you_mean(label, map(str, classes)))
    if len(classes) < 2:
        raise ValueError(f"all training pictures are of one class, {classes[0]!r}: there is nothing to tell apart (a "
                         "picture's class is the name of its folder, unless labels are given)")
    return classes


def _two_lists(ds_tfms: Any) -> tuple[list[Transform], list[Transform]]:
    if ds_tfms is None:
        return [], []
    if not isinstance(ds_tfms, (list, tuple)) or len(ds_tfms) != 2:
        raise ValueError("ds_tfms must be a pair: (transforms for training, transforms for validation), each None, a "
                         f"function or a list of functions; not {ds_tfms!r}")
    return listify(ds_tfms[0]), listify(ds_tfms[1])


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


def collate(items: list[tuple[Tensor, Tensor]]) -> Any:
    """A batch of pictures; ValueError if their sizes differ."""
    shapes = {tuple(x.shape) for x, _ in items}
    if len(shapes) > 1:
        raise DifferentSizes(f"pictures of one batch have the shapes {' and '.join(map(str, sorted(shapes)))}: give "
                             "size=, or a transform that brings all to one")
    return default_collate(items)


def _measured(ds: ImageDataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, exact for the pictures that are looked at."""
    some = range(0, len(ds), -(-len(ds) // TO_MEASURE))
    images = (ds.raw(i) for i in some) if ds.images is None else [ds.images.transpose(0, 1)]
    counts = torch.zeros(1, 256, dtype=torch.float64)
    for image in images:
        counts = counts + torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in image])
    values, share = torch.arange(256, dtype=torch.float64) / 255, counts / counts.sum(1, keepdim=True)
    mean = share @ values
    return mean.tolist(), (share @ values**2 - mean**2).sqrt().tolist()
