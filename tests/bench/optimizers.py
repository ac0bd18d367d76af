"""Microseconds a batch of a tiny model with torch's own optimizers, given to minifast as a user gives them."""
from __future__ import annotations

import copy
import time
from functools import partial
from typing import Any

from overhead import BATCHES, batches_of
from timing import Section, all_ran, in_turn, median, ratio

__all__ = ["run"]

KINDS = ["SGD with momentum", "AdamW"]
LOOPS = ["bare loop", "hand-written loop", "minifast"]


def one(argument: tuple[str, str, str]) -> Any:
    """One of LOOPS with one of KINDS."""
    loop, kind, device = argument
    import torch
    from contenders import Job, bare, finished, hand_written

    from minifast.data import DataBunch
    from minifast.learner import Learner

    opt_func = {"SGD with momentum": partial(torch.optim.SGD, momentum=0.9), "AdamW": torch.optim.AdamW}[kind]

    class OfKind(Job):
        def optimizer(self, model: Any) -> Any:
            return opt_func(model.parameters(), lr=self.lr, weight_decay=1e-2)

    def by_minifast(job: Job) -> Any:
        data = DataBunch(job.train, [], device=device, loss_func=torch.nn.CrossEntropyLoss())
        # weight decay as torch's own class does it, so that all three compute the same
        learn = Learner(data, job.model, opt_func=opt_func, wd=1e-2, true_wd=kind == "AdamW")
        return lambda: learn.fit_one_cycle(job.epochs, job.lr)

    torch.set_num_threads(1)
    batches, model = batches_of(BATCHES, device), torch.nn.Linear(10, 2)
    make = {"bare loop": bare, "hand-written loop": hand_written, "minifast": by_minifast}[loop]

    def turn() -> dict[str, float]:
        train = make(OfKind(copy.deepcopy(model), batches, device=device))
        start = time.perf_counter()
        train()
        finished(device)
        return {"us": (time.perf_counter() - start) / BATCHES * 1e6}
    return turn


def run(device: str, rounds: int = 5) -> list[Section]:
    """Each loop with each optimizer, and minifast's ratios to the other two."""
    runs = {f"{kind}, {loop}": ("optimizers.one", (loop, kind, device)) for kind in KINDS for loop in LOOPS}
    found = all_ran(in_turn(runs, rounds))
    rows = [[name, "" if name.endswith("minifast") else
             f"{ratio(found[name.split(',')[0] + ', minifast'], r, 'us'):.2f}", f"{median(r, 'us'):.0f}"]
            for name, r in found.items()]
    return [Section("Optimizers of torch", ["", "minifast ÷ this", "µs a batch"], rows, [
        f"Linear(10, 2), batches of 4, {BATCHES:,} batches, one thread; medians of {rounds} rounds in turn. The same "
        "class of torch in all three, with momentum and weight decay; the hand-written loop and minifast schedule lr "
        "and momentum, record both, loss and smoothed loss, and show a bar."])]
