import lightning as L
import torch
from same import QUIET, mlp
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics import Accuracy

from .shared import Task


class Print(L.Callback):
    def on_train_epoch_end(self, trainer, task):
        if trainer.is_global_zero:
            found = {name: round(float(value), 5) for name, value in trainer.callback_metrics.items()}
            print(f"{trainer.world_size} process{'es' * (trainer.world_size > 1)}: {found}")


def main(epochs=3):
    for n in (1, 2):
        L.seed_everything(0, verbose=False)
        x, y = load_digits(return_X_y=True)
        sets = random_split(TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y)), [0.8, 0.2])
        metrics = {"accuracy": Accuracy("multiclass", num_classes=10, average="micro")}
        trainer = L.Trainer(max_epochs=epochs, devices=n, strategy="ddp_fork" if n > 1 else "auto",
                            callbacks=[Print()], enable_progress_bar=False, **QUIET)
        trainer.fit(Task(mlp(64, 32, 10), nn.CrossEntropyLoss(), metrics, 1e-2),
                    DataLoader(sets[0], 64 // n, shuffle=True, drop_last=True), DataLoader(sets[1], 64 // n))
