import lightning as L
import numpy as np
import torch
from gan import GAN
from torch.utils.data import TensorDataset

from .shared import fit


class Alternating(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model, self.automatic_optimization = model, False

    def training_step(self, batch, i):
        name = ["critic", "generator"][i % 2]
        self.model.turn, opt, cycle = name, self.optimizers()[i % 2], self.lr_schedulers()[i % 2]
        self.toggle_optimizer(opt)
        loss = self.model(batch[0])[name]
        opt.zero_grad()
        self.manual_backward(loss)
        opt.step()
        cycle.step()
        self.untoggle_optimizer(opt)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)

    def validation_step(self, batch, i):
        self.model.turn = None
        self.log_dict(self.model(batch[0]), prog_bar=True)

    def configure_optimizers(self):
        n = self.trainer.estimated_stepping_batches // 2
        opts = [torch.optim.Adam(part.parameters(), lr, betas=(0.5, 0.99))
                for part, lr in ((self.model.critic, 1e-2), (self.model.generator, 5e-3))]
        return opts, [torch.optim.lr_scheduler.LambdaLR(
            opt, lambda i: 1.0 if i < 0.72 * n else 0.5 + 0.5 * np.cos(np.pi * (i / n - 0.72) / 0.28)) for opt in opts]


def main(n=6400, epochs=10):
    L.seed_everything(0, verbose=False)
    x = 3 + 0.5 * torch.randn(n, 1)
    task = Alternating(GAN())
    fit(task, TensorDataset(x[n // 10:]), TensorDataset(x[:n // 10]), epochs, bs=64)
    fake = task.model.generator(torch.randn(10000, 4)).detach()
    print(f"real: mean 3, deviation 0.5; generated: {float(fake.mean()):.2f}, {float(fake.std()):.2f}")
