from fastai.vision.all import *
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split
from vae import ELBO, VAE


def main(epochs=15):
    set_seed(0)
    x, elbo = tensor(load_digits().data / 16).float(), ELBO()
    dls = DataLoaders.from_dsets(*random_split(TensorDataset(x, x), [0.8, 0.2]), bs=32)

    def pixels(outputs, x):
        return elbo.metrics["pixels"]

    def kl(outputs, x):
        return elbo.metrics["kl"]
    learn = Learner(dls, VAE(), elbo, metrics=[AvgMetric(pixels), AvgMetric(kl)])
    learn.fit_one_cycle(epochs, 5e-3)
    drawn = learn.model.decode(torch.randn(2, 8)).sigmoid().reshape(2, 8, 8)
    for row in torch.cat(list(drawn), 1):
        print("".join(" .:*#"[int(4.99 * v)] * 2 for v in row))
