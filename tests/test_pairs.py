"""Each pair of callbacks trains together, leaves the learner as it was, and each of the two keeps what it promises."""
from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from callback_set import CLASSES, a_learner, furniture, make

from minifast.callback import LearnerCallback
from minifast.callbacks import OverSamplingCallback
from minifast.callbacks.lr_finder import LRFinder

TOGETHER = [c for c in CLASSES if c is not LRFinder]    # a range test is not a fit
SHORTENS = {"StopAfterNBatches"}
RESIZES = {"OverSamplingCallback", "UnderSamplingCallback", "BatchSizeSchedule"}
SETS_LR = {"OneCycleScheduler", "GeneralScheduler", "ParamScheduler", "TorchScheduler", "ReduceLROnPlateauCallback"}
N_BATCHES = 3


class Updates(LearnerCallback):
    """Counts the optimizer's steps, and sees the weights as each one leaves them."""

    _order = 2000

    def on_train_begin(self):
        self.n = 0

    def on_step_end(self, skip_step):
        self.n += not skip_step


def ema(cb, learn, updates, other):
    assert cb.n_averaged == updates
    if other not in ("SaveModelCallback", "SWA"):   # which put weights of their own in place
        for average, p in zip(cb.average, learn.model.parameters(), strict=False):
            assert torch.equal(average, p)


def swa(cb, learn, updates, other):
    assert cb.n_averaged == (0 if other in SHORTENS else 1)     # of two epochs from 0.75 on: the last


def one_cycle(cb, learn, updates, other):
    if other in SETS_LR | SHORTENS | RESIZES | {"MixedPrecision"}:  # the last skips steps that overflow
        return
    assert np.allclose(learn.recorder.lrs, cb.preview(2)["lr"], rtol=0, atol=0)
    assert np.allclose(learn.recorder.moms, cb.preview(2)["mom"], rtol=0, atol=0)


def activation_stats(cb, learn, updates, other):
    assert cb.stats.shape == (2, len(cb.modules), len(learn.recorder.lrs))
    assert cb.stats.isfinite().all()


def timer(cb, learn, updates, other):
    assert len(cb.times) == len(learn.recorder.times)
    assert all(t >= 0 for epoch in cb.times for t in epoch.values())


def csv_logger(cb, learn, updates, other):
    lines = cb.path.read_text().splitlines()
    assert lines[0].split(",")[:3] == learn.recorder.names[:3] and len(lines) == 1 + len(learn.recorder.train_losses)


def sampled(cb, learn, updates, other):
    if other in RESIZES | SHORTENS:
        return
    counts = learn.data.train_ds.tensors[1].unique(return_counts=True)[1].tolist()
    length = len(counts) * (max if isinstance(cb, OverSamplingCallback) else min)(counts)
    assert learn.recorder.nb_batches == [length // 4] * 2


def batch_size(cb, learn, updates, other):
    if other not in RESIZES | SHORTENS:
        assert learn.recorder.nb_batches == [N_BATCHES * 2, N_BATCHES]


INVARIANTS = {
    "EMA": ema, "SWA": swa, "OneCycleScheduler": one_cycle, "ActivationStats": activation_stats, "Timer": timer,
    "CSVLogger": csv_logger, "OverSamplingCallback": sampled, "UnderSamplingCallback": sampled,
    "BatchSizeSchedule": batch_size,
}


@pytest.fixture(autouse=True)
def calm():
    before = torch.get_num_threads()
    torch.set_num_threads(1)    # the tensors are tiny
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="minifast")  # odd pairs are told so
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("first", TOGETHER, ids=lambda c: c.__name__)
def test_pairs_with(first, tmp_path):
    for i, second in enumerate(TOGETHER[TOGETHER.index(first) + 1:]):
        learn = a_learner(tmp_path / str(i), N_BATCHES)
        before, pair = furniture(learn), [make(c, learn) for c in (first, second)]
        count = Updates(learn)
        where = f"with {second.__name__}"
        try:
            learn.fit(2, 0.01, callbacks=[*pair, count])
        except Exception as e:
            e.add_note(where)
            raise
        assert furniture(learn) == before, where
        assert all(p.isfinite().all() for p in learn.model.parameters()), where
        r = learn.recorder
        assert len(r.lrs) == len(r.moms) == len(r.losses) == len(r.raw_losses) == sum(r.nb_batches), where
        assert all(len(r.names) == 3 + len(row) + 1 for row in r.metrics), where
        assert np.isfinite(r.train_losses).all(), where
        for cb, other in zip(pair, reversed(pair), strict=True):
            INVARIANTS.get(type(cb).__name__, lambda *_: None)(cb, learn, count.n, type(other).__name__)
