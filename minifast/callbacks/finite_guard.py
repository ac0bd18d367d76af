"""A loss that is no number any more."""
from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..callback import Callback, CallbackHandler, LearnerCallback
from ..loop import train_batch
from ..order import Order
from ..same_run import shapes_training
from ..snapshot import learner_state, load_learner_state
from ..torch_private import uncompiled
from ..utils import map_tensors
from .probe import Probe, is_finite

__all__ = ["FiniteGuard"]

CHECK_EVERY = 8  # batches; a check waits for the device, and the later it comes, the more batches are lost


class FiniteGuard(LearnerCallback):
    """Ends a fit whose training loss is NaN or infinite, by a FloatingPointError that says where it began.

    It looks at the smoothed loss, which stays infinite or NaN once a loss has been, every eight batches and at the end
    of an epoch; a GPU's answer travels while it works on, and is read eight batches later, so that nobody waits. From
    time to time (at the beginning of an epoch, and as often as costs less than 1 % of the time) it keeps a copy of all
    that training changes, in the CPU's memory. When a loss is not finite, training is repeated from there under
    observation, up to the first layer, gradient or parameter that is not finite, and then the copy is put back.
    `Learner(check_finite=False)` does without it.
    """

    _order = Order.GUARD
    role = "process"

    def __init__(self, learn: Any) -> None:
        super().__init__(learn)
        self.answer: Callable[[], bool] | None = None
        self.good: dict[str, Any] | None = None
        self.cost = self.kept_at = 0.0

    def state_dict(self) -> dict[str, Any]:
        """From where the present pass over the batches can be repeated; all else that it keeps is this process's."""
        return {"pass_state": vars(self).get("pass_state")}

    def on_train_begin(self) -> None:
        self.answer, self.good, self.cost, self.kept_at = None, None, 0.0, 0.0
        self.pass_state: dict[str, Any] | None = None
        self.n_batches = len(self.learn.data.train_dl)

    def on_epoch_begin(self) -> None:
        self.pass_state = self.learn.data.train_dl.state_dict()
        self.n_batches = len(self.learn.data.train_dl)

    def on_batch_begin(self, train: bool, num_batch: int, smooth_loss: Tensor | None) -> None:
        if train and (not num_batch % CHECK_EVERY or self.good is None):
            self._ask(smooth_loss)
            pause = 50 * self.cost if num_batch == 0 else max(1.0, 100 * self.cost)
            if time.monotonic() - self.kept_at >= pause:
                self._hear()    # what has not been looked at is not known to be good
                self._keep()

    def on_batch_end(self, train: bool, num_batch: int, smooth_loss: Tensor) -> None:
        if train and num_batch + 1 == self.n_batches:
            self._close(smooth_loss)    # before the validation: a metric may fail over such outputs

    def on_epoch_end(self, num_batch: int, smooth_loss: Tensor | None) -> None:
        if num_batch < self.n_batches:  # cut short by a callback
            self._close(smooth_loss)

    def _close(self, smooth_loss: Tensor | None) -> None:
        self._ask(smooth_loss)
        self._hear()
        if not self._weights_finite():  # of the last step no loss tells
            self._fail()

    def _weights_finite(self) -> bool:
        trained = [p for p in self.learn.model.parameters() if p.requires_grad]     # a fixed mask may hold -inf
        finite = torch.stack([torch.isfinite(p).all() for p in trained]).all()
        return bool(finite.cpu().numpy())

    def on_train_end(self) -> None:
        self.answer = self.good = None

    def _keep(self) -> None:
        began = time.monotonic()
        learn, state = self.learn, self.learn.handler.state
        # the last step may have spoiled the weights, of which no loss tells yet
        if self.good is not None and not self._weights_finite():
            return
        self.good = {"learner": map_tensors(learner_state(learn), lambda t: t.detach().to("cpu", copy=True)),
                     "callbacks": [(cb, map_tensors(cb.state_dict(), torch.clone)) for cb in self._taking_part()],
                     "state": dataclasses.replace(state, last_input=None, last_target=None), "pass": self.pass_state}
        self.kept_at = time.monotonic()
        self.cost = self.kept_at - began

    def _ask(self, loss: Tensor | None) -> None:
        self._hear()
        if loss is not None:
            self.answer = is_finite(loss)
        if self.learn.data.device.type != "cuda":
            self._hear()  # it is there already

    def _hear(self) -> None:
        answer, self.answer = self.answer, None
        if answer is not None and not answer():
            self._fail()

    def _fail(self) -> None:
        learn, now, good = self.learn, self.learn.handler.state, self.good
        text = f"epoch {now.epoch}, by batch {now.num_batch}, lr {learn.opt.lr:.3g}: loss or weights are not finite now"
        if good is not None:
            text = self._repeated(now.iteration) or text
            self._put_back()
            text += f". The learner is as it was in epoch {good['state'].epoch} before batch {good['state'].num_batch}"
        raise FloatingPointError(text + ". A lower learning rate may help, if it is not the data; "
                                 "Learner(check_finite=False) trains on all the same")

    def _repeated(self, last: int) -> str:
        """Train again from the copy on, without validation, and say what is first not finite ('' if nothing is)."""
        self._put_back()
        learn, state, probe = self.learn, dataclasses.replace(self.good["state"]), Probe(self.learn)  # type: ignore[index]
        handler = CallbackHandler([*self._taking_part(), probe], state=state)
        with probe.watching(), uncompiled(learn.model):
            while not probe.found and state.iteration <= last:
                if state.num_batch == 0:
                    learn.model.train()
                    handler.fire("epoch_begin")
                for batch in learn.data.train_dl.batches(start=state.num_batch):
                    train_batch(learn, handler, batch)
                    if probe.found or state.stop_epoch or state.iteration > last:
                        break
                state.epoch, state.num_batch = state.epoch + 1, 0
        return probe.found

    def _put_back(self) -> None:
        good = self.good
        assert good is not None
        load_learner_state(self.learn, good["learner"])
        for cb, state in good["callbacks"]:
            cb.load_state_dict(map_tensors(state, torch.clone))
        if good["pass"] is not None:
            self.learn.data.train_dl.load_state_dict(good["pass"])

    def _taking_part(self) -> list[Callback]:
        return [cb for cb in self.learn.handler.callbacks if shapes_training(cb)]
