"""Whether the processes of a run have decided alike: found within a batch, and before a file is written."""
from __future__ import annotations

from ..callback import LearnerCallback
from ..order import Order

__all__: list[str] = []     # `learn.to_distributed` adds it


class Agreement(LearnerCallback):
    """Looks, after the other callbacks, whether all processes have decided alike. learn: the learner.

    A decision of one process alone is found with the sum that the next batch makes anyway. At the beginning of a run
    and of an epoch, after the last batch, at the end, and where a checkpoint is due, one more is made.
    """

    _order = Order.AGREEMENT
    compared = False

    def on_train_begin(self, n_epochs: int, update: int, stop_training: bool, skip_validate: bool) -> None:
        if n_epochs:    # else a validation
            self._agree(n_epochs + update, True, False, stop_training, skip_validate)

    def on_epoch_begin(self, update: int, stop_training: bool, skip_validate: bool) -> None:
        self._agree(update, True, False, stop_training, skip_validate)

    def on_batch_end(self, train: bool, num_batch: int, iteration: int, update: int, skip_bwd: bool, skip_zero: bool,
                     stop_epoch: bool, stop_training: bool, skip_validate: bool) -> None:
        if train:
            # with parameters spread, the next batch has other meetings before its sum
            learn = self.learn
            meet = learn.distributed.shard or num_batch + 1 == len(learn.data.train_dl) or any(
                cb._due(iteration + 1) for cb in learn.handler.callbacks if hasattr(cb, "_due"))
            self._agree(_number(update, skip_bwd, skip_zero), meet, stop_epoch, stop_training, skip_validate)

    def on_epoch_end(self, update: int, skip_bwd: bool, skip_zero: bool, stop_training: bool,
                     skip_validate: bool) -> None:
        self._agree(_number(update, skip_bwd, skip_zero), True, False, stop_training, skip_validate)

    def _agree(self, number: float, meet: bool, *stops: bool) -> None:
        self.learn.distributed.exchange.agree(number, meet, *stops)


def _number(update: int, skip_bwd: bool, skip_zero: bool) -> float:
    """What is equal in all processes that have stepped and skipped alike (`skip_step` shows in `update`)."""
    return update + skip_bwd / 4 + skip_zero / 2
