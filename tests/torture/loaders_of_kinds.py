"""Loaders whose batches depend on something that goes on from pass to pass."""
from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from state_of_kinds import Items, learner
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from minifast.data import DataBunch
from minifast.learner import Learner
from minifast.loaders import ItemLoader

__all__ = ["LOADERS"]

N, BS = 20, 4


def gen(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Noisy(Items):
    """Items with noise from the generators of the process, or from one of their own."""

    def __init__(self, own: Any = None, n: int = N) -> None:
        super().__init__(n=n)
        self.own = own

    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        if self.own is None:
            return x + 0.3 * torch.rand(3) + float(np.random.rand()) + random.random(), y
        if isinstance(self.own, torch.Generator):
            return x + torch.rand(3, generator=self.own), y
        return x + float(self.own.random()), y


class Shuffled(Sampler[int]):
    """A sampler with a generator of its own, or one that goes by a count of passes."""

    def __init__(self, n: int, generator: Any) -> None:
        self.n, self.own, self.epoch = n, generator, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.n))
        if self.own is None:
            self.epoch += 1
            random.Random(self.epoch).shuffle(order)
        else:
            self.own.shuffle(order)
        return iter(order)


class Batches:
    """A loader of the user's, with a generator of its own."""

    def __init__(self, generator: Any) -> None:
        self.data, self.own = Items(), generator

    def __len__(self) -> int:
        return N // BS

    def __iter__(self) -> Iterator[Any]:
        for _ in range(N // BS):
            rows = [int(self.own.random() * N) for _ in range(BS)]
            yield self.data.x[rows], self.data.y[rows]


class Resumable(Batches):
    """One that says itself where it is, between two passes."""

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.own.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, words, gauss = state["state"]
        self.own.setstate((version, tuple(words), gauss))


class Stream(IterableDataset[Any]):
    """Samples without an end, from a generator of its own."""

    def __init__(self) -> None:
        self.own = random.Random(4)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield torch.rand(3) + self.own.random(), self.own.randrange(2)


class Limited(Stream):
    def __len__(self) -> int:
        return N

    def __iter__(self) -> Iterator[Any]:
        for _ in range(N):
            yield torch.rand(3) + self.own.random(), self.own.randrange(2)


def collate(generator: Any, rows: list[Any]) -> Any:
    x, y = zip(*rows, strict=True)
    return torch.stack(x) + float(generator.random()), torch.stack(y)


def stream() -> Iterator[Any]:
    while True:
        x = torch.rand(BS, 3)
        yield x, (x[:, 0] > 0.5).long()


def few() -> Iterator[Any]:
    for _ in range(N // BS):
        x = torch.rand(BS, 3)
        yield x, (x[:, 0] > 0.5).long()


def seed_worker(worker: int) -> None:
    np.random.seed(torch.initial_seed() % 2**32)
    random.seed(torch.initial_seed())


def bunch(train: Callable[[], Any], valid: Callable[[], Any] | None = None, **kwargs: Any) -> Callable[[Path], Learner]:
    """A learner with these loaders, made for each run."""
    def make(folder: Path) -> Learner:
        np.random.seed(1)
        random.seed(1)
        data = DataBunch(train(), (valid or (lambda: DataLoader(Items(n=8), BS)))(), device="cpu",
                         loss_func=nn.CrossEntropyLoss(), **kwargs)
        return learner(folder, data)
    return make


def created(train: Callable[[], Dataset[Any]], **kwargs: Any) -> Callable[[Path], Learner]:
    def make(folder: Path) -> Learner:
        data = DataBunch.create(train(), train(), bs=BS, seed=3, device="cpu", loss_func=nn.CrossEntropyLoss(),
                                **kwargs)
        return learner(folder, data)
    return make


def loader(**kwargs: Any) -> Any:
    return DataLoader(kwargs.pop("dataset", None) or Items(), **{"batch_size": BS, **kwargs})


def batch_sampled(sampler: Any, **kwargs: Any) -> Any:
    return DataLoader(Items(), batch_sampler=BatchSampler(sampler, BS, False), **kwargs)


def kept_workers(own: Any = None) -> Callable[[Path], Learner]:
    return bunch(lambda: ItemLoader(Noisy(own and own()), BS, shuffle=True, seed=1, num_workers=1, keep_workers=True))


LOADERS: dict[str, Callable[[Path], Learner]] = {
    "shuffle": bunch(lambda: loader(shuffle=True)), "generator": bunch(lambda: loader(shuffle=True, generator=gen())),
    "generator of the sampler": bunch(lambda: loader(sampler=RandomSampler(Items(), generator=gen()))),
    "sampler with replacement": bunch(lambda: loader(sampler=RandomSampler(
        Items(), replacement=True, num_samples=N, generator=gen()))),
    "weighted sampler": bunch(lambda: loader(sampler=WeightedRandomSampler([1.0, 2.0] * 10, N, generator=gen()))),
    "subset sampler": bunch(lambda: loader(sampler=SubsetRandomSampler(range(N), generator=gen()))),
    "generator of the batch sampler": bunch(lambda: batch_sampled(RandomSampler(Items(), generator=gen()))),
    "batch sampler with Random": bunch(lambda: batch_sampled(Shuffled(N, random.Random(1)))),
    "sampler with Random": bunch(lambda: loader(sampler=Shuffled(N, random.Random(1)))),
    "sampler with numpy": bunch(lambda: loader(sampler=Shuffled(N, np.random.default_rng(1)))),
    "sampler that counts": bunch(lambda: loader(sampler=Shuffled(N, None))),
    "one generator for both": bunch(lambda: (lambda g: loader(sampler=RandomSampler(Items(), generator=g),
                                                              generator=g))(gen())),
    "noise": bunch(lambda: loader(dataset=Noisy(), shuffle=True)),
    "noise of its own": bunch(lambda: loader(dataset=Noisy(random.Random(1)), shuffle=True)),
    "noise of numpy's": bunch(lambda: loader(dataset=Noisy(np.random.default_rng(1)), shuffle=True)),
    "noise of torch's": bunch(lambda: loader(dataset=Noisy(gen()), shuffle=True)),
    "noise in a validation": bunch(lambda: loader(), lambda: loader(dataset=Noisy(random.Random(1), 8))),
    "noise in both": bunch(lambda: loader(dataset=Noisy()), lambda: loader(dataset=Noisy(n=8))),
    "workers": bunch(lambda: loader(dataset=Noisy(), shuffle=True, num_workers=1, worker_init_fn=seed_worker)),
    "workers, noise of its own": bunch(lambda: loader(dataset=Noisy(random.Random(1)), shuffle=True, num_workers=1)),
    "persistent workers": bunch(lambda: loader(shuffle=True, num_workers=1, persistent_workers=True)),
    "persistent workers, generator": bunch(lambda: loader(shuffle=True, num_workers=1, persistent_workers=True,
                                                          generator=gen())),
    "persistent workers, noise": bunch(lambda: loader(dataset=Noisy(), shuffle=True, num_workers=1,
                                                      persistent_workers=True, worker_init_fn=seed_worker)),
    "persistent workers, noise of its own": bunch(lambda: loader(
        dataset=Noisy(random.Random(1)), shuffle=True, num_workers=1, persistent_workers=True)),
    "collate function": bunch(lambda: loader(shuffle=True, collate_fn=partial(collate, random.Random(1)))),
    "iterable data set": bunch(lambda: loader(dataset=Limited())),
    "stream": bunch(lambda: loader(dataset=Stream()), n_batches=5),
    "generator function": bunch(lambda: few, n_batches=5),
    "generator without an end": bunch(lambda: stream, n_batches=5),
    "own loader": bunch(lambda: Batches(random.Random(1))),
    "own loader with numpy": bunch(lambda: Batches(np.random.default_rng(1))),
    "own loader with a state": bunch(lambda: Resumable(random.Random(1))),
    "list of batches": bunch(lambda: list(DataLoader(Items(), BS))),
    "items, noise": created(Noisy), "items, noise of their own": created(lambda: Noisy(random.Random(1))),
    "items, noise of numpy's": created(lambda: Noisy(np.random.default_rng(1))),
    "items, workers": created(Noisy, num_workers=1),
    "items, workers, noise of their own": created(lambda: Noisy(random.Random(1)), num_workers=1),
    "items, kept workers": kept_workers(), "items, kept workers, noise of their own": kept_workers(
        lambda: random.Random(1)),
}
