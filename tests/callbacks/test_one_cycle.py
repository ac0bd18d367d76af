"""Every form of the 1cycle policy against its source, and what the scheduler does with one in a run."""
import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn, optim

from minifast.callback import LearnerCallback
from minifast.callbacks.one_cycle import ONE_CYCLE_FORMS, OneCycleScheduler, linear_cosine
from minifast.fakes import fake_data, fake_learner
from minifast.one_cycle_forms import fastai, keras, smith, three_phase

SGD = partial(optim.SGD, momentum=0.9)


def drawn(form, n, lr_max=1.0, moms=(0.95, 0.85), div_factor=25.0, pct_start=0.3, final_div=None):
    plan = form(n, lr_max, moms, div_factor, pct_start, final_div)
    return [plan["lr"](i) for i in range(n)], [plan["mom"](i) for i in range(n)]


# ---- the forms

def test_the_default_form():
    lrs, moms = drawn(linear_cosine, 8, 3e-3)
    assert lrs == pytest.approx([0.00012, 0.00156, 0.003, 0.0027990381, 0.00225, 0.0015, 0.00075, 0.0002009619])
    assert moms == pytest.approx([0.95, 0.9, 0.85, 0.8566987298, 0.875, 0.9, 0.925, 0.9433012702])
    assert (lrs[0], lrs[2], moms[0], moms[2]) == (3e-3 / 25, 3e-3, 0.95, 0.85)
    assert drawn(linear_cosine, 386, 0.05)[0][57] == pytest.approx(0.002 + 0.048 * 57 / 115)
    assert linear_cosine(8, 1.0, (0.95, 0.85), 25.0, 0.3, None)["lr"](8) == 0
    assert linear_cosine(8, 1.0, (0.95, 0.85), 25.0, 0.3, 50.0)["lr"](8) == 0.02


def test_fastai_as_released():
    lrs, moms = drawn(fastai, 386, 0.05)
    expected = {0: 0.002, 1: 0.0020089548497141466, 57: 0.025672191829617177, 115: 0.05, 116: 0.049998320172928996,
                250: 0.0251450060191856, 385: 1.8798270710060396e-06}
    assert {i: lrs[i] for i in expected} == pytest.approx(expected, rel=1e-12)
    assert (lrs[115], moms[115]) == (0.05, 0.85)
    assert (moms[57], moms[385]) == pytest.approx((0.9006829336882975, 0.9499966403324193), rel=1e-14)
    assert drawn(fastai, 8, 3e-3)[0] == pytest.approx(
        [.00012, .00156, .003, .0027990389, .002250003, .001500006, .000750009, .00020097309], rel=1e-6)
    assert fastai(386, 0.05, (0.95, 0.85), 25.0, 0.3, None)["lr"](386) == pytest.approx(2e-7)


def test_three_phases_of_the_paper():
    lrs, moms = drawn(three_phase, 100, 1.0, (0.95, 0.8), 10.0, 0.45)
    points = ([0, 45, 90, 100], [0.1, 1, 0.1, 0.001])
    assert lrs == pytest.approx(np.interp(range(100), *points))
    assert moms == pytest.approx(np.interp(range(100), [0, 45, 90], [0.95, 0.8, 0.95]))
    assert (lrs[45], lrs[90], moms[45], set(moms[90:])) == (1, 0.1, 0.8, {0.95})


def test_the_last_phase_may_be_given_its_length():
    lrs, moms = drawn(partial(three_phase, pct_last=0.1), 100, div_factor=10.0, pct_start=0.3, final_div=1e4)
    assert lrs == pytest.approx(np.interp(range(100), [0, 30, 90, 100], [0.1, 1, 0.1, 1e-4]))
    assert moms == pytest.approx(np.interp(range(100), [0, 30, 90], [0.95, 0.85, 0.95]))


@pytest.mark.parametrize("pct_start, pct_last", [(0.6, None), (0.6, 0.5)])
def test_three_phases_must_fit_into_the_run(pct_start, pct_last):
    with pytest.raises(ValueError, match=f"pct_start=0.6 and pct_last={pct_last} leave no room"):
        drawn(partial(three_phase, pct_last=pct_last), 100, pct_start=pct_start)


def test_smith_prints_what_his_logs_print():
    plan = smith(5000, 0.02, (0.95, 0.8), 10.0, 2246.5 / 5000, None)     # the CIFAR-100 run: steps of 2,246
    logged = {200: (0.00360285, 0.936643), 2400: (0.0186287, 0.810285), 4400: (8.19235e-4, 0.943856),
              4600: (2e-6, 0.946394), 4800: (2e-6, 0.939715)}
    for i, (lr, mom) in logged.items():
        assert plan["lr"](i) == pytest.approx(lr, rel=4e-6)
        assert plan["mom"](i) == pytest.approx(mom, abs=6e-7)
    assert (plan["lr"](2246), plan["mom"](2246), plan["lr"](4999)) == (0.02, 0.8, 2e-6)


@pytest.mark.parametrize("n", [7, 10, 99, 100, 385])
def test_keras(n):
    lrs, moms = drawn(keras, n, div_factor=10.0)
    half = (n - n // 10 - 1) // 2
    assert lrs == pytest.approx(np.interp(range(n), [0, half, 2 * half, n], [0.1, 1, 0.1, 1e-4]))
    assert moms == pytest.approx(np.interp(range(n), [0, half, 2 * half], [0.95, 0.85, 0.95]))


@pytest.mark.parametrize("form, options", [
    ("pytorch", {}), ("pytorch_linear", {"anneal_strategy": "linear"}), ("pytorch_three_phase", {"three_phase": True}),
    ("pytorch_three_phase_linear", {"three_phase": True, "anneal_strategy": "linear"})])
def test_pytorch(form, options):
    compared = 0
    for n, pct, (div, final) in product([1, 2, 3, 7, 50, 193], [0.05, 0.25, 0.3, 0.5, 0.77, 0.95],
                                        [(25.0, 1e4), (3.0, 10.0)]):
        if n * pct == 1:
            continue                                # there torch divides by zero
        opt = SGD([torch.zeros(1)], lr=0.1)
        torch_scheduler = optim.lr_scheduler.OneCycleLR(opt, 0.4, n, pct_start=pct, div_factor=div,
                                                        final_div_factor=final, **options)
        lrs, moms = drawn(ONE_CYCLE_FORMS[form], n, 0.4, div_factor=div, pct_start=pct, final_div=div * final)
        for lr, mom in zip(lrs, moms, strict=True):
            assert (lr, mom) == pytest.approx((opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]), rel=1e-12)
            opt.step()
            torch_scheduler.step()
        compared += 1
    assert compared > 60


@pytest.mark.parametrize("form", ONE_CYCLE_FORMS.values(), ids=ONE_CYCLE_FORMS)
def test_layer_groups_keep_their_ratio_in_every_form(form):
    for n in (1, 2, 3, 40):
        lrs, _ = drawn(form, n, np.array([0.01, 0.5]))
        assert np.allclose(lrs, np.outer(drawn(form, n, 1.0)[0], [0.01, 0.5]), rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("form", ONE_CYCLE_FORMS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_form_runs_in_every_length(form, n):
    learn = fake_learner(train_length=5 * n)
    learn.fit(1, 0.1, callbacks=[OneCycleScheduler(learn, 0.1, form=form)])
    lrs, moms = learn.recorder.lrs, learn.recorder.moms
    assert len(lrs) == n and all(0 < lr <= 0.1 for lr in lrs) and all(0.85 <= m <= 0.95 for m in moms)


def test_without_a_rising_phase_it_starts_at_the_peak():
    lrs, moms = drawn(linear_cosine, 3)
    assert lrs == pytest.approx([1, 0.75, 0.25]) and moms == pytest.approx([0.85, 0.875, 0.925])


# ---- the scheduler in a run

def test_what_is_recorded_is_what_a_batch_used():
    class Spy(LearnerCallback):
        _order = 99

        def on_train_begin(self):
            self.used = []

        def on_backward_end(self):
            self.used.append((self.learn.opt.lr, self.learn.opt.mom))

    learn = fake_learner(data=fake_data(train_length=17, drop_last=False))      # the fourth batch is short
    spy = Spy(learn)
    learn.fit(2, 0.1, callbacks=[spy, OneCycleScheduler(learn, 0.1)])
    recorded = list(zip(learn.recorder.lrs, learn.recorder.moms, strict=True))
    assert recorded == spy.used == list(zip(*drawn(linear_cosine, 8, 0.1), strict=True))


@pytest.mark.parametrize("opt_func, before", [(SGD, 0.9), (partial(optim.Adam, betas=(0.8, 0.77)), 0.8)])
def test_momentum_is_cycled_and_everything_put_back(opt_func, before):
    learn = fake_learner(train_length=50, opt_func=opt_func)
    learn.fit(1, 0.1, callbacks=[OneCycleScheduler(learn, 0.3)])
    assert list(learn.recorder.moms) == drawn(linear_cosine, 10)[1]
    assert (learn.opt.lr, learn.opt.mom, learn.opt.beta) == (0.1, before, None if opt_func is SGD else 0.77)


@pytest.mark.parametrize("opt_func", [optim.SGD, optim.RMSprop, optim.Adagrad])
def test_an_optimizer_without_momentum(opt_func):
    learn = fake_learner(train_length=50, opt_func=opt_func)
    with pytest.raises(ValueError, match="runs without momentum, so there is none to schedule: pass moms=None"):
        learn.fit(1, 0.1, callbacks=[OneCycleScheduler(learn, 0.1)])
    learn.fit(1, 0.1, callbacks=[OneCycleScheduler(learn, 0.1, moms=None)])
    assert list(learn.recorder.lrs) == drawn(linear_cosine, 10, 0.1)[0] and set(learn.recorder.moms) == {0}


def test_an_lr_for_each_layer_group():
    class Spy(LearnerCallback):
        _order = 99
        seen = ()

        def on_backward_end(self):
            self.seen += (self.learn.opt.values("lr"),)

    learn = fake_learner(train_length=20, layer_group_count=3)
    spy = Spy(learn)
    learn.fit(1, 0.1, callbacks=[OneCycleScheduler(learn, slice(1e-3, 1e-1)), spy])
    ratios = np.outer(drawn(linear_cosine, 4)[0], [1e-3, 1e-2, 1e-1])
    assert np.allclose(spy.seen, ratios, rtol=1e-12)
    with pytest.raises(ValueError, match="2 values for 3 layer groups"):
        OneCycleScheduler(learn, [0.1, 0.2])


def test_part_of_a_longer_cycle_and_the_rest_of_it():
    whole = drawn(linear_cosine, 20, 0.1)[0]
    learn = fake_learner(train_length=25)
    learn.fit(1, 0.1, callbacks=[OneCycleScheduler(learn, 0.1, tot_epochs=4)])
    assert list(learn.recorder.lrs) == whole[:5]
    learn.fit(4, 0.1, callbacks=[rest := OneCycleScheduler(learn, 0.1, start_epoch=1)])
    assert list(learn.recorder.lrs) == whole[5:] == list(rest.preview(4)["lr"])
    learn.fit(3, 0.1, callbacks=[OneCycleScheduler(learn, 0.1, tot_epochs=4, start_epoch=1)])
    assert list(learn.recorder.lrs) == whole[5:15]
    with pytest.raises(ValueError, match="start_epoch=4 leaves nothing of a run of 4 epochs"):
        learn.fit(4, 0.1, callbacks=[OneCycleScheduler(learn, 0.1, start_epoch=4)])


def test_a_run_past_the_end_holds_the_last_value_and_says_so_once():
    learn = fake_learner(train_length=25)
    scheduler = OneCycleScheduler(learn, 0.1, tot_epochs=2)
    for _ in range(2):                              # in each run anew
        with pytest.warns(UserWarning, match="planned for 10 optimizer steps and the run goes on") as told:
            learn.fit(4, 0.1, callbacks=[scheduler])
        planned = drawn(linear_cosine, 10, 0.1)[0]
        assert len(told) == 1 and list(learn.recorder.lrs) == planned + [planned[-1]] * 10
    assert list(scheduler.preview(4)["lr"]) == list(learn.recorder.lrs)


def test_it_counts_optimizer_steps():
    class EverySecond(LearnerCallback):
        _order = -30

        def on_train_begin(self, n_updates):
            return {"n_updates": n_updates // 2}

        def on_backward_end(self, iteration):
            return {"skip_step": iteration % 2 == 0}

        def on_step_end(self, iteration):
            return {"skip_zero": iteration % 2 == 0}

    learn = fake_learner(train_length=50)
    learn.fit(2, 0.1, callbacks=[EverySecond(learn), OneCycleScheduler(learn, 0.1)])
    assert list(learn.recorder.lrs) == list(np.repeat(drawn(linear_cosine, 10, 0.1)[0], 2))


def test_an_epoch_cut_short_leaves_no_gap():
    class Stop(LearnerCallback):
        def on_batch_end(self, train, num_batch):
            return {"stop_epoch": train and num_batch == 2}

    learn = fake_learner(train_length=50)
    learn.fit(2, 0.1, callbacks=[Stop(learn), OneCycleScheduler(learn, 0.1)])
    assert list(learn.recorder.lrs) == drawn(linear_cosine, 20, 0.1)[0][:6]


def test_a_form_of_ones_own():
    learn = fake_learner(train_length=20)
    form = lambda n, lr_max, moms, *_: {"lr": lambda i: lr_max / (i + 1), "mom": lambda i: moms[0]}
    learn.fit(1, 0.1, callbacks=[OneCycleScheduler(learn, 0.1, form=form)])
    assert list(learn.recorder.lrs) == [0.1, 0.05, 0.1 / 3, 0.025] and set(learn.recorder.moms) == {0.95}


@pytest.mark.parametrize("wrong, message", [
    ({"pct_start": 0}, "pct_start is the rising part of the cycle, above 0 and below 1, not 0"),
    ({"pct_start": 1.0}, "not 1.0"), ({"pct_start": math.nan}, "not nan"),
    ({"moms": (0.95, 1.0)}, "moms must be two momenta from 0 to below 1"), ({"moms": (0.9,)}, r"not \(0.9,\)"),
    ({"div_factor": 0}, "div_factor must be a finite number above 0"), ({"final_div": -1}, "final_div must be"),
    ({"form": "fastia"}, "no form 'fastia' of the 1cycle policy; there are linear_cosine, .*Did you mean 'fastai'"),
    ({"tot_epochs": 0}, "tot_epochs must be at least 1"), ({"start_epoch": -1}, "start_epoch must be at least 0"),
    ({"lr_max": -0.1}, "learning rate must be a finite number above 0, not -0.1")])
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        OneCycleScheduler(fake_learner(), **{"lr_max": 0.1, **wrong})


def test_it_sits_out_a_range_test():
    moms = []

    class Spy(LearnerCallback):
        def on_backward_end(self):
            moms.append(self.learn.opt.mom)

    learn = fake_learner(train_length=50)
    learn.callbacks = [OneCycleScheduler(learn, 0.1), Spy(learn)]
    assert learn.lr_find(1e-4, 1e-1, num_it=4).lrs == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert moms == [0.9] * 4


def test_fit_one_cycle_trains_by_it():
    learn = fake_learner(train_length=50, layers=[nn.Linear(5, 4)])
    learn.fit_one_cycle(2, 0.1, moms=(0.9, 0.8), div_factor=10.0, pct_start=0.4)
    lrs, moms = drawn(linear_cosine, 20, 0.1, (0.9, 0.8), 10.0, 0.4)
    assert (list(learn.recorder.lrs), list(learn.recorder.moms)) == (lrs, moms)
    assert learn.one_cycle_scheduler.pct_start == 0.4


def test_the_keras_form_has_gerons_own_values_unless_others_are_given():
    learn = fake_learner(train_length=500)
    cycle = OneCycleScheduler(learn, 1.0, form="keras")
    table = cycle.preview(1)
    assert table["lr"][0] == 0.1 and table["lr"].max() == 1.0 and set(table["mom"]) == {0.9}
    assert (cycle.moms, cycle.div_factor) == (None, 10.0)
    given = OneCycleScheduler(learn, 1.0, (0.9, 0.8), 20.0, form="keras").preview(1)
    assert given["lr"][0] == 0.05 and given["mom"].min() == 0.8
    learn.fit_one_cycle(1, 1.0, form="keras")
    assert learn.recorder.lrs[0] == 0.1 and set(learn.recorder.moms) == {0.9}
    with pytest.raises(ValueError, match="pct_start=0.3 has no effect"):
        learn.fit_one_cycle(1, 1.0, pct_start=0.3, form="keras")


def test_a_form_of_ones_own_has_its_own_values_or_the_usual_ones():
    seen = []

    def own(n, top, momenta, div=5.0, up=0.5, last=None):
        seen.append((momenta, div, up, last))
        return {"lr": lambda i: top, "mom": lambda i: momenta[0]}

    learn = fake_learner()
    OneCycleScheduler(learn, 1.0, form=own).preview(1)
    OneCycleScheduler(learn, 1.0, form=partial(own, div=7.0), pct_start=0.2).preview(1)
    OneCycleScheduler(learn, 1.0, form=lambda *args: own(*args)).preview(1)
    assert seen == [((0.95, 0.85), 5.0, 0.5, None), ((0.95, 0.85), 7.0, 0.2, None), ((0.95, 0.85), 25.0, 0.3, None)]
