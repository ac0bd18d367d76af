"""Averages of the weights: the right ones, shown and taken away at the right time."""
from functools import partial

import pytest
import torch
from torch import nn, optim
from torch.optim.swa_utils import update_bn

from minifast.callback import Callback
from minifast.callbacks import EMA, SWA
from minifast.callbacks.save_model import SaveModelCallback
from minifast.fakes import fake_learner


class Trace(Callback):
    """The first weight after each optimizer step, in each validation batch, and at the end of each epoch."""

    _order = 2000

    def __init__(self, learn):
        self.weight = lambda: learn.model[0].weight.detach().clone()
        self.steps, self.valid, self.ends = [], [], []

    def on_step_end(self, skip_step):
        self.steps += [] if skip_step else [self.weight()]

    def on_batch_end(self, train):
        self.valid += [] if train else [self.weight()]

    def on_epoch_end(self):
        self.ends.append(self.weight())


def a_learner(**kwargs):
    torch.manual_seed(0)
    layers = [nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)]
    return fake_learner(layers=layers, opt_func=partial(optim.SGD, momentum=0.9), **kwargs)


def test_ema_is_the_formula_and_validation_sees_it_while_training_goes_on_from_its_own():
    plain, learn = a_learner(), a_learner()
    alone, trace = Trace(plain), Trace(learn)
    average = learn.model[0].weight.detach().clone()
    plain.fit(3, 0.1, callbacks=alone)
    learn.fit(3, 0.1, callbacks=[EMA(learn, decay=0.3), trace])
    assert all(map(torch.equal, alone.steps, trace.steps))      # training is the same, bit for bit
    averages = []
    for n, weight in enumerate(trace.steps):
        d = min(0.3, (1 + n) / (10 + n))
        average = d * average + (1 - d) * weight
        averages.append(average)
    assert torch.allclose(trace.valid[0], averages[1], atol=1e-6)   # two batches an epoch
    assert torch.allclose(trace.valid[-1], averages[-1], atol=1e-6)
    assert torch.equal(trace.ends[0], trace.steps[1])       # back before the epoch has ended
    assert torch.equal(learn.model[0].weight, learn.ema.average[0]) and torch.equal(trace.ends[-1], trace.valid[-1])
    assert plain.recorder.val_losses[-1] != learn.recorder.val_losses[-1]
    assert learn.validate()[0] == learn.recorder.val_losses[-1]     # the model left is the model measured


def test_an_error_leaves_the_weights_that_were_trained():
    class Fails(Callback):
        def on_batch_end(self, train, epoch):
            if not train and epoch == 1:
                raise KeyboardInterrupt

    learn = a_learner()
    trace = Trace(learn)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, 0.1, callbacks=[EMA(learn), trace, Fails()])
    assert torch.equal(learn.model[0].weight, trace.steps[-1])
    assert int(learn.model[1].num_batches_tracked) == 4


def test_the_best_model_saved_is_the_average_that_was_measured(tmp_path):
    learn = a_learner(path=tmp_path)
    learn.fit(4, 0.1, callbacks=[EMA(learn, decay=0.5), SaveModelCallback(learn)])
    assert learn.validate()[0] == min(learn.recorder.val_losses)


def test_ema_averages_running_statistics_and_counts_no_skipped_step():
    class Skip(Callback):
        def on_backward_end(self, iteration):
            return {"skip_step": iteration % 2 == 0}

    learn = a_learner()
    learn.fit(2, 0.1, callbacks=[Skip(), EMA(learn)])
    assert learn.ema.n_averaged == 2
    assert torch.equal(learn.model[1].running_mean, learn.ema.average[6])    # after six parameters
    assert int(learn.model[1].num_batches_tracked) == 4


def test_swa_is_the_mean_of_the_epochs_ends_with_statistics_of_its_own():
    plain, learn = a_learner(), a_learner()
    ends = Trace(plain)
    plain.fit(4, 0.1, callbacks=ends)
    learn.fit(4, 0.1, callbacks=SWA(learn, start=0.5))
    assert learn.swa.n_averaged == 2
    assert torch.allclose(learn.model[0].weight, (ends.steps[5] + ends.steps[7]) / 2, atol=1e-6)
    assert learn.validate()[0] == learn.recorder.val_losses[-1]
    assert learn.recorder.val_losses[:2] == plain.recorder.val_losses[:2]
    assert (learn.recorder.losses == plain.recorder.losses).all()   # its passes over the data change nothing
    mean = learn.model[1].running_mean.clone()
    learn.data.train_dl.dl.passes = 3   # the pass that would have come first after the last epoch's
    update_bn([x for x, _ in learn.data.train_dl], learn.model)
    assert torch.allclose(learn.model[1].running_mean, mean, atol=1e-5)
    assert learn.model[1].momentum == 0.1 and not learn.model.training


def test_swa_without_validation_data():
    learn = a_learner(valid_length=0)
    trace = Trace(learn)
    learn.fit(4, 0.1, callbacks=[SWA(learn, start=0.5), trace])
    assert torch.allclose(learn.model[0].weight, (trace.steps[5] + trace.steps[7]) / 2, atol=1e-6)


@pytest.mark.parametrize("kind, value, words", [(EMA, 1.0, "decay must be above 0"), (EMA, 0, "decay must be above 0"),
                                                (SWA, 1, "start is a part of the run")])
def test_bad_arguments(kind, value, words):
    with pytest.raises(ValueError, match=words):
        kind(fake_learner(), value)
