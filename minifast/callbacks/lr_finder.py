"""The learning-rate range test."""
from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from torch import Tensor

from ..callback import LearnerCallback
from ..checks import positive_float, positive_int
from ..data import DataBunch
from ..loaders import Loader
from ..progress import OneBar
from ..snapshot import preserved
from ..state import Changes
from ..stepper import Stepper, annealing_exp, annealing_linear
from ..suggestion import RangeTest, RangeTests
from ..utils import listify

__all__ = ["LRFinder"]


class LRFinder(LearnerCallback):
    """Trains at learning rates growing by equal factors from `start_lr` to exactly `end_lr` over `num_it` optimizer
    steps: batches, or where gradients are accumulated that many windows of them.

    `linear`: growing by equal steps instead. `valid_every`: after so many steps each the validation loss is measured
    and kept in place of the training loss (the two together are Smith's test). With `stop_div` it ends early once the
    smoothed loss has risen above its best by four times what it fell (or, if it has not fallen, four times the spread
    of the first ten losses); a loss that is not finite always ends it. Both rules are the same for a loss times or plus
    a constant, so negative and huge losses are safe. With several layer groups `start_lr` and `end_lr` are those of
    the last one, the others keep their ratio to it.

    Source: L. Smith, "Cyclical learning rates for training neural networks" (arXiv 1506.01186), section 3.3.

    >>> learn = fake_learner(train_length=100)
    >>> learn.fit(1, callbacks=[LRFinder(learn, num_it=10)])
    >>> float(learn.lr_finder.result.lrs[-1])
    10.0
    """

    def __init__(self, learn: Any, start_lr: float = 1e-7, end_lr: float = 10, num_it: int = 100, stop_div: bool = True,
                 linear: bool = False, valid_every: int | None = None) -> None:
        super().__init__(learn)
        start_lr, end_lr = positive_float("start_lr", start_lr), positive_float("end_lr", end_lr)
        if end_lr <= start_lr:
            raise ValueError(f"end_lr must be above start_lr, not {end_lr} with start_lr={start_lr}")
        if valid_every is not None and learn.data.empty_val:
            raise ValueError(f"valid_every={valid_every} needs validation data, and there is none")
        self.num_it, self.stop_div = positive_int("num_it", num_it), stop_div
        self.valid_every = None if valid_every is None else positive_int("valid_every", valid_every)
        # the last of num_it steps is num_it - 1 from the first
        self.schedule = Stepper((start_lr, end_lr), num_it - 1, annealing_linear if linear else annealing_exp)

    def on_train_begin(self, n_epochs: int, n_updates: int, pbar: Any) -> Changes:
        self.lrs: list[float] = []
        self.window: list[Tensor] = []      # the losses since the last optimizer step
        self.losses: list[float] = []
        self.raw_losses: list[float] = []
        lrs = self.learn.opt.values("lr")
        self.ratios = [lr / lrs[-1] for lr in lrs]
        per_epoch = n_updates // n_epochs   # steps, of which there are fewer than batches where gradients accumulate
        n_epochs = -(-self.num_it // per_epoch)
        if isinstance(pbar, OneBar):
            pbar.n_batches = self.num_it * len(self.learn.data.train_dl) // per_epoch
        return {"skip_validate": True, "n_epochs": n_epochs, "n_updates": n_epochs * per_epoch}

    def on_batch_begin(self, update: int) -> None:
        self.learn.opt.lr = [self.schedule(update) * r for r in self.ratios]

    def on_step_end(self, skip_step: bool) -> None:
        self.stepped = not skip_step

    def on_batch_end(self, update: int, last_loss: Tensor, smooth_loss: Tensor | None,
                     last_weight: Any) -> Changes | None:
        if last_weight is None or bool(last_weight):    # else nothing in it counts
            self.window.append(last_loss)
        if not self.stepped:
            return None
        done = update >= self.num_it
        if self.valid_every is None:
            # read on the host, one synchronisation a batch: whether to stop must be known now
            if smooth_loss is not None and self.window:
                done |= self._keep(float(smooth_loss), sum(map(float, self.window)) / len(self.window))
            self.window = []
        elif update % self.valid_every == 0:
            loss = self.learn.validate(metrics=[])[0]
            done |= self._keep(loss, loss)
        return {"stop_epoch": True, "stop_training": True} if done else None

    def _keep(self, smooth: float, raw: float) -> bool:
        self.lrs.append(self.learn.opt.lr)
        self.losses.append(smooth)
        self.raw_losses.append(raw)
        return not math.isfinite(smooth) or self.stop_div and self._diverged()

    def _diverged(self) -> bool:
        if len(self.losses) <= 10:
            return False
        best, early = min(self.losses), self.raw_losses[:10]
        return self.losses[-1] > best + 4 * max(self.losses[0] - best, max(early) - min(early))

    @property
    def result(self) -> RangeTest:
        """What has been found so far."""
        return RangeTest(np.array(self.lrs), np.array(self.losses), np.array(self.raw_losses))


def range_tests(learn: Any, one_test: Callable[[Any], RangeTest], wd: Any, wds: Sequence[float],
                bss: Sequence[int]) -> RangeTest | RangeTests:
    """`one_test(wd)`, or a test for each combination of the weight decays `wds` and batch sizes `bss`; all of them from
    the same weights and random numbers, and with the learner left as it was."""
    for name, given in (("wds", wds), ("bss", bss)):
        if isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
            raise TypeError(f"{name} must be a list of values to compare, not {given!r}")
    swept = {name: values for name, values in (("wd", wds), ("bs", bss)) if len(values)}
    found = RangeTests()
    for values in product(*swept.values()):     # without a sweep: once, with no values
        setting: dict[str, Any] = dict(zip(swept, values, strict=True))
        with preserved(learn, listify(learn.callbacks)):
            if "bs" in setting:
                learn.data = _with_batch_size(learn.data, setting["bs"])
            test = one_test(setting.get("wd", wd))
            finder = learn.lr_finder
        learn.lr_finder = finder
        found[", ".join(f"{name} {value}" for name, value in setting.items())] = test
    return found if swept else test


def _with_batch_size(data: DataBunch, bs: int) -> DataBunch:
    """The same data, its training samples in the same order, in batches of `bs`.

    TypeError if the training data is in another kind of loader, ValueError if it has fewer samples than that.
    """
    inner, bs = data.train_dl.dl, positive_int("bs", bs)
    if not isinstance(inner, Loader):
        raise TypeError(f"bss= needs a loader whose batch size can be set; the training data comes from a "
                        f"{type(inner).__name__}. DataBunch.create makes such loaders from data sets")
    data, data.train_dl, inner = copy.copy(data), copy.copy(data.train_dl), copy.copy(inner)
    data.train_dl.dl, inner.batch_size = inner, bs
    if not len(inner):
        raise ValueError(f"bs={bs} leaves no full batch: there are {inner.n} training samples")
    return data
