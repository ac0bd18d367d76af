"""Hyper-parameters on a schedule: the callback that sets them, and what it will set, before anything is trained."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import plots
from ..callback import LearnerCallback
from ..checks import check_callable, positive_int
from ..optimizer_state import check_value
from ..schedules import Plan, Schedule, ahead, values
from ..state import Changes
from ..stepper import Phases, Stepper

__all__ = ["ParamScheduler", "ScheduleCallback"]

class ScheduleCallback(LearnerCallback):
    """Sets hyper-parameters of the optimizer before each batch, as functions of the optimizer steps done so far.

    A subclass says which in `plan`. When the run ends, every hyper-parameter it has set is put back to what it was
    before. Steps past the end of the plan hold its last value, with one warning. `tot_epochs`: the schedule's length,
    where the run is only its first part. `start_epoch`: the run begins with that epoch, as if those before it had been
    run; the number of epochs to fit includes them. `schedules` holds the running plan, computed ahead where it is made
    of minifast's own annealing functions: to change what comes, put another schedule there.

    >>> class Halved(ScheduleCallback):
    ...     def plan(self, n_updates, n_epochs): return {"lr": lambda step: 0.1 / 2 ** step}
    >>> learn = fake_learner()
    >>> learn.fit(1, callbacks=Halved(learn))
    >>> list(learn.recorder.lrs)
    [0.1, 0.05]
    """

    role = "fit"    # a range test has its own learning rates

    def __init__(self, learn: Any, tot_epochs: int | None = None, start_epoch: int | None = None) -> None:
        super().__init__(learn)
        self.tot_epochs = None if tot_epochs is None else positive_int("tot_epochs", tot_epochs)
        self.start_epoch = 0 if start_epoch is None else positive_int("start_epoch", start_epoch, or_zero=True)
        self.schedules: Plan = {}
        self.n_planned = 0
        self.warned = False
        self.before: dict[str, Any] = {}    # the run's hyper-parameters, until they are put back

    def plan(self, n_updates: int, n_epochs: int) -> Plan:
        """The schedules, by the name of the hyper-parameter, of `n_updates` optimizer steps in `n_epochs` epochs."""
        raise NotImplementedError

    def length(self, n_updates: int) -> int:
        """How many optimizer steps the plan has values for."""
        return n_updates

    def on_train_begin(self, n_updates: int, n_epochs: int, epoch: int) -> Changes | None:
        self.schedules, self.n_planned = self._planned(n_updates, n_epochs)
        for name, schedule in self.schedules.items():
            check_callable(f"what the curve of {name} returns", schedule)
            # a function that is not ours may only go forward
            for step in (0, self.n_planned - 1) if isinstance(schedule, (Stepper, Phases)) else (0,):
                check_value(name, value := schedule(step))
                if np.ndim(value) and len(value) != (n := self.learn.opt.n_groups):
                    raise ValueError(f"the curve of {name} has {len(value)} values for {n} layer group{'s' * (n > 1)}")
        self.schedules = {name: ahead(schedule) for name, schedule in self.schedules.items()}
        self.warned = False
        self.before = {name: self.learn.opt.values(name) for name in self.schedules}
        if epoch < self.start_epoch:
            return {"epoch": self.start_epoch, "update": self.start_epoch * n_updates // n_epochs}
        return None

    def on_batch_begin(self, train: bool, update: int) -> None:
        if not train:
            return
        if update >= self.n_planned:
            update = self._past_the_end()
        opt = self.learn.opt
        for name, schedule in self.schedules.items():
            opt.set(name, schedule(update))

    def on_train_end(self) -> None:
        for name, before in self.before.items():
            self.learn.opt.set(name, before)
        self.before = {}

    def state_dict(self) -> dict[str, Any]:
        """All but the plan, which a run that continues with more epochs makes again."""
        return {k: v for k, v in super().state_dict().items() if k not in ("n_planned", "schedules")}

    def preview(self, n_epochs: int) -> dict[str, np.ndarray[Any, Any]]:
        """What a run of `n_epochs` epochs will set: for each hyper-parameter, lr and mom always among them, its values
        at the run's optimizer steps, shape (steps,) or (steps, layer groups). What is not scheduled keeps its value."""
        n, opt = positive_int("n_epochs", n_epochs) * len(self.learn.data.train_dl), self.learn.opt
        plan, n_planned = self._planned(n, n_epochs)
        table = {"lr": np.full(n, opt.lr), "mom": np.full(n, opt.mom or 0.0)}
        for name, schedule in plan.items():
            table[name] = np.array(values(schedule, 0, min(n, n_planned)))
            held = np.repeat(table[name][-1:], n - len(table[name]), axis=0)
            table[name] = np.concatenate([table[name], held])
        return {name: v[self.start_epoch * n // n_epochs:] for name, v in table.items()}

    def plot_schedule(self, n_epochs: int, ax: Any = None, return_fig: bool = False) -> Any:
        """Draw the learning rate, and momentum if it moves, of a run of `n_epochs` epochs (of the last layer group)."""
        table = self.preview(n_epochs)
        lrs, moms = (table[name].reshape(len(table[name]), -1)[:, -1] for name in ("lr", "mom"))
        axes = plots.plot_lr(lrs, moms if np.ptp(moms) else None, ax=ax)
        return plots.finished(axes[0].figure, ax, return_fig)

    def _planned(self, n_updates: int, n_epochs: int) -> tuple[Plan, int]:
        if self.start_epoch >= n_epochs:
            raise ValueError(f"start_epoch={self.start_epoch} leaves nothing of a run of {n_epochs} epochs, "
                             "the first ones included")
        n_all = self.tot_epochs or n_epochs
        n_updates = n_updates * n_all // n_epochs
        plan, opt = self.plan(n_updates, n_all), self.learn.opt
        if "mom" in plan and not opt.mom:
            raise ValueError(f"{opt.name} runs without momentum, so there is none to schedule: pass moms=None (or "
                             "leave mom out), or an optimizer with momentum, such as partial(optim.SGD, momentum=0.9)")
        return plan, self.length(n_updates)

    def _past_the_end(self) -> int:
        if not self.warned:
            self.warned = True
            warnings.warn(f"{type(self).__name__} was planned for {self.n_planned} optimizer steps and the run goes "
                          "on: its last value is held")
        return self.n_planned - 1


class ParamScheduler(ScheduleCallback):
    """Any hyper-parameter by any schedule: `ParamScheduler(learn, lr=schedules.cosine(0.1), wd=schedules.constant(0))`.

    Each is a curve from `minifast.schedules`, or any function of (number of optimizer steps, steps in an
    epoch) that returns a function of the step. TypeError for anything else.

    >>> learn = fake_learner()
    >>> learn.fit(1, callbacks=ParamScheduler(learn, lr=lambda n_steps, per_epoch: lambda step: 0.1 * (step + 1)))
    >>> list(learn.recorder.lrs)
    [0.1, 0.2]
    """

    def __init__(self, learn: Any, tot_epochs: int | None = None, **curves: Callable[[int, float], Schedule]) -> None:
        super().__init__(learn, tot_epochs)
        for name, curve in curves.items():
            if not callable(curve):
                raise TypeError(f"{name} must be a curve, such as schedules.cosine({curve!r}), not {curve!r}")
        self.curves = curves

    def plan(self, n_updates: int, n_epochs: int) -> Plan:
        """The curves over that many steps."""
        return {name: curve(n_updates, n_updates / n_epochs) for name, curve in self.curves.items()}
