"""Regression on a table as in Geron's book: an exponential range test, then his 1cycle schedule; beside the trees.

The table is one that scikit-learn makes; tests/bench/housing.py does the same with the California housing data.
"""
from sklearn.datasets import make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor

from minifast.tabular import *


def table(n=4000, seed=0):
    """Ten columns, of which five count: sines, squares and a product, with noise of deviation 1."""
    x, y = make_friedman1(n, noise=1.0, random_state=seed)
    return pd.DataFrame(x, columns=[f"x{i}" for i in range(10)]).assign(y=y)


def main(epochs=15, seed=0, silent=False):
    torch.manual_seed(seed)
    df = table(seed=seed)
    data = TabularDataBunch.from_df(df, "y", valid_idx=range(3000, 4000), bs=64, seed=seed)
    learn = tabular_learner(data, layers=[100, 50], metrics=[rmse, r2_score], silent=silent)
    lr = learn.lr_find().suggest("valley")      # the careful one of the rules
    learn.fit_one_cycle(epochs, lr, form="keras")
    _, error, r2 = learn.validate()
    trees = HistGradientBoostingRegressor(random_state=0).fit(df.iloc[:3000, :10], df["y"][:3000])
    of_trees = trees.score(df.iloc[3000:, :10], df["y"][3000:])
    print(f"lr {float(lr):.3g}: rmse {error:.3f}, R² {r2:.4f}; gradient boosting R² {of_trees:.4f}")
    return learn, of_trees


if __name__ == "__main__":
    main()
