import random
from collections import OrderedDict, UserDict
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from minifast.data import DataBunch, DatasetType
from minifast.device_loader import DeviceDataLoader
from minifast.loaders import ItemLoader, TensorLoader
from minifast.utils import run_model

X, Y = torch.arange(23).float()[:, None], torch.arange(23)


class Noisy(Dataset):
    """Items that draw from all three global generators, and a count of those asked for."""

    def __init__(self, n=23):
        self.n, self.asked = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.asked.append(i)
        return torch.tensor([i, torch.rand(()), np.random.rand(), random.random()], dtype=torch.float64), i


def tensor_loader(**kwargs):
    return TensorLoader(X, Y, **{"bs": 5, "shuffle": True, "seed": 0, **kwargs})


def item_loader(**kwargs):
    return ItemLoader(Noisy(), **{"bs": 5, "shuffle": True, "seed": 0, **kwargs})


both = pytest.mark.parametrize("make", [tensor_loader, item_loader])


def targets(batches):
    return [y.tolist() for _, y in batches]


def equal(a, b):
    a, b = ([t for batch in batches for t in batch] for batches in (a, b))
    return len(a) == len(b) and all(map(torch.equal, a, b))


@both
def test_a_pass_gives_each_sample_once_in_an_order_of_its_own(make):
    dl = make()
    first, second = targets(dl), targets(dl)
    assert [len(y) for y in first] == [5, 5, 5, 5, 3] and len(dl) == 5
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(23))
    assert first != second and dl.passes == 2


@both
def test_drop_last_and_no_shuffle(make):
    dl = make(drop_last=True, shuffle=False)
    assert targets(dl) == [list(range(i, i + 5)) for i in (0, 5, 10, 15)] and len(dl) == 4


@both
def test_the_order_depends_on_seed_and_pass_alone(make):
    dl, same = make(), make()
    a = [list(dl) for _ in range(2)]
    torch.rand(7), np.random.rand(), random.random()
    b = [list(same) for _ in range(2)]
    assert equal(a[0], b[0]) and equal(a[1], b[1])
    other = make(seed=1)
    assert targets(other) not in [targets(a[0]), targets(a[1])]  # nor is seed 1's first pass seed 0's second


def test_x_and_y_go_together():
    assert all(torch.equal(x[:, 0].long(), y) for x, y in tensor_loader())


@both
def test_a_pass_can_begin_in_the_middle(make):
    whole, part = list(make()), make()
    assert equal(part.batches(start=3), whole[3:]) and part.passes == 1
    assert list(make().batches(start=5)) == []
    with pytest.raises(ValueError, match="start=6: a pass has 5 batches"):
        make().batches(start=6)


def test_skipped_batches_are_not_produced():
    dl = item_loader()
    list(dl.batches(start=3))
    assert len(dl.dataset.asked) == 8


@both
def test_state_repeats_a_pass_in_another_loader(make):
    dl = make(seed=5)
    list(dl)
    state = dl.state_dict()
    second = list(dl)
    assert state == {"seed": 5, "passes": 1}
    resumed = make(seed=9)
    resumed.load_state_dict(state)
    assert equal(resumed.batches(start=2), second[2:]) and resumed.state_dict() == dl.state_dict()


@both
def test_iterating_leaves_the_global_generators_alone(make):
    dl = make()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(dl)
    next(iter(dl))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


@both
def test_the_default_seed_comes_from_torch(make):
    def order():
        torch.manual_seed(3)
        return targets(make(seed=None))
    assert order() == order() != targets(make(seed=None))


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_a_bad_seed_is_named(seed):
    with pytest.raises((TypeError, ValueError), match=f"seed must be (a whole number|at least 0), not {seed!r}"):
        tensor_loader(seed=seed)


def test_what_items_draw_is_the_same_for_any_number_of_workers():
    alone, workers = item_loader(), item_loader(num_workers=2)
    passes = [list(alone), list(alone)]
    assert equal(workers, passes[0]) and equal(workers.batches(start=3), passes[1][3:])
    drawn = torch.cat([x for x, _ in passes[0]])[:, 1:]
    assert drawn.unique().numel() == drawn.numel() == 69  # no two items draw the same
    assert not torch.equal(drawn, torch.cat([x for x, _ in passes[1]])[:, 1:])  # nor one item in two passes


@pytest.mark.parametrize("shuffle", [False, True])
def test_work_in_place_on_a_batch_does_not_change_the_data(shuffle):
    x, y = X.clone(), Y.clone()
    for xb, yb in TensorLoader(x, y, 5, shuffle):
        xb.zero_(), yb.zero_()
    assert torch.equal(x, X) and torch.equal(y, Y)


def test_tensors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="x has 23 samples and y has 22"):
        TensorLoader(X, Y[1:])
    with pytest.raises(TypeError, match="x and y must be tensors, not list and Tensor"):
        TensorLoader([1.0], Y)
    with pytest.raises(ValueError, match="bs must be at least 1, not 0"):
        TensorLoader(X, Y, bs=0)


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


def test_a_stream_cannot_be_indexed_but_can_be_loaded():
    with pytest.raises(TypeError, match="a Stream has no end that is known: give n_batches="):
        DataBunch.create(Stream(), Stream())
    with pytest.raises(TypeError, match="a Stream cannot be indexed"):
        ItemLoader(Stream())
    data = DataBunch(DataLoader(Stream(), batch_size=5))
    assert targets(data.train_dl.batches(start=4)) == [[20, 21, 22]]
    with pytest.raises(TypeError, match="DataLoader has no length, and a schedule needs the number of batches"):
        len(data.train_dl)


class Epochs:
    """No length, a new generator for each pass."""

    def __iter__(self):
        yield from [(X[:4], Y[:4]), (X[4:6], Y[4:6])]


@pytest.mark.parametrize("dl", [Epochs(), list(Epochs()), tuple(Epochs())])
def test_any_iterable_of_batches_serves_many_passes(dl):
    dl = DeviceDataLoader(dl, "cpu")
    assert targets(dl) == targets(dl) == [[0, 1, 2, 3], [4, 5]] and targets(dl.batches(start=1)) == [[4, 5]]
    assert set(dl.state_dict()) == {"begun_at"} and dl.dataset is None and dl.batch_size is None


def test_what_serves_one_pass_only_is_refused():
    for once in (iter(Epochs()), zip(X, Y, strict=True)):
        with pytest.raises(TypeError, match="is used up after one pass"):
            DataBunch(once)
    with pytest.raises(TypeError, match="batches must come from something to iterate over, not 3"):
        DataBunch(3)


@pytest.mark.parametrize("batch", [X[:2], (X,), (X, Y, Y), {"x": X}])
def test_a_batch_that_is_no_pair_is_named(batch):
    with pytest.raises(TypeError, match=r"a batch must be a pair \(inputs, targets\), not .*; to_pair=, a function of"):
        list(DeviceDataLoader([batch], "cpu"))


@pytest.mark.parametrize("name", ["labels", "label"])
def test_labels_of_a_dict_are_the_targets(name):
    [(x, y)] = DeviceDataLoader([{"ids": X, name: Y, "mask": X > 3}], "cpu")
    assert list(x) == ["ids", "mask"] and y is Y


def test_to_pair_makes_a_pair_of_any_batch():
    def to_pair(batch): return (batch["a"], batch["b"]), batch["c"]
    data = DataBunch([{"a": X, "b": X + 1, "c": Y}], [{"a": X, "b": X, "c": Y}], device="cpu", to_pair=to_pair)
    for dl, other in ((data.train_dl, X + 1), (data.valid_dl, X)):
        [((a, b), y)] = dl
        assert torch.equal(a, X) and torch.equal(b, other) and y is Y
    items = [{"a": X[i], "b": X[i] + 1, "c": Y[i]} for i in range(6)]
    data = DataBunch.create(items, bs=3, seed=0, device="cpu", to_pair=to_pair)
    for (a, b), y in data.train_dl:
        assert torch.equal(b, a + 1) and torch.equal(a[:, 0].long(), y)
    data.prepare_item((X[0], X[1]))     # what one sample is has nothing to do with what a batch is


def test_nested_inputs_are_passed_on():
    [((a, b), y)] = DeviceDataLoader([([X, X + 1], Y)], "cpu")
    assert torch.equal(b, X + 1) and torch.equal(a, X) and y is Y


def test_batch_transforms_apply_in_order_and_can_be_removed():
    def double(batch): return batch[0] * 2, batch[1]
    def add(batch): return batch[0] + 1, batch[1]
    data = DataBunch.create(TensorDataset(X, Y), TensorDataset(X, Y), bs=23, device="cpu")
    data.add_tfm(double)
    data.add_tfm(add)
    for dl in data.dls:
        [(x, y)] = dl
        assert torch.equal(x[:, 0], y * 2.0 + 1)
    data.remove_tfm(double)
    assert torch.equal(next(iter(data.valid_dl))[0], X + 1)
    assert torch.equal(data.prepare_item(torch.tensor([5.0])), torch.tensor([[6.0]]))


def test_state_of_a_torch_loader_with_a_generator():
    gen = torch.Generator().manual_seed(1)
    dl = DeviceDataLoader(DataLoader(TensorDataset(X, Y), 5, shuffle=True, generator=gen), "cpu")
    state = dl.state_dict()
    first = targets(dl)
    assert targets(dl) != first
    dl.load_state_dict(state)
    assert targets(dl) == first


def bunch(n=23, **kwargs):
    kwargs = {"bs": 5, "seed": 0, "device": "cpu", **kwargs}
    return DataBunch.create(TensorDataset(X[:n], Y[:n]), TensorDataset(X, Y), **kwargs)


def test_create_shuffles_and_drops_for_training_only():
    data = bunch(val_bs=10)
    assert len(data.train_dl) == 4 and [len(y) for y in targets(data.valid_dl)] == [10, 10, 3]
    assert sum(targets(data.dl(DatasetType.Fix)), []) == sum(targets(data.valid_dl), []) == list(range(23))
    assert sum(targets(data.train_dl), []) != list(range(20))
    assert data.batch_size == 5 and isinstance(data.train_ds, TensorDataset) and data.test_ds is None
    assert len(bunch(drop_last=False).train_dl) == 5 and bunch().valid_dl.batch_size == 5


def test_the_order_of_training_does_not_depend_on_the_other_sets():
    def order(*others):
        torch.manual_seed(1)
        return targets(DataBunch.create(TensorDataset(X, Y), *others, bs=5).train_dl)
    assert order() == order(TensorDataset(X, Y)) == order(TensorDataset(X, Y), TensorDataset(X, Y))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_subset_of_tensors_is_cut_by_indexing(shuffle):
    outer = Subset(Subset(TensorDataset(X, X + 1, Y), range(3, 20)), [2, -1, 5, 0, 7])
    data = DataBunch.create(outer, outer, bs=2, seed=0, device="cpu", drop_last=False)
    assert isinstance(data.train_dl.dl, TensorLoader) and data.train_ds is outer
    assert sum(targets(data.valid_dl), []) == [5, 19, 8, 3, 10] and sorted(sum(targets(data.train_dl), [])) == [
        3, 5, 8, 10, 19]
    for (a, b), y in data.train_dl if shuffle else data.valid_dl:
        assert torch.equal(b, a + 1) and torch.equal(a[:, 0].long(), y)
    assert [y.tolist() for _, y in data.valid_dl.batches(start=2)] == [[10]]


def test_a_subset_keeps_the_order_that_its_rows_have():
    part = random_split(TensorDataset(X, Y), [17, 6], torch.Generator().manual_seed(0))[1]
    [(x, y)] = DataBunch.create(part, part, bs=6, device="cpu").valid_dl
    assert y.tolist() == list(part.indices) and torch.equal(x[:, 0].long(), y)


def test_nests_of_tensors_are_cut_by_indexing():
    x = {"a": X, "b": [X + 1, (X + 2,)]}
    for shuffle in (False, True):
        for got, y in TensorLoader(x, Y, 5, shuffle, seed=0):
            assert torch.equal(got["a"][:, 0].long(), y) and torch.equal(got["b"][1][0], got["a"] + 2)
    with pytest.raises(ValueError, match="x has 22 and 23 samples and y has 23"):
        TensorLoader((X, X[1:]), Y)
    with pytest.raises(TypeError, match="x and y must be tensors, not dict and Tensor"):
        TensorLoader({"a": [1]}, Y)
    with pytest.raises(TypeError, match="x and y must be tensors, not Tensor and tuple"):
        TensorLoader(X, ())


def test_data_sets_of_tensors_need_targets_but_for_tests():
    whole = TensorDataset(X, Y)
    data = DataBunch.create(whole, None, TensorDataset(X[:3]), bs=5, device="cpu")
    assert targets(data.test_dl) == [[0, 0, 0]]
    with pytest.raises(ValueError, match="a TensorDataset of one tensor has no targets to train on"):
        DataBunch.create(TensorDataset(X))


def test_a_torch_loader_of_three_tensors_gives_two_inputs():
    [((a, b), y)] = DeviceDataLoader(DataLoader(TensorDataset(X, X + 1, Y), 23), "cpu")
    assert torch.equal(b, a + 1) and torch.equal(y, Y)


@pytest.mark.parametrize("given", [(X.numpy(), Y.numpy()), X, X.numpy(), [X, Y], pd.DataFrame({"a": [1.0]}),
                                   pd.Series([1.0])], ids=lambda given: type(given).__name__)
def test_what_is_no_data_set_is_named(given):
    for make in (DataBunch.create, lambda x: DataBunch.create(TensorDataset(X, Y), x, bs=5)):
        with pytest.raises(TypeError, match=f"an array, a tensor or a DataFrame, here a {type(given).__name__}, is no "
                                            "data set: DataBunch.from_arrays"):
            make(given)


def test_data_sets_and_batches_are_not_confused():
    with pytest.raises(TypeError, match=r"a TensorDataset is a data set and has no batches: DataBunch.create\("):
        DataBunch(TensorDataset(X, Y))
    with pytest.raises(TypeError, match=r"a DataLoader has batches already: give it to DataBunch\("):
        DataBunch.create(DataLoader(TensorDataset(X, Y)))
    for given in (X, X.numpy(), {"x": X}, "abc", pd.DataFrame({"a": [1]})):
        with pytest.raises(TypeError, match=f"a {type(given).__name__} is no iterable of batches"):
            DataBunch(given)


def test_the_loaders_have_the_positions_of_v1():
    dls = [[(torch.full((2, 1), float(i)), Y[:2])] for i in range(4)]
    data = DataBunch(*dls, "cpu", lambda batch: (batch[0] + 10, batch[1]))
    assert [float(next(iter(dl))[0][0]) for dl in (data.train_dl, data.valid_dl, data.fix_dl, data.test_dl)] == [
        10, 11, 12, 13]
    with pytest.raises(TypeError, match="positional arguments"):
        DataBunch(*dls, "cpu", None, ".")


@dataclass(frozen=True)
class Record:
    a: torch.Tensor
    b: torch.Tensor


class Sum(nn.Module):
    def forward(self, a, b=10): return a + 2 * b


@pytest.mark.parametrize("x", [(X, X + 1), [X, X + 1], {"a": X, "b": X + 1}, {"b": X + 1, "a": X}, Record(X, X + 1),
                               UserDict(b=X + 1, a=X), OrderedDict(a=X, b=X + 1)], ids=lambda x: type(x).__name__)
def test_several_inputs_go_to_the_model_by_position_or_by_name(x):
    [(moved, _)] = DeviceDataLoader([(x, Y)], "cpu")
    assert torch.equal(run_model(Sum(), moved), 3 * X + 2)


def test_one_input_is_one_argument():
    packed = pack_sequence([X[:3], X[3:5]])
    [(moved, _)] = DeviceDataLoader([(packed, Y)], "cpu")
    assert run_model(nn.Identity(), moved) is moved and isinstance(moved, PackedSequence)
    assert torch.equal(run_model(Sum(), X), X + 20) and run_model(lambda: 3, None) == 3


class Odd:
    """Says that it has `says` batches and gives `gives` in its k-th pass."""

    def __init__(self, says, *gives):
        self.says, self.gives, self.k = says, gives, -1

    def __len__(self):
        if self.says is None:
            raise TypeError("no length")
        return self.says

    def __iter__(self):
        self.k += 1
        return iter([(X, Y)] * self.gives[self.k])


@pytest.mark.parametrize("says, gives", [(4, 3), (4, 5)])
def test_a_pass_that_is_not_as_long_as_said_is_warned_of(says, gives):
    with pytest.warns(UserWarning, match=f"a pass over the Odd had {gives} batches, and its length is {says}"):
        list(DeviceDataLoader(Odd(says, gives), "cpu"))
    with pytest.warns(UserWarning, match=f"had {gives} batches, and its length is {says}"):
        list(DeviceDataLoader(Odd(says, gives), "cpu").batches(start=2))


@pytest.mark.parametrize("says", [None, 2])
def test_a_pass_without_a_batch_is_an_error(says):
    dl = DeviceDataLoader(Odd(says, 2, 0), "cpu")
    assert len(list(dl)) == 2
    with pytest.raises(ValueError, match="a pass over the Odd gave not one batch"):
        list(dl)
    assert list(DeviceDataLoader([], "cpu")) == []


def test_a_pass_that_is_broken_off_is_not_reported():
    dl = DeviceDataLoader(Odd(4, 3), "cpu")
    for _ in dl:
        break


def test_a_stop_iteration_is_not_the_end_of_a_pass():
    def ends(batch): raise StopIteration
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(DeviceDataLoader([(X, Y)] * 2, "cpu", ends))

    class Items(Noisy):
        def __getitem__(self, i): return next(iter([]))
    for num_workers in (0, 1):
        with pytest.raises(RuntimeError, match="item 0 of the Items raised StopIteration"):
            list(ItemLoader(Items(), 5, num_workers=num_workers))


def test_too_little_data_says_what_to_do():
    with pytest.raises(ValueError, match="4 training samples do not fill one batch of 5.*bs=4 or less, or drop_last=F"):
        bunch(4)
    assert len(bunch(4, drop_last=False).train_dl) == 1
    with pytest.raises(ValueError, match="the training data is empty"):
        bunch(0, drop_last=False)
    with pytest.raises(ValueError, match="the training data is empty"):
        DataBunch([])


def test_no_validation_data():
    data = DataBunch(list(Epochs()))
    assert data.empty_val and data.valid_ds is None and DataBunch(list(Epochs()), []).empty_val
    assert not bunch().empty_val and not DataBunch(Epochs(), Epochs()).empty_val
    with pytest.raises(ValueError, match="there is no valid data"):
        data.dl(DatasetType.Valid)


def test_classes_and_their_number():
    assert bunch(classes=["a", "b"]).c == 2
    with pytest.raises(AttributeError, match="give DataBunch the argument classes="):
        _ = bunch().c


def test_one_batch_is_the_coming_one_and_changes_nothing():
    data = DataBunch.create(Noisy(), bs=5, seed=0, device="cpu")
    data.add_tfm(lambda batch: (batch[0] + torch.rand(()), batch[1]))
    state, before = data.train_dl.state_dict(), torch.get_rng_state()
    x, y = data.one_batch()
    assert data.train_dl.state_dict() == state and torch.equal(torch.get_rng_state(), before)
    [again, *_] = data.train_dl
    assert torch.equal(again[1], y) and torch.equal(again[0], x)


def test_wrap_leaves_a_wrapped_loader_as_it_is():
    data = bunch()
    data.add_tfm(lambda batch: (batch[0] + 1, batch[1]))
    assert data.wrap(data.valid_dl) is data.valid_dl
    [(x, _)] = data.wrap([(X, Y)])
    assert torch.equal(x, X)


@pytest.mark.parametrize("item, batch", [
    (X[3], X[3:4]), (X[3].numpy(), X[3:4]), ([3, 4], torch.tensor([[3, 4]])),
    ((X[0], 2.5), (X[:1], torch.tensor([2.5]))),
    ({"a": X[0], "b": [X[1], X[2]]}, {"a": X[:1], "b": (X[1:2], X[2:3])}),
    (np.array([0.5, 1.5]), torch.tensor([[0.5, 1.5]])), (pd.Series({"a": 1, "b": 2}), torch.tensor([[1.0, 2.0]])),
], ids=str)
def test_one_item_is_a_batch_of_one(item, batch):
    assert str(bunch().prepare_item(item)) == str(batch)


def test_an_item_must_hold_numbers():
    with pytest.raises(TypeError, match="one input must be a tensor, not str"):
        bunch().prepare_item("a.png")
    with pytest.raises(TypeError, match="one input must be a tensor, not NoneType"):
        bunch().prepare_item((X[0], None))


def test_new_inputs_are_prepared_as_for_validation():
    data = bunch()
    data.add_tfm(lambda batch: (batch[0] * 2, batch[1]))
    for given in (X[:7], X[:7].numpy(), pd.DataFrame({"a": range(7)}), [x.numpy() for x in X[:7]]):
        dl = data.test_on(given)
        assert [len(y) for _, y in dl] == [5, 2] and torch.equal(torch.cat([x for x, _ in dl]), 2 * X[:7])
    [((a, b), _)] = data.test_on((X[:3], X[:3]), bs=9) if data.remove_tfm(data.train_dl.tfms[0]) is None else ()
    assert torch.equal(a, b)
    with pytest.raises(ValueError, match="there is not one sample to predict on"):
        data.test_on([])


def test_a_data_set_is_wrapped_as_for_validation():
    data = bunch()
    data.add_tfm(lambda batch: (batch[0] * 2, batch[1]))
    dl = data.wrap(TensorDataset(X[:6], Y[:6]))
    assert targets(dl) == [[0, 1, 2, 3, 4], [5]] and next(iter(dl))[0][1] == 2


def test_repr_tells_the_sizes():
    assert repr(bunch()) == "DataBunch(batches to train on: 4, to validate on: 5, on cpu)"
    data = DataBunch(Epochs(), device="cpu")
    assert repr(data) == "DataBunch(batches to train on: unknown, to validate on: 0, on cpu)"
