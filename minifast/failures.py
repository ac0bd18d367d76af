"""What has become of the other processes of a run, where a connection is lost."""
from __future__ import annotations

import re
import time

from .distributed import here, is_lost

__all__ = ["another_ended", "explain"]

PATIENCE = 3.0      # seconds in which a process that fails can say so


def explain(error: BaseException, place: str) -> None:
    """Let the others know why this process ends. If it ends because a connection is lost, wait for what the others
    say, and add that to the error."""
    if here.store is None or here.world == 1:
        return
    lost, what = is_lost(error), f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    others = {r: _said(r) for r in range(here.world) if r != here.rank}
    try:
        here.store.set(_said(here.rank), "" if lost else f"process {here.rank} ended in {place}: {what}")
        if not lost:
            return
        until = time.monotonic() + PATIENCE
        while not here.store.check([*others.values()]) and time.monotonic() < until:
            time.sleep(0.05)
        silent = f"did not answer within {here.timeout:g} s (a hang?)" if re.search("timed? ?out", what, re.I) else (
            "is gone without a message (killed?)")
        lines = [here.store.get(said).decode() if here.store.check([said]) else
                 f"process {r} {silent}; process {here.rank} was in {place}" for r, said in others.items()]
        error.add_note("\n".join(filter(None, lines)) or f"in {place} the connection was lost")
    except RuntimeError as e:   # the store was process 0's, which is gone
        error.add_note(f"in {place} the other processes could not be reached ({str(e).splitlines()[0]})")


def _said(number: int) -> str:
    return f"run {here.runs}: process {number} ended"


def another_ended() -> bool:
    """Whether another process of this run has ended."""
    return here.store is not None and any(here.store.check([_said(r)]) for r in range(here.world) if r != here.rank)
