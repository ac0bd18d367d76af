"""`ImageDataBunch`: pictures from folders, tables and lists, as batches."""
from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from ..checks import as_path
from ..data import DataBunch, DatasetType
from ..device_loader import DeviceDataLoader
from ..inference import loader_for
from ..loaders import ItemLoader
from ..utils import listify
from .augment import Augment
from .dataset import ImageDataset, Normalizer, Transform, channel_stats, collate, collate_any, float_batch
from .folders import find_pictures, folder_classes
from .image import Fit, Size
from .labels import CategoryList, Labels, first_group, plain_labels
from .loading import Options, make, split_at_random
from .recipe import picture_recipe, single_from_classes
from .show import Looking
from .tables import file_names, label_columns, read_table
from .tta import tta_loaders

__all__ = ["ImageDataBunch", "mnist_stats", "cifar_stats", "imagenet_stats"]

# mean and standard deviation of each channel, pixels in [0, 1]
mnist_stats = ([0.131] * 3, [0.308] * 3)
cifar_stats = ([0.491, 0.482, 0.447], [0.247, 0.243, 0.261])
imagenet_stats = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class ImageDataBunch(Looking, DataBunch):
    """Pictures as batches: x float (n, 3, H, W) in [0, 1] unless normalised, y what `labels` makes of the labels.

    Made by `from_folder`, `from_csv`, `from_df`, `from_lists`, `from_name_func` and `from_name_re`, which all take:

    bs, val_bs: batch sizes for training and where nothing is learned (default of the second: the first).
    size: height and width (one number: both) to scale and centre-crop to; without it all pictures must have one size.
    ds_tfms: (for training, for all other uses), as `get_transforms` makes them; each None, a function of a picture (3,
        H, W) uint8 or a list of them, torchvision's for example; it may return uint8, floats in [0, 1] or a PIL image.
    resize_method, padding_mode: how `get_transforms`' bring pictures to `size`, and what lies beyond their borders, see
        `Augment`.
    num_workers: processes that decode and transform picture by picture; 0: this process.
    device: where batches go; default is the GPU if there is one.
    seed: of the order of training, of what transforms draw, and of a random split; None draws one.
    max_memory: in bytes. Pictures are decoded once and kept if all of them, in colour, need no more than this; else
        they are decoded each time.
    classes: the names of the classes in their order; default: sorted.
    label_cls: what the labels are: `CategoryList`, `MultiCategoryList` or `FloatList`; default: see `labels_of`.
    sampler: which pictures an epoch takes, for example "balanced": see `use_sampler`; default: all.

    >>> from PIL import Image
    >>> for name in ("cat", "dog"):
    ...     Path(name).mkdir()
    ...     for i in range(5):
    ...         Image.new("RGB", (8, 6), (20 * i, 0, 0)).save(f"{name}/{i}.png")
    >>> data = ImageDataBunch.from_folder(".", valid_pct=0.2, seed=0, bs=4, device="cpu")
    >>> data.classes, len(data.train_ds), tuple(data.one_batch()[0].shape)
    (['cat', 'dog'], 8, (4, 3, 6, 8))
    """

    size: Size | None = None
    fit: Fit = None
    valid_tfms: Sequence[Transform] = ()
    num_workers: int = 0
    norm: Normalizer | None = None
    labels: Labels | None = None

    # ---- where they come from

    @classmethod
    def from_folder(cls, path: Path | str, train: str = "train", valid: str = "valid", test: str | None = None,
                    valid_pct: float | None = None, seed: int | None = None,
                    **kwargs: Unpack[Options]) -> ImageDataBunch:
        """From `path/train/<class>/...` and `path/valid/<class>/...`: a picture's class is the name of its folder.

        path: the folder of all; see `get_image_files` for which files are pictures.
        train, valid: the names of the folders below it.
        test: the name of a folder of pictures without classes; None: there is none.
        valid_pct: instead of using the folders `train` and `valid`, this part of all pictures under `path` (without
            those of `test`), drawn at random, validates.
        seed, kwargs: see the class.

        FileNotFoundError or ValueError that names what is missing, unreadable or does not fit.
        """
        path = as_path("path", path)
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        if valid_pct is None and not (path / valid).is_dir():
            raise FileNotFoundError(f"there is no folder {path / valid} to validate on: give valid= another name, or "
                                    "valid_pct=0.2 to hold back a random fifth of the pictures")
        folders = [path] if valid_pct is not None else [path / train, path / valid]
        *found, tests = find_pictures([*folders, path / test] if test else folders) + [[]] * (not test)
        for folder, items in zip([*folders, path / (test or "")], [*found, tests], strict=True):
            if not items and (test or items is not tests):
                raise ValueError(f"there are no pictures in {folder}")
        if valid_pct is not None:
            held_back = set(tests)
            items = [item for item in found[0] if item not in held_back]
            sets = split_at_random(items, folder_classes(items), valid_pct, seed)
        else:
            sets = (found[0], folder_classes(found[0])), (found[1], folder_classes(found[1]))
            if kwargs.get("classes") is None:
                CategoryList(sets[1][1], sorted(set(sets[0][1])))   # a class that is in `valid` alone is a mistake
        return make(cls, path, *sets, tests, seed=seed, **kwargs)

    @classmethod
    def from_lists(cls, path: Path | str, fnames: Sequence[Path | str], labels: Sequence[Any], valid_pct: float = 0.2,
                   seed: int | None = None, label_delim: str | None = None,
                   **kwargs: Unpack[Options]) -> ImageDataBunch:
        """From file names and their labels.

        path: the folder that the names are relative to.
        fnames: the files (relative to `path`, or absolute).
        labels: one for each: a string, a whole number, ... is a class, a float a quantity, a list several labels.
        valid_pct: the part of all, drawn at random, that validates.
        label_delim: what parts several labels in one string; None: each string is one label.
        seed, kwargs: see the class.

        ValueError that names the rows and files that have no label.
        """
        items = [Path(path) / name for name in fnames]
        plain = plain_labels(labels, [os.fspath(name) for name in fnames], label_delim)
        return make(cls, path, *split_at_random(items, plain, valid_pct, seed), seed=seed, **kwargs)

    @classmethod
    def from_name_func(cls, path: Path | str, fnames: Sequence[Path | str], label_func: Callable[[Path], Any],
                       valid_pct: float = 0.2, seed: int | None = None, label_delim: str | None = None,
                       **kwargs: Unpack[Options]) -> ImageDataBunch:
        """From file names, each one's label given by the function `label_func` of its path; all else: `from_lists`."""
        labels = [label_func(Path(name)) for name in fnames]
        return cls.from_lists(path, fnames, labels, valid_pct, seed, label_delim, **kwargs)

    @classmethod
    def from_name_re(cls, path: Path | str, fnames: Sequence[Path | str], pat: str, valid_pct: float = 0.2,
                     seed: int | None = None, label_delim: str | None = None,
                     **kwargs: Unpack[Options]) -> ImageDataBunch:
        """From file names, each one's label the first group of the regular expression `pat` found in its path (with
        forward slashes); all else: `from_lists`. ValueError that names a file in which it is not found."""
        def label(name: Path) -> str:
            return first_group(pat, name.as_posix())
        return cls.from_name_func(path, fnames, label, valid_pct, seed, label_delim, **kwargs)

    @classmethod
    def from_df(cls, path: Path | str, df: Any, folder: Path | str | None = None, fn_col: int | str = 0,
                label_col: int | str | list[int | str] = 1, suffix: str = "", valid_pct: float = 0.2,
                seed: int | None = None, label_delim: str | None = None,
                **kwargs: Unpack[Options]) -> ImageDataBunch:
        """From a table's columns of file names and of labels.

        path, folder: the names are relative to `path/folder`.
        df: a pandas DataFrame.
        fn_col, label_col: the columns, by name or number; several columns of labels: several quantities.
        suffix: what the names lack, ".jpg" for example.
        valid_pct, seed, label_delim, kwargs: see `from_lists`.
        """
        fnames = [Path(folder or "") / f"{name}{suffix}" for name in file_names(df, fn_col)]
        return cls.from_lists(path, fnames, label_columns(df, label_col), valid_pct, seed, label_delim, **kwargs)

    @classmethod
    def from_csv(cls, path: Path | str, folder: Path | str | None = None, csv_labels: Path | str = "labels.csv",
                 header: Any = "infer", fn_col: int | str = 0, label_col: int | str | list[int | str] = 1,
                 suffix: str = "", delimiter: str | None = None, valid_pct: float = 0.2, seed: int | None = None,
                 label_delim: str | None = None, **kwargs: Unpack[Options]) -> ImageDataBunch:
        """`from_df` with the table in the file `path/csv_labels`.

        header: the row of the columns' names; None if there is none.
        delimiter: what parts the columns; None: a comma.
        The other arguments: see `from_df`. Names such as "001" and "NA" stay what they are; a column of numbers only is
        one of numbers, and there "NA" is a missing value.
        """
        df = read_table(Path(path) / csv_labels, fn_col, header, delimiter)
        return cls.from_df(path, df, folder, fn_col, label_col, suffix, valid_pct, seed, label_delim, **kwargs)

    @classmethod
    def single_from_classes(cls, path: Path | str, classes: Sequence[Any], ds_tfms: Any = None, size: Any = None,
                            **kwargs: Any) -> ImageDataBunch:
        """Data without pictures, of these classes, for predictions on new ones.

        path: the folder of a learner's files. classes: their names, in their order.
        ds_tfms, size: as the data had them that the model was trained on, see the class.
        kwargs: `resize_method`, `padding_mode`, `bs`, `device`.

        >>> data = ImageDataBunch.single_from_classes(".", ["cat", "dog"], size=32).normalize(imagenet_stats)
        >>> learn = cnn_learner(data, models.resnet18, pretrained=False)
        >>> learn.predict(torch.zeros(3, 32, 32))[2].shape
        torch.Size([2])
        """
        return single_from_classes(cls, path, classes, ds_tfms, size, **kwargs)

    # ---- what is done with them

    def normalize(self, stats: tuple[Sequence[float], Sequence[float]] | None = None) -> ImageDataBunch:
        """Subtract each channel's mean and divide by its standard deviation, in all batches; returns the data itself.

        stats: (means, standard deviations), of pixels in [0, 1]; default: those of the training pictures (of 2,000 of
            them at even distances, where they are not in memory).

        RuntimeError if it is done already, ValueError for other stats or a standard deviation of 0.
        """
        if self.norm is not None:
            raise RuntimeError("the data is normalised already")
        if stats is not None and (isinstance(stats, str) or len(stats) != 2 or not all(map(np.ndim, stats))):
            raise ValueError("stats must be (means, standard deviations), a number for each channel in each, such as "
                             f"imagenet_stats, not {stats!r}")
        if stats is None and not isinstance(self.train_ds, ImageDataset):
            raise ValueError("these batches come from elsewhere and are not measured: give stats=(means, deviations)")
        self.norm = Normalizer(*(stats or channel_stats(self.train_ds)), self.device)
        self.add_tfm(self.norm)
        return self

    def denorm(self, x: Tensor) -> Tensor:
        """Pictures as they were before `normalize`."""
        return x if self.norm is None else self.norm.undo(x)

    @property
    def prepares(self) -> dict[str, Any]:
        """The classes, the `size` of pictures and the `mean` and `std` that they are normalised with, None where there
        are none: what a model that was trained on this data relies on, in plain values."""
        norm = self.norm
        return {**super().prepares, "size": None if self.size is None else list(self.size),
                "mean": None if norm is None else _short(norm.mean), "std": None if norm is None else _short(norm.std)}

    def recipe(self) -> dict[str, Any]:
        """How new pictures are prepared, in plain values, for `Learner.export`; ValueError for what is code."""
        return picture_recipe(self)

    def prepare_item(self, item: Any) -> Tensor:
        """One picture as a batch (1, 3, H, W) for the model: a path or PIL image goes the way of the validation
        pictures, scaled to their size; a tensor is taken as the dataset gives it, bytes or floats in [0, 1]."""
        x: Tensor = next(iter(self.test_on([item])))[0]
        return x

    def test_on(self, items: Sequence[Any], bs: int | None = None) -> DeviceDataLoader:
        """Batches of new pictures, prepared as for validation (scaled, transformed, normalised), in their order.

        items: paths, PIL images or tensors; one is taken as a list of one. bs: default: that of validation.

        They have no labels, so their targets are 0. FileNotFoundError that names a file that is not there.

            preds, _ = learn.get_preds(dl=data.test_on(get_image_files("new")))
        """
        items = [Path(item) if isinstance(item, str) else item for item in listify(items)]
        for item in items:
            if isinstance(item, os.PathLike) and not os.path.isfile(item):
                hint = ": get_image_files gives the pictures of a folder" * os.path.isdir(item)
                raise FileNotFoundError(f"there is no file {item}{hint}")
        y = torch.zeros(len(items), dtype=torch.long) if self.labels is None else self.labels.blank(len(items))
        like = self.valid_dl or self.fix_dl or self.train_dl
        ds = ImageDataset(items, y, self.classes, None, self.fit, self.valid_tfms)
        augmented, bs = any(isinstance(tfm, Augment) for tfm in like.tfms), bs or like.batch_size or 64
        dl = ItemLoader(ds, bs, seed=0, num_workers=self.num_workers if len(items) > bs else 0,
                        collate_fn=collate_any if augmented else collate, keep_workers=True)
        dl.seeded = augmented
        # batches from elsewhere may have come as floats
        return DeviceDataLoader(dl, self.device, [*[float_batch] * (float_batch not in like.tfms), *like.tfms])

    def augmented_dls(self, ds_type: DatasetType, scale: float) -> list[DeviceDataLoader]:
        """The pictures of that kind eight times, with the transforms for training: see `Learner.TTA`."""
        dl = loader_for(self, ds_type)
        by_item = list(getattr(self.train_ds, "tfms", ()))
        by_batch = [tfm for last in self.train_dl.tfms if isinstance(last, Augment) for tfm in last.tfms]
        if not by_item and not by_batch or not isinstance(dl.dataset, ImageDataset):
            return super().augmented_dls(ds_type, scale)
        inner = copy.copy(dl.dl)
        if by_item:
            ds = copy.copy(dl.dataset)
            ds.tfms = by_item
            inner = ItemLoader(ds, inner.batch_size, seed=inner.seed, num_workers=self.num_workers,
                               collate_fn=collate_any if by_batch else collate)
            inner.seeded = dl.dl.seeded
        dl = DeviceDataLoader(inner, dl.device, list(dl.tfms))
        return list(tta_loaders(dl, by_batch, scale)) if by_batch else [dl] * 8

    def add_test(self, items: Sequence[Any]) -> ImageDataBunch:
        """Make these pictures the test data, in place of what there was: see `test_on`. Returns the data itself."""
        self.test_dl = self.test_on(items)
        return self


def _short(x: Tensor) -> list[float]:
    """Its numbers, each with no more digits than float32 has: 0.485, not 0.48500001430511475."""
    return [float(str(value)) for value in x.flatten().cpu().numpy()]
