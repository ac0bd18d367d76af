"""The learner: training, layer groups, optimizer, callbacks, inference, files; and what remains after an error."""
import copy
import gc
import os
import pickle
import weakref
from functools import partial

import pytest
import torch
from torch import nn, optim
from torch.utils.data import TensorDataset

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks.one_cycle import OneCycleScheduler
from minifast.data import DataBunch, DatasetType
from minifast.fakes import fake_data, fake_learner
from minifast.learner import Learner, fit_one_cycle
from minifast.metrics import accuracy
from minifast.optimizer import OptimWrapper

SGD = partial(optim.SGD, momentum=0.9)


def weights(learn):
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def noisy_model():
    return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))


def in_groups(**kwargs):
    """Three layer groups, the first with a batch norm."""
    groups = [nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), nn.Linear(5, 5), nn.Linear(5, 4)]
    return fake_learner(layers=groups, **kwargs).split(groups[1:])


class Raises(Callback):
    def __init__(self, event, error=None, at=0):
        self.error, self.at = error or RuntimeError("broken"), at
        setattr(self, f"on_{event}", self.fail)

    def fail(self, iteration):
        if iteration >= self.at:
            raise self.error


# ---- training

def test_same_seed_same_numbers_bit_for_bit():
    def numbers(seed):
        torch.manual_seed(seed)
        learn = Learner(DataBunch.create(fake_data(train_length=50).train_ds, fake_data().train_ds, bs=8,
                                         loss_func=nn.CrossEntropyLoss()), noisy_model(), metrics=accuracy, silent=True)
        learn.fit_one_cycle(2, 0.05)
        return learn.recorder.raw_losses.tolist(), learn.recorder.val_losses, weights(learn).tolist()

    assert numbers(1) == numbers(1) != numbers(2)


def test_fit_is_the_loop_of_the_textbook():
    learn = fake_learner(train_length=40, valid_length=0, opt_func=SGD, wd=0.01)
    twin = fake_learner(train_length=40, valid_length=0)
    learn.fit(3, 0.1)
    opt = SGD(twin.model.parameters(), lr=0.1)
    for _ in range(3):
        for x, y in twin.data.train_dl:
            nn.functional.cross_entropy(twin.model(x), y).backward()
            with torch.no_grad():
                for p in twin.model.parameters():
                    p.mul_(1 - 0.1 * 0.01)      # decoupled decay, before the step
            opt.step()
            opt.zero_grad()
    assert torch.allclose(weights(learn), weights(twin), rtol=1e-5, atol=1e-7)


def test_fit_one_cycle_begins_peaks_and_ends_where_it_should():
    learn = fake_learner(train_length=100)
    learn.fit_one_cycle(2, 0.1, moms=(0.9, 0.8), div_factor=10, pct_start=0.25)
    lrs, moms = learn.recorder.lrs, learn.recorder.moms
    assert (lrs[0], lrs[10], max(lrs)) == (0.01, 0.1, 0.1) and 0 < lrs[39] < 0.001
    assert (moms[0], moms[10], min(moms)) == (0.9, 0.8, 0.8) and 0.899 < moms[39] < 0.9


def test_hyper_parameters_are_put_back_after_fit_one_cycle():
    learn = fake_learner()
    learn.fit_one_cycle(1, 0.1)
    assert learn.opt.lr == 0.1 and learn.opt.mom == 0.9
    learn.fit(1, 1e-3)
    assert set(learn.recorder.moms) == {0.9}
    with pytest.raises(RuntimeError):
        learn.fit_one_cycle(1, 0.1, callbacks=Raises("backward_begin", at=1))
    assert learn.opt.lr == 0.1 and learn.opt.mom == 0.9


def test_the_function_is_the_method():
    one, two = fake_learner(), fake_learner()
    one.fit_one_cycle(1, 0.1)
    fit_one_cycle(two, 1, 0.1)
    assert torch.equal(weights(one), weights(two))


def test_weight_decay_of_one_fit_and_of_the_learner():
    learn = fake_learner(wd=0.3)
    learn.fit(1)
    assert learn.opt.wd == 0.3
    learn.fit(1, wd=0.0)
    assert learn.opt.wd == 0.0
    learn.fit(1)
    assert learn.opt.wd == 0.3


# ---- layer groups

def test_learning_rates_of_the_layer_groups():
    learn = in_groups()
    assert learn.lr_range(1e-2) == 1e-2
    assert learn.lr_range(slice(1e-2)) == [1e-3, 1e-3, 1e-2]
    assert learn.lr_range(slice(1e-4, 1e-2)) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert learn.lr_range([1, 2, 3]) == [1, 2, 3]
    assert fake_learner().lr_range(slice(1e-4, 1e-2)) == [1e-2] and fake_learner().lr_range(slice(1e-2)) == [1e-2]


@pytest.mark.parametrize("lr, used", [(slice(1e-4, 1e-2), [1e-4, 1e-3, 1e-2]), ([3e-3, 2e-3, 1e-3], [3e-3, 2e-3, 1e-3]),
                                      (0.5, [0.5, 0.5, 0.5]), (torch.tensor([0.1, 0.2, 0.3]), [0.1, 0.2, 0.3])])
def test_each_layer_group_trains_at_its_own_rate(lr, used):
    learn = in_groups(opt_func=optim.SGD, wd=0.0)
    before = [[p.detach().clone() for p in g.parameters()] for g in learn.layer_groups]
    grads = []

    class Grads(Callback):
        def on_backward_end(self): grads.append([[p.grad.clone() for p in g.parameters()] for g in learn.layer_groups])
        def on_batch_end(self): return {"stop_epoch": True}

    learn.fit(1, lr, callbacks=Grads())
    for group, old, grad, rate in zip(learn.layer_groups, before, grads[0], used, strict=True):
        for p, o, g in zip(group.parameters(), old, grad, strict=True):
            assert torch.allclose(p, o - rate * g, rtol=1e-5, atol=1e-8)


def test_one_cycle_keeps_the_ratios():
    learn, seen = in_groups(), []

    class Sees(Callback):
        def on_backward_end(self): seen.append(learn.opt.values("lr"))

    learn.fit_one_cycle(2, slice(1e-4, 1e-2), callbacks=Sees())
    assert [lrs[0] / lrs[2] for lrs in seen] == pytest.approx([0.01] * 4) and [lrs[2] for lrs in seen][1] == 1e-2


def test_split_by_modules_function_and_lists():
    first, second, third = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 4)
    learn = fake_learner(layers=[first, second, third])
    for split_on in ([second, third], lambda model: [model[1], model[2]], [[first], [second], [third]]):
        assert learn.split(split_on) is learn
        expected = [list(m.parameters()) for m in (first, second, third)]
        assert [list(g.parameters()) for g in learn.layer_groups] == expected
    assert len(learn.split(second).layer_groups) == 2


@pytest.mark.parametrize("train_bn", [True, False])
def test_freezing(train_bn):
    learn = in_groups(train_bn=train_bn)
    before = weights(learn)
    learn.freeze()
    learn.fit(1, 0.1)
    linear, norm = learn.layer_groups[0]
    changed = (weights(learn) != before).split([30, 10, 30, 24])
    assert [bool(c.any()) for c in changed] == [False, train_bn, False, True]
    assert not linear.weight.requires_grad and norm.weight.requires_grad is train_bn

    for n in (1, -2):
        learn.freeze_to(n)
        free = [p.requires_grad for g in learn.layer_groups for p in g.parameters()]
        assert free == [False] * 2 + [train_bn] * 2 + [True] * 4
    learn.unfreeze()
    before = weights(learn)
    learn.fit(1, 0.1)
    assert all((weights(learn) != before).split([30, 10, 30, 24])[i].any() for i in range(4))


# ---- the optimizer

def test_the_optimizer_and_its_state_live_on():
    learn = fake_learner()
    assert not learn.has_opt
    learn.fit(1, 0.1)
    opt = learn.opt
    learn.fit(2, 0.01)
    assert learn.opt is opt and opt.lr == 0.01
    assert int(opt.opt.state[learn.model[0].weight]["step"]) == 6


def test_two_fits_are_one_long_fit():
    once, twice = fake_learner(train_length=30), fake_learner(train_length=30)
    once.fit(2, 0.1)
    twice.fit(1, 0.1)
    twice.fit(1, 0.1)
    assert torch.equal(weights(once), weights(twice))


def test_parameters_that_become_trainable_are_trained():
    learn = fake_learner(layers=[nn.Linear(5, 5).requires_grad_(False), nn.Linear(5, 4)])
    learn.fit(1)
    opt = learn.opt
    learn.model[0].requires_grad_(True)     # behind the learner's back
    before = learn.model[0].weight.detach().clone()
    learn.fit(1, 0.1)
    assert not torch.equal(learn.model[0].weight, before) and learn.opt is not opt


def test_a_replaced_model_is_trained():
    learn = fake_learner()
    learn.fit(1)
    learn.model = nn.Linear(5, 4)
    before = weights(learn)
    learn.fit(1, 0.1)
    assert (weights(learn) != before).any()
    learn.lr_find(num_it=2)


def test_a_replaced_model_needs_new_layer_groups():
    learn = in_groups()
    learn.model = nn.Linear(5, 4)
    with pytest.raises(ValueError, match="layer groups leave out some of the model's parameters.*learn.split"):
        learn.fit(1)


def test_an_optimizer_of_ones_own():
    learn = fake_learner()
    learn.opt = OptimWrapper(optim.SGD(learn.model.parameters(), lr=1, momentum=0.5))
    learn.fit(1, 0.25)
    assert learn.opt.name == "SGD" and learn.opt.values("mom") == [0.5] and list(learn.recorder.moms) == [0.5, 0.5]
    with pytest.raises(TypeError, match=r"must be an OptimWrapper, not SGD: OptimWrapper\(opt\)"):
        learn.opt = optim.SGD(learn.model.parameters(), lr=1)


# ---- callbacks

class Tells(LearnerCallback):
    def __init__(self, learn, log, name):
        super().__init__(learn)
        self.log, self.name = log, name

    def on_train_begin(self): self.log.append(self.name)


def test_where_callbacks_come_from_and_in_which_order():
    log = []
    learn = fake_learner(callback_fns=[partial(Tells, log=log, name="fns")])
    learn.callbacks = [Tells(learn, log, "own")]
    learn.fit(1, callbacks=[Tells(learn, log, "of this fit")])
    assert log == ["own", "fns", "of this fit"]
    learn.fit(1)
    assert log[3:] == ["own", "fns"]            # those of one fit do not stay
    assert [cb.name for cb in learn.callbacks] == ["own"]


def test_callback_fns_are_made_anew_for_each_run_and_found_by_name():
    made = []

    class Made(LearnerCallback):
        def __init__(self, learn):
            super().__init__(learn)
            made.append(self)

    learn = fake_learner(callback_fns=Made)
    learn.fit(1)
    learn.fit(1)
    assert len(made) == 2 and learn.made is made[1]
    learn.validate()
    assert len(made) == 3 and learn.made is made[1]     # the one of the fit is the one to look at


def test_the_same_callback_twice_in_two_fits():
    class Counts(Callback):
        def on_train_begin(self): self.n = 0
        def on_batch_end(self, train): self.n += train

    counts = Counts()
    learn = fake_learner()
    for epochs in (1, 3):
        learn.fit(epochs, callbacks=counts)
        assert counts.n == 2 * epochs


def test_a_callback_given_twice_is_told_once():
    log = []
    learn = fake_learner()
    cb = Tells(learn, log, "one")
    learn.callbacks = [cb, learn.recorder]
    learn.fit(1, callbacks=[cb])
    assert log == ["one"] and len(learn.recorder.lrs) == 2


def test_a_schedule_can_be_a_callback_of_the_learner():
    learn = fake_learner(train_length=50, callback_fns=partial(OneCycleScheduler, lr_max=0.1))
    learn.fit(1, 1e-5)
    assert max(learn.recorder.lrs) == 0.1 and learn.opt.lr == 1e-5
    learn.validate()
    assert learn.opt.lr == 1e-5


# ---- inference

def uneven(**kwargs):
    ds = fake_data(train_length=12).train_ds
    data = DataBunch.create(ds, fake_data(train_length=9, seed=1).train_ds, fake_data(train_length=7, seed=2).train_ds,
                            bs=5, seed=0, loss_func=nn.CrossEntropyLoss())
    return Learner(data, noisy_model(), silent=True, metrics=accuracy, **kwargs)


def test_validate_is_the_mean_over_all_samples():
    learn = uneven()
    x, y = learn.data.valid_ds.tensors
    with torch.no_grad():
        output = learn.model.eval()(x)
    expected = [float(nn.functional.cross_entropy(output, y)), float((output.argmax(1) == y).float().mean())]
    learn.model.train()
    assert learn.validate() == pytest.approx(expected, rel=1e-6)
    assert learn.validate([(x[:4], y[:4]), (x[4:], y[4:])]) == pytest.approx(expected, rel=1e-6)
    assert learn.validate(metrics=[]) == pytest.approx(expected[:1], rel=1e-6)


@pytest.mark.parametrize("kind, ds", [(DatasetType.Valid, "valid_ds"), (DatasetType.Test, "test_ds"),
                                      (DatasetType.Train, "train_ds"), (DatasetType.Fix, "train_ds")])
def test_get_preds_are_whole_and_in_the_datas_order(kind, ds):
    learn = uneven()
    x, y = getattr(learn.data, ds).tensors
    with torch.no_grad():
        output = learn.model.eval()(x)
    preds, targets, losses = learn.get_preds(kind, with_loss=True)
    assert torch.equal(targets, y) and torch.allclose(preds, output.softmax(1), atol=1e-6)
    assert torch.allclose(losses, nn.functional.cross_entropy(output, y, reduction="none"), atol=1e-5)
    assert torch.allclose(learn.get_preds(kind, activ=lambda o: o)[0], output, atol=1e-6)


def test_get_preds_of_several_inputs_outputs_and_targets():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 1)
        def forward(self, a, b): return self.linear(a), a + b

    x = torch.randn(6, 2)
    batches = [([x[i:i + 2], x[i:i + 2] * 2], [x[i:i + 2, :1], x[i:i + 2]]) for i in (0, 2, 4)]
    loss_func = lambda output, t1, t2: ((output[0] - t1) ** 2).mean() + ((output[1] - t2) ** 2).mean()
    learn = Learner(DataBunch(batches, batches, loss_func=loss_func), Two(), silent=True)
    learn.fit(1, 0.1)
    (first, second), (t1, t2) = learn.get_preds()
    assert torch.allclose(first, learn.model.linear(x)) and torch.equal(second, x * 3) and torch.equal(t2, x)


def test_predict():
    data = fake_data(train_length=50, valid_length=20, batch_size=10, classes=["a", "b", "c", "d"])
    learn = fake_learner(data=data)
    learn.fit_one_cycle(5, 0.1)
    preds, _ = learn.get_preds()
    for i in range(3):
        name, index, probabilities = learn.predict(data.valid_ds.tensors[0][i])
        assert torch.allclose(probabilities, preds[i], atol=1e-6) and index == preds[i].argmax()
        assert name == "abcd"[int(index)]


def test_inference_changes_nothing():
    learn = uneven()
    learn.fit(1)
    learn.model.train()
    learn.model[0].eval()
    learn.model(torch.ones(2, 5)).sum().backward()
    grad, before = learn.model[0].weight.grad.clone(), (weights(learn), learn.model[1].running_mean.clone(),
                                                        torch.get_rng_state(), learn.data.train_dl.state_dict())
    learn.validate()
    learn.get_preds(DatasetType.Train)
    learn.predict(torch.ones(5))
    after = (weights(learn), learn.model[1].running_mean, torch.get_rng_state(), learn.data.train_dl.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True)) and before[3] == after[3]
    assert torch.equal(learn.model[0].weight.grad, grad)
    assert [m.training for m in learn.model] == [False, True, True, True, True]


@pytest.mark.parametrize("event", ["epoch_begin", "batch_begin", "loss_begin", "backward_begin", "backward_end",
                                   "step_end", "batch_end", "epoch_end"])
def test_validating_in_the_middle_of_a_fit_disturbs_nothing(event):
    def run(look):
        torch.manual_seed(3)
        learn = Learner(fake_data(train_length=30, n_in=5), noisy_model(), silent=True, opt_func=SGD, metrics=accuracy,
                        callback_fns=partial(OneCycleScheduler, lr_max=0.1))
        looks = Callback()
        setattr(looks, f"on_{event}", lambda: learn.validate() and learn.get_preds() and None if look else None)
        learn.callbacks = [Log()]
        learn.fit(2, callbacks=looks)
        rec = learn.recorder
        return rec.raw_losses.tolist(), list(rec.lrs), rec.metrics, weights(learn).tolist(), learn.callbacks[0].log

    class Log(Callback):
        def on_train_begin(self): self.log = []
        def on_batch_end(self, iteration, train): self.log.append((iteration, train))

    assert run(True) == run(False)


# ---- files

def test_save_and_load_continue_as_if_nothing_had_been(tmp_path):
    learn, twin = (fake_learner(train_length=30, path=tmp_path) for _ in range(2))
    learn.fit(1, 0.1)
    path = learn.save("one")
    assert path == tmp_path / "models" / "one.pth"
    assert twin.load("one") is twin and torch.equal(weights(twin), weights(learn))
    twin.data.train_dl.load_state_dict(learn.data.train_dl.state_dict())
    learn.fit(1, 0.1)
    twin.fit(1, 0.1)
    assert torch.equal(weights(twin), weights(learn))       # Adam's moments came along


def test_without_the_optimizer(tmp_path):
    learn = fake_learner(path=tmp_path)
    learn.fit(1, 0.1)
    learn.save("with")
    learn.save("without", with_opt=False)
    for name, with_opt in (("with", False), ("without", True)):
        twin = fake_learner(path=tmp_path, seed=1).load(name, with_opt=with_opt)
        assert torch.equal(weights(twin), weights(learn)) and not twin.has_opt


def test_a_bare_state_dict_can_be_loaded(tmp_path):
    learn = fake_learner(path=tmp_path, seed=1)
    other = fake_learner().model.state_dict()
    (tmp_path / "models").mkdir()
    torch.save(other, tmp_path / "models" / "bare.pth")
    learn.load("bare")
    assert torch.equal(learn.model[0].weight, other["0.weight"])


def test_what_is_loaded_is_on_the_datas_device(tmp_path):
    learn = fake_learner(path=tmp_path)
    learn.fit(1)
    learn.save("x")
    learn.load("x")
    learn.load("x", device="cpu")
    assert {p.device for p in learn.model.parameters()} == {learn.data.device}
    assert learn.opt.opt.state[learn.model[0].weight]["exp_avg"].device == learn.data.device


def test_a_name_may_have_dots_and_folders(tmp_path):
    learn = fake_learner(path=tmp_path, model_dir="m")
    assert learn.save("a.b/v1.2") == tmp_path / "m" / "a.b" / "v1.2.pth"
    learn.load("a.b/v1.2")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    learn = fake_learner(path=tmp_path)
    before = weights(learn)
    learn.save("x")
    learn.fit(1, 0.1)

    def fails(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "replace", fails)
        learn.save("x")
    assert torch.equal(weights(learn.load("x")), before)
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["x.pth"]


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    other = fake_learner(path=tmp_path, layers=[nn.Linear(5, 5), nn.Linear(5, 4)])
    other.save("two layers")
    learn = fake_learner(path=tmp_path, layers=[nn.Linear(5, 5), nn.Linear(5, 3), nn.Linear(3, 4)])
    before = weights(learn)
    with pytest.raises(RuntimeError) as e:
        learn.load("two layers")
    assert torch.equal(weights(learn), before)
    path = tmp_path / "models" / "two layers.pth"
    assert str(e.value) == (
        f"{path} does not fit the model, so nothing is loaded from it: 2 of the model's weights are missing (2.weight, "
        "2.bias); 2 have other shapes (1.weight: (4, 5) in the file, (3, 5) in the model; 1.bias: (4,) in the file, "
        "(3,) in the model). Make the learner with the model that was saved")
    with pytest.raises(RuntimeError, match="missing .*other shapes .*Make the learner with the model that was saved$"):
        learn.load("two layers", strict=False)
    assert torch.equal(weights(learn), before)


def test_a_file_that_fits_in_part_can_be_loaded_so(tmp_path):
    fake_learner(path=tmp_path, layers=[nn.Linear(5, 4), *(nn.Linear(4, 4) for _ in range(9))]).save("deep")
    learn = fake_learner(path=tmp_path)
    with pytest.raises(RuntimeError) as e:
        learn.load("deep")
    assert str(e.value).endswith(
        "18 are not in the model (1.weight, 1.bias, 2.weight, ...). Make the learner with the model that was saved, or "
        "load the 2 that fit with strict=False")
    saved = torch.load(tmp_path / "models" / "deep.pth")["model"]
    assert torch.equal(learn.load("deep", strict=False).model[0].weight, saved["0.weight"])


def test_a_checkpoint_of_somebody_elses_is_called_what_it_is(tmp_path):
    learn = fake_learner(path=tmp_path)
    (tmp_path / "models").mkdir()
    torch.save({"state_dict": learn.model.state_dict(), "epoch": 3}, tmp_path / "models" / "theirs.pth")
    with pytest.raises(RuntimeError, match=r"2 of the model's weights are missing .*2 are not in the model "
                                           r"\(state_dict, epoch\)\. Make the learner with the model that was saved$"):
        learn.load("theirs")


@pytest.mark.parametrize("change", [lambda learn: learn.freeze(), lambda learn: setattr(learn, "opt_func", SGD)])
def test_the_state_of_an_optimizer_that_does_not_fit_is_left_out_and_named(tmp_path, change):
    learn = in_groups(path=tmp_path)
    learn.fit(1)
    learn.save("x")
    other = in_groups(path=tmp_path, seed=1)
    change(other)
    with pytest.warns(UserWarning, match="weights of .*x.pth are loaded, .*left out.*is not that of .*(Adam|SGD)"):
        other.load("x")
    assert torch.equal(weights(other), weights(learn)) and not other.opt.opt.state
    other.fit(1)


def test_a_runs_checkpoint_gives_its_weights(tmp_path):
    learn = fake_learner(path=tmp_path)
    learn.fit(1, checkpoint="run")
    other = fake_learner(path=tmp_path, seed=1, opt_func=SGD).load("run.ckpt")
    assert torch.equal(weights(other), weights(learn)) and not other.has_opt


def test_a_learner_is_copied_in_a_run_and_says_how_it_is_saved(tmp_path):
    class Keep(LearnerCallback):
        def on_epoch_end(self): found.append(copy.deepcopy(self.learn))
    learn, found = fake_learner(path=tmp_path), []
    learn.fit(1, callbacks=[Keep(learn)], checkpoint="run")
    assert torch.equal(weights(found[0]), weights(learn)) and found[0].handler is None
    found[0].fit(1)
    with pytest.raises(TypeError, match=r"learn.save\(name\) writes its weights"):
        pickle.dumps(learn)
    assert copy.copy(learn).model is learn.model


# ---- after an error

EVENTS = ["train_begin", "epoch_begin", "batch_begin", "loss_begin", "backward_begin", "backward_end", "step_end",
          "batch_end", "epoch_end", "train_end"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("event", EVENTS)
def test_the_learner_is_usable_after_an_error_anywhere(event, error):
    learn = fake_learner(train_length=20, metrics=accuracy)
    with pytest.raises(type(error)):
        learn.fit_one_cycle(1, 0.1, callbacks=Raises(event, error))
    assert learn.opt.mom == 0.9 and learn.callbacks == []
    learn.fit_one_cycle(2, 0.1)
    assert len(learn.recorder.lrs) == 8 and learn.recorder.lrs[0] == 0.1 / 25
    assert len(learn.validate()) == 2


@pytest.mark.parametrize("use", [lambda learn: learn.validate(), lambda learn: learn.get_preds(),
                                 lambda learn: learn.predict(torch.zeros(5))])
def test_inference_that_fails_changes_nothing(use):
    learn = fake_learner()
    learn.model.train()
    learn.callbacks = [Raises("batch_end")]
    with pytest.raises(RuntimeError, match="broken"):
        use(learn)
    assert learn.model.training and learn.callbacks[0].at == 0


def test_nothing_holds_the_learner_when_it_is_deleted():
    learn = fake_learner(metrics=accuracy, callback_fns=partial(OneCycleScheduler, lr_max=0.1))
    learn.fit(1)
    learn.lr_find(num_it=2)
    model = weakref.ref(learn.model)
    gc.disable()
    try:
        del learn
        assert model() is None
    finally:
        gc.enable()


def test_data_that_is_an_iterable_of_batches():
    ds = TensorDataset(torch.randn(10, 5), torch.zeros(10, dtype=torch.long))
    dl = torch.utils.data.DataLoader(ds, batch_size=4, shuffle=True)
    learn = Learner(DataBunch(dl, dl, loss_func=nn.CrossEntropyLoss()), nn.Linear(5, 4), silent=True)
    learn.fit_one_cycle(2, 0.1)
    assert learn.recorder.nb_batches == [3, 3]


def test_a_copy_is_a_learner_of_its_own():
    learn = fake_learner(metrics=accuracy, callback_fns=partial(OneCycleScheduler, lr_max=0.1), opt_func=SGD)
    learn.callbacks = [Tells(learn, [], "own")]
    learn.fit(1)
    other, before, lrs = copy.deepcopy(learn), weights(learn), list(learn.recorder.lrs)
    assert other.recorder.learn is other.callbacks[0].learn is other and learn.recorder.learn is learn
    other.fit(2)
    assert torch.equal(weights(learn), before) and list(learn.recorder.lrs) == lrs
    assert len(other.recorder.lrs) == 4 and not torch.equal(weights(other), before)
    assert other.opt.opt.state.keys() == set(other.model.parameters())      # its moments go on, and are its own


def test_get_preds_of_dicts():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 3)
        def forward(self, x): return {"out": self.linear(x)}

    batches = [({"x": torch.randn(2, 2)}, {"y": torch.tensor([0, i])}) for i in (1, 2)]
    data = DataBunch(batches, batches, loss_func=lambda o, t: nn.functional.cross_entropy(o["out"], t["y"]))
    learn = Learner(data, Named(), silent=True)
    learn.fit(1)
    preds, targets = learn.get_preds()
    assert preds["out"].shape == (4, 3) and targets["y"].tolist() == [0, 1, 0, 2]


def test_silence_can_be_broken(capsys):
    learn = fake_learner(silent=True)
    learn.fit(1)
    assert capsys.readouterr().out == ""
    learn.silent = False
    learn.fit(1)
    assert capsys.readouterr().out.startswith("epoch ")
    learn.recorder.silent = True
    learn.fit(1)
    assert capsys.readouterr().out == ""


def test_repr():
    assert repr(fake_learner()).startswith("Learner(Sequential with 24 parameters, DataBunch(")


def test_loading_into_data_with_other_classes_warns(tmp_path):
    ours, other = (fake_learner(path=tmp_path) for _ in range(2))
    ours.data.classes, other.data.classes = list("abcd"), list("badc")
    ours.save("x")
    ours.load("x")      # no warning, which would be an error here
    with pytest.warns(UserWarning, match=r"x.pth was saved with the classes \['a', 'b', 'c', 'd'\]"):
        other.load("x")
    assert torch.equal(ours.model[0].weight, other.model[0].weight)


def test_data_tells_its_classes():
    data = fake_learner().data
    data.classes = list(range(12))
    assert repr(data).endswith("on cpu, 12 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, ...)")
