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

    If it fails, a warning says so, and the run goes on without.

    learn: the learner whose fits are drawn.

    >>> fake_learner(callback_fns=ShowGraph).fit(2)
    """

    role = "watching"

    def __init__(self, learn: Learner) -> None:
        super().__init__(learn)
        self.figure: Any = None
        self.failed = False

    def on_train_begin(self) -> None:
        self.failed = False

    def on_epoch_end(self, pbar: Any) -> None:
        if pbar.face != "notebook" or self.failed:
            return
        try:
            self._draw()
        except Exception as e:
            self.failed = True
            warnings.warn(f"the losses cannot be drawn ({type(e).__name__}: {e}); training goes on")
        else:
            pbar.graph(self.figure)

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
