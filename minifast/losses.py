"""Losses for outputs of any shape, and what is known of a loss: its activation, its loss of each sample."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import number
from .torch_private import as_written
from .utils import shape_of

__all__ = ["CrossEntropyFlat", "LabelSmoothingCrossEntropy", "MSELossFlat", "BCEWithLogitsFlat", "loss_activation",
           "task_of", "class_axis", "LossFunction"]

# of (outputs, targets, ...), a tensor of one number: the mean over the batch
LossFunction = Callable[..., Tensor]


class CrossEntropyFlat(nn.CrossEntropyLoss):
    """Cross entropy of logits, classes along `axis` among any other dimensions, with whole-number targets of the rest.

    Takes torch's own arguments too. ValueError if the targets do not fit, TypeError if they are not whole numbers.

    >>> CrossEntropyFlat()(torch.zeros(2, 3, 4), torch.ones(2, 3).long())    # of 4 classes, for 2 x 3 targets
    tensor(1.3863)
    """

    def __init__(self, *args: Any, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.axis = axis

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise _no_tensor(self, output)
        logits = output.movedim(self.axis, -1)
        logits = logits.reshape(-1, logits.shape[-1])
        if target.is_floating_point():
            raise TypeError(f"{type(self).__name__} needs class numbers as targets, not {target.dtype}; "
                            "to predict quantities use MSELossFlat")
        if target.numel() != len(logits):
            raise ValueError(f"{type(self).__name__}: outputs of shape {tuple(output.shape)} with classes along axis "
                             f"{self.axis} need {len(logits)} targets, but these have shape {tuple(target.shape)}")
        try:
            return super().forward(logits, target.reshape(-1).long())
        except IndexError as e:     # only the CPU says so; looking before each batch would make a GPU wait
            raise ValueError(f"{type(self).__name__}: the model has {logits.shape[-1]} outputs, for the classes 0 to "
                             f"{logits.shape[-1] - 1}, but the targets go from {target.min()} to {target.max()}") from e

    def activation(self, output: Tensor) -> Tensor:
        """Probabilities."""
        return output.softmax(self.axis)


class LabelSmoothingCrossEntropy(CrossEntropyFlat):
    """Cross entropy with the share `eps` of each target spread over all classes (arXiv 1512.00567, section 7).

    `eps`: the share, from 0 to 1, 0.1 by default. `reduction`: as in torch's losses.

    >>> LabelSmoothingCrossEntropy(eps=0.5)(tensor([[9.0, 0.0]]), tensor([0]))
    tensor(2.2501)
    """

    def __init__(self, eps: float = 0.1, reduction: str = "mean") -> None:
        if not 0 <= number("eps", eps) <= 1:
            raise ValueError(f"eps is a share of each target, from 0 to 1, not {eps}")
        super().__init__(label_smoothing=eps, reduction=reduction)


def _no_tensor(loss: nn.Module, output: Any) -> TypeError:
    return TypeError(f"{type(loss).__name__} takes one tensor, and the model returned a {type(output).__name__} "
                     f"({shape_of(output)}): give loss_func= a function of the outputs and the targets that takes it "
                     "apart")


def _flat(loss: nn.Module, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(output, Tensor):
        raise _no_tensor(loss, output)
    if output.numel() != target.numel():    # torch would stretch the smaller one to fit
        raise ValueError(f"{type(loss).__name__}: outputs of shape {tuple(output.shape)} do not fit targets of shape "
                         f"{tuple(target.shape)}")
    return output.reshape(-1), (target if target.is_floating_point() else target.float()).reshape(-1)


class MSELossFlat(nn.MSELoss):
    """Mean squared error of outputs and as many targets, in any shape; ValueError if their numbers differ.

    >>> MSELossFlat()(tensor([[1.0], [3.0]]), tensor([1, 1]))
    tensor(2.)
    """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return super().forward(*_flat(self, output, target))

    def activation(self, output: Tensor) -> Tensor:
        """The outputs themselves."""
        return output


class BCEWithLogitsFlat(nn.BCEWithLogitsLoss):
    """Binary cross entropy of logits and as many targets, in any shape; ValueError if their numbers differ.

    >>> BCEWithLogitsFlat()(torch.zeros(2, 1), tensor([0, 1]))
    tensor(0.6931)
    """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return super().forward(*_flat(self, output, target))

    def activation(self, output: Tensor) -> Tensor:
        """Probabilities."""
        return output.sigmoid()


# ---- what is known of a loss

_TORCH_ACTIVATIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys((nn.CrossEntropyLoss, F.cross_entropy), partial(torch.softmax, dim=1)),
    **dict.fromkeys((nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits), torch.sigmoid),
    **dict.fromkeys((nn.NLLLoss, F.nll_loss, nn.PoissonNLLLoss, F.poisson_nll_loss), torch.exp),
}

def written(loss_func: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What is behind partials and `torch.compile`, and the arguments and keywords that the partials give it."""
    args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    while True:
        if isinstance(loss_func, partial):
            args, keywords = (*loss_func.args, *args), {**loss_func.keywords, **keywords}
            loss_func = loss_func.func
        elif (original := as_written(loss_func)) is not None:
            loss_func = original
        else:
            return loss_func, args, keywords


def loss_activation(loss_func: Any) -> Callable[[Tensor], Tensor]:
    """What turns outputs into predictions: the loss's own `activation`, that of a loss of torch, or nothing.

    `loss_func`: a loss function, also through `partial`.

    >>> loss_activation(nn.BCEWithLogitsLoss())(torch.zeros(1))
    tensor([0.5000])
    """
    loss_func, _, _ = written(loss_func)
    if (own := getattr(loss_func, "activation", None)) is not None:
        return own  # type: ignore[no-any-return]
    known = [loss_func] if inspect.isroutine(loss_func) else type(loss_func).__mro__
    return next((_TORCH_ACTIVATIONS[k] for k in known if k in _TORCH_ACTIVATIONS), lambda output: output)


_TASKS: dict[Any, str] = {
    **dict.fromkeys((nn.CrossEntropyLoss, F.cross_entropy, nn.NLLLoss, F.nll_loss, nn.MultiMarginLoss,
                     F.multi_margin_loss), "classes"),
    **dict.fromkeys((nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, nn.BCELoss, F.binary_cross_entropy,
                     nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss), "labels"),
    **dict.fromkeys((nn.MSELoss, F.mse_loss, nn.L1Loss, F.l1_loss, nn.SmoothL1Loss, F.smooth_l1_loss, nn.HuberLoss,
                     F.huber_loss, nn.PoissonNLLLoss, F.poisson_nll_loss), "quantities"),
}


def task_of(loss_func: Any) -> str | None:
    """What a loss of torch, or of a class made from one, is for: "classes" (one of several along an axis), "labels"
    (each output says yes or no) or "quantities"; of any other its attribute `task`, or None.

    >>> task_of(partial(F.cross_entropy, label_smoothing=0.1)), task_of(BCEWithLogitsFlat()), task_of(max)
    ('classes', 'labels', None)
    """
    loss_func, *_ = written(loss_func)
    known = [loss_func] if inspect.isroutine(loss_func) else type(loss_func).__mro__
    return getattr(loss_func, "task", None) or next((_TASKS[k] for k in known if k in _TASKS), None)


def class_axis(loss_func: Any) -> int:
    """The axis of a batch's outputs along which a classifier's loss has the classes: its attribute `axis`, else 1 as in
    torch's losses.

    >>> class_axis(CrossEntropyFlat()), class_axis(nn.CrossEntropyLoss())
    (-1, 1)
    """
    loss_func, *_ = written(loss_func)
    return getattr(loss_func, "axis", 1)
