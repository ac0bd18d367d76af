"""Contenders in turn, each in a process of its own; medians and ratios; the machine in words; tables in Markdown."""
from __future__ import annotations

import gc
import importlib
import importlib.metadata
import multiprocessing
import os
import platform
import pty
import resource
import statistics
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Section", "Watched", "in_turn", "ran", "all_ran", "names", "median", "medians", "ratio", "table",
           "peak_memory", "resident", "machine", "version"]

COLUMNS = "100"     # of the terminal that every contender draws its bar on
Rounds = list[dict[str, Any]]


class Watched:
    """`length` batches a pass, a few over and over; `seen(n)` is called before the n-th of all passes, from 0."""

    def __init__(self, batches: Sequence[Any], length: int, seen: Callable[[int], None]) -> None:
        self.some, self.length, self.seen, self.n = batches, length, seen, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Any:
        self.seen(self.n)
        self.n += 1
        return self.some[i % len(self.some)]

    def __iter__(self) -> Any:
        return map(self.__getitem__, range(len(self)))


@dataclass
class Section:
    """One part's outcome: a table, remarks under it, and the bars of its plot (name: value)."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    bars: dict[str, float] = field(default_factory=dict)
    axis: str = ""

    def markdown(self) -> str:
        """The section as Markdown."""
        lines = [self.columns, ["---"] + ["---:"] * (len(self.columns) - 1), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([f"### {self.title}", table, *self.notes]) + "\n"


def names() -> list[str]:
    """All contenders. They are listed here, too, so that to name them imports nothing."""
    return ["bare loop", "hand-written loop", "hand-written, fused", "minifast", "fastai 2", "Lightning", "ignite",
            "skorch", "pytorch-accelerated", "Keras"]


def in_turn(contenders: dict[str, tuple[str, Any]], rounds: int, warm_up: int = 1) -> dict[str, Rounds | str]:
    """Let the contenders take turns for `rounds` rounds; what each measured in each, or why it could not take part.

    A contender is ("module.function", argument). In its own process, on a terminal of its own, the function is called
    with the argument and returns another, which is called once a round and returns a dict of figures. The order turns
    by one each round, so that nobody always follows the same one.
    """
    workers = {name: Worker(*what) for name, what in contenders.items()}
    measured: dict[str, Rounds | str] = {name: [] for name in contenders}
    order = list(contenders)
    try:
        for i in range(-warm_up, rounds):
            shift = i % len(order)
            for name in order[shift:] + order[:shift]:
                if isinstance(seen := measured[name], str):
                    continue
                answer = workers[name].turn()
                if isinstance(answer, str):
                    measured[name] = answer
                    print(f"  {name} is left out: {answer}", file=sys.stderr)
                elif i >= 0:
                    seen.append(answer)
    finally:
        for worker in workers.values():
            worker.close()
    return measured


class Worker:
    """A contender's process; what it writes to its terminal is read here and dropped."""

    def __init__(self, function: str, argument: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        master, slave = pty.openpty()
        self.process = context.Process(target=_work, args=(theirs, os.ttyname(slave), function, argument), daemon=False)
        self.process.start()
        theirs.close()
        threading.Thread(target=_drain, args=(master, slave), daemon=True).start()

    def turn(self) -> dict[str, Any] | str:
        """One round: its figures, or what went wrong."""
        try:
            self.pipe.send("go")
            answer: dict[str, Any] | str = self.pipe.recv()
            return answer
        except (EOFError, BrokenPipeError):
            return f"its process ended with status {self.process.exitcode}"

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join(timeout=10)
        self.process.kill()     # a contender may wait for threads of its own


def _drain(master: int, slave: int) -> None:
    while os.read(master, 65536):   # the slave end is held open here, so that a read waits and does not fail
        pass


def _work(pipe: Any, terminal: str, function: str, argument: Any) -> None:
    os.environ["COLUMNS"] = COLUMNS
    multiprocessing.set_start_method(None, force=True)  # this process was spawned; a DataLoader's workers need not be
    tty = os.open(terminal, os.O_RDWR)
    os.dup2(tty, 1), os.dup2(tty, 2)
    run: Callable[[], dict[str, Any]] | None = None
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        try:
            if run is None:
                module, name = function.rsplit(".", 1)
                run = getattr(importlib.import_module(module), name)(argument)
            pipe.send(run())
        except BaseException as e:
            traceback.print_exc()
            pipe.send(f"{type(e).__name__}: {e}")


def peak_memory() -> float:
    """The most memory that this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():     # ru_maxrss also counts what the parent held when it started this process
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def resident() -> int:
    """Bytes of memory held by this process now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ran(measured: dict[str, Rounds | str]) -> dict[str, Rounds]:
    """Those that took part."""
    return {name: r for name, r in measured.items() if not isinstance(r, str)}


def all_ran(measured: dict[str, Rounds | str]) -> dict[str, Rounds]:
    """The same where nobody may be left out; RuntimeError says why somebody was."""
    if failed := [f"{name}: {r}" for name, r in measured.items() if isinstance(r, str)]:
        raise RuntimeError("; ".join(failed))
    return ran(measured)


def median(rounds: Rounds, key: str) -> float:
    """The median of one figure."""
    return statistics.median(r[key] for r in rounds)


def medians(measured: dict[str, Rounds | str], key: str) -> dict[str, float]:
    """The same of each that took part, for the bars of a section."""
    return {name: median(rounds, key) for name, rounds in ran(measured).items()}


def ratio(rounds: Rounds, other: Rounds, key: str) -> float:
    """The median of the ratios within each round: what slows a whole round down cancels."""
    return statistics.median(a[key] / b[key] for a, b in zip(rounds, other, strict=True))


def table(measured: dict[str, Rounds | str], key: str, base: Sequence[str], unit: str, **more: str) -> list[list[str]]:
    """A row for each contender, the least first: its ratio to each of `base`, the median, and those of `more`.

    `unit` and the values of `more` (by key) are formats. Those left out stand at the end.
    """
    took_part = ran(measured)
    rows = [[name, *(f"{ratio(r, took_part[b], key):.2f}" if b in took_part else "" for b in base),
             *(form.format(median(r, k)) for k, form in {key: unit, **more}.items())]
            for name, r in sorted(took_part.items(), key=lambda item: median(item[1], key))]
    empty = [""] * (len(base) + len(more))
    return rows + [[name, "left out", *empty] for name in measured if name not in took_part]


def version(package: str) -> str:
    """A package's version, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def machine(device: str) -> str:
    """Processor, cores, operating system and Python in a line, and the GPU if it is the device."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((s.split(":")[1].strip() for s in info.read_text().splitlines() if s.startswith("model name")), cpu)
    words = f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    if device.startswith("cuda"):
        import torch
        words += f", {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return words
