"""Mixup: what is mixed, by which weights, and what the loss makes of it."""
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from minifast.callback import Callback
from minifast.callbacks import MixedTargets, MixUpCallback, MixUpLoss
from minifast.data import DataBunch
from minifast.fakes import fake_data, fake_learner
from minifast.learner import Learner


class Batches(Callback):
    """Keeps the batches as the model gets them, and the losses."""

    _order = 10

    def __init__(self):
        self.seen, self.losses, self.valid = [], [], []

    def on_batch_begin(self, train, last_input, last_target):
        (self.seen if train else self.valid).append((last_input, last_target))

    def on_batch_end(self, train, last_loss):
        if train:
            self.losses.append(last_loss)


def run(learn, cb, epochs=1):
    batches = Batches()
    learn.fit(epochs, 1e-6, callbacks=[cb, batches])
    return batches


def test_inputs_are_mixtures_of_two_samples_of_the_batch_and_the_own_one_weighs_more():
    learn = fake_learner(batch_size=8, train_length=8)
    [own], _ = zip(*learn.data.train_dl.dl.batches(), strict=True)
    learn.data.train_dl.dl.passes = 0   # the pass that the fit is going to make
    [([x], [mixed])] = run(learn, MixUpCallback(learn, seed=1)).seen
    assert isinstance(mixed, MixedTargets) and (mixed.weight >= 0.5).all() and (mixed.weight <= 1).all()
    assert mixed.weight.unique().numel() == 8       # one for each sample
    rest = (x - mixed.weight[:, None] * own) / (1 - mixed.weight)[:, None]
    partner = torch.cdist(rest, own).argmin(1)
    assert torch.allclose(rest, own[partner], atol=1e-2)
    assert sorted(partner.tolist()) == list(range(8))   # each is somebody's partner once
    assert torch.equal(mixed.second[0], mixed.first[0][partner])


def test_the_loss_is_that_of_both_targets_by_their_weights():
    output, first, second = torch.randn(6, 3), torch.randint(3, (6,)), torch.randint(3, (6,))
    weight = torch.rand(6)
    each = [F.cross_entropy(output, y, reduction="none") for y in (first, second)]
    expected = weight * each[0] + (1 - weight) * each[1]
    target = MixedTargets([first], [second], weight)
    for loss_func, reduced in ((nn.CrossEntropyLoss(), expected.mean()), (F.cross_entropy, expected.mean()),
                               (nn.CrossEntropyLoss(reduction="sum"), expected.sum())):
        assert torch.allclose(MixUpLoss(loss_func)(output, target), reduced)
    plain = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert torch.equal(MixUpLoss(plain)(output, first), plain(output, first))
    assert plain.reduction == "mean"


def test_validation_is_never_mixed():
    learn = fake_learner()
    batches = run(learn, MixUpCallback(learn))
    assert batches.valid and all(torch.is_tensor(y) for _, y in batches.valid)


def test_stack_x_gives_the_model_both_inputs_and_the_weights():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 4)

        def forward(self, x, other=None, weight=None):
            return self.linear(x if other is None else weight[:, None] * x + (1 - weight)[:, None] * other)

    losses = []
    for stack_x in (False, True):
        torch.manual_seed(0)
        learn = Learner(fake_data(), TwoInputs(), silent=True)
        losses.append(run(learn, MixUpCallback(learn, stack_x=stack_x, seed=3)).losses)
    assert torch.allclose(torch.stack(losses[0]), torch.stack(losses[1]), atol=1e-6)


def test_floating_targets_are_mixed_themselves():
    x = torch.randn(4, 2)
    learn = Learner(DataBunch([(x, x.clone())]), nn.Linear(2, 2), loss_func=nn.MSELoss(), silent=True)
    [([mixed], [target])] = run(learn, MixUpCallback(learn, stack_y=False)).seen
    assert torch.equal(mixed, target) and not torch.equal(mixed, x)
    assert isinstance(learn.loss_func, nn.MSELoss)


@pytest.mark.parametrize("kwargs, words", [(dict(stack_y=False), "classes keep stack_y=True")])
def test_what_cannot_be_mixed_is_named(kwargs, words):
    learn = fake_learner()
    with pytest.raises(TypeError, match=words):
        run(learn, MixUpCallback(learn, **kwargs))
    learn = Learner(DataBunch([(torch.ones(2, 3, dtype=torch.long), torch.ones(2))]), nn.Embedding(4, 1),
                    loss_func=nn.MSELoss(), silent=True)
    with pytest.raises(TypeError, match="inputs of torch.int64 cannot be mixed"):
        run(learn, MixUpCallback(learn))
    with pytest.raises(ValueError, match="alpha"):
        MixUpCallback(learn, alpha=-1)


def test_a_loss_without_reduction_is_refused_before_epoch_0_and_stays():
    learn = fake_learner(loss_func=lambda output, target: F.cross_entropy(output, target))
    own = learn.loss_func
    with pytest.raises(TypeError, match="one loss for each sample"):
        run(learn, MixUpCallback(learn))
    assert learn.loss_func is own and not learn.recorder.lrs


def test_weights_follow_beta_and_depend_on_seed_and_batch_alone():
    learn = fake_learner()
    cb = MixUpCallback(learn, alpha=0.4, seed=5)
    drawn, order = cb._draw(20000, torch.device("cpu"))
    # of Beta(a, a), the larger of w and 1 - w: E[|2w - 1|] by numpy's own Beta with other numbers
    w = np.random.default_rng(0).beta(0.4, 0.4, 20000)
    assert float(drawn.mean()) == pytest.approx(np.maximum(w, 1 - w).mean(), abs=5e-3)
    assert sorted(order.tolist()) == list(range(20000))
    torch.rand(3), np.random.rand(3)
    other = MixUpCallback(fake_learner(), alpha=0.4, seed=5)
    assert torch.equal(other._draw(20000, torch.device("cpu"))[0], drawn)
    assert not torch.equal(other._draw(20000, torch.device("cpu"))[0], drawn)


def test_learn_mixup_chains_replaces_and_ends():
    learn = fake_learner()
    assert learn.mixup() is learn
    learn.mixup(0.2)
    assert [cb.alpha for cb in learn.callbacks] == [0.2]
    learn.fit(1)
    assert learn.callbacks[0].n_mixed == 2
    assert learn.mixup(0).callbacks == []
