import numpy as np
import pandas as pd
import pytest
import torch
from pictures import fill

from minifast.learner import Learner
from minifast.losses import BCEWithLogitsFlat, CrossEntropyFlat, MSELossFlat
from minifast.vision.data import ImageDataBunch
from minifast.vision.labels import CategoryList, FloatList, MultiCategoryList, labels_of
from minifast.vision.tables import read_table

N = 20


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path, {"im": N})


def table(labels):
    return pd.DataFrame({"name": [f"{i}.png" for i in range(N)], "label": (list(labels) * N)[:N]})


def from_df(folder, labels, **kwargs):
    return ImageDataBunch.from_df(folder, table(labels), "im", **{"bs": 4, "seed": 0, "device": "cpu", **kwargs})


def from_csv(folder, labels, **kwargs):
    table(labels).to_csv(folder / "labels.csv", index=False)
    return ImageDataBunch.from_csv(folder, "im", **{"bs": 4, "seed": 0, "device": "cpu", **kwargs})


@pytest.mark.parametrize("make", [from_df, from_csv])
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT, "", " "])
@pytest.mark.parametrize("others", [[0, 1], ["a", "b"], [0.5, 1.5]])
def test_a_missing_label_names_row_and_file_for_every_seed(folder, make, missing, others):
    labels = (others * N)[:N]
    labels[17] = missing
    for seed in range(4):
        with pytest.raises(ValueError, match=r"1 of 20 pictures has no label: row 17 \(im/17.png\)"):
            make(folder, labels, seed=seed)


def test_many_missing_labels_are_counted(folder):
    with pytest.raises(ValueError, match=r"10 of 20 pictures have no label: row 1 .*, row 9 \(im/9.png\), \.\.\."):
        from_df(folder, ["a", None])
    with pytest.raises(ValueError, match="row 3 of the table has no file name in column 0, but nan"):
        ImageDataBunch.from_df(folder, pd.DataFrame({"name": ["0.png"] * 3 + [np.nan], "label": [0, 1, 0, 1]}))


@pytest.mark.parametrize("names", [["NA", "b"], ["None", "nan"], ["null", "NaN", "N/A", "x"], ["001", "01", "1"],
                                   ["007", "008"], ["1e5", "x"], ["inf", "y"], ["-0", "0"]])
def test_class_names_survive_a_table_in_a_file(folder, names):
    data = from_csv(folder, names)
    assert data.classes == sorted(names)
    for item, target in zip(data.train_ds.items, data.train_ds.y, strict=True):
        assert data.classes[target] == names[int(item.stem) % len(names)]


@pytest.mark.parametrize("make", [from_df, from_csv])
@pytest.mark.parametrize("labels, classes", [([3, 12], [3, 12]), ([-1, 0], [-1, 0]), ([True, False], [False, True])])
def test_numbers_and_truth_values_stay_such(folder, make, labels, classes):
    data = make(folder, labels)
    assert data.classes == classes and [type(c) for c in data.classes] == [type(c) for c in classes]


def test_names_of_files_are_text_whatever_they_look_like(tmp_path):
    for i in range(8):
        fill(tmp_path, {"im": 1})
        (tmp_path / "im/0.png").rename(tmp_path / f"im/0{i}.50.png")
    (tmp_path / "t.tsv").write_text("".join(f"{i % 2}\t0{i}.50\n" for i in range(8)))
    data = ImageDataBunch.from_csv(tmp_path, "im", "t.tsv", None, 1, 0, ".png", "\t", bs=2, device="cpu")
    assert data.classes == [0, 1] and len(data.train_ds) == 7


@pytest.mark.parametrize("labels", [np.array(["a", "b"]), np.array([3, 7], np.int16), np.array([True, False]),
                                    np.array(["a", "b"], object), list(np.array([3, 7])), torch.tensor([3, 7]),
                                    pd.Series(["a", "b"], dtype="category"), pd.array([3, 7], dtype="Int64")])
def test_labels_of_numpy_torch_and_pandas_become_plain_values(folder, labels, tmp_path):
    names = [f"im/{i}.png" for i in range(2)] * 6
    data = ImageDataBunch.from_lists(folder, names, type(labels)(list(labels) * 6) if isinstance(labels, list) else
                                     pd.Series(list(labels) * 6), bs=2, seed=0, device="cpu")
    assert [type(c) for c in data.classes] in ([str] * 2, [int] * 2, [bool] * 2)
    learn = Learner(data, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 2)), path=tmp_path, silent=True)
    learn.save("w")
    learn.load("w")
    assert isinstance(learn.predict(folder / "im/0.png")[0], (str, int, bool))


def test_given_classes_are_plain_too():
    assert type(CategoryList(["a"], np.array(["b", "a"])).classes[0]) is str


@pytest.mark.parametrize("kind", ["folder", "df"])
def test_a_class_that_the_split_leaves_out_of_training_is_a_class(tmp_path, kind):
    fill(tmp_path, {"im/a": 15, "im/b": 14, "im/rare": 1})
    files = sorted((tmp_path / "im").rglob("*.png"))
    df = pd.DataFrame({"name": [f.relative_to(tmp_path) for f in files], "label": [f.parent.name for f in files]})
    trained = set()
    for seed in range(12):
        data = (ImageDataBunch.from_folder(tmp_path / "im", valid_pct=0.3, seed=seed, bs=4) if kind == "folder" else
                ImageDataBunch.from_df(tmp_path, df, valid_pct=0.3, seed=seed, bs=4))
        assert data.classes == ["a", "b", "rare"] and data.c == 3
        trained.add(2 in data.train_ds.y)
    assert trained == {True, False}


@pytest.mark.parametrize("make", [from_df, from_csv])
def test_floats_are_quantities(folder, make):
    data = make(folder, [0.5, 1.25, -2.0])
    assert data.classes is None and isinstance(data.loss_func, MSELossFlat)
    _, y = data.one_batch()
    assert y.dtype == torch.float32 and set(y.tolist()) <= {0.5, 1.25, -2.0}
    values = [float(t) for t in data.train_ds.y]
    assert values == [[0.5, 1.25, -2.0][int(p.stem) % 3] for p in data.train_ds.items]
    learn = Learner(data, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 1)), silent=True)
    learn.fit(1)
    assert data.show_batch(2, return_fig=True).axes[0].get_title() in ("0.5", "1.25", "-2")


def test_several_quantities(folder):
    df = table([0.5]).assign(other=range(N))
    data = ImageDataBunch.from_df(folder, df, "im", label_col=["label", "other"], bs=4, device="cpu")
    assert data.train_ds.y.shape == (16, 2) and data.one_batch()[1].shape == (4, 2)
    with pytest.raises(ValueError, match="some pictures have more quantities than others"):
        FloatList([[1.0], [1.0, 2.0]])


def test_whole_floats_may_be_classes_or_quantities_so_they_are_refused(folder):
    with pytest.raises(ValueError, match="int for classes, or give label_cls=FloatList for quantities .regression."):
        from_df(folder, [0.0, 1.0])
    assert from_df(folder, [0.0, 1.0], label_cls=FloatList).classes is None
    assert from_df(folder, [0.0, 1.0], classes=[0.0, 1.0]).classes == [0.0, 1.0]
    assert isinstance(from_df(folder, [3, 4], label_cls=FloatList).loss_func, MSELossFlat)


def test_quantities_that_are_none_are_refused():
    for bad in float("inf"), True, "x":
        with pytest.raises(ValueError, match="is no finite number"):
            FloatList([1.0, bad])
    with pytest.raises(ValueError, match="no logarithm"):
        FloatList([1.0, 0.0], log=True)
    labels = FloatList([1.0, 8.0], log=True)
    assert labels.targets([8.0]).item() == pytest.approx(np.log(8)) and labels.text(labels.targets([8.0])[0]) == "8"


def test_several_labels(folder):
    data = from_csv(folder, ["sun sea", "sea", "rain  sun"], label_delim=" ")
    assert data.classes == ["rain", "sea", "sun"] and isinstance(data.loss_func, BCEWithLogitsFlat)
    rows = {0: [0., 1., 1.], 1: [0., 1., 0.], 2: [1., 0., 1.]}
    assert data.train_ds.y.tolist() == [rows[int(p.stem) % 3] for p in data.train_ds.items]
    assert data.labels.text(torch.tensor([0., 1., 1.])) == "sea; sun"
    lists = ImageDataBunch.from_lists(folder, [f"im/{i}.png" for i in range(N)], [["x", "y"], [], {"y"}, ("z",)] * 5,
                                      bs=4, device="cpu")
    assert lists.classes == ["x", "y", "z"] and lists.train_ds.y.sum() <= 20
    with pytest.raises(TypeError, match="label_delim cuts strings into several labels, and there is 3"):
        from_df(folder, ["a b", 3], label_delim=" ")
    with pytest.raises(TypeError, match="some pictures have a list of labels and others one label"):
        labels_of(["a", ["b"]])
    with pytest.raises(ValueError, match="row 1 "):
        from_csv(folder, ["a b", ""], label_delim=" ")
    with pytest.raises(ValueError, match="'sun' is none of the classes .*'sum'"):
        MultiCategoryList([["sun"]], ["sum", "x"])


def test_labels_that_do_not_go_together_are_named():
    with pytest.raises(TypeError, match="labels must be of one type to be sorted, and there are .*int .1."):
        labels_of(["a", 1, "b"])
    with pytest.raises(ValueError, match="a class occurs twice in classes="):
        CategoryList(["a"], ["a", "b", "a"])
    with pytest.raises(TypeError, match="classes must be a list of names, not 'ab'"):
        CategoryList(["a"], "ab")
    with pytest.raises(TypeError, match="label_cls must be CategoryList, MultiCategoryList or FloatList, not"):
        labels_of(["a", "b"], label_cls=str)
    with pytest.raises(ValueError, match="quantities have no classes"):
        labels_of([0.5], ["a"], FloatList)
    assert isinstance(labels_of(["a", "b"]).loss_func, CrossEntropyFlat)


def test_arguments_columns_and_tables_that_are_not_there_are_named(folder):
    for make in from_df, from_csv:
        with pytest.raises(TypeError, match="ImageDataBunch does not know the argument 'label_delimiter'. Did you "
                                            "mean 'label_delim'"):
            make(folder, ["a", "b"], label_delimiter=" ")
    with pytest.raises(ValueError, match=r"there is no column 'labels' in the table; it has \['name', 'label'\]. Did"):
        from_df(folder, ["a", "b"], label_col="labels")
    with pytest.raises(ValueError, match="there is no column 2"):
        from_csv(folder, ["a", "b"], label_col=2)
    with pytest.raises(TypeError, match="a table must be a pandas DataFrame, not dict"):
        ImageDataBunch.from_df(folder, {"name": []})
    (folder / "empty.csv").touch()
    with pytest.raises(ValueError, match="empty.csv cannot be read as a table"):
        read_table(folder / "empty.csv", 0)
    with pytest.raises(FileNotFoundError, match="none.csv"):
        read_table(folder / "none.csv", 0)
