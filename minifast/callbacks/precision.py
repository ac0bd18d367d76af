"""Training in 16 bits where that is safe."""
from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from ..callback import LearnerCallback
from ..checks import positive_float
from ..order import Order
from ..state import Changes
from ..utils import map_tensors

__all__ = ["MixedPrecision"]

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class MixedPrecision(LearnerCallback):
    """Runs the model under torch's autocast; the weights, the loss and the optimizer stay in 32 bits.

    `precision` is "fp16" or "bf16". Autocast is on from on_batch_begin to on_loss_begin, in training and in validation;
    there outputs in 16 bits are returned as float32, so the loss and the metrics are computed in full.

    fp16 has a narrow range: the loss that is differentiated (not the one that is recorded) is multiplied by a scale,
    `init_scale` at first, and the gradients are divided by it before each step. Where they overflowed, the scale is
    halved and the step is skipped (`skip_step`), counted in `n_skipped`, and printed at the epoch's end. To know
    takes one host synchronisation an optimizer step, which bf16 does without. See `learn.to_fp16`, `learn.to_bf16`.

    learn: the learner of the run.
    precision: "fp16" (the default) or "bf16".
    init_scale: of the loss, for fp16 (default 65536).

    >>> learn = fake_learner()
    >>> learn.fit(1, callbacks=MixedPrecision(learn, "bf16"))
    """

    # last except for clipping: the loss is scaled when it is complete, the gradients unscaled when they are
    _order = Order.PRECISION

    def __init__(self, learn: Any, precision: str = "fp16", init_scale: float = 2.0**16) -> None:
        super().__init__(learn)
        if precision not in DTYPES:
            raise ValueError(f"precision must be 'fp16' or 'bf16', not {precision!r}")
        self.precision, self.init_scale = precision, positive_float("init_scale", init_scale)
        self.n_skipped = 0
        self.scale_state: dict[str, Any] = {}   # the scale found in one run is where the next one begins
        self.autocast = ExitStack()
        self.scaler: Any = None     # a GradScaler, during a run
        self.n_reported = 0

    def on_train_begin(self) -> None:
        device = self.learn.data.device.type
        self.make_autocast: Callable[[], Any] = partial(torch.autocast, device, DTYPES[self.precision])
        self.scaler = GradScaler(device, self.init_scale, enabled=self.precision == "fp16")
        if self.scale_state:
            self.scaler.load_state_dict(self.scale_state)
        self.n_skipped = self.n_reported = 0

    def on_batch_begin(self) -> None:
        self.autocast.enter_context(self.make_autocast())

    def on_loss_begin(self, last_output: Any) -> Changes:
        self.autocast.close()
        return {"last_output": map_tensors(last_output, lambda t: t.float() if t.dtype in DTYPES.values() else t)}

    def on_backward_begin(self, last_loss: Tensor) -> Changes:
        return {"last_loss": self.scaler.scale(last_loss)}

    def on_backward_end(self, skip_step: bool) -> Changes | None:
        question = _Question(self.learn.opt.opt.param_groups)
        if skip_step or not self.scaler.is_enabled() or not question.has_gradients():
            return None
        self.scaler.unscale_(question)
        self.scaler.step(question)
        self.scaler.update()
        self.n_skipped += not question.finite
        return None if question.finite else {"skip_step": True}

    def on_epoch_end(self, epoch: int, pbar: Any) -> None:
        if self.n_skipped > self.n_reported:
            new = self.n_skipped - self.n_reported
            pbar.write([f"fp16: {new} steps of epoch {epoch} were skipped, their gradients overflowed; the loss "
                        f"scale is now {self.scaler.get_scale():g}"])
            self.n_reported = self.n_skipped

    def on_train_end(self) -> None:
        self.autocast.close()
        if self.scaler is not None:
            self.scale_state = self.scaler.state_dict()
        self.scaler = None

    def state_dict(self) -> dict[str, Any]:
        """With the present scale."""
        now = self.scale_state if self.scaler is None else self.scaler.state_dict()
        return {**super().state_dict(), "scale_state": now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.scaler is not None and self.scale_state:
            self.scaler.load_state_dict(self.scale_state)


class _Question:
    """In the optimizer's place for a GradScaler: its step is called only if no gradient overflowed, which says whether
    the loop is to do the step."""

    def __init__(self, param_groups: list[dict[str, Any]]) -> None:
        self.param_groups, self.finite = param_groups, False

    def has_gradients(self) -> bool:
        return any(p.grad is not None for group in self.param_groups for p in group["params"])

    def step(self) -> None:
        self.finite = True
