"""Schedules of the field as curves: `ParamScheduler(learn, lr=schedules.cosine(0.1))` sets a hyper-parameter by one.

A curve is a function of the number of optimizer steps and of the steps in an epoch that returns a function of the step.
Values are numbers or lists with one for each layer group; lengths are in epochs and need not be whole.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import numpy as np

from .checks import check_callable, number, positive_float
from .stepper import Annealing, Phases, Stepper, annealing_cos, annealing_linear, annealing_no, annealing_poly

__all__ = ["Curve", "constant", "cosine", "exp_range", "exponential", "flat_cosine", "linear", "piecewise",
           "polynomial", "restarts", "triangular", "triangular2", "warm_up"]

Schedule = Callable[[int], Any]  # the value for optimizer step i: a number, or one for each layer group
Curve = Callable[[int, float], Schedule]
Plan = dict[str, Schedule]       # by the name of the hyper-parameter


def constant(value: Any) -> Curve:
    """`value` throughout.

    >>> [round(schedules.constant(0.1)(4, 2)(i), 4) for i in range(4)]
    [0.1, 0.1, 0.1, 0.1]
    """
    held = _value(value)
    return lambda n, per_epoch: Stepper(held, n)


def linear(start: Any, end: Any = 0.0) -> Curve:
    """A straight line from `start` to `end`.

    >>> [round(schedules.linear(0.4)(4, 2)(i), 4) for i in range(4)]
    [0.4, 0.3, 0.2, 0.1]
    """
    return _annealed(start, end, annealing_linear)


def cosine(start: Any, end: Any = 0.0) -> Curve:
    """Half a cosine wave from `start` to `end`: equation 5 of Loshchilov and Hutter's SGDR, without its `restarts`.

    >>> [round(schedules.cosine(0.4)(4, 2)(i), 4) for i in range(4)]
    [0.4, 0.3414, 0.2, 0.0586]
    """
    return _annealed(start, end, annealing_cos)


def polynomial(start: Any, end: Any = 0.0, power: float = 1.0) -> Curve:
    """`end + (start - end) * (1 - i / n) ** power` at step `i` of `n`: "poly" in Caffe and in segmentation papers.

    >>> [round(schedules.polynomial(0.4, power=2)(4, 2)(i), 4) for i in range(4)]
    [0.4, 0.225, 0.1, 0.025]
    """
    return _annealed(start, end, annealing_poly(positive_float("power", power)))


def exponential(start: Any, gamma: float, every: str = "epoch") -> Curve:
    """`start`, times `gamma` after every "epoch" or every "batch".

    >>> [round(schedules.exponential(0.4, 0.5)(4, 2)(i), 4) for i in range(4)]
    [0.4, 0.4, 0.2, 0.2]
    """
    if every not in ("epoch", "batch"):
        raise ValueError(f"every must be 'epoch' or 'batch', not {every!r}")
    first, gamma = _value(start), positive_float("gamma", gamma)
    return lambda n, per_epoch: lambda i: first * gamma ** (i if every == "batch" else i // per_epoch)


def piecewise(levels: Sequence[Any], epochs: Sequence[float]) -> Curve:
    """The first of `levels`, and from each of the `epochs` on the next: `piecewise([0.1, 0.01, 1e-3], [30, 60])`.

    >>> [round(schedules.piecewise([0.4, 0.04], [1])(4, 2)(i), 4) for i in range(4)]
    [0.4, 0.4, 0.04, 0.04]
    """
    if len(levels) != len(epochs) + 1 or sorted(set(epochs)) != list(epochs):
        raise ValueError(f"epochs must ascend, and be one fewer than the {len(levels)} levels, not {epochs}")
    held = [_value(level) for level in levels]

    def curve(n: int, per_epoch: float) -> Schedule:
        starts = [round(e * per_epoch) for e in epochs]
        return lambda i: held[bisect_right(starts, i)]
    return curve


def restarts(start: Any, end: Any = 0.0, cycle_len: float = 1.0, cycle_mult: float = 1.0) -> Curve:
    """Half a cosine from `start` to `end` in `cycle_len` epochs, again and again, each time `cycle_mult` times as long.

    Source: I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts" (arXiv 1608.03983).

    >>> [round(schedules.restarts(0.4)(4, 2)(i), 4) for i in range(4)]
    [0.4, 0.2, 0.4, 0.2]
    """
    ends = _value(start), _value(end)
    positive_float("cycle_len", cycle_len)
    if positive_float("cycle_mult", cycle_mult) < 1:
        raise ValueError(f"cycle_mult must be at least 1, not {cycle_mult}: cycles of less and less would never end")

    def curve(n: int, per_epoch: float) -> Schedule:
        cycles: list[Stepper] = []
        epochs, done = cycle_len, 0
        while done < n:
            cycles.append(Stepper(ends, _steps(epochs, per_epoch), annealing_cos))
            epochs, done = epochs * cycle_mult, done + cycles[-1].n_iter
        return Phases(cycles)
    return curve


def triangular(base: Any, peak: Any, step_size: float, shrink: float = 1.0) -> Curve:
    """Cyclical: in a straight line from `base` to `peak` in `step_size` epochs, in as many back, and again; each
    cycle is `shrink` times as high above `base` as the one before.

    For momentum `base` is the higher one: `lr=triangular(0.01, 0.1, 2), mom=triangular(0.95, 0.85, 2)`.

    Source: L. Smith, "Cyclical learning rates for training neural networks" (arXiv 1506.01186), section 3.1.

    >>> [round(schedules.triangular(0.1, 0.5, 1)(4, 2)(i), 4) for i in range(4)]
    [0.1, 0.3, 0.5, 0.3]
    """
    low, high, epochs = _value(base), _value(peak), positive_float("step_size", step_size)

    def curve(n: int, per_epoch: float) -> Schedule:
        steps = _steps(epochs, per_epoch)
        peaks = [low + (high - low) * shrink**k for k in range(1 + n // (2 * steps))]
        return Phases([Stepper(way, steps) for top in peaks for way in ((low, top), (top, low))])
    return curve


def triangular2(base: Any, peak: Any, step_size: float) -> Curve:
    """As `triangular`, each cycle half as high above `base` as the one before (same source).

    >>> [round(schedules.triangular2(0.1, 0.5, 0.5)(4, 2)(i), 4) for i in range(4)]
    [0.1, 0.5, 0.1, 0.3]
    """
    return triangular(base, peak, step_size, shrink=0.5)


def exp_range(base: Any, peak: Any, step_size: float, gamma: float) -> Curve:
    """As `triangular`, its height times `gamma` after every batch (same source).

    >>> [round(schedules.exp_range(0.1, 0.5, 1, 0.5)(4, 2)(i), 4) for i in range(4)]
    [0.1, 0.2, 0.2, 0.125]
    """
    low, unscaled, gamma = _value(base), triangular(base, peak, step_size), positive_float("gamma", gamma)

    def curve(n: int, per_epoch: float) -> Schedule:
        triangle = unscaled(n, per_epoch)
        return lambda i: low + (triangle(i) - low) * gamma**i
    return curve


def flat_cosine(value: Any, end: Any = 0.0, pct_start: float = 0.72, anneal: Annealing = annealing_cos) -> Curve:
    """`value` for the first `pct_start` of the run, then annealed to `end`, by default as half a cosine.

    >>> [round(schedules.flat_cosine(0.4, pct_start=0.5)(4, 2)(i), 4) for i in range(4)]
    [0.4, 0.4, 0.4, 0.2]
    """
    if not 0 <= number("pct_start", pct_start) <= 1:
        raise ValueError(f"pct_start is the flat part of the run, from 0 to 1, not {pct_start}")

    first, last = _value(value), _value(end)

    def curve(n: int, per_epoch: float) -> Schedule:
        flat = int(n * pct_start)
        return Phases([Stepper(first, flat), Stepper((first, last), n - flat, anneal)])
    return curve


def warm_up(curve: Curve, epochs: float = 1.0, div_factor: float = 25.0) -> Curve:
    """For `epochs` epochs a straight line from a `div_factor`-th of where `curve` begins, then `curve` over the rest.

    Source: P. Goyal and others, "Accurate, large minibatch SGD" (arXiv 1706.02677), section 2.2.

    >>> [round(schedules.warm_up(schedules.constant(0.5), div_factor=5)(4, 2)(i), 4) for i in range(4)]
    [0.1, 0.3, 0.5, 0.5]
    """
    check_callable("what is warmed up to", curve)
    epochs, div = positive_float("epochs", epochs), positive_float("div_factor", div_factor)

    def warmed(n: int, per_epoch: float) -> Schedule:
        steps = min(_steps(epochs, per_epoch), n)
        after = curve(max(1, n - steps), per_epoch)
        ramp = Stepper((after(0) / div, after(0)), steps)
        return lambda i: ramp(i) if i < steps else after(i - steps)
    return warmed


def _value(x: Any) -> Any:
    many = isinstance(x, (list, tuple)) or getattr(x, "ndim", False)
    values = [number("a schedule's value", v) for v in (x if many else [x])]
    if not np.isfinite(values).all():
        raise ValueError(f"a schedule's values must be finite, not {x}")
    return np.array(values) if many else values[0]


def _annealed(start: Any, end: Any, func: Annealing) -> Curve:
    ends = _value(start), _value(end)
    return lambda n, per_epoch: Stepper(ends, n, func)


def _steps(epochs: float, per_epoch: float) -> int:
    return max(1, round(epochs * per_epoch))


# ---- many values at a time

BLOCK = 256     # steps
_AT_ONCE = (annealing_linear, annealing_cos)    # these take an array of positions too


def values(schedule: Any, first: int, last: int) -> list[Any]:
    """`[schedule(i) for i in range(first, last)]`, to the bit, many times as fast where it is made of steppers."""
    if isinstance(schedule, Stepper):
        schedule = Phases([schedule])
    if not isinstance(schedule, Phases):
        return [schedule(i) for i in range(first, last)]
    found: list[Any] = []
    for s, start, end in zip(schedule.steppers, schedule.starts, [*schedule.reached, last], strict=True):
        found += _values_of(s, [i - start for i in range(first + len(found), min(last, ceil(end)))])
    return found


def _values_of(s: Stepper, steps: list[Any]) -> list[Any]:
    begin = bisect_right(steps, 0)      # between its ends a stepper calls its function
    end = max(begin, bisect_left(steps, s.n_iter))
    if type(s) is not Stepper or s.func not in _AT_ONCE or end - begin < 16:    # fewer take longer at once
        return [s(i) for i in steps]
    pct: Any = np.array(steps[begin:end]) / s.n_iter
    if np.ndim(s.start) or np.ndim(s.end):
        inside = list(s.func(s.start, s.end, pct[:, None]))
    else:
        inside = s.func(s.start, s.end, pct).tolist()
    return [s(i) for i in steps[:begin]] + inside + [s(i) for i in steps[end:]]


class Ahead(Phases):
    """`Phases` that compute `BLOCK` values at a time: a batch then costs an index, with any number of layer groups.

    >>> Ahead([Stepper((0.0, 1.0), 4)])(1)
    0.25
    """

    def __init__(self, steppers: Sequence[Stepper]) -> None:
        super().__init__(steppers)
        self.first = 0
        self.block: list[Any] = []

    def __call__(self, i: int) -> Any:
        k = i - self.first
        if not 0 <= k < len(self.block):
            self.first, k = i, 0
            self.block = values(Phases(self.steppers), i, i + BLOCK)
        return self.block[k]


def ahead(schedule: Schedule) -> Schedule:
    """`schedule` as `Ahead` if nothing but the position decides its values, else itself: a stepper or an annealing
    function of the user's may read what changes in the run."""
    steppers = [schedule] if type(schedule) is Stepper else schedule.steppers if type(schedule) is Phases else []
    known = all(type(s) is Stepper and s.func in (annealing_no, *_AT_ONCE) for s in steppers)
    return Ahead(steppers) if steppers and known else schedule
