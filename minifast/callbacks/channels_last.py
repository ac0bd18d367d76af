"""Pictures with their channels last in memory."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..callback import LearnerCallback
from ..order import Order
from ..state import Changes
from ..utils import map_tensors

__all__ = ["ChannelsLast"]


class ChannelsLast(LearnerCallback):
    """Gives the model its pictures (4-d tensors) with channels as the last dimension in memory, as 16-bit convolutions
    on GPUs like them; values and shapes are the same.

    Returns `last_input` in on_batch_begin. See `learn.to_channels_last`, which lays the weights out alike.

    >>> learn = fake_learner(train_length=20)
    >>> learn.fit(2, 1e-2, callbacks=[ChannelsLast(learn)])
    """

    _order = Order.INPUTS

    def on_batch_begin(self, last_input: Any) -> Changes:
        return {"last_input": map_tensors(last_input, _channels_last)}


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
