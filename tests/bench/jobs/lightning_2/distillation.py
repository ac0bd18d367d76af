import lightning as L
import torch
from distillation import net, soft_or_hard
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from torchmetrics import Accuracy

from .shared import Task, fit


class Student(Task):
    def __init__(self, teacher, *args):
        super().__init__(*args)
        self.teacher = teacher.eval().requires_grad_(False)

    def training_step(self, batch, i):
        x, y = batch
        return self.loss_func(self.model(x), y, self.teacher(x))


def train(n, width, epochs, teacher=None):
    L.seed_everything(0, verbose=False)
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16).float(), torch.tensor(y)
    args = net(width), soft_or_hard, {"accuracy": Accuracy("multiclass", num_classes=10, average="micro")}, 1e-2
    task = Task(*args) if teacher is None else Student(teacher, *args)
    trainer = fit(task, TensorDataset(x[:n], y[:n]), TensorDataset(x[1000:], y[1000:]), epochs, bs=20,
                  enable_progress_bar=False)
    return task.model, float(trainer.callback_metrics["accuracy"])


def main(epochs=30, n_labels=60):
    teacher, score = train(1000, 256, epochs)
    scores = {"teacher": score, f"student with {n_labels} labels": train(n_labels, 16, epochs * 1000 // n_labels)[1],
              "student of the teacher": train(1000, 16, epochs, teacher)[1]}
    for name, score in scores.items():
        print(f"{name:22} accuracy {score:.4f}")
