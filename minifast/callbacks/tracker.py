"""Watching a column of the table: stop early, lower the learning rate."""
from __future__ import annotations

import operator
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..callback import LearnerCallback
from ..checks import did_you_mean, number, positive_float, positive_int
from ..state import Changes
from .scheduler import ScheduleCallback

if TYPE_CHECKING:
    from ..learner import Learner

__all__ = ["TrackerCallback", "EarlyStoppingCallback", "ReduceLROnPlateauCallback"]

# words in a column's name that say which way is better; with words of both lists, or of none, it is not known
FALLS = ("loss", "error", "mse", "mae", "msle", "rmspe", "perplexity")
RISES = "acc score dice beta f1 auc roc precision recall iou variance kappa corr psnr".split()


class TrackerCallback(LearnerCallback):
    """Base of those that watch `monitor`, a column of the table: train_loss, valid_loss, a metric or an added column.

    `mode` is "min" or "max", whichever is better; "auto" goes by the column's name. An epoch is an improvement if its
    value is better than the best so far by more than `min_delta`: NaN never is, a column without a value (`#na#`) does
    not count. Reads the recorder in on_epoch_end; then `improved` says whether that epoch was one, `best` and
    `best_epoch` which was the last one, `wait` how many epochs have gone by since. ValueError before epoch 0 for a
    column that is not there, or one whose direction "auto" does not know.

    >>> run = simulate(partial(TrackerCallback, monitor="valid_loss"), 3, valid_losses=[3, 1, 2])
    >>> run.callback.best, run.callback.best_epoch
    (1.0, 1)
    """

    role = "fit"

    def __init__(self, learn: Learner, monitor: str = "valid_loss", mode: str = "auto", min_delta: float = 0.0) -> None:
        super().__init__(learn)
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max', not {mode!r}")
        min_delta = positive_float("min_delta", min_delta, or_zero=True)
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta

    def on_train_begin(self, **kwargs: Any) -> None:
        who, r = f"{type(self).__name__} monitors {self.monitor!r}", self.learn.recorder
        columns = r.names[1:len(r.names) - r.add_time]
        if self.monitor not in columns:
            raise ValueError(f"{who}, but the columns are {', '.join(columns)}." + did_you_mean(self.monitor, columns))
        if self.learn.data.empty_val and self.monitor != "train_loss":
            raise ValueError(f"{who}, but there is no validation data: monitor 'train_loss', or give the data some")
        falls, rises = (any(word in self.monitor.lower() for word in words) for words in (FALLS, RISES))
        if self.mode == "auto" and falls == rises:
            raise ValueError(f"{who}, whose name does not say which way is better: pass mode='min' or mode='max'")
        self.falls = self.mode == "min" or self.mode == "auto" and falls
        self.operator = operator.lt if self.falls else operator.gt  # for subclasses
        self.best = float("inf") if self.falls else -float("inf")
        self.best_epoch, self.improved, self.wait = -1, False, 0

    def on_epoch_end(self, epoch: int, **kwargs: Any) -> Any:
        value, self.improved = self.get_monitor_value(), False
        if value is None:
            return
        self.wait += 1
        if (self.best - value if self.falls else value - self.best) > self.min_delta:
            self.best, self.best_epoch, self.improved, self.wait = value, epoch, True, 0

    def get_monitor_value(self) -> float | None:
        """The column's value in the last epoch, None if it has none."""
        r = self.learn.recorder
        value: float | None = [r.train_losses[-1], r.val_losses[-1], *r.metrics[-1]][r.names.index(self.monitor) - 1]
        return value


class EarlyStoppingCallback(TrackerCallback):
    """Returns `stop_training` in on_epoch_end after `patience` epochs in a row without an improvement (0: as 1).

    Warns if a schedule would have gone on to lower the learning rate: a 1cycle run that stops early loses its
    annealing, where much of its gain is.

    >>> simulate(partial(EarlyStoppingCallback, patience=2), 9, valid_losses=[3, 2, 2]).state.epoch
    4
    """

    def __init__(self, learn: Learner, monitor: str = "valid_loss", mode: str = "auto", min_delta: float = 0.0,
                 patience: int = 1) -> None:
        super().__init__(learn, monitor, mode, min_delta)
        self.patience = positive_int("patience", patience, or_zero=True)

    def on_epoch_end(self, epoch: int, n_epochs: int, pbar: Any, **kwargs: Any) -> Changes | None:  # type: ignore[override]
        super().on_epoch_end(epoch)
        if self.wait < max(1, self.patience) or epoch + 1 >= n_epochs:
            return None
        pbar.write([f"early stopping after epoch {epoch}: no better {self.monitor} in {self.wait} epochs"])
        for schedule in self.learn.handler.callbacks:
            if isinstance(schedule, ScheduleCallback) and "lr" in schedule.schedules:
                lr, end = self.learn.opt.lr, np.ravel(schedule.schedules["lr"](schedule.n_planned - 1))[-1]
                if end < lr / 2:
                    warnings.warn(f"stopped early at lr={lr:.2g}: what {type(schedule).__name__} would have gained by "
                                  f"annealing to {end:.2g} is lost; a shorter schedule has it")
        return {"stop_training": True}


class ReduceLROnPlateauCallback(TrackerCallback):
    """Multiplies the learning rates by `factor` after `patience` epochs in a row without an improvement (0: as 1).

    All layer groups alike, so their ratios stay; the last one's does not go below `min_lr`. Sets `opt.lr` in
    on_epoch_end; a schedule of lr in the same run overrules it.

    >>> run = simulate(partial(ReduceLROnPlateauCallback, factor=0.5), 3, valid_losses=[1, 1, 1])
    >>> run.learn.opt.lr < 3e-3
    True
    """

    def __init__(self, learn: Learner, monitor: str = "valid_loss", mode: str = "auto", patience: int = 1,
                 factor: float = 0.2, min_delta: float = 0.0, min_lr: float = 0.0) -> None:
        super().__init__(learn, monitor, mode, min_delta)
        if not 0 < number("factor", factor) < 1:
            raise ValueError(f"factor must be above 0 and below 1, not {factor}")
        self.factor, self.patience = factor, positive_int("patience", patience, or_zero=True)
        self.min_lr = positive_float("min_lr", min_lr, or_zero=True)

    def on_epoch_end(self, epoch: int, pbar: Any, **kwargs: Any) -> None:  # type: ignore[override]
        super().on_epoch_end(epoch)
        lrs = self.learn.opt.values("lr")
        if self.wait >= max(1, self.patience) and lrs[-1] > self.min_lr:
            factor = max(self.factor, self.min_lr / lrs[-1])
            self.learn.opt.lr, self.wait = [lr * factor for lr in lrs], 0
            pbar.write([f"lr is {lrs[-1] * factor:.2g} after epoch {epoch}: no better {self.monitor}"])
