"""Which samples a pass takes, by the argument sampler=."""
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from pictures import fill
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from minifast.callback import Callback
from minifast.callbacks.checkpoint import Checkpoint
from minifast.callbacks.sampling import OverSamplingCallback
from minifast.data import DataBunch
from minifast.fakes import fake_learner
from minifast.learner import Learner
from minifast.loaders import ItemLoader, TensorLoader
from minifast.samplers import use_sampler
from minifast.tabular import TabularDataBunch
from minifast.vision import ImageDataBunch

N = 1000
Y = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
X = torch.arange(float(N))[:, None]


class Items:
    """A data set that is taken sample by sample."""

    y = Y

    def __len__(self):
        return N

    def __getitem__(self, i):
        return X[i], int(Y[i])


def taken(data):
    return torch.cat([x[:, 0] for x, _ in data.train_dl]).long()


@pytest.mark.parametrize("ds", [TensorDataset(X, Y), Items()], ids=["tensors", "items"])
def test_balanced_classes_are_equally_likely(ds):
    data = DataBunch.create(ds, bs=100, seed=0, sampler="balanced")
    rows = torch.cat([taken(data) for _ in range(3)])
    assert len(rows) == 3 * N
    counts = np.bincount(Y[rows], minlength=3)
    # each is binomial with 3000 draws and probability 1/3; five standard deviations are 129
    assert (abs(counts - N) < 129).all()
    assert set(rows[Y[rows] == 2].tolist()) == set(range(990, 1000))


def test_weights_are_those_of_torchs_sampler():
    weights = torch.linspace(0, 1, N)
    data = DataBunch.from_arrays(X, Y, valid_pct=0, bs=N, seed=0, sampler=weights)
    torch.manual_seed(0)
    ours = torch.cat([taken(data) for _ in range(20)]).float()
    torchs = torch.tensor([i for _ in range(20) for i in WeightedRandomSampler(weights, N)]).float()
    # the mean of a draw is 2/3 of the range, its standard deviation 236; of 20,000 draws five are 8.3
    assert abs(ours.mean() - 2 / 3 * (N - 1)) < 8.4 and abs(torchs.mean() - ours.mean()) < 12
    assert 0 not in ours


def test_the_order_is_a_function_of_seed_and_pass():
    def passes(seed, global_seed):
        torch.manual_seed(global_seed)
        data = DataBunch.from_arrays(X, Y, valid_pct=0, bs=100, seed=seed, sampler="balanced")
        return [taken(data) for _ in range(2)]
    a, b, c = passes(1, 5), passes(1, 6), passes(2, 5)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[0], a[1]) and not torch.equal(a[0], c[0])


def test_a_sampler_of_torch_and_a_function():
    data = DataBunch.from_arrays(X, Y, valid_pct=0, bs=10, seed=0, sampler=SubsetRandomSampler(range(50)))
    before = torch.get_rng_state()
    first, second = taken(data), taken(data)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(first.tolist()) == list(range(50)) and not torch.equal(first, second)
    assert len(data.train_dl) == 5

    def hard(generator):
        return torch.randperm(N, generator=generator)[:30]
    data = DataBunch.create(Items(), bs=10, seed=0, sampler=hard)
    assert len(data.train_dl) == 3 and len(set(taken(data).tolist())) == 30


def test_rows_to_train_on_and_frames_and_pictures(tmp_path):
    df = pd.DataFrame({"x": X[:, 0].numpy(), "k": Y.numpy().astype(str)})
    data = TabularDataBunch.from_df(df, "k", valid_idx=range(0, N, 2), bs=100, seed=0, sampler="balanced")
    counts = Counter(y for _, batch in data.train_dl for y in batch.tolist())
    assert sum(counts.values()) == 500 and max(counts.values()) < 250
    fill(tmp_path, {"many": 40, "few": 2})
    data = ImageDataBunch.from_folder(tmp_path, valid_pct=0.1, seed=1, bs=4, size=8, sampler="balanced")
    counts = Counter(y for _ in range(5) for _, batch in data.train_dl for y in batch.tolist())
    assert min(counts.values()) / sum(counts.values()) > 0.3


def test_a_sample_that_is_drawn_twice_is_changed_in_two_ways():
    loader = ItemLoader(Items(), bs=50, shuffle=True, seed=0)
    loader.seeded = True
    use_sampler(loader, (torch.arange(N) == 3).double())
    x, _ = next(iter(loader))
    assert set(x.x[:, 0].tolist()) == {3.0} and len(set(x.seeds.tolist())) == 50


def test_a_run_goes_on_exactly_and_another_sampler_is_refused(tmp_path):
    class Cut(Callback):
        role = "watching"
        at = None

        def on_batch_begin(self, iteration):
            if iteration == Cut.at:
                raise RuntimeError("cut")

    def learner(sampler, cut_at=None):
        Cut.at = cut_at
        torch.manual_seed(0)
        data = DataBunch.from_arrays(X / N, Y, valid_pct=0, bs=100, seed=0, sampler=sampler, path=tmp_path)
        return Learner(data, torch.nn.Linear(1, 3), silent=True, callbacks=Cut())

    whole = learner("balanced")
    whole.fit(2, 0.1, checkpoint="whole")
    cut = learner("balanced", cut_at=13)
    with pytest.raises(RuntimeError, match="cut"):
        cut.fit(2, 0.1, callbacks=Checkpoint(cut, "cut", every=1))
    again = learner("balanced")
    again.fit(2, 0.1, checkpoint="cut")
    assert torch.equal(again.model.weight, whole.model.weight)
    (tmp_path / "models/cut.ckpt").unlink()
    cut = learner("balanced", cut_at=13)
    with pytest.raises(RuntimeError, match="cut"):
        cut.fit(2, 0.1, callbacks=Checkpoint(cut, "cut", every=1))
    with pytest.raises(ValueError, match="sampler"):
        learner(torch.ones(N)).fit(2, 0.1, checkpoint="cut")


@pytest.mark.parametrize("sampler, error, words", [
    ("even", ValueError, "not 'even'"),
    ([1.0] * 5, ValueError, "a weight for each of the 1000 training samples"),
    ([-1.0] + [1.0] * 999, ValueError, "none below 0"),
    ([0.0] * 1000, ValueError, "not all 0"),
    (RandomSampler, TypeError, "the class RandomSampler"),
    (RandomSampler(X, generator=torch.Generator()), ValueError, "an order of its own"),
    (DistributedSampler(X, num_replicas=2, rank=0), ValueError, "by set_epoch"),
    (lambda gen: torch.tensor([], dtype=torch.long), ValueError, "not one sample"),
])
def test_what_does_not_fit_is_named(sampler, error, words):
    with pytest.raises(error, match=words):
        DataBunch.from_arrays(X, Y, valid_pct=0, bs=10, sampler=sampler)


def test_other_misfits():
    data = DataBunch.from_arrays(X, Y, valid_pct=0, bs=2, sampler=lambda gen: torch.tensor([5, N]))
    with pytest.raises(ValueError, match="gave 2 samples from 5 to 1000"):
        next(iter(data.train_dl))
    with pytest.raises(ValueError, match="2 training samples do not fill one batch of 10"):
        DataBunch.from_arrays(X, Y, valid_pct=0, bs=10, sampler=lambda gen: torch.tensor([5, 6]))
    with pytest.raises(ValueError, match='"balanced" needs the classes'):
        DataBunch.from_arrays(X, X, valid_pct=0, bs=10, sampler="balanced")
    with pytest.raises(TypeError, match="a list has an order of its own"):
        DataBunch([(X, Y)], sampler="balanced")
    learn = fake_learner()
    use_sampler(learn.data.train_dl.dl, "balanced")
    with pytest.raises(ValueError, match="sampler= already"):
        learn.fit(1, callbacks=OverSamplingCallback(learn))
    assert isinstance(learn.data.train_dl.dl, TensorLoader)
