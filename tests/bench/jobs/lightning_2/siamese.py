import lightning as L
import numpy as np
import torch
from siamese import Siamese, contrastive, pairs, right
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from torchmetrics import MeanMetric

from .shared import Task, fit


class Right(MeanMetric):
    def update(self, distance, same):
        super().update(right(distance, same), weight=len(same))


def main(n=4000, epochs=5):
    L.seed_everything(0, verbose=False)
    digits = load_digits()
    x, y = (digits.images[:, None] / 16).astype(np.float32), digits.target
    sets = [TensorDataset(*map(torch.tensor, [*inputs, same])) for inputs, same in (
        pairs(x[:1000], y[:1000], n, seed=0), pairs(x[1000:], y[1000:], 500, seed=1))]
    trainer = fit(Task(Siamese(), contrastive, {"right": Right()}, 1e-2), *sets, epochs, bs=64)
    print(f"pairs of new pictures that are told right: {trainer.callback_metrics['right']:.3f}")
