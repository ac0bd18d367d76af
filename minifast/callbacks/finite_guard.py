"""A loss that is no number any more."""
from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .. import distributed as processes
from ..callback import Callback, LearnerCallback
from ..order import Order
from ..same_run import shapes_training
from ..snapshot import Moment
from .probe import first_not_finite, is_finite, not_finite

if TYPE_CHECKING:
    from ..learner import Learner

__all__ = ["FiniteGuard"]

CHECK_EVERY = 8  # batches; a check waits for the device, and the later it comes, the more batches are lost


# Its states: it has no copy (`good` is None) until the first batch has begun, which makes one.
# A check has begun (`pending` waits for the device), or none has: every eighth batch begins one, after the end of the
# check before it. Only what a check has found finite is copied.
# When a check finds a loss, or the end of an epoch finds a weight, that is not finite, the copy is trained again under
# a `Probe`, put back, and the error raised: the run is over. Parameters that were not finite before the run (`known`)
# are left out of all this; if one of them spoils the loss, the error names it.
class FiniteGuard(LearnerCallback):
    """Ends a fit whose training loss is NaN or infinite, by a FloatingPointError that says where it began.

    It looks at the smoothed loss, which stays infinite or NaN once a loss has been, every eight batches and at the end
    of an epoch; what a GPU finds travels while it works on, and is read eight batches later, so that nothing waits.
    From time to time (at the beginning of an epoch, and as often as costs less than 1 % of the time) it keeps a copy of
    all that training changes, in the CPU's memory. When a loss is not finite, training is repeated from there under
    observation, up to the first layer, gradient or parameter that is not finite, and then the copy is put back.
    Callbacks that only watch are not called in the repetition.

    learn: the learner; each fit makes a guard itself, `Learner(check_finite=False)` does without.

    >>> fake_learner().fit(2, lr=1e30)
    Traceback (most recent call last):
        ...
    FloatingPointError: epoch 0, batch 1, lr 1e+30, momentum 0.9: ... was the first to be ...
    """

    _order = Order.GUARD
    role = "process"

    def __init__(self, learn: Learner) -> None:
        super().__init__(learn)
        self.pending: Callable[[], bool] | None = None
        self.good: dict[str, Any] | None = None
        self.known: set[str] = set()
        self.cost = self.kept_at = 0.0
        self.pass_state: dict[str, Any] | None = None
        self.n_batches = 0

    def state_dict(self) -> dict[str, Any]:
        """From where the present pass over the batches can be repeated; all else that it keeps is this process's."""
        return {"pass_state": self.pass_state}

    def on_train_begin(self) -> None:
        self.pending = self.good = self.pass_state = None
        self.cost = self.kept_at = 0.0
        self.n_batches = len(self.learn.data.train_dl)

    def on_epoch_begin(self) -> None:
        self.pass_state = self.learn.data.train_dl.state_dict()
        self.n_batches = len(self.learn.data.train_dl)

    def on_batch_begin(self, train: bool, num_batch: int, smooth_loss: Tensor | None) -> None:
        if train and (not num_batch % CHECK_EVERY or self.good is None):
            self._begin_check(smooth_loss)
            pause = 50 * self.cost if num_batch == 0 else max(1.0, 100 * self.cost)
            if processes.clock() - self.kept_at >= pause:
                self._end_check()    # what has not been looked at is not known to be good
                self._copy()

    def on_batch_end(self, train: bool, num_batch: int, smooth_loss: Tensor) -> None:
        if train and num_batch + 1 == self.n_batches:
            self._check_epoch(smooth_loss)    # before the validation: a metric may fail over such outputs

    def on_epoch_end(self, num_batch: int, smooth_loss: Tensor | None) -> None:
        if num_batch < self.n_batches:  # cut short by a callback
            self._check_epoch(smooth_loss)

    def on_train_end(self) -> None:
        self.pending = self.good = None

    def _begin_check(self, loss: Tensor | None) -> None:
        self._end_check()
        if loss is not None:
            self.pending = is_finite(loss)
        if self.learn.data.device.type != "cuda":
            self._end_check()  # it is there already

    def _end_check(self) -> None:
        pending, self.pending = self.pending, None
        if pending is not None and not pending():
            self._explain()

    def _check_epoch(self, smooth_loss: Tensor | None) -> None:
        self._begin_check(smooth_loss)
        self._end_check()
        if not_finite(self.learn.model) - self.known:   # of the last step no loss says anything
            self._explain()

    def _copy(self) -> None:
        began = time.monotonic()
        learn, state = self.learn, self.learn.handler.state
        if self.good is None:
            self.known = not_finite(learn.model)
        elif not_finite(learn.model) - self.known:
            return      # the last step has spoiled the weights, of which no loss says anything yet
        self.good = {"moment": Moment(learn, self._taking_part(), device="cpu", record=False),
                     "state": dataclasses.replace(state, last_input=None, last_target=None), "pass": self.pass_state}
        self.kept_at, self.cost = processes.clock(), processes.from_first(time.monotonic() - began)

    def _explain(self) -> None:
        learn, now, good = self.learn, self.learn.handler.state, self.good
        text = f"epoch {now.epoch}, by batch {now.num_batch}, lr {learn.opt.lr:.3g}: loss or weights are not finite now"
        if good is not None:
            self._put_back()
            text = first_not_finite(learn, self._taking_part(), good["state"], now.iteration, self.known) or text
            self._put_back()
            text += f". The learner is as it was in epoch {good['state'].epoch} before batch {good['state'].num_batch}"
        raise FloatingPointError(text + ". A lower learning rate may help, if it is not the data; "
                                 "Learner(check_finite=False) trains on all the same")

    def _put_back(self) -> None:
        good = self.good
        assert good is not None
        good["moment"].put_back()
        if good["pass"] is not None:
            self.learn.data.train_dl.load_state_dict(good["pass"])

    def _taking_part(self) -> list[Callback]:
        return [cb for cb in self.learn.handler.callbacks if shapes_training(cb)]
