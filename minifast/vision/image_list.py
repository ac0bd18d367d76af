"""`ImageList`: the beginning of the chain from files to batches, `ImageList`, `split_...`, `label_...`, `databunch`."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import loaders
from ..checks import as_path, positive_int
from ..utils import listify
from .folders import find_pictures
from .labelled import Pictures, SplitPictures, Step, table_of
from .labels import Labels
from .loading import split_rows
from .masks import SegmentationLabelList
from .tables import column, file_names, read_table

__all__ = ["ImageList", "SegmentationItemList"]


class ImageList(Step):
    """Pictures without labels: the beginning of the chain that ends in an `ImageDataBunch`.

    Made by `from_folder`, `from_df` and `from_csv`, or from a list of files:

    items: the files, in order.
    path: the folder that they lie in, which the later steps look at.
    table: a data frame with a row for each item, or None.

    >>> from PIL import Image
    >>> for name in ("cat", "dog"):
    ...     Path(name).mkdir()
    ...     for i in range(5):
    ...         Image.new("RGB", (8, 6), (20 * i, 0, 0)).save(f"{name}/{i}.png")
    >>> data = (ImageList.from_folder(".").split_by_rand_pct(0.2, seed=42).label_from_folder()
    ...         .transform(size=4).databunch(bs=4, device="cpu"))
    >>> data.classes, tuple(data.one_batch()[0].shape)
    (['cat', 'dog'], (4, 3, 4, 4))
    """

    label_cls: type[Labels] | None = None

    def __init__(self, items: Iterable[Path | str], path: Path | str = ".", table: Any = None) -> None:
        self.items, self.path, self.table = [Path(item) for item in items], as_path("path", path), table
        if not self.items:
            raise ValueError(f"there are no pictures in {self.path}")

    @classmethod
    def from_folder(cls, path: Path | str, extensions: Iterable[str] | None = None, recurse: bool = True,
                    include: Iterable[str] | None = None) -> ImageList:
        """All pictures of a folder, in sorted order; see `get_image_files` for which files are pictures.

        extensions: only files of these suffixes, such as ".jpg"; None: all that are pictures.
        recurse: also in the folders below.
        include: of the folders directly below, only these names; None: all.
        """
        path = as_path("path", path)
        items = find_pictures([path], recurse)[0]
        if extensions is not None:
            suffixes = tuple(f".{e.removeprefix('.')}".lower() for e in listify(extensions))
            items = [item for item in items if item.name.lower().endswith(suffixes)]
        if include is not None:
            items = [item for item in items if item.relative_to(path).parts[0] in set(include)]
        return cls(items, path)

    @classmethod
    def from_df(cls, df: Any, path: Path | str = ".", cols: int | str = 0, folder: Path | str | None = None,
                suffix: str = "") -> ImageList:
        """The files named in a column of a table.

        df: a pandas DataFrame; `label_from_df` and `split_from_df` look at its other columns.
        path, folder: the names are relative to `path/folder`.
        cols: the column, by name or number.
        suffix: what the names lack, ".jpg" for example.
        """
        path = as_path("path", path)
        return cls([path / (folder or "") / f"{name}{suffix}" for name in file_names(df, cols)], path, df)

    @classmethod
    def from_csv(cls, path: Path | str, csv_name: Path | str, header: Any = "infer", delimiter: str | None = None,
                 cols: int | str = 0, folder: Path | str | None = None, suffix: str = "") -> ImageList:
        """`from_df` with the table in the file `path/csv_name`.

        header: the row of the columns' names; None if there is none.
        delimiter: what parts the columns; None: a comma.
        """
        path = as_path("path", path)
        return cls.from_df(read_table(path / csv_name, cols, header, delimiter), path, cols, folder, suffix)

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} pictures of {self.path}, the first is {self.items[0]})"

    def _only(self, rows: Sequence[int]) -> ImageList:
        """These rows; the table's too."""
        part = object.__new__(type(self))
        part.items, part.path = [self.items[i] for i in rows], self.path
        part.table = None if self.table is None else self.table.iloc[list(rows)]
        return part

    def _kept(self, keep: Callable[[Path], Any]) -> ImageList:
        part = self._only([i for i, item in enumerate(self.items) if keep(item)])
        if not part.items:
            raise ValueError(f"none of the {len(self)} pictures of {self.path} is left")
        return part

    # ---- fewer pictures

    def filter_by_func(self, func: Callable[[Path], Any]) -> ImageList:
        """Those for whose path `func` returns true."""
        return self._kept(func)

    def filter_by_folder(self, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None) -> ImageList:
        """Those whose folder directly below `path` is one of `include` (None: any) and none of `exclude`."""
        wanted, unwanted = None if include is None else set(include), set(exclude or ())

        def keep(item: Path) -> bool:
            first = item.relative_to(self.path).parts[0]
            return (wanted is None or first in wanted) and first not in unwanted
        return self._kept(keep)

    def filter_by_rand(self, p: float, seed: int | None = None) -> ImageList:
        """Each with probability `p`, drawn by `seed` (None: from torch's global generator)."""
        if not 0 < p <= 1:
            raise ValueError(f"p is a probability, above 0 and up to 1, not {p}")
        gen = torch.Generator().manual_seed(loaders.seed_or_drawn(seed))
        drawn = iter((torch.rand(len(self), generator=gen) < p).tolist())
        return self._kept(lambda item: next(drawn))

    def use_partial_data(self, sample_pct: float = 0.01, seed: int | None = None) -> ImageList:
        """A random part `sample_pct` of them, drawn by `seed` (None: from torch's global generator)."""
        return self._only(split_rows(len(self), sample_pct, seed)[1])

    # ---- into training and validation data

    def split_none(self) -> SplitPictures:
        """All for training, none for validation."""
        return self._split(range(len(self)), [])

    def split_by_rand_pct(self, valid_pct: float = 0.2, seed: int | None = None) -> SplitPictures:
        """A random part `valid_pct` validates, drawn by `seed` (None: from torch's global generator)."""
        return self._split(*split_rows(len(self), valid_pct, seed))

    def split_subsets(self, train_size: float, valid_size: float, seed: int | None = None) -> SplitPictures:
        """A random part `train_size` trains and another, `valid_size`, validates; the rest is left out."""
        if not (train_size > 0 and valid_size > 0 and train_size + valid_size <= 1):
            raise ValueError(f"train_size={train_size} and valid_size={valid_size} are shares of the pictures, above 0 "
                             "and together at most 1")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(loaders.seed_or_drawn(seed))).tolist()
        train, valid = int(len(self) * train_size), int(len(self) * valid_size)
        return self._split(sorted(order[valid:valid + train]), sorted(order[:valid]))

    def split_by_folder(self, train: str = "train", valid: str = "valid") -> SplitPictures:
        """What lies in `path/train` trains, what lies in `path/valid` validates, all else is left out."""
        first = [item.relative_to(self.path).parts[0] for item in self.items]
        for name in (train, valid):
            if name not in first:
                raise ValueError(f"there are no pictures in {self.path / name}; there are some in "
                                 f"{', '.join(sorted(set(first))[:9])}")
        split = self._split(*([i for i, name in enumerate(first) if name == which] for which in (train, valid)))
        split.by_folder = True
        return split

    def split_by_idx(self, valid_idx: Sequence[int]) -> SplitPictures:
        """The items of these numbers validate, all others train."""
        valid = self._rows("valid_idx", valid_idx)
        return self._split(sorted(set(range(len(self))).difference(valid)), valid)

    def split_by_idxs(self, train_idx: Sequence[int], valid_idx: Sequence[int]) -> SplitPictures:
        """The items of the first numbers train, those of the second validate, all others are left out."""
        train, valid = self._rows("train_idx", train_idx), self._rows("valid_idx", valid_idx)
        if both := set(train) & set(valid):
            raise ValueError(f"item {min(both)} would both train and validate")
        return self._split(train, valid)

    def split_by_valid_func(self, func: Callable[[Path], Any]) -> SplitPictures:
        """The items for whose path `func` returns true validate, all others train."""
        return self.split_by_idx([i for i, item in enumerate(self.items) if func(item)])

    def split_by_files(self, valid_names: Iterable[Path | str]) -> SplitPictures:
        """The files of these names (without folders) validate, all others train."""
        names = {Path(name).name for name in valid_names}
        if missing := names.difference(item.name for item in self.items):
            raise ValueError(f"{len(missing)} of the {len(names)} names are none of the pictures', for example "
                             f"{min(missing)!r}")
        return self.split_by_valid_func(lambda item: item.name in names)

    def split_by_fname_file(self, fname: Path | str, path: Path | str | None = None) -> SplitPictures:
        """`split_by_files` with the names in a text file, one a line; it lies in `path` (default: the pictures')."""
        lines = (Path(self.path if path is None else path) / fname).read_text().splitlines()
        return self.split_by_files(line.strip() for line in lines if line.strip())

    def split_from_df(self, col: int | str = 2) -> SplitPictures:
        """Rows whose value in the column `col` is true (or 1) validate, all others train."""
        values = column(table_of(self), col).tolist()
        for row, value in enumerate(values):
            if value not in (True, False):
                raise ValueError(f"row {row} has {value!r} in column {col!r}, which must be true or false")
        return self.split_by_idx([i for i, value in enumerate(values) if value])

    def _rows(self, name: str, rows: Iterable[int]) -> list[int]:
        rows = [positive_int(name, row, or_zero=True) for row in rows]
        if rows and max(rows) >= len(self):
            raise ValueError(f"{name} has {max(rows)}, and there are {len(self)} pictures")
        if len(set(rows)) < len(rows):
            raise ValueError(f"{name} has a number twice")
        return rows

    def _split(self, train: Sequence[int], valid: Sequence[int]) -> SplitPictures:
        if not len(train):
            raise ValueError(f"all {len(valid)} pictures would validate, and none train")
        first, second = (Pictures(part.items, part.path, part.table) for part in map(self._only, (train, valid)))
        return SplitPictures(first, second, self.label_cls)


class SegmentationItemList(ImageList):
    """Pictures whose labels are masks: `label_from_func` gives each picture's file of them.

    >>> from PIL import Image
    >>> for i in range(4):
    ...     Image.new("RGB", (8, 6)).save(f"{i}.jpg")
    ...     Image.new("L", (8, 6), i % 2).save(f"{i}_mask.png")
    >>> data = (SegmentationItemList.from_folder(".", extensions=".jpg").split_by_idx([3])
    ...         .label_from_func(lambda file: f"{file.stem}_mask.png", classes=["road", "sky"])
    ...         .databunch(bs=2, device="cpu"))
    >>> tuple(data.one_batch()[1].shape)
    (2, 6, 8)
    """

    label_cls = SegmentationLabelList
