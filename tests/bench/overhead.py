"""Microseconds a batch of a tiny model: what a trainer adds to torch's own work."""
from __future__ import annotations

import copy
import statistics
import tempfile
import time
from typing import Any

from timing import Section, all_ran, in_turn, median, medians, names, table

__all__ = ["run"]

BATCHES = 3000
BARE = {"bare loop": None, "bare loop, torch's fused optimizer": True, "bare loop, minifast's optimizer": "minifast"}
EXTRAS = ["minifast", "with the five of a long run", "with a metric and validation on a tenth",
          "with 5 callbacks that listen", "with 100 callbacks that listen"]


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


def bare_loop(argument: tuple[str, str]) -> Any:
    """The bare loop with one of three optimizers that compute the same."""
    kind, device = argument
    import torch
    from contenders import Job, bare, finished

    from minifast.fused import FusedAdam

    class Ours(Job):
        def optimizer(self, model: Any) -> Any:
            opt = FusedAdam(list(model.parameters()), self.lr, (0.95, 0.99))
            opt.param_groups[0].update(weight_decay=1e-2, decoupled_weight_decay=True)
            return opt

    torch.set_num_threads(1)
    batches, model = batches_of(BATCHES, device), torch.nn.Linear(10, 2)

    def turn() -> dict[str, float]:
        job = Job(copy.deepcopy(model), batches, device=device, fused=BARE[kind])
        train = bare(Ours(job.model, batches, device=device) if BARE[kind] == "minifast" else job)
        start = time.perf_counter()
        train()
        finished(device)
        return {"us": (time.perf_counter() - start) / BATCHES * 1e6}
    return turn


def minifast_run(what: str, device: str) -> Any:
    """A learner on the tiny model and the callbacks of one of EXTRAS, as a function that trains an epoch."""
    import torch
    from contenders import finished

    from minifast.callback import Callback
    from minifast.callbacks import CSVLogger, EarlyStoppingCallback, SaveModelCallback
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
    validates = "metric" in what
    valid = batches[:BATCHES // 10] if validates else batches[:1] if "five of" in what else []
    data = DataBunch(batches, valid, device=device, path=tempfile.mkdtemp(), loss_func=torch.nn.CrossEntropyLoss())
    numbers = [int(word) for word in what.split() if word.isdigit()]

    def train() -> float:
        learn = Learner(data, copy.deepcopy(model), metrics=[accuracy] if validates else [])
        callbacks = [Listener() if "listen" in what else Callback() for _ in range(sum(numbers))]
        if "five of" in what:   # the recorder and one cycle are there anyway
            callbacks = [EarlyStoppingCallback(learn), SaveModelCallback(learn), CSVLogger(learn)]
        start = time.perf_counter()
        learn.fit_one_cycle(1, 1e-2, callbacks=callbacks)
        finished(device)
        return (time.perf_counter() - start) / BATCHES * 1e6
    return train


def extra(argument: tuple[str, str]) -> Any:
    """minifast with more to do."""
    train = minifast_run(*argument)
    return lambda: {"us": train()}


def idle(device: str) -> Any:
    """minifast with 100 callbacks that override nothing and without them, in turn in one process."""
    without, with_them = minifast_run("minifast", device), minifast_run("with 100 idle", device)
    turns = 0

    def turn() -> dict[str, float]:
        nonlocal turns
        turns += 1
        seen = {}
        for train in (without, with_them) if turns % 2 else (with_them, without):
            seen[train] = train()
        return {"us": seen[without], "with": seen[with_them]}
    return turn


def schedule(device: str) -> Any:
    """The 1cycle schedule alone, lr and momentum, computed and written: CPU time with one and three layer groups."""
    from minifast.callbacks import OneCycleScheduler
    from minifast.fakes import fake_learner

    learners = {"one": fake_learner(), "three": fake_learner(layer_group_count=3)}
    lrs = {"one": 1e-2, "three": slice(1e-4, 1e-2)}

    def turn() -> dict[str, float]:
        seen = {}
        for groups, learn in learners.items():
            scheduler = OneCycleScheduler(learn, lrs[groups])
            scheduler.on_train_begin(n_updates=BATCHES, n_epochs=1, epoch=0)
            start = time.process_time()
            for update in range(BATCHES):
                scheduler.on_batch_begin(True, update)
            seen[groups] = (time.process_time() - start) / BATCHES * 1e6
            scheduler.on_train_end()
        return seen
    return turn


def run(device: str, rounds: int = 3) -> list[Section]:
    """Every contender's microseconds a batch with ratios to the plain loops, and minifast's with more to do."""
    measured = in_turn({name: ("overhead.tiny", (name, device)) for name in names()}, rounds)
    base = ["hand-written loop", "hand-written, fused", "bare loop"]
    note = (f"Linear(10, 2), batches of 4, {BATCHES:,} batches, one thread; medians of {rounds} rounds in turn. Each "
            "schedules lr and momentum, records both, loss and smoothed loss, shows a bar; the bare loop only trains.")
    first = Section("Overhead of a batch", ["", "÷ hand-written", "÷ the same, fused", "÷ bare", "µs a batch"],
                    table(measured, "us", base, "{:.0f}"), [note],
                    medians(measured, "us"), "µs a batch, tiny model")
    return [first, more(device, 2 * rounds - 1)]


def more(device: str, rounds: int) -> Section:
    """What callbacks cost: microseconds a batch over three bare loops that compute the same."""
    runs = {**{kind: ("overhead.bare_loop", (kind, device)) for kind in BARE},
            **{what: ("overhead.extra", (what, device)) for what in EXTRAS}, "idle": ("overhead.idle", device),
            "schedule": ("overhead.schedule", device)}
    found = all_ran(in_turn(runs, rounds))

    def over(r: Any, other: Any) -> str:
        return f"{statistics.median(a['us'] - b['us'] for a, b in zip(r, other, strict=True)):+.0f}"
    rows = [[name, *(over(r, found[b]) if name != b else "" for b in BARE), f"{median(r, 'us'):.0f}"]
            for name, r in found.items() if name not in ("idle", "schedule")]
    one, three = (median(found["schedule"], groups) for groups in ("one", "three"))
    more = statistics.median(r["with"] / r["us"] for r in found["idle"]) - 1
    columns = ["", "µs over bare", "over bare, fused", "over bare, minifast's", "µs a batch"]
    return Section("What callbacks cost", columns, rows, [
        f"As above, medians of {rounds} rounds. The bare loops differ in the optimizer: torch's AdamW as it is, with "
        "fused=True, and minifast's, which calls the same kernel with less around it. The five of a long run: "
        "Recorder, one cycle, EarlyStopping, SaveModel, CSVLogger, with a validation batch. A callback that listens "
        "does so to two events of each batch, and does nothing there.",
        f"The 1cycle schedule alone, lr and momentum, takes {one:.1f} µs of a batch with one layer group and "
        f"{three:.1f} with three (CPU time; the aim is at most 3).",
        f"100 callbacks that override nothing add {100 * more:+.1f} % (median of {rounds} pairs of runs in one "
        "process)."])
