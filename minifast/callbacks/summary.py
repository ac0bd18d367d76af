"""A learner in words: its layers, their sizes, and who listens to which event."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..callback import CallbackHandler
from ..checkpoint import preserved
from ..layers import flatten_model
from ..metrics import metric_name
from ..state import EVENTS
from ..utils import first_tensor, listify
from .hooks import hook_outputs, uncompiled

__all__ = ["dummy_eval", "model_sizes"]


class Text(str):
    """A string that shows itself in a notebook or a console as it is printed."""

    __repr__ = str.__str__


def model_summary(learn: Any) -> Text:
    """The layers of the learner's model: the shapes of their outputs for one training batch, parameters and whether
    they are trained; then totals. The batch goes through it in eval mode, and all is as before afterwards."""
    named = [(name, m) for name, m in learn.model.named_modules()
             if not list(m.children()) or list(m.parameters(recurse=False))]
    hooks = hook_outputs([m for _, m in named])
    with hooks, preserved(learn), uncompiled(learn.model), torch.no_grad():
        learn.model.eval()
        x, _ = learn.data.one_batch(detach=False, denorm=False, cpu=False)
        learn.model(*listify(x))
        shapes = [_shape(output) for output in hooks.stored]
    rows = [("Layer", "Output shape", "Parameters", "Trainable")]
    for (name, m), shape in zip(named, shapes, strict=True):
        own = list(m.parameters(recurse=False))
        trained = {p.requires_grad for p in own}
        rows.append((f"{name or 'model'} ({type(m).__name__})", shape, f"{sum(p.numel() for p in own):,}",
                     "" if not own else "partly" if len(trained) == 2 else "yes" if trained == {True} else "no"))
    params, buffers = list(learn.model.parameters()), list(learn.model.buffers())
    n, trainable = sum(p.numel() for p in params), sum(p.numel() for p in params if p.requires_grad)
    size = sum(t.numel() * t.element_size() for t in (*params, *buffers)) / 2**20
    opt = learn.opt.name if learn.has_opt else metric_name(learn.opt_func)
    loss = getattr(learn.loss_func, "__name__", type(learn.loss_func).__name__)
    totals = f"{n:,} parameters, {trainable:,} of them trainable; {size:.2f} MB with the buffers"
    return Text("\n".join([*_aligned(rows), "", totals, f"Input {_shape(x)}; loss {loss}; optimizer {opt}"]))


def listeners_summary(handler: CallbackHandler) -> Text:
    """For each event, in the order of the loop, who listens to it, in the order in which they are told."""
    def names(listeners: Sequence[Any]) -> str:
        return ", ".join(type(cb).__name__ + (f" ({cb._order})" if cb._order else "") for cb, _ in listeners)

    rows = [("on_" + event, names(handler.of_callbacks[event])) for event in EVENTS]
    metrics = ", ".join(handler.state.metrics_names)
    return Text("\n".join(_aligned(rows) + ([f"metrics, told first in validations: {metrics}"] if metrics else [])))


def _shape(x: Any) -> str:
    if isinstance(x, Tensor):
        return " x ".join(map(str, x.shape)) or "scalar"
    return ", ".join(map(_shape, x)) if isinstance(x, (list, tuple)) else "not run" if x is None else type(x).__name__


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def dummy_eval(model: nn.Module, size: tuple[int, ...] = (64, 64)) -> Any:
    """The model's output, in eval mode, for one random sample (1, channels, *size), with as many channels as its first
    layer takes. Modes are as before afterwards. ValueError for a model without a layer that tells."""
    weights = (getattr(m, "weight", None) for m in flatten_model(model))
    weight: Any = next((w for w in weights if isinstance(w, Tensor) and w.ndim > 1), None)
    if weight is None:
        raise ValueError(f"no layer of this {type(model).__name__} tells how many channels it takes")
    flags = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return model(torch.rand(1, weight.shape[1], *size, device=weight.device, dtype=weight.dtype))
    finally:
        for m, training in flags:
            m.training = training


def model_sizes(model: nn.Module, size: tuple[int, ...] = (64, 64)) -> list[torch.Size | None]:
    """The output shape of each child of `model` for one random sample of that size; None where it is no tensor."""
    with uncompiled(model), hook_outputs(model.children()) as hooks:
        dummy_eval(model, size)
        outputs = [first_tensor(output) for output in hooks.stored]
    return [None if x is None else x.shape for x in outputs]
