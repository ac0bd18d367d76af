import lightning as L
import numpy as np
import pandas as pd
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from tabular_classification import customers
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import Accuracy, F1Score

from .shared import Task, fit


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


def main(epochs=6):
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
