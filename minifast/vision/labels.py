"""Labels and the targets that they become: one class, several classes, or quantities."""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import did_you_mean
from ..losses import BCEWithLogitsFlat, CrossEntropyFlat, MSELossFlat

__all__ = ["Labels", "CategoryList", "MultiCategoryList", "FloatList", "EmptyLabelList", "first_group", "labels_of",
           "plain_labels"]


class Labels:
    """How the labels of a data set become targets.

    Made from all labels that occur. `classes`: the names of the classes in their order, None if there are none.
    `loss_func`: the loss that fits the targets.
    """

    classes: list[Any] | None = None
    loss_func: Callable[..., Tensor] | None = None

    def __init__(self, labels: Sequence[Any], classes: Sequence[Any] | None = None) -> None:
        raise NotImplementedError

    def targets(self, labels: Sequence[Any]) -> Any:
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

    ValueError if all labels are one class and `classes` does not say so, or a label is none of `classes`.

    >>> CategoryList(["cat", "dog", "cat"]).targets(["dog", "cat"])
    tensor([1, 0])
    """

    def __init__(self, labels: Sequence[Any], classes: Sequence[Any] | None = None) -> None:
        self.classes: list[Any] = _classes(labels, classes)
        self.loss_func = CrossEntropyFlat()
        if classes is None and len(self.classes) < 2:
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


class EmptyLabelList(Labels):
    """No labels: the target is 0, (n,) float, and there is no loss. The arguments are not looked at.

    >>> EmptyLabelList([None]).targets([None])
    tensor([0.])
    """

    def __init__(self, labels: Sequence[Any], classes: Sequence[Any] | None = None) -> None:
        pass

    def targets(self, labels: Sequence[Any]) -> Tensor:
        return self.blank(len(labels))

    def blank(self, n: int) -> Tensor:
        return torch.zeros(n)

    def text(self, target: Tensor) -> str:
        return ""


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


def first_group(pat: str, text: str) -> str:
    """The first group of a regular expression found in a text. ValueError if it is not found, or has no group."""
    match = re.search(pat, text)
    if match is None:
        raise ValueError(f"{pat!r} is not found in {text}")
    if not match.re.groups:
        raise ValueError(f"{pat!r} has no group: put what is the label in parentheses")
    return match[1]


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
