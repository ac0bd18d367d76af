"""Ending a run on a loss that is no number, or after a few batches; batch norm that stands still."""
import pytest
import torch
from host_reads import HostReads
from torch import nn

from minifast.callback import Callback
from minifast.callbacks.bn_freeze import BnFreeze
from minifast.callbacks.terminate import StopAfterNBatches, TerminateOnNaNCallback
from minifast.fakes import fake_learner


class Breaks(Callback):
    """Losses of NaN or infinity from a batch on, or of that batch alone."""

    def __init__(self, value, batch, once=False):
        self.value, self.batch, self.once, self.n_valid = value, batch, once, 0

    def on_loss_begin(self, train, iteration, last_output):
        self.n_valid += not train
        if train and (iteration == self.batch if self.once else iteration >= self.batch):
            return {"last_output": last_output * self.value}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch, every, n", [(0, 50, 1), (1, 4, 5), (4, 4, 5), (5, 4, 9), (3, 1, 4), (9, 50, 10)])
def test_noticed_at_most_so_many_batches_late(value, batch, every, n):
    learn, breaks = fake_learner(train_length=50), Breaks(value, batch)
    learn.fit(3, callbacks=[breaks, TerminateOnNaNCallback(every)])
    assert len(learn.recorder.lrs) == n     # 10 is the end of the first epoch
    assert breaks.n_valid == (n == 10)


def test_a_single_one_long_ago_is_noticed_too():
    learn = fake_learner(train_length=50)
    learn.fit(1, callbacks=[Breaks(float("inf"), 2, once=True), TerminateOnNaNCallback(8)])
    assert len(learn.recorder.lrs) == 9


def test_it_says_where(capsys):
    learn = fake_learner(train_length=50, silent=False)
    learn.fit(2, callbacks=[Breaks(float("nan"), 13), TerminateOnNaNCallback(5)])
    assert "ended in epoch 1, batch 5: the training loss is nan" in capsys.readouterr().out


def test_a_good_run_is_left_alone():
    learn = fake_learner()
    learn.fit(2, callbacks=[TerminateOnNaNCallback(1)])
    assert len(learn.recorder.lrs) == 4 and learn.recorder.val_losses[-1] is not None


def test_it_reads_the_loss_at_its_stride_only():
    n = []
    for callbacks in ([], [TerminateOnNaNCallback(20)]):
        with HostReads() as reads:
            fake_learner(train_length=200, valid_length=0, check_finite=False).fit(1, callbacks=callbacks)
        n.append(reads.n)
    assert n[1] - n[0] == 2 + 1     # batches 0 and 20 of 40, and the epoch's end


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_stops_after_n_batches(n):
    learn = fake_learner(train_length=15)
    learn.fit(3, callbacks=[StopAfterNBatches(n)])
    assert len(learn.recorder.lrs) == n
    assert learn.recorder.val_losses == ([None] if n <= 3 else [learn.recorder.val_losses[0], None])


def bn_learner(**kwargs):
    layers = [nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), nn.BatchNorm1d(6), nn.Linear(6, 4)]
    learn = fake_learner(layers=layers, batch_size=5, **kwargs)
    return learn.split(layers[1:])


def test_frozen_batch_norm_stands_still_and_the_rest_moves():
    learn = bn_learner(train_bn=False)
    learn.freeze_to(1)
    frozen, free = learn.model[0][1], learn.model[1]
    learn.fit(2, callbacks=[BnFreeze(learn)])
    assert torch.equal(frozen.running_mean, torch.zeros(6)) and frozen.num_batches_tracked == 0
    assert not torch.equal(free.running_mean, torch.zeros(6)) and free.num_batches_tracked == 4
    learn.fit(1)
    assert frozen.num_batches_tracked == 2


def test_it_survives_the_model_going_back_to_train_mode():
    class Trains(Callback):
        def on_batch_end(self):
            learn.model.train()

    learn = bn_learner(train_bn=False)
    learn.freeze_to(1)
    learn.fit(1, callbacks=[BnFreeze(learn), Trains()])
    assert learn.model[0][1].num_batches_tracked == 0


def test_it_leaves_the_modes_as_they_would_be():
    learn = bn_learner(train_bn=False, valid_length=0)
    learn.freeze_to(1)
    learn.fit(1, callbacks=[BnFreeze(learn)])
    assert all(m.training for m in learn.model.modules())


def test_trainable_batch_norm_trains_on():
    learn = bn_learner()    # train_bn: freeze leaves normalisation layers trainable
    learn.freeze_to(2)
    learn.fit(1, callbacks=[BnFreeze(learn)])
    assert learn.model[0][1].num_batches_tracked == 2


@pytest.mark.parametrize("make", [TerminateOnNaNCallback, StopAfterNBatches])
def test_bad_settings_are_named(make):
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        make(0)
