"""`Recorder`: what happened in a run, as arrays, a table and plots."""
from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import plots
from .callback import LearnerCallback
from .checks import check_record
from .order import Order
from .progress import format_time, say
from .suggestion import RangeTest, RangeTests, steepest
from .utils import listify, read_numbers, weighted_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Recorder"]

ADDING = "a callback that adds a column names it in on_train_begin (add_metric_names), with an _order below -10"
ARRAYS = ("lrs", "moms", "_losses", "_raw_losses", "_weights")
LISTS = ("train_losses", "val_losses", "metrics", "nb_batches", "times", "names")

CHUNK = 256  # losses are gathered on their device this many at a time, so that a long epoch keeps few tensors alive


class Recorder(LearnerCallback):
    """Records every training batch and epoch of the last fit, prints its table, and plots it. It is `learn.recorder`.

    Per training batch: `lrs`, `moms` (of the last layer group, as that batch used them), `raw_losses` and `losses`
    (their smoothed mean, see `State.smooth_loss`). Per epoch: `train_losses` (the loss over all the epoch's samples or
    targets, by `State.last_weight`, each batch measured as it was trained on: the table's train_loss), `val_losses`,
    `metrics` (a list each), `times` (seconds) and `nb_batches`. `names` are the table's columns. A value that was not
    computed is None, `#na#` in the table.

    Losses stay on their device during an epoch and are read at its end, all in one go.

    >>> learn = fake_learner(metrics=[accuracy])
    >>> learn.fit(2, 1e-2)
    >>> len(learn.recorder.raw_losses), len(learn.recorder.val_losses)
    (4, 2)
    """

    _order = Order.RECORDER
    role = "watching"

    def __init__(self, learn: Any, add_time: bool = True, silent: bool = False) -> None:
        super().__init__(learn)
        self.add_time, self.silent = add_time, silent
        self.added_names: list[str] = []
        self.range_test: Any = None     # the last lr_find's result; fits and resets leave it alone
        self._before: dict[str, Any] = {}   # the last fit's record, until this one's first epoch begins
        self.reset()

    def reset(self) -> None:
        """Forget the last fit."""
        self.lrs, self.moms = array("d"), array("d")
        self._losses, self._raw_losses = array("d"), array("d")
        # this epoch's losses in chunks of (raw, smoothed) and their weights, on the device
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._chunk: list[Tensor] = []
        self._chunk_weights: list[Any] = []
        self._weights = array("d")               # of this epoch's batches: `State.last_weight`, NaN for None
        self.train_losses: list[float | None] = []
        self.val_losses: list[float | None] = []
        self.metrics: list[list[Any]] = []
        self.nb_batches: list[int] = []
        self.times: list[float] = []
        self.first_epoch = 0                     # of the table's first row
        self._epoch_start = time.perf_counter()
        self.names: list[str] = []
        self.taking_part: list[type] = []        # the callbacks of the fit

    def add_metric_names(self, names: Sequence[str]) -> None:
        """Add columns to the next run's table: called in on_train_begin by a callback with `_order` below -10, which
        then adds its values to `last_metrics` in on_epoch_end."""
        self.added_names += listify(names)

    # the events

    def on_train_begin(self, pbar: Any, metrics_names: list[str]) -> None:
        self._read()
        self._before = {n: getattr(self, n) for n in (*ARRAYS, *LISTS, "first_epoch", "taking_part")}
        self.reset()
        self.taking_part = [type(cb) for cb in self.learn.handler.callbacks]
        self.names = ["epoch", "train_loss", "valid_loss", *metrics_names, *self.added_names]
        self.names += ["time"] if self.add_time else []
        self.added_names = []
        if twice := sorted({n for n in self.names if self.names.count(n) > 1}):
            raise ValueError(f"two columns have the name {twice[0]!r}: give one another name, of metrics by a dict, "
                             f"metrics={{'a name': metric}}")
        pbar.comment = self._comment

    def _begin(self, pbar: Any) -> None:
        # not in on_train_begin: there another callback may still refuse the run
        if self._before and not self.silent:
            pbar.write(self.names)
        self._before = {}

    def on_train_end(self) -> None:
        vars(self).update(self._before)     # empty, unless the run was refused before it began
        self._before, self.added_names = {}, []

    def on_epoch_begin(self, epoch: int, pbar: Any) -> None:
        late, self.added_names = self.added_names, []
        if late:
            raise ValueError(f"the table has begun without the columns {late}: {ADDING}")
        self._begin(pbar)
        pbar.start_epoch(epoch)
        if not self.times:
            self.first_epoch = epoch
        self._epoch_start = time.perf_counter()

    def on_step_end(self) -> None:
        # read here, because from now on a callback may set the next batch's
        self._used = self.learn.opt.lr, self.learn.opt.mom or 0.0

    def on_batch_end(self, train: bool, last_loss: Tensor, smooth_loss: Tensor | None, last_weight: Any) -> None:
        if not train:
            return
        self.lrs.append(self._used[0])
        self.moms.append(self._used[1])
        # nothing has counted so far: the loss of this batch is no number
        self._chunk += (last_loss, last_loss if smooth_loss is None else smooth_loss)
        self._chunk_weights.append(last_weight)
        if len(self._chunk_weights) >= CHUNK:
            self._gather()

    def on_epoch_end(self, epoch: int, num_batch: int, last_metrics: list[Any], pbar: Any) -> None:
        if not isinstance(last_metrics, (list, tuple)):
            raise TypeError(f"last_metrics must be a list, not {last_metrics!r}: return "
                            "{'last_metrics': last_metrics + [value]}")
        names = self.names[2:len(self.names) - self.add_time]
        if len(last_metrics) > len(names):
            raise ValueError(f"last_metrics has {len(last_metrics)} values for the columns {names}: {ADDING}")
        values = [v if v is None or isinstance(v, int) else float(v) for v in last_metrics]
        values += [None] * (len(names) - len(values))
        self._read()
        n = len(self._weights)
        raw = torch.tensor(self._raw_losses[len(self._raw_losses) - n:], dtype=torch.float64)
        self.train_losses.append(weighted_mean(raw, torch.tensor(self._weights, dtype=torch.float64)))
        self._weights = array("d")
        self.val_losses.append(values[0])
        self.metrics.append(values[1:])
        self.nb_batches.append(num_batch)
        self.times.append(time.perf_counter() - self._epoch_start)
        self._write_row(epoch, pbar)

    def _write_row(self, epoch: int, pbar: Any) -> None:
        if not self.silent:
            pbar.write(self._row(epoch - self.first_epoch))

    def _row(self, i: int) -> list[str]:
        values = [self.train_losses[i], self.val_losses[i], *self.metrics[i]]
        spent = [format_time(self.times[i])] if self.add_time else []
        return [str(self.first_epoch + i), *map(_cell, values), *spent]

    def rows(self) -> list[list[str]]:
        """The table as it was printed: for each epoch a text for each of `names`.

        >>> learn = fake_learner()
        >>> learn.fit(2, 1e-2)
        >>> [row[0] for row in learn.recorder.rows()]
        ['0', '1']
        """
        return [self._row(i) for i in range(len(self.times))]

    # a run's record, out and back

    def state_dict(self) -> dict[str, Any]:
        """All that is recorded, also of an epoch that has only begun."""
        self._read()
        return {**{n: torch.from_numpy(np.array(getattr(self, n))) for n in ARRAYS},
                **{n: list(getattr(self, n)) for n in LISTS}, "first_epoch": self.first_epoch,
                "elapsed": time.perf_counter() - self._epoch_start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; the clock of the epoch goes on from where it stood. TypeError or ValueError
        if that is no record."""
        self._read()
        check_record(state, ARRAYS, LISTS)
        for n in ARRAYS:
            setattr(self, n, array(getattr(self, n).typecode, state[n].tolist()))
        for n in LISTS:
            setattr(self, n, list(state[n]))
        self.first_epoch, self._epoch_start = state["first_epoch"], time.perf_counter() - state["elapsed"]

    def rewrite(self, epoch: int, pbar: Any) -> None:
        """Print the table's rows so far, for a run that goes on in the middle of `epoch`."""
        self._begin(pbar)
        pbar.start_epoch(epoch)
        for i in range(len(self.times)):
            self._write_row(self.first_epoch + i, pbar)

    # the losses: gathered on the device, read once an epoch, or when they are needed

    def _gather(self) -> None:
        if self._chunk:
            wide = torch.promote_types(self._chunk[0].dtype, torch.float32)
            on_device = set(map(type, self._chunk_weights)) == {Tensor}
            weights = torch.stack(self._chunk_weights) if on_device else read_numbers(self._chunk_weights)
            self._pending.append((torch.stack([t.to(wide) for t in self._chunk]).view(-1, 2), weights))
            self._chunk, self._chunk_weights = [], []

    def _read(self) -> None:
        self._gather()
        for losses, weights in self._pending:
            raw, smooth = np.asarray(losses.cpu(), dtype=float).T
            self._raw_losses.frombytes(raw.tobytes())
            self._losses.frombytes(smooth.tobytes())
            self._weights.frombytes(np.asarray(weights.cpu(), dtype=float).tobytes())
        self._pending = []

    def _comment(self) -> str:
        return f"{float(self._chunk[-1]):.4f}" if self._chunk else ""

    @property
    def losses(self) -> np.ndarray[Any, Any]:
        """The smoothed training loss after each batch."""
        self._read()
        return np.array(self._losses)

    @property
    def raw_losses(self) -> np.ndarray[Any, Any]:
        """The training loss of each batch."""
        self._read()
        return np.array(self._raw_losses)

    def to_frame(self) -> pd.DataFrame:
        """The table as a pandas DataFrame: a row an epoch, numbers as numbers (NaN for `#na#`), time in seconds."""
        import pandas as pd

        rows = zip(self.train_losses, self.val_losses, self.metrics, self.times, strict=True)
        data = [[i, t, v, *m, *([s] if self.add_time else [])] for i, (t, v, m, s) in enumerate(rows, self.first_epoch)]
        return pd.DataFrame(data, columns=self.names or None)

    # plots

    def plot(self, skip_start: int = 10, skip_end: int = 5, suggestion: bool = False, ax: Any = None,
             return_fig: bool = False) -> Any:
        """Smoothed loss against learning rate: of the last `lr_find`, or of the last fit if there has been none.

        A sweep has a curve for each of its tests. `skip_start` and `skip_end` batches are left out at the ends
        (none if that would leave fewer than three).
        `suggestion` prints what the rules suggest (see `RangeTest`), marks `basin`'s learning rate and shades its
        interval; `min_grad_lr` is then where the drawn curve is steepest.
        """
        result = self.range_test or RangeTest(np.array(self.lrs), self.losses)
        axis, drawn = plots.plot_range_tests(result if isinstance(result, RangeTests) else {"": result}, skip_start,
                                             skip_end, suggestion, ax)
        if suggestion:
            self.min_grad_lr = steepest(drawn.lrs, drawn.losses).lr
            say(str(result))
        return plots.finished(axis.figure, ax, return_fig)

    def plot_lr(self, show_moms: bool = False, skip_start: int = 0, skip_end: int = 0, ax: Any = None,
                return_fig: bool = False) -> Any:
        """Learning rate, and with `show_moms` momentum (`ax` then holds two axes), of each training batch."""
        kept = slice(skip_start, max(0, len(self.lrs) - skip_end))
        axes = plots.plot_lr(self.lrs[kept], self.moms[kept] if show_moms else None, start=skip_start, ax=ax)
        return plots.finished(axes[0].figure, ax, return_fig)

    def plot_losses(self, skip_start: int = 0, skip_end: int = 0, ax: Any = None, return_fig: bool = False,
                    label: str = "") -> Any:
        """Training loss of each batch (smoothed, its own faintly behind it) and validation loss of each epoch. `label`
        names the run in the legend, for several runs drawn into one `ax`."""
        end = max(0, len(self.lrs) - skip_end)
        at = np.cumsum(self.nb_batches)
        valid = [(i, v) for i, v in zip(at, self.val_losses, strict=True) if skip_start < i <= end]
        axis = plots.plot_losses(self.losses[skip_start:end], [i for i, _ in valid], [v for _, v in valid],
                                 raw=self.raw_losses[skip_start:end], start=skip_start, ax=ax, label=label)
        return plots.finished(axis.figure, ax, return_fig)

    def plot_metrics(self, skip_start: int = 0, skip_end: int = 0, ax: Any = None, return_fig: bool = False,
                     label: str = "") -> Any:
        """Each metric over the epochs, in axes of its own; `skip_start` and `skip_end` are counted in batches. `label`
        names the run in the legend."""
        end = max(0, len(self.lrs) - skip_end)
        at = np.cumsum(self.nb_batches)
        rows = [(i, m) for i, m in zip(at, self.metrics, strict=True) if skip_start < i <= end]
        names = self.names[3:len(self.names) - self.add_time]
        axes = plots.plot_metrics(names, [m for _, m in rows], [i for i, _ in rows], ax=ax, label=label)
        return plots.finished(axes[0].figure, ax, return_fig)


def _cell(value: Any) -> str:
    return "#na#" if value is None else str(value) if isinstance(value, int) else f"{value:.6f}"
