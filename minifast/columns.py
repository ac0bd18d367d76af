"""From a metric to a column of the table: the callbacks that measure a validation.

A metric is a function of (output, *targets) that returns one number, or an object with `update(output, *targets)`,
`compute()` and `reset()` (of torchmetrics, of torcheval, of `scores.py`, your own). A dict of metrics names them.

>>> learn = fake_learner(metrics=[accuracy, {"top_2": partial(top_k_accuracy, k=2), "f1": FBeta("macro", beta=1)}])
>>> learn.fit(1)
>>> learn.recorder.names
['epoch', 'train_loss', 'valid_loss', 'accuracy', 'top_2', 'f1', 'time']
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .callback import Callback
from .checks import check_callable
from .denominators import batch_weight
from .losses import loss_activation
from .state import Changes
from .utils import camel2snake, first_tensor, joined, listify, map_tensors, to_detach, weighted_mean

__all__ = ["AverageMetric", "WholeSetMetric", "StatefulMetric", "metric_name", "as_metric", "as_metrics",
           "add_metrics"]


def metric_name(metric: Any) -> str:
    """A metric's column: the function's name, through partials; of an object its class's, in snake case.

    >>> metric_name(partial(top_k_accuracy, k=2)), metric_name(Precision())
    ('top_k_accuracy', 'precision')
    """
    func = _behind(metric)
    return str(getattr(metric, "__name__", None) or getattr(func, "__name__", None) or camel2snake(type(func).__name__))


def _behind(metric: Any) -> Any:
    while isinstance(metric, partial):
        metric = metric.func
    return metric


def _number(name: str, value: Any) -> Tensor:
    if isinstance(value, Mapping):
        raise TypeError(f"the metric {name} returned a dict of {', '.join(map(str, value))}, which is no number: a "
                        "column is one number, so give a metric for each")
    try:
        number = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    except (TypeError, ValueError):
        raise TypeError(f"the metric {name} returned {value!r}, which is no number") from None
    if number.numel() != 1:
        raise ValueError(f"the metric {name} returned a tensor of shape {tuple(number.shape)} instead of one number; "
                         "take its mean (of classes: average='macro'), or measure it after the fit, by learn.get_preds "
                         "or learn.interpret, which has a confusion matrix")
    return number.detach().reshape(())


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as e:
        e.add_note(f"in the metric {name}")
        raise


def add_metrics(last_metrics: Any, mets: Any) -> Changes:
    """What a metric returns in on_epoch_end: `last_metrics` with the value or list of values `mets` added.

    >>> add_metrics([0.5], 0.9)
    {'last_metrics': [0.5, 0.9]}
    """
    return {"last_metrics": [*listify(last_metrics), *listify(mets)]}


class AverageMetric(Callback):
    """A column: `func(output, *targets)` averaged over the validation's batches.

    `func` returns one number (a float or a tensor), else TypeError or ValueError. Each batch is weighted by what `func`
    is a mean over: its samples, or what `mean_over` says (see `batch_weight`). The values are read once an epoch.
    `name`: the column's, by default that of `func`.

    >>> learn = fake_learner(metrics=[AverageMetric(accuracy, name="right")])
    >>> learn.fit(1)
    >>> learn.recorder.names[3]
    'right'
    """

    def __init__(self, func: Callable[..., Any], name: str | None = None) -> None:
        check_callable("a metric", func)
        self.func, self.name = func, name or metric_name(func)
        self.batches: list[tuple[Any, Any]] = []

    def on_epoch_begin(self) -> None:
        self.batches = []

    def on_batch_end(self, last_output: Any, last_target: Any, last_input: Any = None) -> None:
        func = getattr(_behind(self.func), "of_mean", [self.func])[0]
        with _named(self.name):
            value = _number(self.name, func(last_output, *listify(last_target)))
            self.batches.append((value, batch_weight(func, last_output, last_target, last_input)))

    def on_epoch_end(self, last_metrics: list[Any]) -> Changes:
        with _named(self.name):
            value = self.compute()
        self.batches = []
        return add_metrics(last_metrics, [value])

    def compute(self) -> float | None:
        """The number for the batches so far, None without any."""
        mean = weighted_mean([value for value, _ in self.batches], [weight for _, weight in self.batches])
        of_mean = getattr(_behind(self.func), "of_mean", None)
        return mean if mean is None or of_mean is None else of_mean[1](mean)


class WholeSetMetric(AverageMetric):
    """A column: `func(outputs, *targets)` computed once, from the outputs and targets of all validation batches.

    >>> learn = fake_learner(metrics=[WholeSetMetric(lambda output, target: output.max(), name="peak")])
    >>> len(learn.validate())
    2
    """

    def on_batch_end(self, last_output: Any, last_target: Any, last_input: Any = None) -> None:
        # copied on a GPU: with compile(mode="reduce-overhead") the next batch overwrites a model's outputs
        kept = to_detach((last_output, listify(last_target)), cpu=False)
        self.batches.append(map_tensors(kept, lambda t: t.clone() if t.is_cuda else t))

    def compute(self) -> float | None:
        """The number for the batches so far, None without any."""
        if not self.batches:
            return None
        outputs, targets = joined(self.batches)
        return float(_number(self.name, self.func(outputs, *targets)))


class StatefulMetric(Callback):
    """The columns of an object with `update`, `compute` and `reset`: reset before each validation, updated for each
    batch, computed once. One column, or one for each key of a collection (torchmetrics' MetricCollection).

    `metric`: the object; where it has a `to`, it is moved to the outputs' device. `name`: the column's (default: its
    class's, in snake case); with a collection what its keys begin with. `activation`: what the outputs go through first
    (default nothing). Its state after the last validation stays in it, and is in a run's checkpoint.

    >>> learn = fake_learner(metrics=[StatefulMetric(KappaScore(), name="kappa")])
    >>> len(learn.validate())
    2
    """

    def __init__(self, metric: Any, name: str | None = None, activation: Callable[[Any], Any] | None = None) -> None:
        keys = list(metric.keys()) if isinstance(metric, nn.Module) and isinstance(metric, nn.ModuleDict) else None
        self.metric, self.keys, self.activation = metric, keys, activation
        self.name = name or metric_name(metric)
        self.columns = [self.name] if keys is None else [f"{name}_{key}" if name else key for key in keys]
        self.n_batches = 0

    def on_epoch_begin(self) -> None:
        self.n_batches = 0
        self.metric.reset()

    def on_batch_end(self, last_output: Any, last_target: Any) -> None:
        with _named(self.name):
            if not self.n_batches and hasattr(self.metric, "to") and (t := first_tensor(last_output)) is not None:
                self.metric.to(t.device)
            output = self.activation(last_output) if self.activation else last_output
            self.metric.update(output, *listify(last_target))
        self.n_batches += 1

    def on_epoch_end(self, last_metrics: list[Any]) -> Changes:
        if not self.n_batches:
            return add_metrics(last_metrics, [None] * len(self.columns))
        with _named(self.name):
            found = self.metric.compute()
            values = [found] if self.keys is None else [found[key] for key in self.keys]
            return add_metrics(last_metrics, [float(_number(n, v)) for n, v in zip(self.columns, values, strict=True)])


def as_metric(metric: Any, name: str | None = None, loss_func: Any = None) -> Callback:
    """The callback for a learner's metric: a function or an object becomes one. TypeError for a class, a string, ...

    `name`: its column's (default: see `metric_name`). `loss_func`: the learner's. torchmetrics' classification takes
    outputs for probabilities in batches where all lie between 0 and 1, so it is given those that belong to this loss.

    >>> as_metric(accuracy).name
    'accuracy'
    """
    if isinstance(metric, Callback):
        if name:
            metric.name = name  # type: ignore[attr-defined]
        return metric
    func = _behind(metric)
    if isinstance(func, type) or func is as_metric:
        raise TypeError("a metric must be a function or a callback, not the class "
                        f"{getattr(func, '__name__', func)}; make an instance")
    if all(callable(getattr(func, method, None)) for method in ("update", "compute", "reset")):
        parts = list(func.values()) if isinstance(func, nn.ModuleDict) else [func]
        guesses = all(type(part).__module__.startswith("torchmetrics.classification") for part in parts)
        return StatefulMetric(func, name, loss_activation(loss_func) if guesses and loss_func else None)
    if not callable(func):
        raise TypeError(f"a metric must be a function or a callback, not {metric!r}; give the function itself")
    return (WholeSetMetric if getattr(func, "whole_set", False) else AverageMetric)(metric, name)


def as_metrics(metrics: Any, loss_func: Any = None) -> list[Callback]:
    """The callbacks for a learner's metrics: one metric, a list, or a dict that names them, also in a list.

    >>> [m.name for m in as_metrics([accuracy, {"wrong": error_rate}])]
    ['accuracy', 'wrong']
    """
    found: list[Callback] = []
    for metric in listify(metrics):
        named = metric.items() if isinstance(metric, Mapping) else [(None, metric)]
        found += [as_metric(m, name, loss_func) for name, m in named]
    return found


def state_holders(metrics: list[Callback]) -> list[Any]:
    """The objects whose attributes are the state of stateful metrics: to be put back where nothing may change."""
    objects = [m.metric for m in metrics if isinstance(m, StatefulMetric)]
    return [part for o in objects for part in (o.modules() if isinstance(o, nn.Module) else [o])]
