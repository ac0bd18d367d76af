"""The losses of a run, drawn while it goes on."""
from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ..callback import LearnerCallback

if TYPE_CHECKING:
    from ..learner import Learner

__all__ = ["ShowGraph"]


class ShowGraph(LearnerCallback):
    """Draws training and validation losses under the table after each epoch, in a notebook; elsewhere nothing.

    After a hundred epochs it draws whenever the run is 1 % longer, and at its end: a picture of each of thousands of
    epochs would cost more than the training. If it fails, a warning says so, and the run goes on without.

    learn: the learner whose fits are drawn.

    >>> fake_learner(callback_fns=ShowGraph).fit(2)
    """

    role = "watching"

    def __init__(self, learn: Learner) -> None:
        super().__init__(learn)
        self.figure: Any = None
        self.failed = False
        self.next_epoch = 0     # the first one that is drawn
        self.waiting = False    # whether there is an epoch that has not been drawn

    def on_train_begin(self) -> None:
        self.failed, self.next_epoch = False, 0

    def on_epoch_end(self, epoch: int, pbar: Any) -> None:
        self.waiting = epoch < self.next_epoch
        if not self.waiting:
            self.next_epoch = epoch + 1 + epoch // 100
            self._show(pbar)

    def on_train_end(self, pbar: Any) -> None:
        if self.waiting:
            self._show(pbar)
        self.figure, self.waiting = None, False

    def _show(self, pbar: Any) -> None:
        if pbar.face != "notebook" or self.failed:
            return
        try:
            self._draw()
        except Exception as e:
            self.failed = True
            warnings.warn(f"the losses cannot be drawn ({type(e).__name__}: {e}); training goes on")
        else:
            pbar.graph(self.figure)

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
