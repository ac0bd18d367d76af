"""Accumulated gradients are those of one large batch; clipped ones are as small as asked."""
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import TensorDataset

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks.gradients import AccumulateScheduler, GradientAccumulation, GradientClipping
from minifast.callbacks.mixup import MixUpCallback
from minifast.callbacks.scheduler import ParamScheduler
from minifast.data import DataBunch
from minifast.fakes import fake_learner


def data(bs, n=13):
    gen = torch.Generator().manual_seed(1)
    x = torch.randn(n, 5, generator=gen)
    ds = TensorDataset(x, x[:, :4].argmax(1))
    loader = [(x[i:i + bs], ds.tensors[1][i:i + bs]) for i in range(0, n, bs)]
    return DataBunch(loader, [loader[0]], device="cpu")


def learner(bs, n=13, loss_func=None):
    return fake_learner(data=data(bs, n), loss_func=loss_func or nn.CrossEntropyLoss(),
                        opt_func=partial(optim.SGD, momentum=0.9))


def joined(*batches):
    return tuple(map(torch.cat, zip(*batches, strict=True)))


def weights(learn):
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


class Grads(LearnerCallback):
    """The gradients of each optimizer step, and the update it is."""

    _order = 200

    def on_train_begin(self, n_updates):
        self.grads, self.updates, self.n_updates = [], [], n_updates

    def on_backward_end(self, skip_step, update):
        if not skip_step:
            self.grads.append(torch.cat([p.grad.flatten() for p in self.learn.model.parameters()]))
            self.updates.append(update)


LOSSES = {"mean": nn.CrossEntropyLoss(), "function": F.cross_entropy, "sum": nn.CrossEntropyLoss(reduction="sum"),
          "partial": partial(F.cross_entropy, reduction="sum")}


@pytest.mark.parametrize("loss_func", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("small, n_step, large", [(2, 2, 4), (2, 3, 6), (3, 4, 12), (5, 9, 13), (1, 1, 1)])
def test_equal_to_the_large_batch(loss_func, small, n_step, large):
    # 13 samples: 2s leave a batch of one in a window of its own or of less, 3s and 5s a short batch in a short window
    few, many = learner(large, loss_func=loss_func), learner(small, loss_func=loss_func)
    one, two = Grads(few), Grads(many)
    few.fit(3, 0.01, callbacks=[one])
    many.fit(3, 0.01, callbacks=[two, GradientAccumulation(many, n_step)])
    assert two.n_updates == one.n_updates == len(one.grads) == 3 * -(-13 // large)
    torch.testing.assert_close(torch.stack(two.grads), torch.stack(one.grads), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights(many), weights(few), rtol=1e-5, atol=1e-6)


def test_schedules_count_updates_and_the_recorded_loss_is_the_batch_s_own():
    few, many = learner(4), learner(2)
    lr = lambda n, per_epoch: lambda i: 0.01 * (i + 1)
    few.fit(2, callbacks=[ParamScheduler(few, lr=lr)])
    many.fit(2, callbacks=[ParamScheduler(many, lr=lr), AccumulateScheduler(many, 2)])
    assert list(few.recorder.lrs) == pytest.approx([0.01 * i for i in range(1, 9)])
    assert list(many.recorder.lrs) == pytest.approx([0.01 * i for i in (1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8)])
    raw, counts = torch.tensor(many.recorder.raw_losses), torch.tensor([2.0, 2])
    assert (raw[:2] * counts).sum() / 4 == pytest.approx(few.recorder.raw_losses[0], rel=1e-5)


def test_validation_batches_are_not_counted():
    learn = learner(2)
    learn.data.valid_dl = data(1).train_dl
    grads = Grads(learn)
    learn.fit(2, callbacks=[grads, GradientAccumulation(learn, 4)])
    assert len(grads.grads) == 2 * 2     # 7 batches: windows of 4 and 3


def test_a_pass_cut_short_leaves_its_window_to_the_next_epoch():
    class Stops(Callback):
        def on_batch_end(self, train, num_batch):
            return {"stop_epoch": train and num_batch == 2}

    few, many = learner(4, n=8), learner(2)
    one, two = Grads(few), Grads(many)
    many.fit(2, 1e-121, callbacks=[two, GradientAccumulation(many, 2), Stops()])   # batches 0 1 | 2, 0 | 1 2
    assert two.updates == [0, 1, 2]
    first, second, third = many.data.train_dl.dl[:3]
    few.data = DataBunch([joined(first, second), joined(third, first)], None, device="cpu")
    few.fit(1, 1e-121, callbacks=[one])
    torch.testing.assert_close(two.grads[1], one.grads[1], rtol=1e-5, atol=1e-6)


def test_what_the_end_of_a_run_leaves_open_is_dropped():
    class Stops(Callback):
        def on_batch_end(self, iteration):
            return {"stop_epoch": iteration == 2, "stop_training": iteration == 2, "skip_validate": True}

    learn, plain = learner(2), learner(4)
    learn.fit(1, 1e-121, callbacks=[GradientAccumulation(learn, 2), Stops()])
    plain.data = DataBunch(plain.data.train_dl.dl[:1], None, device="cpu")
    plain.fit(1, 1e-121)
    torch.testing.assert_close(weights(learn), weights(plain), rtol=1e-5, atol=1e-6)
    grads, want = Grads(learn), Grads(plain)
    plain.data = data(13)
    learn.fit(1, 1e-121, callbacks=[grads, GradientAccumulation(learn, 7)])   # and the next run begins with none
    plain.fit(1, 1e-121, callbacks=[want])
    torch.testing.assert_close(grads.grads[0], want.grads[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1), (0, 2), (1, 0, 2)])
@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_a_batch_without_a_backward_pass_does_not_weigh(order, skipped):
    class Skips(Callback):
        def on_backward_begin(self, num_batch):
            return {"skip_bwd": order[num_batch] == skipped}

    learn, plain = learner(5), learner(5)    # batches of 5, 5 and 3
    grads, want = Grads(learn), Grads(plain)
    batches = learn.data.train_dl.dl
    learn.data = DataBunch([batches[i] for i in order], None, device="cpu")
    learn.fit(1, callbacks=[grads, GradientAccumulation(learn, 3), Skips()])
    plain.data = DataBunch([joined(*(batches[i] for i in order if i != skipped))], None, device="cpu")
    plain.fit(1, callbacks=[want])
    torch.testing.assert_close(grads.grads[0], want.grads[0], rtol=1e-5, atol=1e-6)


class OnDevice(nn.Module):
    """A mean over the targets that are not 3, which only the device knows; where there is none it is no number."""

    def forward(self, output, target):
        return (F.cross_entropy(output, target, reduction="none") * (target != 3)).sum() / (target != 3).sum()

    def denominator(self, output, target):
        return (target != 3).sum()


@pytest.mark.parametrize("nothing", [0, 1, 2])
def test_a_batch_in_which_nothing_counts_leaves_the_window_to_the_others(nothing):
    batches = data(4, 12).train_dl.dl
    batches[nothing] = (batches[nothing][0], torch.full((4,), 3))
    others = [batch for i, batch in enumerate(batches) if i != nothing]
    found = []
    for loader, n_step in ((batches, 3), ([joined(*others)], 1)):
        grads = Grads(learn := fake_learner(data=DataBunch(loader, loader[:1], device="cpu"), loss_func=OnDevice()))
        learn.fit(1, callbacks=[GradientAccumulation(learn, n_step), grads])
        found.append(grads.grads)
    assert len(found[0]) == len(found[1]) == 1 and found[0][0].abs().max() > 0
    torch.testing.assert_close(*(grads[0] for grads in found))


def test_a_sum_stays_a_sum_under_mixup():
    added = []
    for n_step in (1, 7):
        learn = learner(2, loss_func=nn.CrossEntropyLoss(reduction="sum"))
        grads = Grads(learn)
        mixup, accumulation = MixUpCallback(learn, seed=0), GradientAccumulation(learn, n_step)
        learn.fit(1, 1e-12, wd=0.0, callbacks=[mixup, accumulation, grads])
        added.append(torch.stack(grads.grads).sum(0))
    torch.testing.assert_close(*added)


def test_clipping_by_norm():
    learn, plain = learner(13), learner(13)
    got, want = Grads(learn), Grads(plain)
    plain.fit(1, callbacks=[want])
    norm = float(want.grads[0].norm())
    learn.clip_grad(norm / 4).fit(1, callbacks=[got])
    torch.testing.assert_close(got.grads[0], want.grads[0] / 4, rtol=1e-4, atol=1e-6)
    other = learner(13).clip_grad(norm * 4)
    same = Grads(other)
    other.fit(1, callbacks=[same])
    assert torch.equal(same.grads[0], want.grads[0])


def test_clipping_by_value_and_none():
    learn, plain = learner(13), learner(13)
    got, want = Grads(learn), Grads(plain)
    plain.fit(1, callbacks=[want])
    learn.clip_grad(0.01, by="value").fit(1, callbacks=[got])
    assert torch.equal(got.grads[0], want.grads[0].clamp(-0.01, 0.01))
    assert learn.clip_grad(0.5).clip_grad(None).callbacks == []


def test_clipping_sees_the_accumulated_gradient():
    learn, plain = learner(2), learner(13)
    got, want = Grads(learn), Grads(plain)
    plain.fit(1, callbacks=[want])
    clip = float(want.grads[0].norm()) / 2
    learn.fit(1, callbacks=[GradientClipping(learn, clip), GradientAccumulation(learn, 99), got])
    torch.testing.assert_close(got.grads[0], want.grads[0] / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make, error, message", [
    (partial(GradientClipping, clip=-1), ValueError, "clip must be a finite number above 0, not -1"),
    (partial(GradientClipping, by="max"), ValueError, "by must be 'norm' or 'value', not 'max'"),
    (partial(GradientAccumulation, n_step=0), ValueError, "n_step must be at least 1, not 0"),
    (partial(GradientAccumulation, n_step=1.5), TypeError, "n_step must be a whole number, not 1.5")])
def test_bad_settings_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(fake_learner())
