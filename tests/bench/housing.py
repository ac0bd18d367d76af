"""The housing job over ten seeds: a table to a quantity, beside gradient boosting and a plain loop of the same network.

`python tests/bench/housing.py`: the tables that scikit-learn brings or makes, diabetes (442 rows) and Friedman's first
(4,000 rows). `python tests/bench/housing.py FILE`: the California housing table (20,640 rows) out of a CSV file with
scikit-learn's names of columns, as `fetch_california_housing(as_frame=True).frame.to_csv(FILE, index=False)` writes it
after a download, and as it lies in the wheel of the package shapiq (1.4.1), at shapiq/datasets/data/.
Half a minute on one core, and six minutes with FILE. A seed fixes the split, the weights and the order.
"""
import statistics
import sys
import warnings

import pandas as pd
import torch
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score, root_mean_squared_error
from torch import nn

from minifast.tabular import DatasetType, TabularDataBunch, tabular_learner

EPOCHS, BATCH = 15, 64


def california(file):
    """The table, with its quantity as y, after a look whether it is the whole one."""
    df = pd.read_csv(file)
    names = "MedInc HouseAge AveRooms AveBedrms Population AveOccup Latitude Longitude MedHouseVal".split()
    if list(df) != names or len(df) != 20640 or abs(df["MedHouseVal"].mean() - 2.06856) > 1e-5:
        raise ValueError(f"{file} is not the California housing table: 20,640 rows of the columns {', '.join(names)}")
    return df.rename(columns={"MedHouseVal": "y"})


def tables(seed, file=None):
    if file is not None:
        df = california(file)
        yield "California housing", df
        x = df.drop(columns="y")    # blocks with 1,243 people in a flat are a hundred deviations away from the others
        yield "California, ends cut", x.clip(x.quantile(0.005), x.quantile(0.995), axis=1).assign(y=df["y"])
        return
    diabetes = load_diabetes(as_frame=True)
    yield "diabetes", diabetes.data.assign(y=diabetes.target.astype(float) / 100)
    x, y = make_friedman1(4000, noise=1.0, random_state=seed)
    yield "Friedman 1", pd.DataFrame(x, columns=[f"x{i}" for i in range(10)]).assign(y=y)


def learner(df, seed):
    torch.manual_seed(seed)
    data = TabularDataBunch.from_df(df, "y", valid_pct=0.25, seed=seed, bs=BATCH)
    return tabular_learner(data, layers=[100, 50], silent=True)


def found_and_cycled(learn, rule):
    """The rate that the exponential range test suggests, then the Keras schedule."""
    learn.fit_one_cycle(EPOCHS, learn.lr_find().suggest(rule), form="keras")


def plain_loop(learn, lr):
    """Adam at one rate, on the same batches."""
    opt = torch.optim.Adam(learn.model.parameters(), lr=lr)
    for _ in range(EPOCHS):
        learn.model.train()
        for x, y in learn.data.train_dl:
            loss = nn.functional.mse_loss(learn.model(*x)[:, 0], y)
            opt.zero_grad()
            loss.backward()
            opt.step()


def scores(df, seed):
    """(R², RMSE) of each way, on the rows that are held back."""
    found = {}
    for name, train in {"minifast, rate by valley": lambda learn: found_and_cycled(learn, "valley"),
                        "minifast, rate by basin (default)": lambda learn: found_and_cycled(learn, "basin"),
                        "the same network, Adam at 1e-3": lambda learn: plain_loop(learn, 1e-3),
                        "the same network, Adam at 1e-2": lambda learn: plain_loop(learn, 1e-2)}.items():
        learn = learner(df, seed)
        train(learn)
        preds, y = learn.get_preds()
        found[name] = preds[:, 0].numpy(), y.numpy()
    parts = [learn.data.dl(kind).dl for kind in (DatasetType.Fix, DatasetType.Valid)]
    train, valid = (df.iloc[dl.rows.tolist()] for dl in parts)
    for name, model in {"gradient boosting": HistGradientBoostingRegressor(random_state=seed),
                        "linear regression": LinearRegression()}.items():
        model.fit(train.drop(columns="y"), train["y"])
        found[name] = model.predict(valid.drop(columns="y")), valid["y"]
    return {name: (r2_score(y, p), root_mean_squared_error(y, p)) for name, (p, y) in found.items()}


def main(file=None, seeds=10):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    results = {}
    for seed in range(seeds):
        for table, df in tables(seed, file):
            for way, pair in scores(df, seed).items():
                results.setdefault((table, way), []).append(pair)
    print(f"mean ± standard deviation over {seeds} seeds, {EPOCHS} epochs, batches of {BATCH}\n")
    print(f"{'table':20} {'way':34} {'R²':22} {'RMSE':16} median and lowest R²")
    for (table, way), pairs in results.items():
        columns = [f"{statistics.mean(c):.4f} ± {statistics.stdev(c):.4f}" for c in zip(*pairs, strict=True)]
        r2 = [r2 for r2, _ in pairs]
        print(f"{table:20} {way:34} {columns[0]:22} {columns[1]:16} {statistics.median(r2):.4f} {min(r2):.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
