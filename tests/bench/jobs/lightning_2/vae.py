import lightning as L
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split
from vae import ELBO, VAE

from .shared import Task, fit


class WithParts(Task):
    def validation_step(self, batch, i):
        super().validation_step(batch, i)
        self.log_dict(self.loss_func.metrics, prog_bar=True)


def main(epochs=15):
    L.seed_everything(0, verbose=False)
    x = torch.tensor(load_digits().data / 16).float()
    task = WithParts(VAE(), ELBO(), {}, 5e-3)
    fit(task, *random_split(TensorDataset(x, x), [0.8, 0.2]), epochs, bs=32)
    drawn = task.model.decode(torch.randn(2, 8)).sigmoid().reshape(2, 8, 8)
    for row in torch.cat(list(drawn), 1):
        print("".join(" .:*#"[int(4.99 * v)] * 2 for v in row))
