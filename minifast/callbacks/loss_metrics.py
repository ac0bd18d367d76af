"""The parts of a loss as columns."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..callback import LearnerCallback
from ..order import Order
from ..state import Changes
from ..utils import batch_length, weighted_mean

__all__ = ["LossMetrics"]


class LossMetrics(LearnerCallback):
    """Adds a column for each part that the loss function reports, a mean over the validation's samples.

    The loss function lists the parts' names in `metric_names` and, whenever it is called, puts their values (tensors or
    numbers) into its dict `metrics`. Answers `last_metrics` in on_epoch_end. TypeError before epoch 0 for a loss
    function without `metric_names`.
    """

    _order = Order.COLUMNS
    role = "watching"

    def on_train_begin(self) -> None:
        self.loss_func: Any = self.learn.loss_func   # here, because another callback may wrap it for the run
        if not (names := getattr(self.loss_func, "metric_names", None)):
            raise TypeError(f"LossMetrics needs a loss function that names its parts in `metric_names`; "
                            f"{self.loss_func!r} does not")
        self.names = list(names)
        self.learn.recorder.add_metric_names(self.names)
        self.parts: list[list[Any]] = []
        self.counts: list[int] = []

    def on_batch_end(self, train: bool, last_target: Any) -> None:
        if not train:
            self.parts.append([self.loss_func.metrics[name] for name in self.names])
            self.counts.append(batch_length(last_target))

    def on_epoch_end(self, last_metrics: list[Any]) -> Changes:
        columns = zip(*self.parts, strict=True) if self.parts else [()] * len(self.names)
        means = [weighted_mean([_tensor(v) for v in column], self.counts) for column in columns]
        self.parts, self.counts = [], []
        return {"last_metrics": [*last_metrics, *means]}

    def on_train_end(self) -> None:
        self.loss_func = None


def _tensor(value: Any) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
