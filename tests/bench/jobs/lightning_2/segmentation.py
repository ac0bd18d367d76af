import lightning as L
import torch
from segmentation import pictures, unet
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import Accuracy

from .shared import Task, fit


def main(n=800, epochs=4):
    L.seed_everything(0, verbose=False)
    train, valid = (TensorDataset(*map(torch.tensor, pictures(k, seed))) for k, seed in ((n, 0), (n // 4, 1)))
    metrics = {"accuracy": Accuracy("multiclass", num_classes=3, average="micro"),
               "foreground": Accuracy("multiclass", num_classes=3, average="micro", ignore_index=0)}
    task = Task(unet(), nn.CrossEntropyLoss(), metrics, 1e-2)
    fit(task, train, valid, epochs, bs=16)
    with torch.no_grad():
        mask = task.eval().model(valid[0][0][None])[0].argmax(0)
    print(f"the mask of picture 0, {tuple(mask.shape)}: {mask.flatten().bincount().tolist()} pixels of each class")
