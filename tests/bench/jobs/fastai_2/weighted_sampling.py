from fastai.tabular.all import *
from torch.utils.data import TensorDataset
from weighted_sampling import points


def main(n=6000, epochs=6):
    found = {}
    for name in ("as they come", "balanced"):
        set_seed(0)
        (x, y), valid = points(n, seed=0), points(n, seed=1)
        train = partial(WeightedDL, wgts=1 / y.bincount()[y].double().numpy()) if name == "balanced" else TfmdDL
        dls = DataLoaders(train(TensorDataset(x, y), bs=64, shuffle=True), TfmdDL(TensorDataset(*valid), bs=64))
        learn = Learner(dls, nn.Linear(2, 2), CrossEntropyLossFlat(), metrics=[accuracy, Recall(), Precision()])
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, 0.1)
            found[name] = dict(zip(learn.recorder.metric_names[2:-1], learn.validate(), strict=False))
        print(f"{name:14}", {metric: round(value, 3) for metric, value in found[name].items()})
