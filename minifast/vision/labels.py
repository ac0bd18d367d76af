"""Labels and the targets that they become: one class, several classes, or quantities; and tables to read them from."""
from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import did_you_mean
from ..losses import BCEWithLogitsFlat, CrossEntropyFlat, MSELossFlat
from ..utils import listify

__all__ = ["Labels", "CategoryList", "MultiCategoryList", "FloatList", "labels_of", "plain_labels", "read_table",
           "table_columns"]

NO_VALUE = {"", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "null", "NULL", "None"}   # what programs write for it
WHOLE = re.compile(r"0|-?[1-9]\d*")                                                # 007 is a name
NUMBER = re.compile(rf"{WHOLE.pattern}|-?(0|[1-9]\d*)(\.\d+([eE][+-]?\d+)?|[eE][+-]?\d+)")


class Labels:
    """How the labels of a data set become targets.

    Made from all labels that occur. `classes`: the names of the classes in their order, None if there are none.
    `loss_func`: the loss that fits the targets.
    """

    classes: list[Any] | None = None
    loss_func: Callable[..., Tensor]

    def __init__(self, labels: Sequence[Any], classes: Sequence[Any] | None = None) -> None:
        raise NotImplementedError

    def targets(self, labels: Sequence[Any]) -> Tensor:
        """The targets of these labels, a row for each."""
        raise NotImplementedError

    def blank(self, n: int) -> Tensor:
        """Targets of `n` inputs without labels: zeros of the right shape."""
        raise NotImplementedError

    def text(self, target: Tensor) -> str:
        """A target as text, for the title of a picture."""
        raise NotImplementedError


class CategoryList(Labels):
    """One class for each picture: the target is the number of its class, (n,) int64; the loss is `CrossEntropyFlat`.

    labels: all labels, each a plain value.
    classes: the names of the classes in their order; default: the labels that occur, sorted.

    ValueError if there are fewer than two classes, or a label is none of `classes`.

    >>> CategoryList(["cat", "dog", "cat"]).targets(["dog", "cat"])
    tensor([1, 0])
    """

    def __init__(self, labels: Sequence[Any], classes: Sequence[Any] | None = None) -> None:
        self.classes: list[Any] = _classes(labels, classes)
        self.loss_func = CrossEntropyFlat()
        if len(self.classes) < 2:
            raise ValueError(f"all training pictures are of one class, {self.classes[0]!r}: there is nothing to tell "
                             "apart (a picture's class is the name of its folder, unless labels are given)")

    def targets(self, labels: Sequence[Any]) -> Tensor:
        index = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([index[label] for label in labels], dtype=torch.long)

    def blank(self, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.long)

    def text(self, target: Tensor) -> str:
        return str(self.classes[int(target)])


class MultiCategoryList(Labels):
    """Several classes for each picture: the target has a 1 for each class that applies and 0 for all others, (n, number
    of classes) float; the loss is `BCEWithLogitsFlat`.

    labels: a list of labels for each picture.
    classes: the names of the classes in their order; default: the labels that occur, sorted.

    ValueError if a label is none of `classes`.

    >>> MultiCategoryList([["sun", "sea"], ["sea"], []]).targets([["sea"]])
    tensor([[1., 0.]])
    """

    def __init__(self, labels: Sequence[Any], classes: Sequence[Any] | None = None) -> None:
        self.classes: list[Any] = _classes([one for several in labels for one in several], classes)
        self.loss_func = BCEWithLogitsFlat()

    def targets(self, labels: Sequence[Any]) -> Tensor:
        index = {name: i for i, name in enumerate(self.classes)}
        targets = self.blank(len(labels))
        for row, several in zip(targets, labels, strict=True):
            row[[index[label] for label in several]] = 1
        return targets

    def blank(self, n: int) -> Tensor:
        return torch.zeros(n, len(self.classes))

    def text(self, target: Tensor) -> str:
        return "; ".join(str(name) for name, applies in zip(self.classes, target.tolist(), strict=True) if applies)


class FloatList(Labels):
    """A quantity for each picture, or several: the target is the number itself, (n,) or (n, k) float32; the loss is
    `MSELossFlat`.

    labels: numbers, or lists of them of one length.
    log: the targets are the natural logarithms of the labels.

    ValueError for a label that is no finite number (with `log`, not above 0), or lists of different lengths.

    >>> FloatList([0.5, 2.0]).targets([2.0])
    tensor([2.])
    """

    def __init__(self, labels: Sequence[Any], classes: Sequence[Any] | None = None, log: bool = False) -> None:
        if classes is not None:
            raise ValueError("quantities have no classes: leave out classes=, or label_cls=FloatList")
        self.log, self.loss_func = log, MSELossFlat()
        self.width = {len(label) if isinstance(label, list) else None for label in labels}
        if len(self.width) > 1:
            raise ValueError("some pictures have more quantities than others: each must have as many")
        self.targets(labels)

    def targets(self, labels: Sequence[Any]) -> Tensor:
        for label in labels:
            for x in label if isinstance(label, list) else [label]:
                if isinstance(x, bool) or not isinstance(x, (int, float)) or not math.isfinite(x):
                    raise ValueError(f"the label {x!r} is no finite number, and quantities must be")
                if self.log and x <= 0:
                    raise ValueError(f"the label {x!r} has no logarithm: leave out log=True")
        targets = torch.tensor(labels, dtype=torch.float64)
        return (targets.log() if self.log else targets).float()

    def blank(self, n: int) -> Tensor:
        [width] = self.width
        return torch.zeros(n) if width is None else torch.zeros(n, width)

    def text(self, target: Tensor) -> str:
        values = (target.exp() if self.log else target).reshape(-1).tolist()
        return ", ".join(f"{x:.4g}" for x in values)


def _classes(labels: Sequence[Any], classes: Sequence[Any] | None) -> list[Any]:
    """The classes, checked: each label is one of them, and none occurs twice."""
    occur = set(labels)
    if classes is None:
        try:
            return sorted(occur)
        except TypeError:
            kinds = {type(label).__name__: label for label in occur}
            raise TypeError("labels must be of one type to be sorted, and there are "
                            + " and ".join(f"{name} ({label!r})" for name, label in kinds.items())
                            + ": make them all strings, or give classes= in their order") from None
    if isinstance(classes, (str, bytes)):
        raise TypeError(f"classes must be a list of names, not {classes!r}")
    names: list[Any] = plain(classes)
    if len(set(names)) < len(names):
        raise ValueError(f"a class occurs twice in classes={names}")
    for label in sorted(occur.difference(names), key=str):
        some = f"{names[:20]}{' and others' * (len(names) > 20)}"
        raise ValueError(f"the label {label!r} is none of the classes {some}."
                         + did_you_mean(label, map(str, names)))
    return names


def labels_of(labels: Sequence[Any], classes: Sequence[Any] | None = None, label_cls: type[Labels] | None = None,
              **options: Any) -> Labels:
    """What plain labels are: lists are several labels each (or quantities, if they are floats), floats are quantities,
    all others one class each. `label_cls`, given or implied by `classes`, decides where that is not meant."""
    if label_cls is None:
        several = any(isinstance(label, list) for label in labels)
        values = [x for label in labels for x in (label if isinstance(label, list) else [label])]
        if several and not all(isinstance(label, list) for label in labels):
            raise TypeError("some pictures have a list of labels and others one label: give each a list")
        floats = any(isinstance(x, float) for x in values)
        if classes is None and floats and all(isinstance(x, (int, float)) for x in values):
            if not several and all(float(x).is_integer() for x in values):
                raise ValueError("the labels are floats and all of them whole numbers, so they may be classes or "
                                 "quantities: make them int for classes, or give label_cls=FloatList for quantities "
                                 "(regression)")
            label_cls = FloatList
        else:
            label_cls = MultiCategoryList if several else CategoryList
    if not (isinstance(label_cls, type) and issubclass(label_cls, Labels)):
        raise TypeError(f"label_cls must be CategoryList, MultiCategoryList or FloatList, not {label_cls!r}")
    return label_cls(labels, classes, **options)


def plain(x: Any) -> Any:
    """A label as a plain Python value: numpy's and torch's numbers and strings too; several as a list."""
    if isinstance(x, (np.generic, np.ndarray, Tensor)):
        x = x.tolist()
    return [plain(part) for part in x] if isinstance(x, (list, tuple, set, frozenset)) else x


def plain_labels(labels: Any, items: Sequence[Any], label_delim: str | None = None) -> list[Any]:
    """The label of each item as a plain value, cut at `label_delim` into several. ValueError that names the first rows
    and items that have none."""
    labels = plain(labels.tolist() if hasattr(labels, "tolist") else list(labels))
    if len(labels) != len(items):
        raise ValueError(f"there are {len(items)} file names and {len(labels)} labels")
    if missing := [i for i, label in enumerate(labels) if _is_missing(label)]:
        some = ", ".join(f"row {i} ({items[i]})" for i in missing[:5]) + ", ..." * (len(missing) > 5)
        raise ValueError(f"{len(missing)} of {len(labels)} pictures ha{'ve' if len(missing) > 1 else 's'} no label: "
                         f"{some}. Fill in what is missing, or leave such rows out (dropna() of a data frame)")
    if label_delim is None:
        return labels  # type: ignore[no-any-return]
    if wrong := [label for label in labels if not isinstance(label, str)]:
        raise TypeError(f"label_delim cuts strings into several labels, and there is {wrong[0]!r}")
    return [[part.strip() for part in label.split(label_delim) if part.strip()] for label in labels]


def _is_missing(label: Any) -> bool:
    if isinstance(label, list):
        return any(map(_is_missing, label))
    if isinstance(label, str):
        return not label.strip()
    # pandas has its own words for it, which compare to nothing
    return label is None or type(label).__name__ in ("NAType", "NaTType") or bool(label != label)


def read_table(file: os.PathLike[str] | str, names: Any, header: Any = "infer", delimiter: str | None = None) -> Any:
    """A data frame of a text file. Columns of numbers or of True and False become such; in all others, and in the
    columns `names`, each value stays the text that it is: "NA" and "001" are names."""
    import pandas as pd
    try:
        df = pd.read_csv(file, dtype=str, keep_default_na=False, header=header, sep=delimiter or ",")
    except (ValueError, pd.errors.ParserError) as e:
        raise ValueError(f"{file} cannot be read as a table: {e}") from e
    as_text = [df.columns.get_loc(column(df, c).name) for c in (names if isinstance(names, list) else [names])]
    for i in range(df.shape[1]):
        if i not in as_text:
            df.isetitem(i, pd.array(_typed(df.iloc[:, i].tolist()), dtype=object))
    return df


def _typed(values: list[str]) -> list[Any]:
    """Text as whole numbers, floats or truth values where all are such, None for what is missing among these."""
    present = [v for v in values if v.strip() not in NO_VALUE]
    if not present:
        return values
    change: Callable[[str], Any]
    if all(WHOLE.fullmatch(v) for v in present):
        change = int
    elif all(NUMBER.fullmatch(v) for v in present):
        change = float
    elif all(v.lower() in ("true", "false") for v in present):
        change = lambda v: v.lower() == "true"
    else:
        return values
    return [None if v.strip() in NO_VALUE else change(v) for v in values]


def column(df: Any, which: Any) -> Any:
    """A column of a data frame by its name or its number; ValueError that names the columns that there are."""
    if not hasattr(df, "iloc") or not hasattr(df, "columns"):
        raise TypeError(f"a table must be a pandas DataFrame, not {type(df).__name__}")
    names = list(df.columns)
    if isinstance(which, int):
        if -len(names) <= which < len(names):
            return df.iloc[:, which]
    elif which in names:
        return df[which]
    raise ValueError(f"there is no column {which!r} in the table; it has {names}."
                     + did_you_mean(str(which), map(str, names)))


def table_columns(df: Any, fn_col: int | str, label_col: int | str | list[int | str]) -> tuple[list[Any], list[Any]]:
    """The file names and the labels of a table. ValueError that names a row without a file name."""
    names = column(df, fn_col).tolist()
    for row, name in enumerate(names):
        if not isinstance(name, (str, int, os.PathLike)) or not str(name).strip():
            raise ValueError(f"row {row} of the table has no file name in column {fn_col!r}, but {name!r}")
    columns = [column(df, which).tolist() for which in listify(label_col)]
    return names, columns[0] if len(columns) == 1 else [list(row) for row in zip(*columns, strict=True)]
