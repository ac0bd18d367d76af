"""Self-supervised: a network learns from pictures without labels (SimCLR), a linear probe shows what its codes hold."""
import copy

from sklearn.datasets import load_digits

from minifast.basics import *


def two_views(batch):
    """Each picture twice, shifted, scaled in brightness and with noise of its own."""
    x, y = batch
    views = []
    for _ in range(2):
        shift = torch.randint(-1, 2, (2,)).tolist()
        view = x.roll(shift, (2, 3)) * (0.6 + 0.8 * torch.rand(len(x), 1, 1, 1))
        views.append(view + 0.2 * torch.randn_like(x))
    return torch.cat(views), torch.cat([y, y])


def nt_xent(codes, _, t=0.2):
    """Each view's nearest among all others is to be its twin (arXiv 2002.05709)."""
    codes = F.normalize(codes, dim=1)
    likeness = codes @ codes.T / t - 1e9 * torch.eye(len(codes))
    return F.cross_entropy(likeness, torch.arange(len(codes)).roll(len(codes) // 2))


def body():
    return nn.Sequential(simple_cnn((1, 32, 64, 128), strides=(1, 2, 2), bn=True))


def probe(net, x, y, n_labels):
    """The accuracy of a linear layer on frozen codes."""
    torch.manual_seed(0)
    data = DataBunch.from_arrays(x[:n_labels], y[:n_labels], valid=(x[1000:], y[1000:]), bs=20, seed=0)
    learn = Learner(data, nn.Sequential(net, nn.Linear(128, 10)), metrics=[accuracy], silent=True, train_bn=False)
    learn.split([learn.model[1]]).freeze()
    learn.callbacks = [BnFreeze(learn)]     # and keeps the frozen layers' statistics, too
    learn.fit_one_cycle(20, 3e-2)
    return learn.validate()[1]


def main(epochs=15, n_labels=50):
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    torch.manual_seed(0)
    net = body()
    before = probe(copy.deepcopy(net), x, y, n_labels)
    data = DataBunch.from_arrays(x[:1000], y[:1000], valid_pct=0, bs=100, seed=0, loss_func=nt_xent, dl_tfms=two_views)
    Learner(data, nn.Sequential(net, nn.Linear(128, 64))).fit_one_cycle(epochs, 1e-2)
    after = probe(net, x, y, n_labels)
    print(f"accuracy with {n_labels} labels: random network {before:.3f}, after SimCLR {after:.3f}")
    return before, after


if __name__ == "__main__":
    main()
