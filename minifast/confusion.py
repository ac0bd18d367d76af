"""fastai v1's class metrics of classifiers, from one confusion matrix over the whole set.

Each, like those of `scores.py`, has `update(output, target)`, `compute()` and `reset()`, so it works without a learner
too. Targets of `ignore_index` are left out. All sums stay on the outputs' device.
"""
from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

__all__ = ["ConfusionMatrix", "Precision", "Recall", "FBeta", "KappaScore", "MatthewsCorreff"]

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


class Averaged:
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


def check_average(average: Any) -> Any:
    average = None if average == "none" else average
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {', '.join(map(repr, AVERAGES))}, not {average!r}")
    return average


class Precision(Averaged, ConfusionMatrix):
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
        self.average, self.pos_label = check_average(average), pos_label

    def compute(self) -> Tensor:
        """The score over all batches."""
        m = self.matrix
        return self._averaged(m.diag(), m.sum(0), m.sum(1), occurring=True)


class Recall(Precision):
    """Of what is a class, the share that is predicted to be; the arguments are those of `Precision`.

    >>> score = Recall()
    >>> score.update(torch.eye(2)[[0, 1, 0]], tensor([0, 1, 1]))
    >>> score.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    which = "recall"


class FBeta(Precision):
    """F-beta: the harmonic mean of precision and recall, recall weighing `beta` times as much (default 2).

    The other arguments are those of `Precision`.

    >>> score = FBeta(beta=1)
    >>> score.update(torch.eye(2)[[0, 1, 0]], tensor([0, 1, 1]))
    >>> score.compute()
    tensor(0.6667, dtype=torch.float64)
    """

    which = "fbeta"

    def __init__(self, average: str | None = "binary", pos_label: int = 1, axis: int = -1, ignore_index: int = -100,
                 beta: float = 2) -> None:
        super().__init__(average, pos_label, axis, ignore_index)
        self.beta = beta


class KappaScore(ConfusionMatrix):
    """Cohen's kappa: how far predictions and targets agree beyond chance, 1 if always.

    `weights`: what a confusion of classes i and j costs: None (default) 1, "linear" |i - j|, "quadratic" (i - j)^2.

    >>> score = KappaScore()
    >>> score.update(torch.eye(2)[[0, 1, 0, 1]], tensor([0, 1, 1, 0]))
    >>> score.compute()
    tensor(0., dtype=torch.float64)
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

    >>> score = MatthewsCorreff()
    >>> score.update(torch.eye(2)[[0, 1, 0]], tensor([1, 0, 1]))
    >>> score.compute()
    tensor(-1., dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """The score over all batches."""
        m = self.matrix.double()
        n, predicted, actual = m.sum(), m.sum(0), m.sum(1)
        spread = (n**2 - predicted @ predicted) * (n**2 - actual @ actual)
        return _ratio(m.trace() * n - predicted @ actual, spread.sqrt())
