"""What a trained model says: a validation outside of a fit, predictions, and where they are wrong."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import loop, plots
from .callback import Callback, CallbackHandler
from .checkpoint import preserved
from .data import DatasetType
from .layers import loss_activation, unreduced
from .metrics import as_metric
from .progress import Progress
from .state import State
from .utils import frames_forgotten, listify, to_detach

__all__ = ["ClassificationInterpretation", "run_validation", "predictions", "prediction"]


def run_validation(learn: Any, dl: Any, metrics: Sequence[Any], callbacks: Any = None, view: Any = None) -> State:
    """One pass over `dl` in eval mode, with these callbacks too, and its state; the learner is left as it was.

    `view` takes the learner's place in the loop.
    """
    with preserved(learn, listify(learn.callbacks), weights=False):
        state = State(metrics=list(metrics), train=False, pbar=Progress(1, silent=True))
        handler = CallbackHandler(learn.taking_part(callbacks, in_fit=False), [as_metric(m) for m in metrics], state)
        with frames_forgotten(), handler.running():
            loop.validate(view or learn, handler, dl)
    return state


def predictions(learn: Any, dl: Any, activ: Callable[[Tensor], Tensor] | None = None,
                with_loss: bool = False) -> list[Any]:
    """[predictions, targets, losses, outputs] of every sample of `dl`, on the CPU; losses are 0 unless asked for."""
    collect = _Collect(unreduced(learn.loss_func) if with_loss else _no_loss)
    view = SimpleNamespace(model=learn.model, loss_func=_no_loss)  # the targets of test data are none
    run_validation(learn, dl, [], collect, view)
    outputs, targets, losses = collect.joined()
    return [(activ or loss_activation(learn.loss_func))(outputs), targets, losses, outputs]


def prediction(learn: Any, item: Any) -> tuple[Any, Tensor, Tensor]:
    """(class, index, probabilities) of one item; without classes (prediction, prediction, output)."""
    dl = learn.data.wrap([(learn.data.prepare_item(item), torch.zeros(1))])
    pred, _, _, output = (x[0] for x in predictions(learn, dl))
    if learn.data.classes is None:
        return pred, pred, output
    return learn.data.classes[int(pred.argmax())], pred.argmax(), pred


class _Collect(Callback):
    """Keeps outputs, targets and losses (by `loss_func`) of a validation, on the CPU."""

    def __init__(self, loss_func: Callable[..., Tensor]) -> None:
        self.loss_func = loss_func
        self.kept: list[Any] = []

    def on_batch_end(self, last_output: Any, last_target: Any) -> None:
        losses = self.loss_func(last_output, *listify(last_target))  # here, where a loss with weights has them
        self.kept.append(to_detach((last_output, last_target, losses)))

    def joined(self) -> Any:
        if not self.kept:
            raise ValueError("there is not one batch to predict on")
        return _cat(self.kept)


def _cat(batches: list[Any]) -> Any:
    if isinstance(batches[0], Mapping):
        return {k: _cat([batch[k] for batch in batches]) for k in batches[0]}
    if isinstance(batches[0], (list, tuple)):
        return [_cat(list(part)) for part in zip(*batches, strict=True)]
    return torch.cat(batches) if batches[0].ndim else torch.stack(batches)


def _no_loss(*args: Any) -> Tensor:
    return torch.zeros(())


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
