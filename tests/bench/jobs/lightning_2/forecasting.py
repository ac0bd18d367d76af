import lightning as L
import numpy as np
import torch
from forecasting import AHEAD, DLinear, series, windows
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from .shared import Task, fit


def main(epochs=8):
    L.seed_everything(0, verbose=False)
    values = series()
    sets = [TensorDataset(*map(torch.tensor, windows(part))) for part in (values[:4500], values[4500:])]
    metrics = {"rmse": MeanSquaredError(squared=False, num_outputs=1), "mae": MeanAbsoluteError()}
    trainer = fit(Task(DLinear(), nn.MSELoss(), metrics, 1e-2), *sets, epochs, bs=64)
    past, ahead = windows(values[4500:])
    repeated = np.sqrt(((past[:, -AHEAD:] - ahead) ** 2).mean())
    print(f"rmse {trainer.callback_metrics['rmse']:.4f}; that of repeating the last two days {repeated:.4f}")
