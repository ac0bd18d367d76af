"""`ModelLoss`: the loss of models that return it themselves."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .utils import batch_length, first_tensor, shape_of

__all__ = ["ModelLoss"]


class ModelLoss:
    """The loss function of a model that returns its own loss, or several.

    Of the output it takes the first of these that is a single number: the item or attribute `loss` (as of Hugging
    Face's models), the sum of a dict of nothing but single numbers (as of torchvision's detection models), the sum of
    `parts`, the first of a tuple, the output itself. If there is none, in training that is a TypeError, and in a
    validation a loss of `#na#` in the table: there torchvision's detection models return boxes.

    parts: names of losses in the output: what is summed where it holds other things too, and what `LossMetrics` shows
        as columns; empty: none.
    weights: what these are multiplied by in that sum; None, and for those it does not name: 1.
    mean_over: a function of (output, *targets): over how much the loss is a mean, such as the tokens that count; None:
        over samples.

    Labels that the model needs are among its inputs: `DataBunch(..., to_pair=lambda batch: (batch, batch["labels"]))`.

    >>> loss = ModelLoss(parts=["fit", "size"], weights={"size": 0.5})
    >>> loss({"fit": tensor(1.0), "size": tensor(4.0), "logits": torch.zeros(3, 2)}, torch.zeros(3))
    tensor(3.)
    """

    def __init__(self, parts: Sequence[str] = (), weights: Mapping[str, float] | None = None,
                 mean_over: Callable[..., Any] | None = None) -> None:
        if isinstance(parts, str):
            raise TypeError(f"parts must be a list of names, not {parts!r}")
        self.parts, self.weights, self.mean_over = list(parts), dict(weights or {}), mean_over
        self.metric_names = self.parts
        self.metrics: dict[str, Any] = {}

    def __call__(self, output: Any, *targets: Any) -> Tensor:
        """The loss, with its graph."""
        self.metrics = {name: value.detach() for name in self.parts
                        if isinstance(value := _item(output, name), Tensor)}
        if (loss := self._of(output)) is not None:
            return loss
        if torch.is_grad_enabled():
            raise TypeError(f"the model returned no loss that ModelLoss finds, but {shape_of(output)}: is the model "
                            "given the labels it needs (to_pair=), and has it `loss`, a dict of losses, or `parts`?")
        found = first_tensor(output)
        return torch.zeros((), device=None if found is None else found.device)

    def denominator(self, output: Any, *targets: Any) -> Any:
        """Over how much the loss is a mean: nothing where there is none."""
        if self._of(output) is None:
            return 0
        return batch_length(*targets, output) if self.mean_over is None else self.mean_over(output, *targets)

    def _of(self, output: Any) -> Tensor | None:
        loss: Tensor | None = _item(output, "loss")
        if _is_number(loss):
            return loss
        losses_only = isinstance(output, Mapping) and output and all(map(_is_number, output.values()))
        names = list(output) if losses_only else self.parts
        found = [_item(output, name) for name in names]
        if found and all(map(_is_number, found)):
            terms = [self.weights.get(name, 1.0) * value for name, value in zip(names, found, strict=True)]
            return torch.stack([term.reshape(()) for term in terms]).sum()
        first: Tensor = output[0] if isinstance(output, (tuple, list)) and output else output
        return first if _is_number(first) else None

    def __repr__(self) -> str:
        return f"ModelLoss(parts={self.parts}, weights={self.weights})"


def _item(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _is_number(x: Any) -> bool:
    return isinstance(x, Tensor) and x.numel() == 1
