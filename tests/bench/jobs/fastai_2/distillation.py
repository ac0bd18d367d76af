from distillation import net, soft_or_hard
from fastai.tabular.all import *
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset


class Teacher(Callback):
    def __init__(self, teacher):
        self.teacher = teacher.eval()

    def before_batch(self):
        if self.training:
            with torch.no_grad():
                self.learn.yb = (*self.yb, self.teacher(*self.xb))


def learner(n, width):
    set_seed(0)
    x, y = load_digits(return_X_y=True)
    x, y = tensor(x / 16).float(), tensor(y)
    dls = DataLoaders.from_dsets(TensorDataset(x[:n], y[:n]), TensorDataset(x[1000:], y[1000:]), bs=20)
    return Learner(dls, net(width), soft_or_hard, metrics=[accuracy])


def trained(learn, epochs, cbs=None):
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 1e-2, cbs=cbs)
        return learn.validate()[1]


def main(epochs=30, n_labels=60):
    teacher, alone, taught = learner(1000, 256), learner(n_labels, 16), learner(1000, 16)
    scores = {"teacher": trained(teacher, epochs),
              f"student with {n_labels} labels": trained(alone, epochs * 1000 // n_labels),
              "student of the teacher": trained(taught, epochs, Teacher(teacher.model))}
    for name, score in scores.items():
        print(f"{name:22} accuracy {score:.4f}")
