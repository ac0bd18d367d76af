"""Some of examples/ as programs for Lightning 2, for the count of lines: data and models are those of examples/.

`python tests/bench/jobs/lightning_2.py NAME` runs one, in the environment of `make bench`.
"""
import logging
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from torchmetrics import Accuracy, F1Score, MetricCollection, Precision, Recall

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
QUIET = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
             enable_model_summary=False)


def small_net(n_in, n_out):
    from minifast.layers import simple_cnn
    return nn.Sequential(simple_cnn((n_in, 16, 32, 64), bn=True), nn.Linear(64, n_out))


# ---- shared: written once, counted for each job that uses it, as a user would have to write it
class Task(L.LightningModule):
    def __init__(self, model, loss_func, metrics, max_lr):
        super().__init__()
        self.model, self.loss_func, self.metrics, self.max_lr = model, loss_func, MetricCollection(metrics), max_lr

    def training_step(self, batch, i):
        *x, y = batch
        loss = self.loss_func(self.model(*x), y)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, i):
        *x, y = batch
        output = self.model(*x)
        self.log("valid_loss", self.loss_func(output, y))
        self.metrics.update(output, y)

    def on_validation_epoch_end(self):
        self.log_dict(self.metrics.compute())
        self.metrics.reset()
        print({name: round(float(value), 4) for name, value in self.trainer.callback_metrics.items()})

    def configure_optimizers(self):
        opt = torch.optim.AdamW(self.parameters(), betas=(0.9, 0.99))
        cycle = torch.optim.lr_scheduler.OneCycleLR(opt, self.max_lr, self.trainer.estimated_stepping_batches)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def fit(task, train, valid, epochs, bs, sampler=None):
    trainer = L.Trainer(max_epochs=epochs, num_sanity_val_steps=0, **QUIET)
    trainer.fit(task, DataLoader(train, bs, shuffle=sampler is None, sampler=sampler, drop_last=True),
                DataLoader(valid, bs))
    return trainer


# ---- multi_label
def multi_label(n=2000, epochs=6):
    from multi_label import SHAPES, pictures
    L.seed_everything(0, verbose=False)
    train, valid = (TensorDataset(*map(torch.tensor, pictures(k, seed))) for k, seed in ((n, 0), (n // 4, 1)))
    metrics = {"accuracy": Accuracy("multilabel", num_labels=3), "f1": F1Score("multilabel", num_labels=3)}
    task = Task(small_net(1, 3), nn.BCEWithLogitsLoss(), metrics, 2e-2)
    fit(task, train, valid, epochs, bs=32)
    with torch.no_grad():
        probabilities = task.eval().model(valid[0][0][None])[0].sigmoid()
    names = [name for name, p in zip(SHAPES, probabilities, strict=True) if p > 0.5]
    print(f"picture 0 shows {names}, with probabilities {probabilities.numpy().round(2)}")
    return task


# ---- segmentation
def segmentation(n=800, epochs=4):
    from segmentation import pictures, unet
    L.seed_everything(0, verbose=False)
    train, valid = (TensorDataset(*map(torch.tensor, pictures(k, seed))) for k, seed in ((n, 0), (n // 4, 1)))
    metrics = {"accuracy": Accuracy("multiclass", num_classes=3, average="micro"),
               "foreground": Accuracy("multiclass", num_classes=3, average="micro", ignore_index=0)}
    task = Task(unet(), nn.CrossEntropyLoss(), metrics, 1e-2)
    fit(task, train, valid, epochs, bs=16)
    with torch.no_grad():
        mask = task.eval().model(valid[0][0][None])[0].argmax(0)
    print(f"the mask of picture 0, {tuple(mask.shape)}: {mask.flatten().bincount().tolist()} pixels of each class")
    return task


# ---- tabular_classification
class Table(nn.Module):
    def __init__(self, sizes, n_cont, n_out, layers=(50, 20)):
        super().__init__()
        widths = [round(1.6 * n**0.56) for n in sizes]
        self.embeds = nn.ModuleList(map(nn.Embedding, sizes, widths))
        parts, n_in = [], sum(widths) + n_cont
        for n in layers:
            parts += [nn.Linear(n_in, n), nn.ReLU(), nn.BatchNorm1d(n)]
            n_in = n
        self.layers = nn.Sequential(*parts, nn.Linear(n_in, n_out))

    def forward(self, cats, conts):
        return self.layers(torch.cat([*(e(cats[:, i]) for i, e in enumerate(self.embeds)), conts], 1))


def tabular_classification(epochs=6):
    from tabular_classification import customers
    L.seed_everything(0, verbose=False)
    df, cats, conts = customers(), ["city", "member", "income_na"], ["age", "income"]
    df["income_na"] = df["income"].isna()
    train, valid = df[:2400], df[2400:]
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    encode.fit(train[cats].astype(object))
    fill, scale = SimpleImputer(strategy="median").fit(train[conts]), StandardScaler()
    scale.fit(fill.transform(train[conts]))

    def inputs(rows):
        return (torch.tensor(encode.transform(rows[cats].astype(object)) + 1).long(),
                torch.tensor(scale.transform(fill.transform(rows[conts]))).float())
    sets = [TensorDataset(*inputs(part), torch.tensor((part["buys"] == "yes").to_numpy()).long())
            for part in (train, valid)]
    metrics = {"accuracy": Accuracy("multiclass", num_classes=2), "f1": F1Score("multiclass", num_classes=2)}
    task = Task(Table([len(c) + 1 for c in encode.categories_], 2, 2), nn.CrossEntropyLoss(), metrics, 2e-2)
    fit(task, *sets, epochs, bs=64)
    print("categories:", encode.categories_)
    row = {"age": 30, "income": np.nan, "city": "Rome", "member": False, "income_na": True}
    with torch.no_grad():
        print(row, "->", ["no", "yes"][int(task.eval().model(*inputs(pd.DataFrame([row]))).argmax())])
    return task


# ---- k_fold
def k_fold(folds=5, epochs=8):
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import StratifiedKFold
    x, y = load_breast_cancer(return_X_y=True)
    scores = []
    for rows in StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y):
        L.seed_everything(0, verbose=False)
        scale = StandardScaler().fit(x[rows[0]])
        sets = [TensorDataset(torch.tensor(scale.transform(x[r])).float(), torch.tensor(y[r])) for r in rows]
        metrics = {"accuracy": Accuracy("multiclass", num_classes=2)}
        trainer = fit(Task(nn.Linear(30, 2), nn.CrossEntropyLoss(), metrics, 3e-2), *sets, epochs, bs=32)
        scores.append(float(trainer.callback_metrics["accuracy"]))
    print(f"accuracy {np.mean(scores):.4f} ± {np.std(scores):.4f} over {folds} folds: {np.round(scores, 3).tolist()}")
    return scores


# ---- weighted_sampling
class Difference(nn.Linear):
    """Two classes as one output, which torchmetrics' binary metrics want."""

    def __init__(self):
        super().__init__(2, 1)

    def forward(self, x):
        return super().forward(x)[:, 0]


def weighted_sampling(n=6000, epochs=6):
    from weighted_sampling import points
    found = {}
    for name in ("as they come", "balanced"):
        L.seed_everything(0, verbose=False)
        (x, y), valid = points(n, seed=0), points(n, seed=1)
        sampler = WeightedRandomSampler(1 / y.bincount()[y].double(), n) if name == "balanced" else None
        metrics = {"accuracy": Accuracy("binary"), "recall": Recall("binary"), "precision": Precision("binary")}
        task = Task(Difference(), nn.BCEWithLogitsLoss(), metrics, 0.1)
        trainer = fit(task, TensorDataset(x, y.float()), TensorDataset(valid[0], valid[1].float()), epochs, 64,
                      sampler)
        found[name] = {name: float(value) for name, value in trainer.callback_metrics.items()}
        print(f"{name:14}", {metric: round(value, 3) for metric, value in found[name].items()})
    return found


# ---- gan
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
        self.log("train_loss", loss, on_epoch=True)

    def validation_step(self, batch, i):
        self.model.turn = None
        self.log_dict(self.model(batch[0]))

    def on_validation_epoch_end(self):
        print({name: round(float(value), 4) for name, value in self.trainer.callback_metrics.items()})

    def configure_optimizers(self):
        n = self.trainer.estimated_stepping_batches // 2
        opts = [torch.optim.Adam(part.parameters(), lr, betas=(0.5, 0.99))
                for part, lr in ((self.model.critic, 1e-2), (self.model.generator, 5e-3))]
        return opts, [torch.optim.lr_scheduler.LambdaLR(
            opt, lambda i: 1.0 if i < 0.72 * n else 0.5 + 0.5 * np.cos(np.pi * (i / n - 0.72) / 0.28)) for opt in opts]


def gan(n=6400, epochs=10):
    from gan import GAN
    L.seed_everything(0, verbose=False)
    x = 3 + 0.5 * torch.randn(n, 1)
    task = Alternating(GAN())
    fit(task, TensorDataset(x[n // 10:]), TensorDataset(x[:n // 10]), epochs, bs=64)
    fake = task.model.generator(torch.randn(10000, 4)).detach()
    print(f"real: mean 3, deviation 0.5; generated: {float(fake.mean()):.2f}, {float(fake.std()):.2f}")
    return task


# ----
if __name__ == "__main__":
    for job in sys.argv[1:]:
        globals()[job]()
