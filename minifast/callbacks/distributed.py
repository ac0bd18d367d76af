"""One run in several processes: every figure, decision and weight is that of all of them."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from .. import distributed as processes
from ..batches import Share, Turns
from ..callback import LearnerCallback
from ..distributed import rank, world
from ..exchange import Exchange, begin_alike, share_validation
from ..order import Order
from ..progress import say
from ..sharded import shard_model, synchronise_batch_norm
from ..state import Changes
from ..torch_private import multiply_all_
from ..utils import params_of, smoothed
from .agreement import Agreement

if TYPE_CHECKING:
    from ..learner import Learner

__all__: list[str] = []     # `learn.to_distributed` is how to use them


# The model of all processes, `learn.parallel`, runs the forward pass; the model itself stays in its place, so that
# names, hooks, files and layer groups are those of the model.
class Distributed(LearnerCallback):
    """Makes one batch of the processes' parts, before other callbacks read it. For its arguments see `join`."""

    _order = Order.TOGETHER
    compared = False    # a run may go on in another number of processes

    def __init__(self, learn: Learner, shard: bool = False, own_batches: bool = False) -> None:
        super().__init__(learn)
        self.shard, self.own_batches = shard, own_batches
        self.before: Tensor | None = None   # the smoothed loss of all, before this batch
        self.exchange: Any = None           # of a run

    def state_dict(self) -> dict[str, Any]:
        """Nothing: it is about the processes."""
        return {}

    def on_train_begin(self, n_epochs: int) -> None:
        learn = self.learn
        if not n_epochs:    # a validation, perhaps within a run
            return
        begin_alike(learn, self.own_batches)
        self.exchange = Exchange(learn)
        self.wrap()
        if learn.data.valid_dl is not None:
            learn.data.valid_dl.set_part(Turns(rank(), world(), even=self.shard))
        share_validation(learn, learn.handler)

    def wrap(self) -> None:
        """Begin to train the parameters that the optimizer now has."""
        learn = self.learn
        self.opt = learn.opt
        self.buffers: Any = [b for b in learn.model.buffers() if b.is_floating_point()]
        if not self.shard:
            learn.parallel = DistributedDataParallel(learn.model)
            learn.parallel.broadcast_buffers = False
        processes.share_first(self.buffers)

    def on_batch_begin(self, train: bool, smooth_loss: Tensor | None) -> None:
        self.before = smooth_loss if train else None

    def on_backward_begin(self, last_loss: Tensor, last_weight: Any, num_batch: int) -> Changes:
        nothing = self.learn.data.train_dl.has_nothing(num_batch)
        return {"last_weight": self.exchange.begin(last_loss.detach(), last_weight, nothing)}

    def on_backward_end(self) -> Changes | None:
        if (lacking := self.exchange.end()) != 1:
            multiply_all_([p.grad for p in params_of(self.learn) if p.grad is not None], lacking)
        return None if self.exchange.given else {"last_weight": self.exchange.weight}

    def on_step_end(self) -> None:
        processes.share_first(self.buffers)

    def on_batch_end(self, train: bool, iteration: int) -> Changes | None:
        if not train:
            return None
        loss, state = self.exchange.loss, self.learn.handler.state
        state.smooth_loss = smoothed(self.before, loss, iteration, self.exchange.weight)    # None: nothing has counted
        return {"last_loss": loss}


def join(learn: Learner, shard: bool, timeout: float, sync_bn: bool, own_batches: bool) -> Learner:
    """See `Learner.to_distributed`."""
    if not processes.begin(timeout):
        return learn
    learn.callbacks = [cb for cb in learn.callbacks if not isinstance(cb, (Distributed, Agreement))]
    learn.callbacks += [Distributed(learn, shard, own_batches), Agreement(learn)]
    for change in [synchronise_batch_norm] * sync_bn + [shard_model] * shard:
        change(learn)
    if not learn.silent and not own_batches and (bs := learn.data.batch_size):
        say(f"{world()} processes, {Share(0, world()).bounds(bs)[1]} samples each of every batch of {bs}")
    return learn
