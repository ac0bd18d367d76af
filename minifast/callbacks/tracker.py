"""Watching a column of the table: stop early, keep the best weights, lower the learning rate."""
from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np

from ..callback import LearnerCallback
from ..state import Update
from ..utils import did_you_mean, positive_int
from .scheduler import ScheduleCallback

__all__ = ["TrackerCallback", "EarlyStoppingCallback", "SaveModelCallback", "ReduceLROnPlateauCallback"]

# what a column's name tells about its direction; a name with words of both lists, or of none, does not say
FALLS = ("loss", "error", "mse", "mae", "msle", "rmspe", "perplexity")
RISES = ("acc", "score", "dice", "beta", "f1", "auc", "roc", "precision", "recall", "iou", "variance", "kappa", "corr")


class TrackerCallback(LearnerCallback):
    """Base of those that watch `monitor`, a column of the table: train_loss, valid_loss, a metric or an added column.

    `mode` is "min" or "max", whichever is better; "auto" goes by the column's name. An epoch is an improvement if its
    value is better than the best so far by more than `min_delta`; NaN never is, and a column without a value (`#na#`)
    leaves all as it was. Reads the recorder in on_epoch_end; afterwards `improved` says whether that epoch was an
    improvement, `best` and `best_epoch` which was the last one, `wait` how many epochs have gone by since then.

    ValueError before epoch 0 for a column that is not there, or one whose direction "auto" cannot tell.
    """

    only_in_fit = True

    def __init__(self, learn: Any, monitor: str = "valid_loss", mode: str = "auto", min_delta: float = 0.0) -> None:
        super().__init__(learn)
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max', not {mode!r}")
        if not 0 <= min_delta < float("inf"):
            raise ValueError(f"min_delta must be a finite number of at least 0, not {min_delta}")
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta

    def on_train_begin(self, **kwargs: Any) -> None:
        columns = list(self._columns())
        if self.monitor not in columns:
            raise ValueError(f"{type(self).__name__}: there is no column {self.monitor!r} to monitor; the columns are "
                             f"{', '.join(columns)}." + did_you_mean(self.monitor, columns))
        if self.learn.data.empty_val and self.monitor != "train_loss":
            raise ValueError(f"{type(self).__name__} monitors {self.monitor!r}, and there is no validation data: "
                             "monitor 'train_loss', or give the data some")
        self.falls = self._falls()
        self.operator = operator.lt if self.falls else operator.gt
        self.best = float("inf") if self.falls else -float("inf")
        self.best_epoch: int | None = None
        self.improved, self.wait = False, 0

    def on_epoch_end(self, epoch: int, **kwargs: Any) -> Any:
        value = self.get_monitor_value()
        self.improved = value is not None and self.operator(
            value, self.best - self.min_delta if self.falls else self.best + self.min_delta)
        if self.improved:
            self.best, self.best_epoch, self.wait = value, epoch, 0  # type: ignore[assignment]
        elif value is not None:
            self.wait += 1

    def get_monitor_value(self) -> float | None:
        """The column's value in the last epoch, None if it has none."""
        return self._columns(-1)[self.monitor]

    def _columns(self, epoch: int | None = None) -> dict[str, float | None]:
        """The columns that can be monitored, with the values of an epoch if one is given."""
        r = self.learn.recorder
        names = r.names[1:len(r.names) - r.add_time]
        values = [None] * len(names) if epoch is None else [r.train_losses[epoch], r.val_losses[epoch], *r.metrics[epoch]]
        return dict(zip(names, values, strict=True))

    def _falls(self) -> bool:
        falls, rises = (any(word in self.monitor.lower() for word in words) for words in (FALLS, RISES))
        if self.mode == "auto" and falls == rises:
            raise ValueError(f"{type(self).__name__}: the name {self.monitor!r} does not tell which way is better: pass "
                             "mode='min' or mode='max'")
        return self.mode == "min" or self.mode == "auto" and falls


class EarlyStoppingCallback(TrackerCallback):
    """Ends the run after `patience` epochs in a row without an improvement (see `TrackerCallback`).

    Answers {"stop_training": True} in on_epoch_end. Warns if a schedule was to bring the learning rate down further: a
    1cycle run that is stopped early loses its annealing, where most of its gain is.
    """

    def __init__(self, learn: Any, monitor: str = "valid_loss", mode: str = "auto", min_delta: float = 0.0,
                 patience: int = 1) -> None:
        super().__init__(learn, monitor, mode, min_delta)
        self.patience = positive_int("patience", patience)

    def on_epoch_end(self, epoch: int, n_epochs: int, pbar: Any, **kwargs: Any) -> Update | None:  # type: ignore[override]
        super().on_epoch_end(epoch)
        if self.wait < self.patience or epoch + 1 >= n_epochs:
            return None
        since = "" if self.best_epoch is None else f" since epoch {self.best_epoch} ({self.best:.6f})"
        pbar.write([f"early stopping after epoch {epoch}: {self.monitor} has not improved{since}"])
        self._warn_of_lost_anneal()
        return {"stop_training": True}

    def _warn_of_lost_anneal(self) -> None:
        lr = self.learn.opt.lr
        for schedule in vars(self.learn).values():
            if isinstance(schedule, ScheduleCallback) and "lr" in getattr(schedule, "before", ()):
                end = np.ravel(schedule.schedules["lr"](schedule.n_planned - 1))[-1]
                if end < lr / 2:
                    warnings.warn(f"stopped early at lr={lr:.2g}: {type(schedule).__name__} was to anneal it to {end:.2g}, "
                                  "and that part of the gain is lost. fit_fc(1, lr, start_pct=0.01) anneals from there; "
                                  "a shorter cycle needs no early stopping")


class SaveModelCallback(TrackerCallback):
    """Saves the weights as `name` whenever `monitor` improves, and loads the best ones when the run ends well.

    They go to `learn.path / learn.model_dir / f"{name}.pth"`. Only what this run has saved is loaded: an older file of
    that name never is. After an error or Ctrl-C the weights stay as they are; `learn.load(name)` gets the best.
    With `every="epoch"` it saves each epoch as `f"{name}_{epoch}"` instead, watches nothing and loads nothing.
    """

    def __init__(self, learn: Any, monitor: str = "valid_loss", mode: str = "auto", every: str = "improvement",
                 name: str = "bestmodel", min_delta: float = 0.0) -> None:
        super().__init__(learn, monitor, mode, min_delta)
        if every not in ("improvement", "epoch"):
            raise ValueError(f"every must be 'improvement' or 'epoch', not {every!r}")
        self.every, self.name = every, name

    def on_train_begin(self, **kwargs: Any) -> None:
        self.saved = False
        if self.every == "improvement":
            super().on_train_begin()

    def on_epoch_end(self, epoch: int, **kwargs: Any) -> None:
        if self.every == "epoch":
            self.learn.save(f"{self.name}_{epoch}", with_opt=False)
            return
        super().on_epoch_end(epoch)
        if self.improved:
            # without the optimizer, whose file would bring this epoch's lr and momentum back into later fits
            self.learn.save(self.name, with_opt=False)
            self.saved = True

    def on_train_end(self, exception: BaseException | None, pbar: Any, **kwargs: Any) -> None:
        if exception is None and self.saved:
            self.learn.load(self.name, with_opt=False)
            pbar.write([f"loaded {self.name}: epoch {self.best_epoch}, {self.monitor} {self.best:.6f}"])


class ReduceLROnPlateauCallback(TrackerCallback):
    """Multiplies the learning rates by `factor` after `patience` epochs in a row without an improvement, and waits anew.

    All layer groups are multiplied alike, so their ratios stay; the last group's rate does not go below `min_lr`. Sets
    `opt.lr` in on_epoch_end; a schedule of lr in the same run would overrule it.
    """

    def __init__(self, learn: Any, monitor: str = "valid_loss", mode: str = "auto", patience: int = 1,
                 factor: float = 0.2, min_delta: float = 0.0, min_lr: float = 0.0) -> None:
        super().__init__(learn, monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"factor must be above 0 and below 1, not {factor}")
        if not 0 <= min_lr < float("inf"):
            raise ValueError(f"min_lr must be a finite number of at least 0, not {min_lr}")
        self.patience, self.factor, self.min_lr = positive_int("patience", patience), factor, min_lr

    def on_epoch_end(self, epoch: int, pbar: Any, **kwargs: Any) -> None:  # type: ignore[override]
        super().on_epoch_end(epoch)
        lrs = self.learn.opt.values("lr")
        if self.wait < self.patience or lrs[-1] <= self.min_lr:
            return
        factor = max(self.factor, self.min_lr / lrs[-1])
        self.learn.opt.lr, self.wait = [lr * factor for lr in lrs], 0
        pbar.write([f"lr is {lrs[-1] * factor:.2g} after epoch {epoch}: {self.monitor} has not improved"])
