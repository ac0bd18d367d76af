"""Microseconds a batch of a tiny model: what a trainer adds to torch's own work."""
from __future__ import annotations

import copy
import time
from typing import Any

from timing import Rounds, Section, in_turn, median, table

__all__ = ["run"]

BATCHES, ROUNDS = int(__import__("os").environ.get("BB", 3000)), 7


def tiny(argument: tuple[str, str]) -> Any:
    """A contender's training of Linear(10, 2) over batches of 4, in this process."""
    name, device = argument
    import torch
    from contenders import CONTENDERS, Job

    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = [(torch.randn(4, 10), torch.randint(2, (4,))) for _ in range(BATCHES)]
    model = torch.nn.Linear(10, 2)

    def turn() -> dict[str, float]:
        train = CONTENDERS[name](Job(copy.deepcopy(model), batches, device=device))
        start = time.perf_counter()
        train()
        return {"us": (time.perf_counter() - start) / BATCHES * 1e6}
    return turn


def run(device: str, rounds: int = ROUNDS) -> list[Section]:
    """Every contender's microseconds a batch, and ratios to the two plain loops."""
    from contenders import CONTENDERS

    measured = in_turn({name: ("overhead.tiny", (name, device)) for name in CONTENDERS}, rounds)
    base = ["hand-written loop", "bare loop"]
    rows = table(measured, "us", base, "{:.0f}")
    bars: dict[str, Rounds] = {n: r for n, r in measured.items() if not isinstance(r, str)}
    return [Section("Overhead of a batch", ["", "µs a batch", "÷ hand-written", "÷ bare"], rows,
                    [f"Linear(10, 2), batches of 4, {BATCHES:,} batches, one thread; medians of {rounds} rounds in turn."],
                    {n: median(r, "us") for n, r in bars.items()}, "µs a batch")]
