"""Small fakes for tests, ours and users': data that fits in a line, and a learner that trains in milliseconds."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from .data import DataBunch
from .learner import Learner

__all__ = ["fake_data", "fake_learner"]


def fake_data(n_in: int = 5, n_out: int = 4, batch_size: int = 5, train_length: int = 10, valid_length: int = 5,
              seed: int = 0, **kwargs: Any) -> DataBunch:
    """Random inputs (n, n_in) whose class, of `n_out`, is the largest of the first inputs: easy to learn, in memory."""
    gen = torch.Generator().manual_seed(seed)

    def dataset(n: int) -> TensorDataset:
        x = torch.randn(n, n_in, generator=gen)
        return TensorDataset(x, x[:, :n_out].argmax(1))

    return DataBunch.create(dataset(train_length), dataset(valid_length) if valid_length else None, bs=batch_size,
                            seed=seed, loss_func=nn.CrossEntropyLoss(), **kwargs)


def fake_learner(n_in: int = 5, n_out: int = 4, batch_size: int = 5, train_length: int = 10, valid_length: int = 5,
                 layer_group_count: int = 1, seed: int = 0, layers: Sequence[nn.Module] | None = None,
                 **kwargs: Any) -> Learner:
    """A silent learner over `fake_data`, its model linear layers (one for each layer group). `kwargs` go to `Learner`."""
    data = kwargs.pop("data", None) or fake_data(n_in, n_out, batch_size, train_length, valid_length, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        groups = list(layers or [nn.Linear(n_in, n_in) for _ in range(layer_group_count - 1)] + [nn.Linear(n_in, n_out)])
    kwargs = {"silent": True, **kwargs}
    learn = Learner(data, nn.Sequential(*groups), **kwargs)
    return learn.split(groups[1:]) if layer_group_count > 1 else learn
