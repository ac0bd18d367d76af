"""What a fit reads from the device: as much for a long epoch as for a short one."""
from functools import partial

from host_reads import HostReads
from torch import nn, tensor

from minifast.callbacks import GradientAccumulation
from minifast.confusion import FBeta
from minifast.fakes import fake_learner
from minifast.losses import CrossEntropyFlat
from minifast.metrics import accuracy, error_rate, rmse, top_k_accuracy
from minifast.scores import Perplexity


def reads(fit, batches, **kwargs):
    learn = fake_learner(train_length=5 * batches, valid_length=5 * batches, **kwargs)
    with HostReads() as counted:
        fit(learn)
    assert len(learn.recorder.lrs) == 2 * batches
    return counted.n


def test_the_number_does_not_grow_with_the_number_of_batches():
    def fit(learn): learn.fit(2, 1e-3)
    def one_cycle(learn): learn.fit_one_cycle(2, 1e-3)

    for run in (fit, one_cycle):
        for metrics in ([], [accuracy]):
            assert reads(run, 10, metrics=metrics) == reads(run, 300, metrics=metrics) < 20


def test_a_read_in_a_batch_is_counted():
    def fit(learn):
        loss_func = learn.loss_func
        learn.loss_func = lambda output, target: loss_func(output, target) * (1 + 0 * output.detach().sum().item())
        learn.fit(2, 1e-3)

    assert reads(fit, 20) >= reads(fit, 10) + 20


def test_metrics_over_the_whole_set_read_once_too():
    def fit(learn): learn.fit(2, 1e-3)

    def score(output, target): return rmse(output[:, 0], target.float())
    assert reads(fit, 10, metrics=[score]) == reads(fit, 100, metrics=[score])


def test_weights_of_losses_and_metrics_with_a_state_are_not_read_in_a_batch():
    class OnDevice(CrossEntropyFlat):
        def denominator(self, output, target):
            return (target != -100).sum()

    def fit(learn): learn.fit(2, 1e-3, callbacks=[GradientAccumulation(learn, 3)])

    for loss_func in (CrossEntropyFlat(weight=tensor([1.0, 2.0, 3.0, 4.0])), OnDevice(), nn.CrossEntropyLoss()):
        metrics = [FBeta("macro"), Perplexity(), {"k": partial(top_k_accuracy, k=2)}, error_rate]
        few, many = (reads(fit, n, metrics=metrics, loss_func=loss_func) for n in (10, 100))
        assert few == many < 40
