"""What a batch is: a pair of inputs and targets, and how it is read off what a loader or a data set gives."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from .distributed import gathered, together
from .utils import shape_of, tensors_in

__all__ = ["Share", "Turns", "last_is_target", "merged", "pair", "sample_count", "tensors_of"]


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


# ---- of several processes, the batches that are this one's

@dataclass
class Share:
    """Of every batch the part that is this process's: the parts differ by one sample at most, earlier ones are larger.

    >>> Share(0, 2).bounds(5), Share(1, 2).bounds(5)
    ((0, 3), (3, 5))
    """

    rank: int
    world: int
    last: tuple[int, int] = (0, 1)      # the bounds in the batch at hand, of batches from elsewhere

    def bounds(self, n: int) -> tuple[int, int]:
        """Of `n` samples, the first one and the one after the last."""
        return -(-n * self.rank // self.world), -(-n * (self.rank + 1) // self.world)

    def of(self, batches: Iterable[slice], n: int) -> Iterator[slice]:
        """This process's part of each batch, of slices of `n` rows. Where there is no sample left for it, it is the
        first one, which is then not counted: the model must run, because the others wait for its gradients."""
        for batch in batches:
            first, after = self.bounds(min(batch.stop, n) - batch.start)
            yield slice(batch.start + first, batch.start + after) if first < after else slice(
                batch.start, batch.start + 1)


@dataclass
class Turns:
    """Every `world`-th batch, whole: the first is process 0's, the second process 1's, ...

    stop: only the first batches; None: all. even: each process gets as many, some of them once more and not counted:
    for a model whose forward pass is a meeting.

    >>> list(Turns(1, 2).of("abcde", 5))
    ['b', 'd']
    """

    rank: int
    world: int
    stop: int | None = None
    even: bool = False
    n_last: ClassVar[int | None] = None     # of the last pass: how many batches it had, in all processes together

    def of(self, batches: Iterable[Any], n: int | None) -> Iterator[Any]:
        """This process's batches."""
        first, i, Turns.n_last = None, -1, None
        for i, batch in enumerate(islice(batches, self.stop)):
            first = batch if i == 0 and self.even else first
            if i % self.world == self.rank:
                yield batch
        Turns.n_last = i + 1
        if self.even and i >= 0 and 0 <= (i % self.world) < self.rank:
            yield first


def merged(learn: Any, items: list[Any], in_turns: bool = True) -> list[Any]:
    """What the processes have made of a pass in turns, an item for each batch, in the order of the batches; or, not
    `in_turns`, all that each has.

    >>> merged(fake_learner(), [1, 2])
    [1, 2]
    """
    if not together(learn):
        return items
    parts, n = gathered(items), Turns.n_last if in_turns else None
    found = [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]
    return found[:n]
