"""A variational autoencoder: the model returns three outputs, the loss has two parts, and both are columns."""
from sklearn.datasets import load_digits

from minifast.basics import *


class VAE(nn.Module):
    def __init__(self, n=64, hidden=128, code=8):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, 2 * code))
        self.decode = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, n))

    def forward(self, x):
        mean, log_var = self.encode(x).chunk(2, 1)
        noise = torch.randn_like(mean) if self.training else 0
        return self.decode(mean + noise * (log_var / 2).exp()), mean, log_var


class ELBO(nn.Module):
    """Negative evidence lower bound of a sample: pixels as probabilities, and the distance of its code from N(0, 1)."""

    metric_names = ["pixels", "kl"]

    def forward(self, outputs, x):
        logits, mean, log_var = outputs
        pixels = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        kl = (mean**2 + log_var.exp() - log_var - 1).sum() / 2 / len(x)
        self.metrics = {"pixels": pixels, "kl": kl}
        return pixels + kl


def main(epochs=15):
    torch.manual_seed(0)
    x = torch.tensor(load_digits().data / 16).float()
    data = DataBunch.from_arrays(x, x, bs=32, seed=0, loss_func=ELBO())     # the targets are the inputs
    learn = Learner(data, VAE())
    learn.fit_one_cycle(epochs, 5e-3, callbacks=LossMetrics(learn))
    drawn = learn.model.decode(torch.randn(2, 8)).sigmoid().reshape(2, 8, 8)
    for row in torch.cat(list(drawn), 1):       # two new digits
        print("".join(" .:*#"[int(4.99 * v)] * 2 for v in row))
    return learn


if __name__ == "__main__":
    main()
