"""A learner in words: its layers with their sizes, and the loop with its callbacks."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .callback import CallbackHandler
from .columns import metric_name
from .hooks import hook_outputs
from .layers import initialise_lazy
from .snapshot import preserved
from .state import EVENTS, LOOP
from .torch_private import uncompiled
from .utils import run_model

__all__ = ["Text", "loop_with_callbacks", "model_summary"]

WIDTH = LOOP.index("a callback may return")     # of the drawing, without what its callbacks may return


class Text(str):
    """A string that a notebook or a console shows as `print` does."""

    __repr__ = str.__str__


def model_summary(learn: Any) -> Text:
    """The layers of the learner's model: the shapes of their outputs for one training batch, parameters and whether
    they are trained; then totals. The batch goes through it in eval mode, and all is as before afterwards."""
    initialise_lazy(learn)
    named = [(name, m) for name, m in learn.model.named_modules()
             if not list(m.children()) or list(m.parameters(recurse=False))]
    hooks = hook_outputs([m for _, m in named])
    with hooks, preserved(learn), uncompiled(learn.model), torch.no_grad():
        learn.model.eval()
        x, _ = learn.data.one_batch(detach=False, denorm=False, cpu=False)
        run_model(learn.model, x)
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


def loop_with_callbacks(handler: CallbackHandler) -> Text:
    """The loop as `state.py` draws it, with the names of the handler's callbacks at their events, in order of calls."""
    def names(line: str) -> str:
        events = [event for event in EVENTS if f"on_{event}" in line]
        found = [type(cb).__name__ for event in events for cb, *_ in handler.of_callbacks[event]]
        return ", ".join(dict.fromkeys(found))

    lines = [line[:WIDTH].rstrip() for line in LOOP.splitlines()]
    rows = [(line, names(line)) for line in lines if line]
    drawn = [row for line, who in rows for row in _wrapped(line, who)]
    metrics = ", ".join(handler.state.metrics_names)
    return Text("\n".join([*drawn, *([f"metrics, called first in a validation: {metrics}"] if metrics else [])]))


def _wrapped(line: str, names: str) -> list[str]:
    """The line with the names beside it, in as many lines of at most 110 characters as they need."""
    if not names:
        return [line]
    rows = textwrap.wrap(names, 110 - WIDTH, break_long_words=False)
    return [f"{line:<{WIDTH}}{rows[0]}", *(" " * WIDTH + row for row in rows[1:])]


def _shape(x: Any) -> str:
    if isinstance(x, Tensor):
        return " x ".join(map(str, x.shape)) or "scalar"
    return ", ".join(map(_shape, x)) if isinstance(x, (list, tuple)) else "not run" if x is None else type(x).__name__


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
