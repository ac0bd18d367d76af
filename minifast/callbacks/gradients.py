"""What happens to gradients between the backward pass and the optimizer: clipping, and accumulation over batches."""
from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ..callback import LearnerCallback
from ..checks import positive_float, positive_int
from ..order import Order
from ..state import Changes
from ..torch_private import multiply_all_
from ..utils import batch_length

__all__ = ["GradientClipping", "GradientAccumulation", "AccumulateScheduler"]


class GradientClipping(LearnerCallback):
    """Keeps gradients small: all are scaled so that their joint 2-norm is at most `clip` (`by="norm"`), or each number
    is cut to [-clip, clip] (`by="value"`).

    Acts in on_backward_end before an optimizer step, on the true gradients: accumulated, and unscaled where the
    precision is mixed. See `learn.clip_grad`.
    """

    _order = Order.CLIPPING

    def __init__(self, learn: Any, clip: float = 0.1, by: str = "norm") -> None:
        super().__init__(learn)
        if by not in ("norm", "value"):
            raise ValueError(f"by must be 'norm' or 'value', not {by!r}")
        self.clip, self.by = positive_float("clip", clip), by

    def on_backward_end(self, skip_step: bool) -> None:
        if not skip_step:
            (clip_grad_norm_ if self.by == "norm" else clip_grad_value_)(_params(self.learn), self.clip)


class GradientAccumulation(LearnerCallback):
    """Steps once every `n_step` batches, with the gradient that their samples would give as one batch.

    For a loss that is a mean over samples the gradients are averaged, weighted by the batches' lengths; for a sum
    (`reduction="sum"`) they are added. The last batch of an epoch always steps, for however many there are. Batch norm
    still sees the small batches. Where a pass is cut short (`stop_epoch`), the next epoch's batches complete the open
    window; one that the end of the run leaves open is dropped.

    Answers `n_updates` in on_train_begin, so that schedules count optimizer steps, and `skip_step` and `skip_zero` in
    on_backward_end. The loss is left alone.
    """

    _order = Order.ACCUMULATION

    def __init__(self, learn: Any, n_step: int = 1) -> None:
        super().__init__(learn)
        self.n_step = positive_int("n_step", n_step)

    def on_train_begin(self, n_epochs: int, n_updates: int) -> Changes | None:
        self.is_sum = _reduction(self.learn.loss_func) == "sum"
        self.n_batches = self.n_samples = self.unit = 0
        if not n_epochs:    # a validation
            return None
        return {"n_updates": n_epochs * -(-n_updates // (n_epochs * self.n_step))}  # rounded up in each epoch

    def on_backward_begin(self, last_target: Any) -> None:
        # what has been summed is kept in units of the newest batch's length, so that equal batches cost nothing
        length = batch_length(last_target)
        if self.n_samples and not self.is_sum and length != self.unit:
            self._multiply(self.unit / length)
        self.unit = length

    def on_backward_end(self, num_batch: int, skip_bwd: bool) -> Changes | None:
        self.n_batches += 1
        self.n_samples += 0 if skip_bwd else self.unit
        if self.n_batches < self.n_step and num_batch + 1 < len(self.learn.data.train_dl):
            return {"skip_step": True, "skip_zero": True}
        if not self.is_sum and self.n_samples not in (0, self.unit):
            self._multiply(self.unit / self.n_samples)
        self.n_batches = self.n_samples = 0
        return None

    def _multiply(self, factor: float) -> None:
        if grads := [p.grad for p in _params(self.learn) if p.grad is not None]:
            multiply_all_(grads, factor)


def _params(learn: Any) -> list[Tensor]:
    return [p for group in learn.opt.opt.param_groups for p in group["params"]]


AccumulateScheduler = GradientAccumulation  # fastai v1's name


def _reduction(loss_func: Any) -> str:
    if isinstance(loss_func, partial):
        return str(loss_func.keywords.get("reduction") or _reduction(loss_func.func))
    return str(getattr(loss_func, "reduction", "mean"))
