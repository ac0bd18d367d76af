"""Tables: what the columns become, beside scikit-learn, and what a learner makes of them."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from minifast.metrics import accuracy, r2_score, root_mean_squared_error
from minifast.table_recipe import table_from_recipe
from minifast.tabular import (
    BCEWithLogitsFlat,
    Callback,
    Categorify,
    Checkpoint,
    DatasetType,
    FillMissing,
    MSELossFlat,
    Normalize,
    TabularDataBunch,
    TabularModel,
    load_learner,
    tabular_learner,
)
from minifast.tabular.procs import Preparation

ROOT = Path(__file__).parent.parent


def table(n=1200, seed=0):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame({"age": rng.normal(40, 12, n), "pay": rng.lognormal(3, 0.5, n),
                       "job": rng.choice(["cook", "smith", "clerk"], n), "member": rng.choice([True, False], n)})
    score = (df["age"] - 40) / 12 + 2.0 * (df["job"] == "cook") * df["member"] - 0.5
    df["buys"] = np.where(score + rng.normal(0, 0.2, n) > 0, "yes", "no")
    df["spent"] = score * 3 + rng.normal(0, 0.2, n)
    df.loc[::9, "age"] = np.nan
    df.loc[::13, "job"] = None
    return df


def test_columns_become_what_scikit_learn_makes_of_them():
    df = table()
    train, new = df[:900], df[900:].copy()
    new.loc[new.index[0], "job"] = "pilot"
    prepare = Preparation(train, ["job"], ["age", "pay"], [FillMissing, Categorify, Normalize])
    cats, conts = prepare(new)
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler()).fit(train[["age", "pay"]])
    scale = np.sqrt(899 / 900)      # pandas' standard deviation has n - 1 below
    np.testing.assert_allclose(conts.numpy(), numbers.transform(new[["age", "pay"]]) * scale, rtol=1e-4, atol=1e-6)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    expected = codes.fit(train[["job"]]).transform(new[["job"]])[:, 0] + 1
    assert cats[:, 0].tolist() == expected.tolist()
    assert cats[0, 0] == 0 and prepare.cat_names == ["job", "age_na"]
    assert (cats[:, 1] == 2).tolist() == new["age"].isna().tolist()
    assert conts.dtype == torch.float32 and cats.dtype == torch.int64


def test_what_is_learned_is_learned_from_the_training_rows_alone():
    df = table(300)
    df.loc[250:, "pay"] = 1e6
    df.loc[250:, "job"] = "only here"
    before = df.copy()
    data = TabularDataBunch.from_df(df.drop(columns="spent"), "buys", valid_idx=range(250, 300), bs=25)
    _, _, norm = data.prepare.procs
    assert norm.stats["pay"][0] == pytest.approx(df["pay"][:250].mean())
    assert "only here" not in data.prepare.classes["job"]
    x, _ = data.one_batch(DatasetType.Valid)
    assert (x[0][:, 0] == 0).all()
    pd.testing.assert_frame_equal(df, before)
    rows = [row for (cats, conts), _ in data.train_dl for row in conts[:, 1].tolist()]
    assert max(rows) < 10       # not one of the other rows is trained on


def test_a_classifier_beside_logistic_regression():
    torch.manual_seed(0)
    df = table().drop(columns="spent")
    valid = list(range(0, 1200, 4))
    learn = tabular_learner(TabularDataBunch.from_df(df, "buys", valid_idx=valid, bs=32, seed=1), metrics=accuracy)
    learn.fit_one_cycle(6, 1e-2)
    names = ["job", "member"]
    columns = ColumnTransformer([("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "pay"]),
                                 ("words", OneHotEncoder(), names)])
    x, train = df.assign(job=df["job"].fillna("?")), df.index.difference(valid)
    plain = make_pipeline(columns, LogisticRegression()).fit(x.loc[train], df["buys"][train])
    ours = learn.validate()[1]
    assert ours > plain.score(x.loc[valid], df["buys"][valid]) + 0.02    # it has no products of columns
    preds, targets = learn.get_preds()
    assert (preds.argmax(1) == targets).float().mean() == pytest.approx(ours)
    assert [learn.data.classes[i] for i in targets] == df["buys"][valid].tolist()


def test_new_rows_are_prepared_as_those_of_the_training():
    df = table(400)
    df = df.drop(columns="spent")
    learn = tabular_learner(TabularDataBunch.from_df(df, "buys", valid_idx=range(300, 400), bs=50), layers=[20])
    learn.fit(1)
    preds, _ = learn.get_preds()
    again, zeros = learn.get_preds(dl=df.iloc[300:].drop(columns="buys"))
    assert torch.equal(preds, again) and zeros.sum() == 0
    for row in (df.iloc[300], df.iloc[300].to_dict()):
        value, index, probabilities = learn.predict(row)
        torch.testing.assert_close(probabilities, preds[0])
        assert value == ["no", "yes"][index] and index == preds[0].argmax()
    (cats, conts), _ = learn.data.one_batch(DatasetType.Valid)
    torch.testing.assert_close(learn.predict((cats[0], conts[0]))[2], preds[0])


def test_quantities_with_a_range():
    torch.manual_seed(0)
    df = table().drop(columns="buys")
    data = TabularDataBunch.from_df(df, "spent", valid_idx=range(900, 1200), bs=32, seed=1)
    learn = tabular_learner(data, y_range=(-20, 20), metrics=[root_mean_squared_error, r2_score])
    learn.fit_one_cycle(6, 2e-2)
    loss, rmse, r2 = learn.validate()
    preds, targets = learn.get_preds()
    assert targets.tolist() == pytest.approx(df["spent"][900:].tolist(), rel=1e-5)
    assert rmse == pytest.approx(loss ** 0.5, rel=1e-4) and r2 > 0.8
    assert r2 == pytest.approx(1 - loss / df["spent"][900:].var(ddof=0), rel=1e-3)
    assert isinstance(learn.predict(df.iloc[0])[0], float)


def test_a_range_holds_whatever_the_input():
    model = TabularModel([], 2, 1, [4], y_range=(1, 3)).eval()
    out = model(torch.zeros(9, 0, dtype=torch.long), torch.randn(9, 2) * 1e4)
    assert 1 <= out.min() and out.max() <= 3


def test_the_model_is_that_of_v1():
    model = TabularModel([(4, 3), (10, 6)], n_cont=2, out_sz=5, layers=[200, 100], ps=[0.1, 0.2], emb_drop=0.3)
    kinds = [type(m).__name__ for m in model.layers]
    assert kinds == ["Linear", "ReLU", "BatchNorm1d", "Dropout"] * 2 + ["Linear"]
    assert model.layers[0].in_features == 3 + 6 + 2 and model.layers[-1].out_features == 5
    assert [m.p for m in model.layers if isinstance(m, torch.nn.Dropout)] == [0.1, 0.2] and model.emb_drop.p == 0.3
    data = TabularDataBunch.from_df(table(100).drop(columns="spent"), "buys", bs=20)
    sizes = [e.embedding_dim for e in tabular_learner(data, emb_szs={"job": 7}).model.embeds]
    assert sizes == [7, 3, 3]       # 1.6 * 3 ** 0.56 is 2.96


def test_whole_numbers_are_classes_and_floats_are_quantities():
    df = pd.DataFrame({"x": np.arange(60.0), "k": [3, 5, 8] * 20, "q": np.arange(60)})
    df["a"], df["b"] = df["q"] % 2, 1 - df["q"] % 2
    data = TabularDataBunch.from_df(df, "k", cont_names=["x"], cat_names=[], bs=8)
    assert data.classes == [3, 5, 8] and data.n_out == 3
    assert tabular_learner(data, layers=[4]).predict(df.iloc[0])[0] in (3, 5, 8)
    data = TabularDataBunch.from_df(df, "q", cont_names=["x"], cat_names=[], bs=8, loss_func=MSELossFlat())
    assert data.n_out == 1 and data.one_batch()[1].dtype == torch.float32
    with pytest.raises(ValueError, match="'q' would be 60 classes"):
        TabularDataBunch.from_df(df, "q", cont_names=["x"], cat_names=[])
    data = TabularDataBunch.from_df(df, ["a", "b"], cont_names=["x"], cat_names=[], bs=8)
    assert isinstance(data.loss_func, BCEWithLogitsFlat) and data.classes == ["a", "b"]
    data = TabularDataBunch.from_df(df.astype(float), ["x", "q"], cont_names=["a"], cat_names=[], bs=8)
    assert data.n_out == 2 and isinstance(data.loss_func, MSELossFlat)


def test_a_categorical_keeps_its_order_and_numbers_may_be_categories():
    size = pd.Categorical(["mid", "low", "high"] * 4, categories=["low", "mid", "high", "never"], ordered=True)
    df = pd.DataFrame({"size": size, "year": [2001, 2002, 2003] * 4, "y": [0.5] * 12})
    prepare = Preparation(df, ["size", "year"], [], [Categorify])
    assert prepare.classes["size"] == ["#na#", "low", "mid", "high"]
    assert prepare({"size": "high", "year": 2002.0})[0].tolist() == [[3, 2]]     # a gap makes floats of whole numbers
    assert prepare({"size": None, "year": 1999})[0].tolist() == [[0, 0]]


@pytest.mark.parametrize("change, error, words", [
    (dict(y="bought"), ValueError, "y must be among them"),
    (dict(cat_names=["job", "jib"]), KeyError, "no column 'jib'. Did you mean 'job'"),
    (dict(cat_names=["job"], cont_names=["age", "job"]), ValueError, "named twice"),
    (dict(cont_names=["age", "job"], cat_names=[]), TypeError, "'job' holds no numbers"),
    (dict(procs=[Categorify, Normalize]), ValueError, "'age' has missing values"),
    (dict(procs=[FillMissing, Normalize]), ValueError, "needs Categorify"),
    (dict(valid_idx=[5, 99]), ValueError, "different positions from 0 to 59"),
    (dict(valid_idx=[5, 5]), ValueError, "different positions"),
    (dict(bs=100), ValueError, "do not fill one batch"),
])
def test_what_does_not_fit_is_named(change, error, words):
    df = table(60).drop(columns="spent")
    with pytest.raises(error, match=words):
        TabularDataBunch.from_df(**{"df": df, "y": "buys", "bs": 8, **change})


def test_other_data_is_refused():
    df = table(60).drop(columns="spent")
    with pytest.raises(TypeError, match="'when' holds times"):
        TabularDataBunch.from_df(df.assign(when=pd.Timestamp("2026-01-01")), "buys")
    with pytest.raises(TypeError, match="must be a data frame, not a str"):
        TabularDataBunch.from_df("folder", df)
    with pytest.raises(ValueError, match="'pay' has infinite values"):
        TabularDataBunch.from_df(df.assign(pay=np.inf), "buys")
    with pytest.raises(ValueError, match="'pay' has no value"):
        TabularDataBunch.from_df(df.assign(pay=np.nan), "buys")
    data = TabularDataBunch.from_df(df, "buys", bs=8)
    with pytest.raises(ValueError, match="'jobs' is no column of categories. Did you mean 'job'"):
        tabular_learner(data, emb_szs={"jobs": 4})
    learn = tabular_learner(data, layers=[4])
    with pytest.raises(KeyError, match="no column 'member'"):
        learn.predict({"job": "cook"})
    with pytest.raises(TypeError, match="'job' holds 3, and in training it held 'clerk'"):
        learn.predict({**df.iloc[0], "job": 3})
    with pytest.raises(ValueError, match=r"ps=\[0.1\] needs a value for each of 2 layers"):
        tabular_learner(data, ps=[0.1])


def test_a_run_on_a_table_goes_on_where_it_was_cut_off(tmp_path):
    class Cut(Callback):
        role = "watching"
        at = None

        def on_batch_begin(self, train, epoch):
            if not train and epoch == Cut.at:
                raise RuntimeError("cut")

    def run(name, cut_at=None):
        Cut.at = cut_at
        torch.manual_seed(3)
        data = TabularDataBunch.from_df(table(400).drop(columns="spent"), "buys", bs=32, seed=3, path=tmp_path)
        learn = tabular_learner(data, ps=0.2, emb_drop=0.1, metrics=accuracy, silent=True)
        learn.fit_one_cycle(3, 1e-2, callbacks=[Checkpoint(learn, name, every=1), Cut()])
        return learn
    whole = run("whole")
    with pytest.raises(RuntimeError, match="cut"):
        run("cut", cut_at=1)
    assert (tmp_path / "models/cut.ckpt").exists()
    again = run("cut")
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))
    assert whole.recorder.metrics == again.recorder.metrics and len(again.recorder.metrics) == 3


def test_an_exported_table_predicts_alike_without_its_data(tmp_path):
    df = table(400).drop(columns="spent")
    learn = tabular_learner(TabularDataBunch.from_df(df, "buys", valid_idx=range(300, 400), bs=50), layers=[20])
    learn.fit(1)
    learn.export(tmp_path / "a.mf")
    code = f"""
import pandas as pd, torch
from minifast.tabular import load_learner
learn = load_learner({str(tmp_path / "a.mf")!r})
df = pd.read_pickle({str(tmp_path / "new.pkl")!r})
torch.save([learn.get_preds(dl=df)[0], str(learn.predict(df.iloc[0])[0])], {str(tmp_path / "out.pt")!r})
"""
    df.iloc[300:].drop(columns="buys").to_pickle(tmp_path / "new.pkl")
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)
    preds, value = torch.load(tmp_path / "out.pt")
    assert torch.equal(preds, learn.get_preds()[0]) and value == learn.predict(df.iloc[300])[0]


def test_quantities_and_labels_are_exported_too(tmp_path):
    df = table(200).drop(columns="buys").assign(a=[0, 1] * 100, b=[1, 0] * 100)
    for y, kwargs in (("spent", dict(y_range=(-20, 20))), (["a", "b"], {})):
        learn = tabular_learner(TabularDataBunch.from_df(df, y, bs=50), layers=[8], **kwargs)
        loaded = load_learner(learn.export(tmp_path / "a.mf"))
        assert loaded.predict(df.iloc[5])[0] == learn.predict(df.iloc[5])[0]
        with pytest.raises(KeyError, match="no column"):
            loaded.predict({"pay": 3.0})


def test_a_table_with_steps_of_ones_own_is_not_exported(tmp_path):
    class Logarithm(Normalize):
        def apply(self, df):
            df["pay"] = np.log(df["pay"])
    df = table(200).drop(columns="spent")
    data = TabularDataBunch.from_df(df, "buys", procs=[FillMissing, Categorify, Logarithm], bs=50)
    with pytest.raises(ValueError, match="Logarithm.* is code"):
        tabular_learner(data, layers=[8]).export(tmp_path / "a.mf")
    assert not (tmp_path / "a.mf").exists()


@pytest.mark.parametrize("field, value", [
    ("given", [["job"], [3]]), ("procs", [["Evil", {}]]), ("procs", [["Normalize", {"stats": {"age": (0.0, "1")}}]]),
    ("procs", [["Normalize", {"apply": {}}]]), ("columns", {"job": "abc"}), ("cat_names", ["jib"]), ("n_out", "many")])
def test_a_damaged_table_in_a_file_is_refused(tmp_path, field, value):
    df = table(100).drop(columns="spent")
    data = TabularDataBunch.from_df(df, "buys", bs=50)
    recipe = {**data.recipe(), "path": tmp_path, field: value}
    with pytest.raises((ValueError, TypeError, KeyError)):
        table_from_recipe(recipe, tmp_path, torch.device("cpu"))
    assert table_from_recipe(data.recipe(), tmp_path, torch.device("cpu")).prepare(df)[0].equal(data.prepare(df)[0])
