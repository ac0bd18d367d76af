"""The later steps of the chain from files to batches: `label_...`, `add_test`, `transform`, `databunch`."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checks import did_you_mean
from ..utils import listify
from .data import ImageDataBunch
from .dataset import transform_lists
from .folders import find_pictures, folder_classes
from .image import as_size
from .labels import CategoryList, EmptyLabelList, FloatList, Labels, first_group, labels_of, plain_labels
from .loading import make
from .masks import SegmentationLabelList
from .plan import ResizeMethod, padding_name
from .tables import label_columns

__all__ = ["Pictures", "SplitPictures", "LabelledPictures", "Step", "table_of"]

STEPS = {"split_": "an ImageList", "filter_": "an ImageList", "label_": "what split_... returns",
         "add_test": "what label_... returns", "transform": "what label_... returns",
         "databunch": "what label_... or transform returns", "normalize": "what databunch returns"}


class Step:
    """A step of the chain: a method of another step is an error that says where it belongs."""

    def __getattr__(self, name: str) -> Any:
        for method, owner in STEPS.items():
            if name.startswith(method):
                raise AttributeError(f"{name} belongs to {owner}, not to {_a(type(self).__name__)}: the order is "
                                     "ImageList.from_..., split_..., label_..., add_test, transform, databunch")
        known = [*dir(type(self)), *vars(self)]
        raise AttributeError(f"{_a(type(self).__name__)} has no {name!r}.{did_you_mean(name, known)}")


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


@dataclass
class Pictures:
    """Files, the folder that they belong to, and a table with a row for each, or None."""

    items: list[Path]
    path: Path
    table: Any = None

    def __len__(self) -> int:
        return len(self.items)


def table_of(pictures: Any) -> Any:
    """The table of pictures that have one, else a ValueError."""
    if pictures.table is None:
        raise ValueError("there is no table: these pictures come from a folder. ImageList.from_df and from_csv keep "
                         "one")
    return pictures.table


class SplitPictures(Step):
    """Training and validation pictures without labels: `train` and `valid`. The next step is `label_...`."""

    def __init__(self, train: Pictures, valid: Pictures, label_cls: type[Labels] | None = None,
                 by_folder: bool = False) -> None:
        self.train, self.valid, self.label_cls, self.by_folder = train, valid, label_cls, by_folder

    def __repr__(self) -> str:
        return f"{type(self).__name__}(to train on: {len(self.train)}, to validate on: {len(self.valid)})"

    def label_from_folder(self, classes: Sequence[Any] | None = None,
                          label_cls: type[Labels] | None = None) -> LabelledPictures:
        """A picture's class is the name of its folder.

        classes: their names in their order; default: sorted.
        label_cls: what labels are, see `labels_of`.
        """
        train, valid = (folder_classes(part.items) for part in self._parts)
        if self.by_folder and classes is None:
            CategoryList(valid, sorted(set(train)))     # a class that is only in the folder for validation is a mistake
        return self._labelled([train, valid], classes=classes, label_cls=label_cls)

    def label_from_func(self, func: Callable[[Path], Any], classes: Sequence[Any] | None = None,
                        label_cls: type[Labels] | None = None, label_delim: str | None = None,
                        **options: Any) -> LabelledPictures:
        """A picture's label is what `func` returns for its path.

        classes, label_cls: as for `label_from_folder`.
        label_delim: what parts several labels in one string.
        options: of `label_cls`, such as `log=True` of `FloatList`.
        """
        return self._labelled([[func(item) for item in part.items] for part in self._parts], label_delim,
                              classes=classes, label_cls=label_cls, **options)

    def label_from_re(self, pat: str, full_path: bool = False, classes: Sequence[Any] | None = None,
                      label_cls: type[Labels] | None = None) -> LabelledPictures:
        """A picture's label is the first group of the regular expression `pat` in its file's name.

        full_path: look in the whole path, with forward slashes, in place of the name.
        classes, label_cls: as for `label_from_folder`.
        """
        return self.label_from_func(lambda item: first_group(pat, item.as_posix() if full_path else item.name), classes,
                                    label_cls)

    def label_from_df(self, cols: int | str | list[int | str] = 1, label_delim: str | None = None,
                      classes: Sequence[Any] | None = None, label_cls: type[Labels] | None = None,
                      **options: Any) -> LabelledPictures:
        """The labels are in a column of the table.

        cols: the column, by name or number; several: as many labels (floats: quantities) for each picture.
        The other arguments: as for `label_from_func`.
        """
        labels = [label_columns(table_of(part), cols) for part in self._parts]
        return self._labelled(labels, label_delim, classes=classes, label_cls=label_cls, **options)

    def label_const(self, const: Any = 0, label_cls: type[Labels] | None = None) -> LabelledPictures:
        """All have the same label."""
        kind = label_cls or (FloatList if isinstance(const, float) else CategoryList)
        return self._labelled([[const] * len(part) for part in self._parts], label_cls=kind,
                              classes=[const] if issubclass(kind, CategoryList) else None)

    def label_empty(self) -> LabelledPictures:
        """No labels: targets are 0, and there is no loss function."""
        return self._labelled([[0] * len(part) for part in self._parts], label_cls=EmptyLabelList)

    @property
    def _parts(self) -> list[Pictures]:
        return [self.train, self.valid]

    def _labelled(self, labels: list[list[Any]], label_delim: str | None = None, **options: Any) -> LabelledPictures:
        items = [os.fspath(item) for part in self._parts for item in part.items]
        plain = plain_labels([*labels[0], *labels[1]], items, label_delim)
        options["label_cls"] = options.get("label_cls") or self.label_cls
        cut = len(self.train)
        return LabelledPictures(self.train, plain[:cut], self.valid, plain[cut:], labels_of(plain, **options))


class LabelledPictures(Step):
    """Training and validation pictures with their labels. The next steps are `add_test`, `transform` and `databunch`.

    labels: what the labels are and how they become targets.
    """

    def __init__(self, train: Pictures, train_labels: list[Any], valid: Pictures, valid_labels: list[Any],
                 labels: Labels) -> None:
        self.train, self.valid, self.labels = train, valid, labels
        self.train_labels, self.valid_labels = train_labels, valid_labels
        self.test: list[Path] = []
        self.options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return (f"{type(self).__name__}(to train on: {len(self.train)}, to validate on: {len(self.valid)}, "
                f"to test on: {len(self.test)}, classes: {self.labels.classes})")

    def add_test(self, items: Iterable[Path | str]) -> LabelledPictures:
        """Test data: these files, without labels."""
        self.test = [Path(item) for item in listify(items)]
        for item in self.test:
            if not item.is_file():
                raise FileNotFoundError(f"there is no file {item}")
        return self

    def add_test_folder(self, test_folder: Path | str = "test") -> LabelledPictures:
        """Test data: the pictures in `path/test_folder`, without labels."""
        self.test = find_pictures([self.train.path / test_folder])[0]
        if not self.test:
            raise ValueError(f"there are no pictures in {self.train.path / test_folder}")
        return self

    def transform(self, tfms: Any = None, size: Any = None, resize_method: Any = None,
                  padding_mode: str = "reflection", tfm_y: bool | None = None) -> LabelledPictures:
        """How pictures are prepared.

        tfms: (for training, for all other uses), such as `get_transforms()`; see `ImageDataBunch`.
        size, resize_method, padding_mode: as for `ImageDataBunch`; without `resize_method` pictures are cropped.
        tfm_y: v1's word for masks that are moved as their pictures are, which is always done here.
        """
        if tfm_y is False and isinstance(self.labels, SegmentationLabelList) and tfms is not None:
            raise ValueError("masks must be moved as their pictures are: leave out tfm_y=False")
        transform_lists(tfms)   # what is wrong with it is said here, not in a later step
        self.options = {"ds_tfms": tfms, "size": as_size(size), "padding_mode": padding_name(padding_mode)}
        if resize_method is not None:
            self.options["resize_method"] = ResizeMethod(resize_method)
        return self

    def databunch(self, path: Path | str | None = None, bs: int = 64, val_bs: int | None = None, num_workers: int = 0,
                  device: torch.device | str | None = None, seed: int | None = None, max_memory: int = 2**30,
                  **unknown: Any) -> ImageDataBunch:
        """The batches.

        path: where a learner's files go; default: the folder of the pictures.
        The other arguments: see `ImageDataBunch`.
        """
        return make(ImageDataBunch, self.train.path if path is None else path, (self.train.items, self.train_labels),
                    (self.valid.items, self.valid_labels), self.test, labels=self.labels, bs=bs, val_bs=val_bs,
                    num_workers=num_workers, device=device, seed=seed, max_memory=max_memory, **self.options, **unknown)
