"""A class for each pixel: pictures (n, 1, h, w), one-channel masks (n, h, w), and cross entropy along axis 1."""
from minifast.basics import *


def pictures(n, seed, size=32):
    """Disks (class 1) and squares (class 2) on noise (class 0)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    masks = np.zeros((n, size, size), np.int64)
    for mask in masks:
        i, j, k, m = rng.integers(5, size - 5, 4)
        mask[(rows - i) ** 2 + (columns - j) ** 2 < 25] = 1
        mask[(abs(rows - k) < 5) & (abs(columns - m) < 5)] = 2
    return ((masks > 0)[:, None] + rng.normal(0, 0.4, (n, 1, size, size))).astype(np.float32), masks


def unet(width=16):
    """Half the resolution in the middle, and the full one beside it."""
    def block(n_in, n_out):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU())

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.top, self.end = block(1, width), nn.Conv2d(3 * width, 3, 3, padding=1)
            self.middle = nn.Sequential(nn.MaxPool2d(2), block(width, 2 * width), block(2 * width, 2 * width),
                                        block(2 * width, 2 * width), nn.Upsample(scale_factor=2))

        def forward(self, x):
            top = self.top(x)
            return self.end(torch.cat([top, self.middle(top)], 1))
    return UNet()


def main(n=800, epochs=4):
    torch.manual_seed(0)
    data = DataBunch.from_arrays(*pictures(n, seed=0), valid=pictures(n // 4, seed=1), bs=16,
                                 loss_func=CrossEntropyFlat(axis=1), classes=["nothing", "disk", "square"])
    learn = Learner(data, unet(), metrics=[partial(accuracy, axis=1), partial(foreground_acc, void_code=0)])
    learn.fit_one_cycle(epochs, 1e-2)
    mask, *_ = learn.predict(data.valid_ds[0][0])
    print(f"the mask of picture 0, {tuple(mask.shape)}: {mask.flatten().bincount().tolist()} pixels of each class")
    return learn


if __name__ == "__main__":
    main()
