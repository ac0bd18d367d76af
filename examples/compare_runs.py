"""Several runs in one figure, one of them in two stages: a frozen body first, then everything."""
from sklearn.datasets import load_digits

from minifast.basics import *


def learner(x, y, width=64):
    torch.manual_seed(0)
    data = DataBunch.from_arrays(x, y, bs=32, seed=0)
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    return Learner(data, model, metrics=[accuracy], silent=True).split([model[2]])


def main(path="runs.png"):
    x, y = load_digits(return_X_y=True)
    x, runs = x / 16, {}
    flat, cycle, stages = (learner(x, y) for _ in range(3))
    flat.fit(6, 1e-3)
    cycle.fit_one_cycle(6, 1e-2)
    stages.freeze()
    stages.fit_one_cycle(3, 1e-2)
    runs = {"flat": flat, "1cycle": cycle, "frozen, then not": [Run.of(stages)]}
    stages.unfreeze()
    stages.fit_one_cycle(3, slice(1e-3, 1e-2))
    runs["frozen, then not"].append(stages)
    figure = compare(runs, return_fig=True)
    figure.savefig(path)
    for name, run in runs.items():
        run = Run.of(run)
        print(f"{name:18} accuracy {run.columns['accuracy'][-1]:.4f} after {len(run.lrs)} batches")
    return runs, figure


if __name__ == "__main__":
    main()
