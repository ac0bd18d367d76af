"""Start here: the loop with its events, and all that a callback may read and write.

    fit(epochs)                                               a callback may answer with
        on_train_begin                                        epoch, skip_validate, n_updates
        for each epoch
            on_epoch_begin
            for each training batch
                on_batch_begin                                last_input, last_target
                output = model(input)
                on_loss_begin                                 last_output
                loss = loss_func(output, target)
                on_backward_begin                             last_loss, skip_bwd
                loss.backward()
                on_backward_end                               skip_step
                opt.step()
                on_step_end                                   skip_zero
                opt.zero_grad()
                on_batch_end                                  stop_epoch
            for each validation batch (train=False, no grad)
                on_batch_begin, on_loss_begin, on_batch_end   last_input, last_target, last_output, stop_epoch
            on_epoch_end                                      last_metrics, stop_training
        on_train_end(exception)

A handler names the fields that it reads: `def on_batch_end(self, train, last_loss)`. It answers with None or with a
dict of the fields that it changes: `return {"stop_training": True}`. That is the whole protocol.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

from torch import Tensor

__all__ = ["EVENTS", "State", "Update"]

EVENTS = ("train_begin", "epoch_begin", "batch_begin", "loss_begin", "backward_begin", "backward_end", "step_end",
          "batch_end", "epoch_end", "train_end")


@dataclass
class State:
    """What a run knows. Every field exists from the start; `vars(state)` is what a handler with `**kwargs` is given."""
    # where the run is
    n_epochs: int = 0                   # epochs asked for
    epoch: int = 0                      # index of the epoch; goes up after on_epoch_end
    num_batch: int = 0                  # training batches done in this epoch; goes up after on_batch_end
    iteration: int = 0                  # training batches done in this run; goes up after on_batch_end
    update: int = 0                     # optimizer steps done in this run; goes up after opt.step()
    n_updates: int = 0                  # optimizer steps planned for the whole run: the length of a schedule
    train: bool = True                  # False from the first validation batch to the end of the validation

    # the batch at hand
    last_input: Any = None              # inputs, on the model's device (a tensor, or a list of the model's arguments)
    last_target: Any = None             # targets, likewise (a tensor, or a list of the loss function's arguments)
    last_output: Any = None             # what the model returned
    last_loss: Tensor | None = None     # scalar; with its graph in on_backward_begin, detached in on_batch_end
    smooth_loss: Tensor | None = None   # mean of the training losses so far, weights falling by 0.98 a batch

    # the epoch's figures, in on_epoch_end: [valid_loss, metric, ...], None where nothing was computed
    last_metrics: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)        # the learner's metrics as they were given
    metrics_names: list[str] = field(default_factory=list)  # their columns in the table
    pbar: Any = None                    # the bars and the printed table (see progress.py)
    exception: BaseException | None = None      # in on_train_end: what ended the run, None if it ended well

    # decisions; once True, no later answer takes them back. All but the first two are cleared before each batch
    stop_training: bool = False         # end after this epoch
    skip_validate: bool = False         # no validation in this run
    stop_epoch: bool = False            # end the pass over these batches after this one
    skip_bwd: bool = False              # no loss.backward()
    skip_step: bool = False             # no opt.step()
    skip_zero: bool = False             # keep the gradients


class Update(TypedDict, total=False):
    """The fields that a handler may answer with."""
    n_epochs: int
    epoch: int
    num_batch: int
    iteration: int
    update: int
    n_updates: int
    last_input: Any
    last_target: Any
    last_output: Any
    last_loss: Tensor                   # in on_backward_begin: what is differentiated; the recorded loss stays
    smooth_loss: Tensor | None
    last_metrics: list[Any]
    stop_training: bool
    skip_validate: bool
    stop_epoch: bool
    skip_bwd: bool
    skip_step: bool
    skip_zero: bool
