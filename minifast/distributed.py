"""This process among others: who it is, what all of them know, and how they are started.

`torchrun` (or `launch`) starts the processes, `Learner.to_distributed` joins them. In a process that has joined none,
every function here is one `if`. Each of them is a meeting: all processes must call it, in the same order.
"""
from __future__ import annotations

import atexit
import gc
import inspect
import io
import logging
import os
import pickle
import re
import signal
import socket
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

__all__ = ["FAILED", "begin", "clock", "data_parallel", "from_first", "gathered", "here", "launch", "local_device",
           "once", "rank", "share_first", "share_mean", "together", "warn_if_alone", "world"]

FAILED = re.compile(r"\b(gloo|nccl)\b|connection (was )?(closed|reset|refused)|timed? ?out|broken pipe", re.IGNORECASE)
TORCHS_LOGS = [f"torch.{name}" for name in ("multiprocessing.spawn", "distributed.elastic.multiprocessing.api",
                                            "distributed.elastic.agent.server.api")]


@dataclass
class Here:
    """What this process knows of the group; `joined` is False in one that works alone."""

    joined: bool = False
    rank: int = 0
    world: int = 1
    store: Any = None
    timeout: float = 600.0
    runs: int = 0           # ended so far, in all processes alike
    now: float = 0.0        # process 0's clock, as all have last heard it


here = Here()
clock: Callable[[], float] = time.monotonic     # seconds; in a group all processes read the same


def rank() -> int:
    """The number of this process, 0 in one that works alone.

    >>> rank(), world()
    (0, 1)
    """
    return here.rank


def world() -> int:
    """How many processes train together, 1 for one that works alone."""
    return here.world


def together(learn: Any) -> bool:
    """Whether this learner is trained by all processes: it has joined them by `to_distributed`."""
    return here.joined and getattr(learn, "distributed", None) is not None


def local_device() -> int:
    """The number of the GPU that is this process's, where several share a machine: `LOCAL_RANK`, as torchrun sets it.

    >>> local_device()
    0
    """
    return int(os.environ.get("LOCAL_RANK", 0))


def begin(timeout: float) -> bool:
    """Join the processes that torchrun has started; whether there are any. `timeout`: the seconds that one waits for
    another. RuntimeError for a machine with fewer GPUs than processes."""
    global clock
    if here.joined or not (dist.is_available() and {"RANK", "WORLD_SIZE"} <= {*os.environ} or dist.is_initialized()):
        return here.joined
    gpu, limit = torch.cuda.is_available(), timedelta(seconds=timeout)
    if gpu and local_device() >= torch.cuda.device_count():
        raise RuntimeError(f"process {local_device()} of this machine has no GPU: there are "
                           f"{torch.cuda.device_count()}. Start as many processes as there are GPUs")
    if gpu:
        torch.cuda.set_device(local_device())
    if not dist.is_initialized():
        from torch.distributed.rendezvous import rendezvous
        store, number, size = next(rendezvous("env://", timeout=limit))
        here.store = dist.PrefixStore(_common_name(store, number, size, timeout), store)  # type: ignore[attr-defined]
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", store=here.store, rank=number,
                                world_size=size, timeout=limit)
        atexit.register(_leave)
        here.store.set(f"process {number}", f"{socket.gethostname()} {os.getpid()}")
    here.rank, here.world, here.timeout, here.joined = dist.get_rank(), dist.get_world_size(), timeout, True
    here.now, clock = 0.0, lambda: here.now
    return True


def _common_name(store: Any, number: int, size: int, timeout: float) -> str:
    """A name that the processes of this start share: torchrun's store outlives a restart, and would give addresses of
    processes that are gone; and machines count their restarts each for itself."""
    mine = uuid.uuid4().hex
    if number:      # process 0 may find what an earlier process of this number has left, so it goes on until all answer
        store.set(f"process {number} is", mine)
        name = str(store.get(f"{mine} belongs to").decode())    # waits
        store.set(f"{name} has {number}", "")
        return name
    missing, until = [*range(1, size)], time.monotonic() + timeout
    while missing:
        for other in filter(lambda other: store.check([f"process {other} is"]), missing):
            store.set(f"{store.get(f'process {other} is').decode()} belongs to", mine)
        missing = [other for other in missing if not store.check([f"{mine} has {other}"])]
        if missing and time.monotonic() > until:
            raise RuntimeError(f"process {missing[0]} has not come within {timeout:g} s")
        time.sleep(0.005)
    return mine


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def gathered(x: Any) -> list[Any]:
    """What each process gives, by number; anything that can be pickled.

    >>> gathered("a")
    ['a']
    """
    if not here.joined:
        return [x]
    found: list[Any] = [None] * here.world
    dist.all_gather_object(found, x)
    return found


def from_first(x: Any) -> Any:
    """What process 0 gives.

    >>> from_first("a")
    'a'
    """
    if not here.joined:
        return x
    held: list[Any] = [None]
    if here.rank == 0:
        buffer = io.BytesIO()
        torch.save(x, buffer)
        held = [buffer.getvalue()]
    dist.broadcast_object_list(held, src=0)
    if here.rank == 0:
        return x
    # what is on process 0's GPU comes to this process's own
    return torch.load(io.BytesIO(held[0]), weights_only=False, map_location=None if not torch.cuda.is_available() else {
        "cuda:0": f"cuda:{local_device()}"})


def once(learn: Any, action: Callable[[], Any], shared: bool = True) -> Any:
    """Do something in process 0 only, such as to write a file; its error is raised in all. Returns its result, in the
    others too if it is `shared`, else None there. Where `learn` is trained by one process, it is just called."""
    if not together(learn):
        return action()
    result = error = None
    if here.rank == 0:
        try:
            result = action()
        except Exception as e:
            error = e
    failed, value = from_first((_sendable(error), result if shared else None))
    if failed is not None:
        raise error or failed
    return result if here.rank == 0 else value


def _sendable(error: Exception | None) -> Exception | None:
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:   # some classes of errors cannot be pickled
        return RuntimeError(f"{type(error).__name__}: {error}")


@torch.no_grad()
def share_first(tensors: list[torch.Tensor]) -> None:
    """Give each tensor the values that it has in process 0, in place, in one message."""
    if tensors:
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.broadcast(flat, src=0)
        for t, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            t.copy_(part.view_as(t))


def data_parallel(model: torch.nn.Module) -> DistributedDataParallel:
    """The model of all processes: torch's. Buffers are shared by `share_first`."""
    known = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters     # since torch 2.13
    alone: dict[str, Any] = {"forward_sync_buffers" if known else "broadcast_buffers": False}
    return DistributedDataParallel(model, **alone)


def share_mean(learn: Any, tensors: list[torch.Tensor]) -> None:
    """Make each tensor the mean of those of all processes, in place."""
    if together(learn):
        for t in tensors:
            dist.all_reduce(t)
            t /= here.world


def warn_if_alone(learn: Any) -> None:
    """A warning, where torchrun has started several processes and `learn` has not joined them."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ and not together(learn):
        warnings.warn(f"{os.environ['WORLD_SIZE']} processes train the same thing, each for itself: "
                      "learn.to_distributed() lets them share the work")


# ---- starting them

def launch(train: Callable[..., Any], nproc: int, *args: Any) -> Any:
    """Call `train(*args)` in `nproc` new processes of this machine, which can join each other: from a notebook.

    train: a function, which makes its learner itself and calls `learn.to_distributed()`. nproc: how many processes.
    args: what `train` is called with.

    Returns what process 0 returned; it must be something that can be pickled: no learner, for instance its
    model's `state_dict`. Each process works on one thread. RuntimeError if one of them fails, with its message first;
    and if this process has used a GPU, because a copy of it could not. Ctrl-C ends all of them.

    >>> launch(world, nproc=1)
    1
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch
    if not callable(train) or not isinstance(nproc, int) or nproc < 1:
        raise TypeError(f"launch(train, nproc) takes a function and a number of processes, not {train!r} and {nproc!r}")
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RuntimeError("this process has used a GPU already, so that copies of it cannot: restart the kernel, and "
                           "make data and learner in the function that is launched")
    config = LaunchConfig(1, 1, nproc, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                          max_restarts=0, monitor_interval=0.1, start_method="fork")
    handlers = [(number, signal.getsignal(number)) for number in signal.valid_signals()]
    levels = {log: log.level for log in map(logging.getLogger, TORCHS_LOGS)}
    for log in levels:
        log.setLevel(logging.CRITICAL)      # what they say of a process that fails is in the error
    gc.collect()    # copies of a store that is left from an earlier launch cannot be closed
    try:
        found = elastic_launch(config, _Process(train))(*args)[0]
        return None if found is None else pickle.loads(found)
    except SignalException as e:
        raise KeyboardInterrupt if e.sigval == signal.SIGINT else SystemExit(128 + e.sigval) from None
    except ChildFailedError as e:
        said = [(number, str(f.message["message"]) if isinstance(f.message, dict) else f"exit status {f.exitcode}")
                for number, f in sorted(e.failures.items(), key=lambda item: item[1].timestamp)]
        number, message = next((f for f in said if not FAILED.search(f[1])), said[0])
        reason = re.search(r"process \d+ (ended|is gone|did not answer) .*", message, re.DOTALL)
        error = RuntimeError(reason[0] if reason else f"process {number} ended: {message}")
        if isinstance(said_of := e.failures[number].message, dict) and not reason:
            error.add_note(f"in process {number}: {said_of['extraInfo']['py_callstack']}")
        raise error from None
    finally:
        for log, level in levels.items():
            log.setLevel(level)
        for number, handler in handlers:    # torch leaves its own in their places
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


class _Process:
    """What runs in a launched process."""
    def __init__(self, train: Callable[..., Any]) -> None:
        self.train, self.__qualname__, self.__name__ = train, "train", "train"

    def __call__(self, *args: Any) -> Any:
        from torch.distributed.elastic.multiprocessing.errors import record
        gc.freeze()     # what is the launching process's own is not taken apart here
        torch.set_num_threads(1)    # as torchrun; and threads do not survive a fork
        signal.signal(signal.SIGTERM, signal.SIG_DFL)   # the agent's handlers are not this process's
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return record(self.work)(*args)

    def work(self, *args: Any) -> Any:
        try:
            result = self.train(*args)
        except RuntimeError as e:
            if FAILED.search(str(e)) and hasattr(e, "__notes__"):
                raise RuntimeError(e.__notes__[-1]) from e      # what has become of the other one
            raise
        try:    # bytes: memory of a tensor that is shared would end with this process
            return pickle.dumps(result) if os.environ["RANK"] == "0" else None
        except Exception as e:
            raise TypeError(f"the function that is launched must return what can be pickled, not a "
                            f"{type(result).__name__} ({e})") from None
