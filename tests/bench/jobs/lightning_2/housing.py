import lightning as L
import numpy as np
import torch
from housing import table
from lightning.pytorch.tuner import Tuner
from same import QUIET
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanSquaredError, MetricCollection, R2Score


class Regression(L.LightningModule):
    def __init__(self, model, lr):
        super().__init__()
        self.model, self.lr = model, lr
        self.metrics = MetricCollection({"rmse": MeanSquaredError(squared=False), "r2": R2Score()})

    def training_step(self, batch, i):
        x, y = batch
        loss = F.mse_loss(self.model(x)[:, 0], y)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, i):
        x, y = batch
        self.metrics(self.model(x)[:, 0], y)
        self.log_dict(self.metrics, prog_bar=True)

    def configure_optimizers(self):
        opt, n = torch.optim.AdamW(self.parameters(), self.lr), self.trainer.estimated_stepping_batches
        cycle = torch.optim.lr_scheduler.LambdaLR(
            opt, lambda i: float(np.interp(i / n, [0, 0.45, 0.9, 1], [0.1, 1, 0.1, 0.0001])))
        return [opt], [{"scheduler": cycle, "interval": "step"}]


def main(epochs=15, seed=0):
    L.seed_everything(seed, verbose=False)
    df = table(seed=seed)
    scale = StandardScaler().fit(df.iloc[:3000, :10])
    train, valid = (TensorDataset(torch.tensor(scale.transform(part.iloc[:, :10])).float(),
                                  torch.tensor(part["y"].to_numpy()).float()) for part in (df[:3000], df[3000:]))
    loaders = DataLoader(train, 64, shuffle=True, drop_last=True), DataLoader(valid, 64)
    model = nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.BatchNorm1d(100), nn.Linear(100, 50), nn.ReLU(),
                          nn.BatchNorm1d(50), nn.Linear(50, 1))
    task, trainer = Regression(model, 1e-3), L.Trainer(max_epochs=epochs, **QUIET)
    lr = Tuner(trainer).lr_find(task, *loaders, min_lr=1e-3, max_lr=1, num_training=40).suggestion()
    task.lr = lr
    trainer.fit(task, *loaders)
    trees = HistGradientBoostingRegressor(random_state=0).fit(df.iloc[:3000, :10], df["y"][:3000])
    of_trees = trees.score(df.iloc[3000:, :10], df["y"][3000:])
    found = trainer.callback_metrics
    print(f"lr {lr:.3g}: rmse {found['rmse']:.3f}, R² {found['r2']:.4f}; gradient boosting R² {of_trees:.4f}")
