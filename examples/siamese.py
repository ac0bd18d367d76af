"""Pairs: one network for both pictures of a pair, trained to bring those of one class together."""
from sklearn.datasets import load_digits

from minifast.basics import *


class Siamese(nn.Module):
    """A pair of pictures to the distance of their codes."""

    def __init__(self):
        super().__init__()
        self.code = nn.Sequential(simple_cnn((1, 32, 64, 64), bn=True), nn.Linear(64, 16))

    def forward(self, a, b):    # a tuple of inputs is the model's arguments
        return (self.code(a) - self.code(b)).pow(2).sum(1).add(1e-6).sqrt()


def contrastive(distance, same, margin=2.0):
    return (same * distance**2 + (1 - same) * F.relu(margin - distance) ** 2).mean()


def right(distance, same, margin=2.0):
    return ((distance < margin / 2) == same.bool()).float().mean()


def pairs(x, y, n, seed):
    """As many pairs of one class as of two."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(x), n)
    second = [rng.choice(np.flatnonzero((y == y[i]) == (k % 2 == 0))) for k, i in enumerate(first)]
    return (x[first], x[second]), (y[first] == y[second]).astype(np.float32)


def main(n=4000, epochs=5):
    torch.manual_seed(0)
    digits = load_digits()
    x, y = (digits.images[:, None] / 16).astype(np.float32), digits.target
    valid = pairs(x[1000:], y[1000:], 500, seed=1)      # pictures that are not trained on
    data = DataBunch.from_arrays(*pairs(x[:1000], y[:1000], n, seed=0), valid=valid, bs=64, loss_func=contrastive)
    learn = Learner(data, Siamese(), metrics=[right])
    learn.fit_one_cycle(epochs, 1e-2)
    print(f"pairs of new pictures that are told right: {learn.validate()[1]:.3f}")
    return learn


if __name__ == "__main__":
    main()
