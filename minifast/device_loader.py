"""`DeviceDataLoader`: any batches, on their device and prepared."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .loaders import Batch, TensorLoader, generators_kept, pair
from .utils import listify, rng_state, set_rng_state, to_device

__all__ = ["DeviceDataLoader", "default_device"]


def default_device() -> torch.device:
    """The current GPU if there is one, else the CPU."""
    return resolved(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def resolved(device: torch.device | str | int) -> torch.device:
    """The device as tensors name theirs: `cuda` is `cuda:0`, so that the two compare equal."""
    try:
        device = torch.device(device)
        return device if device.type == "cpu" else torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as e:  # torch's ways to say that there is none
        raise ValueError(f"the device {device!r} cannot be used; on every machine there is 'cpu'. {e}") from e


class DeviceDataLoader:
    """Any iterable of (x, y) batches, moved to `device` and passed through `tfms`, functions of a batch (x, y).

    Our own loaders keep their promises about order. Other iterables are asked anew for each pass, and a pass that
    begins in the middle produces and drops what comes before; how they shuffle is their affair (a torch DataLoader with
    a `generator` has that generator's state kept with the run). TypeError for what could serve one pass only.
    """

    def __init__(self, dl: Any, device: torch.device | str | None = None, tfms: Any = None) -> None:
        if isinstance(dl, Iterator):
            raise TypeError(f"a {type(dl).__name__} is used up after one pass: give a list, a DataLoader, or an object "
                            "whose __iter__ begins anew")
        if not isinstance(dl, Iterable):
            raise TypeError(f"batches must come from something to iterate over, not {dl!r}")
        self.dl: Any = dl
        self.tfms = listify(tfms)
        self.device = default_device() if device is None else resolved(device)
        self.begun_at: dict[str, Any] | None = None

    def __len__(self) -> int:
        try:
            return len(self.dl)
        except TypeError:
            raise TypeError(f"{type(self.dl).__name__} has no length, and a schedule needs the number of batches: "
                            "give it a __len__") from None

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """One pass over the prepared batches, from batch `start` on."""
        inner = self.dl.batches(start) if hasattr(self.dl, "batches") else self._from(start)
        ready = isinstance(self.dl, TensorLoader) and self.dl.x.device == self.dl.y.device == self.device
        return inner if ready and not self.tfms else map(self.prepare, inner)

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
        x, y = (_on(part, self.device) for part in pair(batch))
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
        """The loader's position, as far as it has one to tell."""
        if hasattr(self.dl, "state_dict"):
            return dict(self.dl.state_dict())
        gen = getattr(self.dl, "generator", None)
        own = {"generator": gen.get_state()} if isinstance(gen, torch.Generator) else {}
        # one without a generator of its own draws its order from the global ones, when a pass begins
        return {**own, "begun_at": rng_state(cuda=False)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if hasattr(self.dl, "load_state_dict"):
            self.dl.load_state_dict(state)
            return
        if "generator" in state:
            self.dl.generator.set_state(state["generator"])
        self.begun_at = state["begun_at"]


def _on(x: Any, device: torch.device) -> Any:
    return x if isinstance(x, Tensor) and x.device == device else to_device(x, device)
