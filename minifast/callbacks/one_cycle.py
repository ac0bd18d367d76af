"""The 1cycle policy."""
from __future__ import annotations

from typing import Any

import numpy as np

from ..one_cycle_forms import OF_FORM, OTHER_FORMS, Form, arguments, draw, find_form
from ..schedules import Plan
from ..stepper import Phases, Stepper, annealing_cos, annealing_linear
from .scheduler import ScheduleCallback

__all__ = ["ONE_CYCLE_FORMS", "OneCycleScheduler", "linear_cosine"]


def linear_cosine(n: int, lr_max: Any, moms: tuple[float, float] = (0.95, 0.85), div_factor: float = 25.0,
                  pct_start: float = 0.3, final_div: float | None = None) -> Plan:
    """The default form: over the first `pct_start` of the `n` updates lr goes from `lr_max / div_factor` to `lr_max`
    and momentum from `moms[0]` to `moms[1]`, both in a straight line; then lr goes to 0 (or `lr_max / final_div`) and
    momentum back to `moms[0]`, both as half a cosine. Update `int(n * pct_start)` runs at exactly `lr_max`.

    Source: L. Smith, "A disciplined approach to neural network hyper-parameters" (arXiv 1803.09820), in the two-phase
    form that fastai v1's documentation describes.

    >>> lr = linear_cosine(10, 1.0, (0.95, 0.85), 25, 0.3, None)["lr"]
    >>> [round(lr(i), 2) for i in (0, 3, 6, 9)]
    [0.04, 1.0, 0.61, 0.05]
    """
    up = int(n * pct_start)

    def cycle(low: Any, peak: Any, end: Any) -> Phases:
        return Phases([Stepper((low, peak), up, annealing_linear), Stepper((peak, end), n - up, annealing_cos)])

    return {"lr": cycle(lr_max / div_factor, lr_max, lr_max / final_div if final_div else 0.0),
            "mom": cycle(moms[0], moms[1], moms[0])}


ONE_CYCLE_FORMS: dict[str, Form] = {"linear_cosine": linear_cosine, **OTHER_FORMS}


class OneCycleScheduler(ScheduleCallback):
    """One cycle: the learning rate goes up, then down to almost nothing, while momentum goes the other way.

    `lr_max`: the rate at the peak, a number, or a slice or list for the layer groups. `moms`: momentum at the ends and
    at the peak; None leaves it unchanged. `div_factor`: the cycle begins at `lr_max / div_factor`. `pct_start`: the
    rising part, above 0 and below 1. `final_div`: it ends at `lr_max / final_div`; None is the form's own end.
    Where none of these is given, the form's own value counts: for the default (0.95, 0.85), 25 and 0.3.
    `tot_epochs`, `start_epoch`: see `ScheduleCallback`. `form`: a name in `ONE_CYCLE_FORMS`, or a function with the
    arguments of `linear_cosine`, the default. TypeError or ValueError for values that cannot be.

    >>> learn = fake_learner(train_length=50)
    >>> learn.fit(1, callbacks=[OneCycleScheduler(learn, 0.1)])
    >>> round(max(learn.recorder.lrs), 6), round(min(learn.recorder.moms), 6)
    (0.1, 0.85)
    """

    def __init__(self, learn: Any, lr_max: Any, moms: tuple[float, float] | None = OF_FORM,
                 div_factor: float = OF_FORM, pct_start: float = OF_FORM, final_div: float | None = None,
                 tot_epochs: int | None = None, start_epoch: int | None = None,
                 form: str | Form = "linear_cosine") -> None:
        super().__init__(learn, tot_epochs, start_epoch)
        self.form, self.drawing = form, find_form(form, ONE_CYCLE_FORMS)
        values = arguments(self.drawing, moms, div_factor, pct_start, final_div)
        self.moms, self.div_factor, self.pct_start, self.final_div = values
        self.lr_max = np.array(lrs) if isinstance(lrs := learn.lr_range(lr_max), list) else lrs

    def plan(self, n_updates: int, n_epochs: int) -> Plan:
        """The cycle over `n_updates` optimizer steps."""
        moms = self.moms or (0.0, 0.0)
        plan = draw(self.drawing, n_updates, self.lr_max, moms, self.div_factor, self.pct_start, self.final_div)
        return plan if self.moms else {"lr": plan["lr"]}
