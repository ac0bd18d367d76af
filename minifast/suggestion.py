"""What a learning-rate range test found, and the learning rate that it suggests."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["RangeTest", "steepest"]


@dataclass
class RangeTest:
    """The learning rate and the smoothed loss of each batch of a range test."""

    lrs: np.ndarray[Any, Any]
    losses: np.ndarray[Any, Any]

    def trimmed(self, skip_start: int = 0, skip_end: int = 0) -> RangeTest:
        """Without the first and the last batches, and without those whose loss is not finite."""
        kept = slice(skip_start, max(0, len(self.lrs) - skip_end))
        lrs, losses = np.asarray(self.lrs)[kept], np.asarray(self.losses)[kept]
        return RangeTest(lrs[np.isfinite(losses)], losses[np.isfinite(losses)])


def steepest(lrs: Any, losses: Any) -> float:
    """The learning rate at which the loss falls fastest per factor of the learning rate, as in fastai v1.

    ValueError if there are fewer than three points or the loss never falls.
    """
    lrs, losses = np.asarray(lrs, dtype=float), np.asarray(losses, dtype=float)
    if len(losses) < 3:
        raise ValueError(f"{len(losses)} points are too few to find the steepest descent: run lr_find with more batches")
    slope = np.gradient(losses, np.log(lrs))
    if slope.min() >= 0:
        raise ValueError("the loss never falls: run lr_find over another range of learning rates")
    return float(lrs[slope.argmin()])
