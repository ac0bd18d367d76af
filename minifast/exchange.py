"""What the processes of a run exchange: with each batch its loss and decisions, and what they have measured."""
from __future__ import annotations

import contextlib
import inspect
import signal
import time
import zlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from . import distributed as processes
from .batches import Turns, merged
from .callback import Callback, role_of
from .columns import AverageMetric, WholeSetMetric
from .distributed import here
from .failures import explain
from .same_run import arguments_of, differences, named, of_data, settings
from .signatures import listeners
from .state import Changes, State
from .utils import params_of, read_numbers, rng_state, set_rng_state, to_detach, to_device, weighted_mean

__all__ = ["Exchange", "begin_alike", "first_of_all", "in_turns", "share_validation"]

SIGNALS = ("SIGUSR1", "SIGTERM", "SIGINT")


class Exchange:
    """One sum over all processes a batch: loss, weight, a signal that one has received, process 0's clock, and the
    decisions of callbacks. So all of them decide alike without another message. learn: the learner of the run.

    The sum is on its way during the backward pass, which counts in units of the batch size; `end` says what its
    gradients then lack. It is waited for before only where a callback reads the weight of the whole batch there, or
    where there are gradients already, to which those of this batch are added. On a GPU nothing waits for loss and
    weight; all else is summed by the CPUs.
    """

    def __init__(self, learn: Any) -> None:
        self.learn = learn
        self.loss: Any = None       # of the whole batch
        self.weight: Any = None     # its weight; None: the loss is a sum
        self.mine: Any = None       # the weight of this process's part, 0 where no sample is this process's
        self.unit: Any = None       # in which the backward pass counts
        self.factor: Any = None     # of this process's loss, so that the mean of all processes' gradients is right
        self.under_way = False
        self.given = False          # a callback has returned another weight
        self.decided: dict[Any, str] = {}   # by callbacks since the last sum
        self.is_read = any("last_weight" in _fields(handler) for cb, handler, _ in
                           learn.handler.of_callbacks["backward_begin"] if cb is not learn.distributed)
        take, s = learn.handler._take, learn.handler.state

        def taking(callback: Any, event: str, changes: Any) -> None:
            take(callback, event, changes)
            self.given |= "last_weight" in changes and callback is not learn.distributed
            self.decided.update({
                (key, value): f"{type(callback).__name__} returned {key}, epoch {s.epoch}, batch {s.num_batch}"
                for key, value in changes.items() if key.startswith(("stop_", "skip_", "n_epochs")) and value})
        learn.handler._take = taking    # the handler is this run's own

    def begin(self, loss: Tensor, weight: Any, nothing: bool) -> Any:
        """Send what this process has of a batch. Returns the weight of the whole batch if that is waited for, else
        `weight`. nothing: no sample is this process's."""
        self.given, self.loss, self.weight, self.under_way = False, loss, weight, True
        self.mine = 0.0 if nothing else 1.0 if weight is None else weight
        self.unit = 1.0 if weight is None else self.learn.data.batch_size or 1.0
        self._send(loss, self.mine)
        if self.is_read or loss.is_cuda or any(p.grad is not None for p in params_of(self.learn)):
            self._arrive()
            self.unit = 1.0 if weight is None else self.weight
        if nothing:
            self.factor = 0.0
        elif isinstance(self.unit, Tensor) and self.unit.is_cuda:
            self.factor = self.mine * here.world / self.unit.clamp_min(1e-300)
        else:
            self.factor = float(self.mine) * here.world / float(self.unit or 1.0)
        return self.weight

    def end(self) -> float:
        """What the gradients are to be multiplied by; `weight` is then that of the whole batch."""
        lacking = 1.0
        if self.under_way:
            self._arrive()
            lacking = 1.0 if self.weight is None else float(self.unit / (self.weight or self.unit))
        self._read()    # here, where all processes can answer
        return lacking

    def agree(self, alone: bool = False) -> None:
        """An error where the processes have not decided alike since the last sum. alone: this one leaves the epoch, and
        one that does not sends its sum of the next batch, which counts as the answer."""
        self._send(torch.zeros((), device=self.learn.data.device), 0.0)
        self._read(alone)

    def _send(self, loss: Tensor, weight: Any) -> None:
        s, heard = self.learn.handler.state, getattr(getattr(self.learn, "interruption", None), "heard", None)
        self.number = zlib.crc32(repr((s.update, sorted(self.decided))).encode())
        self.said, self.decided = {*self.decided.values()}, {}
        numbers = [self.number, 0.0 if here.rank else time.monotonic(),
                   *(heard == getattr(signal, name, -1) for name in SIGNALS)]   # Windows has no SIGUSR1
        if loss.is_cuda:    # without waiting for it
            mine = torch.zeros_like(loss, dtype=torch.float64) + weight
            sums = [torch.stack([torch.where(mine != 0, loss * mine, 0.0), mine])]
        else:
            sums, numbers = [], [float(loss) * float(weight) if weight else 0.0, weight, *numbers]
        self.sent = [*sums, torch.tensor(numbers, dtype=torch.float64)]
        self.work = [dist.all_reduce(t, async_op=True) for t in self.sent]

    def _arrive(self) -> None:
        """Loss and weight of the whole batch; on a GPU they may be still to come."""
        self.work[0].wait()
        self.under_way, (total, weight) = False, self.sent[0][:2]
        mean = total if self.weight is None else torch.where(weight != 0, total / weight, self.loss)
        self.loss = mean.to(self.loss.dtype)
        if self.weight is not None:
            self.weight = weight if isinstance(self.weight, Tensor) or weight.is_cuda else float(weight)

    def _read(self, alone: bool = False) -> None:
        """What is on the CPU: the clock, signals, and whether all have decided alike."""
        for work in self.work:
            work.wait()
        number, here.now, *heard = self.sent[-1].tolist()[-2 - len(SIGNALS):]
        for name in (name for name, n in zip(SIGNALS, heard, strict=True) if n):
            self.learn.interruption.take(getattr(signal, name))
        if number == self.number * here.world:
            return
        every = [self.said if i == here.rank else set() for i in range(here.world)] if alone else (
            processes.gathered(self.said))
        by_all = set.intersection(*every)
        lines = "; ".join(f"process {i}: {' and '.join(sorted(said - by_all))}" for i, said in enumerate(every)
                          if said - by_all) or f"This one is at step {self.learn.handler.state.update}"
        raise RuntimeError(f"the processes have not decided alike. {lines}. A decision must be a function of numbers "
                           "that all processes have, such as last_loss and smooth_loss after a batch, or last_metrics")


def _fields(handler: Any) -> set[str]:
    """The fields of the state that a handler reads."""
    params = inspect.signature(handler).parameters.values()
    return {*vars(State())} if any(p.kind is p.VAR_KEYWORD for p in params) else {p.name for p in params}


class _Together(Callback):
    """Before the metrics: makes the batches that the processes have validated in turns one list in all of them.

    What averages keeps a value for each batch, and that is sent; other metrics are called, at the end, with the batches
    of all processes in order, as they are in one.
    """

    def __init__(self, learn: Any, handler: Any) -> None:
        self.learn, self.handler, self.kept = learn, handler, list[Any]()
        averages = (AverageMetric.on_batch_end, WholeSetMetric.on_batch_end)
        self.averaged = [m for m in handler.metrics if getattr(type(m), "on_batch_end", None) in averages]
        metrics = listeners([self, *handler.metrics], Callback)
        self.replayed = [found for found in metrics["batch_end"] if found[0] not in [self, *self.averaged]]
        metrics["batch_end"] = [found for found in metrics["batch_end"] if found not in self.replayed]
        handler.of_metrics = metrics
        handler.of_all = {event: metrics[event] + handler.of_callbacks[event] for event in metrics}
        read = set().union(*(_fields(on_batch_end) for _, on_batch_end, _ in self.replayed))
        self.fields = sorted(read & {"last_input", "last_target", "last_output", "last_loss", "last_weight"})

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
        found = merged(self.learn, list(zip(losses, weights, (kept[2] for kept in self.kept), *columns, strict=True)))
        device, self.kept = self.learn.data.device, []
        for i, metric in enumerate(self.averaged):
            metric.batches = to_device([batch[3 + i] for batch in found], device)
        for batch in found:
            self.handler.fields.update(zip(self.fields, to_device(batch[2], device), strict=True))
            self.handler.fire("batch_end", {"batch_end": self.replayed})
        mean = weighted_mean(*(torch.tensor([batch[i] for batch in found], dtype=torch.float64) for i in (0, 1)))
        return {"last_metrics": [mean]}


def share_validation(learn: Any, handler: Any) -> None:
    """From now on what `handler` measures is of the batches of all processes. Its validations are taken in turns."""
    _Together(learn, handler)


def begin_alike(learn: Any, own_batches: bool) -> None:
    """A run begins: from the same settings, with the data and the random numbers of process 0. ValueError if the
    processes train different things. own_batches: their training data may differ."""
    bs, world = learn.data.batch_size, here.world
    if bs is not None and bs < world and not own_batches:
        raise ValueError(f"bs={bs} is the size of the whole batch, and {world} processes need a sample each of it")
    callbacks = named(learn.handler)
    mine = {**settings(learn), "callbacks": [*callbacks],   # a checkpoint, of which all must know when it is due
            **{name: arguments_of(cb, ("learn",)) for name, cb in callbacks.items() if role_of(cb) == "process"}}
    compared = {name: value for name, value in mine.items()
                if not (own_batches and name.startswith(("training", "sampler")))}
    random, positions, here.now = _compared("trains", compared, (
        rng_state(cuda=False), [dl.state_dict() for dl in learn.data.dls], time.monotonic()))
    for dl, position in zip(learn.data.dls, positions, strict=True):
        dl.load_state_dict(position)
    set_rng_state(random)
    if here.rank:   # dropout draws others in each process
        torch.manual_seed(zlib.crc32(random["torch"].numpy().tobytes(), here.rank))


def _compared(verb: str, mine: dict[str, Any], more: Any = None, advice: str = "") -> Any:
    """ValueError where the processes' settings differ; returns what process 0 gives as `more`."""
    (first, more), *others = processes.gathered((mine, more))
    for number, (theirs, _) in enumerate(others, 1):
        if wrong := differences(first, theirs):
            text = "; ".join(wrong.values()).replace(" then", " in process 0").replace(" now", f" in process {number}")
            raise ValueError(f"process {number} {verb} something else than process 0: {text}{advice}")
    return more


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
    within = learn.distributed.exchange is not None     # a run, which explains its end itself
    try:
        wanted = {"n_batch": n_batch, "callbacks": [*named(handler)], **of_data("its", dl)}
        _compared("validates or predicts on", wanted,
                  advice=". Each process must ask for the same, of all the data: it takes its batches of it")
        yield
    except BaseException as e:
        if not within:
            explain(e, "a validation or prediction")
        raise
    finally:
        dl.set_part(before)
        here.runs += not within
