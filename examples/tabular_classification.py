"""A table with words, numbers and holes, from a data frame to the prediction for a new row."""
from minifast.tabular import *


def customers(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame({"age": rng.integers(18, 90, n), "income": rng.lognormal(10, 0.5, n).round(),
                       "city": rng.choice(["Ulm", "Jena", "Bonn", "Kiel"], n), "member": rng.random(n) < 0.4})
    score = 0.06 * (df["age"] - 50) * np.where(df["member"], 1, -1) + (df["city"] == "Ulm") + np.log(df["income"]) - 10
    df["buys"] = np.where(score + rng.logistic(0, 0.3, n) > 0, "yes", "no")
    df.loc[rng.random(n) < 0.1, "income"] = np.nan
    df.loc[rng.random(n) < 0.1, "city"] = None
    return df


def main(epochs=6):
    torch.manual_seed(0)
    df = customers()
    data = TabularDataBunch.from_df(df, "buys", valid_idx=range(2400, 3000), seed=0)
    learn = tabular_learner(data, layers=[50, 20], metrics=[accuracy, FBeta(beta=1)])
    learn.fit_one_cycle(epochs, 2e-2)
    print("categories:", data.prepare.classes)
    row = {"age": 30, "income": None, "city": "Rome", "member": False}      # a city that was never seen
    print(row, "->", learn.predict(row)[0])
    return learn, df


if __name__ == "__main__":
    main()
