"""Microseconds a batch of a tiny model: what a trainer adds to torch's own work."""
from __future__ import annotations

import copy
import time
from typing import Any

from timing import Rounds, Section, in_turn, median, names, table

__all__ = ["run"]

BATCHES = 3000
EXTRAS = {"minifast": {}, "5 callbacks more": {"callbacks": 5}, "100 callbacks more": {"callbacks": 100},
          "a metric and validation on a tenth": {"valid": BATCHES // 10}}


def batches_of(n: int, device: str) -> list[Any]:
    """`n` random batches of 4 samples with 10 inputs, 2 classes."""
    import torch
    torch.manual_seed(0)
    return [(torch.randn(4, 10).to(device), torch.randint(2, (4,)).to(device)) for _ in range(n)]


def tiny(argument: tuple[str, str]) -> Any:
    """A contender's training of Linear(10, 2)."""
    name, device = argument
    import torch
    from contenders import CONTENDERS, Job, finished

    torch.set_num_threads(1)
    batches, model = batches_of(BATCHES, device), torch.nn.Linear(10, 2)

    def turn() -> dict[str, float]:
        train = CONTENDERS[name](Job(copy.deepcopy(model), batches, device=device))
        start = time.perf_counter()
        train()
        finished(device)
        return {"us": (time.perf_counter() - start) / BATCHES * 1e6}
    return turn


def extra(argument: tuple[dict[str, int], str]) -> Any:
    """minifast with more to do: callbacks that listen to two events of each batch, or validation with a metric."""
    more, device = argument
    import torch
    from contenders import finished

    from minifast.callback import Callback
    from minifast.data import DataBunch
    from minifast.learner import Learner
    from minifast.metrics import accuracy

    class Listener(Callback):
        def on_batch_begin(self, train: bool) -> None:
            pass

        def on_batch_end(self, last_loss: Any) -> None:
            pass

    torch.set_num_threads(1)
    batches, model = batches_of(BATCHES, device), torch.nn.Linear(10, 2)
    data = DataBunch(batches, batches[:more.get("valid", 0)], device=device, loss_func=torch.nn.CrossEntropyLoss())

    def turn() -> dict[str, float]:
        learn = Learner(data, copy.deepcopy(model), metrics=[accuracy] if more.get("valid") else [])
        listeners = [Listener() for _ in range(more.get("callbacks", 0))]
        start = time.perf_counter()
        learn.fit_one_cycle(1, 1e-2, callbacks=listeners)
        finished(device)
        return {"us": (time.perf_counter() - start) / BATCHES * 1e6}
    return turn


def run(device: str, rounds: int = 7) -> list[Section]:
    """Every contender's microseconds a batch with ratios to the plain loops, and minifast's with more to do."""
    measured = in_turn({name: ("overhead.tiny", (name, device)) for name in names()}, rounds)
    ran: dict[str, Rounds] = {n: r for n, r in measured.items() if not isinstance(r, str)}
    base = ["hand-written loop", "hand-written, fused", "bare loop"]
    note = (f"Linear(10, 2), batches of 4, {BATCHES:,} batches, one thread; medians of {rounds} rounds in turn. Each "
            "schedules lr and momentum, records both, loss and smoothed loss, shows a bar; the bare loop only trains.")
    first = Section("Overhead of a batch", ["", "µs a batch", "÷ hand-written", "÷ the same, fused", "÷ bare"],
                    table(measured, "us", base, "{:.0f}"), [note], {n: median(r, "us") for n, r in ran.items()},
                    "µs a batch, tiny model")
    measured = in_turn({what: ("overhead.extra", (more, device)) for what, more in EXTRAS.items()}, rounds)
    second = Section("Overhead of a batch, minifast with more to do", ["", "µs a batch", "÷ minifast"],
                     table(measured, "us", ["minifast"], "{:.0f}"),
                     ["Each callback more listens to two events of each batch and does nothing."])
    return [first, second]
