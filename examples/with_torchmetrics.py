"""Metrics of torchmetrics: one, several in a collection, and one with a name of your own."""
from sklearn.datasets import load_digits
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAUROC, MulticlassCohenKappa, MulticlassF1Score

from minifast.basics import *


def main(epochs=5):
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    data = DataBunch.from_arrays(x / 16, y, bs=32, seed=0)
    metrics = [accuracy, MulticlassF1Score(10, average="macro"), {"agreement": MulticlassCohenKappa(10)},
               MetricCollection({"auroc": MulticlassAUROC(10), "micro_f1": MulticlassF1Score(10, average="micro")})]
    learn = Learner(data, nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), metrics=metrics)
    learn.fit_one_cycle(epochs, 1e-2)
    return learn


if __name__ == "__main__":
    main()
