"""The losses of a run, drawn while it goes on."""
from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

from ..callback import LearnerCallback

if TYPE_CHECKING:
    from ..learner import Learner

__all__ = ["ShowGraph"]


class ShowGraph(LearnerCallback):
    """Draws training and validation losses under the table after each epoch, in a notebook; elsewhere nothing.

    Where drawing takes more than a tenth of the time, it is done less often. If it fails, a warning says so, and the
    run goes on without.

    learn: the learner whose fits are drawn.

    >>> fake_learner(callback_fns=ShowGraph).fit(2)
    """

    role = "watching"

    def __init__(self, learn: Learner) -> None:
        super().__init__(learn)
        self.figure: Any = None
        self.next_at = 0.0      # seconds, by the clock
        self.failed = False

    def on_train_begin(self) -> None:
        self.next_at, self.failed = 0.0, False

    def on_epoch_end(self, pbar: Any, epoch: int, n_epochs: int) -> None:
        began = time.monotonic()
        if pbar.face != "notebook" or self.failed or began < self.next_at and epoch + 1 < n_epochs:
            return
        try:
            self._draw()
        except Exception as e:
            self.failed = True
            warnings.warn(f"the losses cannot be drawn ({type(e).__name__}: {e}); training goes on")
        else:
            pbar.graph(self.figure)
        now = time.monotonic()
        self.next_at = now + 10 * (now - began)

    def on_train_end(self) -> None:
        self.figure = None

    def state_dict(self) -> dict[str, Any]:
        """Nothing: it draws what the recorder holds."""
        return {}

    def _draw(self) -> None:
        import matplotlib.pyplot as plt
        if self.figure is None:
            self.figure = plt.figure(figsize=(6.4, 4), layout="constrained")
            plt.close(self.figure)  # the bars show it; the notebook would show it once more
        self.figure.clear()
        self.learn.recorder.plot_losses(ax=self.figure.add_subplot())
