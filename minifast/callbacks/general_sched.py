"""Schedules put together from phases."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import check_callable, positive_int
from ..schedules import Plan
from ..stepper import Annealing, Phases, Stepper
from ..utils import listify
from .scheduler import ScheduleCallback

__all__ = ["GeneralScheduler", "TrainingPhase"]


class TrainingPhase:
    """`length` optimizer steps and what hyper-parameters do in them: `TrainingPhase(9).schedule_hp("lr", (0.1, 0))`.

    >>> TrainingPhase(9).schedule_hp("lr", (0.1, 0)).length
    9
    """

    def __init__(self, length: int) -> None:
        self.length = positive_int("length", length)
        self.scheds: dict[str, Stepper] = {}

    def schedule_hp(self, name: str, vals: Any, anneal: Annealing | None = None) -> TrainingPhase:
        """Let the hyper-parameter `name` (lr, mom, beta, wd, or any other key of the optimizer) go through `vals`.

        `vals` is (start, end), either of which may be an array with one value for each layer group, or one value: held,
        or with `anneal` annealed to 0. A pair without `anneal` is a straight line. Returns the phase.
        """
        if anneal is not None:
            check_callable("anneal", anneal)
        self.scheds[name] = Stepper(vals, self.length, anneal)
        return self


class GeneralScheduler(ScheduleCallback):
    """Training phases one after the other, each starting at its own start values.

    What a phase does not schedule keeps the value that it ended with before. A run that is longer than the phases goes
    on with their last values; it is warned once.

    >>> learn = fake_learner(train_length=20)
    >>> phases = [TrainingPhase(2).schedule_hp("lr", (0.1, 0.2)), TrainingPhase(2).schedule_hp("lr", 0.05)]
    >>> learn.fit(1, callbacks=[GeneralScheduler(learn, phases)])
    >>> [round(lr, 3) for lr in learn.recorder.lrs]
    [0.1, 0.15, 0.05, 0.05]
    """

    def __init__(self, learn: Any, phases: TrainingPhase | Sequence[TrainingPhase],
                 start_epoch: int | None = None) -> None:
        super().__init__(learn, start_epoch=start_epoch)
        self.phases: list[TrainingPhase] = listify(phases)
        if not self.phases or not all(isinstance(p, TrainingPhase) for p in self.phases):
            raise TypeError(f"phases must be TrainingPhases, at least one, not {phases!r}")

    def plan(self, n_updates: int, n_epochs: int) -> Plan:
        """Each hyper-parameter through all phases."""
        return {name: Phases(self._steppers(name)) for phase in self.phases for name in phase.scheds}

    def length(self, n_updates: int) -> int:
        """The sum of the phases' lengths."""
        return sum(phase.length for phase in self.phases)

    def _steppers(self, name: str) -> list[Stepper]:
        now = self.learn.opt.values(name)
        held, steppers = np.array(now) if len(now) > 1 else now[0], []
        for phase in self.phases:
            steppers.append(phase.scheds.get(name) or Stepper(held, phase.length))
            held = steppers[-1](phase.length)
        return steppers
