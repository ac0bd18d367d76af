"""A task with a model, a loss and metrics under 1cycle, and its fit."""
import lightning as L
import torch
from same import QUIET
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection


class Task(L.LightningModule):
    def __init__(self, model, loss_func, metrics, max_lr):
        super().__init__()
        self.model, self.loss_func, self.metrics, self.max_lr = model, loss_func, MetricCollection(metrics), max_lr

    def training_step(self, batch, i):
        *x, y = batch
        loss = self.loss_func(self.model(*x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch, i):
        *x, y = batch
        output = self.model(*x)
        self.log("valid_loss", self.loss_func(output, y), prog_bar=True, sync_dist=True)
        self.metrics(output, y)
        self.log_dict(self.metrics, prog_bar=True)

    def configure_optimizers(self):
        opt = torch.optim.AdamW(self.parameters(), betas=(0.9, 0.99))
        cycle = torch.optim.lr_scheduler.OneCycleLR(opt, self.max_lr, self.trainer.estimated_stepping_batches)
        return [opt], [{"scheduler": cycle, "interval": "step"}]


def fit(task, train, valid, epochs, bs, sampler=None, **options):
    trainer = L.Trainer(max_epochs=epochs, **QUIET | options)
    trainer.fit(task, DataLoader(train, bs, shuffle=sampler is None, sampler=sampler, drop_last=True),
                DataLoader(valid, bs))
    return trainer
