"""Stochastic weight averaging: the mean of the weights over the last epochs."""
from __future__ import annotations

from typing import Any

import torch
from torch.optim.swa_utils import get_swa_multi_avg_fn

from ..checks import number
from ..distributed import share_mean
from ..torch_private import BATCH_NORMS, uncompiled
from ..utils import rng_state, run_model, set_rng_state
from .averaging import Averaging

__all__ = ["SWA"]


class SWA(Averaging):
    """Stochastic weight averaging: the mean of the weights at the ends of all epochs from `start`, a part of the run.

    From then on validation measures the averaged model, and after the last epoch the learner has it; an error before
    that leaves the weights that were trained. Batch norm's statistics are measured for it: a forward pass over the
    training data an epoch. It pays with a learning rate that stays high, not with one that is annealed to zero.
    Source: Izmailov et al., arXiv 1803.05407.

    >>> learn = fake_learner()
    >>> learn.fit(4, callbacks=SWA(learn, start=0.5))
    >>> learn.swa.n_averaged
    2
    """

    def __init__(self, learn: Any, start: float = 0.75) -> None:
        super().__init__(learn)
        if not 0 <= number("start", start) < 1:
            raise ValueError(f"start is a part of the run, from 0 to below 1, not {start}")
        self.start = start

    def on_train_begin(self) -> None:
        super().on_train_begin()
        self.next_epoch = 0

    def on_batch_begin(self, train: bool, epoch: int, n_epochs: int) -> None:  # type: ignore[override]
        if not train:
            self.before_validation(epoch, n_epochs)
            super().on_batch_begin(train)

    def on_epoch_end(self, epoch: int, n_epochs: int, stop_training: bool) -> None:
        self.before_validation(epoch, n_epochs)
        super().on_epoch_end(epoch, n_epochs, stop_training)

    def before_validation(self, epoch: int, n_epochs: int) -> None:
        """Add this epoch's weights, once. Several processes call it at the same time, with or without a batch to
        validate on."""
        if epoch < max(self.next_epoch, int(self.start * n_epochs)):
            return
        self.next_epoch = epoch + 1
        get_swa_multi_avg_fn()(*self._floats(), self.n_averaged)  # type: ignore[no-untyped-call]
        self.n_averaged += 1
        if layers := [m for m in self.learn.model.modules() if isinstance(m, BATCH_NORMS)]:
            self._measure_batch_norm(layers)

    @torch.no_grad()
    def _measure_batch_norm(self, layers: list[Any]) -> None:
        model, dl = self.learn.model, self.learn.data.train_dl  # torch's update_bn waits for the device in every batch
        flags = [(m, m.training) for m in model.modules()]
        momenta, position, random_state = [m.momentum for m in layers], dl.state_dict(), rng_state()
        self._show_average()
        try:
            model.train()
            for i, (x, _) in enumerate(dl):
                for m in layers:
                    m.momentum = 1 / (i + 1)    # the running mean is then that of the batches so far, all alike
                with uncompiled(model):     # compiled code would be made again for each momentum
                    run_model(model, x)
            share_mean(self.learn, [b for m in layers for b in m.buffers() if b.is_floating_point()])
            for a, w in zip(self.average, self._weights, strict=True):
                a.copy_(w)
        finally:
            for m, momentum in zip(layers, momenta, strict=True):
                m.momentum = momentum
            for m, training in flags:
                m.training = training
            self._show_own()
            dl.load_state_dict(position)
            set_rng_state(random_state)
