"""Some of examples/ as programs for fastai 2, for the count of lines: data and models are those of examples/.

`python tests/bench/jobs/fastai_2.py NAME` runs one, in the environment of `make bench`.
"""
import sys
from pathlib import Path

import torch
from fastai.basics import *
from fastai.callback.all import *
from fastai.metrics import *
from fastai.tabular.all import *
from sklearn.preprocessing import StandardScaler
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
defaults.use_cuda = False


def small_net(n_in, n_out):
    from minifast.layers import simple_cnn
    return nn.Sequential(simple_cnn((n_in, 16, 32, 64), bn=True), nn.Linear(64, n_out))


# ---- multi_label
def multi_label(n=2000, epochs=6):
    from multi_label import SHAPES, pictures
    set_seed(0)
    sets = [list(zip(*map(torch.tensor, pictures(k, seed)), strict=True)) for k, seed in ((n, 0), (n // 4, 1))]
    dls = DataLoaders.from_dsets(*sets, bs=32, device="cpu")
    learn = Learner(dls, small_net(1, 3), BCEWithLogitsLossFlat(), metrics=[accuracy_multi, F1ScoreMulti()])
    learn.fit_one_cycle(epochs, 2e-2)
    probabilities = learn.get_preds(dl=dls.valid.new(sets[1][:1]))[0][0]
    names = [name for name, p in zip(SHAPES, probabilities, strict=True) if p > 0.5]
    print(f"picture 0 shows {names}, with probabilities {probabilities.numpy().round(2)}")
    return learn


# ---- segmentation
def segmentation(n=800, epochs=4):
    from segmentation import pictures, unet

    def foreground(output, target):
        shown = target > 0
        return (output.argmax(1)[shown] == target[shown]).float().mean()
    set_seed(0)
    sets = [list(zip(*map(torch.tensor, pictures(k, seed)), strict=True)) for k, seed in ((n, 0), (n // 4, 1))]
    dls = DataLoaders.from_dsets(*sets, bs=16, device="cpu")
    learn = Learner(dls, unet(), CrossEntropyLossFlat(axis=1), metrics=[partial(accuracy, axis=1), foreground])
    learn.fit_one_cycle(epochs, 1e-2)
    mask = learn.get_preds(dl=dls.valid.new(sets[1][:1]))[0][0].argmax(0)
    print(f"the mask of picture 0, {tuple(mask.shape)}: {mask.flatten().bincount().tolist()} pixels of each class")
    return learn


# ---- tabular_classification
def tabular_classification(epochs=6):
    from tabular_classification import customers
    set_seed(0)
    df = customers()
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, FillMissing, Normalize], cat_names=["city", "member"],
                                     cont_names=["age", "income"], y_names="buys", y_block=CategoryBlock(),
                                     valid_idx=list(range(2400, 3000)), device="cpu")
    learn = tabular_learner(dls, layers=[50, 20], metrics=[accuracy, F1Score()])
    learn.fit_one_cycle(epochs, 2e-2)
    print("categories:", dls.classes)
    row = pd.Series({"age": 30, "income": None, "city": "Rome", "member": False})
    print(row.to_dict(), "->", dls.vocab[int(learn.predict(row)[1])])
    return learn


# ---- k_fold
def k_fold(folds=5, epochs=8):
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import StratifiedKFold
    x, y = load_breast_cancer(return_X_y=True)
    scores = []
    for rows in StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y):
        set_seed(0)
        scale = StandardScaler().fit(x[rows[0]])
        sets = [list(zip(torch.tensor(scale.transform(x[r])).float(), torch.tensor(y[r]), strict=True)) for r in rows]
        dls = DataLoaders.from_dsets(*sets, bs=32, device="cpu")
        learn = Learner(dls, nn.Linear(30, 2), CrossEntropyLossFlat(), metrics=[accuracy])
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, 3e-2)
            scores.append(learn.validate()[1])
    print(f"accuracy {np.mean(scores):.4f} ± {np.std(scores):.4f} over {folds} folds: {np.round(scores, 3).tolist()}")
    return scores


# ---- weighted_sampling
def weighted_sampling(n=6000, epochs=6):
    from weighted_sampling import points
    found = {}
    for name in ("as they come", "balanced"):
        set_seed(0)
        (x, y), valid = points(n, seed=0), points(n, seed=1)
        train = partial(DataLoader, shuffle=True)
        if name == "balanced":
            train = partial(WeightedDL, wgts=1 / y.bincount()[y].double().numpy(), shuffle=True)
        dls = DataLoaders(train(list(zip(x, y, strict=True)), bs=64, device="cpu"),
                          DataLoader(list(zip(*valid, strict=True)), bs=64, device="cpu"), device="cpu")
        learn = Learner(dls, nn.Linear(2, 2), CrossEntropyLossFlat(), metrics=[accuracy, Recall(), Precision()])
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, 0.1)
            found[name] = dict(zip(learn.recorder.metric_names[2:-1], learn.validate(), strict=False))
        print(f"{name:14}", {metric: round(value, 3) for metric, value in found[name].items()})
    return found


# ---- gan
def gan(n=6400, epochs=10):
    from gan import GAN

    class Turns(Callback):
        def before_batch(self):
            self.model.turn = ["critic", "generator"][self.train_iter % 2] if self.training else None

        def before_step(self):
            other = "generator" if self.model.turn == "critic" else "critic"
            for p in getattr(self.model, other).parameters():
                p.grad = None

    def total(losses, real):
        return sum(losses.values())

    def part(name, losses, real):
        return losses[name]
    set_seed(0)
    x = 3 + 0.5 * torch.randn(n, 1)
    dls = DataLoaders.from_dsets(list(zip(x[n // 10:], x[n // 10:], strict=True)),
                                 list(zip(x[:n // 10], x[:n // 10], strict=True)), bs=64, device="cpu")
    metrics = [AvgMetric(partial(part, "critic")), AvgMetric(partial(part, "generator"))]
    learn = Learner(dls, GAN(), total, opt_func=partial(Adam, mom=0.5), wd=0, metrics=metrics, cbs=Turns(),
                    splitter=lambda model: [params(model.generator), params(model.critic)])
    learn.fit_flat_cos(epochs, slice(5e-3, 1e-2))
    fake = learn.model.generator(torch.randn(10000, 4)).detach()
    print(f"real: mean 3, deviation 0.5; generated: {float(fake.mean()):.2f}, {float(fake.std()):.2f}")
    return learn


# ----
if __name__ == "__main__":
    for job in sys.argv[1:]:
        globals()[job]()
