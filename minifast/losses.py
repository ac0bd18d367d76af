"""Losses for outputs of any shape, and what is known of a loss: its activation, its loss of each sample."""
from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import number
from .torch_private import as_written, nll_total
from .utils import batch_length, first_tensor, listify, map_tensors, shape_of, wide

__all__ = ["CrossEntropyFlat", "LabelSmoothingCrossEntropy", "MSELossFlat", "BCEWithLogitsFlat", "loss_activation",
           "task_of", "class_axis", "batch_weight", "sample_weights", "unreduced"]


class CrossEntropyFlat(nn.CrossEntropyLoss):
    """Cross entropy of logits, classes along `axis` among any other dimensions, with whole-number targets of the rest.

    Takes torch's own arguments too. ValueError if the targets do not fit, TypeError if they are not whole numbers.
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
    """Cross entropy with the share `eps` of each target spread over all classes (arXiv 1512.00567, section 7)."""

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
    """Mean squared error of outputs and as many targets, in any shape; ValueError if their numbers differ."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return super().forward(*_flat(self, output, target))

    def activation(self, output: Tensor) -> Tensor:
        """The outputs themselves."""
        return output


class BCEWithLogitsFlat(nn.BCEWithLogitsLoss):
    """Binary cross entropy of logits and as many targets, in any shape; ValueError if their numbers differ."""

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

# torch's losses that are a mean over the targets that count, by the weights of their classes
_OF_CLASSES: tuple[type, ...] = (nn.CrossEntropyLoss, nn.NLLLoss)
if hasattr(nn, "LinearCrossEntropyLoss"):   # of the newest torch
    _OF_CLASSES += (nn.LinearCrossEntropyLoss,)


def _core(loss_func: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What is behind partials and `torch.compile`, and the arguments and keywords that the partials give it."""
    args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    while True:
        if isinstance(loss_func, partial):
            args, keywords = (*loss_func.args, *args), {**loss_func.keywords, **keywords}
            loss_func = loss_func.func
        elif (written := as_written(loss_func)) is not None:
            loss_func = written
        else:
            return loss_func, args, keywords


def loss_activation(loss_func: Any) -> Callable[[Tensor], Tensor]:
    """What turns outputs into predictions: the loss's own `activation`, that of a loss of torch, or nothing.

    `loss_func`: a loss function, also through `partial`.

    >>> loss_activation(nn.BCEWithLogitsLoss())(torch.zeros(1))
    tensor([0.5000])
    """
    loss_func, _, _ = _core(loss_func)
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
    loss_func, *_ = _core(loss_func)
    known = [loss_func] if inspect.isroutine(loss_func) else type(loss_func).__mro__
    return getattr(loss_func, "task", None) or next((_TASKS[k] for k in known if k in _TASKS), None)


def class_axis(loss_func: Any) -> int:
    """The axis of a batch's outputs along which a classifier's loss has the classes: its attribute `axis`, else 1 as in
    torch's losses."""
    loss_func, *_ = _core(loss_func)
    return getattr(loss_func, "axis", 1)


# ---- over how much a loss is a mean

def batch_weight(loss_func: Any, output: Any, target: Any, inputs: Any = None, loss: Any = None) -> Any:
    """Over how much the loss of a batch is a mean: the weight with which it joins the mean over several batches.

    `loss_func(output, *target)` is the loss (or a metric). The weight is, of these, the first that applies:

    * the loss's own `denominator`: a method or attribute, called with the same arguments as the loss. It returns a
      number, a tensor of one number, or None if the loss is a sum;
    * None for `reduction="sum"`: such losses are added;
    * for cross-entropy and NLL the number of targets that are not `ignore_index`, or the sum of their classes' weights;
    * the number of samples: see `batch_length` (of `target`, else of `inputs`).

    It is a number if that is known without waiting for a GPU, else a tensor on the batch's device. 0 means that nothing
    in the batch counts; its loss is then no number. `loss`: what `loss_func` has returned, if it is at hand with its
    graph, where torch keeps the sum.

    >>> batch_weight(nn.CrossEntropyLoss(ignore_index=9), torch.randn(4, 3), tensor([0, 9, 9, 2]))
    2
    >>> class Masked(nn.Module):
    ...     def forward(self, output, target, mask): return ((output - target)**2 * mask).sum() / mask.sum()
    ...     def denominator(self, output, target, mask): return mask.sum()
    >>> batch_weight(Masked(), torch.ones(3), [torch.zeros(3), tensor([1, 1, 0])])
    tensor(2)
    """
    core, args, keywords = _core(loss_func)
    if (own := getattr(core, "denominator", None)) is not None:
        return own(*args, output, *listify(target), **keywords)
    if _reduction(core, keywords) == "sum":
        return None
    if _is_of_classes(core) and isinstance(first := target[0] if isinstance(target, list) else target, Tensor):
        return _on_host(total) if (total := nll_total(loss)) is not None else _weight_of(first, core, keywords)
    return batch_length(target, inputs)


def _reduction(core: Any, keywords: dict[str, Any]) -> str:
    return str(keywords.get("reduction") or getattr(core, "reduction", "mean"))


def _is_of_classes(core: Any) -> bool:
    return core is F.cross_entropy or core is F.nll_loss or isinstance(core, _OF_CLASSES)


def _on_host(total: Tensor) -> Any:
    return total.numpy().item() if total.device.type == "cpu" else total


def _class_weights(core: Any, keywords: dict[str, Any]) -> tuple[Tensor | None, int]:
    weight = keywords.get("weight", getattr(core, "weight", None))
    ignored = keywords.get("ignore_index", getattr(core, "ignore_index", None))
    return weight, -100 if ignored is None else ignored


def _weight_of(target: Tensor, core: Any, keywords: dict[str, Any]) -> Any:
    weight, ignored = _class_weights(core, keywords)
    if weight is None and target.device.type == "cpu" and not target.is_floating_point():
        return int(np.count_nonzero(target.numpy() != ignored))     # a third of what the tensors' own way takes
    return _on_host(_weight_of_each(target, weight, ignored).sum())


def _weight_of_each(target: Tensor, weight: Tensor | None, ignored: int) -> Tensor:
    if target.is_floating_point():  # shares of the classes: torch takes the mean over all, whatever the classes weigh
        return torch.ones_like(target.select(min(1, target.ndim - 1), 0))
    counts = (target := target.long()) != ignored
    return counts if weight is None else wide(weight)[target.masked_fill(~counts, 0)] * counts


def sample_weights(loss_func: Any) -> Callable[..., Tensor | None]:
    """A function of (output, *targets): the weight of each sample's loss in the batch's, (n,); None: all weigh 1.

    As `batch_weight`, for samples instead of batches.

    >>> sample_weights(nn.CrossEntropyLoss(weight=tensor([1.0, 3.0])))(torch.randn(2, 2), tensor([0, 1]))
    tensor([1., 3.])
    """
    core, args, keywords = _core(loss_func)
    own = getattr(core, "denominator", None)

    def weights(output: Any, *targets: Any) -> Tensor | None:
        n = batch_length(output)
        if own is not None:     # of a batch it is known only as a whole: each sample is one
            each = [map_tensors([output, *targets], lambda t, i=i: t[i:i + 1]) for i in range(n)]  # type: ignore[misc]
            found = [own(*args, *arguments, **keywords) for arguments in each]
            device = first_tensor(output).device    # type: ignore[union-attr]
            return None if None in found else torch.stack([torch.as_tensor(w, device=device) for w in found])
        if not _is_of_classes(core) or _reduction(core, keywords) == "sum" or not isinstance(targets[0], Tensor):
            return None
        return _weight_of_each(targets[0], *_class_weights(core, keywords)).reshape(n, -1).sum(1)
    return weights


def unreduced(loss_func: Any) -> Callable[..., Tensor]:
    """A function of (output, *targets): the loss of each sample, (n,), as `loss_func` would give it for that sample
    alone. What it ignores does not count; 0 for a sample in which all is ignored.

    `loss_func`: a loss with a `reduction`, as attribute or argument; it is copied, never changed. TypeError for others.

    >>> unreduced(nn.MSELoss())(torch.zeros(2, 2), tensor([[1.0, 3.0], [0.0, 0.0]]))
    tensor([5., 0.])
    """
    core, args, keywords = _core(loss_func)
    if hasattr(core, "reduction"):
        each = copy.copy(core)
        each.reduction = "none"
        each = partial(each, *args, **keywords)
    elif _takes_reduction(core):
        each = partial(core, *args, **{**keywords, "reduction": "none"})
    else:
        raise TypeError(f"{loss_func!r} cannot give one loss for each sample: it has no `reduction`")
    is_sum, weights = _reduction(core, keywords) in ("sum", "batchmean"), sample_weights(loss_func)

    def losses(output: Any, *targets: Any) -> Tensor:
        parts: Tensor = each(output, *targets).reshape(batch_length(output), -1)
        if is_sum:
            return parts.sum(1)
        if (w := weights(output, *targets)) is None:
            return parts.mean(1)
        return (parts.sum(1) / w).masked_fill(w == 0, 0.0)
    return losses


def _takes_reduction(func: Any) -> bool:
    try:
        return "reduction" in inspect.signature(func).parameters
    except ValueError:      # built in, without a signature
        return False
