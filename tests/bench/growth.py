"""How time a batch and memory grow: with the length of a run, with the number of samples in memory."""
from __future__ import annotations

import statistics
import time
from itertools import cycle, islice
from typing import Any

from timing import Section, all_ran, in_turn, median, ratio, resident

__all__ = ["run"]

WINDOW, WINDOWS = 200, 40       # batches in a stretch that is timed, and stretches at each milestone
SAMPLES = [1_000, 10_000, 100_000, 1_000_000]


class Long:
    """A few batches over and over: `n` in a pass."""

    def __init__(self, batches: list[Any], n: int) -> None:
        self.some, self.n = batches, n

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Any:
        return islice(cycle(self.some), self.n)


def long_run(argument: tuple[int, str]) -> Any:
    """One epoch of very many batches; around each milestone, stretches of it in turn with stretches of a bare loop."""
    n, device = argument
    import contenders
    import torch
    from overhead import batches_of

    from minifast.callback import Callback
    from minifast.data import DataBunch
    from minifast.learner import Learner

    torch.set_num_threads(1)
    batches = batches_of(WINDOW, device)
    bare = contenders.bare(contenders.Job(torch.nn.Linear(10, 2), batches, device=device))
    milestones = [10**k for k in range(3, 10) if 10**k < n] + [n - WINDOW * WINDOWS]
    found: dict[int, dict[str, Any]] = {}

    class Watch(Callback):
        def on_batch_begin(self, train: bool, iteration: int) -> None:
            since = max((m for m in milestones if m <= iteration), default=None)
            if since is None or (iteration - since) % WINDOW or iteration - since > WINDOW * WINDOWS:
                return
            now = time.perf_counter()
            seen = found.setdefault(since, {"minifast": [], "bare": [], "bytes": resident()})
            if iteration > since:
                seen["minifast"].append(now - self.start)
            if iteration - since < WINDOW * WINDOWS:
                start = time.perf_counter()
                bare()
                seen["bare"].append(time.perf_counter() - start)
            self.start = time.perf_counter()

    def turn() -> dict[str, Any]:
        data = DataBunch(Long(batches, n), device=device, loss_func=torch.nn.CrossEntropyLoss())
        learn = Learner(data, torch.nn.Linear(10, 2), silent=True)
        contenders.minifast(contenders.Job(torch.nn.Linear(10, 2), batches, device=device))()    # imports, caches
        bare()
        learn.fit_one_cycle(1, 1e-2, callbacks=[Watch()])
        return {str(m): {"us": statistics.median(f["minifast"]) / WINDOW * 1e6, "bytes": f["bytes"],
                         "ratio": statistics.median(a / b for a, b in zip(f["minifast"], f["bare"], strict=False))}
                for m, f in found.items()}
    return turn


def in_memory(argument: tuple[int, str]) -> Any:
    """Passes over `n` samples in memory, in a new order each time: by minifast, or by the plain loop's usual ways."""
    n, device = argument
    import torch
    from contenders import Job, bare, minifast
    from overhead import batches_of
    from torch.utils.data import TensorDataset

    from minifast.data import DataBunch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    minifast(Job(torch.nn.Linear(10, 2), batches_of(10, device), device=device))()    # imports and buffers
    dataset = TensorDataset(torch.randn(n, 10), torch.randint(2, (n,)))
    before = resident()
    data = DataBunch.create(dataset, bs=64, device=device, loss_func=torch.nn.CrossEntropyLoss())
    epochs = max(1, 200_000 // n)
    n_batches = len(data.train_dl) * epochs

    def turn() -> dict[str, float]:
        def timed(train: Any) -> float:
            start = time.perf_counter()
            train()
            return (time.perf_counter() - start) / n_batches * 1e6
        us = timed(minifast(Job(torch.nn.Linear(10, 2), data, epochs=epochs, device=device)))
        held = resident()
        ready = timed(bare(Job(torch.nn.Linear(10, 2), list(data.train_dl), epochs=epochs, device=device)))
        return {"us": us, "bare": ready, "MiB": (held - before) / 2**20}
    return turn


def run(device: str, batches: int = 300_000, rounds: int = 2) -> list[Section]:
    """Both, as tables."""
    only = all_ran(in_turn({"run": ("growth.long_run", (batches, device))}, 1, warm_up=0))["run"]
    marks = {int(m): v for m, v in only[0].items()}
    first, first_bytes = min(marks), marks[min(marks)]["bytes"]
    rows = [[f"{m:,}", f"{v['ratio'] / marks[first]['ratio']:.3f}", f"{v['ratio']:.2f}", f"{v['us']:.0f}",
             f"{(v['bytes'] - first_bytes) / (m - first):.0f}" if m > first else ""] for m, v in sorted(marks.items())]
    long = Section("Growth with the length of a run",
                   ["after batch", "÷ at the first", "÷ bare", "µs a batch", "bytes a batch"], rows,
                   [f"One epoch of {batches:,} batches of the tiny model, bar off; at each milestone {WINDOWS} "
                    f"stretches of {WINDOW} batches in turn with the bare loop, medians. The first column compares "
                    "the second, in which what slows the machine cancels; the last: memory taken since batch 1,000."])
    found = all_ran(in_turn({f"{n:,}": ("growth.in_memory", (n, device)) for n in SAMPLES}, rounds, warm_up=0))
    rows = [[n, f"{ratio(r, found[f'{SAMPLES[0]:,}'], 'us'):.2f}",
             f"{statistics.median(x['us'] / x['bare'] for x in r):.2f}", f"{median(r, 'us'):.0f}",
             f"{r[0]['MiB']:.1f}"] for n, r in found.items()]
    samples = Section("Growth with the samples in memory",
                      ["samples", "÷ 1,000 samples", "÷ bare, batches ready", "µs a batch", "MiB more"], rows,
                      ["Ten floats and a class each, batches of 64, a new order each pass; the bare loop is given the "
                       "batches ready made. The last column is memory held beyond the samples (48 bytes each)."])
    return [long, samples]
