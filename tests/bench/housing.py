"""The housing job over ten seeds: a table to a quantity, beside gradient boosting and a plain loop of the same network.

The California housing data must be downloaded: it is used too if scikit-learn has it already. The tables here are those
that scikit-learn brings or makes: diabetes (442 rows) and Friedman's first (4,000 rows).
`python tests/bench/housing.py`: some minutes on one core. A seed fixes the split, the weights and the order.
"""
import statistics
import warnings

import pandas as pd
import torch
from sklearn.datasets import fetch_california_housing, load_diabetes, make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score, root_mean_squared_error
from torch import nn

from minifast.tabular import DatasetType, TabularDataBunch, tabular_learner

EPOCHS, BATCH = 15, 64


def tables(seed):
    diabetes = load_diabetes(as_frame=True)
    yield "diabetes", diabetes.data.assign(y=diabetes.target.astype(float) / 100)
    x, y = make_friedman1(4000, noise=1.0, random_state=seed)
    yield "Friedman 1", pd.DataFrame(x, columns=[f"x{i}" for i in range(10)]).assign(y=y)
    try:
        california = fetch_california_housing(as_frame=True, download_if_missing=False)
    except OSError:
        return
    yield "California housing", california.data.assign(y=california.target)


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


def main(seeds=10):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    results = {}
    for seed in range(seeds):
        for table, df in tables(seed):
            for way, pair in scores(df, seed).items():
                results.setdefault((table, way), []).append(pair)
    print(f"mean ± standard deviation over {seeds} seeds, {EPOCHS} epochs, batches of {BATCH}\n")
    print(f"{'table':20} {'way':34} {'R²':22} {'RMSE':16} lowest R²")
    for (table, way), pairs in results.items():
        columns = [f"{statistics.mean(c):.4f} ± {statistics.stdev(c):.4f}" for c in zip(*pairs, strict=True)]
        print(f"{table:20} {way:34} {columns[0]:22} {columns[1]:16} {min(r2 for r2, _ in pairs):.4f}")


if __name__ == "__main__":
    main()
