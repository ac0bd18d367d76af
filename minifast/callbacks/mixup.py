"""Mixup: training on mixtures of pairs of samples."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..callback import LearnerCallback
from ..checks import positive_float
from ..loaders import settled
from ..losses import loss_activation, unreduced
from ..state import Changes
from ..utils import batch_length, first_tensor, listify

__all__ = ["MixUpCallback", "MixUpLoss", "MixedTargets"]


class MixedTargets(NamedTuple):
    """What a mixed batch should give: `weight` (n,) of the targets `first`, and the rest of `second`."""

    first: list[Any]
    second: list[Any]
    weight: Tensor


class MixUpLoss:
    """`loss_func` of a mixed batch: of each sample the losses for its two targets, by their weights; then reduced as
    `loss_func` reduces (mean or sum over samples). Other targets go to `loss_func` as they are.

    TypeError if `loss_func` cannot give one loss for each sample; it is copied, never changed.
    """

    def __init__(self, loss_func: Any) -> None:
        self.loss_func, self.each, self.activation = loss_func, unreduced(loss_func), loss_activation(loss_func)

    def __call__(self, output: Any, *targets: Any) -> Tensor:
        if not targets or not isinstance(mixed := targets[0], MixedTargets):
            loss: Tensor = self.loss_func(output, *targets)
            return loss
        w = mixed.weight
        losses = w * self.each(output, *mixed.first) + (1 - w) * self.each(output, *mixed.second)
        return losses.sum() if getattr(self.loss_func, "reduction", "mean") == "sum" else losses.mean()


class MixUpCallback(LearnerCallback):
    """Mixes each training sample with another one of its batch, by a weight drawn from Beta(alpha, alpha).

    Reads the batch in on_batch_begin and answers with the mixed one. The larger weight is that of the sample itself.
    `stack_x`: the model is given both inputs and the weights, `model(x, x_other, weight)`, instead of their mixture.
    `stack_y`: the two targets stay apart and the loss is mixed, as classes need it (`MixUpLoss`; the learner's own is
    back after the run); otherwise the targets are mixed, which takes targets that are floating-point numbers.

    What is drawn for the k-th batch is a function of (`seed`, k); the default seed comes from torch's global generator.
    TypeError for inputs or targets that cannot be mixed. Source: Zhang et al., arXiv 1710.09412.
    """

    def __init__(self, learn: Any, alpha: float = 0.4, stack_x: bool = False, stack_y: bool = True,
                 seed: int | None = None) -> None:
        super().__init__(learn)
        self.alpha, self.stack_x, self.stack_y = positive_float("alpha", alpha), stack_x, stack_y
        self.seed, self.n_mixed = settled(seed), 0

    def on_train_begin(self) -> None:
        if self.stack_y:
            loss_func = self.learn.loss_func
            self.learn.loss_func = MixUpLoss(loss_func)
            self._loss_func = loss_func

    def on_batch_begin(self, train: bool, last_input: Any, last_target: Any) -> Changes | None:
        if not train:
            return None
        x, y = listify(last_input), listify(last_target)
        weight, order = self._draw(batch_length(y), first_tensor(x).device)  # type: ignore[union-attr]
        x_other, y_other = ([part[order] for part in parts] for parts in (x, y))
        x = [*x, *x_other, weight] if self.stack_x else _mixed("inputs", x, x_other, weight)
        y = [MixedTargets(y, y_other, weight)] if self.stack_y else _mixed("targets", y, y_other, weight)
        return {"last_input": x, "last_target": y}

    def on_train_end(self) -> None:
        if (loss_func := vars(self).pop("_loss_func", None)) is not None:
            self.learn.loss_func = loss_func

    def _draw(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        # numpy, because torch draws no Beta from a generator of one's own; 10 µs to make one whose state is two numbers
        rng = np.random.default_rng((self.seed, self.n_mixed))
        self.n_mixed += 1
        weight = rng.beta(self.alpha, self.alpha, n)
        weight = np.maximum(weight, 1 - weight).astype(np.float32)
        return tuple(torch.from_numpy(a).to(device) for a in (weight, rng.permutation(n)))  # type: ignore[return-value]


def _mixed(what: str, parts: list[Any], others: list[Any], weight: Tensor) -> list[Any]:
    for part in parts:
        if not part.is_floating_point():
            hint = "stack_x=True leaves it to the model" if what == "inputs" else "for classes keep stack_y=True"
            raise TypeError(f"{what} of {part.dtype} cannot be mixed; {hint}")
    return [torch.lerp(other, part, weight.view(-1, *[1] * (part.ndim - 1)).to(part.dtype))
            for part, other in zip(parts, others, strict=True)]
