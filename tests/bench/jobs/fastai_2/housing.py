from fastai.tabular.all import *
from housing import table
from sklearn.ensemble import HistGradientBoostingRegressor


def main(epochs=15, seed=0):
    set_seed(seed)
    df = table(seed=seed)
    dls = TabularDataLoaders.from_df(df, procs=[Normalize], cont_names=list(df.columns[:10]), y_names="y",
                                     y_block=RegressionBlock(), valid_idx=range(3000, 4000))
    learn = tabular_learner(dls, layers=[100, 50], metrics=[rmse, R2Score()])
    lr = learn.lr_find(suggest_funcs=valley, show_plot=False).valley
    parts = [SchedLin(lr / 10, lr), SchedLin(lr, lr / 10), SchedLin(lr / 10, lr / 10000)]
    learn.fit(epochs, cbs=ParamScheduler({"lr": combine_scheds([0.45, 0.45, 0.1], parts)}))
    _, error, r2 = learn.validate()
    trees = HistGradientBoostingRegressor(random_state=0).fit(df.iloc[:3000, :10], df["y"][:3000])
    of_trees = trees.score(df.iloc[3000:, :10], df["y"][3000:])
    print(f"lr {lr:.3g}: rmse {error:.3f}, R² {r2:.4f}; gradient boosting R² {of_trees:.4f}")
