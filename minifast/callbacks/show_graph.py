"""The losses of a run, drawn while it goes on."""
from __future__ import annotations

from typing import Any

from ..callback import LearnerCallback

__all__ = ["ShowGraph"]


class ShowGraph(LearnerCallback):
    """Draws training and validation losses under the table after each epoch, in a notebook; elsewhere nothing."""

    role = "watching"
    figure: Any = None

    def on_epoch_end(self, pbar: Any) -> None:
        if pbar.face != "notebook":
            return
        import matplotlib.pyplot as plt
        if self.figure is None:
            self.figure = plt.figure(figsize=(6.4, 4), layout="constrained")
            plt.close(self.figure)  # the bars show it; the notebook would show it once more
        self.figure.clear()
        self.learn.recorder.plot_losses(ax=self.figure.add_subplot())
        pbar.graph(self.figure)

    def on_train_end(self) -> None:
        self.figure = None
