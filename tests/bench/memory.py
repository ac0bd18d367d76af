"""Memory: the most that the main job holds, workers included, and what a batch of a long run adds."""
from __future__ import annotations

import ctypes
import gc
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from main_job import FROM_PICTURES, job, sample
from timing import Section, Watched, in_turn, medians, table

__all__ = ["run"]

BATCHES, EARLY, EVERY = 3_000, 1_000, 0.02     # of the long run, of it before the first look; seconds between looks


def held(process: Any) -> float:
    """MiB that a process and its workers hold, this one left out.

    What they share is counted once; libraries as the first process holds them, even if other programs hold them too.
    """
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            if one.pid != os.getpid():
                total += _kilobytes(one.pid, "smaps_rollup", "Pss_Anon:", "Pss_Shmem:")
                total += _kilobytes(one.pid, "status", "RssFile:") if one is process else 0
        except OSError:     # it has ended
            pass
    return total / 1024


def _kilobytes(pid: int, file: str, *lines: str) -> int:
    return sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/{file}").read_text().splitlines()
               if line.startswith(lines))


def watch(pid: int) -> None:
    """Print the most of `held` until the standard input ends: a process of its own, so the job has no thread more."""
    import psutil
    process, most = psutil.Process(pid), 0.0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        most = max(most, held(process))
    print(most)


def peak(argument: tuple[str, str, str]) -> Any:
    """A contender's main job from pictures."""
    import torch
    torch.set_num_threads(1)

    def turn() -> dict[str, float]:
        with subprocess.Popen([sys.executable, __file__, str(os.getpid())], stdin=-1, stdout=-1, text=True) as watching:
            watching.stdout.readline()      # type: ignore[union-attr]
            job(*argument)()
            return {"MiB": float(watching.communicate()[0])}
    return turn


class Info(ctypes.Structure):
    """What glibc knows of its heap; `hblkhd` and `uordblks` are the bytes in use."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks",
                                                     "fsmblks", "uordblks", "fordblks", "keepcost")]


def growth(argument: tuple[str, str]) -> Any:
    """Bytes that a batch of the tiny model adds, to the byte: where Python, too, takes its memory from glibc."""
    name, device = argument
    import torch
    from contenders import CONTENDERS, Job
    from overhead import batches_of
    torch.set_num_threads(1)
    info = ctypes.CDLL(None).mallinfo2
    info.restype = Info

    def turn() -> dict[str, float]:
        looks: list[int] = []

        def look(n: int) -> None:
            if n in (EARLY, BATCHES - 1):
                gc.collect()
                looks.append((found := info()).hblkhd + found.uordblks)
        CONTENDERS[name](Job(torch.nn.Linear(10, 2), Watched(batches_of(100, device), BATCHES, look), device=device))()
        return {"bytes": (looks[1] - looks[0]) / (BATCHES - 1 - EARLY)}
    return turn


def run(device: str, rounds: int = 1) -> list[Section]:
    """A row for each contender that reads pictures."""
    path = sample()
    measured = in_turn({name: ("memory.peak", (name, path, device)) for name in FROM_PICTURES}, rounds, warm_up=0)
    os.environ["PYTHONMALLOC"] = "malloc"
    try:
        grown = medians(in_turn({name: ("memory.growth", (name, device)) for name in FROM_PICTURES}, 1, 0), "bytes")
    finally:
        del os.environ["PYTHONMALLOC"]
    rows = [[*row, f"{grown[row[0]]:.0f}" if row[0] in grown else "left out"]
            for row in table(measured, "MiB", ["minifast", "hand-written loop"], "{:.0f}")]
    return [Section("Memory", ["", "÷ minifast", "÷ hand-written", "peak MiB", "bytes more a batch"], rows, [
        "The most that the main job from PNG files holds, process and workers together, imports included (shared pages "
        f"counted once, looked at every {EVERY * 1000:.0f} ms); a new process each. The last column: what a batch of "
        f"the tiny model adds to what is allocated, from the {EARLY:,}th to the {BATCHES:,}th of an epoch. All record "
        "lr, momentum, loss and smoothed loss of each batch."], medians(measured, "MiB"), "MiB, main job")]


if __name__ == "__main__":
    watch(int(sys.argv[1]))
