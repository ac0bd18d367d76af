import lightning as L
import torch
from multi_label import SHAPES, pictures
from same import small_net
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import Accuracy, F1Score

from .shared import Task, fit


def main(n=2000, epochs=6):
    L.seed_everything(0, verbose=False)
    train, valid = (TensorDataset(*map(torch.tensor, pictures(k, seed))) for k, seed in ((n, 0), (n // 4, 1)))
    metrics = {"accuracy": Accuracy("multilabel", num_labels=3), "f1": F1Score("multilabel", num_labels=3)}
    task = Task(small_net(1, 3), nn.BCEWithLogitsLoss(), metrics, 2e-2)
    fit(task, train, valid, epochs, bs=32)
    with torch.no_grad():
        probabilities = task.eval().model(valid[0][0][None])[0].sigmoid()
    names = [name for name, p in zip(SHAPES, probabilities, strict=True) if p > 0.5]
    print(f"picture 0 shows {names}, with probabilities {probabilities.numpy().round(2)}")
