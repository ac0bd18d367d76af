import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset, random_split
from torchmetrics import Accuracy
from torchvision.transforms.v2 import MixUp
from vit import ViT, layer_decay

from .shared import Task, fit


class Decayed(Task):
    mixup = MixUp(alpha=0.2, num_classes=10)

    def on_after_batch_transfer(self, batch, i):
        return self.mixup(*batch) if self.trainer.training else batch

    def configure_optimizers(self):
        model = self.model
        parts = [[model.patches], *([block] for block in model.blocks), [model.head]]
        parts[-2].append(model.norm)
        groups = [{"params": [model.cls, model.place], "lr": self.max_lr[0]}]
        for part, lr in zip(parts, self.max_lr, strict=True):
            weights = [p for module in part for p in module.parameters()]
            groups.append({"params": [p for p in weights if p.ndim > 1], "lr": lr})
            groups.append({"params": [p for p in weights if p.ndim == 1], "lr": lr, "weight_decay": 0})
        opt = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.05)
        n = self.trainer.estimated_stepping_batches
        curve = torch.optim.lr_scheduler.LambdaLR(
            opt, lambda i: i / n / 0.1 if i < 0.1 * n else 0.5 + 0.5 * np.cos(np.pi * (i / n - 0.1) / 0.9))
        return [opt], [{"scheduler": curve, "interval": "step"}]


def main(n=1797, depth=2, epochs=15):
    L.seed_everything(0, verbose=False)
    x, y = load_digits(return_X_y=True)
    sets = random_split(TensorDataset(torch.tensor(x[:n] / 16).float().reshape(-1, 1, 8, 8), torch.tensor(y[:n])),
                        [0.8, 0.2])
    model = ViT(depth=depth)
    lrs = layer_decay(model, 3e-3)
    metrics = {"accuracy": Accuracy("multiclass", num_classes=10, average="micro")}
    fit(Decayed(model, nn.CrossEntropyLoss(label_smoothing=0.1), metrics, lrs), *sets, epochs, bs=64,
        gradient_clip_val=1.0, precision="bf16-mixed", callbacks=[EMAWeightAveraging(decay=0.98)])
    print("learning rates of the groups:", [f"{lr:.1e}" for lr in lrs])
