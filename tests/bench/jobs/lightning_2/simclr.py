import copy

import lightning as L
import torch
from same import QUIET
from simclr import body, nt_xent, two_views
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Accuracy

from .shared import Task, fit


class SimCLR(Task):
    def on_after_batch_transfer(self, batch, i):
        return two_views(batch)


def probe(net, known, new):
    L.seed_everything(0, verbose=False)
    model = nn.Sequential(net.eval().requires_grad_(False), nn.Linear(128, 10))
    metrics = {"accuracy": Accuracy("multiclass", num_classes=10, average="micro")}
    trainer = fit(Task(model, nn.CrossEntropyLoss(), metrics, 3e-2), known, new, 20, bs=20, enable_progress_bar=False)
    return float(trainer.callback_metrics["accuracy"])


def main(epochs=15, n_labels=50):
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16).float().reshape(-1, 1, 8, 8), torch.tensor(y)
    known, pictures, new = (TensorDataset(x[part], y[part]) for part in (
        slice(n_labels), slice(1000), slice(1000, None)))
    L.seed_everything(0, verbose=False)
    net = body()
    before = probe(copy.deepcopy(net), known, new)
    task = SimCLR(nn.Sequential(net, nn.Linear(128, 64)), nt_xent, {}, 1e-2)
    L.Trainer(max_epochs=epochs, **QUIET).fit(task, DataLoader(pictures, 100, shuffle=True))
    after = probe(net, known, new)
    print(f"accuracy with {n_labels} labels: random network {before:.3f}, after SimCLR {after:.3f}")
