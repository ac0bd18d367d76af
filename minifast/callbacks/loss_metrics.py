"""The parts of a loss as columns."""
from __future__ import annotations

from typing import Any

from torch import Tensor

from ..batches import merged
from ..callback import LearnerCallback
from ..distributed import together
from ..order import Order
from ..state import Changes
from ..utils import to_detach, weighted_mean

__all__ = ["LossMetrics"]


class LossMetrics(LearnerCallback):
    """Adds a column for each part that the loss function reports, over the validation as the loss itself.

    learn: the learner whose loss function reports parts.
    train: whether they are measured over the training batches instead, as they are trained on.

    The loss function lists the parts' names in `metric_names` and, whenever it is called, puts their values (tensors or
    numbers) into its dict `metrics`. Each part is a mean over what the loss is a mean over (`State.last_weight`).
    Returns `last_metrics` in on_epoch_end. TypeError before epoch 0 for a loss function without `metric_names`.

    >>> class Parts(nn.CrossEntropyLoss):
    ...     metric_names = ["size"]
    ...     def forward(self, output, target):
    ...         self.metrics = {"size": output.abs().mean()}
    ...         return super().forward(output, target)
    >>> learn = fake_learner(loss_func=Parts())
    >>> learn.fit(1, callbacks=[LossMetrics(learn)])
    >>> learn.recorder.names
    ['epoch', 'train_loss', 'valid_loss', 'size', 'time']
    """

    _order = Order.COLUMNS
    role = "watching"

    def __init__(self, learn: Any, train: bool = False) -> None:
        super().__init__(learn)
        self.train = train

    def on_train_begin(self) -> None:
        self.loss_func: Any = self.learn.loss_func   # here, because another callback may wrap it for the run
        if not (names := getattr(self.loss_func, "metric_names", None)):
            raise TypeError(f"LossMetrics needs a loss function that names its parts in `metric_names`; "
                            f"{self.loss_func!r} does not")
        self.names = list(names)
        self.learn.recorder.add_metric_names(self.names)
        self.parts: list[list[Any]] = []
        self.weights: list[Any] = []

    def on_batch_end(self, train: bool, last_weight: Any) -> None:
        if train == self.train:
            values = [self.loss_func.metrics[name] for name in self.names]
            self.parts.append([v.detach() if isinstance(v, Tensor) else v for v in values])
            if train and together(self.learn) and last_weight is not None:  # of this process's part of the batch
                last_weight = self.learn.distributed.exchange.mine
            self.weights.append(last_weight)

    def on_epoch_end(self, last_metrics: list[Any]) -> Changes:
        batches = merged(self.learn, to_detach(list(zip(self.parts, self.weights, strict=True))), not self.train)
        columns = zip(*(parts for parts, _ in batches), strict=True) if batches else [()] * len(self.names)
        means = [weighted_mean(column, [weight for _, weight in batches]) for column in columns]
        self.parts, self.weights = [], []
        return {"last_metrics": [*last_metrics, *means]}

    def on_train_end(self) -> None:
        self.loss_func = None
