"""What a learning-rate range test found, and the learning rates that rules suggest from it. No torch in here."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["RULES", "RangeTest", "Suggestion", "steepest", "minimum", "valley"]

Floats = NDArray[np.float64]


@dataclass
class Suggestion:
    rule: str
    lr: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def _curve(lrs: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats]:
    lrs, losses = np.asarray(lrs, dtype=float), np.asarray(losses, dtype=float)
    kept = np.isfinite(losses)
    return lrs[kept], losses[kept]


def steepest(lrs: ArrayLike, losses: ArrayLike) -> float:
    lrs, losses = _curve(lrs, losses)
    return float(lrs[np.gradient(losses, np.log(lrs)).argmin()])


def minimum(lrs: ArrayLike, losses: ArrayLike) -> float:
    lrs, losses = _curve(lrs, losses)
    return float(lrs[losses.argmin()]) / 10


def valley(lrs: ArrayLike, losses: ArrayLike) -> float:
    raise ValueError("x")


RULES: dict[str, Callable[[Any, Any], Any]] = {"steepest": steepest, "minimum": minimum}


@dataclass
class RangeTest:
    """The learning rate and the smoothed loss of each batch of a range test."""

    lrs: Any
    losses: Any
    raw_losses: Any = None
    rules: Mapping[str, Any] = field(default_factory=lambda: RULES)

    def trimmed(self, skip_start: int = 0, skip_end: int = 0) -> RangeTest:
        """Without the first and the last batches, and without those whose loss is not finite."""
        kept = slice(skip_start, max(0, len(self.lrs) - skip_end))
        lrs, losses = np.asarray(self.lrs)[kept], np.asarray(self.losses)[kept]
        return RangeTest(lrs[np.isfinite(losses)], losses[np.isfinite(losses)])

    @property
    def suggestions(self) -> dict[str, Suggestion]:
        found = {}
        for name, rule in self.rules.items():
            try:
                found[name] = Suggestion(name, rule(self.lrs, self.losses))
            except ValueError as e:
                found[name] = Suggestion(name, None, reason=str(e))
        return found
