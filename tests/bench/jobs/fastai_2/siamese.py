from fastai.vision.all import *
from siamese import Siamese, contrastive, pairs, right
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset


def main(n=4000, epochs=5):
    set_seed(0)
    digits = load_digits()
    x, y = (digits.images[:, None] / 16).astype(np.float32), digits.target
    sets = [TensorDataset(*map(tensor, [*inputs, same])) for inputs, same in (
        pairs(x[:1000], y[:1000], n, seed=0), pairs(x[1000:], y[1000:], 500, seed=1))]
    learn = Learner(DataLoaders.from_dsets(*sets, bs=64), Siamese(), contrastive, metrics=[right])
    learn.fit_one_cycle(epochs, 1e-2)
    print(f"pairs of new pictures that are told right: {learn.validate()[1]:.3f}")
