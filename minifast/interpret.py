"""Where a trained model is wrong."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import plots
from .data import DatasetType

__all__ = ["ClassificationInterpretation"]


class ClassificationInterpretation:
    """Where a classifier is wrong: `learn.interpret()`.

    `preds` (n, c), `y_true` (n,) and `losses` (n,) are those of `learn.get_preds(ds_type, with_loss=True)`.
    """

    def __init__(self, learn: Any, preds: Tensor, y_true: Tensor, losses: Tensor) -> None:
        self.preds, self.y_true, self.losses = preds, y_true, losses
        self.pred_class = preds.argmax(1)
        self.classes = learn.data.classes or list(range(preds.shape[1]))

    @classmethod
    def from_learner(cls, learn: Any, ds_type: DatasetType = DatasetType.Valid) -> ClassificationInterpretation:
        """Of the learner's predictions as they are now."""
        return cls(learn, *learn.get_preds(ds_type, with_loss=True))

    def top_losses(self, k: int | None = None, largest: bool = True) -> tuple[Tensor, Tensor]:
        """The `k` largest (or smallest) losses, in order, and the indices of their samples; all of them by default."""
        values, indices = self.losses.sort(descending=largest, stable=True)
        return values[:k], indices[:k]

    def confusion_matrix(self) -> Any:
        """(c, c) counts as a numpy array: rows are the actual classes, columns the predicted ones."""
        c = len(self.classes)
        return torch.bincount(self.y_true * c + self.pred_class, minlength=c * c).view(c, c).numpy()

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """(actual, predicted, count) of the confusions that occur `min_val` times or more, the most frequent first."""
        counts = self.confusion_matrix()
        found = [(self.classes[i], self.classes[j], int(n)) for (i, j), n in _cells(counts) if i != j and n >= min_val]
        return sorted(found, key=lambda confusion: -confusion[2])

    def plot_confusion_matrix(self, ax: Any = None, return_fig: bool = False) -> Any:
        """Draw the confusion matrix with its counts."""
        counts = self.confusion_matrix()
        axis = plots.plot_matrix(counts, [str(c) for c in self.classes], "Predicted", "Actual", ax)
        return plots.finished(axis.figure, ax, return_fig)


def _cells(counts: Any) -> Any:
    return (((i, j), n) for i, row in enumerate(counts) for j, n in enumerate(row))
