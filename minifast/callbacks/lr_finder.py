"""The learning-rate range test."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from ..callback import LearnerCallback
from ..stepper import Stepper, annealing_exp
from ..suggestion import RangeTest
from ..utils import positive_float, positive_int

__all__ = ["LRFinder"]


class LRFinder(LearnerCallback):
    """Trains at learning rates growing by equal factors from `start_lr` to exactly `end_lr` over `num_it` batches.

    With `stop_div` it ends early once the smoothed loss has risen above its best by four times what it fell (or, if it has
    not fallen, four times the spread of its first ten batches); a loss that is not finite always ends it. Both
    rules are the same for a loss times or plus a constant, so negative and huge losses are safe. With several layer groups
    `start_lr` and `end_lr` are those of the last one, the others keep their ratio to it.

    Source: L. Smith, "Cyclical learning rates for training neural networks" (arXiv 1506.01186), section 3.3.
    """

    def __init__(self, learn: Any, start_lr: float = 1e-7, end_lr: float = 10, num_it: int = 100,
                 stop_div: bool = True) -> None:
        super().__init__(learn)
        start_lr, end_lr = positive_float("start_lr", start_lr), positive_float("end_lr", end_lr)
        if end_lr <= start_lr:
            raise ValueError(f"end_lr must be above start_lr, not {end_lr} with start_lr={start_lr}")
        self.num_it, self.stop_div = positive_int("num_it", num_it), stop_div
        # the last of num_it batches is num_it - 1 steps from the first
        self.schedule = Stepper((start_lr, end_lr), num_it - 1, annealing_exp)

    def on_train_begin(self) -> dict[str, Any]:
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.raw_losses: list[float] = []
        lrs = self.learn.opt.values("lr")
        self.ratios = [lr / lrs[-1] for lr in lrs]
        return {"skip_validate": True}

    def on_batch_begin(self, iteration: int) -> None:
        self.learn.opt.lr = [self.schedule(iteration) * r for r in self.ratios]

    def on_batch_end(self, last_loss: Tensor, smooth_loss: Tensor) -> dict[str, Any] | None:
        self.lrs.append(self.learn.opt.lr)
        # read on the host, one synchronisation a batch: whether to stop must be known now
        self.losses.append(float(smooth_loss))
        self.raw_losses.append(float(last_loss))
        done = len(self.lrs) >= self.num_it or not math.isfinite(self.losses[-1]) or self.stop_div and self._diverged()
        return {"stop_epoch": True, "stop_training": True} if done else None

    def _diverged(self) -> bool:
        if len(self.losses) <= 10:
            return False
        best, early = min(self.losses), self.raw_losses[:10]
        return self.losses[-1] > best + 4 * max(self.losses[0] - best, max(early) - min(early))

    @property
    def result(self) -> RangeTest:
        """What has been found so far."""
        return RangeTest(np.array(self.lrs), np.array(self.losses), np.array(self.raw_losses))
