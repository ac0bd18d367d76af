from fastai.tabular.all import *
from tabular_classification import customers


def main(epochs=6):
    set_seed(0)
    df = customers()
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, FillMissing, Normalize], cat_names=["city", "member"],
                                     cont_names=["age", "income"], y_names="buys", y_block=CategoryBlock(),
                                     valid_idx=range(2400, 3000))
    learn = tabular_learner(dls, layers=[50, 20], metrics=[accuracy, F1Score()])
    learn.fit_one_cycle(epochs, 2e-2)
    print("categories:", dls.classes)
    row = pd.Series({"age": 30, "income": None, "city": "Rome", "member": False})
    print(row.to_dict(), "->", dls.vocab[int(learn.predict(row)[1])])
