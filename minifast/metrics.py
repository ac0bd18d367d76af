"""Metric functions, and the callbacks that turn a function into one number for the whole validation set."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .callback import Callback
from .checks import check_callable, positive_int
from .state import Changes
from .utils import batch_length, camel2snake, listify, to_detach, weighted_mean

__all__ = ["accuracy", "error_rate", "accuracy_thresh", "top_k_accuracy", "dice", "fbeta", "mean_absolute_error", "mae",
           "mean_squared_error", "mse", "root_mean_squared_error", "rmse", "mean_squared_logarithmic_error", "msle",
           "exp_rmspe", "explained_variance", "r2_score", "whole_set", "AverageMetric", "WholeSetMetric", "metric_name",
           "as_metric"]

MetricFunc = TypeVar("MetricFunc", bound=Callable[..., Any])

# Each function takes a batch's outputs and targets and returns one number as a tensor on their device, without waiting
# for it. Half-precision outputs are widened first: float16 overflows in a sum of squares, bfloat16 has three digits.


def whole_set(func: MetricFunc) -> MetricFunc:
    """Mark a metric that is no mean over samples: it is computed once, from all outputs and targets of the set.

    Averaged batch by batch it would depend on the batch size. The outputs stay on their device until the epoch's end.
    """
    func.whole_set = True  # type: ignore[attr-defined]
    return func


def _fit(name: str, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both with one dimension; ValueError unless their shapes agree, dimensions of 1 apart."""
    if [d for d in predictions.shape if d != 1] != [d for d in target.shape if d != 1]:
        raise ValueError(f"{name}: predictions of shape {tuple(predictions.shape)} do not fit targets of shape "
                         f"{tuple(target.shape)}")
    return predictions.flatten(), target.flatten()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _fit_wide(name: str, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    output, target = _fit(name, output, target)
    return _wide(output), _wide(target)


# ---- classes

def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of targets (...) that are the class with the largest output (..., c). ValueError if c is 1."""
    if output.shape[-1] < 2:
        raise ValueError(f"accuracy compares at least two classes, but the outputs have shape {tuple(output.shape)}; "
                         "for one output use accuracy_thresh")
    predicted, target = _fit("accuracy", output.argmax(-1), target)
    return (predicted == target).float().mean()


def error_rate(output: Tensor, target: Tensor) -> Tensor:
    """1 - `accuracy`."""
    return 1 - accuracy(output, target)


def top_k_accuracy(output: Tensor, target: Tensor, k: int = 5) -> Tensor:
    """Share of targets (...) that are among the `k` classes with the largest outputs (..., c). ValueError if k > c."""
    if positive_int("k", k) > output.shape[-1]:
        raise ValueError(f"top_k_accuracy: k is {k}, but the outputs have only {output.shape[-1]} classes")
    _, target = _fit("top_k_accuracy", output[..., 0], target)
    return (output.topk(k).indices.flatten(0, -2) == target[:, None]).any(1).float().mean()


def accuracy_thresh(output: Tensor, target: Tensor, thresh: float = 0.5, sigmoid: bool = True) -> Tensor:
    """Share of targets, each 0 or 1, that are 1 exactly where the output (after a sigmoid if `sigmoid`) > `thresh`."""
    output, target = _fit("accuracy_thresh", output, target)
    return ((_wide(output).sigmoid() if sigmoid else output) > thresh).eq(target).float().mean()


def dice(output: Tensor, target: Tensor, iou: bool = False, eps: float = 1e-8) -> Tensor:
    """Mean over images of the Dice coefficient of class 1 (with `iou` of intersection over union); 1 if both are empty.

    Outputs (n, 2, ...) and targets 0 or 1, (n, ...) or (n, 1, ...). ValueError for another number of classes.
    """
    if output.ndim < 2 or output.shape[1] != 2:
        raise ValueError(f"dice is for two classes: the outputs must have shape (n, 2, ...), not {tuple(output.shape)}")
    predicted, target = (x.view(len(output), -1) == 1 for x in _fit("dice", output.argmax(1), target))
    overlap, total = (predicted & target).sum(1), predicted.sum(1) + target.sum(1)
    score = overlap / (total - overlap + eps) if iou else 2 * overlap / total
    return score.masked_fill(total == 0, 1.0).mean()  # where() would copy the 1.0 to a GPU and wait


def fbeta(output: Tensor, target: Tensor, thresh: float = 0.2, beta: float = 2, eps: float = 1e-9,
          sigmoid: bool = True) -> Tensor:
    """Mean over samples of F-beta for several labels a sample: outputs and targets (n, c), targets 0 or 1.

    A label is predicted if the output (after a sigmoid if `sigmoid`) > `thresh`. A sample of which no label is found
    scores 0. ValueError for other shapes.
    """
    if output.ndim != 2 or output.shape != target.shape:
        raise ValueError(f"fbeta needs outputs and targets of the same shape (n, c), not {tuple(output.shape)} and "
                         f"{tuple(target.shape)}")
    predicted, true = ((_wide(output).sigmoid() if sigmoid else output) > thresh).float(), target.float()
    found = (predicted * true).sum(1)
    precision, recall = found / (predicted.sum(1) + eps), found / (true.sum(1) + eps)
    return ((1 + beta**2) * precision * recall / (beta**2 * precision + recall + eps)).mean()


# ---- quantities: outputs and targets in the same shape, dimensions of 1 apart

def mean_absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of |output - target|."""
    return F.l1_loss(*_fit_wide("mean_absolute_error", output, target))


def mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of (output - target)²."""
    return F.mse_loss(*_fit_wide("mean_squared_error", output, target))


@whole_set
def root_mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Square root of the mean of (output - target)²."""
    return F.mse_loss(*_fit_wide("root_mean_squared_error", output, target)).sqrt()


def mean_squared_logarithmic_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of (log(1 + output) - log(1 + target))²; nan where one of them is below -1."""
    output, target = _fit_wide("mean_squared_logarithmic_error", output, target)
    return F.mse_loss(output.log1p(), target.log1p())


@whole_set
def exp_rmspe(output: Tensor, target: Tensor) -> Tensor:
    """Root mean squared percentage error of exp(output) against exp(target): for targets that are logarithms."""
    output, target = _fit_wide("exp_rmspe", output, target)
    return (output - target).expm1().square().mean().sqrt()


@whole_set
def explained_variance(output: Tensor, target: Tensor) -> Tensor:
    """1 - variance of (target - output) / variance of the targets; no finite number if the targets are all equal."""
    output, target = _fit_wide("explained_variance", output, target)
    return 1 - (target - output).var(correction=0) / target.var(correction=0)


@whole_set
def r2_score(output: Tensor, target: Tensor) -> Tensor:
    """1 - mean of (target - output)² / variance of the targets; no finite number if the targets are all equal."""
    output, target = _fit_wide("r2_score", output, target)
    return 1 - F.mse_loss(output, target) / target.var(correction=0)


mae, mse, rmse, msle = mean_absolute_error, mean_squared_error, root_mean_squared_error, mean_squared_logarithmic_error


# ---- from a function to a column

def metric_name(func: Callable[..., Any]) -> str:
    """A metric's column: the function's name, through partials; of a callable object its class's, in snake case."""
    while isinstance(func, partial) and not hasattr(func, "__name__"):
        func = func.func
    return str(getattr(func, "__name__", None) or camel2snake(type(func).__name__))


def _number(name: str, value: Any) -> Tensor:
    try:
        number = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    except (TypeError, ValueError):
        raise TypeError(f"the metric {name} returned {value!r}, which is no number") from None
    if number.numel() != 1:
        raise ValueError(f"the metric {name} returned a tensor of shape {tuple(number.shape)} instead of one number; "
                         "take its mean")
    return number.detach().reshape(())


def _joined(parts: Sequence[Any]) -> Any:
    """One batch out of many; a list of tensors a batch is joined tensor by tensor."""
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else [_joined(p) for p in zip(*parts, strict=True)]


class AverageMetric(Callback):
    """`func(output, *targets)` averaged over validation batches, each weighted by its number of samples.

    `func` returns one number (a float or a tensor), else TypeError or ValueError. The values are read once an epoch.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        check_callable("a metric", func)
        self.func, self.name = func, metric_name(func)
        self.batches: list[tuple[Any, Any]] = []

    def on_epoch_begin(self) -> None:
        self.batches = []

    def on_batch_end(self, last_output: Any, last_target: Any) -> None:
        value = _number(self.name, self.func(last_output, *listify(last_target)))
        self.batches.append((value, batch_length(last_target)))

    def on_epoch_end(self, last_metrics: list[Any]) -> Changes:
        value, self.batches = self.compute(), []
        return {"last_metrics": [*last_metrics, value]}

    def compute(self) -> float | None:
        """The number for the batches so far, None without any."""
        return weighted_mean([value for value, _ in self.batches], [count for _, count in self.batches])


class WholeSetMetric(AverageMetric):
    """`func(outputs, *targets)` computed once, from the outputs and targets of all validation batches."""

    def on_batch_end(self, last_output: Any, last_target: Any) -> None:
        self.batches.append(to_detach((last_output, listify(last_target)), cpu=False))

    def compute(self) -> float | None:
        if not self.batches:
            return None
        outputs, targets = _joined(self.batches)
        return float(_number(self.name, self.func(outputs, *targets)))


def as_metric(metric: Any) -> Callback:
    """The callback for a learner's metric: a function becomes one. TypeError for a class, a string and the like."""
    if isinstance(metric, Callback):
        return metric
    func = metric
    while isinstance(func, partial):
        func = func.func
    if isinstance(func, type):
        raise TypeError(f"a metric must be a function or a callback, not the class {func.__name__}; make an instance")
    if not callable(func):
        raise TypeError(f"a metric must be a function or a callback, not {metric!r}; give the function itself")
    return (WholeSetMetric if getattr(func, "whole_set", False) else AverageMetric)(metric)
