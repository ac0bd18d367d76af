"""How much memory a run takes."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from ..callback import LearnerCallback
from ..order import Order
from ..state import Changes

if TYPE_CHECKING:
    from ..learner import Learner

__all__ = ["PeakMemory"]

MB = 2**20


class PeakMemory(LearnerCallback):
    """Adds columns, in MB of 2**20 bytes: `cpu_peak`, the most memory that the process has held since it began, and on
    a GPU `gpu_peak`, the most that torch's tensors took on it during the epoch.

    It returns `last_metrics` in on_epoch_end, and resets torch's peak statistics of the GPU when an epoch begins. Where
    the system does not know it (Windows), `cpu_peak` has no value.

    learn: the learner whose fits are measured.

    >>> learn = fake_learner(callback_fns=PeakMemory)
    >>> learn.fit(1)
    >>> learn.recorder.names[3]
    'cpu_peak'
    """

    _order = Order.COLUMNS
    role = "watching"

    def __init__(self, learn: Learner) -> None:
        super().__init__(learn)
        self.on_gpu = False

    def on_train_begin(self) -> None:
        self.on_gpu = self.learn.data.device.type == "cuda"
        self.learn.recorder.add_metric_names(["cpu_peak", "gpu_peak"] if self.on_gpu else ["cpu_peak"])

    def on_epoch_begin(self) -> None:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.learn.data.device)

    def on_epoch_end(self, last_metrics: list[Any]) -> Changes:
        gpu = [torch.cuda.max_memory_allocated(self.learn.data.device) // MB] if self.on_gpu else []
        return {"last_metrics": [*last_metrics, _cpu_peak(), *gpu]}


def _cpu_peak() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (MB if sys.platform == "darwin" else 1024))  # macOS counts bytes, others KiB
