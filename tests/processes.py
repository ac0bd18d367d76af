"""Functions run in several processes that have joined, each on one thread: forked, which costs a tenth of a second."""
from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
import traceback
import warnings

import torch

LIMIT = 120     # seconds


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def _child(function, args, rank, nproc, port, queue):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(nproc), MASTER_ADDR="localhost",
                      MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        result = function(*args)
    except BaseException as e:
        queue.put((rank, None, "".join(traceback.format_exception(e))))
        queue.close()
        queue.join_thread()
        os._exit(1)
    queue.put((rank, pickle.dumps(result), None))     # bytes: a tensor's memory ends with its process


def start(function, nproc, *args):
    """The processes, started, and the queue of (rank, result, traceback)."""
    context = multiprocessing.get_context("fork")
    queue, port = context.Queue(), free_port()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # newer Pythons warn of a fork where there are threads
        started = [context.Process(target=_child, args=(function, args, rank, nproc, port, queue), daemon=True)
                   for rank in range(nproc)]
        for process in started:
            process.start()
    return started, queue


def run(function, nproc, *args):
    """What `function(*args)` returns in each of `nproc` processes; AssertionError with the traceback if one fails."""
    started, queue = start(function, nproc, *args)
    try:
        found = sorted([queue.get(timeout=LIMIT) for _ in started], key=lambda item: item[0])
    finally:
        until = time.monotonic() + 10
        for process in started:
            process.join(max(0, until - time.monotonic()))
            process.kill()
    assert not any(error for *_, error in found), "\n".join(error for *_, error in found if error)
    return [pickle.loads(result) for _, result, _ in found]
