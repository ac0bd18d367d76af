"""Schedulers of `torch.optim.lr_scheduler` as a callback."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..checks import check_callable, did_you_mean, short
from ..optimizer import OptimWrapper
from ..schedules import Plan
from ..state import Changes
from ..torch_private import schedulers_in
from .scheduler import ScheduleCallback

__all__ = ["TorchScheduler"]


class TorchScheduler(ScheduleCallback):
    """Any scheduler of `torch.optim.lr_scheduler`: `TorchScheduler(learn, partial(StepLR, step_size=2))`.

    `scheduler_func` makes it from a torch optimizer: a stand-in with the learner's hyper-parameters, one parameter
    group for each layer group. What the scheduler does there to lr, and to momentum if it cycles that, is done to the
    learner's optimizer; so a preview is exact, and a resumed run catches up by itself. It starts from the learning
    rates that the fit was given. `step_every`: "epoch" or "batch" (an optimizer step). `ReduceLROnPlateau` is given
    `monitor` ("valid_loss" or a metric's name) after each epoch; it cannot be previewed.

    ValueError or TypeError if something given cannot work, before the first batch: also for a scheduler that ends
    before the run does.

    >>> learn = fake_learner(train_length=20)
    >>> learn.fit(2, 1e-2, callbacks=[TorchScheduler(learn, partial(optim.lr_scheduler.StepLR, step_size=1))])
    """

    def __init__(self, learn: Any, scheduler_func: Callable[[torch.optim.Optimizer], Any], step_every: str = "epoch",
                 monitor: str = "valid_loss") -> None:
        super().__init__(learn)
        if step_every not in ("epoch", "batch"):
            raise ValueError(f"step_every must be 'epoch' or 'batch', not {step_every!r}")
        check_callable("scheduler_func", scheduler_func)
        self.scheduler_func, self.step_every, self.monitor = scheduler_func, step_every, monitor
        self.monitored: list[float] = []    # what the scheduler was given: with it a resumed run catches up

    def plan(self, n_updates: int, n_epochs: int) -> Plan:
        """The values of a new scheduler for each of its steps; those of `ReduceLROnPlateau` as the run goes."""
        self.per_epoch = n_updates // n_epochs
        scheduler, opt = self._hosted()
        self.watching = isinstance(scheduler, ReduceLROnPlateau)
        names = ["lr", "mom"] if _cycles_momentum(scheduler) else ["lr"]
        n_steps = n_updates if self.step_every == "batch" else n_epochs
        # gone through ahead, so that one which cannot last is found before the run
        table = {name: [_values(opt, name)] for name in names}
        for step in range(1, 1 if self.watching else n_steps):
            try:
                scheduler.step()
            except Exception as e:
                unit = "optimizer steps" if self.step_every == "batch" else "epochs"
                raise ValueError(f"{type(scheduler).__name__} fails after {step} of the run's {n_steps} {unit} ({e}): "
                                 "give it the length of the run") from e
            for name in names:
                table[name].append(_values(opt, name))
        done = 0

        def value(name: str, i: int) -> Any:
            nonlocal scheduler, opt, done
            if not self.watching:
                return table[name][i if self.step_every == "batch" else i // self.per_epoch]
            if len(self.monitored) < done:  # torch's schedulers only go forward
                (scheduler, opt), done = self._hosted(), 0
            while done < len(self.monitored):
                scheduler.step(self.monitored[done])
                done += 1
            return _values(opt, name)

        return {name: partial(value, name) for name in names}

    def _hosted(self) -> tuple[Any, OptimWrapper]:
        stand_in = _StandIn(self.learn.opt)
        scheduler = self.scheduler_func(stand_in)
        if not isinstance(scheduler, LRScheduler):
            raise TypeError(f"scheduler_func must return a torch scheduler, not {short(scheduler)}")
        stand_in.step()  # torch warns of a scheduler that goes ahead of its optimizer
        return scheduler, OptimWrapper(stand_in)

    def on_train_begin(self, n_updates: int, n_epochs: int, epoch: int,  # type: ignore[override]
                       metrics_names: list[str]) -> Changes | None:
        if epoch == 0:
            self.monitored = []
        changes = super().on_train_begin(n_updates, n_epochs, epoch)
        columns = ["valid_loss", *metrics_names]
        if self.watching and self.monitor not in columns:
            raise ValueError(f"there is no {self.monitor!r} to monitor; there are {', '.join(columns)}."
                             + did_you_mean(self.monitor, columns))
        return changes

    def on_batch_begin(self, train: bool, update: int, epoch: int) -> None:  # type: ignore[override]
        # epochs may be shorter than planned, so they are counted, not worked out from the updates
        super().on_batch_begin(train, epoch * self.per_epoch if self.step_every == "epoch" else update)

    def on_epoch_end(self, epoch: int, last_metrics: list[Any], metrics_names: list[str]) -> None:
        if self.watching:
            value = last_metrics[["valid_loss", *metrics_names].index(self.monitor)]
            if value is None:
                raise ValueError(f"ReduceLROnPlateau needs {self.monitor}, which was not computed in epoch {epoch}")
            self.monitored.append(float(value))

    def preview(self, n_epochs: int) -> dict[str, np.ndarray[Any, Any]]:
        """As of any schedule; ValueError for `ReduceLROnPlateau`, which goes by what is not known yet."""
        table = super().preview(n_epochs)
        if self.watching:
            raise ValueError(f"ReduceLROnPlateau goes by {self.monitor}, which is not known before the run")
        return table


class _StandIn(torch.optim.Optimizer):
    """An optimizer with another's hyper-parameters, one group for each layer group, that optimizes nothing."""

    def __init__(self, opt: OptimWrapper) -> None:
        groups = {g["layer_group"]: g for g in opt.opt.param_groups}
        super().__init__([{**g, "params": [torch.zeros(1)]} for g in groups.values()], dict(opt.opt.defaults))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing."""


def _values(opt: OptimWrapper, name: str) -> Any:
    values = opt.values(name)
    return values if len(values) > 1 else values[0]


def _cycles_momentum(scheduler: Any) -> bool:
    """Whether a torch scheduler, or one of those that it puts together, sets momentum too."""
    parts = schedulers_in(scheduler)
    return bool(getattr(scheduler, "cycle_momentum", False)) or any(map(_cycles_momentum, parts))
