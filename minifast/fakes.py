"""Small fakes for tests, ours and users': data that fits in a line, and a learner that trains in milliseconds."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from . import loop
from .callback import Callback, CallbackHandler
from .data import DataBunch
from .learner import Learner
from .progress import Progress
from .state import State
from .vision.data import ImageDataBunch

__all__ = ["fake_data", "fake_learner", "fake_pictures", "simulate", "Answer", "Simulation"]


def fake_data(n_in: int = 5, n_out: int = 4, batch_size: int = 5, train_length: int = 10, valid_length: int = 5,
              seed: int = 0, **kwargs: Any) -> DataBunch:
    """Random inputs (n, n_in) whose class, of `n_out`, is the largest of the first inputs: easy to learn, in memory.

    >>> fake_data(train_length=20).one_batch()[0].shape
    torch.Size([5, 5])
    """
    gen = torch.Generator().manual_seed(seed)

    def dataset(n: int) -> TensorDataset:
        x = torch.randn(n, n_in, generator=gen)
        return TensorDataset(x, x[:, :n_out].argmax(1))

    return DataBunch.create(dataset(train_length), dataset(valid_length) if valid_length else None, bs=batch_size,
                            seed=seed, loss_func=nn.CrossEntropyLoss(), **kwargs)


def fake_learner(n_in: int = 5, n_out: int = 4, batch_size: int = 5, train_length: int = 10, valid_length: int = 5,
                 layer_group_count: int = 1, seed: int = 0, layers: Sequence[nn.Module] | None = None,
                 **kwargs: Any) -> Learner:
    """A silent learner over `fake_data`, its model a linear layer for each layer group. `kwargs` go to `Learner`.

    >>> learn = fake_learner(metrics=[accuracy])
    >>> learn.fit(1)
    >>> len(learn.recorder.lrs)
    2
    """
    data = kwargs.pop("data", None) or fake_data(n_in, n_out, batch_size, train_length, valid_length, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inner = [nn.Linear(n_in, n_in) for _ in range(layer_group_count - 1)]
        groups = list(layers or [*inner, nn.Linear(n_in, n_out)])
    kwargs = {"silent": True, **kwargs}
    learn = Learner(data, nn.Sequential(*groups), **kwargs)
    return learn.split(groups[1:]) if layer_group_count > 1 else learn


def fake_pictures(folder: Path | str = "pictures", classes: Sequence[str] = ("dark", "light"), n: int = 10,
                  size: int = 32, seed: int = 0, **kwargs: Any) -> ImageDataBunch:
    """Write `n` small pictures of each class as PNG files, the later classes lighter than the first, and read them.

    folder: where they go, in a folder for each class, which is made. size: their height and width. seed: of the
    pictures, and of the fifth of them that validates. kwargs: of `ImageDataBunch`; by default bs=4, on the CPU.

    >>> fake_pictures().one_batch()[0].shape
    torch.Size([4, 3, 32, 32])
    """
    from PIL import Image
    draw = np.random.default_rng(seed)
    for k, name in enumerate(classes):
        low = 255 * k // len(classes)
        (Path(folder) / name).mkdir(parents=True)
        for i in range(n):
            noise = draw.integers(low, low + 255 // len(classes), (size, size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(Path(folder) / name / f"{i}.png")
    return ImageDataBunch.from_folder(folder, valid_pct=0.2, seed=seed, **{"bs": 4, "device": "cpu", **kwargs})


class Answer(NamedTuple):
    """What a callback returned, and when: `batch` and `train` are the state's `num_batch` and `train` then.

    >>> simulate(StopAfterNBatches(2)).answers[0].answer["stop_epoch"]
    True
    """

    event: str
    epoch: int
    batch: int
    train: bool
    answer: dict[str, Any]


class Simulation(NamedTuple):
    """What was returned, in order; the state at the end of the run; the callback; and its learner.

    >>> run = simulate(StopAfterNBatches(2), n_epochs=3)
    >>> run.state.iteration, run.callback
    (2, StopAfterNBatches(n_batches=2))
    """

    answers: list[Answer]
    state: State
    callback: Callback
    learn: Learner


def simulate(callback: Callback | Callable[[Learner], Callback], n_epochs: int = 2, n_batches: int = 3,
             n_valid: int = 1, losses: Sequence[float] = (), valid_losses: Sequence[float] = (),
             metrics: Mapping[str, Sequence[Any]] | None = None) -> Simulation:
    """Drive a callback through the events of a run in which nothing is learned: the real loop over scripted numbers.

    `callback`: an instance, or for those that take a learner a function of it (the class, a partial). `losses`: those
    of the training batches, in order; `valid_losses` and `metrics`: those of the epochs. The last value of each goes on
    for as long as the run does; without any a loss is 1. What the callback raises comes out as it does from a fit.

    >>> simulate(partial(EarlyStoppingCallback, patience=2), 9, valid_losses=[3, 2, 2]).state.epoch
    4
    """
    learn = fake_learner(2, 2, batch_size=1, train_length=n_batches, valid_length=n_valid)
    if not isinstance(callback, Callback):
        callback = callback(learn)
    answers: list[Answer] = []

    class Listening(CallbackHandler):
        def _take(self, who: Callback, event: str, answer: Any) -> None:
            super()._take(who, event, answer)
            if who is callback:
                s = self.state
                answers.append(Answer(event, s.epoch, s.num_batch, s.train, answer))

    def loss_func(output: Tensor, target: Tensor) -> Tensor:
        value: float = _at(losses, state.iteration) if state.train else _at(valid_losses, state.epoch)
        return output.sum().mul(0).add(value)

    learn.loss_func = loss_func
    learn.metrics = [_Scripted(name, values) for name, values in (metrics or {}).items()]
    state = State(n_epochs=n_epochs, n_updates=n_epochs * n_batches, metrics=learn.metrics,
                  pbar=Progress(n_epochs, silent=True))
    learn.handler = Listening([learn.recorder, callback], learn.metrics, state)
    loop.fit(learn, learn.handler)
    return Simulation(answers, state, callback, learn)


class _Scripted(Callback):
    """A metric with given values."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name, self.values = name, values

    def on_epoch_end(self, epoch: int, last_metrics: list[Any]) -> Any:
        return {"last_metrics": [*last_metrics, _at(self.values, epoch)]}


def _at(values: Sequence[Any], i: int) -> Any:
    return values[min(i, len(values) - 1)] if len(values) else 1.0
