"""Whether numbers are finite, and where they stop being so."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..callback import Callback, CallbackHandler
from ..exchange import first_of_all
from ..hooks import without_hooks_of
from ..loop import train_batch
from ..order import Order
from ..sharded import whole
from ..state import State
from ..torch_private import uncompiled
from ..utils import tensors_in

__all__: list[str] = []  # it works for `FiniteGuard` only


def is_finite(loss: Tensor) -> Callable[[], bool]:
    """Begin to find out whether `loss` is finite; calling the result waits for the device, nothing else does."""
    finite = loss.isfinite()
    if finite.device.type != "cuda":
        host = finite.cpu()
        return lambda: bool(host.numpy())
    host = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def result() -> bool:
        arrived.synchronize()
        return bool(host.numpy())
    return result


def not_finite(model: nn.Module) -> set[str]:
    """The names of the trained parameters that hold NaN or infinity; it reads from the device once.

    A parameter that is not trained may hold infinity: a fixed mask does.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}
    if not trained:
        return set()
    devices = {p.device for p in trained.values()}
    finite = [whole(torch.isfinite(p).all()) for p in trained.values()]
    read = torch.stack(finite if len(devices) == 1 else [f.cpu() for f in finite]).cpu().numpy()
    return {name for name, ok in zip(trained, read, strict=True) if not ok}


class Probe(Callback):
    """Finds what is first not finite in training: an input, a layer's output, a loss, a gradient, or a parameter.

    learn: the learner that is trained meanwhile.
    known: names of parameters that were not finite before the run.

    `found` says what it was, in words; it is empty until something is.
    """

    _order = Order.PROBE

    def __init__(self, learn: Any, known: Collection[str] = ()) -> None:
        self.learn, self.known = learn, known
        self.found = ""
        self.where = ""
        self.stage = self.found_at = 0  # of the batch: several processes report what was first in all of them

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, every layer's output and the gradient there are looked at; of what is scripted, the whole's only."""
        def hook(name: str) -> Any:
            return lambda module, args, output: self._layer(f"{name or 'the model'} ({type(module).__name__})", output)
        handles = [m.register_forward_hook(hook(name)) for name, m in self.learn.model.named_modules()
                   if not isinstance(m, torch.jit.ScriptModule)]    # which take no hooks
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
            self.found_at = self.stage
            self.found = f"{self.where}: {what} was the first to be {kind}"
            if self.known:
                self.found += f" (not finite before the run already: {', '.join(sorted(self.known))})"

    def on_batch_begin(self, last_input: Any, last_target: Any, epoch: int, num_batch: int) -> None:
        self.stage, opt = 0, self.learn.opt
        mom = "" if opt.mom is None else f", momentum {opt.mom:.3g}"
        self.where = f"epoch {epoch}, batch {num_batch}, lr {opt.lr:.3g}{mom}"
        for what, x in (("the input", last_input), ("the target", last_target)):
            for t in tensors_in(x):
                self._see(what, t)

        self.stage = 1

    def on_loss_begin(self, last_output: Any) -> None:
        for t in tensors_in(last_output):
            self._see("the output of the model", t)

    def on_backward_begin(self, last_loss: Tensor, last_weight: Any) -> None:
        if last_weight is None or bool(last_weight):    # where nothing counts, no number is right
            self._see("the loss function's result", last_loss)
        self.stage = 2

    def on_backward_end(self) -> None:
        for name, p in self.learn.model.named_parameters():
            if p.grad is not None:
                self._see(f"the gradient of parameter {name}", p.grad)

    def on_step_end(self) -> None:
        for name, p in self.learn.model.named_parameters():
            if p.requires_grad and name not in self.known:
                self._see(f"parameter {name}, after the optimizer's step,", p)


def first_not_finite(learn: Any, callbacks: Sequence[Callback], begin: State, last: int, known: Collection[str]) -> str:
    """Train again from the state `begin` to iteration `last`, without validation, and say what is first not finite; an
    empty text if all stays finite.

    callbacks: those that shape the training; hooks of others are off. known: parameters not finite before the run.
    """
    state, probe = dataclasses.replace(begin), Probe(learn, known)
    handler = CallbackHandler([*callbacks, probe], state=state)
    others = without_hooks_of(learn.model, [cb for cb in learn.handler.callbacks if cb not in callbacks])
    with others, probe.watching(), uncompiled(learn.model):
        while not probe.found and state.iteration <= last:
            if state.num_batch == 0:
                learn.model.train()
                handler.fire("epoch_begin")
            for batch in learn.data.train_dl.batches(start=state.num_batch):
                train_batch(learn, handler, batch)
                probe.found = first_of_all(learn, probe.found_at, probe.found)
                if probe.found or state.stop_epoch or state.iteration > last:
                    break
            state.epoch, state.num_batch = state.epoch + 1, 0
    return probe.found
