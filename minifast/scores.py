"""fastai v1's class metrics: objects that are updated batch by batch and computed once, over the whole set.

Each has `update(output, target)`, `compute()` and `reset()`, so it works without a learner too. Targets of
`ignore_index` are left out. All sums stay on the outputs' device.
"""
from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .columns import as_metric
from .metrics import exp_rmspe, explained_variance, mae, mse, r2_score, rmse
from .utils import wide

__all__ = ["ConfusionMatrix", "Precision", "Recall", "FBeta", "KappaScore", "MatthewsCorreff", "MultiLabelFbeta",
           "AUROC", "Perplexity", "MSE", "MAE", "RMSE", "ExpRMSPE", "ExplainedVariance", "R2Score"]

AVERAGES = ("binary", "micro", "macro", "weighted", None)


class ConfusionMatrix:
    """(c, c) counts: rows are the actual classes, columns the predicted ones, those with the largest output.

    `axis`: of the classes (default the last). It is no number, so no column: for its scores, or without a learner.

    >>> matrix = ConfusionMatrix()
    >>> matrix.update(tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), tensor([0, 0, 1]))
    >>> matrix.compute()
    tensor([[1, 1],
            [0, 1]])
    """

    def __init__(self, axis: int = -1, ignore_index: int = -100) -> None:
        self.axis, self.ignore_index = axis, ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.counts: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch; ValueError if its targets do not fit."""
        predicted, c = output.argmax(self.axis).flatten(), output.shape[self.axis]
        target = target.flatten().long()
        if len(predicted) != len(target):
            raise ValueError(f"{type(self).__name__}: outputs of shape {tuple(output.shape)} do not fit "
                             f"{len(target)} targets")
        if self.counts is None:
            self.counts = target.new_zeros(c * c + 1)    # the last place takes what is ignored
        cell = (target * c + predicted).masked_fill(target == self.ignore_index, c * c)
        self.counts.scatter_add_(0, cell, torch.ones_like(cell))

    @property
    def matrix(self) -> Tensor:
        """The counts so far."""
        assert self.counts is not None, "no batch has been added"
        c = int((len(self.counts) - 1)**0.5)
        return self.counts[:-1].view(c, c)

    def compute(self) -> Tensor:
        """What the batches come to."""
        return self.matrix


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return (part / whole).masked_fill(whole == 0, 0.0)


class _Averaged:
    """F-beta of classes from their counts (right, predicted, actual), and its averages."""

    average: str | None = "binary"
    pos_label, beta = 1, 1.0
    which = "fbeta"

    def _score(self, right: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
        if self.which == "precision":
            return _ratio(right, predicted)
        if self.which == "recall":
            return _ratio(right, actual)
        return _ratio((1 + self.beta**2) * right, self.beta**2 * actual + predicted)

    def _averaged(self, right: Tensor, predicted: Tensor, actual: Tensor, occurring: bool) -> Tensor:
        right, predicted, actual = right.double(), predicted.double(), actual.double()
        average = self.average
        if average == "binary" and len(right) != 2:
            warnings.warn(f"{type(self).__name__}: average='binary' is for two classes and there are {len(right)}: "
                          "it is average='macro' now")
            self.average = average = "macro"
        if average == "micro":
            return self._score(right.sum(), predicted.sum(), actual.sum())
        each = self._score(right, predicted, actual)
        if average == "binary":
            return each[self.pos_label]
        if average == "macro":
            counts = (predicted + actual > 0) | (not occurring)
            return (each * counts).sum() / counts.sum()
        return (each * actual).sum() / actual.sum() if average == "weighted" else each


def _check_average(average: Any) -> Any:
    average = None if average == "none" else average
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {', '.join(map(repr, AVERAGES))}, not {average!r}")
    return average


class Precision(_Averaged, ConfusionMatrix):
    """Of what is predicted to be a class, the share that is: 0 where nothing is.

    `average`: "binary" (default: that of class `pos_label`, of two), "micro" (of all together), "macro" (the mean of
    those of all classes that occur), "weighted" (by how often each occurs), or None (each class; no column).
    `axis`, `ignore_index`: see `ConfusionMatrix`. ValueError for another average.

    >>> score = Precision("macro")
    >>> score.update(torch.eye(3)[[0, 1, 1]], tensor([0, 1, 2]))
    >>> score.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    which = "precision"

    def __init__(self, average: str | None = "binary", pos_label: int = 1, axis: int = -1,
                 ignore_index: int = -100) -> None:
        super().__init__(axis, ignore_index)
        self.average, self.pos_label = _check_average(average), pos_label

    def compute(self) -> Tensor:
        """The score over all batches."""
        m = self.matrix
        return self._averaged(m.diag(), m.sum(0), m.sum(1), occurring=True)


class Recall(Precision):
    """Of what is a class, the share that is predicted to be; the arguments are those of `Precision`."""

    which = "recall"


class FBeta(Precision):
    """F-beta: the harmonic mean of precision and recall, recall weighing `beta` times as much (default 2).

    The other arguments are those of `Precision`.
    """

    which = "fbeta"

    def __init__(self, average: str | None = "binary", pos_label: int = 1, axis: int = -1, ignore_index: int = -100,
                 beta: float = 2) -> None:
        super().__init__(average, pos_label, axis, ignore_index)
        self.beta = beta


class KappaScore(ConfusionMatrix):
    """Cohen's kappa: how far predictions and targets agree beyond chance, 1 if always.

    `weights`: what a confusion of classes i and j costs: None (default) 1, "linear" |i - j|, "quadratic" (i - j)^2.
    """

    def __init__(self, weights: str | None = None, axis: int = -1, ignore_index: int = -100) -> None:
        super().__init__(axis, ignore_index)
        if weights not in (None, "linear", "quadratic"):
            raise ValueError(f"weights must be None, 'linear' or 'quadratic', not {weights!r}")
        self.weights = weights

    def compute(self) -> Tensor:
        """The score over all batches."""
        m = self.matrix.double()
        by_chance = m.sum(1)[:, None] * m.sum(0) / m.sum()
        at = torch.arange(len(m), device=m.device)
        apart = (at[:, None] - at).abs()
        cost = (apart > 0) if self.weights is None else apart**(1 if self.weights == "linear" else 2)
        return 1 - (cost * m).sum() / (cost * by_chance).sum()


class MatthewsCorreff(ConfusionMatrix):
    """Matthews' correlation coefficient, for any number of classes; 0 if all predictions or all targets are one class.

    Source: Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (2004).
    """

    def compute(self) -> Tensor:
        """The score over all batches."""
        m = self.matrix.double()
        n, predicted, actual = m.sum(), m.sum(0), m.sum(1)
        spread = (n**2 - predicted @ predicted) * (n**2 - actual @ actual)
        return _ratio(m.trace() * n - predicted @ actual, spread.sqrt())


class MultiLabelFbeta(_Averaged):
    """F-beta for several labels a sample: outputs and targets (n, c), targets 0 or 1.

    A label is predicted where the output (after a sigmoid if `sigmoid`) > `thresh`. `average`: "micro" (default),
    "macro", "weighted" or None, as in `Precision`, but that labels that never occur count too.
    """

    def __init__(self, beta: float = 2, thresh: float = 0.3, sigmoid: bool = True,
                 average: str | None = "micro") -> None:
        self.beta, self.thresh, self.sigmoid, self.average = beta, thresh, sigmoid, _check_average(average)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.counts: Any = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch; ValueError if outputs and targets differ in shape."""
        if output.ndim != 2 or output.shape != target.shape:
            raise ValueError(f"MultiLabelFbeta needs outputs and targets of the same shape (n, c), not "
                             f"{tuple(output.shape)} and {tuple(target.shape)}")
        predicted, actual = (wide(output).sigmoid() if self.sigmoid else output) > self.thresh, target == 1
        self.counts = self.counts + torch.stack([(predicted & actual).sum(0), predicted.sum(0), actual.sum(0)])

    def compute(self) -> Tensor:
        """The score over all batches."""
        right, predicted, actual = self.counts
        return self._averaged(right, predicted, actual, occurring=False)


class AUROC:
    """Area under the ROC curve of two classes: how often a sample of class 1 scores higher than one of class 0.

    Outputs (n, 2), or (n,) and (n, 1) for one output. Scores and targets are kept until they are reset. ValueError for
    more classes: torchmetrics measures these. NaN where one class does not occur.

    >>> auroc = AUROC()
    >>> auroc.update(tensor([0.1, 0.4, 0.35, 0.8]), tensor([0, 0, 1, 1]))
    >>> auroc.compute()
    tensor(0.7500, dtype=torch.float64)
    """

    def __init__(self, ignore_index: int = -100) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch."""
        two = output.ndim == 2 and output.shape[1] == 2
        if output.numel() != target.numel() * (1 + two):
            raise ValueError(f"AUROC is for two classes: outputs of shape {tuple(output.shape)} do not fit targets of "
                             f"shape {tuple(target.shape)}; for more classes use torchmetrics")
        output = wide(output.detach())
        self.scores.append(output[:, 1] - output[:, 0] if two else output.flatten())
        self.targets.append(target.flatten())

    def compute(self) -> Tensor:
        """The area over all batches."""
        scores, target = torch.cat(self.scores), torch.cat(self.targets)
        scores, target = scores[target != self.ignore_index], target[target != self.ignore_index]
        _, at, counts = scores.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
        rank = (counts.cumsum(0).double() - (counts - 1) / 2)[at]   # equal scores share the mean of their ranks
        ones = (target == 1).sum()
        area: Tensor = (rank[target == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(target) - ones))
        return area


class Perplexity:
    """exp of the mean cross-entropy: outputs (..., c) are logits along `axis` (default the last), targets (...)."""

    def __init__(self, axis: int = -1, ignore_index: int = -100) -> None:
        self.axis, self.ignore_index = axis, ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.total: Any = 0
        self.count: Any = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch."""
        logits = wide(output).movedim(self.axis, -1).flatten(0, -2)
        losses = F.cross_entropy(logits, target.flatten().long(), ignore_index=self.ignore_index, reduction="none")
        self.total = self.total + losses.double().sum()
        self.count = self.count + (target != self.ignore_index).sum()

    def compute(self) -> Tensor:
        """The perplexity over all batches."""
        return (self.total / self.count).exp()  # type: ignore[no-any-return]


# v1's classes of quantities: `RMSE()` is the metric `rmse`, in a column of the class's name

MSE = partial(as_metric, mse, "mse")
MAE = partial(as_metric, mae, "mae")
RMSE = partial(as_metric, rmse, "rmse")
ExpRMSPE = partial(as_metric, exp_rmspe, "exp_rmspe")
ExplainedVariance = partial(as_metric, explained_variance, "explained_variance")
R2Score = partial(as_metric, r2_score, "r2_score")
