"""`StreamLoader`: epochs of a fixed number of batches from data that has no end, or no length."""
from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from .checks import positive_int
from .data_objects import data_objects
from .device_loader import DeviceDataLoader
from .keeping import Kept
from .loaders import generators_kept, seed_generators, seed_or_drawn
from .restoring import put_back
from .utils import map_tensors

__all__ = ["StreamLoader"]

END = object()


class StreamLoader:
    """Passes of `n_batches` batches over a stream; each pass goes on where the one before stopped.

    source: any iterable of batches, or a function that returns one, such as a generator function. Where it ends, it
        begins again.
    n_batches: the batches in a pass.
    seed: of what the source draws from the global generators (torch on the CPU, numpy, random); None draws one.

    What the source draws is a function of `seed` and the number of times it began, and leaves the generators outside
    unchanged. So a position is a number: a resumed run, and one after `lr_find`, begins the source again and drops the
    batches that came before (or, where the source has `state_dict` and `load_state_dict`, those since the last state
    from before it began).

    TypeError for a source that serves one pass only, ValueError if it gives not one batch.

    >>> def numbers():
    ...     for i in range(7): yield torch.tensor([float(i)]), torch.tensor([i])
    >>> dl = StreamLoader(numbers, n_batches=3)
    >>> [[int(y) for _, y in dl] for epoch in range(3)]
    [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    """

    def __init__(self, source: Any, n_batches: int, seed: int | None = None) -> None:
        self.source = DeviceDataLoader(source, "cpu")   # for its checks and its position
        self.n_batches, self.seed = positive_int("n_batches", n_batches), seed_or_drawn(seed)
        self.begun = 0                  # how often the source has begun
        self.taken = 0                  # batches taken since it began
        self._begun_at: Any = None      # the source's own position before it began
        self._held: list[Any] = []      # generators and the like in the source, as they were then
        self._batches: Iterator[Any] | None = None      # the open source; None: `_seek` opens it
        self._generators: Any = None    # the states of the generators as the source left them

    @property
    def dataset(self) -> Any:
        """What the batches are made from, where the source says so, else None."""
        return self.source.dataset

    @property
    def batch_size(self) -> int | None:
        """Samples in a full batch, where the source says so, else None."""
        return self.source.batch_size

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Any]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Any]:
        """One pass, from its batch `start` on."""
        if not 0 <= start <= self.n_batches:
            raise ValueError(f"start={start}: a pass has {self.n_batches} batches")
        for _ in range(start):
            self._next()
        for _ in range(start, self.n_batches):
            yield self._next()

    def state_dict(self) -> dict[str, Any]:
        """The position: `seed`, how often the source has `begun`, the batches `taken` since, the source's own."""
        return {"seed": self.seed, "begun": self.begun, "taken": self.taken, "begun_at": self._begun_at,
                "held": self._held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave. Where nothing was taken in between, the source stays open. TypeError or
        ValueError if `seed`, `begun` or `taken` are no numbers of at least 0."""
        for name in ("seed", "begun", "taken"):
            positive_int(name, state[name], or_zero=True)
        if all(state[name] == getattr(self, name) for name in ("seed", "begun", "taken")):
            return
        self.seed, self.begun, self.taken = state["seed"], state["begun"], state["taken"]
        self._begun_at, self._held, self._batches = state["begun_at"], list(state["held"]), None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_batches": None}     # an open source cannot be copied: the copy begins it again

    def _next(self) -> Any:
        with self._own_generators():
            if self._batches is None:
                self._seek()
            batch = next(self._batches, END)    # type: ignore[arg-type]
            if batch is END and self.taken:
                self._begin()
                batch = next(self._batches, END)    # type: ignore[arg-type]
        if batch is END:
            raise ValueError(f"the stream gave not one batch when it began for the {self.begun}. time: it must give "
                             "batches each time that it is iterated over")
        self.taken += 1
        return batch

    def _seek(self) -> None:
        """Open the source where `begun` and `taken` say."""
        if not self.begun:
            self._begin()
            return
        if self._begun_at is not None:
            self.source.load_state_dict(self._begun_at)
        for (_, x, moving), held in zip(data_objects(self.source, "source"), self._held, strict=False):
            found = put_back(dict(moving), held)
            if type(getattr(x, "__dict__", None)) is dict:
                vars(x).update(found)
        self._open()
        for i in range(self.taken):
            if next(self._batches, END) is END:     # type: ignore[arg-type]
                raise ValueError(f"the stream ended after {i} batches, and {self.taken} had been taken from it: it is "
                                 "not the one that was begun")

    def _begin(self) -> None:
        self.begun += 1
        self.taken, self._begun_at = 0, self.source.state_dict()
        self._held = [map_tensors(Kept(moving).value, torch.clone)
                      for _, _, moving in data_objects(self.source, "source")]
        self._open()

    def _open(self) -> None:
        # as in `Loader`: seed 0's second time must not be seed 1's first
        seed = int(np.random.SeedSequence((self.seed, self.begun)).generate_state(1, np.uint64)[0])
        seed_generators(seed)
        self._batches = iter(self.source.dl)

    @contextlib.contextmanager
    def _own_generators(self) -> Iterator[None]:
        """The source's own random numbers, and back (30 µs): the place in the stream then depends on nothing else."""
        with generators_kept():
            if self._batches is not None:
                torch.set_rng_state(self._generators[0])
                np.random.set_state(self._generators[1])
                random.setstate(self._generators[2])
            yield
            self._generators = torch.get_rng_state(), np.random.get_state(), random.getstate()
