import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from minifast.data import DataBunch, DatasetType
from minifast.device_loader import DeviceDataLoader
from minifast.loaders import ItemLoader, TensorLoader

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
    with pytest.raises(TypeError, match="a Stream cannot be indexed"):
        DataBunch.create(Stream(), Stream())
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
    with pytest.raises(TypeError, match=r"a batch must be a pair \(inputs, targets\), not"):
        list(DeviceDataLoader([batch], "cpu"))


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


def test_an_item_must_be_a_tensor():
    with pytest.raises(TypeError, match="one input must be a tensor, not str"):
        bunch().prepare_item("a.png")


def test_repr_tells_the_sizes():
    assert repr(bunch()) == "DataBunch(batches to train on: 4, to validate on: 5, on cpu)"
    data = DataBunch(Epochs(), device="cpu")
    assert repr(data) == "DataBunch(batches to train on: unknown, to validate on: 0, on cpu)"
