"""Several labels for a picture: targets are rows of 0 and 1, so the loss is binary cross entropy."""
from minifast.basics import *

SHAPES = ["square", "disk", "stripe"]


def pictures(n, seed, size=24):
    """Noise, and each shape in half of the pictures, anywhere."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n, 3)) < 0.5
    rows, columns = np.mgrid[:size, :size]
    x = rng.normal(0, 0.2, (n, 1, size, size)).astype(np.float32)
    for picture, (square, disk, stripe) in zip(x[:, 0], labels, strict=True):
        i, j, k, m, s = rng.integers(4, size - 4, 5)
        picture[(abs(rows - i) < 3) & (abs(columns - j) < 3)] += square
        picture[(rows - k) ** 2 + (columns - m) ** 2 < 16] -= disk
        picture[s] += stripe
    return x, labels.astype(np.float32)


def main(n=2000, epochs=6):
    torch.manual_seed(0)
    x, y = pictures(n, seed=0)
    data = DataBunch.from_arrays(x, y, valid=pictures(n // 4, seed=1), bs=32, classes=SHAPES)
    model = nn.Sequential(simple_cnn((1, 16, 32, 64), bn=True), nn.Linear(64, 3))
    learn = Learner(data, model, metrics=[accuracy_thresh, MultiLabelFbeta(beta=1, thresh=0.5)])
    learn.fit_one_cycle(epochs, 2e-2)
    names, _, probabilities = learn.predict(data.valid_ds[0][0])
    print(f"picture 0 shows {names}, with probabilities {probabilities.numpy().round(2)}")
    return learn


if __name__ == "__main__":
    main()
