"""Long runs: thousands of epochs of a tiny job, with its table in a terminal or a notebook and as a CSV file."""
from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import Section, Watched, all_ran, in_turn, median, resident

__all__ = ["run"]

BATCHES = 4     # of an epoch; one more validates
EPOCHS = {"hand-written loop": 5000, "minifast": 5000, "fastai 2": 1000}    # five times as many take fastai minutes
FACES = {"terminal": ["hand-written loop", "minifast", "fastai 2"], "notebook": ["minifast", "fastai 2"]}


def in_terminal(argument: tuple[str, str]) -> Any:
    """A contender's run: seconds of an epoch at its start and at its end, and bytes of memory an epoch.

    Before each epoch there a bare loop trains on the same batches: the growth is that of an epoch divided by its bare
    neighbour, in which what slows the machine cancels.
    """
    name, device = argument
    import torch
    from contenders import CONTENDERS, Job
    from overhead import batches_of
    torch.set_num_threads(1)
    epochs = EPOCHS[name]
    tenth = epochs // 10
    bare = CONTENDERS["bare loop"](Job(torch.nn.Linear(10, 2), batches_of(BATCHES, device), device=device))

    def turn() -> dict[str, float]:
        ends: list[float] = []      # of the epoch before
        begins: list[float] = []
        looks: dict[int, int] = {}

        def look(n: int) -> None:
            epoch, batch = divmod(n, BATCHES)
            if batch == 0:
                ends.append(time.perf_counter())
                if not tenth <= epoch < epochs - tenth:
                    bare()
                begins.append(time.perf_counter())
                if epoch in (2 * tenth, epochs - 1):
                    looks[epoch] = resident()
        with tempfile.TemporaryDirectory() as folder:
            train = Watched(batches_of(BATCHES, device), BATCHES, look)
            job = Job(torch.nn.Linear(10, 2), train, batches_of(1, device), epochs, 1e-3, device, folder=Path(folder))
            CONTENDERS[name](job)()
            rows = sum(len(file.read_text().splitlines()) - 1 for file in Path(folder).glob("*.csv"))
        if (rows, len(begins)) != (epochs, epochs):
            raise RuntimeError(f"{len(begins)} epochs and {rows} rows, not {epochs}")
        taken = [b - a for a, b in zip(begins, ends[1:], strict=False)]
        first, last = slice(tenth // 10, tenth), slice(epochs - tenth, epochs - 1)

        def over_bare(part: slice) -> float:
            return statistics.median(t / (b - a) for t, a, b in zip(taken[part], ends[part], begins[part], strict=True))
        return {"first": statistics.median(taken[first]), "last": statistics.median(taken[last]),
                "growth": over_bare(last) / over_bare(first),
                "bytes": (looks[epochs - 1] - looks[2 * tenth]) / (epochs - 1 - 2 * tenth)}
    return turn


def in_notebook(argument: tuple[str, str]) -> Any:
    """The same in a notebook's kernel."""
    import nbformat
    from nbclient import NotebookClient

    def turn() -> dict[str, float]:
        cells = [f"import json, long_runs\nfound = long_runs.in_terminal({argument!r})()", "print(json.dumps(found))"]
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(book, timeout=None, resources={"metadata": {"path": str(Path(__file__).parent)}}).execute()
        found: dict[str, float] = json.loads(book.cells[1].outputs[0]["text"])
        return found
    return turn


def run(device: str, rounds: int = 1) -> list[Section]:
    """A row for each contender and face."""
    found = all_ran(in_turn({f"{name}, {face}": (f"long_runs.in_{face}", (name, device))
                             for face, who in FACES.items() for name in who}, rounds, warm_up=0))
    base = found["hand-written loop, terminal"]
    rows = []
    for what, r in found.items():
        growth, first, last, grown = (median(r, key) for key in ("growth", "first", "last", "bytes"))
        rows.append([f"{what}, {EPOCHS[what.split(', ')[0]]:,} epochs", f"{growth:.2f}",
                     f"{last / median(base, 'last'):.2f}", f"{1000 * first:.2f}", f"{1000 * last:.2f}",
                     f"{grown:,.0f}"])
    columns = ["", "end ÷ start", "end ÷ hand-written", "ms an epoch, start", "ms, end", "bytes an epoch"]
    return [Section("Long runs", columns, rows, [
        f"{BATCHES} batches of the tiny model and one that validates, with the table, a bar and a CSV file; fastai 2 "
        "runs fewer epochs, because of the time. The start: the first tenth of the epochs without its own first tenth; "
        "the end: the last tenth; medians. The first column compares an epoch's time divided by that of a bare loop "
        "which trains just before it, so that what slows the machine cancels. The last column: memory taken since a "
        "fifth of the run, by epoch. The notebook is a real kernel."])]
