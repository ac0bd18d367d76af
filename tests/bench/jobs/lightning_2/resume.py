import tempfile

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from same import QUIET
from torch import nn
from torch.utils.data import TensorDataset, random_split
from torchdata.stateful_dataloader import StatefulDataLoader
from torchmetrics import Accuracy

from .shared import Task


class Crash(L.Callback):
    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, task, batch, i):
        if trainer.global_step == self.at:
            raise OSError("the disk is gone")


class Decayed(Task):
    def __init__(self, *args, wd):
        super().__init__(*args)
        self.wd = wd

    def configure_optimizers(self):
        found = super().configure_optimizers()
        self.set_wd(found[0][0])
        return found

    def on_train_start(self):       # a checkpoint brings its own
        self.set_wd(self.optimizers())

    def set_wd(self, opt):
        for group in opt.param_groups:
            group["weight_decay"] = self.wd


def train(folder, crash_at=None, wd=0.01):
    L.seed_everything(0, verbose=False)
    x = torch.randn(640, 10)
    train, valid = random_split(TensorDataset(x, (x.sum(1) > 0).long()), [0.8, 0.2])
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
    task = Decayed(model, nn.CrossEntropyLoss(), {"accuracy": Accuracy("multiclass", num_classes=2)}, 1e-2, wd=wd)
    callbacks = [ModelCheckpoint(folder, every_n_train_steps=5, save_last=True)]
    callbacks += [] if crash_at is None else [Crash(crash_at)]
    trainer = L.Trainer(max_epochs=4, callbacks=callbacks, **QUIET | {"enable_checkpointing": True})
    trainer.fit(task, StatefulDataLoader(train, 32, shuffle=True), StatefulDataLoader(valid, 32), ckpt_path="last")
    return trainer


def main():
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(folder, crash_at=37)
        except OSError as e:
            print("the first process:", e)
        trainer = train(folder, wd=0.1)
        print(f"with another weight decay: {trainer.global_step} batches, "
              f"accuracy {trainer.callback_metrics['accuracy']:.3f}")
