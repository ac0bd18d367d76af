"""fastai brings these metrics itself, by way of scikit-learn."""
from fastai.tabular.all import *
from same import mlp
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split


def main(epochs=5):
    set_seed(0)
    x, y = load_digits(return_X_y=True)
    dls = DataLoaders.from_dsets(*random_split(TensorDataset(tensor(x / 16).float(), tensor(y)), [0.8, 0.2]), bs=32)
    metrics = [accuracy, F1Score(average="macro"), CohenKappa(), RocAuc(), F1Score(average="micro")]
    learn = Learner(dls, mlp(64, 64, 10), CrossEntropyLossFlat(), metrics=metrics)
    learn.fit_one_cycle(epochs, 1e-2)
