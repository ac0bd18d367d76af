"""What happens to gradients between the backward pass and the optimizer: clipping, and accumulation over batches."""
from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ..callback import LearnerCallback
from ..checks import positive_float, positive_int
from ..distributed import together
from ..order import Order
from ..state import Changes
from ..torch_private import is_compiled, multiply_all_
from ..utils import params_of, pass_gradients_if

__all__ = ["GradientClipping", "GradientAccumulation", "AccumulateScheduler"]


class GradientClipping(LearnerCallback):
    """Keeps gradients small: all are scaled so that their joint 2-norm is at most `clip` (`by="norm"`), or each number
    is cut to [-clip, clip] (`by="value"`).

    Acts in on_backward_end before an optimizer step, on the true gradients: accumulated, and unscaled where the
    precision is mixed. See `learn.clip_grad`.

    >>> learn = fake_learner(train_length=20)
    >>> learn.fit(2, 1e-2, callbacks=[GradientClipping(learn, 0.1)])
    """

    _order = Order.CLIPPING

    def __init__(self, learn: Any, clip: float = 0.1, by: str = "norm") -> None:
        super().__init__(learn)
        if by not in ("norm", "value"):
            raise ValueError(f"by must be 'norm' or 'value', not {by!r}")
        self.clip, self.by = positive_float("clip", clip), by

    def on_backward_end(self, skip_step: bool) -> None:
        if not skip_step:
            (clip_grad_norm_ if self.by == "norm" else clip_grad_value_)(params_of(self.learn), self.clip)


class GradientAccumulation(LearnerCallback):
    """Steps once every `n_step` batches, with the gradient that their samples would give as one batch.

    `n_step`: batches for one optimizer step (default 1: each). The gradients are averaged by what each loss is a mean
    over, `State.last_weight` (samples, targets that are not ignored, the weights of their classes, ...); those of a sum
    (`reduction="sum"`) are added. The last batch of an epoch always steps, for however many there are. Batch norm still
    sees the small batches. Where a pass is cut short (`stop_epoch`), the next epoch's batches complete the open window;
    one that the end of the run leaves open is dropped.

    Returns `n_updates` in on_train_begin, so that schedules count optimizer steps, and `skip_step` and `skip_zero` in
    on_backward_end. Where only the GPU knows the weights, the loss that is differentiated is multiplied by its own, and
    a window in which nothing counts steps with gradients of zero; elsewhere it does not step. The recorded loss is left
    unchanged.

    >>> learn = fake_learner(train_length=20, batch_size=5)
    >>> learn.fit(1, callbacks=[GradientAccumulation(learn, n_step=3)])
    """

    _order = Order.ACCUMULATION

    def __init__(self, learn: Any, n_step: int = 1) -> None:
        super().__init__(learn)
        self.n_step = positive_int("n_step", n_step)

    def on_train_begin(self, n_epochs: int, n_updates: int) -> Changes | None:
        self.n_batches = self.n_summed = 0
        # of the open window: the gradients' sum, each times its weight, is `unit` times what the parameters hold
        self.total: Any = 0
        self.unit: Any = 1
        if not n_epochs:    # a validation
            return None
        return {"n_updates": n_epochs * -(-n_updates // (n_epochs * self.n_step))}  # rounded up in each epoch

    def will_step(self, num_batch: int) -> bool:
        """Whether the batch that begins will end with a step: only then several processes add up their gradients."""
        return self.n_batches + 1 >= self.n_step or num_batch + 1 >= len(self.learn.data.train_dl)

    def on_backward_begin(self, last_loss: Tensor, last_output: Any, last_weight: Any) -> Changes | None:
        if last_weight is None:
            return None
        if isinstance(last_weight, Tensor):
            if not self.n_summed:   # any number near the weights does, so that 16 bits do not overflow
                self.unit = last_weight.masked_fill(last_weight == 0, 1).to(last_loss.dtype)
            pass_gradients_if(last_weight != 0, last_output)
            return {"last_loss": last_loss * (last_weight / self.unit)}
        if last_weight == 0:    # of several processes the backward pass also adds up what they have accumulated
            return None if together(self.learn) else {"skip_bwd": True}
        # in units of the newest batch's weight, so that equal batches cost nothing
        if self.n_summed and last_weight != self.unit:
            self._multiply(self.unit / last_weight)
        self.unit = last_weight
        return None

    def on_backward_end(self, num_batch: int, skip_bwd: bool, last_weight: Any) -> Changes | None:
        self.n_batches += 1
        if not skip_bwd:
            self.n_summed += 1
            self.total = self.unit if last_weight is None else self.total + last_weight
        if self.n_batches < self.n_step and num_batch + 1 < len(self.learn.data.train_dl):
            if is_compiled(self.learn.model):   # with CUDA graphs the next backward pass writes where these lie
                for p in params_of(self.learn):
                    p.grad = p.grad if p.grad is None else p.grad.clone()
            return {"skip_step": True, "skip_zero": True}
        if isinstance(self.total, Tensor):
            self._multiply(self.unit / self.total.masked_fill(self.total == 0, 1))
        elif self.total not in (0, self.unit):
            self._multiply(self.unit / self.total)
        elif not self.total:    # as where the backward pass is skipped
            self.learn.opt.zero_grad()
        self.n_batches = self.n_summed = self.total = 0
        return None

    def _multiply(self, factor: Any) -> None:
        multiply_all_([p.grad for p in params_of(self.learn) if p.grad is not None], factor)


AccumulateScheduler = GradientAccumulation  # fastai v1's name
