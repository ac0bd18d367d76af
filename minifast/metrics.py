"""Metric functions: each of a batch's outputs and targets, one number. `columns.py` makes columns of them."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor

from .checks import positive_int
from .utils import wide

__all__ = ["accuracy", "error_rate", "accuracy_thresh", "top_k_accuracy", "foreground_acc", "dice", "fbeta",
           "mean_absolute_error", "mae", "mean_squared_error", "mse", "root_mean_squared_error", "rmse",
           "mean_squared_logarithmic_error", "msle", "psnr", "exp_rmspe", "explained_variance", "r2_score", "whole_set",
           "mean_over"]

MetricFunc = TypeVar("MetricFunc", bound=Callable[..., Any])

# Each function takes a batch's outputs and targets and returns one number as a tensor on their device, without waiting
# for it. Half-precision outputs are widened first: float16 overflows in a sum of squares, bfloat16 has three digits.


def whole_set(func: MetricFunc) -> MetricFunc:
    """Mark a metric that is no mean over samples: it is computed once, from all outputs and targets of the set.

    Averaged batch by batch it would depend on the batch size. The outputs stay on their device until the epoch's end.

    >>> @whole_set
    ... def largest(output, target): return output.max()
    """
    func.whole_set = True  # type: ignore[attr-defined]
    return func


def mean_over(denominator: Callable[..., Any]) -> Callable[[MetricFunc], MetricFunc]:
    """Mark a metric (or a loss function) that is no mean over samples but over what `denominator` returns for the same
    arguments: see `batch_weight`.

    >>> @mean_over(lambda output, target: (target > 0).sum())
    ... def accuracy_of_words(output, target): return (output.argmax(1) == target)[target > 0].float().mean()
    """
    def mark(func: MetricFunc) -> MetricFunc:
        func.denominator = denominator  # type: ignore[attr-defined]
        return func
    return mark


def _fit(name: str, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both with one dimension; ValueError unless their shapes agree, dimensions of 1 apart."""
    if [d for d in predictions.shape if d != 1] != [d for d in target.shape if d != 1]:
        raise ValueError(f"{name}: predictions of shape {tuple(predictions.shape)} do not fit targets of shape "
                         f"{tuple(target.shape)}")
    return predictions.flatten(), target.flatten()


def _fit_wide(name: str, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    output, target = _fit(name, output, target)
    return wide(output), wide(target)


# ---- classes. Targets of `ignore_index` are left out, by default those that torch's cross-entropy ignores.

def _count(output: Tensor, target: Tensor, ignore_index: int = -100, **kwargs: Any) -> Tensor:
    return (target != ignore_index).sum()


def _share(right: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    counts = target != ignore_index
    return (right & counts).sum() / counts.sum()


@mean_over(_count)
def accuracy(output: Tensor, target: Tensor, axis: int = -1, ignore_index: int = -100) -> Tensor:
    """Share of targets (...) that are the class with the largest output, classes along `axis` (default the last).

    `ignore_index`: targets that do not count. NaN if there are no others. ValueError for fewer than two classes.

    >>> accuracy(tensor([[1.0, 2.0], [3.0, 0.0], [5.0, 1.0]]), tensor([1, 1, -100]))
    tensor(0.5000)
    """
    if output.shape[axis] < 2:
        raise ValueError(f"accuracy compares at least two classes, but the outputs have shape {tuple(output.shape)}; "
                         "for one output use accuracy_thresh")
    predicted, target = _fit("accuracy", output.argmax(axis), target)
    return _share(predicted == target, target, ignore_index)


@mean_over(_count)
def error_rate(output: Tensor, target: Tensor, axis: int = -1, ignore_index: int = -100) -> Tensor:
    """1 - `accuracy`.

    >>> error_rate(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    tensor(0.5000)
    """
    return 1 - accuracy(output, target, axis, ignore_index)


@mean_over(_count)
def top_k_accuracy(output: Tensor, target: Tensor, k: int = 5, axis: int = -1, ignore_index: int = -100) -> Tensor:
    """Share of targets (...) that are among the `k` classes with the largest outputs, classes along `axis`; targets of
    `ignore_index` do not count. ValueError if there are fewer than `k` classes.

    >>> top_k_accuracy(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([1]), k=2)
    tensor(1.)
    """
    output = output.movedim(axis, -1)
    if positive_int("k", k) > output.shape[-1]:
        raise ValueError(f"top_k_accuracy: k is {k}, but the outputs have only {output.shape[-1]} classes")
    _, target = _fit("top_k_accuracy", output[..., 0], target)
    return _share((output.topk(k).indices.flatten(0, -2) == target[:, None]).any(1), target, ignore_index)


@mean_over(_count)
def accuracy_thresh(output: Tensor, target: Tensor, thresh: float = 0.5, sigmoid: bool = True,
                    ignore_index: int = -100) -> Tensor:
    """Share of targets, each 0 or 1, that are 1 exactly where the output (after a sigmoid if `sigmoid`) > `thresh`;
    targets of `ignore_index` do not count.

    >>> accuracy_thresh(torch.tensor([[2.0], [-2.0]]), torch.tensor([[1.0], [1.0]]))
    tensor(0.5000)
    """
    output, target = _fit("accuracy_thresh", output, target)
    return _share(((wide(output).sigmoid() if sigmoid else output) > thresh) == target, target, ignore_index)


@mean_over(lambda output, target, void_code: (target != void_code).sum())
def foreground_acc(output: Tensor, target: Tensor, void_code: int) -> Tensor:
    """`accuracy` over pixels that are not `void_code`: outputs (n, c, ...), targets (n, ...) or (n, 1, ...).

    >>> outputs = torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]])
    >>> foreground_acc(outputs, torch.tensor([[[1, 9]]]), void_code=9)
    tensor(1.)
    """
    return accuracy(output, target, axis=1, ignore_index=void_code)


def dice(output: Tensor, target: Tensor, iou: bool = False, eps: float = 1e-8, ignore_index: int = -100) -> Tensor:
    """Mean over images of the Dice coefficient of class 1 (with `iou` of intersection over union); 1 if both are empty.

    Outputs (n, 2, ...) and targets 0 or 1, (n, ...) or (n, 1, ...); pixels of `ignore_index` do not count. ValueError
    for another number of classes.

    >>> dice(torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]), torch.tensor([[1, 0]]))
    tensor(0.6667)
    """
    if output.ndim < 2 or output.shape[1] != 2:
        raise ValueError(f"dice is for two classes: the outputs must have shape (n, 2, ...), not {tuple(output.shape)}")
    predicted, target = (x.view(len(output), -1) for x in _fit("dice", output.argmax(1), target))
    predicted, target = (predicted == 1) & (target != ignore_index), target == 1
    overlap, total = (predicted & target).sum(1), predicted.sum(1) + target.sum(1)
    score = overlap / (total - overlap + eps) if iou else 2 * overlap / total
    return score.masked_fill(total == 0, 1.0).mean()  # where() would copy the 1.0 to a GPU and wait


def fbeta(output: Tensor, target: Tensor, thresh: float = 0.2, beta: float = 2, eps: float = 1e-9,
          sigmoid: bool = True) -> Tensor:
    """Mean over samples of F-beta for several labels a sample: outputs and targets (n, c), targets 0 or 1.

    A label is predicted if the output (after a sigmoid if `sigmoid`) > `thresh`. A sample of which no label is found
    scores 0. ValueError for other shapes.

    >>> round(float(fbeta(torch.tensor([[2.0, -2.0]]), torch.tensor([[1.0, 0.0]]))), 4)
    1.0
    """
    if output.ndim != 2 or output.shape != target.shape:
        raise ValueError(f"fbeta needs outputs and targets of the same shape (n, c), not {tuple(output.shape)} and "
                         f"{tuple(target.shape)}")
    predicted, true = ((wide(output).sigmoid() if sigmoid else output) > thresh).float(), target.float()
    found = (predicted * true).sum(1)
    precision, recall = found / (predicted.sum(1) + eps), found / (true.sum(1) + eps)
    return ((1 + beta**2) * precision * recall / (beta**2 * precision + recall + eps)).mean()


# ---- quantities: outputs and targets in the same shape, dimensions of 1 apart

def mean_absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of |output - target|.

    >>> mean_absolute_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor(0.5000)
    """
    return F.l1_loss(*_fit_wide("mean_absolute_error", output, target))


def mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of (output - target)².

    >>> mean_squared_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor(0.5000)
    """
    return F.mse_loss(*_fit_wide("mean_squared_error", output, target))


@whole_set
def root_mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Square root of the mean of (output - target)².

    >>> root_mean_squared_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor(0.7071)
    """
    return F.mse_loss(*_fit_wide("root_mean_squared_error", output, target)).sqrt()


def mean_squared_logarithmic_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of (log(1 + output) - log(1 + target))²; nan where one of them is below -1.

    >>> mean_squared_logarithmic_error(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor(0.)
    """
    output, target = _fit_wide("mean_squared_logarithmic_error", output, target)
    return F.mse_loss(output.log1p(), target.log1p())


@whole_set
def exp_rmspe(output: Tensor, target: Tensor) -> Tensor:
    """Root mean squared percentage error of exp(output) against exp(target): for targets that are logarithms.

    >>> round(float(exp_rmspe(torch.tensor([0.1]), torch.tensor([0.0]))), 4)
    0.1052
    """
    output, target = _fit_wide("exp_rmspe", output, target)
    return (output - target).expm1().square().mean().sqrt()


@whole_set
def explained_variance(output: Tensor, target: Tensor) -> Tensor:
    """1 - variance of (target - output) / variance of the targets; no finite number if the targets are all equal.

    >>> explained_variance(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.0, 4.0]))
    tensor(1.)
    """
    output, target = _fit_wide("explained_variance", output, target)
    return 1 - (target - output).var(correction=0) / target.var(correction=0)


@whole_set
def r2_score(output: Tensor, target: Tensor) -> Tensor:
    """1 - mean of (target - output)² / variance of the targets; no finite number if the targets are all equal.

    >>> r2_score(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
    tensor(1.)
    """
    output, target = _fit_wide("r2_score", output, target)
    return 1 - F.mse_loss(output, target) / target.var(correction=0)


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels, of values from 0 to 1: -10 log10 of the mean squared error of the set.

    >>> round(float(psnr(torch.tensor([0.5]), torch.tensor([0.6]))), 2)
    20.0
    """
    return -10 * mean_squared_error(output, target).log10()


# a column is this of the mean over the set: no output has to be kept for it
psnr.of_mean = (mean_squared_error, lambda error: -10 * math.log10(error) if error else math.inf)  # type: ignore[attr-defined]

mae, mse, rmse, msle = mean_absolute_error, mean_squared_error, root_mean_squared_error, mean_squared_logarithmic_error
