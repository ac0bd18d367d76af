import tempfile

import lightning as L
import torch
from same import QUIET
from stream import COLUMNS, rows_of, write
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from .shared import Task


class Batches(IterableDataset):
    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return self.make()


def main(n_rows=200_000, epochs=5, n_batches=200):
    L.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        weights = write(f"{folder}/table.npy", n_rows)
        held_back = n_rows // 10
        loaders = (DataLoader(Batches(rows_of(f"{folder}/table.npy", *rows)), batch_size=None) for rows in (
            (held_back, n_rows), (0, held_back)))
        task = Task(nn.Linear(COLUMNS, 1), nn.MSELoss(), {}, 1e-2)
        L.Trainer(max_epochs=epochs, limit_train_batches=n_batches, **QUIET).fit(task, *loaders)
    error = (task.model.weight.detach()[0] - torch.from_numpy(weights)).abs().max()
    print(f"largest error of a weight: {float(error):.4f}")
