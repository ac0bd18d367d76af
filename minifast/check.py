"""`learn.check()`: a dry run in seconds, after which everything is as it was."""
from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, optim

from . import loop
from .callback import Callback, CallbackHandler
from .checks import positive_int
from .columns import as_metrics, state_holders
from .data import DatasetType
from .files import load_file, save_file
from .progress import Progress, format_time
from .snapshot import learner_state, preserved
from .state import State
from .utils import listify, one_thread, run_model, shape_of, tensors_in

__all__ = ["Report", "check"]

STEPS, SECONDS = 60, 10.0   # at most, for over-fitting one batch
ROUNDS = 9                  # batches on several threads, and as many on one


class Report:
    """What a dry run found: `lines` of (whether it is well, what it is). It prints as a short text."""

    def __init__(self) -> None:
        self.lines: list[tuple[bool, str]] = []

    def add(self, good: bool, text: str) -> None:
        """One more line."""
        self.lines.append((good, text))

    @property
    def warnings(self) -> list[str]:
        """What is not well."""
        return [text for good, text in self.lines if not good]

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.warnings

    def __repr__(self) -> str:
        return "\n".join(f"{'ok  ' if good else 'WARN'}  {text}" for good, text in self.lines)


class _Few(Callback):
    """Ends each pass after two batches."""

    def __init__(self) -> None:
        self.valid = 0

    def on_batch_end(self, train: bool, num_batch: int) -> Any:
        self.valid += not train
        return {"stop_epoch": num_batch >= 1 if train else self.valid >= 2}


def check(learn: Any, epochs: int = 1) -> Report:
    """Try out what `epochs` epochs of training will need, on two batches, and put everything back.

    Forward pass, loss and its size before training, gradients of every trainable parameter, whether one batch can be
    over-fitted, the callbacks' events (except of those that only log, save or watch), a checkpoint out and back,
    the time and memory to expect, and on a CPU whether torch's threads help. What fails is a line of the report, not
    an exception.
    """
    epochs, report = positive_int("epochs", epochs), Report()
    with preserved(learn, learn.callbacks):
        with _told(report, "the forward pass and the loss"):
            x, y = learn.data.one_batch(DatasetType.Train, detach=False, denorm=False)
            _try_batch(learn, x, y, report)
            with _told(report, "over-fitting one batch"):
                _overfit(learn, x, y, epochs, report)
            if learn.data.device.type == "cpu" and torch.get_num_threads() > 1:
                with _told(report, "a batch on one thread"):
                    _compare_threads(learn, x, y, report)
    measured = as_metrics(learn.metrics, learn.loss_func)
    kept = [*learn.callbacks, *state_holders(measured)]
    with preserved(learn, kept), _told(report, "a short run with the callbacks"):
        callbacks = [*learn.taking_part(in_fit=False), _Few()]
        state = State(n_epochs=1, n_updates=len(learn.data.train_dl), pbar=Progress(1, silent=True))
        handler = CallbackHandler(callbacks, measured, state)
        learn.handler = handler
        loop.fit(learn, handler)
        names = ", ".join(type(cb).__name__ for cb in [*handler.metrics, *callbacks[:-1]]) or "there are none"
        report.add(True, f"two batches of training and validation run with the callbacks and metrics: {names}")
    with preserved(learn, learn.callbacks), tempfile.TemporaryDirectory() as folder, _told(report, "a checkpoint"):
        state_before = learner_state(learn)
        path = save_file(state_before, Path(folder) / "check.ckpt")
        back = load_file(path, "cpu")
        equal = all(_same(a.cpu(), b.cpu()) for a, b in zip(*map(tensors_in, (state_before, back)), strict=True))
        report.add(equal, f"a checkpoint ({path.stat().st_size / 2**20:.1f} MB with what the optimizer has so far) is "
                          f"written and read back {'bit for bit' if equal else 'with other values'}")
    return report


@contextmanager
def _told(report: Report, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as e:
        report.add(False, f"{what}: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}")


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or a.is_floating_point() and torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(
        a.isnan(), b.isnan())   # NaN is not equal to itself


def _try_batch(learn: Any, x: Any, y: Any, report: Report) -> None:
    model = learn.model.train()
    output = run_model(model, x)
    loss = learn.loss_func(output, *listify(y))
    report.add(True, f"a batch is {shape_of(x)}, its target {shape_of(y)}, the output {shape_of(output)}")
    devices = {str(t.device) for t in [*tensors_in(x), *model.parameters()]}
    report.add(len(devices) == 1, f"inputs and parameters are on {' and '.join(sorted(devices))}")
    value = float(loss.detach())
    report.add(math.isfinite(value), f"the loss is {value:.4g}")
    if (usual := _untrained_loss(learn.loss_func, output)) is not None and math.isfinite(value):
        near = usual / 2 <= value <= usual * 2
        report.add(near, f"an untrained model should have a loss near {usual:.3g}, this one has {value:.3g}" + (
            "" if near else ": trained already, or its outputs are too far from 0"))
    model.zero_grad()
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    without = [n for n, p in trained.items() if p.grad is None or not bool(p.grad.any())]
    report.add(not without, f"gradients reach all {len(trained)} trainable parameters" if not without else
               f"no gradient reaches {len(without)} of {len(trained)} trainable parameters: {', '.join(without[:10])}")


def _untrained_loss(loss_func: Any, output: Any) -> float | None:
    name = getattr(loss_func, "__name__", type(loss_func).__name__)
    if name in ("CrossEntropyLoss", "cross_entropy") and isinstance(output, Tensor) and output.ndim > 1:
        return math.log(output.shape[1]) or None
    return math.log(2) if name in ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits") else None


def _overfit(learn: Any, x: Any, y: Any, epochs: int, report: Report) -> None:
    params = [p for p in learn.model.parameters() if p.requires_grad]
    losses: list[float] = []
    times: list[float] = []
    opt, began = optim.Adam(params, lr=1e-2), time.perf_counter()
    while len(losses) < STEPS and time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        opt.zero_grad()
        loss = learn.loss_func(run_model(learn.model, x), *listify(y))
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))  # waits for the device, so the times are those of the work
        times.append(time.perf_counter() - start)
    low, fell = min(losses), min(losses) < losses[0] / 2 if losses[0] > 0 else min(losses) < losses[0]
    report.add(fell, f"one batch, {len(losses)} times: the loss goes from {losses[0]:.3g} to {low:.3g}"
                     + ("" if fell else ", so not even that can be learned by heart"))
    seconds = sorted(times)[len(times) // 2] * len(learn.data.train_dl) * epochs
    states = [t for s in opt.state.values() for t in tensors_in(s)]
    held = [*params, *(p.grad for p in params if p.grad is not None), *states]
    size = sum(t.numel() * t.element_size() for t in held)
    peak = (f", {torch.cuda.max_memory_allocated(learn.data.device) / 2**20:.0f} MB at most on the GPU"
            if learn.data.device.type == "cuda" else "")
    report.add(True, f"{epochs} epoch{'s' * (epochs > 1)} will train for about {format_time(seconds)} (without loading "
                     f"and validation); parameters, gradients and Adam's state take {size / 2**20:.1f} MB{peak}")


def _compare_threads(learn: Any, x: Any, y: Any, report: Report) -> None:
    """Each operation waits for all of its threads. Where other programs keep one of them from running, that takes far
    longer than the work of a small network does."""
    def seconds() -> float:
        start = time.perf_counter()
        learn.loss_func(run_model(learn.model, x), *listify(y)).backward()
        return time.perf_counter() - start

    n, began = torch.get_num_threads(), time.perf_counter()
    seconds()   # the first is no measure of the others
    several: list[float] = []
    one: list[float] = []
    while len(one) < ROUNDS and time.perf_counter() - began < SECONDS:
        several.append(seconds())
        with one_thread():
            one.append(seconds())
    slow, fast = statistics.median(several), statistics.median(one)
    faster = fast < slow / 1.5
    advice = ": call torch.set_num_threads(1), or set OMP_NUM_THREADS=1 before Python starts" if faster else ""
    report.add(not faster, f"forward and backward pass of a batch take {1000 * slow:.3g} ms on {n} threads, "
                           f"{1000 * fast:.3g} ms on one{advice}")
