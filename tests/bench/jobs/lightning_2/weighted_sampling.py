import lightning as L
from torch import nn
from torch.utils.data import TensorDataset, WeightedRandomSampler
from torchmetrics import Accuracy, Precision, Recall
from weighted_sampling import points

from .shared import Task, fit


def main(n=6000, epochs=6):
    found = {}
    for name in ("as they come", "balanced"):
        L.seed_everything(0, verbose=False)
        (x, y), valid = points(n, seed=0), points(n, seed=1)
        sampler = WeightedRandomSampler(1 / y.bincount()[y].double(), n) if name == "balanced" else None
        metrics = {"accuracy": Accuracy("binary"), "recall": Recall("binary"), "precision": Precision("binary")}
        task = Task(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), nn.BCEWithLogitsLoss(), metrics, 0.1)
        trainer = fit(task, TensorDataset(x, y.float()), TensorDataset(valid[0], valid[1].float()), epochs, 64, sampler)
        found[name] = {name: float(value) for name, value in trainer.callback_metrics.items()}
        print(f"{name:14}", {metric: round(value, 3) for metric, value in found[name].items()})
