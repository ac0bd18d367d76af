"""The contenders: how each trains a torch model by one cycle, as its own documentation has it.

Each function takes a `Job` and returns a function that trains. All of them schedule lr and momentum, take decoupled
weight decay, record lr, momentum, loss and smoothed loss of every batch, and show a bar. Where a library has no
recorder of its own the same four lists are filled from a hook of its own, as cheaply as that can be written: who is
slower here is not slower for lack of care.
"""
from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from timing import names
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

__all__ = ["Job", "CONTENDERS", "finished", "small_cnn", "from_pictures"]

WORKERS = 2     # processes of a torch DataLoader; fastai's default here
COLUMNS = ["epoch", "train_loss", "valid_loss", "accuracy"]
Train = Callable[[], Any]


@dataclass
class Job:
    """What is to be trained, on what, for how long. `train` and `valid` are lists of batches or any other loaders."""

    model: nn.Module
    train: Any
    valid: Any = None
    epochs: int = 1
    lr: float = 1e-2
    device: str = "cpu"
    amp: str | None = None      # "bf16" or "fp16": known to the bare loop and to minifast
    fused: bool | None = None   # torch's fused optimizer; None is its default
    folder: Path | None = None  # of the table as a CSV file: known to the hand-written loop, minifast and fastai 2

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam with decoupled weight decay, as minifast has it by default."""
        return torch.optim.AdamW(model.parameters(), self.lr, betas=(0.95, 0.99), weight_decay=1e-2, fused=self.fused)

    def schedule(self, opt: torch.optim.Optimizer) -> OneCycleLR:
        """torch's one cycle for the whole run."""
        return OneCycleLR(opt, self.lr, total_steps=max(2, self.epochs * len(self.train)), base_momentum=0.85,
                          max_momentum=0.95)


class Lists:
    """What the hand-written contenders record."""

    def __init__(self) -> None:
        self.lrs: list[float] = []
        self.moms: list[float] = []
        self.losses: list[float] = []
        self.smooth: list[float] = []
        self.mean = 0.0

    def add(self, opt: torch.optim.Optimizer, loss: float) -> None:
        """One batch."""
        group = opt.param_groups[0]
        self.lrs.append(group["lr"])
        self.moms.append(group["betas"][0] if "betas" in group else group["momentum"])
        self.losses.append(loss)
        self.mean = 0.98 * self.mean + 0.02 * loss
        self.smooth.append(self.mean / (1 - 0.98 ** len(self.losses)))


class Batches:
    """Ready batches in the place of a DataLoader, for those who ask of which type it is."""

    def __init__(self, dl: Any) -> None:
        self.dl, self.batch_sampler, self.dataset = dl, SimpleNamespace(), [None]

    def __len__(self) -> int:
        return len(self.dl)

    def __iter__(self) -> Any:
        return iter(self.dl)


def evaluate(model: nn.Module, loss_func: Any, batches: Any, device: str) -> tuple[float, float]:
    """Mean loss and accuracy, as a hand-written loop computes them."""
    model.eval()
    loss = right = n = 0.0
    with torch.no_grad():
        for x, y in batches:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            out = model(x)
            loss += loss_func(out, y) * len(y)
            right += (out.argmax(1) == y).sum()
            n += len(y)
    return float(loss) / n, float(right) / n


def bare(job: Job) -> Train:
    """The least that trains: no schedule, no record, no bar."""
    model, loss_func = job.model.to(job.device), nn.CrossEntropyLoss()
    opt = job.optimizer(model)
    forward: Any = model
    if job.amp:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[job.amp]
        forward = torch.autocast(torch.device(job.device).type, dtype)(model.forward)
    scaler = torch.amp.GradScaler(job.device, enabled=job.amp == "fp16")

    def train() -> Any:
        for _ in range(job.epochs):
            model.train()
            for x, y in job.train:
                x, y = x.to(job.device, non_blocking=True), y.to(job.device, non_blocking=True)
                loss = loss_func(forward(x), y)
                if scaler.is_enabled():
                    scaler.scale(loss).backward()
                    scaler.step(opt)
                    scaler.update()
                else:
                    loss.backward()
                    opt.step()
                opt.zero_grad()
            if job.valid:
                result = evaluate(model, loss_func, job.valid, job.device)
        return result if job.valid else None
    return train


def hand_written(job: Job) -> Train:
    """The plain PyTorch loop with all that minifast does."""
    from tqdm import tqdm

    model, loss_func = job.model.to(job.device), nn.CrossEntropyLoss()
    opt = job.optimizer(model)
    schedule = job.schedule(opt)

    def train() -> Any:
        lists = Lists()
        for epoch in range(job.epochs):
            model.train()
            bar = tqdm(job.train, desc=f"epoch {epoch + 1}/{job.epochs}", leave=False)
            for x, y in bar:
                x, y = x.to(job.device, non_blocking=True), y.to(job.device, non_blocking=True)
                loss = loss_func(model(x), y)
                loss.backward()
                opt.step()
                opt.zero_grad()
                lists.add(opt, loss.item())
                schedule.step()
                bar.set_postfix_str(f"{lists.smooth[-1]:.4f}", refresh=False)
            if job.valid:
                result = evaluate(model, loss_func, job.valid, job.device)
                print(epoch, *result)
                if job.folder:
                    with open(job.folder / "history.csv", "a", newline="") as file:
                        csv.writer(file).writerows([*([] if epoch else [COLUMNS]), [epoch, lists.smooth[-1], *result]])
        return result if job.valid else None
    return train


def hand_written_fused(job: Job) -> Train:
    """The same with torch's fused optimizer, which minifast takes by default."""
    return hand_written(replace(job, fused=True))


def minifast(job: Job) -> Train:
    """minifast: recorder, one cycle and bar, which are all on by default."""
    from minifast.callbacks import CSVLogger
    from minifast.data import DataBunch
    from minifast.learner import Learner
    from minifast.metrics import accuracy

    data = job.train if isinstance(job.train, DataBunch) else DataBunch(
        job.train, job.valid, device=job.device, loss_func=nn.CrossEntropyLoss())
    learn = Learner(data, job.model, metrics=[accuracy] if data.valid_dl is not None else [],
                    path=job.folder, callback_fns=[CSVLogger] if job.folder else [])
    if job.amp:
        getattr(learn, f"to_{job.amp}")()

    def train() -> Any:
        learn.fit_one_cycle(job.epochs, job.lr)
        return learn.recorder.val_losses[-1], *map(float, learn.recorder.metrics[-1])
    return train


def fastai(job: Job) -> Train:
    """fastai 2: its Recorder, ProgressCallback and fit_one_cycle."""
    warnings.filterwarnings("ignore")
    from fastai.callback.progress import CSVLogger
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy

    dls = job.train
    if not isinstance(dls, DataLoaders):
        dls = DataLoaders(job.train, job.valid or [], device=job.device)
    import fastai.callback.all  # noqa: F401  adds fit_one_cycle and the bar
    learn = Learner(dls, job.model.to(job.device), loss_func=nn.CrossEntropyLoss(), metrics=accuracy,
                    path=job.folder, cbs=[CSVLogger()] if job.folder else [])

    def train() -> Any:
        learn.fit_one_cycle(job.epochs, job.lr)
        return learn.recorder.values[-1][-2:] if job.valid or job.train is dls else None
    return train


def lightning(job: Job) -> Train:
    """Lightning: a LightningModule with a scheduler a step, its default bar; no checkpoints, no logger."""
    warnings.filterwarnings("ignore")
    import logging
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.loss_func, self.lists = job.model, nn.CrossEntropyLoss(), Lists()
            self.result: Any = None

        def training_step(self, batch: Any, i: int) -> Any:
            loss = self.loss_func(self.net(batch[0]), batch[1])
            self.log("loss", loss, prog_bar=True)
            return loss

        def on_train_batch_end(self, outputs: Any, batch: Any, i: int) -> None:
            self.lists.add(self.optimizers().optimizer, outputs["loss"].item())

        def validation_step(self, batch: Any, i: int) -> None:
            out = self.net(batch[0])
            self.log("valid_loss", self.loss_func(out, batch[1]), prog_bar=True, batch_size=len(batch[1]))
            self.log("accuracy", (out.argmax(1) == batch[1]).float().mean(), prog_bar=True, batch_size=len(batch[1]))

        def configure_optimizers(self) -> Any:
            opt = job.optimizer(self)
            return {"optimizer": opt, "lr_scheduler": {"scheduler": job.schedule(opt), "interval": "step"}}

    module = Module()
    trainer = L.Trainer(max_epochs=job.epochs, accelerator="gpu" if job.device.startswith("cuda") else "cpu", devices=1,
                        logger=False, enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0)

    def train() -> Any:
        trainer.fit(module, Batches(job.train), Batches(job.valid) if job.valid else None)
        if job.valid:
            return float(trainer.callback_metrics["valid_loss"]), float(trainer.callback_metrics["accuracy"])
    return train


def ignite(job: Job) -> Train:
    """ignite: create_supervised_trainer, a scheduler handler, RunningAverage and its ProgressBar."""
    from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
    from ignite.handlers import ProgressBar
    from ignite.metrics import Accuracy, Loss, RunningAverage

    model, loss_func = job.model.to(job.device), nn.CrossEntropyLoss()
    opt = job.optimizer(model)
    schedule, lists = job.schedule(opt), Lists()
    trainer = create_supervised_trainer(model, opt, loss_func, device=job.device, non_blocking=True)
    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    ProgressBar().attach(trainer, ["loss"])
    evaluator = create_supervised_evaluator(model, {"accuracy": Accuracy(), "loss": Loss(loss_func)}, device=job.device)

    @trainer.on(Events.ITERATION_COMPLETED)
    def record() -> None:
        lists.add(opt, trainer.state.output)
        schedule.step()

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate() -> None:
        if job.valid:
            evaluator.run(job.valid)

    def train() -> Any:
        trainer.run(job.train, max_epochs=job.epochs)
        return (evaluator.state.metrics["loss"], evaluator.state.metrics["accuracy"]) if job.valid else None
    return train


def skorch(job: Job) -> Train:
    """skorch: NeuralNetClassifier with its LRScheduler, a step a batch, and its ProgressBar."""
    import numpy as np
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback, LRScheduler, ProgressBar
    from skorch.helper import predefined_split

    class Record(Callback):  # type: ignore[misc]
        def on_train_begin(self, net: Any, **kwargs: Any) -> None:
            self.lists = Lists()

        def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
            self.right = self.n = 0

        def on_batch_end(self, net: Any, batch: Any, training: bool, y_pred: Any, **kwargs: Any) -> None:
            if training:
                self.lists.add(net.optimizer_, net.history[-1, "batches", -1, "train_loss"])
            else:
                self.right = self.right + (y_pred.argmax(1).cpu() == batch[1].cpu()).sum()
                self.n += len(batch[1])

    class Net(NeuralNetClassifier):  # type: ignore[misc]
        def get_iterator(self, dataset: Any, training: bool = False) -> Any:
            return job.train if training else job.valid

    record = Record()
    net = Net(lambda: job.model, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, lr=job.lr,
              optimizer__betas=(0.95, 0.99), optimizer__weight_decay=1e-2, max_epochs=job.epochs, device=job.device,
              train_split=predefined_split([0]) if job.valid else None, classes=[0, 1],
              callbacks=[record, ProgressBar(), LRScheduler(
                  OneCycleLR, step_every="batch", max_lr=job.lr, base_momentum=0.85, max_momentum=0.95,
                  total_steps=max(2, job.epochs * len(job.train)) + 1)])
    net.set_params(callbacks__valid_acc=None)
    x, y = np.zeros((1, 1), dtype=np.float32), np.zeros(1, dtype=np.int64)  # get_iterator brings the data

    def train() -> Any:
        net.fit(x, y)
        return (net.history[-1, "valid_loss"], float(record.right) / record.n) if job.valid else None
    return train


def pytorch_accelerated(job: Job) -> Train:
    """pytorch-accelerated: its Trainer with its default callbacks."""
    warnings.filterwarnings("ignore")
    from pytorch_accelerated import Trainer

    class OneCycleTrainer(Trainer):  # type: ignore[misc]
        lists = Lists()
        right = n = 0

        def create_train_dataloader(self, batch_size: int, train_dl_kwargs: Any = None) -> Any:
            return Batches(job.train)

        def create_eval_dataloader(self, batch_size: int, eval_dl_kwargs: Any = None) -> Any:
            return Batches(job.valid)

        def calculate_train_batch_loss(self, batch: Any) -> Any:
            out = super().calculate_train_batch_loss([b.to(job.device, non_blocking=True) for b in batch])
            self.lists.add(opt, out["loss"].item())
            return out

        def eval_epoch_start(self) -> None:
            super().eval_epoch_start()
            self.right = self.n = 0

        def calculate_eval_batch_loss(self, batch: Any) -> Any:
            x, y = (b.to(job.device, non_blocking=True) for b in batch)
            out = super().calculate_eval_batch_loss((x, y))
            self.right = self.right + (out["model_outputs"].argmax(1) == y).sum()
            self.n += len(y)
            return out

    model = job.model
    opt = job.optimizer(model)
    trainer = OneCycleTrainer(model, nn.CrossEntropyLoss(), opt)

    def train() -> Any:
        trainer.train([0], job.epochs, eval_dataset=[0] if job.valid else None, per_device_batch_size=1,
                      create_scheduler_fn=job.schedule)
        if job.valid:
            return trainer.run_history.get_latest_metric("eval_loss_epoch"), float(trainer.right) / trainer.n
    return train


def keras(job: Job) -> Train:
    """Keras on torch: compile and fit, the schedule in a callback, its default bar."""
    import os
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    sample = next(iter(job.train))[0]
    net = keras.Sequential([keras.Input(sample.shape[1:]), keras.layers.TorchModuleWrapper(job.model)])
    dummy = torch.optim.SGD([torch.zeros(1)], lr=0.0, momentum=0.95)
    schedule = job.schedule(dummy)
    lists = Lists()

    class OneCycle(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            group = dummy.param_groups[0]
            self.model.optimizer.learning_rate, self.model.optimizer.beta_1 = group["lr"], group["momentum"]

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            group = {**dummy.param_groups[0], "betas": (dummy.param_groups[0]["momentum"],)}
            lists.add(type("Opt", (), {"param_groups": [group]}), logs["loss"])
            schedule.step()

    net.compile(keras.optimizers.AdamW(job.lr, beta_2=0.99, weight_decay=1e-2),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"] if job.valid else None)

    class Indexed(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self, dl: Any) -> None:
            super().__init__()
            self.dl = dl

        def __len__(self) -> int:
            return len(self.dl)

        def __getitem__(self, i: int) -> Any:
            return self.dl[i]

    def taken(dl: Any) -> Any:
        return Indexed(dl) if hasattr(dl, "__getitem__") else dl

    def train() -> Any:
        h = net.fit(taken(job.train), epochs=job.epochs, validation_data=taken(job.valid),
                    callbacks=[OneCycle()], shuffle=False)
        return (h.history["val_loss"][-1], h.history["val_accuracy"][-1]) if job.valid else None
    return train


def finished(device: str) -> None:
    """Wait for what is queued on the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def small_cnn(channels: int = 3, classes: int = 2) -> nn.Module:
    """minifast's `simple_cnn((channels, 16, 16, classes))`, spelt out, with the same weights for all."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(i, o, 3, 2, 1) for i, o in [(channels, 16), (16, 16), (16, classes)]]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight)
        nn.init.zeros_(conv.bias)
    net = nn.Sequential(*[m for conv in convs for m in (conv, nn.ReLU())], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return net.to(memory_format=torch.channels_last)    # as minifast's lies, and faster for everybody


def from_pictures(name: str, path: str, device: str, bs: int = 64) -> dict[str, Any]:
    """A job's `train` and `valid` from a folder of pictures, in the way that the contender's documentation shows."""
    if name == "minifast":
        from minifast.vision import ImageDataBunch
        return {"train": ImageDataBunch.from_folder(path, bs=bs, device=device)}
    if name == "fastai 2":
        from fastai.vision.all import ImageDataLoaders
        return {"train": ImageDataLoaders.from_folder(path, train="train", valid="valid", bs=bs, device=device)}
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor
    train, valid = (ImageFolder(f"{path}/{part}", ToTensor()) for part in ("train", "valid"))
    return {"train": DataLoader(train, bs, shuffle=True, drop_last=True, num_workers=WORKERS),
            "valid": DataLoader(valid, bs, num_workers=WORKERS)}


CONTENDERS = dict(zip(names(), (bare, hand_written, hand_written_fused, minifast, fastai, lightning, ignite, skorch,
                                pytorch_accelerated, keras), strict=True))
