import lightning as L
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import Accuracy
from transfer_learning import net

from .shared import Task, fit


class FineTuning(Task):
    """The body learns with smaller steps."""
    def configure_optimizers(self):
        opt = torch.optim.AdamW([{"params": part.parameters()} for part in self.model], betas=(0.9, 0.99))
        cycle = torch.optim.lr_scheduler.OneCycleLR(opt, self.max_lr, self.trainer.estimated_stepping_batches)
        return [opt], [{"scheduler": cycle, "interval": "step"}]


def digits(classes, n, n_valid=300):
    data = load_digits()
    chosen = np.isin(data.target, classes)
    x = torch.tensor(np.repeat(data.images[chosen, None] / 16, 3, 1)).float()
    y = torch.tensor(np.searchsorted(classes, data.target[chosen]))
    return TensorDataset(x[:n], y[:n]), TensorDataset(x[-n_valid:], y[-n_valid:])


def train(model, sets, epochs, max_lr, bs, task=Task):
    metrics = {"accuracy": Accuracy("multiclass", num_classes=model[-1].out_features, average="micro")}
    trainer = fit(task(model, nn.CrossEntropyLoss(), metrics, max_lr), *sets, epochs, bs, enable_progress_bar=False)
    return float(trainer.callback_metrics["accuracy"])


def run(seed, n_labels=20, epochs=10):
    L.seed_everything(seed, verbose=False)
    body, few = net(7), digits([7, 8, 9], n_labels)
    train(body, digits([0, 1, 2, 3, 4, 5, 6], 900), 2 * epochs, 1e-2, bs=32)
    model = nn.Sequential(body[:-1].eval().requires_grad_(False), nn.Linear(128, 3))
    train(model, few, 2 * epochs, 3e-2, bs=10)
    model.train().requires_grad_(True)
    transferred = train(model, few, epochs, [1e-4, 1e-3], bs=10, task=FineTuning)
    return transferred, train(net(3), few, 3 * epochs, 1e-2, bs=10)


def main(seeds=4):
    transferred, scratch = zip(*map(run, range(seeds)), strict=True)
    print(f"accuracy with 20 labels, mean of {seeds} seeds: {np.mean(transferred):.3f} on the body that knew other "
          f"digits, {np.mean(scratch):.3f} without")
