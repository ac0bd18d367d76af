from fastai.vision.all import *
from gan import GAN
from torch.utils.data import TensorDataset


class Turns(Callback):
    def before_batch(self):
        self.model.turn = ["critic", "generator"][self.train_iter % 2] if self.training else None

    def before_step(self):
        other = "generator" if self.model.turn == "critic" else "critic"
        for p in getattr(self.model, other).parameters():
            p.grad = None


def total(losses, real):
    return sum(losses.values())


def part(name, losses, real):
    return losses[name]


def main(n=6400, epochs=10):
    set_seed(0)
    x = 3 + 0.5 * torch.randn(n, 1)
    dls = DataLoaders.from_dsets(*(TensorDataset(rows, rows) for rows in (x[n // 10:], x[:n // 10])), bs=64)
    metrics = [AvgMetric(partial(part, "critic")), AvgMetric(partial(part, "generator"))]
    learn = Learner(dls, GAN(), total, opt_func=partial(Adam, mom=0.5), wd=0, metrics=metrics, cbs=Turns(),
                    splitter=lambda model: [params(model.generator), params(model.critic)])
    learn.fit_flat_cos(epochs, slice(5e-3, 1e-2))
    fake = learn.model.generator(torch.randn(10000, 4)).detach()
    print(f"real: mean 3, deviation 0.5; generated: {float(fake.mean()):.2f}, {float(fake.std()):.2f}")
