"""What the processes of a run exchange: with each batch its loss and decisions, and what they have measured."""
from __future__ import annotations

import contextlib
import inspect
import os
import signal
import socket
import time
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from . import distributed as processes
from .batches import Turns, merged
from .callback import Callback
from .columns import AverageMetric, WholeSetMetric
from .distributed import FAILED, here
from .same_run import differences, named, settings
from .signatures import listeners
from .state import Changes, State
from .utils import read_numbers, rng_state, set_rng_state, to_detach, to_device, weighted_mean

__all__ = ["Exchange", "another_ended", "begin_alike", "explain", "first_of_all", "in_turns", "share_validation"]

PATIENCE = 3.0      # seconds in which a process that fails can say so
LAG = 8     # batches after which a GPU's numbers have long arrived, so that reading them does not wait
STOPS = ("stop_epoch", "stop_training", "skip_validate")
SIGNALS = {"SIGINT": 1.0, "SIGTERM": 1e5, "SIGUSR1": 1e10}     # summed over fewer than 1e5 processes


class Exchange:
    """One sum over all processes a batch: loss, weight, a signal that one has received, process 0's clock, and the
    decisions of callbacks. So all of them decide alike without another message. learn: the learner of the run.

    The sum is on its way during the backward pass, which counts in units of the batch size; `end` says what its
    gradients then lack. It is waited for before only where a callback reads the weight of the whole batch there, or
    where there are gradients already, to which those of this batch are added.
    """

    def __init__(self, learn: Any) -> None:
        self.learn = learn
        self.loss: Any = None       # of the whole batch
        self.whole: Any = None      # its weight; None: the loss is a sum
        self.weight: Any = None     # of this process's part, 0 where no sample is this process's
        self.unit: Any = None       # in which the backward pass counts
        self.factor: Any = None     # of this process's loss, so that the mean of all processes' gradients is right
        self.under_way: Any = None
        self.agreed: tuple[bool, ...] = (False, False, False)
        self.who: dict[str, str] = {}
        self.unread: deque[Any] = deque()
        self.is_read = any("last_weight" in _fields(handler) for cb, handler, _ in
                           learn.handler.of_callbacks["backward_begin"] if cb is not learn.distributed)
        take = learn.handler._take

        def taking(callback: Any, event: str, changes: Any) -> None:
            take(callback, event, changes)
            self.who.update({key: type(callback).__name__ for key in changes if key in STOPS or key == "skip_step"})
        learn.handler._take = taking    # the handler is this run's own

    def begin(self, loss: Tensor, weight: Any, update: int, nothing: bool) -> Any:
        """Send what this process has of a batch. Returns the weight of the whole batch if that is waited for, else
        `weight`. nothing: no sample is this process's."""
        self.weight = 0.0 if nothing else 1.0 if weight is None else weight
        self.under_way = self._send(loss, self.weight, update), weight, loss.dtype
        self.unit = 1.0 if weight is None else self.learn.data.batch_size or 1.0
        held = next((p.grad for p in self.learn.model.parameters() if p.requires_grad), None)
        if self.is_read or loss.is_cuda or held is not None:
            self._arrive()
            weight = self.whole
            self.unit = self.unit if weight is None else weight
        if loss.is_cuda:
            unit = self.unit.clamp_min(1e-300) if isinstance(self.unit, Tensor) else self.unit
            self.factor = self.weight * processes.world() / unit
        else:
            self.factor = float(self.weight) * processes.world() / float(self.unit or 1.0)
        return weight

    def end(self) -> tuple[Any, Any]:
        """The weight of the whole batch, and what the gradients are to be multiplied by."""
        if self.under_way is not None:
            self._arrive()
        same = self.whole is None or self.unit is self.whole
        return self.whole, 1.0 if same else float(self.unit / (self.whole or 1.0))

    def agree(self, update: int, *stops: bool) -> None:
        """RuntimeError where this process has decided to stop and another has not. (That one sends its sum of the next
        batch: it counts as the answer.)"""
        if stops != self.agreed:
            self._take_in(*self._send(torch.zeros((), device=self.learn.data.device), 0.0, update, stopped=True))
            self.agreed = (False, *stops[1:])
            self.who = {}

    def _send(self, loss: Tensor, weight: Any, update: int, stopped: bool = False) -> tuple[Tensor, Any, int, bool]:
        heard = _heard(self.learn)
        numbers = [SIGNALS[signal.Signals(heard).name] if heard else 0.0,
                   0.0 if processes.rank() else time.monotonic(), float(update), float(stopped)]
        if loss.is_cuda:    # without waiting for it
            loss, weight, *rest = (_on_gpu(x, loss) for x in (loss, weight, *numbers))
            sent = torch.stack([torch.where(weight != 0, loss * weight, 0.0), weight, *rest])
        else:
            sent = torch.tensor([float(loss) * float(weight) if weight else 0.0, weight, *numbers], dtype=torch.float64)
        return sent, dist.all_reduce(sent, async_op=True), update, stopped

    def _arrive(self) -> None:
        sending, mine, dtype = self.under_way
        self.under_way, total = None, self._take_in(*sending)
        self.whole = total[1] if isinstance(mine, Tensor) or total.is_cuda else float(total[1])
        self.whole = None if mine is None else self.whole
        self.loss = (total[0] if mine is None else total[0] / total[1]).to(dtype)

    def _take_in(self, sent: Tensor, work: Any, update: int, stopped: bool) -> Tensor:
        work.wait()
        if not sent.is_cuda:
            self._read(sent, update, stopped)
            return sent
        host = torch.empty(sent.shape, dtype=sent.dtype, pin_memory=True).copy_(sent, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self.unread.append((host, arrived, update, stopped))
        while len(self.unread) > (0 if stopped else LAG):
            host, arrived, *was = self.unread.popleft()
            arrived.synchronize()
            self._read(host, *was)
        return sent

    def _read(self, sent: Tensor, update: int, stopped: bool) -> None:
        _, _, heard, now, updates, n_stopped = sent.tolist()
        here.now = now
        if n_stopped not in (0, processes.world()) or updates != update * processes.world():
            raise self._disagreement(stopped, update, bool(n_stopped))
        if heard:
            name = next(name for name, number in reversed(SIGNALS.items()) if heard >= number)
            self.learn.interruption.take(getattr(signal, name))

    def _disagreement(self, stopped: bool, update: int, one_stops: bool) -> Exception:
        if one_stops and not stopped:   # the one that does says so, see `explain`
            return ConnectionError("another process has stopped")
        s = self.learn.handler.state
        mine = self.who, stopped, update, f"epoch {s.epoch}, batch {s.num_batch}"
        # the others may be in the backward pass, where they cannot answer
        every = {processes.rank(): mine} if one_stops else dict(enumerate(processes.gathered(mine)))
        said = [f"process {i}: {who}, {place}" for i, who, place in (
            (i, " and ".join(f"{name} returned {key}" for key, name in who.items()) or f"step {update}", place)
            for i, (who, stopped, update, place) in every.items() if who or stopped)]
        return RuntimeError(f"the processes have not decided alike. {'; '.join(said)}. A decision must be a function "
                            "of numbers that all processes have, such as last_loss, smooth_loss and last_metrics")


def _fields(handler: Any) -> set[str]:
    """The fields of the state that a handler reads."""
    params = inspect.signature(handler).parameters.values()
    return {*vars(State())} if any(p.kind is p.VAR_KEYWORD for p in params) else {p.name for p in params}


class _Together(Callback):
    """Before the metrics: makes the batches that the processes have validated in turns one list in all of them.

    What averages keeps a value for each batch, and that is sent; other metrics are called, at the end, with the batches
    of all processes in order, as they are in one.
    """

    def __init__(self, learn: Any, handler: Any, replayed: list[Any]) -> None:
        self.learn, self.handler = learn, handler
        self.replayed = listeners(replayed, Callback)["batch_end"]
        self.averaged = [m for m in handler.metrics if m not in replayed]
        read = set().union(*(_fields(cb.on_batch_end) for cb, *_ in self.replayed))
        self.fields = sorted(read & {"last_input", "last_target", "last_output", "last_loss", "last_weight"})
        self.kept: list[Any] = []

    def on_epoch_begin(self) -> None:
        self.kept = []
        for cb in self.handler.callbacks:
            if hasattr(cb, "before_validation"):
                cb.before_validation(self.handler.state.epoch, self.handler.state.n_epochs)

    def on_batch_end(self, last_loss: Tensor, last_weight: Any) -> None:
        fields = self.handler.fields
        self.kept.append((last_loss, last_weight, to_detach([fields[name] for name in self.fields])))

    def on_epoch_end(self) -> Changes:
        losses, weights = (read_numbers([kept[i] for kept in self.kept]).tolist() for i in (0, 1))
        columns = [to_detach(m.batches) for m in self.averaged]
        found = merged(self.learn, list(zip(losses, weights, (kept[2] for kept in self.kept),
                                            *columns, strict=True)))
        device, self.kept = self.learn.data.device, []
        for i, metric in enumerate(self.averaged):
            metric.batches = to_device([batch[3 + i] for batch in found], device)
        for batch in found:
            self.handler.fields.update(zip(self.fields, to_device(batch[2], device), strict=True))
            self.handler.fire("batch_end", {"batch_end": self.replayed})
        if heard := max(processes.gathered(_heard(self.learn))):
            self.learn.interruption.take(heard)
        mean = weighted_mean(*(torch.tensor([batch[i] for batch in found], dtype=torch.float64) for i in (0, 1)))
        return {"last_metrics": [mean]}


def _heard(learn: Any) -> int:
    """The signal that is to end the run, and that this process alone knows of; 0: none."""
    return getattr(getattr(learn, "interruption", None), "heard", None) or 0


def share_validation(learn: Any, handler: Any) -> None:
    """From now on what `handler` measures is of the batches of all processes. Its validations are taken in turns."""
    averages = (AverageMetric.on_batch_end, WholeSetMetric.on_batch_end)
    replayed = [m for m in handler.metrics if getattr(type(m), "on_batch_end", None) not in averages]
    metrics = listeners([_Together(learn, handler, replayed), *handler.metrics], Callback)
    metrics["batch_end"] = [found for found in metrics["batch_end"] if found[0] not in replayed]
    handler.of_metrics = metrics
    handler.of_all = {event: metrics[event] + handler.of_callbacks[event] for event in metrics}


def _on_gpu(x: Any, like: Tensor) -> Tensor:
    return x.to(like.device, torch.float64) if isinstance(x, Tensor) else torch.full(
        (), x, dtype=torch.float64, device=like.device)


def _compare(learn: Any, without: str) -> None:
    """ValueError, before anything is trained, if the processes train different things. Settings whose names begin with
    `without` may differ."""
    mine = {**settings(learn), "callbacks": [*named(learn.handler)]}
    every = processes.gathered({name: value for name, value in mine.items() if not name.startswith(without)})
    for number, theirs in enumerate(every):
        if wrong := differences(every[0], theirs):
            text = "; ".join(wrong.values()).replace(" then", " in process 0").replace(" now", f" in process {number}")
            raise ValueError(f"process {number} trains something else than process 0: {text}")


def begin_alike(learn: Any, own_batches: bool) -> None:
    """A run begins: from the same settings, with the data and the random numbers of process 0."""
    bs, world = learn.data.batch_size, processes.world()
    here.runs += 1
    if bs is not None and bs < world and not own_batches:
        raise ValueError(f"bs={bs} is the size of the whole batch, and {world} processes need a sample each of it")
    _compare(learn, without="training" if own_batches else "nothing")
    first = rng_state(cuda=False), [dl.state_dict() for dl in learn.data.dls], time.monotonic()
    random, positions, here.now = processes.from_first(first)
    for dl, position in zip(learn.data.dls, positions, strict=True):
        dl.load_state_dict(position)
    set_rng_state(random)
    if processes.rank():    # dropout draws others in each process
        torch.manual_seed(zlib.crc32(random["torch"].numpy().tobytes(), processes.rank()))


def first_of_all(learn: Any, stage: int, text: str) -> str:
    """Of what the processes have found, the text of the one that found it at the earliest stage of a batch."""
    found = processes.gathered((stage, text)) if processes.together(learn) else [(stage, text)]
    _, number, text = min(((stage, i, text) for i, (stage, text) in enumerate(found) if text), default=(0, 0, ""))
    return f"process {number}, {text}" if text and len(found) > 1 else text


@contextlib.contextmanager
def in_turns(learn: Any, handler: Any, dl: Any, n_batch: int | None) -> Iterator[None]:
    """Inside, a pass over `dl` is shared by the processes, and what is measured is of all of it. A single batch is not
    worth it: each process takes that."""
    if not processes.together(learn) or n_batch == 1:
        yield
        return
    share_validation(learn, handler)
    before = dl.set_part(Turns(processes.rank(), processes.world(), n_batch, learn.distributed.shard))
    try:
        yield
    finally:
        dl.set_part(before)


# ---- failures

def lost(error: BaseException | None) -> bool:
    """Whether the error is that of a connection to another process."""
    return isinstance(error, ConnectionError) or isinstance(error, RuntimeError) and bool(FAILED.search(str(error)))


def explain(error: BaseException, place: str) -> None:
    """Let the others know why this process ends. If it ends because a connection is lost, wait for what the others
    say, and add that to the error."""
    if here.store is None or here.world == 1:
        return
    failed, others = lost(error), [r for r in range(here.world) if r != here.rank]
    try:
        here.store.set(_said(here.rank), "" if failed else f"process {here.rank} ended in {place}: "
                        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        if failed:
            until = time.monotonic() + PATIENCE
            while not all(notes := [_of_process(r, place) for r in others]) and time.monotonic() < until:
                time.sleep(0.05)
            silent = f"did not answer within {here.timeout:g} s (a hang?); process {here.rank} was in {place}"
            lines = [note or f"process {r} {silent}" for r, note in zip(others, notes, strict=True)]
            error.add_note("\n".join(line for line in lines if line != " ") or f"in {place} the connection was lost")
    except RuntimeError as e:   # the store was process 0's, which is gone
        error.add_note(f"in {place} the other processes could not be reached ({str(e).splitlines()[0]})")


def _said(number: int) -> str:
    return f"run {here.runs}: process {number} ended"


def _of_process(number: int, place: str) -> str:
    """What has become of another process, as far as is known; a space: it has lost a connection, too."""
    if here.store.check([_said(number)]):
        return here.store.get(_said(number)).decode() or " "
    host, pid = here.store.get(f"process {number}").decode().rsplit(" ", 1)
    if host == socket.gethostname():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return f"process {number} is gone without a message (killed?); process {here.rank} was in {place}"
    return ""


def another_ended() -> bool:
    """Whether another process of this run has ended."""
    return here.store is not None and any(here.store.check([_said(r)]) for r in range(here.world)
                                           if r != here.rank)
