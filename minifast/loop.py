"""The loop: a training batch, a validation batch, validate, fit. `state.py` draws it.

`learn` has `model`, `parallel` (the model of several processes, or None), `loss_func`, `opt` and `data`. Each is read
on each use: a callback may replace it during a run.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .callback import CallbackHandler
from .checks import check_one_each, no_gradient, one_number
from .denominators import batch_weight
from .utils import listify, run_model, smoothed, weighted_mean

__all__ = ["forward", "train_batch", "validate", "fit"]


def forward(learn: Any, handler: CallbackHandler, batch: Any) -> torch.Tensor:
    """What training and validation share: the batch, the model, the loss, and over how much that is a mean."""
    s, fire = handler.state, handler.fire
    s.last_input, s.last_target = batch
    s.last_output, s.last_loss, s.stop_epoch = None, None, False
    fire("batch_begin")
    s.last_output = run_model(learn.parallel or learn.model, s.last_input)
    fire("loss_begin")
    loss = one_number(learn.loss_func(s.last_output, *listify(s.last_target)))
    s.last_weight = batch_weight(learn.loss_func, s.last_output, s.last_target, s.last_input, loss)
    return loss


def train_batch(learn: Any, handler: CallbackHandler, batch: Any) -> None:
    """Forward, loss, backward, step, zero_grad, with an event after each."""
    s, fire = handler.state, handler.fire
    s.skip_bwd = s.skip_step = s.skip_zero = False
    s.last_loss = forward(learn, handler, batch)
    loss = s.last_loss.detach()
    s.smooth_loss = smoothed(s.smooth_loss, loss, s.iteration, s.last_weight)
    fire("backward_begin")
    if not s.skip_bwd:
        if not s.last_loss.requires_grad:
            raise no_gradient(s.last_loss, s.last_output)
        s.last_loss.backward()  # type: ignore[no-untyped-call]
    fire("backward_end")
    if not s.skip_step:
        learn.opt.step()
        s.update += 1
    fire("step_end")
    if not s.skip_zero:
        learn.opt.zero_grad()
    s.last_loss = loss  # the unmodified one, even if a callback has returned another one for backward()
    fire("batch_end")
    s.num_batch += 1
    s.iteration += 1


@torch.no_grad()
def validate(learn: Any, handler: CallbackHandler, dl: Iterable[Any]) -> None:
    """One pass over `dl` in eval mode; then `state.last_metrics` is [loss, metric, ...]."""
    s = handler.state
    handler.set_mode(training=False)
    handler.fire("epoch_begin", handler.of_metrics)  # for the metrics, an epoch is its validation
    learn.model.eval()
    losses, weights = [], []
    for batch in s.pbar.track(dl):
        s.last_loss = forward(learn, handler, batch)
        handler.fire("batch_end")
        losses.append(s.last_loss)
        weights.append(s.last_weight)
        if s.stop_epoch:
            break
    s.last_metrics = [weighted_mean(losses, weights)]
    handler.fire("epoch_end", handler.of_metrics)
    check_one_each(s.metrics_names, s.last_metrics)


def fit(learn: Any, handler: CallbackHandler) -> None:
    """Train for `state.n_epochs` epochs, from wherever the state stands."""
    s, fire = handler.state, handler.fire
    learn.opt.zero_grad()  # a run that was cut short may have left gradients behind
    with handler.running():
        while s.epoch < s.n_epochs and not s.stop_training:
            handler.set_mode(training=True)
            if s.num_batch == 0:  # a run resumed in mid-epoch has been here before
                learn.model.train()
                fire("epoch_begin")
            learn.opt.check_holds(learn.model)  # a callback may have changed the model
            dl = learn.data.train_dl
            for batch in s.pbar.track(dl.batches(start=s.num_batch), total=len(dl), start=s.num_batch):
                train_batch(learn, handler, batch)
                if s.stop_epoch:
                    break
            learn.opt.check_holds(learn.model)
            if s.skip_validate or learn.data.empty_val:
                s.last_metrics = [None] * (1 + len(s.metrics_names))
            else:
                validate(learn, handler, learn.data.valid_dl)
            handler.set_mode(training=True)
            fire("epoch_end")
            s.epoch += 1
            s.num_batch = 0
