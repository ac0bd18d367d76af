"""Loaders of our own: the order of their batches is a function of (seed, pass)."""
from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from .arrays import is_arrays
from .batches import Share, Turns, last_is_target, pair, sample_count, tensors_of
from .checks import positive_int
from .utils import map_tensors, one_thread, tensors_in
from .workers import Collate, Workers

__all__ = ["TensorLoader", "NoData", "ItemLoader", "Seeded"]

Batch = tuple[Any, Any]
ToPair = Callable[[Any], Batch]


class Seeded(NamedTuple):
    """The inputs of a batch with a seed for each sample, (n,) int64 in numpy: what a batch transform draws for a sample
    is then a function of the loader's seed, the pass and the sample's index.

    >>> Seeded(torch.zeros(2, 3), np.array([5, 7])).seeds
    array([5, 7])
    """

    x: Any
    seeds: np.ndarray[Any, Any]     # a tensor would follow the inputs to the GPU, and reading it there would wait


def seed_or_drawn(seed: int | None) -> int:
    """The seed, if it is one; in place of None, one drawn from torch's global generator."""
    if seed is None:
        return int(torch.randint(2**62, ()))
    return positive_int("seed", seed, or_zero=True)


class Loader:
    """What loaders share: the order of the batches in the k-th pass is a function of `seed` and k alone.

    So nothing depends on what else drew random numbers, and a run is resumed in the middle of a pass by
    `load_state_dict` and `batches(start)`. `passes` counts the passes begun. The default seed comes from torch's global
    generator, once: `torch.manual_seed` settles a whole script. With `seeded = True` the inputs come as `Seeded`.
    """

    seeded = False
    draw: Callable[[torch.Generator], Tensor] | None = None     # gives a pass's rows, see `use_sampler`; None: all do
    sampler: Any = None                                         # what it was made from
    part: Share | Turns | None = None   # what is this process's of each pass; None: all

    def __init__(self, n: int, bs: int, shuffle: bool, drop_last: bool, seed: int | None) -> None:
        self.n, self.batch_size = n, positive_int("bs", bs)
        self.shuffle, self.drop_last, self.passes = shuffle, drop_last, 0
        self.seed = seed_or_drawn(seed)

    def __len__(self) -> int:
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """One pass, from batch `start` on; those before it are not produced."""
        if not 0 <= start <= len(self):
            raise ValueError(f"start={start}: a pass has {len(self)} batches")
        # neighbouring seeds and passes must not meet in a sum: seed 0's second pass is not seed 1's first
        entropy = np.random.SeedSequence((self.seed, self.passes)).generate_state(1, np.uint64)
        gen = torch.Generator().manual_seed(int(entropy[0]))
        self.passes += 1
        return self._batches(gen, start)

    def _batches(self, gen: torch.Generator, start: int) -> Iterator[Batch]:
        raise NotImplementedError

    def _order(self, gen: torch.Generator) -> Tensor | None:
        """The rows of a pass, None for all of them in order."""
        if self.draw is not None:
            return self.draw(gen)
        return torch.randperm(self.n, generator=gen) if self.shuffle else None

    def _seeds(self, gen: torch.Generator, order: Tensor | None) -> Tensor:
        """A seed for each sample of a pass; one that is drawn twice has two."""
        seeds = torch.randint(2**62, (self.n,), generator=gen)
        return seeds if order is None or self.draw is not None else seeds[order]

    def cuts(self, start: int) -> Iterator[slice]:
        """Which rows of a pass belong to each batch, from `start` on."""
        bs, stop = self.batch_size, len(self) * self.batch_size
        whole = map(slice, range(start * bs, stop, bs), range((start + 1) * bs, stop + bs, bs))
        return whole if self.part is None else self.part.of(whole, self.n)

    def _with_seeds(self, batches: Iterator[Batch], seeds: Tensor, start: int) -> Iterator[Batch]:
        return ((Seeded(x, seeds[cut].numpy()), y) for cut, (x, y) in zip(self.cuts(start), batches, strict=True))

    def state_dict(self) -> dict[str, int]:
        """Seed and number of passes begun: taken before a pass, it is what repeats that pass."""
        return {"seed": self.seed, "passes": self.passes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take back what `state_dict` gave; TypeError or ValueError if these are no numbers of at least 0."""
        seed, passes = (positive_int(name, state[name], or_zero=True) for name in ("seed", "passes"))
        self.seed, self.passes = seed, passes


class TensorLoader(Loader):
    """Batches (x, y) cut by indexing from tensors in memory.

    x, y: a tensor (n, ...) each, or nests (lists, tuples, dicts) of such; all on one device.
    bs: samples in a batch.
    shuffle: whether each pass has an order of its own.
    drop_last: whether a last batch that is not full is left out.
    seed: of the order; None draws one.
    dataset: what the tensors were made from; None: a TensorDataset of them, or its part with these rows.
    rows: the samples to take, by number, in this order; None: all.

    TypeError if there is something else than tensors, ValueError if their lengths differ.

    >>> [(x["a"].tolist(), y.tolist()) for x, y in TensorLoader({"a": torch.arange(3)}, torch.arange(3), bs=2)]
    [([0, 1], [0, 1]), ([2], [2])]
    """

    def __init__(self, x: Any, y: Any, bs: int = 64, shuffle: bool = False, drop_last: bool = False,
                 seed: int | None = None, dataset: Any = None, rows: Tensor | None = None) -> None:
        n = sample_count(x, y)
        super().__init__(n if rows is None else len(rows), bs, shuffle, drop_last, seed)
        self.x, self.y, self.rows = x, y, rows
        if dataset is None:
            whole = TensorDataset(*tensors_in((x, y)))
            dataset = whole if rows is None else Subset(whole, rows.tolist())
        self.dataset = dataset
        self.device = tensors_in((x, y))[0].device

    def samples(self, rows: Tensor) -> Batch:
        """The samples (x, y) with these numbers."""
        rows = (rows if self.rows is None else self.rows[rows]).to(self.device)
        x, y = map_tensors((self.x, self.y), lambda t: t.index_select(0, rows))
        return x, y

    def _batches(self, gen: torch.Generator, start: int) -> Iterator[Batch]:
        order = self._order(gen)
        rows = order if self.rows is None else self.rows if order is None else self.rows[order]
        cut = self._cut if isinstance(self.x, Tensor) and isinstance(self.y, Tensor) else self._cut_nests
        batches = cut(None if rows is None else rows.to(self.device), start)
        if not self.seeded:
            return batches
        return self._with_seeds(batches, self._seeds(gen, order), start)

    def _cut(self, order: Tensor | None, start: int) -> Iterator[Batch]:
        for rows in self.cuts(start):
            if order is None:  # copies (2 µs for 64 small images): a model that works in place would change the data
                yield self.x[rows].clone(), self.y[rows].clone()
            else:
                yield self.x.index_select(0, order[rows]), self.y.index_select(0, order[rows])

    def _cut_nests(self, order: Tensor | None, start: int) -> Iterator[Batch]:
        order = torch.arange(self.n, device=self.device) if order is None else order
        for rows in self.cuts(start):
            yield map_tensors((self.x, self.y), partial(torch.index_select, dim=0, index=order[rows]))


class NoData(Loader):
    """In place of training batches, for data that new samples are only prepared by.

    bs: samples in a batch of these.

    >>> len(NoData(64))
    0
    """

    may_be_empty = True

    def __init__(self, bs: int = 64) -> None:
        super().__init__(0, bs, False, False, 0)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """A ValueError: there are none."""
        raise ValueError("there are no batches: this data is for predictions on new samples only")


class ItemLoader(Loader):
    """Batches collated from the items of a map-style dataset, in this process or in `num_workers` others.

    What an item draws from the global generators (torch on the CPU, numpy, random) is a function of seed, pass and
    index: equal for any `num_workers`, and the generators outside are left as they were. `collate_fn` makes a batch of
    a list of items, `to_pair` (inputs, targets) of a batch: see `pair`. `keep_workers`: the processes are started once
    and kept for the next passes, see `Workers`. TypeError for a dataset that cannot be indexed.

    >>> [(x, y)] = ItemLoader([(torch.zeros(2), 0), (torch.ones(2), 1)], bs=2)
    >>> x.shape, y
    (torch.Size([2, 2]), tensor([0, 1]))
    """

    def __init__(self, dataset: Any, bs: int = 64, shuffle: bool = False, drop_last: bool = False,
                 seed: int | None = None, num_workers: int = 0, collate_fn: Collate | None = None,
                 keep_workers: bool = False, to_pair: ToPair | None = None) -> None:
        if isinstance(dataset, IterableDataset) or not all(hasattr(dataset, f"__{f}__") for f in ("len", "getitem")):
            raise TypeError(f"a {type(dataset).__name__} cannot be indexed (that takes __len__ and __getitem__); what "
                            "comes as a stream of batches goes to DataBunch(train_dl, valid_dl), and if it has no end "
                            "or length, with n_batches= for an epoch")
        super().__init__(len(dataset), bs, shuffle, drop_last, seed)
        self.dataset, self.collate_fn, self.to_pair = dataset, collate_fn, to_pair or pair
        self.num_workers = positive_int("num_workers", num_workers, or_zero=True)
        self.keep_workers, self._workers = keep_workers, Workers()

    def _batches(self, gen: torch.Generator, start: int) -> Iterator[Batch]:
        order = self._order(gen)
        seeds, order = self._seeds(gen, order), torch.arange(self.n) if order is None else order
        batches = self.batches_of(order, seeds, self.cuts(start))
        return self._with_seeds(batches, seeds, start) if self.seeded else batches

    def batches_of(self, rows: Tensor, seeds: Tensor, cuts: Iterator[slice]) -> Iterator[Batch]:
        """A batch for each cut of the samples `rows` (n,), each item drawing from its seed in `seeds`."""
        drawn = (list(zip(rows[cut].tolist(), seeds[cut].tolist(), strict=True)) for cut in cuts)
        made = self._workers.batches(_SeededItems(self.dataset), drawn, self.num_workers, self.collate_fn,
                                     self.keep_workers)
        return map(self.to_pair, made)


class _SeededItems(Dataset[Any]):
    """A dataset's items, fetched by (index, seed)."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, rows: Sequence[tuple[int, int]]) -> list[Any]:
        with generators_kept(), one_thread():   # as in a worker process
            return [self._item(*row) for row in rows]

    def _item(self, i: int, seed: int) -> Any:
        # 9 µs an item; torch.manual_seed would also seed the GPUs, which costs ten times that
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            return self.dataset[i]
        except StopIteration as e:  # to the loop over the batches it would be the end of the pass
            raise RuntimeError(f"item {i} of the {type(self.dataset).__name__} raised StopIteration") from e


def seed_generators(seed: int) -> None:
    """Seed the global generators on the CPU: torch's, numpy's, random's."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the global generators on the CPU (torch, numpy, random) as they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # as they are: it is done for each batch
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def make_loader(dataset: Any, bs: int, shuffle: bool = False, drop_last: bool = False, seed: int | None = None,
                num_workers: int = 0, collate_fn: Collate | None = None, to_pair: ToPair | None = None) -> Any:
    """The loader for a data set: by indexing where it is made of tensors, item by item else; torch's for a stream.

    TypeError for what is no data set, ValueError for a TensorDataset without targets that is to be shuffled.
    """
    if is_arrays(dataset) and not (isinstance(dataset, list) and isinstance(dataset[0], tuple)):    # as list(zip(x, y))
        raise TypeError(f"an array, a tensor or a DataFrame, here a {type(dataset).__name__}, is no data set: "
                        "DataBunch.from_arrays(x, y) makes a data bunch of these")
    if isinstance(dataset, (DataLoader, Loader)):
        raise TypeError(f"a {type(dataset).__name__} has batches already: give it to DataBunch(train_dl, valid_dl)")
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, positive_int("bs", bs), num_workers=num_workers, collate_fn=collate_fn,
                          drop_last=drop_last)
    found = None if collate_fn or to_pair else tensors_of(dataset)
    if found is None:
        return ItemLoader(dataset, bs, shuffle, drop_last, seed, num_workers, collate_fn, to_pair=to_pair)
    tensors, rows = found
    if len(tensors) == 1:
        if shuffle:
            raise ValueError("a TensorDataset of one tensor has no targets to train on: TensorDataset(x, y), or for an "
                             "autoencoder TensorDataset(x, x)")
        tensors = (*tensors, torch.zeros(len(tensors[0]), dtype=torch.long))
    return TensorLoader(*last_is_target(tensors), bs, shuffle, drop_last, seed, dataset, rows)


def require_batch(dl: Loader) -> Loader:
    """The training loader, if it has a batch; else a ValueError that says why it has none."""
    if not dl.n:
        raise ValueError("the training data is empty")
    if not len(dl):
        raise ValueError(f"{dl.n} training samples do not fill one batch of {dl.batch_size}, and batches that are not "
                         f"full are dropped: choose bs={dl.n} or less, or drop_last=False")
    return dl
