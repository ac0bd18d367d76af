"""Alternating training of two networks, each by an optimizer of its own: a GAN in one dimension.

Both are parts of one model, so that one file holds them. Both are layer groups of one Adam, which keeps a state for
each parameter and leaves out those without a gradient: that is two optimizers, which take turns, each with its own
learning rate. A schedule moves both, and a checkpoint goes on with everything.
"""
from minifast.basics import *


class GAN(nn.Module):
    def __init__(self, n_noise=4):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(n_noise, 32), nn.ReLU(), nn.Linear(32, 1))
        self.critic = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 1))
        self.n_noise, self.turn = n_noise, None     # None: both, in a validation

    def forward(self, real):
        fake = self.generator(torch.randn(len(real), self.n_noise))
        losses = {}
        if self.turn != "generator":
            losses["critic"] = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(fake.detach())).mean()
        if self.turn != "critic":
            losses["generator"] = F.softplus(-self.critic(fake)).mean()
        return losses


class Turns(LearnerCallback):
    """The networks take turns, batch by batch."""

    def on_batch_begin(self, train, iteration):
        self.learn.model.turn = ["critic", "generator"][iteration % 2] if train else None

    def on_backward_end(self):      # the generator's loss has gone through the critic
        other = "generator" if self.learn.model.turn == "critic" else "critic"
        for p in getattr(self.learn.model, other).parameters():
            p.grad = None


def make(n=6400, path="."):
    torch.manual_seed(0)
    x = 3 + 0.5 * torch.randn(n, 1)
    data = DataBunch.from_arrays(x, x, valid_pct=0.1, bs=64, seed=0, path=path,
                                 loss_func=ModelLoss(parts=["critic", "generator"]))
    learn = Learner(data, GAN(), opt_func=partial(optim.Adam, betas=(0.5, 0.99)), wd=0, callback_fns=Turns)
    return learn.split([learn.model.critic])    # two layer groups: the generator, the critic


def main(epochs=10):
    learn = make()
    learn.fit_fc(epochs, [5e-3, 1e-2], moms=None, callbacks=LossMetrics(learn))
    fake = learn.model.generator(torch.randn(10000, 4)).detach()
    print(f"real: mean 3, deviation 0.5; generated: {float(fake.mean()):.2f}, {float(fake.std()):.2f}")
    return learn


if __name__ == "__main__":
    main()
