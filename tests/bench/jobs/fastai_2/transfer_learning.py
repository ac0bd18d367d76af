from fastai.vision.all import *
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from transfer_learning import net


def digits(classes, n, n_valid=300):
    data = load_digits()
    chosen = np.isin(data.target, classes)
    x = tensor(np.repeat(data.images[chosen, None] / 16, 3, 1)).float()
    y = tensor(np.searchsorted(classes, data.target[chosen]))
    return DataLoaders.from_dsets(TensorDataset(x[:n], y[:n]), TensorDataset(x[-n_valid:], y[-n_valid:]),
                                  bs=min(n // 2, 32))


def run(seed, n_labels=20, epochs=10):
    set_seed(seed)
    body, loss = net(7), CrossEntropyLossFlat()
    learn = Learner(digits([0, 1, 2, 3, 4, 5, 6], 900), body, loss)
    few = digits([7, 8, 9], n_labels)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2 * epochs, 1e-2)
    learn = vision_learner(few, lambda pretrained: body, n_out=3, loss_func=loss, cut=3, lin_ftrs=[], ps=0,
                           concat_pool=False, init=None, train_bn=False, normalize=False, metrics=[accuracy])
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2 * epochs, 3e-2)
        learn.unfreeze()
        learn.fit_one_cycle(epochs, slice(1e-4, 1e-3))
        transferred = learn.validate()[1]
    scratch = Learner(few, net(3), loss, metrics=[accuracy])
    with scratch.no_bar(), scratch.no_logging():
        scratch.fit_one_cycle(3 * epochs, 1e-2)
        return transferred, scratch.validate()[1]


def main(seeds=4):
    transferred, scratch = zip(*map(run, range(seeds)), strict=True)
    print(f"accuracy with 20 labels, mean of {seeds} seeds: {np.mean(transferred):.3f} on the body that knew other "
          f"digits, {np.mean(scratch):.3f} without")
