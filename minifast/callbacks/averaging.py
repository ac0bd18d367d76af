"""Averages of the weights along the run: the exponential one, and what all of them do."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..callback import LearnerCallback
from ..checks import number
from ..order import Order
from ..utils import to_device

__all__ = ["EMA"]


class Averaging(LearnerCallback):
    """Keeps an average of the weights, shows it to validation and to savers of models, and leaves it at the end."""

    _order = Order.AVERAGE
    role = "fit"

    def __init__(self, learn: Any) -> None:
        super().__init__(learn)
        self._weights: list[Tensor] = []
        self._live: list[Tensor] | None = None      # the run's own weights, while the average is in their place
        self.average: list[Tensor] = []
        self.n_averaged = 0

    def on_train_begin(self) -> None:
        # no AveragedModel of torch's: that is a deep copy, with every hook
        self._weights = [t.detach() for t in (*self.learn.model.parameters(), *self.learn.model.buffers())]
        self._live = None
        self.average, self.n_averaged = [t.clone() for t in self._weights], 0

    def on_batch_begin(self, train: bool) -> None:
        if not train and self._live is None and self.n_averaged:
            self._show_average()

    def on_epoch_end(self, epoch: int, n_epochs: int, stop_training: bool) -> None:
        if epoch + 1 < n_epochs and not stop_training:
            self._show_own()
        elif self.n_averaged:
            if self._live is None:
                self._show_average()
            self._live = None

    def on_train_end(self) -> None:
        self._show_own()

    def _floats(self) -> list[list[Tensor]]:
        return [[torch.view_as_real(t) if t.is_complex() else t for t in tensors
                 if t.is_floating_point() or t.is_complex()] for tensors in (self.average, self._weights)]

    def _show_average(self) -> None:
        self._live = [w.clone() for w in self._weights]     # first: an interrupt from here on can be undone
        for a, w in zip(*self._floats(), strict=True):      # counters of batches have no mean
            w.copy_(a)

    def _show_own(self) -> None:
        for w, own in zip(self._weights, self._live or (), strict=False):
            w.copy_(own)
        self._live = None

    def state_dict(self) -> dict[str, Any]:
        return {k: v for k, v in super().state_dict().items() if k not in ("_weights", "_live")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if [getattr(t, "shape", 0) for t in state["average"]] != [t.shape for t in self._weights]:
            raise ValueError("its average is none of these weights")
        super().load_state_dict(to_device(state, self.learn.data.device))


class EMA(Averaging):
    """Exponential moving average: after each optimizer step, average = d · average + (1 - d) · weights.

    d is `decay`, in the first steps (1 + n) / (10 + n) after n of them where that is less, so that a short run
    forgets its start too. Buffers (the statistics of batch norm) are averaged alike. Validation measures the averaged
    model, and after the last epoch the learner has it; an error before that leaves the weights that were trained.

    >>> learn = fake_learner()
    >>> learn.fit(2, callbacks=EMA(learn, decay=0.9))
    >>> learn.ema.n_averaged
    4
    """

    def __init__(self, learn: Any, decay: float = 0.999) -> None:
        super().__init__(learn)
        if not 0 < number("decay", decay) < 1:
            raise ValueError(f"decay must be above 0 and below 1, not {decay}")
        self.decay = decay

    def on_step_end(self, skip_step: bool) -> None:
        if not skip_step:
            self.n_averaged += 1
            decay = min(self.decay, self.n_averaged / (9 + self.n_averaged))
            get_ema_multi_avg_fn(decay)(*self._floats(), self.n_averaged)  # type: ignore[no-untyped-call]
