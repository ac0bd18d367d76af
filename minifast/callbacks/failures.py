"""What happens when a run does not end well: Ctrl-C, and a loss that is no number any more."""
from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..callback import Callback, CallbackHandler, LearnerCallback
from ..checkpoint import learner_state, load_learner_state
from ..loop import train_batch
from ..utils import map_tensors, tensors_in
from .checkpoint import shapes_training
from .hooks import uncompiled

__all__ = ["FiniteGuard", "Interruption"]

CHECK_EVERY = 8  # batches; a check waits for the device, and the later it comes, the more batches are lost


class Interruption(LearnerCallback):
    """Ctrl-C ends a fit after the batch at hand, by a KeyboardInterrupt from there; a second Ctrl-C acts at once.

    Python's own handler of the signal is replaced for the length of the fit; where somebody has set another one, or in
    a thread, nothing is.
    """

    _order = 1001  # after the checkpoint, which is written before the run ends
    only_in_fit = True

    def __init__(self, learn: Any) -> None:
        super().__init__(learn)
        self.asked = self.listening = False

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a run that goes on has not been interrupted yet."""
        return {}

    def on_train_begin(self) -> None:
        self.asked = False
        self.listening = (threading.current_thread() is threading.main_thread()
                          and signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        if self.listening:
            signal.signal(signal.SIGINT, self._hear)

    def _hear(self, *args: Any) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_batch_end(self) -> None:
        if self.asked:
            raise KeyboardInterrupt

    def on_epoch_end(self) -> None:
        self.on_batch_end()

    def on_train_end(self, exception: BaseException | None) -> None:
        if self.listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.listening = False
        if self.asked and exception is None:
            raise KeyboardInterrupt


class FiniteGuard(LearnerCallback):
    """Ends a fit whose training loss is NaN or infinite, by a FloatingPointError that says where it began.

    It looks at the smoothed loss, which stays infinite or NaN once a loss has been, every eight batches and at the end
    of an epoch; a GPU's answer travels while it works on, and is read eight batches later, so that nobody waits. From
    time to time (at the beginning of an epoch, and as
    often as costs less than 1 % of the time) it keeps a copy of all that training changes, in the CPU's memory. When a
    loss is not finite, training is repeated from there under observation, up to the first layer, gradient or parameter
    that is not finite, and then the copy is put back.
    `Learner(check_finite=False)` does without it.
    """

    _order = 999  # before the checkpoint, which would be written in vain
    only_in_fit = True

    def __init__(self, learn: Any) -> None:
        super().__init__(learn)
        self.answer: Callable[[], bool] | None = None
        self.good: dict[str, Any] | None = None
        self.cost = self.kept_at = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Nothing: what it keeps is about this process."""
        return {}

    def on_train_begin(self) -> None:
        self.answer, self.good, self.cost, self.kept_at = None, None, 0.0, 0.0
        self.pass_state: dict[str, Any] | None = None

    def on_epoch_begin(self) -> None:
        self.pass_state = self.learn.data.train_dl.state_dict()

    def on_batch_begin(self, train: bool, num_batch: int, smooth_loss: Tensor | None) -> None:
        if train and (not num_batch % CHECK_EVERY or self.good is None):
            self._ask(smooth_loss)
            pause = 50 * self.cost if num_batch == 0 else max(1.0, 100 * self.cost)
            if time.monotonic() - self.kept_at >= pause:
                self._hear()    # what has not been looked at is not known to be good
                self._keep()

    def on_epoch_end(self, smooth_loss: Tensor | None) -> None:
        self._ask(smooth_loss)
        self._hear()

    def on_train_end(self) -> None:
        self.answer = self.good = None

    def _keep(self) -> None:
        began = time.monotonic()
        learn, state = self.learn, self.learn.handler.state
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
        text = f"epoch {now.epoch}, by batch {now.num_batch}, lr {learn.opt.lr:.3g}: the loss is not finite any more"
        if good is not None:
            text = self._repeated(now.iteration) or text
            self._put_back()
            text += f". The learner is as it was in epoch {good['state'].epoch} before batch {good['state'].num_batch}"
        raise FloatingPointError(text + ". A lower learning rate may help, if it is not the data; "
                                 "Learner(check_finite=False) trains on all the same")

    def _repeated(self, last: int) -> str:
        """Train again from the copy on, without validation, and say what is first not finite ('' if nothing is)."""
        self._put_back()
        learn, state, probe = self.learn, dataclasses.replace(self.good["state"]), _Probe(self.learn)  # type: ignore[index]
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


def is_finite(loss: Tensor) -> Callable[[], bool]:
    """Whether it is finite, asked now and told when the result is called; a GPU is not waited for before."""
    finite = loss.isfinite()
    if finite.device.type != "cuda":
        host = finite.cpu()
        return lambda: bool(host.numpy())
    host = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def answer() -> bool:
        arrived.synchronize()
        return bool(host.numpy())
    return answer


class _Probe(Callback):
    """Finds what is first not finite in training: an input, a layer's output, a loss, a gradient, or a parameter."""

    _order = 2000  # it sees what the other callbacks have made of the batch

    def __init__(self, learn: Any) -> None:
        self.learn, self.found, self.where = learn, "", ""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, every layer's output and the gradient there are looked at."""
        def hook(name: str) -> Any:
            return lambda module, args, output: self._layer(f"{name or 'the model'} ({type(module).__name__})", output)
        handles = [m.register_forward_hook(hook(name)) for name, m in self.learn.model.named_modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _layer(self, name: str, output: Any) -> None:
        for t in tensors_in(output):
            self._see(f"the output of layer {name}", t)
            if t.requires_grad:
                t.register_hook(  # type: ignore[no-untyped-call]
                    lambda grad: self._see(f"the gradient of the output of layer {name}", grad))

    def _see(self, what: str, t: Tensor) -> None:
        if not self.found and t.is_floating_point() and not bool(t.isfinite().all()):
            kind = "NaN" if bool(t.isnan().any()) else "infinite"
            self.found = f"{self.where}: {what} was the first to be {kind}"

    def on_batch_begin(self, last_input: Any, last_target: Any, epoch: int, num_batch: int) -> None:
        opt = self.learn.opt
        mom = "" if opt.mom is None else f", momentum {opt.mom:.3g}"
        self.where = f"epoch {epoch}, batch {num_batch}, lr {opt.lr:.3g}{mom}"
        for what, x in (("the input", last_input), ("the target", last_target)):
            for t in tensors_in(x):
                self._see(what, t)

    def on_backward_begin(self, last_loss: Tensor) -> None:
        self._see("the loss function's result", last_loss)

    def on_backward_end(self) -> None:
        for name, p in self.learn.model.named_parameters():
            if p.grad is not None:
                self._see(f"the gradient of parameter {name}", p.grad)

    def on_step_end(self) -> None:
        for name, p in self.learn.model.named_parameters():
            self._see(f"parameter {name}, after the optimizer's step,", p)
