import lightning as L
import torch
from same import mlp
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset, random_split
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassCohenKappa, MulticlassF1Score

from .shared import Task, fit


def main(epochs=5):
    L.seed_everything(0, verbose=False)
    x, y = load_digits(return_X_y=True)
    sets = random_split(TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y)), [0.8, 0.2])
    metrics = {"accuracy": MulticlassAccuracy(10, average="micro"), "f1": MulticlassF1Score(10, average="macro"),
               "agreement": MulticlassCohenKappa(10), "auroc": MulticlassAUROC(10),
               "micro_f1": MulticlassF1Score(10, average="micro")}
    fit(Task(mlp(64, 64, 10), nn.CrossEntropyLoss(), metrics, 1e-2), *sets, epochs, bs=32)
