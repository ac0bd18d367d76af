"""Whether numbers are finite, and where they stop being so."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..callback import Callback
from ..order import Order
from ..utils import tensors_in

__all__: list[str] = []  # it works for `FiniteGuard` only


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


class Probe(Callback):
    """Finds what is first not finite in training: an input, a layer's output, a loss, a gradient, or a parameter."""

    _order = Order.PROBE

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

    def on_backward_begin(self, last_loss: Tensor, last_weight: Any) -> None:
        if last_weight is None or bool(last_weight):    # where nothing counts, no number is right
            self._see("the loss function's result", last_loss)

    def on_backward_end(self) -> None:
        for name, p in self.learn.model.named_parameters():
            if p.grad is not None:
                self._see(f"the gradient of parameter {name}", p.grad)

    def on_step_end(self) -> None:
        for name, p in self.learn.model.named_parameters():
            self._see(f"parameter {name}, after the optimizer's step,", p)
