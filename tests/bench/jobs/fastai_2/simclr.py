from fastai.vision.all import *
from simclr import body, nt_xent, two_views
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset


class TwoViews(Callback):
    def before_batch(self):
        x, y = two_views((*self.xb, *self.yb))
        self.learn.xb, self.learn.yb = (x,), (y,)


def probe(net, sets):
    set_seed(0)
    learn = Learner(DataLoaders.from_dsets(*sets, bs=20), nn.Sequential(net, nn.Linear(128, 10)),
                    CrossEntropyLossFlat(), metrics=[accuracy], train_bn=False, cbs=BnFreeze(),
                    splitter=lambda model: [params(model[0]), params(model[1])])
    learn.freeze()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(20, 3e-2)
        return learn.validate()[1]


def main(epochs=15, n_labels=50):
    x, y = load_digits(return_X_y=True)
    x, y = tensor(x / 16).float().reshape(-1, 1, 8, 8), tensor(y)
    known, pictures, new = (TensorDataset(x[part], y[part]) for part in (
        slice(n_labels), slice(1000), slice(1000, None)))
    set_seed(0)
    net = body()
    before = probe(deepcopy(net), (known, new))
    dls = DataLoaders.from_dsets(pictures, new, bs=100)
    Learner(dls, nn.Sequential(net, nn.Linear(128, 64)), nt_xent, cbs=TwoViews()).fit_one_cycle(epochs, 1e-2)
    after = probe(net, (known, new))
    print(f"accuracy with {n_labels} labels: random network {before:.3f}, after SimCLR {after:.3f}")
