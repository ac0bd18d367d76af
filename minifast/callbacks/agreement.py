"""What comes last in each of several processes: whether all have decided alike, and the end of their run."""
from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import distributed as processes
from ..batches import Share
from ..callback import LearnerCallback
from ..failures import explain
from ..order import Order
from ..state import Changes
from ..utils import params_of, pass_gradients_if, rng_state, set_rng_state, tensors_in

__all__: list[str] = []     # `learn.to_distributed` adds it


class Agreement(LearnerCallback):
    """After the other callbacks: weighs this process's loss, and looks whether all processes have decided alike.

    A decision of one process alone is found with the sum that the next batch makes anyway. At the beginning of a run,
    after an epoch's last batch and at its end, and where a checkpoint is due, one more is made. learn: the learner.
    """

    _order = Order.AGREEMENT
    compared = False

    def on_train_begin(self, n_epochs: int) -> None:
        learn = self.learn
        if n_epochs:    # else a validation
            if not learn.distributed.own_batches:   # here, when samplers have put theirs in place
                learn.data.train_dl.set_part(Share(processes.rank(), processes.world()))
            learn.distributed.exchange.agree()

    def on_batch_begin(self, train: bool, num_batch: int) -> None:
        learn = self.learn
        if train and learn.opt is not learn.distributed.opt:    # other parameters are trained now
            learn.distributed.wrap()
        if train and learn.parallel is not None:
            learn.parallel.require_backward_grad_sync = all(
                cb.will_step(num_batch) for cb in learn.handler.callbacks if hasattr(cb, "will_step"))

    def on_backward_begin(self, last_loss: Tensor, last_output: Any, skip_bwd: bool) -> Changes | None:
        factor = self.learn.distributed.exchange.factor
        known = isinstance(factor, float)
        if not known:
            pass_gradients_if(factor != 0, last_output)
        if not skip_bwd and not (known and factor == 0):
            return None if known and factor == 1 else {"last_loss": last_loss * factor}
        # the loss may be no number; the others wait for gradients
        zero: Any = sum(t.sum() * 0 for t in tensors_in(last_output) if t.requires_grad)
        if skip_bwd:    # what has been accumulated is added up
            without = [p for p in params_of(self.learn) if p.grad is None]
            zero.backward()
            for p in without:
                p.grad = None
        return {"last_loss": zero}

    def on_batch_end(self, train: bool, num_batch: int, iteration: int, stop_epoch: bool) -> None:
        learn = self.learn
        if train:   # with parameters spread, the next batch has other meetings before its sum
            meet = learn.distributed.shard or num_batch + 1 == len(learn.data.train_dl) or any(
                cb._due(iteration + 1) for cb in learn.handler.callbacks if hasattr(cb, "_due"))
            if meet or stop_epoch:
                learn.distributed.exchange.agree(alone=not meet)

    def on_epoch_end(self) -> None:
        self.learn.distributed.exchange.agree()

    def on_train_end(self, n_epochs: int, exception: BaseException | None, epoch: int, num_batch: int) -> None:
        learn = self.learn
        if not n_epochs:
            return
        for dl in learn.data.dls:
            dl.set_part(None)
        learn.parallel = learn.distributed.exchange = learn.distributed.before = None
        try:    # what is drawn from here on is the same in all processes
            if exception is None:
                set_rng_state(processes.from_first(rng_state(cuda=False)))
        except RuntimeError as e:   # in another one a callback has failed just now; what is raised here gets a note
            exception = learn.handler.state.exception = e
        if exception is not None:
            explain(exception, f"epoch {epoch}, batch {num_batch}")
        processes.here.runs += 1
