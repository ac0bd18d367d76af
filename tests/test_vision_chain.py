import numpy as np
import pandas as pd
import pytest
import torch
from pictures import COUNTS, fill

from minifast.data import DatasetType
from minifast.losses import BCEWithLogitsFlat, CrossEntropyFlat, MSELossFlat
from minifast.vision.data import ImageDataBunch
from minifast.vision.image_list import ImageList
from minifast.vision.labelled import LabelledPictures
from minifast.vision.labels import FloatList

N = 18


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path, COUNTS)


@pytest.fixture
def table(tmp_path):
    fill(tmp_path, {"im": N})
    return pd.DataFrame({"name": [f"{i:02d}" for i in range(N)], "kind": ["a", "b", "c"] * 6,
                         "is_valid": [i % 6 == 5 for i in range(N)], "tags": ["x y", "y", "z x"] * 6,
                         "age": [i / 4 for i in range(N)]}).assign(name=[str(i) for i in range(N)])


def parts(data):
    return [[str(p.relative_to(data.path)) for p in ds.items] for ds in (data.train_ds, data.valid_ds)]


def databunch(labelled, **kwargs):
    return labelled.databunch(**{"bs": 4, "seed": 0, "device": "cpu", **kwargs})


def same(a, b):
    a, b = ([t for batch in dl for t in batch] for dl in (a, b))
    return len(a) == len(b) > 0 and all(map(torch.equal, a, b))


def test_the_chain_gives_what_the_makers_of_image_data_bunch_give(folder):
    chained = databunch(ImageList.from_folder(folder).split_by_folder().label_from_folder().transform(size=4))
    made = ImageDataBunch.from_folder(folder, bs=4, seed=0, size=4, device="cpu")
    assert chained.classes == made.classes == ["cat", "dog"] and chained.path == folder
    assert same(chained.train_dl, made.train_dl) and same(chained.valid_dl, made.valid_dl)
    chained = databunch(ImageList.from_folder(folder).split_by_rand_pct(0.3, seed=7).label_from_folder(), seed=7)
    made = ImageDataBunch.from_folder(folder, valid_pct=0.3, bs=4, seed=7, device="cpu")
    assert parts(chained) == parts(made) and same(chained.train_dl, made.train_dl)
    assert chained.normalize(([.5] * 3, [.2] * 3)).prepares["size"] == [8, 6]


def test_pictures_come_from_folders_tables_and_files_of_tables(folder, table, tmp_path):
    assert len(ImageList.from_folder(folder / "train")) == 13
    assert len(ImageList.from_folder(folder, include=["valid"])) == 5
    assert len(ImageList.from_folder(folder, extensions=["PNG"])) == 36 and len(ImageList.from_folder(
        folder / "im", recurse=False)) == N
    table.to_csv(tmp_path / "t.csv", index=False, sep=";")
    for pictures in (ImageList.from_df(table, tmp_path, "name", "im", ".png"),
                     ImageList.from_csv(tmp_path, "t.csv", delimiter=";", cols=0, folder="im", suffix=".png")):
        assert pictures.items[3] == tmp_path / "im/3.png" and len(pictures) == N
        assert pictures.table["age"].tolist() == table["age"].tolist()
    with pytest.raises(ValueError, match="there are no pictures in"):
        ImageList.from_folder(folder, extensions=[".gif"])


def test_fewer_pictures(folder):
    pictures = ImageList.from_folder(folder)
    assert len(pictures.filter_by_folder(["train"])) == 13 and len(pictures.filter_by_folder(exclude=["train"])) == 5
    assert len(pictures.filter_by_func(lambda p: p.stem == "0")) == 4
    assert 0 < len(pictures.filter_by_rand(0.5, seed=1)) < 18
    assert pictures.filter_by_rand(0.5, seed=1).items == pictures.filter_by_rand(0.5, seed=1).items
    some = pictures.use_partial_data(0.5, seed=3)
    assert len(some) == 9 and some.items == sorted(some.items)
    with pytest.raises(ValueError, match="none of the 18 pictures"):
        pictures.filter_by_folder(["nowhere"])


def test_every_way_to_split(table, tmp_path):
    pictures = ImageList.from_df(table, tmp_path, "name", "im", ".png")
    valid_file = tmp_path / "valid.txt"
    valid_file.write_text("5.png\n11.png\n17.png\n")
    rows = [5, 11, 17]
    for split in (pictures.split_from_df("is_valid"), pictures.split_by_idx(rows),
                  pictures.split_by_idx(np.array(rows)), pictures.split_by_files(["5.png", "11.png", "im/17.png"]),
                  pictures.split_by_fname_file("valid.txt"),
                  pictures.split_by_valid_func(lambda p: int(p.stem) % 6 == 5)):
        assert [int(p.stem) for p in split.valid.items] == rows == split.valid.table.index.tolist()
        assert [int(p.stem) for p in split.train.items] == [i for i in range(N) if i not in rows]
    split = pictures.split_by_idxs([0, 2], [1])
    assert (len(split.train), len(split.valid)) == (2, 1)
    split = pictures.split_subsets(0.5, 0.2, seed=0)
    assert (len(split.train), len(split.valid)) == (9, 3) and not set(split.train.items) & set(split.valid.items)
    assert pictures.split_subsets(0.5, 0.2, seed=0).train.items == split.train.items
    data = databunch(pictures.split_none().label_from_df("kind"))
    assert data.valid_dl is None and len(data.train_ds) == N


def test_every_kind_of_label(table, tmp_path):
    split = ImageList.from_df(table, tmp_path, "name", "im", ".png").split_by_rand_pct(seed=0)
    def number(p): return int(p.stem)
    data = databunch(split.label_from_df("kind"))
    assert data.classes == ["a", "b", "c"] and isinstance(data.loss_func, CrossEntropyFlat)
    assert [data.classes[y] for y in data.train_ds.y] == ["abc"[number(p) % 3] for p in data.train_ds.items]
    data = databunch(split.label_from_df("tags", label_delim=" "))
    assert data.classes == ["x", "y", "z"] and isinstance(data.loss_func, BCEWithLogitsFlat)
    assert data.one_batch()[1].shape == (4, 3)
    data = databunch(split.label_from_df("age"))
    assert isinstance(data.loss_func, MSELossFlat)
    assert data.train_ds.y.tolist() == [number(p) / 4 for p in data.train_ds.items]
    data = databunch(split.label_from_func(lambda p: number(p) + 1, label_cls=FloatList, log=True))
    assert torch.allclose(data.train_ds.y, torch.tensor([number(p) + 1. for p in data.train_ds.items]).log())
    data = databunch(split.label_from_func(lambda p: ["even"] if number(p) % 2 == 0 else [], classes=["odd", "even"]))
    assert data.train_ds.y.tolist() == [[0., 1. - number(p) % 2] for p in data.train_ds.items]
    data = databunch(split.label_from_re(r"(\d)\.png$"))
    assert data.classes == [str(i) for i in range(10)]
    assert databunch(split.label_from_re(r"/(im)/", full_path=True, classes=["im", "x"])).classes == ["im", "x"]
    data = databunch(split.label_from_df(["age", "age"]))
    assert data.train_ds.y.shape == (15, 2)
    assert databunch(split.label_const("new")).classes == ["new"]
    assert databunch(split.label_const(0.5)).one_batch()[1].tolist() == [0.5] * 4
    data = databunch(split.label_empty())
    assert data.loss_func is None and data.one_batch()[1].tolist() == [0.] * 4


def test_test_data(folder):
    labelled = ImageList.from_folder(folder).filter_by_folder(exclude=["valid"]).split_by_rand_pct().label_from_folder()
    data = databunch(labelled.add_test_folder("valid"))
    assert len(data.test_ds) == 5 and data.one_batch(DatasetType.Test)[1].tolist() == [0] * 4
    data = databunch(labelled.add_test(sorted((folder / "valid/cat").iterdir())))
    assert len(data.test_ds) == 3
    with pytest.raises(FileNotFoundError, match="there is no file nowhere.png"):
        labelled.add_test(["nowhere.png"])
    with pytest.raises(FileNotFoundError, match="there is no folder .*test"):
        labelled.add_test_folder()


def test_a_step_at_the_wrong_place_says_where_it_belongs(folder):
    pictures = ImageList.from_folder(folder)
    split = pictures.split_none()
    for call, said in ((lambda: pictures.label_from_folder, "label_from_folder belongs to what split_... returns, not"),
                       (lambda: pictures.databunch, "databunch belongs to what label_... or transform returns, not to "
                                                    "an ImageList: the order is"),
                       (lambda: split.split_none, "split_none belongs to an ImageList, not to a SplitPictures"),
                       (lambda: split.transform, "transform belongs to what label_... returns, not to a SplitPictures"),
                       (lambda: split.label_from_folder().normalize, "normalize belongs to what databunch returns"),
                       (lambda: pictures.item, "an ImageList has no 'item'. Did you mean")):
        with pytest.raises(AttributeError, match=said):
            call()
    assert not hasattr(pictures, "__wrapped__") and isinstance(split.label_from_folder(), LabelledPictures)


def test_the_mistakes_of_each_step_are_named(folder, table, tmp_path):
    pictures, rows = ImageList.from_folder(folder / "train"), ImageList.from_df(table, tmp_path, "name", "im", ".png")
    for call, said in (
            (lambda: pictures.split_by_folder(), "there are no pictures in .*train; there are some in cat, dog"),
            (lambda: pictures.split_by_rand_pct(2), "valid_pct=2 of 13 pictures"),
            (lambda: pictures.split_by_idx([13]), "valid_idx has 13, and there are 13 pictures"),
            (lambda: pictures.split_by_idx([1, 1]), "valid_idx has a number twice"),
            (lambda: pictures.split_by_idx(range(13)), "all 13 pictures would validate, and none train"),
            (lambda: pictures.split_by_idxs([0, 3], [3]), "item 3 would both train and validate"),
            (lambda: pictures.split_by_files(["x.png"]), "1 of the 1 names are none of the pictures', .*'x.png'"),
            (lambda: pictures.split_subsets(0.9, 0.2), "train_size=0.9 and valid_size=0.2 are shares"),
            (lambda: pictures.split_from_df(), "there is no table"),
            (lambda: rows.split_from_df("kind"), "row 0 has 'a' in column 'kind', which must be true or false"),
            (lambda: rows.split_from_df("valid"), "there is no column 'valid' in the table.*Did you mean 'is_valid'"),
            (lambda: rows.split_none().label_from_df("ages"), "there is no column 'ages'"),
            (lambda: rows.split_none().label_from_re(r"(x)\."), "is not found in 0.png"),
            (lambda: rows.split_none().label_from_re(r"\d"), "has no group"),
            (lambda: rows.split_none().label_from_func(lambda p: None), "18 of 18 pictures have no label: row 0 "),
            (lambda: rows.split_none().label_from_df("kind", classes=["a", "b"]), "the label 'c' is none of the class"),
            (lambda: pictures.split_none().label_from_folder().transform([len]), "ds_tfms must be a pair"),
            (lambda: pictures.split_none().label_from_folder().transform(size=0), "size must be a whole number or"),
            (lambda: pictures.split_none().label_from_folder().transform(resize_method="cut"), "no resize method"),
            (lambda: pictures.split_none().label_from_folder().transform(padding_mode="black"), "padding_mode must be"),
            (lambda: pictures.filter_by_rand(0), "p is a probability")):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match="valid_idx must be a whole number, not 0.5"):
        pictures.split_by_idx([0.5])
    with pytest.raises(TypeError, match="does not know the argument 'batch_size'"):
        databunch(pictures.split_none().label_from_folder(), batch_size=3)


def test_a_class_in_the_folder_for_validation_alone_is_a_mistake_and_in_a_random_part_it_is_none(folder):
    (folder / "valid/dog").rename(folder / "valid/dogs")
    with pytest.raises(ValueError, match="the label 'dogs' is none of the classes .*Did you mean 'dog'"):
        ImageList.from_folder(folder).split_by_folder().label_from_folder()
    assert databunch(ImageList.from_folder(folder).split_by_rand_pct().label_from_folder()).c == 3
