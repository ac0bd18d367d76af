"""What an exception keeps alive, where it comes from, and one run at a time."""
from __future__ import annotations

import contextlib
import functools
import sys
import traceback
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .utils import shape_of

__all__ = ["frames_forgotten", "one_run_at_a_time", "place_in_run"]

P = ParamSpec("P")
T = TypeVar("T")


def frames_forgotten(function: Callable[P, T]) -> Callable[P, T]:
    """The function; an exception from it leaves with its traceback, but without what functions of minifast and torch
    held in variables: else learner, batch and graph would live on for as long as the exception is kept (a notebook
    keeps the last one). The variables of the user's functions stay, for a debugger.

    >>> frames_forgotten(int)("3")
    3
    """
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        handled = sys.exception()   # one that is being handled already is not this function's
        try:
            return function(*args, **kwargs)
        except BaseException as e:
            _forget_frames(e, handled)
            del args, kwargs, handled
            raise
    return call


def one_run_at_a_time(method: Callable[P, T]) -> Callable[P, T]:
    """A learner's method that trains, with `frames_forgotten`. RuntimeError, before anything is changed, if it is
    called while the learner is being trained: by a callback, or in another thread."""
    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        learn: Any = args[0]
        if learn.handler is not None:
            raise RuntimeError(f"{method.__name__} within a run: this learner is being trained, and two runs would "
                               "write one record and step one optimizer; wait for its end, or use copy.deepcopy(learn)")
        return method(*args, **kwargs)
    return frames_forgotten(call)


def _forget_frames(error: BaseException | None, handled: BaseException | None) -> None:
    while error is not None and error is not handled:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals.get("__name__", "").partition(".")[0] in ("minifast", "torch"):
                with contextlib.suppress(RuntimeError):     # it is still running
                    frame.clear()
        error = error.__cause__ or error.__context__


def place_in_run(state: Any, error: BaseException) -> str:
    """Where in a run an exception comes from, with the batch at hand, if there is one: between two of them, the state
    still holds the one before."""
    names = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    batch = "".join(f"{comma} {what} {shape_of(x)}" for comma, what, x in (
        (";", "input", state.last_input), (",", "output", state.last_output), (",", "target", state.last_target)))
    return (f"in epoch {state.epoch}, iteration {state.iteration}"
            + (batch if names & {"train_batch", "valid_batch"} else ", between two batches"))
