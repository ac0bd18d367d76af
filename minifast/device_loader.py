"""`DeviceDataLoader`: any batches, on their device and prepared."""
from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .batches import Share, Turns, last_is_target, pair, tensors_of
from .distributed import from_first, local_device
from .loaders import Batch, Loader, TensorLoader, ToPair, generators_kept, seed_generators
from .torch_private import exchange_workers, running_workers
from .utils import batch_length, listify, rng_state, set_rng_state, to_device

__all__ = ["DeviceDataLoader", "default_device"]


def default_device() -> torch.device:
    """The current GPU if there is one (of several processes on a machine each has its own), else the CPU.

    >>> default_device().type in ("cpu", "cuda")
    True
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    own = "LOCAL_RANK" in os.environ and local_device() < torch.cuda.device_count()
    return torch.device("cuda", local_device()) if own else concrete_device("cuda")


def concrete_device(device: torch.device | str | int) -> torch.device:
    """The device as tensors name theirs: `cuda` is `cuda:0`, so that the two compare equal."""
    try:
        device = torch.device(device)
        return device if device.type == "cpu" else torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as e:  # torch's ways to say that there is none
        raise ValueError(f"the device {device!r} cannot be used; on every machine there is 'cpu'. {e}") from e


class DeviceDataLoader:
    """Any batches, as (inputs, targets), on their device and transformed.

    dl: an iterable of batches, or a function that returns one, such as a generator function.
    device: where batches go; None: the GPU if there is one.
    tfms: functions of a batch (x, y) that return one, applied in this order.
    to_pair: makes (inputs, targets) of a batch as `dl` gives it; None: see `pair`.

    Loaders of our own begin a pass anywhere. Other iterables begin again for each pass, and a pass that starts in the
    middle produces its first batches and drops them; how they shuffle is not controlled (of a torch DataLoader with a
    `generator` that generator's state is kept with the run).

    TypeError for what could serve one pass only, or holds no batches. A pass without one batch is a ValueError, one
    that is shorter or longer than its length a warning.

    >>> [(x, y)] = DeviceDataLoader([{"a": torch.zeros(2), "labels": torch.ones(2)}], "cpu")
    >>> x, y
    ({'a': tensor([0., 0.])}, tensor([1., 1.]))
    """

    part: Share | Turns | None = None   # of batches from elsewhere, what is this process's; None: all

    def __init__(self, dl: Any, device: torch.device | str | None = None, tfms: Any = None,
                 to_pair: ToPair | None = None) -> None:
        self.dl: Any = _restartable(dl)
        self.tfms = listify(tfms)
        self.device = default_device() if device is None else concrete_device(device)
        self.to_pair = to_pair or _usual_pair(dl)
        self.begun_at: dict[str, Any] | None = None

    def __len__(self) -> int:
        try:
            return len(self.dl)
        except TypeError:
            raise TypeError(f"{type(self.dl).__name__} has no length, and a schedule needs the number of batches: "
                            "give it a __len__, or say DataBunch(..., n_batches=) for an epoch") from None

    @property
    def length(self) -> int | None:
        """The number of batches, or None where that is not known: a torch DataLoader's `__len__` may raise."""
        try:
            return len(self)
        except TypeError:
            return None

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """One pass over the prepared batches, from batch `start` on."""
        return self._whole(start) if self.part is None else self._part_of(start)

    def _whole(self, start: int) -> Iterator[Batch]:
        inner = self.dl.batches(start) if hasattr(self.dl, "batches") else self._from(start)
        ready = isinstance(self.dl, TensorLoader) and self.dl.device == self.device
        return inner if ready and not self.tfms else self._prepared(inner, start)

    def set_part(self, part: Share | Turns | None) -> Share | Turns | None:
        """From now on a pass gives this process's part of the batches, None: all; returns what it gave before. Loaders
        of our own make no more than that; others make all batches in each process, which is right, but slow."""
        holder = self.dl if isinstance(self.dl, Loader) else self
        before, holder.part = holder.part, part
        return before

    def has_nothing(self, num_batch: int) -> bool:
        """Whether no sample of batch `num_batch` of this pass is this process's: see `Share.of`."""
        inner = self.dl
        part = inner.part if isinstance(inner, Loader) else self.part
        if not isinstance(part, Share):
            return False
        first, after = part.last if not isinstance(inner, Loader) else part.bounds(
            min(inner.batch_size, inner.n - num_batch * inner.batch_size))
        return first == after

    def _part_of(self, start: int) -> Iterator[Batch]:
        """This process's part of batches that come from elsewhere: all processes make all of them, and what they draw
        is a function of one number from process 0's generator."""
        with generators_kept() if start and self.begun_at else contextlib.nullcontext():
            if start and self.begun_at:
                set_rng_state(self.begun_at)
            seed = from_first(int(torch.randint(2**62, ())))

        def batches() -> Iterator[Batch]:
            states: dict[str, Any] = {}
            while True:
                with generators_kept():
                    if states:
                        set_rng_state(states)
                    else:
                        seed_generators(seed)
                        whole = islice(self._whole(0), start, None)
                    batch = next(whole, None)
                    states = rng_state(cuda=False)
                if batch is None:
                    return
                yield batch
        return self.part.of(batches(), None) if isinstance(self.part, Turns) else map(self._own_rows, batches())

    def _own_rows(self, batch: Batch) -> Batch:
        assert isinstance(self.part, Share)
        n = batch_length(batch[1], batch[0])
        first, after = self.part.last = self.part.bounds(n)
        rows = slice(first, after) if first < after else slice(0, 1)    # see `Share.of`
        return _rows(batch[0], rows, n), _rows(batch[1], rows, n)

    def _prepared(self, inner: Iterator[Any], start: int) -> Iterator[Batch]:
        done = start
        for batch in inner:     # no map(): a StopIteration out of a transform would be the end of the pass
            done += 1
            yield self.prepare(batch)
        if done == self.length or isinstance(self.dl, Loader):
            return
        if not done:
            raise ValueError(f"a pass over the {type(self.dl).__name__} gave not one batch: it must give batches each "
                             "time that it is iterated over")
        if self.length is not None:
            warnings.warn(f"a pass over the {type(self.dl).__name__} had {done} batches, and its length is "
                          f"{self.length}: schedules, which go by the length, do not fit it")

    def _from(self, start: int) -> Iterator[Any]:
        """A pass over a loader that knows of no positions: begun as it was begun before, and wound on to `start`."""
        batches: Iterator[Any]
        if not start:
            batches = iter(self.dl)
            return batches
        with generators_kept():
            if self.begun_at:
                set_rng_state(self.begun_at)
            batches = iter(self.dl)
            for _ in islice(batches, start):
                pass
        return batches

    def prepare(self, batch: Any) -> Batch:
        """A batch as the model gets it: on the device and transformed."""
        x, y = self.to_pair(batch)
        return self.transform(_on(x, self.device), _on(y, self.device))

    def transform(self, x: Any, y: Any) -> Batch:
        """Inputs and targets that are on the device, after the transforms."""
        for tfm in self.tfms:
            x, y = tfm((x, y))
        return x, y

    def add_tfm(self, tfm: Callable[[Batch], Batch]) -> None:
        """From now on, batches go through `tfm` too, after those before it."""
        self.tfms.append(tfm)

    def remove_tfm(self, tfm: Callable[[Batch], Batch]) -> None:
        """Undo `add_tfm`."""
        self.tfms.remove(tfm)

    @property
    def dataset(self) -> Any:
        """What the batches are made from, where the loader says so, else None."""
        return getattr(self.dl, "dataset", None)

    @property
    def batch_size(self) -> int | None:
        """Samples in a full batch, where the loader says so, else None."""
        return getattr(self.dl, "batch_size", None)

    def state_dict(self) -> dict[str, Any]:
        """The loader's position, as far as that is known."""
        if hasattr(self.dl, "state_dict"):
            return dict(self.dl.state_dict())
        gen = getattr(self.dl, "generator", None)
        own: dict[str, Any] = {"generator": gen.get_state()} if isinstance(gen, torch.Generator) else {}
        # one without a generator of its own draws its order from the global ones, when a pass begins
        if getattr(self.dl, "persistent_workers", False):
            own["workers"] = running_workers(self.dl)
        return {**own, "begun_at": rng_state(cuda=False)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if hasattr(self.dl, "load_state_dict"):
            self.dl.load_state_dict(state)
            return
        if "workers" in state and running_workers(self.dl) != state["workers"]:
            # the first pass of workers that are kept draws a number more than the next ones
            exchange_workers(self.dl)
            if state["workers"]:
                with generators_kept():
                    iter(self.dl)
        if "generator" in state:
            self.dl.generator.set_state(state["generator"])
        self.begun_at = state["begun_at"]


def _restartable(dl: Any) -> Any:
    """What batches can be taken from again and again, else a TypeError that says what to give."""
    if isinstance(dl, Iterator):
        raise TypeError(f"a {type(dl).__name__} is used up after one pass: give a list, a DataLoader, the generator "
                        "function itself, or an object whose __iter__ begins again")
    if isinstance(dl, Dataset) and not isinstance(dl, IterableDataset):
        raise TypeError(f"a {type(dl).__name__} is a data set and has no batches: DataBunch.create(train_ds, valid_ds) "
                        "makes them")
    if isinstance(dl, (Tensor, np.ndarray, Mapping, str, bytes)) or hasattr(dl, "iloc"):
        raise TypeError(f"a {type(dl).__name__} is no iterable of batches (inputs, targets): DataBunch.from_arrays(x, "
                        "y) makes batches of arrays, tensors and data frames")
    if callable(dl) and not isinstance(dl, Iterable):
        return _Called(dl)
    if not isinstance(dl, Iterable):
        raise TypeError(f"batches must come from something to iterate over, not {dl!r}")
    return dl


class _Called:
    """What a function returns, to iterate over again and again."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


def _usual_pair(dl: Any) -> ToPair:
    """`pair`, or for a torch DataLoader over a TensorDataset of more than two tensors `last_is_target`."""
    found = tensors_of(getattr(dl, "dataset", None)) if isinstance(dl, DataLoader) else None
    return last_is_target if found is not None and len(found[0]) > 2 else pair


def _rows(x: Any, rows: slice, n: int) -> Any:
    """These of a batch's `n` samples, of tensors, arrays and lists with one entry for each."""
    if isinstance(x, (Tensor, np.ndarray)):
        return x[rows] if x.ndim and len(x) == n else x
    if isinstance(x, Mapping):
        return {key: _rows(value, rows, n) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        if len(x) == n and not any(isinstance(part, (Tensor, np.ndarray)) and part.ndim and len(part) == n
                                   for part in x):
            return x[rows]      # a sample each
        parts = [_rows(part, rows, n) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return x


def _on(x: Any, device: torch.device) -> Any:
    return x if isinstance(x, Tensor) and x.device == device else to_device(x, device)
