"""The next two days of an hourly series from the last four: windows as samples, several quantities as one output."""
from minifast.basics import *

PAST, AHEAD = 96, 48


def series(n=6000, seed=0):
    """A daily and a weekly rhythm, a trend in their strength, and noise."""
    hours = np.arange(n)
    rng = np.random.default_rng(seed)
    daily = np.sin(2 * np.pi * hours / 24) * (1 + hours / n)
    return (daily + 0.7 * np.sin(2 * np.pi * hours / 168) + rng.normal(0, 0.15, n)).astype(np.float32)


def windows(values):
    """(samples, past) and (samples, ahead), an hour apart."""
    every = np.lib.stride_tricks.sliding_window_view(values, PAST + AHEAD)
    return every[:, :PAST].copy(), every[:, PAST:].copy()


class DLinear(nn.Module):
    """The mean over a day around each hour, and the rest, each through a linear layer (arXiv 2205.13504)."""

    def __init__(self):
        super().__init__()
        self.trend, self.rest = nn.Linear(PAST, AHEAD), nn.Linear(PAST, AHEAD)

    def forward(self, past):
        trend = F.avg_pool1d(F.pad(past[:, None], (12, 12), mode="replicate"), 25, stride=1)[:, 0]
        return self.trend(trend) + self.rest(past - trend)


def main(epochs=8):
    torch.manual_seed(0)
    values = series()
    # no window of the training reaches into the validation
    data = DataBunch.from_arrays(*windows(values[:4500]), valid=windows(values[4500:]), bs=64, seed=0)
    learn = Learner(data, DLinear(), metrics=[rmse, mae])
    learn.fit_one_cycle(epochs, 1e-2)
    past, ahead = windows(values[4500:])
    repeated = np.sqrt(((past[:, -AHEAD:] - ahead) ** 2).mean())
    print(f"rmse {learn.validate()[1]:.4f}; that of repeating the last two days {repeated:.4f}")
    return learn


if __name__ == "__main__":
    main()
