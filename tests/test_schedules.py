"""Curves against torch's schedulers and their formulas, phases, hosted torch schedulers, and previews of them all."""
import inspect
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import optim
from torch.optim import lr_scheduler as torch_lr

import minifast.callbacks as package
from minifast.callback import LearnerCallback
from minifast.callbacks import schedules
from minifast.callbacks.checkpoint import Checkpoint
from minifast.callbacks.flat_cos_anneal import FlatCosAnnealScheduler
from minifast.callbacks.general_sched import GeneralScheduler, TrainingPhase
from minifast.callbacks.one_cycle import ONE_CYCLE_FORMS, OneCycleScheduler
from minifast.callbacks.scheduler import ParamScheduler, ScheduleCallback
from minifast.callbacks.torch_scheduler import TorchScheduler
from minifast.fakes import fake_learner
from minifast.schedules import (
    Ahead,
    ahead,
    constant,
    cosine,
    exp_range,
    exponential,
    flat_cosine,
    linear,
    piecewise,
    polynomial,
    restarts,
    triangular,
    triangular2,
    values,
    warm_up,
)
from minifast.stepper import Phases, Stepper, annealing_cos, annealing_exp, annealing_linear, annealing_no

SGD = partial(optim.SGD, momentum=0.9)


def drawn(curve, n=24, per_epoch=6):
    schedule = curve(n, per_epoch)
    return [schedule(i) for i in range(n)]


def by_torch(make, n=24, every=1, lr=0.1, opt_func=SGD):
    """lr and momentum of each of `n` batches of a plain loop that steps a torch scheduler after every `every`."""
    opt = opt_func([torch.zeros(1)], lr=lr)
    scheduler, rows = make(opt), []
    for i in range(n):
        rows.append((opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]))
        opt.step()
        if (i + 1) % every == 0:
            scheduler.step()
    return [list(column) for column in zip(*rows, strict=True)]


# ---- curves

# torch up to 2.8 warns of the way in which its own SequentialLR steps
pytestmark = pytest.mark.filterwarnings("ignore:The epoch parameter in")

WARM = lambda opt: torch_lr.SequentialLR(opt, [torch_lr.LinearLR(opt, 1 / 25, total_iters=9),
                                               torch_lr.CosineAnnealingLR(opt, 15)], [9])


@pytest.mark.parametrize("curve, make, every", [
    (constant(0.1), partial(torch_lr.ConstantLR, factor=1.0), 1),
    (linear(0.1, 0.02), partial(torch_lr.LinearLR, start_factor=1.0, end_factor=0.2, total_iters=24), 1),
    (cosine(0.1, 0.01), partial(torch_lr.CosineAnnealingLR, T_max=24, eta_min=0.01), 1),
    (polynomial(0.1, power=2.5), partial(torch_lr.PolynomialLR, total_iters=24, power=2.5), 1),
    (exponential(0.1, 0.7), partial(torch_lr.ExponentialLR, gamma=0.7), 6),
    (exponential(0.1, 0.97, every="batch"), partial(torch_lr.ExponentialLR, gamma=0.97), 1),
    (piecewise([0.1, 0.01, 0.001], [1, 3]), partial(torch_lr.MultiStepLR, milestones=[1, 3]), 6),
    (restarts(0.1, 0.02, cycle_len=1.5), partial(torch_lr.CosineAnnealingWarmRestarts, T_0=9, eta_min=0.02), 1),
    (restarts(0.1, cycle_mult=2), partial(torch_lr.CosineAnnealingWarmRestarts, T_0=6, T_mult=2), 1),
    (warm_up(cosine(0.1), 1.5), WARM, 1),
], ids=["constant", "linear", "cosine", "poly", "exp epoch", "exp batch", "piecewise", "restarts", "sgdr", "warm_up"])
def test_curves_equal_torch(curve, make, every):
    assert drawn(curve) == pytest.approx(by_torch(make, every=every)[0], rel=1e-9)


@pytest.mark.parametrize("of, mode", [(triangular, "triangular"), (triangular2, "triangular2"),
                                      (partial(exp_range, gamma=0.96), "exp_range")])
def test_cyclical_learning_rates_equal_torch(of, mode):
    make = partial(torch_lr.CyclicLR, base_lr=0.02, max_lr=0.1, step_size_up=4, mode=mode, gamma=0.96,
                   base_momentum=0.8, max_momentum=0.95)
    lrs, moms = by_torch(make, 40)
    assert drawn(of(0.02, 0.1, 4 / 6), 40) == pytest.approx(lrs, rel=1e-12)
    assert drawn(of(0.95, 0.8, 4 / 6), 40) == pytest.approx(moms, rel=1e-12)


def test_curves_by_hand():
    assert drawn(restarts(1.0, cycle_len=0.5), 7) == pytest.approx([1, 0.75, 0.25, 1, 0.75, 0.25, 1])
    assert drawn(piecewise([1, 2, 3], [0.5, 2]), 14) == [1] * 3 + [2] * 9 + [3] * 2
    assert drawn(flat_cosine(0.1, pct_start=0.5), 8) == pytest.approx(
        [0.1] * 5 + [0.05 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3)])
    assert drawn(warm_up(linear(0.8), 0.5, div_factor=4), 7) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2])
    assert drawn(warm_up(cosine(0.8), 9, div_factor=4), 3) == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize("name", schedules.__all__)
def test_curves_take_a_value_for_each_layer_group(name):
    if name == "Curve":
        return
    both, higher = [0.1, 0.2], [0.3, 0.6]
    arguments = {"exponential": (both, 0.5), "piecewise": ([both, higher], [2]), "warm_up": (cosine(both),),
                 "triangular": (both, higher, 1), "triangular2": (both, higher, 1), "exp_range": (both, higher, 1, 0.9)}
    first, second = zip(*drawn(getattr(schedules, name)(*arguments.get(name, (both,)))), strict=True)
    assert np.allclose(np.array(second), 2 * np.array(first)) and max(first) > 0


@pytest.mark.parametrize("make, message", [
    (lambda: exponential(0.1, 0.9, every="step"), "every must be 'epoch' or 'batch', not 'step'"),
    (lambda: exponential(0.1, -1), "gamma must be"),
    (lambda: polynomial(0.1, power=0), "power must be"),
    (lambda: piecewise([0.1, 0.2], [3, 1]), r"epochs must ascend, and be one fewer than the 2 levels, not \[3, 1\]"),
    (lambda: piecewise([0.1, 0.2, 0.3], [3, 1]), "epochs must ascend"),
    (lambda: restarts(0.1, cycle_len=0), "cycle_len must be"),
    (lambda: restarts(0.1, cycle_mult=0.5), "cycle_mult must be at least 1, not 0.5"),
    (lambda: triangular(0.1, 0.2, -1), "step_size must be"), (lambda: warm_up(cosine(0.1), 0), "epochs must be"),
    (lambda: flat_cosine(0.1, pct_start=1.5), "pct_start is the flat part of the run, from 0 to 1, not 1.5"),
    (lambda: FlatCosAnnealScheduler(fake_learner(), curve="exponential"), "curve must be 'cosine' or 'linear'")])
def test_bad_curves(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_param_scheduler_moves_any_hyper_parameter_and_puts_it_back():
    class Spy(LearnerCallback):
        _order = 99
        seen = ()

        def on_backward_end(self):
            g = self.learn.opt.opt.param_groups[0]
            self.seen += ((self.learn.opt.wd, g["eps"], g["betas"]),)

    learn = fake_learner(train_length=20, wd=0.5)
    spy = Spy(learn)
    learn.fit(1, 0.1, callbacks=[ParamScheduler(learn, wd=linear(0.4), eps=constant(1e-3), beta=linear(0.8, 0.4)), spy])
    wds, betas = drawn(linear(0.4), 4), drawn(linear(0.8, 0.4), 4)
    assert spy.seen == tuple((wd, 1e-3, (0.9, beta)) for wd, beta in zip(wds, betas, strict=True))
    assert (learn.opt.wd, learn.opt.beta, learn.opt.values("eps")) == (0.5, 0.99, [1e-8])
    with pytest.raises(KeyError, match="no hyper-parameter 'momentun'; .* Did you mean"):
        learn.fit(1, 0.1, callbacks=[ParamScheduler(learn, momentun=cosine(0.9))])
    with pytest.raises(TypeError, match=r"lr must be a curve, such as schedules.cosine\(0.1\), not 0.1"):
        ParamScheduler(learn, lr=0.1)


# ---- phases

def test_every_phase_starts_at_its_start_value():
    learn = fake_learner(train_length=50)
    phases = [TrainingPhase(n).schedule_hp("lr", (0.1, 0.0), annealing_cos).schedule_hp("mom", (0.9, 0.8))
              for n in (4, 6)]
    scheduler = GeneralScheduler(learn, phases)
    for _ in range(2):                              # a second run begins at the beginning
        learn.fit(1, 0.1, callbacks=[scheduler])
        lrs, moms = list(learn.recorder.lrs), list(learn.recorder.moms)
        assert (lrs[0], lrs[4], moms[0], moms[4]) == (0.1, 0.1, 0.9, 0.9)
        assert lrs == drawn(cosine(0.1), 4) + drawn(cosine(0.1), 6)
        assert moms == drawn(linear(0.9, 0.8), 4) + drawn(linear(0.9, 0.8), 6)


def test_what_a_phase_leaves_out_keeps_its_value():
    learn = fake_learner(train_length=60, opt_func=SGD)
    phases = [TrainingPhase(2).schedule_hp("lr", 0.3), TrainingPhase(4).schedule_hp("mom", (0.8, 0.4)),
              TrainingPhase(4).schedule_hp("lr", (0.1, 0.4), annealing_exp)]
    with pytest.warns(UserWarning, match="GeneralScheduler was planned for 10 optimizer steps") as told:
        learn.fit(1, 0.2, callbacks=[GeneralScheduler(learn, phases)])
    assert list(learn.recorder.lrs) == pytest.approx([0.3] * 6 + [0.1 * 4 ** (min(k, 3) / 4) for k in range(6)])
    assert list(learn.recorder.moms) == pytest.approx([0.9, 0.9, 0.8, 0.7, 0.6, 0.5] + [0.4] * 6)
    assert len(told) == 1 and (learn.opt.lr, learn.opt.mom) == (0.2, 0.9)


def test_phases_over_layer_groups_and_from_a_later_epoch():
    learn = fake_learner(train_length=20, layer_group_count=2)
    phase = TrainingPhase(8).schedule_hp("lr", (np.array([0.1, 1.0]), np.array([0.2, 2.0])))
    learn.fit(2, 0.1, callbacks=[GeneralScheduler(learn, phase, start_epoch=1)])
    assert list(learn.recorder.lrs) == [1.5, 1.625, 1.75, 1.875]
    table = GeneralScheduler(learn, [TrainingPhase(4).schedule_hp("mom", 0.7), phase]).preview(1)
    assert table["lr"].tolist() == [[0.1, 0.1]] * 4             # held at what the groups have now


def test_bad_phases():
    with pytest.raises(TypeError, match="phases must be TrainingPhases, at least one"):
        GeneralScheduler(fake_learner(), [])
    with pytest.raises(ValueError, match="length must be at least 1"):
        TrainingPhase(0)


def test_fit_fc_is_flat_then_anneals():
    learn = fake_learner(train_length=25)
    learn.fit_fc(2, 0.1, moms=(0.95, 0.8), start_pct=0.65)
    annealed = [0.05 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3)]
    assert list(learn.recorder.lrs) == pytest.approx([0.1] * 7 + annealed)
    assert list(learn.recorder.moms) == [0.95] * 6 + [0.8] * 4
    learn.fit(1, callbacks=[FlatCosAnnealScheduler(learn, 0.1, 2, None, 0.2, "linear")])
    assert list(learn.recorder.lrs) == pytest.approx([0.1, 0.1, 0.1, 0.0875, 0.075])
    assert set(learn.recorder.moms) == {0.9}


# ---- torch's own

HOSTED = {
    "ConstantLR": (partial(torch_lr.ConstantLR, factor=0.5, total_iters=2), 6),
    "LinearLR": (partial(torch_lr.LinearLR, total_iters=3), 6),
    "StepLR": (partial(torch_lr.StepLR, step_size=2), 6),
    "MultiStepLR": (partial(torch_lr.MultiStepLR, milestones=[1, 3]), 6),
    "ExponentialLR": (partial(torch_lr.ExponentialLR, gamma=0.9), 1),
    "PolynomialLR": (partial(torch_lr.PolynomialLR, total_iters=20), 1),
    "LambdaLR": (partial(torch_lr.LambdaLR, lr_lambda=lambda i: 1 / (1 + i)), 6),
    "MultiplicativeLR": (partial(torch_lr.MultiplicativeLR, lr_lambda=lambda i: 0.9), 6),
    "CosineAnnealingLR": (partial(torch_lr.CosineAnnealingLR, T_max=24), 1),
    "CosineAnnealingWarmRestarts": (partial(torch_lr.CosineAnnealingWarmRestarts, T_0=5), 1),
    "CyclicLR": (partial(torch_lr.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=5), 1),
    "OneCycleLR": (partial(torch_lr.OneCycleLR, max_lr=0.2, total_steps=24), 1),
    "SequentialLR": (WARM, 1),
    "ChainedScheduler": (lambda opt: torch_lr.ChainedScheduler([torch_lr.ExponentialLR(opt, 0.9), torch_lr.CyclicLR(
        opt, 0.01, 0.1, 3)]), 1),
}


def test_every_scheduler_of_torch_is_here():
    theirs = {n for n in torch_lr.__all__ if inspect.isclass(getattr(torch_lr, n))}
    assert theirs - {"LRScheduler", "ReduceLROnPlateau"} == set(HOSTED)


@pytest.mark.parametrize("make, every", HOSTED.values(), ids=HOSTED)
def test_a_hosted_scheduler_does_what_it_does_alone(make, every):
    learn = fake_learner(train_length=30, opt_func=SGD)
    learn.fit(4, 0.1, callbacks=[TorchScheduler(learn, make, "batch" if every == 1 else "epoch")])
    lrs, moms = by_torch(make, every=every)
    assert (list(learn.recorder.lrs), list(learn.recorder.moms)) == (lrs, moms)
    assert (learn.opt.lr, learn.opt.mom) == (0.1, 0.9) and "initial_lr" not in learn.opt.opt.param_groups[0]


def test_it_counts_real_epochs():
    class Stop(LearnerCallback):
        def on_batch_end(self, train, num_batch):
            return {"stop_epoch": train and num_batch == 1}

    learn = fake_learner(train_length=30)
    halved = TorchScheduler(learn, partial(torch_lr.StepLR, step_size=1, gamma=0.5))
    learn.fit(3, 1.0, callbacks=[Stop(learn), halved])
    assert list(learn.recorder.lrs) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_plateau_lowers_all_learning_rates_alike():
    class Losses(LearnerCallback):
        lrs = ()

        def on_backward_end(self):
            self.lrs += (self.learn.opt.values("lr"),)

        def on_epoch_end(self, epoch):
            return {"last_metrics": [[1.0, 0.9, 0.95, 0.92, 0.91, 0.5][epoch]]}

    learn = fake_learner(train_length=5, layer_group_count=2)
    losses = Losses(learn)
    make = partial(torch_lr.ReduceLROnPlateau, patience=1, factor=0.1)
    learn.fit(6, slice(0.01, 1.0), callbacks=[losses, TorchScheduler(learn, make)])
    assert np.allclose(losses.lrs, [[0.01, 1]] * 4 + [[1e-3, 0.1]] * 2)     # after two epochs no better than 0.9


def test_a_plateau_can_be_told_a_metric_but_not_foreseen():
    learn = fake_learner(train_length=5)
    make = partial(torch_lr.ReduceLROnPlateau, patience=0)
    with pytest.raises(ValueError, match="no 'acuracy' to monitor; there are valid_loss"):
        learn.fit(1, callbacks=[TorchScheduler(learn, make, monitor="acuracy")])
    with pytest.raises(ValueError, match="goes by valid_loss, which is not known before the run"):
        TorchScheduler(learn, make).preview(2)
    learn = fake_learner(train_length=5, valid_length=0)
    with pytest.raises(ValueError, match="needs valid_loss, which was not computed in epoch 0"):
        learn.fit(1, callbacks=[TorchScheduler(learn, make)])
    learn = fake_learner(train_length=10, metrics=[lambda output, target: torch.tensor(1.0)])
    learn.metrics[0].__name__ = "same"
    learn.fit(3, 0.1, callbacks=[TorchScheduler(learn, make, monitor="same")])
    assert list(learn.recorder.lrs) == pytest.approx([0.1] * 4 + [0.01] * 2)


def test_bad_hosts():
    learn = fake_learner()
    with pytest.raises(ValueError, match="step_every must be 'epoch' or 'batch', not 'iteration'"):
        TorchScheduler(learn, torch_lr.StepLR, "iteration")
    with pytest.raises(TypeError, match="scheduler_func must return a torch scheduler, not None"):
        learn.fit(1, callbacks=[TorchScheduler(learn, lambda opt: None)])


@pytest.mark.parametrize("make", [
    lambda learn: TorchScheduler(learn, partial(torch_lr.ReduceLROnPlateau, patience=0, threshold=10.0)),
    lambda learn: TorchScheduler(learn, HOSTED["OneCycleLR"][0], "batch"),
    lambda learn: ParamScheduler(learn, lr=restarts(0.1, cycle_len=1.3), mom=triangular(0.95, 0.85, 0.4))])
def test_a_resumed_run_catches_up(make, tmp_path):
    def fit(cut_at=None, **checkpoint):
        class Break(LearnerCallback):
            def on_batch_begin(self, iteration):
                if iteration == cut_at:
                    raise RuntimeError("cut off")

        learn = fake_learner(train_length=30, path=tmp_path)
        saving = [Checkpoint(learn, **checkpoint)] if checkpoint else []
        learn.fit(4, 0.1, callbacks=[make(learn), Break(learn), *saving])
        return learn

    whole = fit()
    with pytest.raises(RuntimeError, match="cut off"):
        fit(14, name="run", every=5)
    rest = fit(name="run", every=5)
    assert list(rest.recorder.lrs) == list(whole.recorder.lrs) and len(set(rest.recorder.lrs)) > 2
    assert list(rest.recorder.moms) == list(whole.recorder.moms)


# ---- previews

CURVES = {
    "constant": constant(0.1), "cosine": cosine(0.1), "exp_range": exp_range(0.01, 0.1, 0.5, 0.97),
    "exponential": exponential(0.1, 0.9), "flat_cosine": flat_cosine(0.1), "linear": linear(0.1, 0.3),
    "piecewise": piecewise([0.1, 0.01], [1.5]), "polynomial": polynomial(0.1, 0.01, 2),
    "restarts": restarts(0.1, 0, 0.7, 1.3), "triangular": triangular(0.1, 0.2, 0.4),
    "triangular2": triangular2(0.1, 0.2, 0.4), "warm_up": warm_up(cosine(0.1), 0.5),
}
PHASES = [TrainingPhase(5).schedule_hp("lr", (0.1, 0.2)),
          TrainingPhase(30).schedule_hp("mom", (0.9, 0.7), annealing_linear)]
SCHEDULERS = {
    **{f"1cycle {form}": partial(OneCycleScheduler, lr_max=0.1, form=form) for form in ONE_CYCLE_FORMS},
    **{name: partial(ParamScheduler, lr=curve, mom=triangular(0.95, 0.85, 0.3)) for name, curve in CURVES.items()},
    **{name: partial(TorchScheduler, scheduler_func=make, step_every="batch" if every == 1 else "epoch")
       for name, (make, every) in HOSTED.items()},
    "phases": partial(GeneralScheduler, phases=PHASES), "flat_cos": partial(FlatCosAnnealScheduler, tot_epochs=4),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_preview_is_what_the_recorder_holds_afterwards(make):
    learn = fake_learner(train_length=30)
    learn.opt.lr = 0.1
    table = make(learn).preview(4)
    learn.fit(4, 0.1, callbacks=[make(learn)])
    assert learn.recorder.lrs.tolist() == table["lr"].tolist() and len(learn.recorder.lrs) == 24
    assert learn.recorder.moms.tolist() == table["mom"].tolist()


def test_no_scheduler_is_left_out():
    assert set(CURVES) == set(schedules.__all__) - {"Curve"}
    classes = {c for c in vars(package).values() if inspect.isclass(c) and issubclass(c, ScheduleCallback)}
    learn = fake_learner()
    assert classes - {ScheduleCallback} == {type(make(learn)) for make in SCHEDULERS.values()}


@pytest.mark.parametrize("form", ONE_CYCLE_FORMS)
def test_the_quick_way_to_draw_is_exact(form):
    scheduler = OneCycleScheduler(fake_learner(), 0.1, form=form)
    for n, shown in [(1, 1), (2, 2), (3, 3), (1000, 1000), (57, 80)]:
        for schedule in scheduler.plan(n, 1).values():
            assert values(schedule, 0, shown) == [schedule(i) for i in range(shown)]


def stepper(lr, n, func):
    return Stepper((lr / 25, lr), n, func)


@pytest.mark.parametrize("func", [annealing_no, annealing_linear, annealing_cos], ids=lambda f: f.__name__)
@pytest.mark.parametrize("lr", [0.1, np.array([1 / 3, 0.1, 1e-4])], ids=["a number", "three groups"])
@pytest.mark.parametrize("n", [0, 7, 40.5, 700])
def test_values_computed_ahead_are_the_steppers_own_to_the_bit(func, lr, n):
    schedule = Phases([stepper(lr, n, func), stepper(lr[::-1] if np.ndim(lr) else 0.2, 300, annealing_cos)])
    early, steps = ahead(schedule), [*range(1100), 3, 900, 0]    # and back, as a run that is resumed
    assert type(early) is Ahead and early.steppers == schedule.steppers
    for i in steps:
        assert type(early(i)) is type(schedule(i)) and np.array_equal(early(i), schedule(i)), i


def test_what_may_depend_on_the_run_is_not_computed_ahead():
    class Own(Stepper):
        def __call__(self, i):
            return 5.0

    def waver(start, end, pct):
        return start

    for schedule in (Phases([Own((0.0, 1.0), 50)]), Own(1.0, 50), Stepper((0.0, 1.0), 50, waver), lambda i: 0.1):
        assert ahead(schedule) is schedule
    assert values(Own((0.0, 1.0), 50), 0, 50) == [5.0] * 50


def test_plot_schedule_draws_the_preview():
    learn = fake_learner(train_length=50, layer_group_count=2)
    scheduler = OneCycleScheduler(learn, [0.01, 0.1])
    lr, mom = scheduler.plot_schedule(2, return_fig=True).axes
    assert lr.lines[0].get_ydata().tolist() == scheduler.preview(2)["lr"][:, 1].tolist()
    assert mom.lines[0].get_ydata().tolist() == scheduler.preview(2)["mom"].tolist()
    figure, ax = plt.subplots()
    assert ParamScheduler(learn, lr=cosine(0.1)).plot_schedule(1, ax=ax) is None        # momentum stays: one axes
    assert ax.lines[0].get_ydata().tolist() == drawn(cosine(0.1), 10)
    plt.close("all")
    with pytest.raises(ValueError, match="n_epochs must be at least 1"):
        scheduler.preview(0)


@pytest.mark.parametrize("every, epochs, says", [("batch", 2, "fails after 9 of the run's 20 optimizer steps"),
                                                 ("epoch", 10, "fails after 9 of the run's 10 epochs")])
def test_a_torch_scheduler_that_ends_before_the_run_is_refused_before_it(every, epochs, says):
    learn = fake_learner(train_length=50)
    before = [p.detach().clone() for p in learn.model.parameters()]
    with pytest.raises(ValueError, match=f"OneCycleLR {says}.*give it the length"):
        learn.fit(epochs, 0.1, callbacks=[TorchScheduler(
            learn, partial(torch_lr.OneCycleLR, max_lr=0.1, total_steps=8), every)])
    assert all(torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True))
