"""The dry run: it finds what is wrong, and leaves all as it was; annealing at once."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from minifast import check
from minifast.callback import Callback
from minifast.callbacks import GradientClipping, MixUpCallback
from minifast.fakes import fake_learner
from minifast.metrics import accuracy


def learner(**kwargs):
    layers = [nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4)]
    layers = kwargs.pop("layers", layers)
    return fake_learner(batch_size=8, train_length=40, valid_length=10, layers=layers, metrics=[accuracy], **kwargs)


def test_a_learner_that_is_well():
    learn = learner(callback_fns=[MixUpCallback, GradientClipping])
    report = learn.check(epochs=3)
    text = repr(report)
    assert report.ok and report.warnings == [] and len(report.lines) == 9, text
    assert "a batch is float32 (8, 5), its target int64 (8,) from" in text and "the output float32 (8, 4)" in text
    assert "an untrained model should have a loss near 1.39" in text and "reach all 6 trainable parameters" in text
    assert "callbacks and metrics: AverageMetric, MixUpCallback, GradientClipping" in text
    assert "3 epochs will train for about 00:00" in text and "bit for bit" in text


def test_parameters_that_get_no_gradient_are_named():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.forgotten = nn.Linear(5, 4), nn.Linear(5, 4)

        def forward(self, x):
            return self.used(x)
    report = learner(layers=[Unused()]).check()
    assert report.warnings == ["no gradient reaches 2 of 4 trainable parameters: 0.forgotten.weight, 0.forgotten.bias"]


@pytest.mark.parametrize("layers, message", [
    ([nn.Linear(6, 4)], "mat1 and mat2 shapes cannot be multiplied (8x5 and 6x4)"),
    ([nn.Linear(5, 4), nn.Hardtanh(0, 1e-4)], "so not even that can be learned by heart"),
    ([nn.Linear(5, 4), nn.Threshold(1e9, float("nan"))], "the loss is nan"),
])
def test_what_is_wrong_is_a_line_and_not_an_exception(layers, message):
    report = learner(layers=layers).check()
    assert any(message in w for w in report.warnings), report


def test_a_loss_far_from_an_untrained_models():
    with torch.no_grad():
        big = nn.Linear(5, 4)
        big.weight.mul_(1000)
    report = learner(layers=[big]).check()
    assert any("trained already, or its outputs are too far from 0" in w for w in report.warnings)


@pytest.mark.parametrize("one, several, advice", [
    (0.01, 0.05, ": call torch.set_num_threads(1), or set OMP_NUM_THREADS=1 before Python starts"),
    (0.02, 0.02, ""),
    (0.05, 0.01, ""),
])
def test_threads_that_wait_for_each_other_are_told_from_those_that_help(one, several, advice, monkeypatch):
    now = [0.0]     # a clock that only the network moves on: this machine's own load is no part of the test

    class Waits(nn.Module):
        def forward(self, x):
            now[0] += one if torch.get_num_threads() == 1 else several
            return x

    monkeypatch.setattr(check, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        report = learner(layers=[nn.Linear(5, 4), Waits()]).check()
        assert torch.get_num_threads() == 2     # the user's own
    finally:
        torch.set_num_threads(before)
    line = f"forward and backward pass of a batch take {1000 * several:.0f} ms on 2 threads, {1000 * one:.0f} ms on one"
    assert (not advice, line + advice) in report.lines, report


def test_a_callback_that_fails_is_told():
    class Odd(Callback):
        def on_backward_end(self, iteration):
            if iteration == 1:
                raise KeyError("what")
    assert "a short run with the callbacks: KeyError: 'what'" in learner(callbacks=[Odd()]).check().warnings


def everything(learn):
    tensors = [*learn.model.state_dict().values(), torch.get_rng_state()]
    tensors += [t for s in learn.opt.opt.state.values() for t in s.values()] if learn.has_opt else []
    plain = [np.random.get_state()[1].tolist(), [dl.state_dict() for dl in learn.data.dls], learn.stopped,
             [m.training for m in learn.model.modules()],
             [p.grad is None for p in learn.model.parameters()], learn.recorder.losses.tolist(), sorted(vars(learn)),
             sorted(learn.path.rglob("*"))]
    return [t.clone() for t in tensors], plain


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("does", ["check", "summary", "plot_losses", "plot_lr", "validate", "get_preds"])
def test_nothing_is_changed(tmp_path, does, trained):
    learn = learner(path=tmp_path)
    if trained or does.startswith("plot"):
        learn.fit_one_cycle(3, 0.05)
    tensors, plain = everything(learn)
    if does.startswith("plot"):
        getattr(learn.recorder, does)(return_fig=True)
    else:
        getattr(learn, does)()
    after_tensors, after = everything(learn)
    assert plain == after and all(map(torch.equal, tensors, after_tensors))


def test_anneal_now_goes_from_the_last_rate_to_nothing():
    class Enough(Callback):
        def on_epoch_end(self, epoch):
            return {"stop_training": epoch == 1}
    learn = learner()
    learn.fit_one_cycle(10, 0.05, callbacks=[Enough()])
    last, mom = learn.recorder.lrs[-1], learn.recorder.moms[-1]
    assert learn.stopped == "by a callback after epoch 1" and last > 0.02
    learn.anneal_now(2)
    lrs, moms = list(learn.recorder.lrs), list(learn.recorder.moms)
    assert len(lrs) == 10 and lrs[0] == last and lrs == sorted(lrs, reverse=True)
    assert lrs[-1] == pytest.approx(last * 0.0245, rel=0.01)
    assert moms[0] == mom and mom < moms[-1] < 0.95


def test_anneal_now_keeps_the_ratios_of_layer_groups_and_needs_a_run():
    learn = fake_learner(train_length=20, layer_group_count=2)
    with pytest.raises(ValueError, match="nothing to anneal: no batch has been trained"):
        learn.anneal_now()
    learn.fit(1, [0.01, 0.04])
    learn.anneal_now(1)
    assert learn.recorder.lrs[0] == 0.04 and learn.opt.values("lr") == [0.01, 0.04]
    assert learn.recorder.lrs[2] == pytest.approx(0.02)
