"""Transfer learning: a body that knows other classes, frozen, with a new head; then all, with smaller steps below.

The body is trained here, so that nothing is downloaded; `cnn_learner(data, models.resnet34)` takes torchvision's.
"""
from sklearn.datasets import load_digits

from minifast.vision import *


def digits(classes, n, n_valid=300):
    """n labelled pictures of these classes, in three channels."""
    data = load_digits()
    chosen = np.isin(data.target, classes)
    x = np.repeat(data.images[chosen, None] / 16, 3, 1).astype(np.float32)
    y = np.searchsorted(classes, data.target[chosen])
    return DataBunch.from_arrays(x[:n], y[:n], (x[-n_valid:], y[-n_valid:]), bs=min(n // 2, 32), seed=0,
                                 classes=[str(c) for c in classes])


def net(classes):
    return nn.Sequential(*simple_cnn((3, 32, 64, 128), strides=(1, 2, 2), bn=True), nn.Linear(128, classes))


def run(seed, n_labels=20, epochs=10):
    torch.manual_seed(seed)
    body = net(7)
    Learner(digits([0, 1, 2, 3, 4, 5, 6], 900), body, silent=True).fit_one_cycle(2 * epochs, 1e-2)

    few = digits([7, 8, 9], n_labels)
    learn = cnn_learner(few, body, cut=3, lin_ftrs=[], ps=0, concat_pool=False, init=None, train_bn=False,
                        metrics=[accuracy], silent=True)    # a linear head; the body is frozen
    learn.fit_one_cycle(2 * epochs, 3e-2)
    learn.unfreeze()
    learn.fit_one_cycle(epochs, slice(1e-4, 1e-3))

    scratch = Learner(few, net(3), metrics=[accuracy], silent=True)
    scratch.fit_one_cycle(3 * epochs, 1e-2)
    return learn, float(learn.validate()[1]), float(scratch.validate()[1])


def main(seeds=4):
    learns, transferred, scratch = zip(*map(run, range(seeds)), strict=True)
    print(f"accuracy with 20 labels, mean of {seeds} seeds: {np.mean(transferred):.3f} on the body that knew other "
          f"digits, {np.mean(scratch):.3f} without")
    return learns[0], (np.mean(transferred), np.mean(scratch))


if __name__ == "__main__":
    main()
