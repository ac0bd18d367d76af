"""Optuna's pruning."""
from __future__ import annotations

from typing import Any

from ..distributed import once
from .run_tracker import extra
from .tracker import TrackerCallback

__all__ = ["OptunaPruning"]


class OptunaPruning(TrackerCallback):
    """Reports a column of the table to a trial of Optuna after each epoch, and ends the trial where Optuna says so, by
    its own exception, `TrialPruned`, which the objective lets pass.

    learn: the learner of the trial.
    trial: Optuna's.
    monitor, mode, min_delta: see `TrackerCallback`. ValueError before epoch 0 if the study goes the other way.

    >>> class Trial:    # as Optuna's `study.optimize` gives one to the objective
    ...     def report(self, value, step): print(step)
    ...     def should_prune(self): return False
    >>> learn = fake_learner()
    >>> learn.fit(2, callbacks=OptunaPruning(learn, Trial()))
    0
    1
    """

    def __init__(self, learn: Any, trial: Any, monitor: str = "valid_loss", mode: str = "auto",
                 min_delta: float = 0.0) -> None:
        super().__init__(learn, monitor, mode, min_delta)
        self.trial = trial
        self.n_reported = 0     # also in earlier fits: a trial counts on

    def on_train_begin(self, **kwargs: Any) -> None:
        super().on_train_begin(**kwargs)
        study = getattr(self.trial, "study", None)
        if study is not None and (study.direction.name == "MINIMIZE") != self.falls:
            raise ValueError(f"the study is to {study.direction.name.lower()}, and of {self.monitor!r} "
                             f"{'smaller' if self.falls else 'larger'} is better: optuna.create_study(direction=...), "
                             "or mode= here")

    def on_epoch_end(self, epoch: int, **kwargs: Any) -> None:
        super().on_epoch_end(epoch=epoch, **kwargs)
        value = self.get_monitor_value()
        if value is None:
            return
        step, self.n_reported = self.n_reported, self.n_reported + 1

        def pruned() -> bool:
            self.trial.report(float(value), step)
            return bool(self.trial.should_prune())
        if once(self.learn, pruned):    # of several processes the first one has the trial
            raise extra("optuna", "Optuna").TrialPruned(f"{self.monitor} {value:.6g} after epoch {epoch}")
