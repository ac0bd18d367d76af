"""A flat learning rate, annealed at the end."""
from __future__ import annotations

from typing import Any

from ..checks import check_momenta
from ..schedules import Plan, flat_cosine
from ..stepper import Phases, Stepper, annealing_cos, annealing_linear
from .scheduler import ScheduleCallback

__all__ = ["FlatCosAnnealScheduler"]


class FlatCosAnnealScheduler(ScheduleCallback):
    """The learning rate is flat, then annealed to 0.

    `lr`: the flat value, a number, or a slice or list for the layer groups; 4e-3 by default. `tot_epochs`: the
    schedule's length in epochs, 1 by default. `moms`: momentum while the rate is flat, and after; None leaves it
    unchanged. `start_pct`: the flat part of the run, 0.72 by default. `curve`: "cosine" or "linear", how it falls.
    ValueError for another curve.

    >>> learn = fake_learner(train_length=20)
    >>> learn.fit(2, callbacks=[FlatCosAnnealScheduler(learn, 0.01, tot_epochs=2, start_pct=0.5)])
    >>> round(learn.recorder.lrs[3], 4), learn.recorder.lrs[-1] < 0.005
    (0.01, True)
    """

    def __init__(self, learn: Any, lr: Any = 4e-3, tot_epochs: int = 1,
                 moms: tuple[float, float] | None = (0.95, 0.999), start_pct: float = 0.72,
                 curve: str = "cosine") -> None:
        super().__init__(learn, tot_epochs)
        if curve not in ("cosine", "linear"):
            raise ValueError(f"curve must be 'cosine' or 'linear', not {curve!r}")
        if moms is not None:
            check_momenta(moms, "(while lr is flat, after)")
        self.lr = learn.lr_range(lr)
        self.moms, self.start_pct, self.curve = moms, start_pct, curve
        anneal = annealing_cos if curve == "cosine" else annealing_linear
        self._lr_curve = flat_cosine(self.lr, pct_start=start_pct, anneal=anneal)

    def plan(self, n_updates: int, n_epochs: int) -> Plan:
        """lr flat, then falling; momentum at one value, then at the other."""
        plan = {"lr": self._lr_curve(n_updates, n_updates / n_epochs)}
        if self.moms is not None:
            flat = int(n_updates * self.start_pct)
            plan["mom"] = Phases([Stepper(self.moms[0], flat), Stepper(self.moms[1], n_updates - flat)])
        return plan
