"""What has become of the other processes of a run, where a connection is lost."""
from __future__ import annotations

import os
import socket
import time

from .distributed import FAILED, here

__all__ = ["another_ended", "explain"]

PATIENCE = 3.0      # seconds in which a process that fails can say so


def _lost(error: BaseException | None) -> bool:
    """Whether the error is that of a connection to another process."""
    return isinstance(error, ConnectionError) or isinstance(error, RuntimeError) and bool(FAILED.search(str(error)))


def explain(error: BaseException, place: str) -> None:
    """Let the others know why this process ends. If it ends because a connection is lost, wait for what the others
    say, and add that to the error."""
    if here.store is None or here.world == 1:
        return
    failed, others = _lost(error), [r for r in range(here.world) if r != here.rank]
    try:
        here.store.set(_said(here.rank), "" if failed else f"process {here.rank} ended in {place}: "
                        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        if failed:
            until = time.monotonic() + PATIENCE
            while not all(notes := [_of_process(r, place) for r in others]) and time.monotonic() < until:
                time.sleep(0.05)
            silent = f"did not answer within {here.timeout:g} s (a hang?); process {here.rank} was in {place}"
            lines = [note or f"process {r} {silent}" for r, note in zip(others, notes, strict=True)]
            error.add_note("\n".join(line for line in lines if line != " ") or f"in {place} the connection was lost")
    except RuntimeError as e:   # the store was process 0's, which is gone
        error.add_note(f"in {place} the other processes could not be reached ({str(e).splitlines()[0]})")


def _said(number: int) -> str:
    return f"run {here.runs}: process {number} ended"


def _of_process(number: int, place: str) -> str:
    """What has become of another process, as far as is known; a space: it has lost a connection, too."""
    if here.store.check([_said(number)]):
        return here.store.get(_said(number)).decode() or " "
    host, pid = here.store.get(f"process {number}").decode().rsplit(" ", 1)
    if host == socket.gethostname():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return f"process {number} is gone without a message (killed?); process {here.rank} was in {place}"
    return ""


def another_ended() -> bool:
    """Whether another process of this run has ended."""
    return here.store is not None and any(here.store.check([_said(r)]) for r in range(here.world)
                                           if r != here.rank)
