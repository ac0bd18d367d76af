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


def main(path="runs.png"):
    x, y = load_digits(return_X_y=True)
    flat, cycle, stages = (learner(x, y) for _ in range(3))
    flat.fit(6, 1e-3)
    cycle.fit_one_cycle(6, 1e-2)
    stages.freeze()
    stages.fit_one_cycle(3, 1e-2)
    runs = {"flat": [flat.recorder], "1cycle": [cycle.recorder]}
    first = copy(stages.recorder)
    stages.unfreeze()
    stages.fit_one_cycle(3, slice(1e-3, 1e-2))
    runs["frozen, then not"] = [first, stages.recorder]
    figure, axes = plt.subplots(2, 2, figsize=(12, 8))
    for name, recorders in runs.items():
        table = np.concatenate([np.array(list(r.values), dtype=float) for r in recorders])
        columns = {"learning rate": sum((r.lrs for r in recorders), []), "valid_loss": table[:, 1],
                   "train_loss": sum((r.losses for r in recorders), []), "accuracy": table[:, 2]}
        for axis, (title, values) in zip(axes.flat, columns.items(), strict=True):
            axis.plot(values, label=name)
            axis.set(ylabel=title)
        print(f"{name:18} accuracy {table[-1, 2]:.4f} after {len(columns['learning rate'])} batches")
    axes[0, 0].legend()
    figure.savefig(path)
