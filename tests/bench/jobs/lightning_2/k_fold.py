import lightning as L
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import Accuracy

from .shared import Task, fit


def main(folds=5, epochs=8):
    x, y = load_breast_cancer(return_X_y=True)
    scores = []
    for rows in StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y):
        L.seed_everything(0, verbose=False)
        scale = StandardScaler().fit(x[rows[0]])
        sets = [TensorDataset(torch.tensor(scale.transform(x[r])).float(), torch.tensor(y[r])) for r in rows]
        metrics = {"accuracy": Accuracy("multiclass", num_classes=2)}
        trainer = fit(Task(nn.Linear(30, 2), nn.CrossEntropyLoss(), metrics, 3e-2), *sets, epochs, bs=32)
        scores.append(float(trainer.callback_metrics["accuracy"]))
    print(f"accuracy {np.mean(scores):.4f} ± {np.std(scores):.4f} over {folds} folds: {np.round(scores, 3).tolist()}")
