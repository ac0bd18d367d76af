"""What the processes of a run exchange: with each batch its loss and decisions, and what they have measured."""
from __future__ import annotations

import contextlib
import inspect
import signal
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
from .distributed import here
from .failures import explain
from .same_run import differences, named, settings
from .signatures import listeners
from .state import Changes, State
from .utils import params_of, read_numbers, rng_state, set_rng_state, tensors_in, to_detach, to_device, weighted_mean

__all__ = ["Exchange", "begin_alike", "first_of_all", "in_turns", "share_validation"]

LAG = 8     # batches after which a GPU's numbers have long arrived, so that reading them does not wait
STOPS = ("stop_epoch", "stop_training", "skip_validate")
DECISIONS = (*STOPS, "n_epochs", "skip_bwd", "skip_step", "skip_zero")
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
        self.given = False          # a callback has returned another weight
        self.skipped = 0.0          # what the batch before has skipped, as a part of one
        self.who: dict[str, str] = {}
        self.odd: Any = None        # what of this process does not agree with the others
        self.unread: deque[Any] = deque()
        self.is_read = any("last_weight" in _fields(handler) for cb, handler, _ in
                           learn.handler.of_callbacks["backward_begin"] if cb is not learn.distributed)
        take, s = learn.handler._take, learn.handler.state

        def taking(callback: Any, event: str, changes: Any) -> None:
            take(callback, event, changes)
            self.given |= "last_weight" in changes and callback is not learn.distributed
            self.who.update({key: f"{type(callback).__name__} returned {key}, epoch {s.epoch}, batch {s.num_batch}"
                             for key, value in changes.items() if key in DECISIONS and value})
        learn.handler._take = taking    # the handler is this run's own

    def begin(self, loss: Tensor, weight: Any, update: int, nothing: bool) -> Any:
        """Send what this process has of a batch. Returns the weight of the whole batch if that is waited for, else
        `weight`. nothing: no sample is this process's."""
        self.given = False
        self.weight = 0.0 if nothing else 1.0 if weight is None else weight
        self.under_way = self._send(loss, self.weight, update + self.skipped), weight, loss.dtype
        self.who = {key: said for key, said in self.who.items() if key in STOPS}    # those are agreed on later
        self.unit = 1.0 if weight is None else self.learn.data.batch_size or 1.0
        if self.is_read or loss.is_cuda or any(p.grad is not None for p in params_of(self.learn)):
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
        self._raise_if_odd()
        same = self.whole is None or self.unit is self.whole
        return self.whole, 1.0 if same else float(self.unit / (self.whole or 1.0))

    def agree(self, number: float, meet: bool, *stops: bool) -> None:
        """An error where this process has decided to stop and another has not. (That one sends its sum of the next
        batch, unless all `meet`: it counts as the answer.) number: the same in all, if they have stepped and skipped
        alike; it is compared here if all meet, else with the next sum."""
        self.skipped = number % 1
        if meet or stops != self.agreed:
            nothing = torch.zeros((), device=self.learn.data.device)
            self._take_in(*self._send(nothing, 0.0, number, stops != self.agreed, meet))
            self._raise_if_odd()
            self.agreed, self.who = (False, *stops[1:]), {}

    def pass_over(self) -> None:
        """This process skips a backward pass, in which others may wait for its gradients: they get zeros, and the next
        sum finds who has skipped. What has been accumulated is added up."""
        learn = self.learn
        params, spread = [p for p in learn.model.parameters() if p.requires_grad], learn.parallel is None
        if spread or learn.parallel.require_backward_grad_sync:
            before, roots = [p.grad for p in params], params
            if spread:  # the others wait in the layers
                learn.opt.zero_grad()
                roots = [t for t in tensors_in(learn.handler.state.last_output) if t.requires_grad]
            torch.autograd.backward(roots, [torch.zeros_like(t) for t in roots])
            for p, grad in zip(params, before, strict=True):
                p.grad = grad if spread or grad is None else p.grad

    def _send(self, loss: Tensor, weight: Any, number: float, stopped: bool = False, meet: bool = False) -> Any:
        heard = _heard(self.learn)
        numbers = [SIGNALS[signal.Signals(heard).name] if heard else 0.0,
                   0.0 if processes.rank() else time.monotonic(), number, float(stopped)]
        if loss.is_cuda:    # without waiting for it
            loss, weight, *rest = (_on_gpu(x, loss) for x in (loss, weight, *numbers))
            sent = torch.stack([torch.where(weight != 0, loss * weight, 0.0), weight, *rest])
        else:
            sent = torch.tensor([float(loss) * float(weight) if weight else 0.0, weight, *numbers], dtype=torch.float64)
        return sent, dist.all_reduce(sent, async_op=True), number, stopped, meet, self.who

    def _arrive(self) -> None:
        sending, mine, dtype = self.under_way
        self.under_way, total = None, self._take_in(*sending)
        self.whole = total[1] if isinstance(mine, Tensor) or total.is_cuda else float(total[1])
        self.whole = None if mine is None else self.whole
        self.loss = (total[0] if mine is None else total[0] / total[1]).to(dtype)

    def _take_in(self, sent: Tensor, work: Any, *mine: Any) -> Tensor:
        work.wait()
        if not sent.is_cuda:
            self._read(sent, *mine)
            return sent
        host = torch.empty(sent.shape, dtype=sent.dtype, pin_memory=True).copy_(sent, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self.unread.append((host, arrived, *mine))
        _, stopped, meet, _ = mine
        while len(self.unread) > (0 if stopped or meet else LAG):
            host, arrived, *was = self.unread.popleft()
            arrived.synchronize()
            self._read(host, *was)
        return sent

    def _read(self, sent: Tensor, number: float, stopped: bool, meet: bool, who: dict[str, str]) -> None:
        _, _, heard, now, numbers, n_stopped = sent.tolist()
        here.now = now
        if n_stopped not in (0, processes.world()) or numbers != number * processes.world():
            if n_stopped and not stopped and not meet:  # the one that stops says so, see `explain`
                raise ConnectionError("another process has stopped")
            self.odd = {*who.values()}, f"step {number:g}", bool(n_stopped) and not meet
        if heard:
            name = next(name for name, number in reversed(SIGNALS.items()) if heard >= number)
            self.learn.interruption.take(getattr(signal, name))

    def _raise_if_odd(self) -> None:
        """Where all processes can answer, unless one stops `alone`: after a backward pass, or a sum of all."""
        if self.odd is None:
            return
        (mine, step, alone), s = self.odd, self.learn.handler.state
        sent = mine, f"{step}, epoch {s.epoch}, batch {s.num_batch}"
        every = {processes.rank(): sent} if alone else dict(enumerate(processes.gathered(sent)))
        by_all = set() if alone else set.intersection(*(who for who, _ in every.values()))
        said = {i: " and ".join(sorted(who - by_all)) for i, (who, _) in every.items() if who - by_all}
        said = said or {i: place for i, (_, place) in every.items()}
        lines = "; ".join(f"process {i}: {text}" for i, text in said.items())
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


def _compare(learn: Any, without: tuple[str, ...]) -> None:
    """ValueError if the processes train different things. Settings whose names begin with `without` may differ."""
    mine = {**settings(learn), "callbacks": [*named(learn.handler)]}
    every = processes.gathered({name: value for name, value in mine.items() if not name.startswith(without)})
    for number, theirs in enumerate(every):
        if wrong := differences(every[0], theirs):
            text = "; ".join(wrong.values()).replace(" then", " in process 0").replace(" now", f" in process {number}")
            raise ValueError(f"process {number} trains something else than process 0: {text}")


def begin_alike(learn: Any, own_batches: bool) -> None:
    """A run begins: from the same settings, with the data and the random numbers of process 0."""
    bs, world = learn.data.batch_size, processes.world()
    if bs is not None and bs < world and not own_batches:
        raise ValueError(f"bs={bs} is the size of the whole batch, and {world} processes need a sample each of it")
    _compare(learn, without=("training", "sampler") if own_batches else ())
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
    within = learn.distributed.exchange is not None     # a run, which explains its end itself
    try:
        yield
    except BaseException as e:
        if not within:
            explain(e, "a validation or prediction")
        raise
    finally:
        dl.set_part(before)
        here.runs += not within
