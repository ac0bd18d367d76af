"""Training on as many samples of each class as of any other."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..callback import LearnerCallback
from ..device_loader import DeviceDataLoader
from ..loaders import Batch, ItemLoader, Loader, TensorLoader
from ..order import Order
from ..samplers import class_labels
from ..state import Changes

__all__ = ["OverSamplingCallback", "UnderSamplingCallback", "BalancedLoader"]


class BalancedLoader(Loader):
    """Batches of `loader`'s samples, in new order each pass, with `per_class` samples of each class in a pass.

    A class with fewer has each of them equally often (the remainder drawn), one with more gives that many of them,
    drawn again for each pass. `labels` (n,): the class of each sample. Like all loaders a function of seed and pass.

    >>> loader = TensorLoader(torch.arange(5), tensor([0, 1, 1, 1, 1]), bs=8, seed=0)
    >>> [(x, y)] = BalancedLoader(loader, loader.dataset[:][1], per_class=3)
    >>> sorted(y.tolist())
    [0, 0, 0, 1, 1, 1]
    """

    def __init__(self, loader: TensorLoader | ItemLoader, labels: Tensor, per_class: int) -> None:
        self.rows = [torch.nonzero(labels == label)[:, 0] for label in labels.unique()]  # type: ignore[no-untyped-call]
        super().__init__(per_class * len(self.rows), loader.batch_size, True, loader.drop_last, loader.seed)
        self.loader, self.per_class, self.passes = loader, per_class, loader.passes
        self.dataset = loader.dataset

    def _batches(self, gen: torch.Generator, start: int) -> Iterator[Batch]:
        rows = torch.cat([self._drawn(rows, gen) for rows in self.rows])
        rows, loader = rows[torch.randperm(len(rows), generator=gen)], self.loader
        seeds = torch.randint(2**62, (len(rows),), generator=gen)
        batches: Iterator[Batch]
        if isinstance(loader, ItemLoader):
            batches = loader.batches_of(rows, seeds, self.cuts(start))
        else:
            batches = (loader.samples(rows[cut]) for cut in self.cuts(start))
        return self._with_seeds(batches, seeds, start) if loader.seeded else batches

    def _drawn(self, rows: Tensor, gen: torch.Generator) -> Tensor:
        whole, rest = divmod(self.per_class, len(rows))
        return torch.cat([*[rows] * whole, rows[torch.randperm(len(rows), generator=gen)[:rest]]])


class _Balancing(LearnerCallback):
    """Puts a `BalancedLoader` in the training data's place for a run, and the original back when it ends.

    It returns `n_updates`, the run's new length.

    learn: the learner of the run.
    labels: the classes of the training samples, whole numbers, (n,) (default: those of the data).

    ValueError if they are not known, TypeError if the batches come from elsewhere than `DataBunch.create`.
    """

    _order = Order.TRAINING_DATA
    per_class: ClassVar[Any]    # of the classes' counts

    def __init__(self, learn: Any, labels: Any = None) -> None:
        super().__init__(learn)
        self.labels = None if labels is None else torch.as_tensor(labels)
        self.original: DeviceDataLoader | None = None   # the training data, while another one is in its place

    def on_train_begin(self, n_epochs: int) -> Changes | None:
        data, who = self.learn.data, type(self).__name__
        dl = getattr(data.train_dl, "replaced", data.train_dl)
        if not isinstance(dl.dl, (TensorLoader, ItemLoader)):
            raise TypeError(f"{who} draws from a dataset, which batches from a {type(dl.dl).__name__} do not have: use "
                            "DataBunch.create")
        if dl.dl.sampler is not None:
            raise ValueError(f"the data has a sampler= already: leave that or {who} out")
        labels = class_labels(dl.dl) if self.labels is None else self.labels
        if labels is None or labels.ndim != 1 or len(labels) != dl.dl.n or labels.is_floating_point():
            raise ValueError(f"{who} needs the classes of the {dl.dl.n} training samples, whole numbers, as labels=")
        counts = labels.unique(return_counts=True)[1].tolist()  # type: ignore[no-untyped-call]
        balanced = DeviceDataLoader(BalancedLoader(dl.dl, labels.cpu(), type(self).per_class(counts)), dl.device)
        balanced.tfms = dl.tfms
        balanced.replaced = dl  # type: ignore[attr-defined]
        if not len(balanced):
            raise ValueError(f"{who} leaves {balanced.dl.n} samples, which do not fill one batch of {dl.batch_size}")
        self.original = dl
        data.train_dl = balanced
        return {"n_updates": n_epochs * len(balanced)} if n_epochs else None    # a validation has no steps

    def on_train_end(self) -> None:
        if self.original is not None:
            self.original.load_state_dict(self.learn.data.train_dl.state_dict())   # the next run has the next pass
            self.learn.data.train_dl = self.original
            self.original = None


class OverSamplingCallback(_Balancing):
    """Each pass has as many samples of each class as the largest class has, those of the others repeated.

    learn, labels: the learner, and the classes of the training samples, (n,) (default: those of the data). ValueError
    if the classes are not known, TypeError if the batches come from elsewhere than `DataBunch.create`.

    >>> learn = fake_learner()
    >>> learn.fit(1, callbacks=OverSamplingCallback(learn))
    """

    per_class = max


class UnderSamplingCallback(_Balancing):
    """Each pass has as many samples of each class as the smallest class has, another part of the others each time.

    learn, labels: the learner, and the classes of the training samples, (n,) (default: those of the data). ValueError
    if the classes are not known or one batch cannot be filled, TypeError if the batches come from elsewhere than
    `DataBunch.create`.

    >>> learn = fake_learner(train_length=100)
    >>> learn.fit(1, callbacks=UnderSamplingCallback(learn))
    """

    per_class = min
