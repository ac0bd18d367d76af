from fastai.tabular.all import *
from same import mlp
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset, random_split


def learner(x, y):
    set_seed(0)
    dls = DataLoaders.from_dsets(*random_split(TensorDataset(tensor(x / 16).float(), tensor(y)), [0.8, 0.2]), bs=32)
    learn = Learner(dls, mlp(64, 64, 10), CrossEntropyLossFlat(), metrics=[accuracy],
                    splitter=lambda model: [params(model[:2]), params(model[2])])
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn


def curves(learn):
    recorder = learn.recorder
    _, valid, right = zip(*recorder.values, strict=True)
    return {"learning rate": recorder.lrs, "train_loss": recorder.losses, "valid_loss": valid, "accuracy": right}


def main(path="runs.png"):
    x, y = load_digits(return_X_y=True)
    flat, cycle, stages = (learner(x, y) for _ in range(3))
    flat.fit(6, 1e-3)
    cycle.fit_one_cycle(6, 1e-2)
    stages.freeze()
    stages.fit_one_cycle(3, 1e-2)
    first = curves(stages)
    stages.unfreeze()
    stages.fit_one_cycle(3, slice(1e-3, 1e-2))
    both = {name: [*first[name], *values] for name, values in curves(stages).items()}
    figure, axes = plt.subplots(2, 2, figsize=(12, 8))
    for name, run in {"flat": curves(flat), "1cycle": curves(cycle), "frozen, then not": both}.items():
        for axis, (title, values) in zip(axes.flat, run.items(), strict=True):
            axis.plot(values, label=name)
            axis.set(ylabel=title)
        print(f"{name:18} accuracy {run['accuracy'][-1]:.4f} after {len(run['learning rate'])} batches")
    axes[0, 0].legend()
    figure.savefig(path)
