"""fastai v1's class metrics that need more than a confusion matrix (those that do not are in `confusion.py`)."""
from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .columns import as_metric
from .confusion import Averaged, check_average
from .metrics import exp_rmspe, explained_variance, mae, mse, r2_score, rmse
from .utils import wide

__all__ = ["MultiLabelFbeta", "AUROC", "Perplexity", "MSE", "MAE", "RMSE", "ExpRMSPE", "ExplainedVariance", "R2Score"]


class MultiLabelFbeta(Averaged):
    """F-beta for several labels a sample: outputs and targets (n, c), targets 0 or 1.

    A label is predicted where the output (after a sigmoid if `sigmoid`) > `thresh`. `average`: "micro" (default),
    "macro", "weighted" or None, as in `Precision`, but that labels that never occur count too.

    >>> score = MultiLabelFbeta(beta=1, thresh=0.5, sigmoid=False)
    >>> score.update(tensor([[0.9, 0.1], [0.8, 0.9]]), tensor([[1, 0], [0, 1]]))
    >>> score.compute()
    tensor(0.8000, dtype=torch.float64)
    """

    def __init__(self, beta: float = 2, thresh: float = 0.3, sigmoid: bool = True,
                 average: str | None = "micro") -> None:
        self.beta, self.thresh, self.sigmoid, self.average = beta, thresh, sigmoid, check_average(average)
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
    """exp of the mean cross-entropy: outputs (..., c) are logits along `axis` (default the last), targets (...).

    `ignore_index`: targets of this value do not count, -100.

    >>> score = Perplexity()
    >>> score.update(torch.zeros(5, 4), tensor([0, 1, 2, 3, -100]))
    >>> score.compute()
    tensor(4.0000, dtype=torch.float64)
    """

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
