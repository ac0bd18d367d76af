"""A vision transformer with what goes with it: layer decay, warm-up and cosine, mixup, label smoothing, EMA, bf16."""
from sklearn.datasets import load_digits

from minifast.basics import *


class ViT(nn.Module):
    def __init__(self, patch=2, side=8, width=64, depth=4, classes=10):
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True,
                                                               norm_first=True) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


def layer_decay(model, lr, decay=0.75):
    """Learning rates that grow with depth (arXiv 2106.08254), one for each layer group: a list for `fit`."""
    n = len(model.blocks) + 1
    return [lr * decay ** (n - i) for i in range(n + 1)]


def main(n=1797, depth=2, epochs=15):
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 1, 8, 8).astype(np.float32)
    data = DataBunch.from_arrays(x[:n], y[:n], bs=64, seed=0, loss_func=LabelSmoothingCrossEntropy())
    model = ViT(depth=depth)
    learn = Learner(data, model, metrics=[accuracy], wd=0.05, bn_wd=False).mixup(0.2).clip_grad(1.0).to_bf16()
    learn.split([*model.blocks, model.norm])        # groups: the embeddings, each block, the head
    lrs = layer_decay(model, 3e-3)
    curve = schedules.warm_up(schedules.cosine(lrs), epochs=epochs / 10)
    learn.fit(epochs, lrs, callbacks=[ParamScheduler(learn, lr=curve), EMA(learn, 0.98)])
    print("learning rates of the groups:", [f"{lr:.1e}" for lr in lrs])
    return learn


if __name__ == "__main__":
    main()
