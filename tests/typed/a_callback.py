"""A user's file of callbacks, checked by `mypy --strict` as an editor would."""
from typing import Any

import torch
from torch import Tensor

from minifast.callback import LearnerCallback
from minifast.learner import Learner


class GradNorm(LearnerCallback):
    """Adds a column with the norm of the gradient in the epoch's last batch."""

    _order = -20

    def __init__(self, learn: Learner, scale: float = 1.0) -> None:
        super().__init__(learn)
        self.scale = scale
        self.norm: Tensor | None = None

    def on_train_begin(self) -> None:
        self.learn.recorder.add_metric_names(["grad_norm"])

    def on_backward_end(self) -> None:
        grads = [p.grad for p in self.learn.model.parameters() if p.grad is not None]
        self.norm = torch.stack([g.norm() for g in grads]).norm() * self.scale

    def on_epoch_end(self, last_metrics: list[Any]) -> dict[str, Any]:
        return {"last_metrics": [*last_metrics, self.norm]}
