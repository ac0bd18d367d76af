"""What a learning-rate range test found, and the rules that read a learning rate off it. No torch in here.

A rule is a function (lrs, losses) -> Suggestion (a plain number or None will do). Those here look at the order of the
losses and at ratios of their differences alone: a loss times a positive constant, plus any constant, gives the same
rate up to rounding. Losses that are not finite are left out. The rate lies within those that were tested. On a smooth
curve a finer sweep moves it by at most two steps of the coarser one.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import did_you_mean

__all__ = ["RULES", "RangeTest", "RangeTests", "Suggestion", "basin", "steepest", "minimum", "valley"]

Floats = NDArray[np.float64]

FLAT = "the loss never falls; try other learning rates"
MIN_POINTS = 10     # fewer losses show no curve
WIDTH = 0.2         # decades of learning rate: the standard deviation of the window that smooths
DEPTH = 0.5         # of the fall: the basin is where the loss is lower than this
POINT = 0.4         # of the way through the basin; less wastes the run, more risks it
SIGNIFICANT = 5     # standard errors that the loss must fall; pure noise, cut off at the start, reaches four


@dataclass(frozen=True)
class Suggestion:
    """A learning rate and, if the rule gives one, the interval around it; or lr None and the `reason` for that.

    It serves as the number wherever one is wanted, `learn.fit_one_cycle(2, learn.lr_find().suggestion)`; without a
    learning rate that raises a ValueError with the reason.

    >>> float(Suggestion(0.05, 0.01, 0.1))
    0.05
    """

    lr: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __float__(self) -> float:
        if self.lr is None:
            raise ValueError(f"the range test suggests no learning rate: {self.reason}")
        return self.lr

    def __repr__(self) -> str:
        if self.lr is None:
            return f"none: {self.reason}"
        return f"{self.lr:.2E}" + (f" ({self.low:.2E} to {self.high:.2E})" if self.low and self.high else "")


Rule = Callable[[Floats, Floats], "Suggestion | float | None"]


def basin(lrs: ArrayLike, losses: ArrayLike) -> Suggestion:
    """minifast's own rule: the interval in which the loss is at least half of the way down from its start to its
    lowest, and the point two fifths of the way through it (in log lr).

    `losses` are the batches' own. They are smoothed here, by a window (Gaussian, 0.2 decades) that looks both ways and
    so does not lag. The start is the median of the first quarter; losses above it count as equal to it. No suggestion
    if fewer than ten losses are finite, if the lowest is in the first quarter, or if the loss falls by less than five
    standard errors of the smoothed loss.

    >>> lrs = np.geomspace(1e-6, 1, 100)
    >>> basin(lrs, np.interp(np.log10(lrs), [-4, -2, -1, 0], [2.0, 1.0, 1.0, 3.0]))
    7.94E-03 (9.98E-04 to 1.78E-01)
    """
    lrs, log_lr, losses = _curve(lrs, losses)
    if len(losses) < MIN_POINTS:
        return _too_short(losses, MIN_POINTS)
    quarter = max(3, len(losses) // 4)
    at = log_lr[np.unique(np.linspace(0, len(losses) - 1, 500, dtype=int))]  # at all of 10,000 it would take 800 MB
    weights = np.exp(-(((at[:, None] - log_lr) / WIDTH) ** 2) / 2)
    weights /= weights.sum(1, keepdims=True)
    depth = weights @ np.maximum(np.median(losses[:quarter]) - losses, 0)
    deepest = int(depth.argmax())
    if depth[deepest] == 0 or at[deepest] < log_lr[quarter]:
        return Suggestion(None, reason=FLAT)
    # the median difference of neighbours is 0.954 standard deviations of one loss, and hardly feels the slope
    noise = np.median(np.abs(np.diff(losses))) / 0.954 * np.sqrt((weights[deepest] ** 2).sum())
    if depth[deepest] < (needed := SIGNIFICANT * noise):
        return Suggestion(None, reason=f"too noisy: the loss falls by {depth[deepest]:.2g}, and {needed:.2g} may be "
                                       "chance; try more batches (num_it=) or larger ones")
    level = DEPTH * float(depth[deepest])
    low, high = _crossing(at, depth, level), _crossing(at[::-1], depth[::-1], level)
    return _found(lrs, low + POINT * (high - low), low, high)


def steepest(lrs: ArrayLike, losses: ArrayLike) -> Suggestion:
    """Where the loss falls fastest per factor of the learning rate: argmin of the central differences in log lr, as in
    fastai v1's "min numerical gradient" and fastai 2's `steep`.

    >>> steepest([0.001, 0.01, 0.1, 1.0], [2.0, 1.9, 0.5, 0.4])
    1.00E-02
    """
    lrs, log_lr, losses = _curve(lrs, losses)
    if len(losses) < 3:
        return _too_short(losses, 3)
    rise, run = (np.r_[a[1] - a[0], a[2:] - a[:-2], a[-1] - a[-2]] for a in (losses, log_lr))
    slope = rise / run
    if slope.min() >= 0:
        return Suggestion(None, reason=FLAT)
    return _found(lrs, log_lr[slope.argmin()])


def minimum(lrs: ArrayLike, losses: ArrayLike) -> Suggestion:
    """A tenth of where the loss is lowest: fastai v1's "min loss divided by 10" and fastai 2's `minimum`.

    No suggestion if that is below the first learning rate.

    >>> minimum([0.001, 0.01, 0.1, 1.0], [2.0, 1.0, 0.5, 4.0])
    1.00E-02
    """
    lrs, log_lr, losses = _curve(lrs, losses)
    if not len(losses):
        return _too_short(losses, 1)
    if (lowest := int(losses.argmin())) == 0:
        return Suggestion(None, reason=FLAT)
    if log_lr[lowest] - 1 < log_lr[0]:
        return Suggestion(None, reason=f"the loss is lowest at {lrs[lowest]:.2E}, and a tenth of that is below the "
                                       f"first learning rate that counts, {lrs[0]:.2E}; try a lower start_lr")
    return _found(lrs, log_lr[lowest] - 1)


def valley(lrs: ArrayLike, losses: ArrayLike) -> Suggestion:
    """The middle (in log lr) of the longest falling subsequence of the losses, as if it had no gaps before its end:
    fastai 2's `valley`, its default rule.

    >>> valley([0.001, 0.01, 0.1, 1.0], [2.0, 1.0, 0.5, 4.0])
    1.00E-02 (1.00E-03 to 1.00E-01)
    """
    lrs, log_lr, losses = _curve(lrs, losses)
    if len(losses) < 2:
        return _too_short(losses, 2)
    lowest: list[float] = []    # for each length, the last and lowest loss of a falling subsequence, negated to ascend
    end = 0
    for i, loss in enumerate(-losses):
        k = bisect_left(lowest, loss)
        end = i if k == len(lowest) else end
        lowest[k:k + 1] = [loss]
    if len(lowest) < 2:
        return Suggestion(None, reason=FLAT)
    low, high = log_lr[max(0, end - len(lowest))], log_lr[end]
    return _found(lrs, (low + high) / 2, low, high)


RULES: dict[str, Rule] = {"basin": basin, "steepest": steepest, "minimum": minimum, "valley": valley}


def _curve(lrs: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The learning rates, their log10, and the losses, where these are finite."""
    lrs, losses = np.asarray(lrs, dtype=float), np.asarray(losses, dtype=float)
    if lrs.shape != losses.shape or lrs.ndim != 1:
        raise ValueError(f"lrs and losses must be two lists of equal length, not {lrs.shape} and {losses.shape}")
    if len(lrs) and not (lrs[0] > 0 and np.isfinite(lrs[-1]) and np.all(np.diff(lrs) > 0)):
        raise ValueError("the learning rates must be above 0 and grow from batch to batch, as those of lr_find do")
    finite = np.isfinite(losses)
    return lrs[finite], np.log10(lrs[finite]), losses[finite]


def _found(lrs: Floats, lr: float, low: float | None = None, high: float | None = None) -> Suggestion:
    """A suggestion of the learning rates with these log10; rounding does not take them out of what was tested."""
    def within(x: float) -> float:
        return float(np.clip(10**x, lrs[0], lrs[-1]))
    if low is None or high is None:
        return Suggestion(within(lr))
    return Suggestion(within(lr), within(low), within(high))


def _crossing(x: Floats, y: Floats, level: float) -> float:
    """Where y first rises to `level`: on the line between two points, or at the first point."""
    i = int((y >= level).argmax())
    return float(x[i] if i == 0 else x[i - 1] + (x[i] - x[i - 1]) * (level - y[i - 1]) / (y[i] - y[i - 1]))


def _too_short(losses: Floats, n: int) -> Suggestion:
    return Suggestion(None, reason=f"too short: {len(losses)} finite losses where it takes {n}; try more (num_it=)")


@dataclass(repr=False)
class RangeTest:
    """What a range test measured, as arrays with a value for each batch: the learning rate (of the last layer group),
    the smoothed loss, and the batch's own (`raw_losses`; default `losses`). It prints what the rules suggest.

    >>> test = RangeTest([0.001, 0.01, 0.1], [2.0, 1.0, 4.0])
    >>> test.suggest(lambda lrs, losses: lrs[losses.argmin()]).lr
    0.01
    """

    lrs: Floats
    losses: Floats
    raw_losses: Floats = None  # type: ignore[assignment]  # never None after __post_init__

    def __post_init__(self) -> None:
        raw = self.losses if self.raw_losses is None else self.raw_losses
        self.lrs, self.losses, self.raw_losses = (np.asarray(a, dtype=float) for a in (self.lrs, self.losses, raw))

    def trimmed(self, skip_start: int = 0, skip_end: int = 0) -> RangeTest:
        """Without the first and the last batches, and without those whose smoothed loss is not finite."""
        kept = np.isfinite(self.losses)
        kept[:skip_start] = False
        kept[max(0, len(kept) - skip_end):] = False
        return RangeTest(self.lrs[kept], self.losses[kept], self.raw_losses[kept])

    def suggest(self, rule: str | Rule = "basin") -> Suggestion:
        """What the rule says: the name of one in `RULES`, or your own, a function of (lrs, losses).

        `basin` reads each batch's own loss; all others read the smoothed one, without the first tenth of the batches,
        where the mean has not settled, and the last twentieth, where it explodes. ValueError for an unknown name.
        """
        if isinstance(rule, str) and rule not in RULES:
            raise ValueError(f"there is no rule {rule!r}, but {', '.join(RULES)}." + did_you_mean(rule, RULES))
        function = RULES[rule] if isinstance(rule, str) else rule
        if function is basin:
            return basin(self.lrs, self.raw_losses)
        test = self.trimmed(len(self.lrs) // 10, len(self.lrs) // 20)
        found = function(test.lrs, test.losses)
        if isinstance(found, Suggestion):
            return found
        return Suggestion(None, reason="the rule gave none") if found is None else Suggestion(float(found))

    @property
    def suggestion(self) -> Suggestion:
        """What `basin` says, the rule with the least regret in the comparison of tests/bench/finder."""
        return self.suggest()

    @property
    def suggestions(self) -> dict[str, Suggestion]:
        """What every rule says."""
        return {name: self.suggest(name) for name in RULES}

    @property
    def lowest(self) -> float:
        """The lowest smoothed loss; NaN if none is finite."""
        return float(min(self.losses[np.isfinite(self.losses)], default=np.nan))

    def __repr__(self) -> str:
        if not len(self.lrs):
            return "Range test without a batch"
        head = (f"Range test: {len(self.lrs)} losses, lr {self.lrs[0]:.2E} to {self.lrs[-1]:.2E}, "
                f"lowest smoothed loss {self.lowest:.4g}")
        if self.suggestion.lr is not None:
            return "\n".join([head, *(f"  {name:10}{found!r}" for name, found in self.suggestions.items())])
        # one clear thing; that other rules name a number all the same must not look like the opposite of it
        others = [f"{name} {found.lr:.2E}" for name, found in self.suggestions.items() if found.lr is not None]
        return "\n".join([head, f"  no suggestion: {self.suggestion.reason}",
                          *([f"  rules that do not need this: {', '.join(others)}"] if others else [])])


class RangeTests(dict[str, RangeTest]):
    """The range tests of a sweep, by what was set for each ("wd 0.01, bs 64"). It prints a table of suggestions, and
    why `basin` has none where it has none.

    >>> tests = fake_learner(train_length=200).lr_find(num_it=20, wds=[0.0, 0.1])
    >>> list(tests)
    ['wd 0.0', 'wd 0.1']
    """

    def __repr__(self) -> str:
        width = 2 + max(map(len, self), default=0)
        head = f"{'':{width}}{'lowest loss':>11}" + "".join(f"{rule:>11}" for rule in RULES)
        rows = [f"{name:{width}}{test.lowest:11.4g}" + "".join(f"{'none' if s.lr is None else f'{s.lr:.2E}':>11}"
                                                               for s in test.suggestions.values())
                for name, test in self.items()]
        return "\n".join([head, *rows, *(f"no suggestion for {name}: {test.suggestion.reason}"
                                         for name, test in self.items() if test.suggestion.lr is None)])
