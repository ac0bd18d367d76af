"""The runs that are killed and resumed, and what of a run must be equal to the one that nobody killed."""
from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import Dataset

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks import (
    EMA,
    SWA,
    BatchSizeSchedule,
    Checkpoint,
    CSVLogger,
    EarlyStoppingCallback,
    GradientAccumulation,
    GradientClipping,
    MixedPrecision,
    MixUpCallback,
    OverSamplingCallback,
    SaveModelCallback,
)
from minifast.data import DataBunch
from minifast.fakes import fake_data
from minifast.learner import Learner
from minifast.metrics import accuracy

__all__ = ["CONFIGS", "result", "run"]

EPOCHS = 3


class Noisy(Dataset[Any]):
    """Items that are augmented with random numbers."""

    def __init__(self, n: int) -> None:
        gen = torch.Generator().manual_seed(7)
        self.x = torch.randn(n, 5, generator=gen)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        noise = torch.randn(5) + float(np.random.rand())
        return self.x[i] + 0.1 * noise, self.x[i, :4].argmax()


class Best(Callback):
    """Remembers the best validation loss, and when it was."""

    def __init__(self) -> None:
        self.best, self.at, self.seen = float("inf"), -1, torch.zeros(1)

    def on_epoch_end(self, epoch: int, last_metrics: list[Any]) -> None:
        if last_metrics[0] < self.best:
            self.best, self.at = last_metrics[0], epoch

    def on_batch_end(self, train: bool) -> None:
        self.seen += float(np.random.rand()) if train else 0.0


class Accumulate(Callback):
    """Steps after every third batch."""

    def on_backward_end(self, iteration: int) -> dict[str, Any]:
        return {"skip_step": (iteration + 1) % 3 != 0, "skip_zero": (iteration + 1) % 3 != 0}


class FreezeNorm(LearnerCallback):
    """Keeps a batch norm in eval mode from the second epoch on."""

    def on_epoch_begin(self, epoch: int) -> None:
        if epoch >= 1:
            self.learn.model[1].eval()


class Early(Callback):
    """Ends every epoch after its fifth batch, and the run after the second."""

    def on_batch_end(self, num_batch: int, train: bool) -> dict[str, Any]:
        return {"stop_epoch": train and num_batch == 4}

    def on_epoch_end(self, epoch: int) -> dict[str, Any]:
        return {"stop_training": epoch == 1}


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4)).to(dtype)


def learner(folder: Path, data: DataBunch | None = None, callbacks: Any = (), **kwargs: Any) -> Learner:
    data = data or fake_data(batch_size=4, train_length=30, valid_length=10)
    return Learner(data, kwargs.pop("model", None) or model(), metrics=[accuracy], path=folder, add_time=False,
                   callbacks=list(callbacks), **kwargs)


def with_callbacks(*makers: Any, **kwargs: Any) -> Callable[[Path], Learner]:
    """A learner with these callbacks, made for each run."""
    return partial(learner, callback_fns=list(makers), **kwargs)


def items(workers: int = 0) -> DataBunch:
    return DataBunch.create(Noisy(30), Noisy(10), bs=4, num_workers=workers, seed=3, loss_func=nn.CrossEntropyLoss())


def cast(data: DataBunch) -> DataBunch:
    data.add_tfm(lambda batch: (batch[0].bfloat16(), batch[1]))
    return data


def plain_fit(learn: Learner, **kwargs: Any) -> None:
    learn.fit(EPOCHS, 0.05, **kwargs)


def one_cycle(learn: Learner, **kwargs: Any) -> None:
    learn.fit_one_cycle(EPOCHS, 0.05, **kwargs)


def two_fits(learn: Learner, **kwargs: Any) -> None:
    learn.fit_one_cycle(1, 0.05, callbacks=[Checkpoint(learn, "first", every=2)])
    learn.lr_find(num_it=5)
    learn.fit_one_cycle(2, 0.01, **kwargs)


SGD = partial(optim.SGD, momentum=0.9)
Config = tuple[Callable[[Path], Learner], Callable[..., None]]
CONFIGS: dict[str, Config] = {
    "fit": (learner, plain_fit),
    "one cycle": (learner, one_cycle),
    "sgd, l2": (partial(learner, opt_func=SGD, true_wd=False), one_cycle),
    "callback that tracks and draws": (lambda f: learner(f, callbacks=[Best()]), one_cycle),
    "accumulation": (lambda f: learner(f, callbacks=[Accumulate()]), one_cycle),
    "frozen batch norm": (lambda f: learner(f, callback_fns=[FreezeNorm]), one_cycle),
    "stops early": (lambda f: learner(f, callbacks=[Early()]), plain_fit),
    "augmented items": (lambda f: learner(f, items()), one_cycle),
    "loader processes": (lambda f: learner(f, items(2)), one_cycle),
    "bf16": (lambda f: learner(f, cast(fake_data(batch_size=4, train_length=30, valid_length=10)),
                               model=model(torch.bfloat16)), one_cycle),
    "no validation": (lambda f: learner(f, fake_data(batch_size=4, train_length=30, valid_length=0)), one_cycle),
    "mixup": (with_callbacks(MixUpCallback), one_cycle),
    "accumulation, clipping": (with_callbacks(partial(GradientAccumulation, n_step=3), GradientClipping), one_cycle),
    "averages: EMA": (with_callbacks(partial(EMA, decay=0.9)), one_cycle),
    "averages: SWA": (with_callbacks(partial(SWA, start=0.3)), plain_fit),
    "autocast to bf16": (with_callbacks(partial(MixedPrecision, precision="bf16")), one_cycle),
    "best model, early stop, CSV": (with_callbacks(SaveModelCallback, CSVLogger, EarlyStoppingCallback), plain_fit),
    "over-sampling": (with_callbacks(OverSamplingCallback), one_cycle),
    "batch size by epoch": (with_callbacks(partial(BatchSizeSchedule, sizes={0: 4, 1: 6})), plain_fit),
    "two fits and the finder": (learner, two_fits),
}


class Kill(Callback):
    """Sends the process a signal at the `at`-th event of the run, validation batches counted too."""

    only_in_fit = True

    def __init__(self, at: int, number: int = signal.SIGKILL) -> None:
        self.left, self.number = at, number
        for event in ("batch_begin", "backward_end", "batch_end", "epoch_end", "train_end"):
            setattr(self, f"on_{event}", self.count)

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)

    def state_dict(self) -> dict[str, Any]:
        return {}


def digest(x: Any) -> str:
    h = hashlib.sha256()

    def add(x: Any) -> None:
        if isinstance(x, torch.Tensor):
            h.update(f"{x.dtype} {tuple(x.shape)}".encode())
            h.update(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(x, dict):
            for k, v in x.items():
                h.update(repr(k).encode())
                add(v)
        elif isinstance(x, (list, tuple)):
            h.update(str(len(x)).encode())
            for v in x:
                add(v)
        else:
            h.update(repr(x).encode())
    add(x)
    return h.hexdigest()


def result(learn: Learner) -> dict[str, str]:
    """What must be equal, as hashes."""
    rec = learn.recorder
    return {"weights": digest(learn.model.state_dict()), "optimizer": digest(learn.opt.state_dict()),
            "grads": digest([p.grad for p in learn.model.parameters()]),
            "flags": digest([m.training for m in learn.model.modules()]),
            "recorder": digest([list(rec.lrs), list(rec.moms), rec.losses.tolist(), rec.raw_losses.tolist(),
                                rec.train_losses, rec.val_losses, rec.metrics, rec.nb_batches, rec.names]),
            "history": rec.to_frame().to_csv(),
            "callbacks": digest([cb.state_dict() for cb in learn.callbacks if not isinstance(cb, Kill)]),
            "loaders": digest([dl.state_dict() for dl in learn.data.dls]),
            "random": digest([torch.rand(3), np.random.rand(3).tolist()])}


def run(config: str, folder: Path, kill_at: int = 0, every: int = 1, number: int = signal.SIGKILL) -> dict[str, str]:
    """Train a configuration, from its checkpoint if there is one; get the signal `number` at the `kill_at`-th event, if
    that is not 0."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    make, fit = CONFIGS[config]
    learn = make(folder)
    learn.callbacks.append(Kill(kill_at, number))
    fit(learn, callbacks=[Checkpoint(learn, "run", every=every)])
    return result(learn)

