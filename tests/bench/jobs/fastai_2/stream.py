import tempfile

from fastai.tabular.all import *
from stream import COLUMNS, rows_of, write
from torch.utils.data import IterableDataset


class Batches(IterableDataset):
    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return self.make()


def main(n_rows=200_000, epochs=5, n_batches=200):
    set_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = write(f"{folder}/table.npy", n_rows)
        held_back = n_rows // 10
        train, valid = (Batches(rows_of(f"{folder}/table.npy", *rows)) for rows in (
            (held_back, n_rows), (0, held_back)))
        dls = DataLoaders(TfmdDL(train, bs=None, n=n_batches), TfmdDL(valid, bs=None, n=-(-held_back // 128)))
        learn = Learner(dls, nn.Linear(COLUMNS, 1), MSELossFlat(), wd=0)
        learn.fit_one_cycle(epochs, 1e-2)
    error = (learn.model.weight.detach()[0] - tensor(weights)).abs().max()
    print(f"largest error of a weight: {float(error):.4f}")
