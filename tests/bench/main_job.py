"""The main job, two epochs of one cycle on the MNIST sample with validation: warm, cold, and the imports."""
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from timing import COLUMNS, Section, all_ran, in_turn, median, medians, names, peak_memory, ran, ratio, table

__all__ = ["warm", "cold", "imports"]

EPOCHS, LR = 2, 5e-2
HERE = Path(__file__).parent
IMPORTS = {"bare loop": "import torch", "hand-written loop": "import torch, torchvision; from tqdm import tqdm",
           "minifast": "import minifast.vision", "fastai 2": "from fastai.vision.all import *",
           "Lightning": "import lightning", "ignite": "import ignite.engine, ignite.handlers, ignite.metrics",
           "skorch": "import skorch", "pytorch-accelerated": "import pytorch_accelerated",
           "Keras": "import os; os.environ['KERAS_BACKEND'] = 'torch'; import keras"}


def job(name: str, path: str, device: str, batches: Any = None) -> Any:
    """A contender's training, ready to start: from pictures, or from batches in memory."""
    from contenders import CONTENDERS, Job, from_pictures, small_cnn
    data = from_pictures(name, path, device) if batches is None else {"train": batches[0], "valid": batches[1]}
    return CONTENDERS[name](Job(small_cnn(), **data, epochs=EPOCHS, lr=LR, device=device))


def warm_job(argument: tuple[str, str, str, bool]) -> Any:
    """The whole job in this process, imports done before: from pictures, or on the same float batches for all."""
    name, path, device, in_memory = argument
    batches = None
    if in_memory:
        import torch

        from minifast.vision import ImageDataBunch
        torch.manual_seed(0)
        data = ImageDataBunch.from_folder(path, device=device)
        batches = [[(x.clone(), y.clone()) for x, y in dl] for dl in (data.train_dl, data.valid_dl)]
        del data

    def turn() -> dict[str, float]:
        start = time.perf_counter()
        loss, accuracy = job(name, path, device, batches)()
        return {"s": time.perf_counter() - start, "loss": loss, "accuracy": accuracy, "MiB": peak_memory()}
    return turn


def sample() -> str:
    """The folder of the MNIST sample."""
    code = "from minifast.datasets import URLs, untar_data; print(untar_data(URLs.MNIST_SAMPLE))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


# the other plain loops load pictures as the hand-written one does; and cold, the rest adds its imports to that
FROM_PICTURES = [name for name in names() if name not in ("bare loop", "hand-written, fused")]
COLD = ["hand-written loop", "minifast", "fastai 2", "Lightning", "Keras"]


def warm(device: str, rounds: int = 2) -> list[Section]:
    """Seconds from the folder of pictures to the last validation, and from ready batches."""
    path, sections = sample(), []
    for in_memory, what in ((False, "from PNG files"), (True, "same batches in memory")):
        measured = in_turn({name: ("main_job.warm_job", (name, path, device, in_memory))
                            for name in (names() if in_memory else FROM_PICTURES)}, rounds)
        rows = table(measured, "s", ["minifast", "hand-written loop"], "{:.2f}", accuracy="{:.4f}", MiB="{:.0f}")
        notes = ["Two epochs at batch size 64 with validation, after one round to warm up."]
        if not in_memory:
            notes += ["minifast, fastai 2: their own data pipelines; all others: torchvision's ImageFolder in a torch "
                      "DataLoader with 2 workers (whose memory is not in the last column)."]
        columns = ["", "÷ minifast", "÷ hand-written", "s", "accuracy", "peak MiB"]
        sections.append(Section(f"Main job, warm, {what}", columns, rows, notes,
                                medians(measured, "s"), f"s, {what}"))
    return sections


def one_process(argument: tuple[str, str]) -> Any:
    """A new Python that runs a line: its wall time and the most memory it held."""
    code, label = argument
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "COLUMNS": COLUMNS}

    def turn() -> dict[str, Any]:
        start = time.perf_counter()
        with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) as process:
            err = process.stderr.read()     # type: ignore[union-attr]
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{label}: {err.decode()[-400:]}")
        return {"s": time.perf_counter() - start, "cpu": usage.ru_utime + usage.ru_stime, "MiB": usage.ru_maxrss / 1024}
    return turn


def cold(device: str, rounds: int = 1) -> list[Section]:
    """Seconds of a whole new process: imports, pictures, two epochs, the printed table."""
    path = sample()
    code = "{3}; import main_job; print(main_job.job({0!r}, {1!r}, {2!r})())"     # as a user's program begins
    processes = {n: ("main_job.one_process", (code.format(n, path, device, IMPORTS[n]), n)) for n in COLD}
    measured = in_turn(processes, rounds, warm_up=0)
    pair = all_ran(in_turn({n: processes[n] for n in ("minifast", "fastai 2")}, 3 * rounds, warm_up=0))
    return [_processes("Main job, cold", measured, "s, new process", [
        f"A new process each, from `python` to the printed table; medians of {rounds} round(s) in turn.",
        f"minifast alone in turn with fastai 2, {3 * rounds} rounds: "
        f"1/{ratio(pair['fastai 2'], pair['minifast'], 's'):.2f} of its time "
        f"({median(pair['minifast'], 's'):.2f} s and {median(pair['fastai 2'], 's'):.2f} s)."])]


def imports(device: str, rounds: int = 1) -> list[Section]:
    """Seconds and memory of `import`, a new process each; and minifast's beside torch's once more, in many rounds."""
    measured = in_turn({n: ("main_job.one_process", (code, n)) for n, code in IMPORTS.items()}, rounds)
    section = _processes("Imports", measured, "s to import", [
        f"A new process each, Python's own start included; medians of {rounds} round(s) in turn."], "bare loop")
    pair = all_ran(in_turn({n: ("main_job.one_process", (IMPORTS[n], n)) for n in ("bare loop", "minifast")},
                           6 * rounds))
    section.notes.append(f"`import minifast.vision` alone in turn with `import torch`, {6 * rounds} rounds: "
                         f"{ratio(pair['minifast'], pair['bare loop'], 's'):.2f} of its time.")
    for row in section.rows:
        row[0] = f"`{IMPORTS[row[0]].removeprefix(IMPORTS['Keras'].removesuffix('import keras'))}`"
    return [section]


def _processes(title: str, measured: Any, axis: str, notes: list[str], base: str = "minifast") -> Section:
    took_part = ran(measured)
    rows = table(measured, "s", [base], "{:.2f}", MiB="{:.0f}")
    for row in rows:
        r = took_part.get(row[0])
        row[2:2] = [f"{ratio(r, took_part[base], key):.2f}" if r else "" for key in ("cpu", "MiB")]
    over = "minifast" if base == "minifast" else "torch"
    return Section(title, ["", f"÷ {over}", "CPU s ÷", "memory ÷", "s", "peak MiB"], rows, notes,
                   medians(measured, "s"), axis)


