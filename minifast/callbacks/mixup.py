"""Mixup: training on mixtures of pairs of samples."""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..callback import LearnerCallback
from ..checks import positive_float
from ..denominators import batch_weight, sample_weights, unreduced
from ..distributed import rank
from ..loaders import seed_or_drawn
from ..losses import loss_activation
from ..state import Changes
from ..utils import batch_length, listify, map_tensors, tensors_in

__all__ = ["MixUpCallback", "MixUpLoss", "MixedTargets"]


class MixedTargets(NamedTuple):
    """What a mixed batch should give: `weight` (n,) of the targets `first`, and the rest of `second`.

    >>> MixedTargets([torch.tensor([0])], [torch.tensor([1])], torch.tensor([0.7])).weight
    tensor([0.7000])
    """

    first: list[Any]
    second: list[Any]
    weight: Tensor


class MixUpLoss:
    """`loss_func` of a mixed batch: of each sample the losses for its two targets, by their weights; then reduced as
    `loss_func` reduces (mean or sum over samples). Other targets go to `loss_func` as they are.

    Where `loss_func` is no mean over samples (class weights, ignored targets: see `batch_weight`), a target counts by
    its weight in the mixture times its weight in the loss. TypeError if `loss_func` cannot give one loss for each
    sample; it is copied, never changed.

    >>> mixed = MixedTargets([tensor([0])], [tensor([1])], tensor([0.75]))
    >>> MixUpLoss(nn.CrossEntropyLoss())(torch.zeros(1, 2), mixed)
    tensor(0.6931)
    """

    def __init__(self, loss_func: Any) -> None:
        self.loss_func, self.activation = loss_func, loss_activation(loss_func)
        self.each, self.weights = unreduced(loss_func), sample_weights(loss_func)

    def __call__(self, output: Any, *targets: Any) -> Tensor:
        if not targets or not isinstance(mixed := targets[0], MixedTargets):
            loss: Tensor = self.loss_func(output, *targets)
            return loss
        first, second = self.each(output, *mixed.first), self.each(output, *mixed.second)
        if (weights := self._weights(output, mixed)) is not None:
            return (weights[0] * first + weights[1] * second).sum() / (weights[0] + weights[1]).sum()
        losses = mixed.weight * first + (1 - mixed.weight) * second
        return losses.sum() if self._is_sum(output, mixed) else losses.mean()

    def denominator(self, output: Any, *targets: Any) -> Any:
        """Over how much the loss of a batch is a mean: see `batch_weight`."""
        if not targets or not isinstance(mixed := targets[0], MixedTargets):
            return batch_weight(self.loss_func, output, list(targets), output)
        if (weights := self._weights(output, mixed)) is not None:
            return (weights[0] + weights[1]).sum()
        return batch_weight(self.loss_func, output, mixed.first, mixed.weight)

    def _weights(self, output: Any, mixed: MixedTargets) -> tuple[Tensor, Tensor] | None:
        first, second = self.weights(output, *mixed.first), self.weights(output, *mixed.second)
        return None if first is None or second is None else (mixed.weight * first, (1 - mixed.weight) * second)

    def _is_sum(self, output: Any, mixed: MixedTargets) -> bool:
        return batch_weight(self.loss_func, output, mixed.first, mixed.weight) is None


class MixUpCallback(LearnerCallback):
    """Mixes each training sample with another one of its batch, by a weight drawn from Beta(alpha, alpha).

    Reads the batch in on_batch_begin and returns the mixed one. The larger weight is that of the sample itself.
    `stack_x`: the model is given both inputs and the weights, `model(x, x_other, weight)`, instead of their mixture.
    `stack_y`: the two targets stay apart and the loss is mixed, as classes need it (`MixUpLoss`; the learner's own is
    back after the run); otherwise the targets are mixed, which takes targets that are floating-point numbers.

    What is drawn for the k-th batch is a function of (`seed`, k); the default seed comes from torch's global generator.
    TypeError for inputs or targets that cannot be mixed. Source: Zhang et al., arXiv 1710.09412.

    >>> learn = fake_learner(train_length=20)
    >>> learn.fit(2, 1e-2, callbacks=[MixUpCallback(learn, alpha=0.2)])
    """

    def __init__(self, learn: Any, alpha: float = 0.4, stack_x: bool = False, stack_y: bool = True,
                 seed: int | None = None) -> None:
        super().__init__(learn)
        self.alpha, self.stack_x, self.stack_y = positive_float("alpha", alpha), stack_x, stack_y
        self.seed, self.n_mixed = seed_or_drawn(seed), 0
        self._loss_func: Any = None     # the learner's own, while another one is in its place

    def on_train_begin(self) -> None:
        if self.stack_y:
            loss_func = self.learn.loss_func
            self.learn.loss_func = MixUpLoss(loss_func)
            self._loss_func = loss_func

    def on_batch_begin(self, train: bool, last_input: Any, last_target: Any) -> Changes | None:
        if not train:
            return None
        x, y = listify(last_input), listify(last_target)
        n = batch_length(y, x)
        for what, parts in (("inputs", x), ("targets", y)):
            _check_mixable(what, parts, n)
        weight, order = self._draw(n, tensors_in(x)[0].device)

        def others(parts: list[Any]) -> list[Any]:
            return map_tensors(parts, lambda t: t[order])  # type: ignore[no-any-return]
        x = [*x, *others(x), weight] if self.stack_x else _mixed("inputs", x, order, weight)
        y = [MixedTargets(y, others(y), weight)] if self.stack_y else _mixed("targets", y, order, weight)
        return {"last_input": x, "last_target": y}

    def on_train_end(self) -> None:
        if self._loss_func is not None:
            self.learn.loss_func, self._loss_func = self._loss_func, None

    def _draw(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        # numpy, because torch draws no Beta from a generator of one's own; 10 µs to make one whose state is two numbers
        rng = np.random.default_rng((self.seed, self.n_mixed, *[rank()] * bool(rank())))   # each process its own
        self.n_mixed += 1
        weight = rng.beta(self.alpha, self.alpha, n)
        weight = np.maximum(weight, 1 - weight).astype(np.float32)
        return tuple(torch.from_numpy(a).to(device) for a in (weight, rng.permutation(n)))  # type: ignore[return-value]


def _check_mixable(what: str, parts: list[Any], n: int) -> None:
    tensors = tensors_in(parts)
    if odd := [tuple(t.shape) for t in tensors if not t.ndim or len(t) != n]:
        raise TypeError(f"{what} of shape {odd[0]} cannot be mixed: they are not {n} samples, one after another")
    if not tensors and (what == "inputs" or parts):
        kind = type(parts[0]).__name__ if parts else None
        raise TypeError(f"{what} of type {kind} cannot be mixed: there is no tensor")


def _mixed(what: str, parts: list[Any], order: Tensor, weight: Tensor) -> list[Any]:
    def mixed(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            hint = "stack_x=True leaves it to the model" if what == "inputs" else "for classes keep stack_y=True"
            raise TypeError(f"{what} of {t.dtype} cannot be mixed; {hint}")
        return torch.lerp(t[order], t, weight.view(-1, *[1] * (t.ndim - 1)).to(t.dtype))
    return map_tensors(parts, mixed)  # type: ignore[no-any-return]
