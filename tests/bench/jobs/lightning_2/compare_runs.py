import lightning as L
import matplotlib.pyplot as plt
import pandas as pd
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from same import mlp
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset, random_split
from torchmetrics import Accuracy

from .shared import Task, fit


class Flat(Task):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.max_lr, betas=(0.9, 0.99))


class Groups(Task):
    def configure_optimizers(self):
        opt = torch.optim.AdamW([{"params": part.parameters()} for part in (self.model[:2], self.model[2])])
        cycle = torch.optim.lr_scheduler.OneCycleLR(opt, self.max_lr, self.trainer.estimated_stepping_batches)
        return [opt], [{"scheduler": cycle, "interval": "step"}]


def start():
    L.seed_everything(0, verbose=False)
    x, y = load_digits(return_X_y=True)
    return mlp(64, 64, 10), random_split(TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y)), [0.8, 0.2])


def train(task, model, sets, epochs, lr):
    metrics, logger = {"accuracy": Accuracy("multiclass", num_classes=10, average="micro")}, CSVLogger("runs")
    fit(task(model, nn.CrossEntropyLoss(), metrics, lr), *sets, epochs, bs=32, logger=logger, log_every_n_steps=1,
        callbacks=[LearningRateMonitor()], enable_progress_bar=False)
    table = pd.read_csv(f"{logger.log_dir}/metrics.csv")
    return table.rename(columns={"lr-AdamW/pg2": "lr-AdamW"})


def main(path="runs.png"):
    runs = {"flat": train(Flat, *start(), 6, 1e-3), "1cycle": train(Task, *start(), 6, 1e-2)}
    model, sets = start()
    model[:2].requires_grad_(False)
    first = train(Task, model, sets, 3, 1e-2)
    model.requires_grad_(True)
    runs["frozen, then not"] = pd.concat([first, train(Groups, model, sets, 3, [1e-3, 1e-2])])
    figure, axes = plt.subplots(2, 2, figsize=(12, 8))
    for name, table in runs.items():
        for axis, title in zip(axes.flat, ["lr-AdamW", "train_loss", "valid_loss", "accuracy"], strict=True):
            axis.plot(table[title].dropna().to_numpy(), label=name)
            axis.set(ylabel=title)
        print(f"{name:18} accuracy {table['accuracy'].dropna().iloc[-1]:.4f} "
              f"after {len(table['lr-AdamW'].dropna())} batches")
    axes[0, 0].legend()
    figure.savefig(path)
