from accelerate import debug_launcher
from fastai.distributed import *
from fastai.tabular.all import *
from same import mlp
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split


def train(epochs):
    set_seed(0)
    x, y = load_digits(return_X_y=True)
    sets = random_split(TensorDataset(tensor(x / 16).float(), tensor(y)), [0.8, 0.2])
    n = num_distrib() or 1
    learn = Learner(DataLoaders.from_dsets(*sets, bs=64 // n), mlp(64, 32, 10), CrossEntropyLossFlat(),
                    metrics=[accuracy])
    with learn.distrib_ctx(in_notebook=False), learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 1e-2)
        losses = [row[0] for row in learn.recorder.values]
        loss, right = learn.recorder.values[-1][1:]
    if rank_distrib() == 0:
        print(f"{n} process{'es' * (n > 1)}: training losses {[round(x, 5) for x in losses]}, "
              f"validation {loss:.5f}, accuracy {right:.4f}")


def main(epochs=3):
    train(epochs)
    debug_launcher(train, (epochs,), 2)
