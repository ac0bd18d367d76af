"""Annealing functions and `Stepper`: a value that is a pure function of a position."""
from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

__all__ = ["Annealing", "Stepper", "Phases", "annealing_no", "annealing_linear", "annealing_exp", "annealing_cos",
           "annealing_poly"]

# A value is a float, or a numpy array with one float for each layer group.
Value = Any
Annealing = Callable[[Value, Value, float], Value]


def annealing_no(start: Value, end: Value, pct: float) -> Value:
    """`start`, whatever the position.

    >>> annealing_no(0.1, 0.0, 0.5)
    0.1
    """
    return start


def annealing_linear(start: Value, end: Value, pct: float) -> Value:
    """A straight line from `start` (pct 0) to `end` (pct 1).

    >>> annealing_linear(1.0, 0.0, 0.25)
    0.75
    """
    return start * (1 - pct) + end * pct


def annealing_exp(start: Value, end: Value, pct: float) -> Value:
    """From `start` to `end` by equal factors; both must be above 0 (or both below).

    >>> annealing_exp(1.0, 100.0, 0.5)
    10.0
    """
    return start * (end / start) ** pct


def annealing_cos(start: Value, end: Value, pct: float) -> Value:
    """Half a cosine wave from `start` to `end`: flat at both ends, steepest in the middle.

    >>> round(annealing_cos(1.0, 0.0, 0.5), 6)
    0.5
    """
    wave = _cosines(math.pi * pct) if isinstance(pct, np.ndarray) else math.cos(math.pi * pct)
    return end + (start - end) * ((wave + 1) / 2)


def annealing_poly(degree: float) -> Annealing:
    """The annealing function `end + (start - end) * (1 - pct) ** degree`.

    >>> annealing_poly(2)(1.0, 0.0, 0.5)
    0.25
    """
    def annealing(start: Value, end: Value, pct: float) -> Value:
        return end + (start - end) * (1 - pct) ** degree
    return annealing


class Stepper:
    """`func(start, end, i / n_iter)`: the value at step `i`. `stepper(i)` takes any step; `n` is the only state.

    `vals` is a pair (start, end), or one value, which means (value, 0). Without `func` a pair is annealed linearly and
    one value stays constant. Either end may be an array with one value for each layer group. Before step 0 the value is
    exactly `start`, from step `n_iter` on exactly `end`.

    >>> up = Stepper((0.0, 1.0), 4)
    >>> [up(i) for i in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """

    def __init__(self, vals: Value, n_iter: int, func: Annealing | None = None) -> None:
        pair = isinstance(vals, (tuple, list))
        if pair and len(vals) != 2:
            raise ValueError(f"vals must be (start, end) or one value, not {vals!r}")
        start, end = vals if pair else (vals, 0.0)
        self.start, self.end = _as_value(start), _as_value(end)
        self.n_iter, self.func = n_iter, func or (annealing_linear if pair else annealing_no)
        self.n = 0

    def __call__(self, i: int) -> Value:
        if i <= 0 < self.n_iter:
            return self.start
        if i >= self.n_iter:
            return self.start if self.func is annealing_no else self.end
        return self.func(self.start, self.end, i / self.n_iter)

    def step(self) -> Value:
        """Go one step on and return the value there."""
        self.n += 1
        return self(self.n)

    @property
    def is_done(self) -> bool:
        """Whether `n` has reached `n_iter`."""
        return self.n >= self.n_iter

    def __repr__(self) -> str:
        return f"Stepper(({self.start}, {self.end}), {self.n_iter}, {getattr(self.func, '__name__', self.func)})"


class Phases:
    """Steppers one after the other, as one function of the step: `Phases([up, down])(i)`.

    Each phase runs for its own `n_iter` steps and really starts at its start value; an empty phase (n_iter 0) takes no
    step. Steps past the end hold the last phase's final value.

    >>> both = Phases([Stepper((0.0, 1.0), 2), Stepper((1.0, 0.0), 4)])
    >>> [both(i) for i in range(6)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    """

    def __init__(self, steppers: Sequence[Stepper]) -> None:
        self.steppers = list(steppers)
        ends = list(accumulate(s.n_iter for s in self.steppers))
        self.starts, self.n_iter = [0, *ends[:-1]], ends[-1]
        self.reached = list(accumulate(ends[:-1], max))  # ascending, also where a phase of negative length is skipped

    def __call__(self, i: int) -> Value:
        k = bisect_right(self.reached, i)
        return self.steppers[k](i - self.starts[k])


_cosines = np.vectorize(math.cos, otypes=[float])    # numpy's own cosine differs from Python's in the last bit


def _as_value(x: Value) -> Value:
    return np.asarray(x, dtype=float) if isinstance(x, (list, tuple, np.ndarray)) else float(x)
