"""A batch size that changes from epoch to epoch."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..callback import LearnerCallback
from ..checks import positive_int
from ..loaders import Loader
from ..order import Order
from ..state import Changes

__all__ = ["BatchSizeSchedule"]


class BatchSizeSchedule(LearnerCallback):
    """Trains with another batch size in later epochs: `{0: 64, 5: 128}` is 64 at first and 128 from epoch 5 on.

    learn: the learner of the run.
    sizes: such a dict (before its first epoch the data's own size is used), or a function of the epoch.

    It returns `n_updates`, the run's new length, so that schedules fit it. The data's own size is back after the run.
    TypeError where the batches come from a loader whose size cannot be set, ValueError where a size is more than all
    samples. Source: S. Smith et al., arXiv 1711.00489.

    >>> learn = fake_learner(train_length=12, batch_size=3)
    >>> learn.fit(2, callbacks=BatchSizeSchedule(learn, {1: 6}))
    >>> learn.recorder.nb_batches
    [4, 2]
    """

    _order = Order.BATCH_SIZE

    def __init__(self, learn: Any, sizes: Mapping[int, int] | Callable[[int], int]) -> None:
        super().__init__(learn)
        self.sizes = sizes if callable(sizes) else dict(sizes)
        self.loader: Any = None     # whose batch size is set, during a run
        self.own_size = self.size = 0

    def on_train_begin(self, n_epochs: int) -> Changes | None:
        loader = self.learn.data.train_dl.dl
        if not isinstance(loader, Loader):
            raise TypeError(f"the batch size of a {type(loader).__name__} cannot be set: use DataBunch.create")
        self.loader, self.own_size = loader, loader.batch_size
        n_updates = 0
        for epoch in range(n_epochs):
            self._set(epoch)
            if not len(loader):
                raise ValueError(f"the batch size of epoch {epoch}, {self.size}, is more than all {loader.n} samples")
            n_updates += len(loader)
        self._set(0)
        return {"n_updates": n_updates} if n_epochs else None   # a validation has no steps

    def on_epoch_begin(self, epoch: int) -> None:
        self._set(epoch)

    def on_train_end(self) -> None:
        if self.loader is not None:
            self.loader.batch_size = self.own_size
            self.loader = None

    def _set(self, epoch: int) -> None:
        if callable(self.sizes):
            size = self.sizes(epoch)
        else:
            size = self.sizes[max(begun)] if (begun := [e for e in self.sizes if e <= epoch]) else self.own_size
        self.size = positive_int("the batch size", size)
        if self.loader is not None:
            self.loader.batch_size = self.size

    def state_dict(self) -> dict[str, Any]:
        """The size now; the loader belongs to this process."""
        return {"size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; an epoch that is continued has no on_epoch_begin to set its size in."""
        super().load_state_dict(state)
        if self.loader is not None:
            self.loader.batch_size = self.size
