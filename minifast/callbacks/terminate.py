"""Ending a run: on a loss that is not finite, or after a few batches."""
from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..callback import Callback
from ..checks import positive_int
from ..state import Changes

__all__ = ["TerminateOnNaNCallback", "StopAfterNBatches"]


class TerminateOnNaNCallback(Callback):
    """Ends the run, without a validation, once a training loss has been NaN or infinite.

    It looks at every `check_every`-th batch, the first one included, and at the end of each epoch, so it notices at
    most `check_every` batches late; `learn.recorder.raw_losses` says since when. Returns the `stop_...` flags and
    `skip_validate` in on_batch_end and on_epoch_end. In its runs the learner's own check (`check_finite`), which
    raises an error, is left out.

    >>> simulate(TerminateOnNaNCallback(), n_epochs=3, losses=[float("nan")]).state.epoch
    1
    """

    role = "fit"

    def __init__(self, check_every: int = 50) -> None:
        self.check_every = positive_int("check_every", check_every)

    def on_batch_end(self, train: bool, iteration: int, epoch: int, num_batch: int,
                     smooth_loss: Tensor | None, pbar: Any) -> Changes | None:
        # once not finite, the smoothed loss remains so: reading it now and then misses nothing
        if not train or smooth_loss is None or iteration % self.check_every or math.isfinite(float(smooth_loss)):
            return None
        pbar.write([f"ended in epoch {epoch}, batch {num_batch}: the training loss is {float(smooth_loss)}"])
        return {"stop_epoch": True, "stop_training": True, "skip_validate": True}

    def on_epoch_end(self, epoch: int, stop_training: bool, smooth_loss: Tensor | None, pbar: Any) -> Changes | None:
        if stop_training or smooth_loss is None or math.isfinite(float(smooth_loss)):
            return None
        pbar.write([f"ended after epoch {epoch}: the training loss is {float(smooth_loss)}"])
        return {"stop_training": True}


class StopAfterNBatches(Callback):
    """Ends the run after `n_batches` training batches, without a validation: a quick look whether all runs.

    Returns the `stop_...` flags and `skip_validate` in on_batch_end.

    >>> simulate(StopAfterNBatches(2), n_epochs=3).state.iteration
    2
    """

    def __init__(self, n_batches: int = 2) -> None:
        self.n_batches = positive_int("n_batches", n_batches)

    def on_batch_end(self, train: bool, iteration: int) -> Changes | None:
        if train and iteration + 1 >= self.n_batches:
            return {"stop_epoch": True, "stop_training": True, "skip_validate": True}
        return None
