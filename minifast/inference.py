"""What a trained model says: a validation outside of a fit, and predictions."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import loop
from .callback import Callback, CallbackHandler
from .losses import loss_activation, unreduced
from .metrics import as_metric
from .progress import Progress
from .snapshot import preserved
from .state import State
from .utils import frames_forgotten, listify, to_detach

__all__ = ["run_validation", "predictions", "prediction"]


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
