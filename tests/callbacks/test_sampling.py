"""Balanced classes and changing batch sizes: the right samples, in an order that seed and pass decide."""
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from minifast.callback import Callback
from minifast.callbacks import BatchSizeSchedule, OneCycleScheduler, OverSamplingCallback, UnderSamplingCallback
from minifast.data import DataBunch
from minifast.learner import Learner

COUNTS = (10, 4, 3)


class Items(Dataset):
    """Not cut by indexing but collated item by item."""

    def __init__(self):
        self.targets = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
        self.x = torch.arange(17.)[:, None]

    def __len__(self):
        return 17

    def __getitem__(self, i):
        return self.x[i], self.targets[i]


def a_learner(items=False, seed=0):
    ds = Items()
    ds = ds if items else TensorDataset(ds.x, ds.targets)
    return Learner(DataBunch.create(ds, bs=3, seed=seed, loss_func=nn.CrossEntropyLoss()), nn.Linear(1, 3), silent=True)


class Seen(Callback):
    def __init__(self):
        self.epochs, self.n_updates = [], 0

    def on_train_begin(self, n_updates):
        self.n_updates = n_updates

    def on_epoch_begin(self):
        self.epochs.append(([], [], []))

    def on_batch_begin(self, last_input, last_target):
        x, y, sizes = self.epochs[-1]
        x += last_input[:, 0].int().tolist()
        y += last_target.tolist()
        sizes.append(len(last_target))


def run(learn, make, epochs=2):
    seen = Seen()
    learn.fit(epochs, 1e-3, callbacks=[make(learn), seen])
    return seen


@pytest.mark.parametrize("items", [False, True], ids=["tensors", "items"])
def test_over_sampling_repeats_every_sample_of_a_small_class_equally_often(items):
    learn = a_learner(items)
    original = learn.data.train_dl
    seen = run(learn, OverSamplingCallback)
    for x, y, _ in seen.epochs:
        assert [y.count(c) for c in range(3)] == [10, 10, 10]
        assert all(y[i] == original.dataset[x[i]][1] for i in range(30))
        assert {x.count(i) for i in range(10)} == {1}
        assert {x.count(i) for i in range(10, 14)} == {2, 3} and {x.count(i) for i in range(14, 17)} == {3, 4}
    assert seen.epochs[0][0] != seen.epochs[1][0]
    assert seen.n_updates == 20 and learn.data.train_dl is original


@pytest.mark.parametrize("items", [False, True], ids=["tensors", "items"])
def test_under_sampling_takes_another_part_of_a_large_class_each_pass(items):
    seen = run(a_learner(items), UnderSamplingCallback, 4)
    for x, y, _ in seen.epochs:
        assert [y.count(c) for c in range(3)] == [3, 3, 3] and len(set(x)) == 9
    assert len({frozenset(x) for x, _, _ in seen.epochs}) > 1
    assert seen.n_updates == 4 * 3


def test_the_order_is_decided_by_seed_and_pass_and_goes_on_in_the_next_fit():
    learn, other = a_learner(), a_learner()
    two = [run(learn, OverSamplingCallback, 1).epochs[0][0] for _ in range(2)]
    torch.manual_seed(9)
    assert [e[0] for e in run(other, OverSamplingCallback).epochs] == two
    assert run(a_learner(seed=1), OverSamplingCallback, 1).epochs[0][0] != two[0]


def test_a_pass_can_begin_in_the_middle():
    learn = a_learner(items=True)
    cb = OverSamplingCallback(learn)
    cb.on_train_begin(1)
    dl = learn.data.train_dl
    whole = [x.tolist() for x, _ in dl]
    dl.load_state_dict({**dl.state_dict(), "passes": 0})
    assert [x.tolist() for x, _ in dl.batches(start=4)] == whole[4:]
    cb.on_train_end()


def test_transforms_of_the_batches_stay():
    learn = a_learner()
    learn.data.train_dl.add_tfm(lambda batch: (batch[0] + 100, batch[1]))
    assert min(run(learn, OverSamplingCallback, 1).epochs[0][0]) == 100


def test_data_without_classes_is_refused_and_nothing_is_replaced():
    data = DataBunch([(torch.ones(2, 1), torch.zeros(2, 1))], loss_func=nn.MSELoss())
    learn = Learner(data, nn.Linear(1, 1), silent=True)
    original = learn.data.train_dl
    with pytest.raises(TypeError, match="use DataBunch.create"):
        learn.fit(1, callbacks=OverSamplingCallback(learn))
    assert learn.data.train_dl is original
    ds = TensorDataset(torch.ones(4, 1), torch.rand(4, 1))
    learn = Learner(DataBunch.create(ds, bs=2), nn.Linear(1, 1), loss_func=nn.MSELoss(), silent=True)
    with pytest.raises(ValueError, match="classes of the 4 training samples"):
        learn.fit(1, callbacks=OverSamplingCallback(learn))
    learn.fit(1, callbacks=OverSamplingCallback(learn, labels=[0, 0, 0, 1]))
    assert learn.recorder.nb_batches == [3]


def test_batch_sizes_follow_the_epochs_and_the_schedule_fits_the_run():
    learn = a_learner()
    cycle = OneCycleScheduler(learn, 0.1)
    seen = Seen()
    learn.fit(4, 1e-3, callbacks=[BatchSizeSchedule(learn, {1: 5, 3: 8}), cycle, seen])
    assert [sizes for _, _, sizes in seen.epochs] == [[3] * 5, [5] * 3, [5] * 3, [8] * 2]
    assert seen.n_updates == 13 == len(learn.recorder.lrs)
    assert learn.recorder.lrs[int(13 * 0.3)] == 0.1     # the peak of a cycle over 13 batches
    assert learn.data.batch_size == 3


def test_a_batch_size_may_be_a_function_and_is_checked_before_epoch_0():
    learn = a_learner()
    assert run(learn, lambda learn: BatchSizeSchedule(learn, lambda epoch: 2 + epoch)).epochs[1][2] == [3] * 5
    for sizes, words in (({0: 3, 5: 0}, "batch size must be at least 1"), ({5: 18}, "more than all 17 samples")):
        with pytest.raises(ValueError, match=words):
            learn.fit(6, callbacks=BatchSizeSchedule(learn, sizes))
        assert learn.data.batch_size == 3
    stream = DataLoader(TensorDataset(torch.ones(4, 1), torch.zeros(4).long()), 2)
    learn = Learner(DataBunch(stream, loss_func=nn.CrossEntropyLoss()), nn.Linear(1, 3), silent=True)
    with pytest.raises(TypeError, match="DataLoader cannot be set"):
        learn.fit(1, callbacks=BatchSizeSchedule(learn, {0: 1}))


def test_the_size_of_an_epoch_that_is_continued():
    learn, other = a_learner(), a_learner()
    cb, continued = BatchSizeSchedule(learn, {1: 5}), BatchSizeSchedule(other, {1: 5})
    cb.on_train_begin(2)
    cb.on_epoch_begin(1)
    continued.on_train_begin(2)
    continued.load_state_dict(cb.state_dict())
    assert other.data.batch_size == 5
    continued.on_train_end()
    assert other.data.batch_size == 3
