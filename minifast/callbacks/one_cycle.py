"""Hyper-parameters on a schedule, and the 1cycle schedule."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..callback import LearnerCallback
from ..stepper import Phases, Stepper, annealing_cos, annealing_linear
from ..utils import positive_float

__all__ = ["ScheduleCallback", "OneCycleScheduler"]


class ScheduleCallback(LearnerCallback):
    """Sets hyper-parameters of the optimizer before each batch, as functions of the optimizer steps done so far.

    A subclass says which: `plan(n_updates)` returns `{"lr": f, "mom": g}`, each a function of the update's index (0 for
    the first). When the run ends, every hyper-parameter it has set is put back to what it was before.
    """

    def plan(self, n_updates: int) -> dict[str, Callable[[int], Any]]:
        """The schedules of a run of `n_updates` optimizer steps, by the name of the hyper-parameter."""
        raise NotImplementedError

    def on_train_begin(self, n_updates: int) -> None:
        self.schedules = self.plan(n_updates)
        self.before = {name: self.learn.opt.values(name) for name in self.schedules}

    def on_batch_begin(self, train: bool, update: int) -> None:
        if train:
            for name, schedule in self.schedules.items():
                self.learn.opt.set(name, schedule(update))

    def on_train_end(self) -> None:
        for name, values in getattr(self, "before", {}).items():
            self.learn.opt.set(name, values)
        self.before = {}


class OneCycleScheduler(ScheduleCallback):
    """One cycle: the learning rate goes up, then down to 0, while momentum goes the other way.

    Over the first `pct_start` of the updates lr goes from `lr_max / div_factor` to `lr_max` and momentum from `moms[0]`
    to `moms[1]`, both in a straight line; then lr goes to 0 and momentum back to `moms[0]`, both as half a cosine.
    Update 0 runs at `lr_max / div_factor`, update `int(n_updates * pct_start)` at exactly `lr_max`. `lr_max` may be a
    list, one value for each layer group. `moms=None` leaves momentum alone.

    Source: L. Smith, "A disciplined approach to neural network hyper-parameters" (arXiv 1803.09820), in the two-phase
    form that fastai v1's documentation describes.
    """

    def __init__(self, learn: Any, lr_max: Any, moms: tuple[float, float] | None = (0.95, 0.85), div_factor: float = 25.0,
                 pct_start: float = 0.3) -> None:
        super().__init__(learn)
        if not 0 < pct_start < 1:
            raise ValueError(f"pct_start is the rising part of the cycle, above 0 and below 1, not {pct_start}")
        if moms is not None and not (len(moms) == 2 and all(0 <= m < 1 for m in moms)):
            raise ValueError(f"moms must be two momenta from 0 to below 1, (at the ends, at the peak), not {moms}")
        self.lr_max = np.array(lr_max) if isinstance(lr_max, (list, tuple, np.ndarray)) else positive_float("lr_max", lr_max)
        self.moms, self.div_factor, self.pct_start = moms, positive_float("div_factor", div_factor), pct_start

    def plan(self, n_updates: int) -> dict[str, Callable[[int], Any]]:
        up = int(n_updates * self.pct_start)
        down = n_updates - up

        def cycle(low: Any, peak: Any, end: Any) -> Phases:
            return Phases([Stepper((low, peak), up, annealing_linear), Stepper((peak, end), down, annealing_cos)])

        plan = {"lr": cycle(self.lr_max / self.div_factor, self.lr_max, 0.0)}
        if self.moms is not None:
            if not self.learn.opt.mom:
                raise ValueError(f"{self.learn.opt.name} runs without momentum, so there is none to cycle: pass moms=None, "
                                 "or an optimizer with momentum, such as partial(optim.SGD, momentum=0.9)")
            plan["mom"] = cycle(self.moms[0], self.moms[1], self.moms[0])
        return plan  # type: ignore[return-value]
