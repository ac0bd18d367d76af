"""This process among others: who it is, what all of them know, and how they are started.

`torchrun` (or `launch`) starts the processes, `Learner.to_distributed` joins them. In a process that has joined none,
every function here is one `if`. Each of them is a meeting: all processes must call it, in the same order.
"""
from __future__ import annotations

import atexit
import gc
import io
import os
import pickle
import re
import socket
import sys
import tempfile
import time
import traceback
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

__all__ = ["begin", "clock", "from_first", "gathered", "here", "is_lost", "launch", "local_device",
           "once", "rank", "share_first", "share_mean", "together", "warn_if_alone", "world"]

FAILED = re.compile(r"\b(gloo|nccl)\b|connection (was )?(closed|reset|refused)|timed? ?out|broken pipe", re.IGNORECASE)


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


def clock() -> float:
    """Seconds; in a group all processes read the same."""
    return here.now if here.joined else time.monotonic()


def is_lost(error: BaseException | None) -> bool:
    """Whether the error is that of a connection to another process."""
    return isinstance(error, ConnectionError) or isinstance(error, RuntimeError) and bool(FAILED.search(str(error)))


def begin(timeout: float) -> bool:
    """Join the processes that torchrun has started; whether there are any. `timeout`: the seconds that one waits for
    another. RuntimeError for a machine with fewer GPUs than processes."""
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
        atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)
    here.rank, here.world, here.timeout, here.joined = dist.get_rank(), dist.get_world_size(), timeout, True
    return True


def _common_name(store: Any, number: int, size: int, timeout: float) -> str:
    """A name that the processes of this start share: torchrun's store outlives a restart, and would give addresses of
    processes that are gone; and machines count their restarts each for itself."""
    mine, others, until = uuid.uuid4().hex, range(1, size), time.monotonic() + timeout
    if number:
        store.set(f"process {number} is", mine)
        name = str(store.get(f"{mine} belongs to").decode())    # waits
        store.set(f"{name} has {number}", "")
        return name
    while missing := [other for other in others if not store.check([f"{mine} has {other}"])]:
        for other in missing:   # again and again: it may be what an earlier process of this number has left
            if store.check([f"process {other} is"]):
                store.set(f"{store.get(f'process {other} is').decode()} belongs to", mine)
        if time.monotonic() > until:
            raise RuntimeError(f"process {missing[0]} has not come within {timeout:g} s")
        time.sleep(0.005)
    return mine


def gathered(x: Any) -> list[Any]:
    """What each process gives, by number; anything that can be pickled.

    >>> gathered("a")
    ['a']
    """
    found = [x] * here.world
    if here.joined:
        dist.all_gather_object(found, x)
    return found


def from_first(x: Any) -> Any:
    """What process 0 gives.

    >>> from_first("a")
    'a'
    """
    if not here.joined:
        return x
    buffer = io.BytesIO()
    if here.rank == 0:
        torch.save(x, buffer)
    held = [buffer.getvalue()]
    dist.broadcast_object_list(held, src=0)
    # what is on process 0's GPU comes to this process's own
    return x if here.rank == 0 else torch.load(io.BytesIO(held[0]), weights_only=False, map_location={
        "cuda:0": f"cuda:{local_device()}"})


def once(learn: Any, action: Callable[[], Any], shared: bool = True) -> Any:
    """Do something in process 0 only, such as to write a file; its error is raised in all. Returns its result, in the
    others too if it is `shared`, else None there. Where `learn` is trained by one process, it is just called."""
    if not together(learn):
        return action()
    result = error = None
    try:
        result = action() if here.rank == 0 else None
    except Exception as e:
        error = e
    # errors of other classes may be such that they cannot be pickled
    sent = error if type(error).__module__ == "builtins" else RuntimeError(f"{type(error).__name__}: {error}")
    failed, value = from_first((sent, result if shared else None))
    if failed is not None:
        raise error or failed
    return result if here.rank == 0 else value


@torch.no_grad()
def share_first(tensors: list[torch.Tensor]) -> None:
    """Give each tensor the values that it has in process 0, in place, in one message."""
    if tensors:
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.broadcast(flat, src=0)
        for t, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            t.copy_(part.view_as(t))


def share_mean(learn: Any, tensors: list[torch.Tensor]) -> None:
    """Make each tensor the mean of those of all processes, in place."""
    for t in tensors if together(learn) else []:
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
    if not callable(train) or not isinstance(nproc, int) or nproc < 1:
        raise TypeError(f"launch(train, nproc) takes a function and a number of processes, not {train!r} and {nproc!r}")
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RuntimeError("this process has used a GPU already, so that copies of it cannot: restart the kernel, and "
                           "make data and learner in the function that is launched")
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        said = [Path(name) / f"{number}" for number in range(nproc)]
        started: Any = start_processes(  # type: ignore[no-untyped-call]
            _work, (train, args, said, port), nproc, join=False, start_method="fork").processes
        failed = None
        try:
            while failed is None and (alive := [p.sentinel for p in started if p.is_alive()]):
                wait(alive)
                failed = next((number for number, p in enumerate(started) if p.exitcode), None)
        finally:
            for p in started:
                p.terminate()   # a fit ends after the batch at hand
            until = time.monotonic() + 10
            for p in started:
                p.join(max(0.0, until - time.monotonic()))
                p.kill()
                p.join()
        number = failed or 0
        found, error = pickle.loads(said[number].read_bytes()) if said[number].exists() else (
            None, RuntimeError(f"process {number} ended: exit status {started[number].exitcode}"))
    if error is not None:
        raise error
    return found


def _work(number: int, train: Callable[..., Any], args: tuple[Any, ...], said: list[Path], port: int) -> None:
    """What runs in a launched process, which leaves its result or its error in a file."""
    gc.freeze()     # what is the launching process's own is not taken apart here
    torch.set_num_threads(1)    # as torchrun; and threads do not survive a fork
    os.environ.update(RANK=f"{number}", LOCAL_RANK=f"{number}", WORLD_SIZE=f"{len(said)}", MASTER_ADDR="localhost",
                      MASTER_PORT=f"{port}")
    try:
        result = pickle.dumps((None, None))
        found = train(*args)
        if number == 0:
            try:    # bytes: memory of a tensor that is shared would end with this process
                result = pickle.dumps((found, None))
            except Exception as e:
                raise TypeError(f"the function that is launched must return what can be pickled, not a "
                                f"{type(found).__name__} ({e})") from None
    except BaseException as e:
        # of one that has lost a connection, what has become of the other one
        about = e.__notes__[-1] if is_lost(e) and hasattr(e, "__notes__") else (
            f"process {number} ended: {type(e).__name__}: {e}")
        error = RuntimeError(about)
        error.add_note(f"in process {number}: {traceback.format_exc()}")
        said[number].write_bytes(pickle.dumps((None, error)))
        sys.exit(1)
    said[number].write_bytes(result)
