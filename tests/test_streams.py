import copy
import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from minifast.callback import Callback
from minifast.callbacks import Checkpoint
from minifast.data import DataBunch
from minifast.fakes import fake_learner
from minifast.learner import Learner
from minifast.loaders import TensorLoader
from minifast.streams import StreamLoader


def numbers(n=None):
    for i in range(n) if n else itertools.count():
        yield torch.full((2, 1), float(i)), torch.zeros(2).long()


def seven():
    return numbers(7)


class Endless:
    def __iter__(self):
        return numbers()


def seen(batches):
    return [int(x[0, 0]) for x, _ in batches]


@pytest.mark.parametrize("source", [numbers, Endless(), lambda: numbers()])
def test_a_pass_goes_on_where_the_last_one_stopped(source):
    dl = StreamLoader(source, 3)
    assert [seen(dl) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] and len(dl) == 3
    assert seen(dl.batches(start=2)) == [11]


@pytest.mark.parametrize("source", [seven, list(numbers(7))])
def test_what_ends_begins_again(source):
    dl = StreamLoader(source, 5)
    assert seen(dl) + seen(dl) + seen(dl) == [*range(7), *range(7), 0]


def test_a_pass_that_is_broken_off_has_taken_what_it_gave():
    dl = StreamLoader(numbers, 5)
    next(iter(dl))
    assert seen(dl) == [1, 2, 3, 4, 5]


def shuffled():
    """Draws from all three global generators, keeps a buffer, and never ends."""
    buffer = list(range(5))
    for i in itertools.count(5):
        k = int(torch.randint(5, ()))
        yield torch.tensor([[buffer[k], np.random.randint(100), random.randrange(100)]]).float(), torch.zeros(1).long()
        buffer[k] = i


@pytest.mark.parametrize("state_after", [0, 1, 2])
def test_state_goes_on_exactly(state_after):
    dl, other = StreamLoader(shuffled, 3, seed=1), StreamLoader(shuffled, 3, seed=2)
    for _ in range(state_after):
        list(dl)
    state = dl.state_dict()
    torch.rand(3), np.random.rand(), random.random()    # what else is drawn does not matter
    following = [x.tolist() for _ in range(2) for x, _ in dl]
    other.load_state_dict(state)
    assert [x.tolist() for _ in range(2) for x, _ in other] == following
    dl.load_state_dict(state)
    copied = copy.deepcopy(dl)
    assert [x.tolist() for _ in range(2) for x, _ in copied] == following


def test_a_position_that_has_not_moved_keeps_the_source_open():
    opened = []

    def source():
        opened.append(1)
        return numbers()
    dl = StreamLoader(source, 3)
    list(dl)
    dl.load_state_dict(dl.state_dict())
    assert seen(dl) == [3, 4, 5] and len(opened) == 1


def test_a_source_with_an_order_of_its_own_goes_on():
    x = torch.arange(20.0)[:, None]
    gen = torch.Generator().manual_seed(0)
    for make in (lambda: TensorLoader(x, x, 4, shuffle=True, seed=3), lambda: DataLoader(TensorDataset(x, x), 4, True),
                 lambda: DataLoader(TensorDataset(x, x), 4, True, generator=gen)):
        dl = StreamLoader(make(), 3)
        list(dl), list(dl)
        state, following = dl.state_dict(), [seen(dl) for _ in range(2)]
        dl.load_state_dict(state)
        assert [seen(dl) for _ in range(2)] == following
        gen.manual_seed(0)


def test_a_stream_leaves_the_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(StreamLoader(shuffled, 3, seed=0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_bad_streams_are_named():
    with pytest.raises(TypeError, match="a generator is used up after one pass: .* the generator function itself"):
        StreamLoader(numbers(), 3)
    with pytest.raises(ValueError, match="n_batches must be at least 1, not 0"):
        StreamLoader(numbers, 0)
    with pytest.raises(ValueError, match="the stream gave not one batch when it began for the 1. time"):
        list(StreamLoader([], 3))
    batches = list(numbers(3))
    dl = StreamLoader(batches, 2)
    list(dl), dl.state_dict()
    state = {**dl.state_dict(), "taken": 3}
    del batches[1:]
    with pytest.raises(ValueError, match="the stream ended after 1 batches, and 3 had been taken from it"):
        dl.load_state_dict(state)
        list(dl)


def data(**kwargs):
    return DataBunch(shuffled, **{"n_batches": 5, "loss_func": nn.CrossEntropyLoss(), "device": "cpu", **kwargs})


def learner(path, bunch=None):
    torch.manual_seed(0)
    return Learner(bunch or data(), nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 2)), silent=True,
                   path=path)


class See(Callback):
    role = "watching"

    def __init__(self, cut=None):
        self.cut, self.batches = cut, []

    def on_batch_begin(self, last_input, train):
        if train:
            self.batches.append(last_input.tolist())
        if len(self.batches) == self.cut:
            raise KeyboardInterrupt

    def state_dict(self): return {}


def test_a_run_over_a_stream_goes_on_exactly(tmp_path):
    whole, see = learner(tmp_path / "whole"), See()
    whole.fit_one_cycle(3, 1e-2, callbacks=[see])
    assert whole.recorder.nb_batches == [5, 5, 5]
    assert len(see.batches) == 15 and len({str(b) for b in see.batches}) == 15
    cut = learner(tmp_path / "cut")
    first = See(cut=9)
    with pytest.raises(KeyboardInterrupt):
        cut.fit_one_cycle(3, 1e-2, callbacks=[first, Checkpoint(cut, "run", every=1)])
    resumed, second = learner(tmp_path / "cut"), See()
    torch.manual_seed(99)
    resumed.fit_one_cycle(3, 1e-2, callbacks=[second, Checkpoint(resumed, "run", every=1)])
    assert second.batches == see.batches[8:]
    assert all(map(torch.equal, resumed.model.parameters(), whole.model.parameters()))


def test_lr_find_and_looks_leave_the_position(tmp_path):
    learn, see, plain = learner(tmp_path), See(), See()
    learn.fit(1, 1e-2)
    twin = copy.deepcopy(learn)
    learn.lr_find(num_it=8), learn.data.one_batch(), learn.summary(), learn.validate(learn.data.train_dl)
    learn.fit(1, 1e-2, callbacks=[see])
    twin.fit(1, 1e-2, callbacks=[plain])
    assert see.batches == plain.batches


class Items(IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        for i in itertools.count(info.id if info else 0, info.num_workers if info else 1):
            yield torch.full((1,), float(i)), 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_iterable_data_set_with_workers(num_workers):
    bunch = DataBunch.create(Items(), bs=4, num_workers=num_workers, n_batches=3, device="cpu")
    passes = [[x[:, 0].tolist() for x, _ in bunch.train_dl] for _ in range(2)]
    every = sorted(sum(sum(passes, []), []))
    assert every == list(range(24)) and len(passes[0]) == 3 and bunch.batch_size == 4 and len(bunch.train_dl) == 3


def test_a_stream_without_a_length_says_what_to_give():
    learn = fake_learner(data=DataBunch(Endless(), loss_func=nn.CrossEntropyLoss(), device="cpu"))
    with pytest.raises(TypeError, match=r"Endless has no length.*DataBunch\(..., n_batches=\)"):
        learn.fit(1)
