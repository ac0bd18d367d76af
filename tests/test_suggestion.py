"""The rules that read a learning rate off a range test, what they promise, and the sweeps."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from minifast.callback import Callback
from minifast.data import DataBunch
from minifast.fakes import fake_learner
from minifast.suggestion import RULES, RangeTest, RangeTests, Suggestion, basin, minimum, steepest, valley

STEP = 8 / 99  # decades between the learning rates of `curve(100)`


def curve(n=100, knee=-2.0, width=0.3, edge=0.5, lrs=(-7, 1)):
    """A test without noise: 2.3, falls by 2 about 10**knee (a logistic of scale `width`), rises again past 10**edge."""
    x = np.linspace(*lrs, n)
    return 10**x, 2.3 - 2 / (1 + np.exp((knee - x) / width)) + np.exp(np.minimum((x - edge) * 4, 50))


def noisy(n=100, noise=0.1, seed=0, **kwargs):
    lrs, losses = curve(n, **kwargs)
    return lrs, losses + np.random.default_rng(seed).normal(0, noise, n)


knees, widths, edges = st.floats(-4, -1.5), st.floats(0.1, 0.5), st.floats(0.0, 0.8)
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


# ---- what each rule says

def test_basin_is_the_half_depth_interval_and_a_point_within():
    lrs, losses = curve(knee=-3, width=0.1, edge=0.4)  # at half depth, a loss of 1.3, at 1e-3 and 10**0.4
    said = basin(lrs, losses)
    assert np.log10([said.low, said.high]) == pytest.approx([-3, 0.4], abs=0.1)
    assert np.log10(said.lr / said.low) == pytest.approx(0.4 * np.log10(said.high / said.low))


def test_steepest_minimum_and_valley():
    lrs, losses = curve(knee=-2, width=0.1)
    assert steepest(lrs, losses).lr == pytest.approx(1e-2, rel=0.1)
    assert minimum(lrs, losses).lr == pytest.approx(lrs[losses.argmin()] / 10)
    said = valley([1e-4, 1e-3, 1e-2, 1e-1, 1.0], [5, 4, 3, 2, 9])
    assert (said.low, said.high) == pytest.approx((1e-4, 1e-1)) and said.lr == pytest.approx(10**-2.5)
    # 9 8 6 5 is the longest, with a gap: four losses, so it is taken to begin four before its end
    said = valley([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0], [9, 8, 8.5, 6, 5, 7])
    assert (said.low, said.high) == pytest.approx((1e-5, 1e-1))


def test_steepest_is_per_factor_of_the_learning_rate():
    lrs = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]     # per unit of the learning rate the first step would be the steepest by far
    assert steepest(lrs, [5.0, 4.9, 4.0, 2.0, 1.5]).lr == pytest.approx(1e-2)


def test_basin_ends_where_the_test_ends_if_the_loss_never_rises():
    lrs, losses = curve(knee=-3, edge=5)
    assert basin(lrs, losses).high == pytest.approx(10)


def test_one_spike_moves_basin_little_and_steepest_much():
    lrs, losses = curve()
    spiked = losses.copy()
    spiked[30] = 50
    assert abs(np.log10(basin(lrs, spiked).lr / basin(lrs, losses).lr)) < STEP
    assert abs(np.log10(steepest(lrs, spiked).lr / steepest(lrs, losses).lr)) > 1


@pytest.mark.parametrize("seed", range(5))
def test_basin_stands_noise(seed):
    clean = basin(*curve()).lr
    assert abs(np.log10(basin(*noisy(noise=0.2, seed=seed)).lr / clean)) < 0.4


# ---- no answer, and why

@pytest.mark.parametrize("losses", [np.full(100, 0.7), np.linspace(1, 2, 100), 1 + np.logspace(-7, 1, 100)],
                         ids=["flat", "rises", "explodes"])
def test_a_loss_that_never_falls(losses):
    lrs = np.logspace(-7, 1, 100)
    for rule in RULES.values():
        said = rule(lrs, losses)
        assert said.lr is None and said.low is None and "never falls" in said.reason


def test_pure_noise_is_called_that():
    found = [basin(np.logspace(-7, 1, 100), np.random.default_rng(i).normal(1, 0.1, 100)) for i in range(100)]
    assert sum(s.lr is not None for s in found) <= 2
    assert any("too noisy: the loss falls by 0.0" in s.reason for s in found)


def test_more_batches_see_through_the_noise():
    assert "too noisy" in basin(*noisy(40, noise=3.0, edge=5)).reason
    assert basin(*noisy(4000, noise=3.0, edge=5)).lr == pytest.approx(basin(*curve(edge=5)).lr, rel=1)


@every_rule
def test_too_short(rule):
    lrs, losses = curve()
    said = rule(lrs[:0], losses[:0])
    assert said.lr is None and said.reason.startswith("too short: 0 finite losses where it takes")
    with pytest.raises(ValueError, match="suggests no learning rate: too short"):
        float(said)


@every_rule
@pytest.mark.parametrize("lrs, losses, message", [
    ([1e-3, 1e-2], [1.0], "two lists of equal length"), ([1e-2, 1e-3], [2.0, 1.0], "grow from batch to batch"),
    ([0.0, 1e-3], [2.0, 1.0], "above 0"), ([1e-3, np.nan], [2.0, 1.0], "grow")])
def test_what_is_no_range_test_is_an_error(rule, lrs, losses, message):
    with pytest.raises(ValueError, match=message):
        rule(lrs, losses)


# ---- what every rule promises

@every_rule
@given(seed=st.integers(0, 99), power=st.integers(-20, 20), b=st.integers(-4096, 4096))
def test_a_scaled_and_shifted_loss_changes_nothing(rule, seed, power, b):
    lrs, losses = noisy(seed=seed)
    losses = np.round(losses * 1024) / 1024     # so that a * loss + b is exact
    assert rule(lrs, losses * 2.0**power + b * 2.0**power / 8) == rule(lrs, losses)


@every_rule
@given(knee=knees, a=st.floats(1e-6, 1e6), b=st.floats(-100, 100))
def test_so_it_is_for_any_constants(rule, knee, a, b):
    lrs, losses = curve(knee=knee)
    tolerance = 0.25 if rule is minimum else 1e-3   # where the bottom is flat, rounding chooses the neighbour
    assert rule(lrs, a * losses + a * b).lr == pytest.approx(rule(lrs, losses).lr, rel=tolerance)


@every_rule
@settings(deadline=None)
@given(knee=knees, width=widths, edge=edges, times=st.integers(2, 10))
def test_finer_sampling_moves_the_answer_by_two_steps_at_most(rule, knee, width, edge, times):
    coarse = rule(*curve(100, knee, width, edge)).lr
    fine = rule(*curve(99 * times + 1, knee, width, edge)).lr
    assert abs(np.log10(fine / coarse)) <= 2 * STEP


@every_rule
@given(seed=st.integers(0, 9), at=st.lists(st.integers(0, 99), max_size=20, unique=True),
       bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_losses_that_are_not_finite_are_left_out(rule, seed, at, bad):
    lrs, losses = noisy(seed=seed)
    kept = np.delete(np.arange(100), at)
    losses[at] = bad
    assert rule(lrs, losses) == rule(lrs[kept], losses[kept])


@every_rule
@given(st.lists(st.floats(width=32), max_size=40))
def test_whatever_the_losses_the_answer_is_a_finite_number_or_a_reason(rule, losses):
    said = rule(np.logspace(-7, 1, len(losses)) if losses else [], losses)
    assert (said.lr is None) == bool(said.reason)
    ends = [x for x in (said.low, said.lr, said.high) if x is not None]
    assert ends == sorted(ends) and all(1e-7 <= x <= 10 for x in ends)


@every_rule
def test_the_arguments_are_left_alone(rule):
    lrs, losses = noisy()
    losses[50] = np.nan
    before = losses.copy()
    rule(lrs, losses)
    assert np.array_equal(losses, before, equal_nan=True)


@every_rule
@given(st.lists(st.floats(0.5, 2), min_size=10, max_size=40), st.floats(1e-7, 1e-3), st.floats(1.5, 1e4))
def test_no_answer_lies_outside_of_what_was_tested(rule, losses, start, times):
    lrs = np.geomspace(start, start * times, len(losses))
    for said in (rule(lrs, losses), RangeTest(lrs, losses).suggest(rule)):
        ends = [x for x in (said.lr, said.low, said.high) if x is not None]
        assert all(lrs[0] <= x <= lrs[-1] for x in ends)


def test_minimum_declines_where_a_tenth_of_it_was_not_tested():
    lrs = np.geomspace(1e-2, 1, 21)
    said = minimum(lrs, np.abs(np.arange(21) - 5))
    assert said.lr is None and "lowest at 3.16E-02, and a tenth of that is below the first" in said.reason
    assert "start_lr" in said.reason
    assert minimum(lrs, np.abs(np.arange(21) - 15)).lr == pytest.approx(lrs[5])


# ---- RangeTest

def test_a_range_test_prints_its_suggestions():
    lines = repr(RangeTest(*curve())).splitlines()
    assert lines[0].startswith("Range test: 100 losses, lr 1.00E-07 to 1.00E+01, lowest smoothed loss 0.3")
    assert [line.split()[0] for line in lines[1:]] == ["basin", "steepest", "minimum", "valley"]
    assert lines[1] == f"  basin     {basin(*curve())!r}"
    assert repr(RangeTest([], [])) == "Range test without a batch"


def test_a_range_test_without_a_suggestion_says_one_thing_first():
    lines = repr(RangeTest(np.logspace(-7, 1, 50), np.ones(50))).splitlines()
    assert lines[1:] == ["  no suggestion: the loss never falls; try other learning rates"]
    test = RangeTest(np.logspace(-7, 1, 100), np.random.default_rng(0).normal(1, 0.1, 100))
    why, others = repr(test).splitlines()[1:]
    assert why == f"  no suggestion: {test.suggestion.reason}" and "too noisy" in why
    said = {name: s.lr for name, s in test.suggestions.items()}
    assert said["minimum"] is None
    assert others == f"  rules that do not need this: steepest {said['steepest']:.2E}, valley {said['valley']:.2E}"


def test_basin_reads_the_batches_own_losses_the_others_the_smoothed_ones():
    lrs, losses = curve()
    _, raw = curve(knee=-4)
    test = RangeTest(lrs, losses, raw)
    assert test.suggestion == basin(lrs, raw) != basin(lrs, losses)
    assert test.suggestions["steepest"] == steepest(lrs[10:-5], losses[10:-5])


def test_ones_own_rule_gets_the_smoothed_losses_and_may_give_a_number_or_none():
    lrs, losses = curve()
    losses[-1] = np.nan
    test = RangeTest(lrs, losses)
    assert test.suggest(lambda x, y: x[y.argmin()]) == Suggestion(lrs[losses[:95].argmin()])
    assert test.suggest(lambda x, y: len(x)).lr == 85
    assert test.suggest(lambda x, y: None).lr is None
    assert test.suggest(lambda x, y: Suggestion(0.1, 0.01, 1.0)).high == 1.0


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="no rule 'basni'.*Did you mean 'basin'"):
        RangeTest(*curve()).suggest("basni")


def test_trimmed_keeps_the_three_together():
    test = RangeTest([1, 2, 3, 4, 5], [9, np.nan, 7, 6, 5], [90, 80, 70, 60, 50]).trimmed(1, 1)
    assert (test.lrs.tolist(), test.losses.tolist(), test.raw_losses.tolist()) == ([3, 4], [7, 6], [70, 60])


# ---- with a learner

def test_a_suggestion_serves_as_the_learning_rate():
    learn = fake_learner(train_length=200, batch_size=10)
    said = learn.lr_find().suggestion
    assert said.low < said.lr < said.high
    learn.fit_one_cycle(1, said)
    assert max(learn.recorder.lrs) == said.lr


class Seen(Callback):
    """Which samples each range test saw, and the weights that it began with."""

    def __init__(self, learn):
        self.learn, self.rows, self.weights, self.wds = learn, [], [], []

    def on_train_begin(self):
        SEEN.append(self)
        self.weights = [p.detach().clone() for p in self.learn.model.parameters()]

    def on_batch_begin(self, last_input):
        self.rows.append(last_input)
        self.wds.append(self.learn.opt.wd)


SEEN = []


def test_a_sweep_starts_from_equal_weights_and_reads_the_same_samples_in_the_same_order():
    SEEN.clear()
    learn = fake_learner(train_length=60, callback_fns=Seen)
    learn.fit(1)
    before = [p.detach().clone() for p in learn.model.parameters()]
    data, steps, state = learn.data, learn.opt.opt.state_dict(), learn.data.train_dl.state_dict()
    SEEN.clear()
    found = learn.lr_find(num_it=12, wds=[1e-3, 0.1], bss=[5, 10])
    assert list(found) == ["wd 0.001, bs 5", "wd 0.001, bs 10", "wd 0.1, bs 5", "wd 0.1, bs 10"]
    assert [seen.wds[0] for seen in SEEN] == [1e-3, 1e-3, 0.1, 0.1]
    assert [len(seen.rows[0]) for seen in SEEN] == [5, 10, 5, 10]
    for seen in SEEN:
        assert all(map(torch.equal, seen.weights, before))
        assert torch.equal(torch.cat(seen.rows)[:60], torch.cat(SEEN[0].rows)[:60])
    # and the learner is as it was
    assert learn.data is data and learn.data.train_dl.state_dict() == state and learn.data.batch_size == 5
    assert all(map(torch.equal, learn.model.parameters(), before)) and learn.opt.wd == 0.01
    assert str(learn.opt.opt.state_dict()) == str(steps)


def test_a_sweep_of_one_is_a_sweep_and_equals_the_plain_test():
    learn = fake_learner(train_length=60)
    plain, swept = learn.lr_find(num_it=20, wd=0.1), learn.lr_find(num_it=20, wds=[0.1])
    assert isinstance(swept, RangeTests) and swept["wd 0.1"].losses.tolist() == plain.losses.tolist()
    assert learn.recorder.range_test is swept


def test_a_sweep_prints_a_table():
    tests = RangeTests({"wd 0.1": RangeTest(*curve()), "wd 1": RangeTest(np.logspace(-7, 1, 50), np.ones(50))})
    head, first, second, why = repr(tests).splitlines()
    assert head.split() == ["lowest", "loss", *RULES]
    assert first.split()[:4] == ["wd", "0.1", f"{min(curve()[1]):.4g}", f"{basin(*curve()).lr:.2E}"]
    assert second.split()[2:4] == ["1", "none"] and len(head) == len(first) == len(second)
    assert why == f"no suggestion for wd 1: {tests['wd 1'].suggestion.reason}"


def test_the_batch_size_of_a_foreign_loader_cannot_be_swept():
    x = torch.randn(20, 5)
    learn = fake_learner(data=DataBunch(DataLoader(TensorDataset(x, x.argmax(1).clamp(max=3)), 5), device="cpu",
                                        loss_func=nn.CrossEntropyLoss()))
    assert len(learn.lr_find(num_it=9, stop_div=False).lrs) == 9    # any loader will do for the test itself
    with pytest.raises(TypeError, match="bss= needs a loader whose batch size can be set.*DataLoader"):
        learn.lr_find(bss=[2])
    with pytest.raises(ValueError, match="bs=11 leaves no full batch: there are 10"):
        fake_learner(train_length=10).lr_find(bss=[5, 11])


# ---- Smith's form: linear, with the validation loss

def test_linear_steps():
    found = fake_learner(train_length=20).lr_find(0.1, 0.5, 5, stop_div=False, linear=True)
    assert found.lrs.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_the_validation_loss_is_measured_as_often_as_asked():
    measured = []

    class Watch(Callback):
        def on_epoch_end(self): pass
        def on_batch_end(self, train, last_loss, iteration):
            measured.append((iteration, float(last_loss))) if not train else None

    learn = fake_learner(train_length=60, valid_length=5, callbacks=Watch())
    found = learn.lr_find(0.01, 0.1, 10, linear=True, valid_every=3)
    assert found.lrs.tolist() == pytest.approx([0.03, 0.06, 0.09])
    assert found.losses.tolist() == found.raw_losses.tolist() == pytest.approx([loss for _, loss in measured], abs=1e-6)
    assert found.losses[2] < found.losses[0]
    # measuring leaves no trace in the training
    plain = learn.lr_find(0.01, 0.1, 10, linear=True)
    assert plain.lrs[2::3].tolist() == found.lrs.tolist()


def test_valid_every_needs_validation_data_and_a_whole_number():
    with pytest.raises(ValueError, match="valid_every=3 needs validation data"):
        fake_learner(valid_length=0).lr_find(valid_every=3)
    with pytest.raises(ValueError, match="valid_every must be at least 1, not 0"):
        fake_learner().lr_find(valid_every=0)


# ---- the picture

def test_the_plot_marks_and_shades_the_suggestion_and_prints_the_table(capsys):
    learn = fake_learner(train_length=200, batch_size=10)
    found = learn.lr_find()
    [axis] = learn.recorder.plot(suggestion=True, return_fig=True).axes
    assert f"Suggestion: {found.suggestion.lr:.2E}" in axis.get_legend().get_texts()[0].get_text()
    [shaded] = axis.patches
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == pytest.approx((found.suggestion.low,
                                                                                   found.suggestion.high))
    assert capsys.readouterr().out == f"{found!r}\n"
    assert learn.recorder.min_grad_lr == steepest(found.lrs[10:-5], found.losses[10:-5]).lr


def test_the_plot_of_a_sweep_has_a_curve_for_each_test():
    learn = fake_learner(train_length=200)
    found = learn.lr_find(num_it=40, stop_div=False, bss=[5, 20])
    [axis] = learn.recorder.plot(return_fig=True).axes
    assert [line.get_label() for line in axis.get_lines()] == ["bs 5", "bs 20"]
    assert axis.get_lines()[1].get_ydata().tolist() == found["bs 20"].losses[10:-5].tolist()
    [axis] = learn.recorder.plot(suggestion=True, return_fig=True).axes
    assert f"bs 20: {found['bs 20'].suggestion.lr:.2E}" in [t.get_text() for t in axis.get_legend().get_texts()]


def test_curves_of_a_sweep_that_coincide_are_all_seen():
    learn = fake_learner(train_length=100)
    same = RangeTest(*curve())
    learn.recorder.range_test = RangeTests({f"wd {i}": same for i in range(6)})
    for suggestion in (False, True):
        [axis] = learn.recorder.plot(suggestion=suggestion, return_fig=True).axes
        curves = [line for line in axis.get_lines() if len(line.get_xdata()) > 1]
        assert len({line.get_color() for line in curves}) == len(curves) == 6
        widths = [line.get_linewidth() for line in curves]      # each lies on the one before it, and is narrower
        assert widths == sorted(widths, reverse=True) and len(set(widths)) == 6
        assert [line.is_dashed() for line in curves] == [False] + [True] * 5     # and it has gaps
        assert len({str(line._unscaled_dash_pattern) for line in curves}) == 6   # told apart without colours
        handles = axis.get_legend().legend_handles
        assert [(h.get_color(), h._unscaled_dash_pattern) for h in handles] == [
            (line.get_color(), line._unscaled_dash_pattern) for line in curves]


def test_a_plot_without_a_suggestion_says_why(capsys):
    learn = fake_learner(train_length=200)
    learn.recorder.range_test = RangeTest(np.logspace(-7, 1, 50), np.ones(50))
    [axis] = learn.recorder.plot(suggestion=True, return_fig=True).axes
    assert axis.get_legend() is None and "no suggestion: the loss never falls" in capsys.readouterr().out
