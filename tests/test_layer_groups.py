"""Layer groups: the learner's cut, an optimizer's own groups, and changes between fits and in the middle of one."""
from functools import partial

import pytest
import torch
from torch import nn, optim

from minifast.callback import LearnerCallback
from minifast.callbacks import StopAfterNBatches
from minifast.fakes import fake_learner
from minifast.layers import split_model
from minifast.learner import Learner
from minifast.optimizer import OptimWrapper


def two(kind=optim.AdamW, first=None, last=None, **options):
    """A learner of two layers with an optimizer of one's own, a group for each."""
    learn = fake_learner(layer_group_count=2)
    learn.layer_groups = None
    groups = [{"params": list(learn.model[0].parameters()), **(first or {})},
              {"params": list(learn.model[1].parameters()), **(last or {})}]
    learn.opt = OptimWrapper(kind(groups, **{"lr": 1e-2, **options}))
    return learn


# ---- an optimizer of one's own

def test_own_groups_are_the_layer_groups_and_keep_their_ratios():
    learn = two(first={"lr": 1e-4})
    assert len(learn.layer_groups) == 2
    learn.fit(1)
    assert learn.opt.values("lr") == [1e-4, 1e-2]       # none is named: those that they were given
    learn.fit(1, 1e-3)
    assert learn.opt.values("lr") == pytest.approx([1e-5, 1e-3])
    learn.fit(1, [1.0, 1e-3])
    assert learn.opt.values("lr") == [1.0, 1e-3]
    learn.fit_one_cycle(1, 1e-1)
    assert learn.one_cycle_scheduler.lr_max == pytest.approx([1e-3, 1e-1])
    with pytest.raises(ValueError, match="has 3 values for 2 layer groups"):
        learn.fit(1, [1, 2, 3])


@pytest.mark.parametrize("kind, decoupled", [(optim.SGD, False), (optim.Adam, False), (optim.AdamW, True)])
def test_own_weight_decay_stays_in_the_optimizers_own_way(kind, decoupled):
    learn = two(kind, {"weight_decay": 0.5}, {"weight_decay": 0.0})
    learn.fit(1)
    assert learn.opt.values("wd") == [0.5, 0.0] and [g["weight_decay"] for g in learn.opt.opt.param_groups] == [0.5, 0]
    assert learn.opt.opt.param_groups[0].get("decoupled_weight_decay", False) is decoupled
    learn.fit(1, wd=0.1)
    assert learn.opt.values("wd") == [0.1, 0.1]
    learn.fit(1)
    assert learn.opt.values("wd") == [0.5, 0.0]


def test_an_opt_func_with_groups_of_its_own():
    def layerwise(model, params, lr):
        return optim.SGD([{"params": model[0].parameters(), "lr_scale": 0.1, "weight_decay": 0.3},
                          {"params": model[1].parameters(), "lr_scale": 1.0}], lr=lr)

    learn = fake_learner(layer_group_count=2)
    learn = Learner(learn.data, learn.model, partial(layerwise, learn.model), silent=True, path=learn.path)
    learn.fit(1, 0.5)
    assert learn.opt.values("lr") == pytest.approx([0.05, 0.5]) and learn.opt.values("wd") == [0.3, 0]
    with pytest.raises(ValueError, match="groups are the layer groups"):
        learn.split([learn.model[1]])


def test_a_decay_in_opt_func_comes_before_the_learners_and_is_refused_beside_it():
    learn = fake_learner(opt_func=partial(optim.SGD, momentum=0.9, weight_decay=5e-4))
    learn.fit(1)
    assert learn.opt.values("wd") == [5e-4] and learn.opt.opt.param_groups[0]["weight_decay"] == 5e-4
    with pytest.raises(ValueError, match="wd=0.3, and opt_func gives a weight_decay too"):
        fake_learner(opt_func=partial(optim.SGD, weight_decay=5e-4), wd=0.3).fit(1)


def test_what_an_optimizer_leaves_out_is_named_when_it_is_given():
    learn = fake_learner(layer_group_count=2)
    with pytest.raises(ValueError, match=r"does not hold 2 trainable parameters of the model \(1.weight, 1.bias\)"):
        learn.opt = OptimWrapper(optim.SGD(learn.model[0].parameters(), lr=1))
    learn.model[1].requires_grad_(False)
    learn.opt = OptimWrapper(optim.SGD(learn.model[0].parameters(), lr=1))
    learn.bn_wd = False
    with pytest.raises(ValueError, match="bn_wd=False"):
        learn.opt = OptimWrapper(optim.SGD(learn.model[0].parameters(), lr=1))


def test_freezing_keeps_an_optimizer_of_ones_own():
    learn = two(optim.SGD)
    opt = learn.opt
    learn.freeze()
    before = [p.detach().clone() for p in learn.model.parameters()]
    learn.fit(1, 0.5)
    same = [torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True)]
    assert learn.opt is opt and same == [True, True, False, False]


# ---- one layer group that is a part

def test_one_layer_group_that_leaves_parameters_out_is_refused():
    learn = fake_learner(layer_group_count=2)
    learn.layer_groups = [learn.model[0]]
    with pytest.raises(ValueError, match=r"layer groups leave out .*2 parameters \(1.weight, 1.bias\)"):
        learn.fit(1)
    learn.model[1].requires_grad_(False)
    before = learn.model[0].weight.detach().clone()
    learn.fit(1, 0.5)
    assert not torch.equal(before, learn.model[0].weight)


# ---- cutting

class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        self.token = nn.Parameter(torch.zeros(100))


def test_parameters_of_the_root_are_in_the_first_group_and_can_be_listed():
    model = Vit()
    assert [[p.numel() for p in g.parameters()] for g in split_model(model, [model.head])] == [[100, 4, 2], [4, 2]]
    by_weight = split_model(model, model.patch.weight)
    assert [[p.numel() for p in g.parameters()] for g in by_weight] == [[100], [4, 2, 4, 2]]
    groups = split_model(model, [[model.patch], [model.token, model.head]])
    assert [[p.numel() for p in g.parameters()] for g in groups] == [[4, 2], [100, 4, 2]]
    assert [[p.numel() for p in g.parameters()] for g in split_model(model, [
        model.patch.parameters(), [model.token, *model.head.parameters()]])] == [[4, 2], [100, 4, 2]]


@pytest.mark.parametrize("splits", [lambda m: [[m.patch, torch.zeros(1000)], [m.head]], lambda m: torch.zeros(1000),
                                    lambda m: [nn.Parameter(torch.zeros(1000))], lambda m: [m.head.bias]])
def test_no_error_shows_a_tensors_numbers(splits):
    model = Vit()
    with pytest.raises((TypeError, ValueError)) as caught:
        split_model(model, splits(model))
    assert len(str(caught.value)) < 250 and "0., 0." not in str(caught.value)


# ---- in the middle of a fit

class At(LearnerCallback):
    """Does something at the beginning of the second epoch."""

    def __init__(self, learn, act):
        super().__init__(learn)
        self.act = act

    def on_epoch_begin(self, epoch):
        if epoch == 1:
            self.act(self.learn)


def test_split_and_freeze_in_the_middle_of_a_cycle():
    learn = fake_learner(layer_group_count=2, train_length=50)
    learn.layer_groups = None
    before = []

    def act(learn):
        learn.split([learn.model[1]]).freeze()
        before.append([p.detach().clone() for p in learn.model.parameters()])

    learn.fit_one_cycle(2, 0.1, callbacks=[At(learn, act)])
    assert [torch.equal(a, b) for a, b in zip(before[0], learn.model.parameters(), strict=True)] == [
        True, True, False, False]
    assert len(learn.layer_groups) == 2 and max(learn.recorder.lrs) == learn.recorder.lrs[6]     # of 20


def test_a_split_that_the_run_cannot_go_on_with_is_refused_there():
    learn = fake_learner(layer_group_count=2)
    with pytest.raises(ValueError, match="lr differs between the 2 layer groups of the run in progress.*there are 1"):
        learn.fit(2, [0.1, 0.2], callbacks=[At(learn, lambda learn: learn.split([learn.model[0]]))])
    assert len(learn.layer_groups) == 2


def test_moments_of_what_stays_are_kept():
    learn, seen = fake_learner(layer_group_count=2, train_length=50), []

    def act(learn):
        old = learn.opt
        learn.freeze()
        seen.append(all(learn.opt.opt.state[p] is old.opt.state[p] for p in learn.model[1].parameters()))

    learn.fit(2, 0.1, callbacks=[At(learn, act)])
    assert seen == [True] and learn.opt.values("lr") == [0.1, 0.1]


@pytest.mark.parametrize("change", [lambda learn: setattr(learn, "model", nn.Linear(5, 4)),
                                    lambda learn: learn.model.append(nn.Linear(4, 4)),
                                    lambda learn: setattr(learn.model, "0", nn.Linear(5, 4))])
def test_a_model_that_changes_in_a_fit_is_refused_there_or_trained(change):
    learn = fake_learner()
    learn.model = nn.Sequential(nn.Linear(5, 4))
    with pytest.raises(ValueError, match="does not hold 2 trainable parameters.*set learn.opt = None"):
        learn.fit(2, 0.1, callbacks=[At(learn, change)])
    learn = fake_learner()
    learn.model = nn.Sequential(nn.Linear(5, 4))

    def act(learn):
        change(learn)
        learn.opt = None
        learn.new = list(learn.model.parameters())[-1].detach().clone()

    learn.fit(2, 0.1, callbacks=[At(learn, act)])
    assert not torch.equal(learn.new, list(learn.model.parameters())[-1])
    assert learn.opt.lr == 0.1


# ---- lazy modules, and losses without a gradient

def lazy():
    learn = fake_learner()
    return Learner(learn.data, nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(4)),
                   silent=True, path=learn.path)


@pytest.mark.parametrize("use", [lambda learn: learn.fit(1), lambda learn: learn.lr_find(num_it=2),
                                 lambda learn: learn.summary(), lambda learn: learn.check(),
                                 lambda learn: learn.validate(), lambda learn: learn.opt])
def test_a_first_batch_settles_lazy_layers(use):
    learn = lazy()
    assert "unknown parameters" in repr(learn)
    use(learn)
    assert learn.model[0].weight.shape == (8, 5)


def test_a_range_test_of_a_lazy_model_leaves_no_trace():
    runs = []
    for find in (False, True):
        learn = lazy()
        torch.manual_seed(3)
        if find:
            learn.lr_find(num_it=3)
        learn.fit(1, 0.1)
        runs.append(learn.recorder.raw_losses.tolist())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("loss_func, says", [
    (lambda out, y: nn.functional.cross_entropy(out, y).detach(), "cut off from the model's output"),
    (lambda out, y: (out.argmax(1) != y).sum(), "whole numbers .int64"),
    (lambda out, y: (out.argmax(1) != y).any(), "whole numbers .bool")])
def test_a_loss_without_a_gradient_is_named(loss_func, says):
    learn = fake_learner()
    learn.loss_func = loss_func
    with pytest.raises(RuntimeError, match=f"the loss has no gradient: it is .*{says}"):
        learn.fit(1, callbacks=[StopAfterNBatches(1)])


def test_an_output_without_a_gradient_is_the_models_fault():
    class Detached(nn.Linear):
        def forward(self, x): return super().forward(x).detach()

    learn = fake_learner()
    learn.model = Detached(5, 4)
    with pytest.raises(RuntimeError, match="the model's output has no gradient"):
        learn.fit(1)
