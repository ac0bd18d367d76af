from pathlib import Path

import lightning as L
import torch
from export_and_serve import server
from same import small_net
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset, random_split
from torchmetrics import Accuracy

from .shared import Task, fit


def predictor(file):
    model = torch.export.load(file).module()

    def predict(pictures):
        with torch.inference_mode():
            best = model(torch.tensor(pictures)).softmax(1).max(1)
        return [[str(i), p] for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    return predict


def train(file="digits.pt2", epochs=5):
    L.seed_everything(0, verbose=False)
    digits = load_digits()
    x, y = torch.tensor(digits.images[:, None] / 16).float(), torch.tensor(digits.target)
    metrics = {"accuracy": Accuracy("multiclass", num_classes=10, average="micro")}
    task = Task(small_net(1, 10, strides=(1, 2, 2)), nn.CrossEntropyLoss(), metrics, 1e-2)
    fit(task, *random_split(TensorDataset(x, y), [0.8, 0.2]), epochs, bs=64)
    sizes = ({0: torch.export.Dim("pictures")},)
    torch.export.save(torch.export.export(task.eval().model, (x[:2],), dynamic_shapes=sizes), file)
    return task, Path(file)


def main(port=0):
    task, file = train()
    with server(predictor(file), port) as httpd:
        print(f"{file} has {file.stat().st_size:,} bytes; listening on http://127.0.0.1:{httpd.server_port}")
        if port:
            httpd.serve_forever()
