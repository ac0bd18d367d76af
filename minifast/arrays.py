"""Arrays, data frames and single samples as tensors whose types fit a model and its loss."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .losses import BCEWithLogitsFlat, CrossEntropyFlat, MSELossFlat, task_of

__all__ = ["as_inputs", "as_targets", "batch_of_one", "is_arrays", "fitting_loss", "rows_at_random"]


def is_arrays(x: Any) -> bool:
    """Whether `x` is an array, a tensor or a data frame, or a list or tuple of nothing else."""
    if isinstance(x, (list, tuple)):
        return len(x) > 0 and all(map(is_arrays, x))
    return isinstance(x, (np.ndarray, Tensor)) or hasattr(x, "iloc")


def as_inputs(x: Any) -> Any:
    """Inputs as tensors, a row for each sample: floats, bytes and truth values as float32, other whole numbers as int64
    (they are an embedding's indices); a data frame or column as float32 (n, columns); tuples and dicts part by part.

    TypeError that names a column, or a type, which holds no numbers; ValueError for a column with missing values.

    >>> as_inputs(np.eye(2)).dtype, as_inputs({"ids": np.array([1, 2])})
    (torch.float32, {'ids': tensor([1, 2])})
    """
    if isinstance(x, Mapping):
        return {name: as_inputs(part) for name, part in x.items()}
    if isinstance(x, (list, tuple)) and is_arrays(x):
        return tuple(map(as_inputs, x))
    if hasattr(x, "iloc"):
        frame = x if x.ndim == 2 else x.to_frame()
        return torch.tensor(np.stack([_numbers_of(frame, i) for i in range(frame.shape[1])], 1))
    t = _tensor(x)
    if t.dtype in (torch.float64, torch.bool, torch.uint8, torch.int8):
        return t.float()
    return t if t.is_floating_point() or t.is_complex() else t.long()


def as_targets(y: Any, loss_func: Any = None, classes: Sequence[Any] | None = None) -> tuple[Tensor, list[Any] | None]:
    """Targets as a tensor, a row for each sample, and the names of the classes.

    y: an array, tensor, list or column. Strings and truth values are classes: the target is the class's number among
        `classes`, or among all that occur, sorted. Whole numbers stay (int64), floats are quantities (float32).
    loss_func: a loss; targets of a classifier become whole numbers, those of all other known losses floats.

    ValueError for a label that is none of `classes`, or a missing one.

    >>> as_targets(["dog", "cat", "dog"])
    (tensor([1, 0, 1]), ['cat', 'dog'])
    """
    values = y.to_numpy() if hasattr(y, "iloc") else y
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1 and hasattr(y, "columns"):
        values = values[:, 0]
    if not isinstance(values, (Tensor, np.ndarray)):
        values = np.asarray(values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "OUS" and values.ndim == 1:
        return _class_numbers(values.tolist(), classes)
    t = _tensor(values)
    if t.dtype == torch.bool:
        if t.ndim == 1:
            return t.long(), list(classes) if classes is not None else [False, True]
        t = t.float()
    task = task_of(loss_func)
    if t.is_floating_point():
        whole = task == "classes" and t.ndim == 1 and bool((t == t.round()).all())
        t = t.long() if whole else t.float()
    else:
        t = t.float() if task in ("labels", "quantities") else t.long()
    if t.is_floating_point() and bool(t.isnan().any()):
        raise ValueError(f"{int(t.isnan().sum())} targets are missing (NaN): leave such rows out")
    return t, None if classes is None else list(classes)


def fitting_loss(y: Tensor) -> Any:
    """The loss for targets without one: classes for whole numbers, quantities for floats, several labels for rows of
    nothing but 0.0 and 1.0."""
    if not y.is_floating_point():
        return CrossEntropyFlat()
    return BCEWithLogitsFlat() if y.ndim > 1 and bool(((y == 0) | (y == 1)).all()) else MSELossFlat()


def rows_at_random(n: int, valid_pct: float, seed: int) -> tuple[Tensor, Tensor]:
    """The rows to train on and those to validate on, drawn at random, both in ascending order; ValueError if one of
    the two is empty."""
    n_valid = int(n * valid_pct) if 0 < valid_pct < 1 else 0
    if not 0 < n_valid < n:
        raise ValueError(f"valid_pct={valid_pct} of {n} samples: it must be between 0 and 1, and leave some to train "
                         "on and some to validate on")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[n_valid:].sort().values, order[:n_valid].sort().values


def batch_of_one(item: Any) -> Any:
    """One sample's inputs as a batch of one: arrays, numbers and lists of numbers as tensors, tuples and dicts part by
    part. TypeError for anything else.

    >>> batch_of_one((torch.zeros(3), 5))
    (tensor([[0., 0., 0.]]), tensor([5]))
    """
    if isinstance(item, Tensor):
        return item[None]
    if isinstance(item, Mapping):
        return {name: batch_of_one(part) for name, part in item.items()}
    if isinstance(item, (list, tuple)) and not all(isinstance(part, Number) for part in item):
        return tuple(map(batch_of_one, item))
    if hasattr(item, "iloc"):
        item = item.to_numpy(dtype=np.float32)
    if isinstance(item, (np.ndarray, np.generic, Number, list, tuple)):
        return as_inputs(np.asarray(item)[None])
    raise TypeError(f"one input must be a tensor, not {type(item).__name__}; arrays, numbers, and tuples and dicts of "
                    "these are taken too")


def _tensor(x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        what = f"an array of {array.dtype}" if isinstance(x, (np.ndarray, list, tuple)) else f"a {type(x).__name__}"
        raise TypeError(f"arrays must hold numbers, and this is {what}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))


def _numbers_of(frame: Any, i: int) -> Any:
    """A column as float32."""
    name = frame.columns[i]
    try:
        values = frame.iloc[:, i].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as e:
        raise TypeError(f"the column {name!r} holds no numbers ({e}): leave it out, or turn it into numbers") from e
    if missing := int(np.isnan(values).sum()):
        raise ValueError(f"the column {name!r} has no value in {missing} rows: fill them in, or leave such rows out")
    return values.astype(np.float32)


def _class_numbers(labels: list[Any], classes: Sequence[Any] | None) -> tuple[Tensor, list[Any]]:
    missing = [row for row, label in enumerate(labels) if label is None or label != label]
    if missing:
        raise ValueError(f"{len(missing)} targets are missing, the first in row {missing[0]}: leave such rows out")
    if classes is None and len(kinds := {type(label).__name__ for label in labels}) > 1:
        raise TypeError(f"the targets are of several types, {' and '.join(sorted(kinds))}: make them all strings")
    names = sorted(set(labels)) if classes is None else list(classes)
    index = {name: i for i, name in enumerate(names)}
    if odd := [label for label in labels if label not in index]:
        raise ValueError(f"the target {odd[0]!r} is none of the classes {names[:20]}")
    return torch.tensor([index[label] for label in labels]), names
