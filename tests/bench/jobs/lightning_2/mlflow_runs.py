import lightning as L
import mlflow
import torch
from lightning.pytorch.loggers import MLFlowLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset, random_split
from torchmetrics import Accuracy

from .shared import Task, fit


def main(tracking_uri="sqlite:///mlflow.db", lrs=(1e-4, 1e-2), epochs=4):
    x, y = load_digits(return_X_y=True)
    for lr in lrs:
        L.seed_everything(0, verbose=False)
        sets = random_split(TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y)), [0.8, 0.2])
        metrics = {"accuracy": Accuracy("multiclass", num_classes=10, average="micro")}
        logger = MLFlowLogger("digits", run_name=f"lr {lr}", tracking_uri=tracking_uri)
        logger.log_hyperparams({"lr_max": lr, "epochs": epochs, "bs": 64})
        fit(Task(nn.Linear(64, 10), nn.CrossEntropyLoss(), metrics, lr), *sets, epochs, bs=64, logger=logger,
            enable_progress_bar=False)
    client = mlflow.MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id], order_by=["metrics.accuracy DESC"])
    for run in runs:
        print(f"{run.info.run_name:10} accuracy {run.data.metrics['accuracy']:.4f}, lr_max {run.data.params['lr_max']}")
