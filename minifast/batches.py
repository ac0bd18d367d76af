"""What a batch is: a pair of inputs and targets, and how it is read off what a loader or a data set gives."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from .utils import shape_of, tensors_in

__all__ = ["pair", "last_is_target", "tensors_of", "sample_count"]


def pair(batch: Any) -> tuple[Any, Any]:
    """The batch as a tuple (inputs, targets): a list or tuple of two, or a dict in which "labels" or "label" are the
    targets. TypeError that says what it is instead."""
    if isinstance(batch, (list, tuple)) and len(batch) == 2:
        return batch[0], batch[1]
    for name in ("labels", "label") if isinstance(batch, Mapping) else ():
        if name in batch:
            return {k: v for k, v in batch.items() if k != name}, batch[name]
    raise TypeError(f"a batch must be a pair (inputs, targets), not {shape_of(batch)}; to_pair=, a function of such a "
                    "batch that returns (inputs, targets), makes one of it: DataBunch(..., to_pair=lambda batch: ...)")


def last_is_target(batch: Sequence[Any]) -> tuple[Any, Any]:
    """(inputs, targets) of the tensors of a TensorDataset: the last are the targets, several others several inputs."""
    *inputs, target = batch
    return (inputs[0] if len(inputs) == 1 else tuple(inputs)), target


def tensors_of(dataset: Any) -> tuple[tuple[Tensor, ...], Tensor | None] | None:
    """The tensors of a TensorDataset, and of its subsets (of subsets ...) the rows; None for any other data set."""
    rows: Tensor | None = None
    while type(dataset) is Subset:
        inner: Any = dataset.dataset
        own = torch.as_tensor(dataset.indices)
        own = torch.where(own < 0, own + len(inner), own)
        rows = own if rows is None else own[rows]
        dataset = inner
    return (dataset.tensors, rows) if type(dataset) is TensorDataset else None


def sample_count(x: Any, y: Any) -> int:
    """How many samples these nests of tensors hold; TypeError or ValueError if they are no such."""
    if not _all_tensors(x) or not _all_tensors(y):
        raise TypeError(f"x and y must be tensors, not {type(x).__name__} and {type(y).__name__}; lists, tuples and "
                        "dicts may hold tensors only")
    shapes = [tuple(t.shape) for t in tensors_in((x, y))]
    if not all(shapes):
        raise ValueError("x and y must have a row for each sample, not the shapes "
                         f"{' and '.join(str(shape) for shape in shapes)}")
    lengths = [{len(t) for t in tensors_in(part)} for part in (x, y)]
    if len(set.union(*lengths)) > 1:
        in_x, in_y = (" and ".join(map(str, sorted(n))) for n in lengths)
        raise ValueError(f"x has {in_x} samples and y has {in_y}")
    return shapes[0][0]


def _all_tensors(x: Any) -> bool:
    if isinstance(x, Mapping):
        x = list(x.values())
    return isinstance(x, Tensor) or isinstance(x, (list, tuple)) and len(x) > 0 and all(map(_all_tensors, x))
