import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minifast.arrays import as_inputs, as_targets, fitting_loss
from minifast.data import DataBunch
from minifast.learner import Learner
from minifast.losses import BCEWithLogitsFlat, CrossEntropyFlat, MSELossFlat

FRAME = pd.DataFrame({"age": [20, 30, 40], "tall": [True, False, True], "x": [0.5, 1.5, 2.5], "name": list("abc")})


@pytest.mark.parametrize("x, dtype", [
    (np.zeros(2), torch.float32), (np.zeros(2, np.float32), torch.float32), (np.zeros(2, np.float16), torch.float16),
    (np.zeros(2, np.int32), torch.int64), (np.zeros(2, np.uint8), torch.float32), (np.zeros(2, bool), torch.float32),
    (torch.zeros(2, dtype=torch.float64), torch.float32), (torch.zeros(2, dtype=torch.int16), torch.int64),
    (np.zeros(4)[::-2], torch.float32), ([[1.0], [2.0]], torch.float32), ([1, 2], torch.int64),
    (np.zeros(2, ">f8"), torch.float32), (FRAME[["age", "tall", "x"]], torch.float32), (FRAME["age"], torch.float32),
])
def test_inputs_get_types_that_models_take(x, dtype):
    assert as_inputs(x).dtype == dtype


def test_frames_and_nests_of_inputs():
    assert as_inputs(FRAME[["age", "tall", "x"]]).tolist() == [[20, 1, 0.5], [30, 0, 1.5], [40, 1, 2.5]]
    a, b = as_inputs((FRAME[["x"]], np.arange(3)))
    assert a.shape == (3, 1) and b.tolist() == [0, 1, 2] and as_inputs({"a": FRAME["x"]})["a"].shape == (3, 1)


def test_inputs_do_not_share_memory_with_an_array_that_may_change():
    array = np.zeros(3, np.float32)
    x = as_inputs(array)
    array += 1
    assert x.tolist() == [0, 0, 0]


@pytest.mark.parametrize("x, kind, match", [
    (FRAME, TypeError, "the column 'name' holds no numbers"), (np.array(["a"]), TypeError, "an array of <U1"),
    (pd.DataFrame({"a": [1.0, None]}), ValueError, "the column 'a' has no value in 1 rows"),
    (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), ValueError, "the column 'a' has no value in 1 rows"),
    ("abc", TypeError, "arrays must hold numbers, and this is a str"),
    (object(), TypeError, "this is a object"), (None, TypeError, "this is a NoneType"),
])
def test_what_holds_no_numbers_is_named(x, kind, match):
    with pytest.raises(kind, match=match):
        as_inputs(x)


@pytest.mark.parametrize("y, loss, want, classes, dtype", [
    (["b", "a", "b"], None, [1, 0, 1], ["a", "b"], torch.int64),
    (np.array([2, 0]), None, [2, 0], None, torch.int64),
    (np.array([2, 0], np.uint8), None, [2, 0], None, torch.int64),
    (np.array([0.5, 0]), None, [0.5, 0], None, torch.float32),
    (np.array([True, False]), None, [1, 0], [False, True], torch.int64),
    (np.array([[True], [False]]), None, [[1], [0]], None, torch.float32),
    (np.array([1.0, 0]), CrossEntropyFlat(), [1, 0], None, torch.int64),
    (np.array([1, 0]), F.mse_loss, [1, 0], None, torch.float32),
    (np.array([1, 0]), nn.BCEWithLogitsLoss(), [1, 0], None, torch.float32),
    (pd.Series(["b", "a"]), None, [1, 0], ["a", "b"], torch.int64),
    (pd.Series(["b", "a"], dtype="category"), None, [1, 0], ["a", "b"], torch.int64),
    (pd.DataFrame({"y": [3, 4]}), None, [3, 4], None, torch.int64),
    (FRAME["name"], None, [0, 1, 2], ["a", "b", "c"], torch.int64),
])
def test_targets_get_types_that_losses_take(y, loss, want, classes, dtype):
    t, names = as_targets(y, loss)
    assert t.tolist() == want and t.dtype == dtype and names == classes


@pytest.mark.parametrize("y, classes, match", [
    (["a", None], None, "1 targets are missing, the first in row 1"), (["c"], ["a", "b"], "'c' is none of the classes"),
    ([0.5, float("nan")], None, "1 targets are missing"),
])
def test_targets_that_do_not_fit_are_named(y, classes, match):
    with pytest.raises(ValueError, match=match):
        as_targets(y, None, classes)


def test_the_loss_that_fits():
    for y, kind in ((torch.tensor([1]), CrossEntropyFlat), (torch.tensor([1.0]), MSELossFlat),
                    (torch.tensor([[1.0, 0]]), BCEWithLogitsFlat), (torch.tensor([[1.0, 2]]), MSELossFlat)):
        assert type(fitting_loss(y)) is kind


def test_from_arrays_splits_once_and_trains():
    x = np.random.default_rng(0).normal(size=(50, 3))
    data = DataBunch.from_arrays(x, np.where(x[:, 0] > 0, "yes", "no"), bs=8, seed=0, device="cpu")
    train, valid = (torch.cat([x for x, _ in dl]) for dl in (data.fix_dl, data.valid_dl))
    assert len(train) == 40 and len(valid) == 10 and data.classes == ["no", "yes"]
    rows = {tuple(row) for row in torch.cat([train, valid]).tolist()}
    assert rows == {tuple(row) for row in torch.tensor(x).float().tolist()}
    learn = Learner(data, nn.Linear(3, 2), silent=True)
    learn.fit(20, 0.1)
    assert learn.validate()[0] < 0.4 and learn.predict(np.array([3.0, 0, 0]))[0] == "yes"


def test_from_arrays_with_validation_and_test_data():
    x, y = np.eye(4), np.arange(4)
    data = DataBunch.from_arrays({"a": x, "b": y}, y, ({"a": x[:2], "b": y[:2]}, y[:2]), {"a": x[:3], "b": y[:3]}, bs=2)
    assert len(data.train_dl) == 2 and len(data.valid_dl) == 1
    assert [len(b["b"]) for b, _ in data.test_dl] == [2, 1] and type(data.loss_func) is CrossEntropyFlat
    assert DataBunch.from_arrays(x, y, valid_pct=0, bs=2).valid_dl is None
    with pytest.raises(ValueError, match="valid_pct=0.1 of 4 samples"):
        DataBunch.from_arrays(x, y, valid_pct=0.1)
    with pytest.raises(ValueError, match="x has 4 samples and y has 3"):
        DataBunch.from_arrays(x, y[:3], valid_pct=0)
    with pytest.raises(TypeError, match="n_batch"):
        DataBunch.from_arrays(x, y, bs=2, valid_pct=0, n_batch=3)
