"""Over how much the loss of a batch, and of a sample, is a mean: what weighs it in a mean over several."""
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

from .losses import BCEWithLogitsFlat, CrossEntropyFlat, LabelSmoothingCrossEntropy, MSELossFlat, written
from .torch_private import nll_total
from .utils import batch_length, first_tensor, listify, map_tensors, on_host, wide

__all__ = ["batch_weight", "sample_weights", "unreduced"]

# torch's losses that are a mean over the targets that count, by the weights of their classes
_OF_CLASSES: tuple[type, ...] = (nn.CrossEntropyLoss, nn.NLLLoss)
if hasattr(nn, "LinearCrossEntropyLoss"):   # of the newest torch
    _OF_CLASSES += (nn.LinearCrossEntropyLoss,)

# classes of which it is known without a look that they are no partials, not compiled, and without a denominator
_PLAIN = {CrossEntropyFlat, LabelSmoothingCrossEntropy, MSELossFlat, BCEWithLogitsFlat,
          *(kind for name, kind in vars(nn).items() if name.endswith("Loss"))}
_NOTHING: dict[str, Any] = {}


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
    core, args, keywords = loss_func, (), _NOTHING
    if type(loss_func) not in _PLAIN or "denominator" in vars(loss_func):
        core, args, keywords = written(loss_func)
        if (own := getattr(core, "denominator", None)) is not None:
            return own(*args, output, *listify(target), **keywords)
    # `_reduction` and `_is_of_classes`, written out: each call would cost every batch
    if (keywords.get("reduction") or getattr(core, "reduction", "mean")) == "sum":
        return None
    if isinstance(core, _OF_CLASSES) or core is F.cross_entropy or core is F.nll_loss:
        first = target[0] if isinstance(target, list) else target
        if isinstance(first, Tensor):
            return _weight_of(first, core, keywords) if (total := nll_total(loss)) is None else total
    return batch_length(target, inputs)


def _reduction(core: Any, keywords: dict[str, Any]) -> str:
    return str(keywords.get("reduction") or getattr(core, "reduction", "mean"))


def _is_of_classes(core: Any) -> bool:
    return core is F.cross_entropy or core is F.nll_loss or isinstance(core, _OF_CLASSES)


def _class_weights(core: Any, keywords: dict[str, Any]) -> tuple[Tensor | None, int]:
    weight = keywords.get("weight", getattr(core, "weight", None))
    ignored = keywords.get("ignore_index", getattr(core, "ignore_index", None))
    return weight, -100 if ignored is None else ignored


def _weight_of(target: Tensor, core: Any, keywords: dict[str, Any]) -> Any:
    weight, ignored = _class_weights(core, keywords)
    if weight is None and target.device.type == "cpu" and not target.is_floating_point():
        return int(np.count_nonzero(target.numpy() != ignored))     # a third of what the tensors' own way takes
    return on_host(_weight_of_each(target, weight, ignored).sum())


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
    core, args, keywords = written(loss_func)
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
    core, args, keywords = written(loss_func)
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
