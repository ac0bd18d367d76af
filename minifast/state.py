"""Start here: the loop with its ten events, all that a callback may read, and what each event may return.

A handler names the fields that it reads: `def on_batch_end(self, train, last_loss)`. It returns None, or a dict of the
fields that it changes: `return {"stop_training": True}`. That is the whole protocol.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .checks import anything, figures, flag, loss_or_none, loss_value, positive_int, whole_number

__all__ = ["EVENTS", "LOOP", "RETURNS", "Changes", "State"]

LOOP = """\
fit(epochs)                                               a callback may return
    on_train_begin                                        n_epochs, n_updates, epoch, num_batch, iteration, update,
                                                          smooth_loss, last_metrics, stop_training, skip_validate
    for each epoch
        on_epoch_begin                                    stop_training, skip_validate
        for each training batch
            on_batch_begin                                last_input, last_target
            output = model(input)
            on_loss_begin                                 last_output
            loss = loss_func(output, target)
            on_backward_begin                             last_loss, last_weight, skip_bwd, skip_step
            loss.backward()
            on_backward_end                               last_weight, skip_step, skip_zero
            opt.step()
            on_step_end                                   skip_zero
            opt.zero_grad()
            on_batch_end                                  last_loss, smooth_loss, stop_epoch, stop_training,
                                                          skip_validate
        for each validation batch (train=False, no grad)
            on_batch_begin, on_loss_begin, on_batch_end   as above
        on_epoch_end                                      last_metrics, stop_training, skip_validate
    on_train_end
"""

# The rule: the fields that each event may return. The check of a field's value returns what is kept, or raises.
RETURNS: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    "train_begin": {"n_epochs": positive_int, "n_updates": positive_int, "epoch": whole_number,
                    "num_batch": whole_number, "iteration": whole_number, "update": whole_number,
                    "smooth_loss": loss_or_none, "last_metrics": figures, "stop_training": flag,
                    "skip_validate": flag},
    "epoch_begin": {"stop_training": flag, "skip_validate": flag},
    "batch_begin": {"last_input": anything, "last_target": anything},
    "loss_begin": {"last_output": anything},
    "backward_begin": {"last_loss": loss_value, "last_weight": anything, "skip_bwd": flag, "skip_step": flag},
    "backward_end": {"last_weight": anything, "skip_step": flag, "skip_zero": flag},
    "step_end": {"skip_zero": flag},
    "batch_end": {"last_loss": loss_value, "smooth_loss": loss_value, "stop_epoch": flag, "stop_training": flag,
                  "skip_validate": flag},
    "epoch_end": {"last_metrics": figures, "stop_training": flag, "skip_validate": flag},
    "train_end": {},
}
EVENTS = tuple(RETURNS)
Changes = dict[str, Any]    # what a handler returns: a new value for each field that it changes


@dataclass
class State:
    """What a run knows. Every field exists from the start; `vars(state)` is what a handler with `**kwargs` gets.

    >>> State(n_epochs=2).epoch
    0
    """
    # where the run is
    n_epochs: int = 0                   # epochs to train
    epoch: int = 0                      # index of the epoch; goes up after on_epoch_end
    num_batch: int = 0                  # training batches done in this epoch; goes up after on_batch_end
    iteration: int = 0                  # training batches done in this run; goes up after on_batch_end
    update: int = 0                     # optimizer steps done in this run; goes up after opt.step()
    n_updates: int = 0                  # optimizer steps planned for the whole run: the length of a schedule
    train: bool = True                  # False from the first validation batch to the end of the validation

    # the batch at hand
    last_input: Any = None              # inputs, on the model's device (a tensor, or a list of the model's arguments)
    last_target: Any = None             # targets (a tensor, or a list of the loss function's arguments)
    last_output: Any = None             # what the model returned
    last_loss: Tensor | None = None     # scalar; with its graph in on_backward_begin, detached in on_batch_end
    last_weight: Any = None             # over how much last_loss is a mean (see losses.py); None: it is a sum
    smooth_loss: Tensor | None = None   # mean of the training losses so far, weights falling by 0.98 a batch

    # the epoch's figures, in on_epoch_end: [valid_loss, metric, ...], None where nothing was computed
    last_metrics: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)        # the learner's metrics as they were given
    metrics_names: list[str] = field(default_factory=list)  # their columns in the table
    pbar: Any = None                    # the bars and the printed table (see progress.py)
    exception: BaseException | None = None      # in on_train_end: what ended the run, None if it ended well

    # flags: any callback can set one, none can unset it. The first two last for the run, the others for one batch
    stop_training: bool = False         # end after this epoch
    skip_validate: bool = False         # no validation in this run
    stop_epoch: bool = False            # end the pass over these batches after this one
    skip_bwd: bool = False              # no loss.backward()
    skip_step: bool = False             # no opt.step()
    skip_zero: bool = False             # keep the gradients
