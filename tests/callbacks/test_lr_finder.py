"""The range test: its learning rates, when it stops, and that it leaves nothing behind."""
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks.gradients import GradientAccumulation
from minifast.callbacks.lr_finder import LRFinder
from minifast.callbacks.terminate import StopAfterNBatches
from minifast.data import DataBunch
from minifast.fakes import fake_data, fake_learner
from minifast.learner import lr_find
from minifast.metrics import accuracy

SGD = partial(optim.SGD, momentum=0.9)


# ---- the learning rates

@pytest.mark.parametrize("num_it", [1, 2, 3, 7, 100])     # an epoch has 4 batches
def test_the_rates_grow_by_equal_factors_and_really_end_at_end_lr(num_it):
    used = []

    class Witness(LearnerCallback):
        _order = 1000
        def on_backward_end(self): used.append(self.learn.opt.opt.param_groups[0]["lr"])

    learn = fake_learner(train_length=20, callback_fns=Witness)
    found = learn.lr_find(1e-6, 1e-2, num_it, stop_div=False)
    assert used == found.lrs.tolist() and len(used) == len(found.losses) == num_it
    assert used[-1] == 1e-2
    if num_it > 1:
        assert used[0] == 1e-6
        assert np.diff(np.log(used)) == pytest.approx(np.log(1e4) / (num_it - 1))


def test_layer_groups_keep_their_ratios():
    used = []

    class Witness(LearnerCallback):
        _order = 1000
        def on_backward_end(self): used.append(self.learn.opt.values("lr"))

    learn = fake_learner(layer_group_count=3, callback_fns=Witness)
    learn.fit(1, [1e-4, 1e-3, 1e-1])
    used.clear()
    found = learn.lr_find(1e-5, 1.0, 9, stop_div=False)
    assert [lrs[-1] for lrs in used] == found.lrs.tolist() and used[-1][-1] == 1.0
    assert np.array(used) / np.array(used)[:, -1:] == pytest.approx(np.array([[1e-3, 1e-2, 1.0]] * 9))
    assert learn.opt.values("lr") == [1e-4, 1e-3, 1e-1]


def test_the_losses_are_those_of_the_batches():
    raw = []

    class Witness(Callback):
        def on_backward_begin(self, last_loss): raw.append(last_loss.item())

    found = fake_learner(train_length=20, callbacks=Witness()).lr_find(num_it=10)
    average = 0.0
    for i, loss in enumerate(raw):
        average = 0.98 * average + 0.02 * loss
        assert found.losses[i] == pytest.approx(average / (1 - 0.98 ** (i + 1)), rel=1e-5)
    assert found.raw_losses.tolist() == raw


def test_wd_is_for_the_test_only():
    used = []

    class Witness(LearnerCallback):
        def on_batch_end(self): used.append(self.learn.opt.wd)

    learn = fake_learner(callback_fns=Witness)
    learn.fit(1, wd=0.3)
    used.clear()
    learn.lr_find(num_it=2, wd=0.5)
    assert used == [0.5, 0.5] and learn.opt.wd == 0.3


# ---- when it stops

def diverging(loss_func=nn.functional.mse_loss):
    """A learner whose loss falls, and at a high learning rate explodes."""
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    data = DataBunch.create(torch.utils.data.TensorDataset(x, x[:, :1] * 3), bs=20, seed=0, loss_func=loss_func)
    torch.manual_seed(1)
    return fake_learner(data=data, layers=[nn.Linear(5, 1)], opt_func=optim.SGD, wd=0.0)


def scaled(factor, constant):
    return lambda output, target: factor * nn.functional.mse_loss(output, target) + constant


def test_it_stops_when_the_loss_diverges_and_not_before():
    found = diverging().lr_find(1e-4, 10, 100)
    best = found.losses.argmin()
    assert 0.05 < found.lrs[best] < 3 and best < len(found.lrs) < 100
    risen = (found.losses - found.losses.min()) / (found.losses[0] - found.losses.min())
    assert risen[-1] > 4 and (risen[best:-1] <= 4).all()


@pytest.mark.parametrize("factor, constant", [(1, -100), (1, 100), (1, -1e3), (2**20, 0), (2**-20, 0), (2**-10, -1)])
def test_it_stops_at_the_same_batch_for_a_loss_times_or_plus_a_constant(factor, constant):
    plain = diverging().lr_find(1e-4, 10, 100)
    other = diverging(scaled(factor, constant)).lr_find(1e-4 / factor, 10 / factor, 100)    # the same steps
    assert len(other.lrs) == len(plain.lrs) < 100


def test_a_huge_loss_that_falls_is_no_divergence():
    found = diverging(scaled(1e6, 0)).lr_find(1e-10, 1e-7, 100)
    assert len(found.lrs) == 100 and found.losses[-1] < found.losses[0]


def test_a_negative_loss_that_falls_is_no_divergence():
    learn = fake_learner(train_length=100, loss_func=lambda output, target: -output.pow(2).mean())
    found = learn.lr_find(1e-5, 1e-1, 40)
    assert len(found.lrs) == 40 and found.losses[-1] < found.losses[0] < 0


def test_without_stop_div_it_goes_to_the_end():
    found = diverging().lr_find(1e-4, 10, 60, stop_div=False)
    assert len(found.lrs) == 60 and found.lrs[-1] == 10 and found.losses[-1] > 100 * found.losses[0]


CALLS = []      # of the module: what a loss function has in its closure is put back


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("stop_div", [True, False])
def test_a_loss_that_is_not_finite_ends_it(bad, stop_div):
    CALLS.clear()

    def loss_func(output, target):
        CALLS.append(1)
        return nn.functional.cross_entropy(output, target) * (bad if len(CALLS) == 5 else 1)

    found = fake_learner(train_length=20, loss_func=loss_func).lr_find(num_it=30, stop_div=stop_div)
    assert len(found.lrs) == len(CALLS) == 5 and not np.isfinite(found.losses[-1])


def test_what_a_loss_function_holds_is_put_back():
    seen = []

    def loss_func(output, target):
        seen.append(len(seen))
        return nn.functional.cross_entropy(output, target) * (1 + len(seen) / 100)

    learn = fake_learner(train_length=20, loss_func=loss_func)
    learn.fit(1)
    before = list(seen)
    learn.lr_find(num_it=5)
    assert seen == before


# ---- it leaves nothing behind

class Noisy(nn.Module):
    """A model with all that could be left changed: batch norm, dropout, a buffer that is replaced, an attribute."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
        self.register_buffer("seen", torch.zeros(()))
        self.calls, self.history, self.fails_at = 0, [], None

    def forward(self, x):
        self.calls += 1
        if self.training and self.calls == self.fails_at:
            raise MemoryError("the model fails")
        self.seen = self.seen + len(x)
        self.history.append(self.calls)
        return self.body(x + 0.1 * torch.randn_like(x) * random.random() * np.random.rand())


class Counts(Callback):
    """A user's callback with attributes of many kinds, one of them shared with others."""

    def __init__(self, shared=None):
        self.n, self.shared, self.total = 0, [] if shared is None else shared, torch.zeros(2)
        self.nested = {"deep": [torch.zeros(1), {0}]}

    def on_train_begin(self): self.n = 0

    def on_batch_end(self, last_loss):
        self.n += 1
        self.shared.append(self.n)
        self.total += 1
        self.nested["deep"][0] += 1
        self.nested["deep"][1].add(self.n)
        self.nested[self.n] = float(last_loss)


def frozen(x):
    """Anything as something that is equal only if every bit is."""
    if isinstance(x, Tensor):
        return str(x.dtype), tuple(x.shape), x.detach().numpy().tobytes()
    if isinstance(x, np.ndarray):
        return str(x.dtype), x.tobytes()
    if isinstance(x, dict):
        return [(k if isinstance(k, (str, int)) else id(k), frozen(v)) for k, v in x.items()]
    if isinstance(x, (list, tuple)):
        return [type(x).__name__, *map(frozen, x)]
    return x if isinstance(x, (str, bytes, int, float, bool, set, type(None))) else id(x)


def everything(learn):
    model, rec = learn.model, learn.recorder
    return {
        "attributes of the learner": frozen({k: v for k, v in vars(learn).items() if k != "lr_finder"}),
        "weights and buffers": frozen(model.state_dict()),
        "modules": frozen([{k: v for k, v in vars(m).items() if not k.endswith("_hooks")} for m in model.modules()]),
        "gradients": frozen([p.grad for p in model.parameters()]),
        "what is frozen": [p.requires_grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "optimizer": frozen([learn.opt.opt.state, learn.opt.opt.param_groups]) if learn.has_opt else None,
        "generators": frozen([torch.get_rng_state(), np.random.get_state(), random.getstate()]),
        "loaders": [frozen(dl.state_dict()) for dl in learn.data.dls],
        "recorder": frozen({k: v for k, v in vars(rec).items() if k not in ("_learn", "range_test", "min_grad_lr")}),
        "callbacks": frozen([vars(cb) for cb in learn.callbacks]),
        "files": sorted(p.name for p in learn.path.rglob("*")),
    }


def noisy_learner(tmp_path, opt_func=SGD, **kwargs):
    kwargs = {"data": fake_data(train_length=40), **kwargs}
    return fake_learner(layers=[Noisy()], opt_func=opt_func, path=tmp_path, metrics=[accuracy],
                        **{"callbacks": Counts(), **kwargs})


class Raises(Callback):
    def __init__(self, error, at): self.error, self.at = error, at

    def on_backward_end(self, iteration):
        if iteration == self.at:
            raise self.error


def finds(learn):
    learn.lr_find(1e-4, 10, 20, stop_div=False)


def fails_in_a_callback(learn):
    learn.callback_fns = [lambda learn: Raises(RuntimeError("stop"), 5)]
    try:
        with pytest.raises(RuntimeError, match="stop"):
            finds(learn)
    finally:
        learn.callback_fns = []


def is_interrupted(learn):
    learn.callback_fns = [lambda learn: Raises(KeyboardInterrupt(), 5)]
    try:
        with pytest.raises(KeyboardInterrupt):
            finds(learn)
    finally:
        learn.callback_fns = []


def fails_in_the_model(learn):
    noisy = learn.model[0]
    noisy.fails_at = noisy.calls + 6
    with pytest.raises(MemoryError, match="the model fails"):
        finds(learn)
    noisy.fails_at = None


def fails_before_it_begins(learn):
    with pytest.raises(ValueError, match="end_lr must be above start_lr"):
        learn.lr_find(1.0, 0.1)


def runs_into_nan(learn):
    loss_func = learn.loss_func

    class NaN(nn.CrossEntropyLoss):
        def forward(self, output, target): return super().forward(output, target) * float("nan")

    learn.loss_func = NaN()
    learn.lr_find(num_it=20)
    learn.loss_func = loss_func


def sweeps(learn):
    learn.lr_find(1e-4, 1, 6, wds=[0.0, 0.1], bss=[4, 10])


def looks_at_the_validation(learn):
    learn.lr_find(1e-4, 1, 7, linear=True, valid_every=3)


WAYS = [finds, sweeps, looks_at_the_validation, fails_in_a_callback,
        is_interrupted, fails_in_the_model, fails_before_it_begins, runs_into_nan]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("opt_func", [SGD, optim.Adam], ids=["SGD", "Adam"])
@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_everything_is_as_before_bit_for_bit(tmp_path, way, opt_func, trained):
    learn = noisy_learner(tmp_path, opt_func)
    learn.callback_fns = []
    if trained:
        learn.fit(1, 0.05)
        learn.model(torch.ones(3, 5)).sum().backward()     # gradients that somebody else needs
    before = everything(learn)
    way(learn)
    after = everything(learn)
    assert {k: after[k] == before[k] for k in before} == dict.fromkeys(before, True)
    assert learn.has_opt == trained


def in_bf16(tmp_path):
    return noisy_learner(tmp_path).to_bf16()


def in_fp16(tmp_path):
    learn = noisy_learner(tmp_path).to_fp16(2.0**8)
    learn.model[0].body[2].p = 0.0      # what dropout zeroes may leave no gradient to overflow
    return learn


def with_a_shuffled_loader_of_torch(tmp_path):
    """Its order comes from the global generator when a pass begins."""
    sets = [torch.utils.data.TensorDataset(torch.randn(n, 5), torch.randint(4, (n,))) for n in (40, 10)]
    dls = [torch.utils.data.DataLoader(ds, 5, shuffle=True) for ds in sets]
    return noisy_learner(tmp_path, data=DataBunch(*dls, loss_func=nn.CrossEntropyLoss()))


def with_a_shuffled_loader_and_its_generator(tmp_path):
    ds = torch.utils.data.TensorDataset(torch.randn(40, 5), torch.randint(4, (40,)))
    dl = torch.utils.data.DataLoader(ds, 5, shuffle=True, generator=torch.Generator().manual_seed(3))
    return noisy_learner(tmp_path, data=DataBunch(dl, [next(iter(dl))], loss_func=nn.CrossEntropyLoss()))


def with_items_that_draw(tmp_path):
    class Jittered(torch.utils.data.Dataset):
        def __len__(self): return 40
        def __getitem__(self, i): return torch.randn(5) * np.random.rand() * random.random(), i % 4

    return noisy_learner(tmp_path, data=DataBunch.create(Jittered(), Jittered(), bs=5, loss_func=nn.CrossEntropyLoss()))


def with_mixup(tmp_path):
    return noisy_learner(tmp_path, callbacks=[]).mixup()


SETUPS = [noisy_learner, in_bf16, in_fp16, with_a_shuffled_loader_of_torch, with_a_shuffled_loader_and_its_generator,
          with_items_that_draw, with_mixup]


def plots_everything(learn):
    learn.lr_find(num_it=20)
    learn.recorder.plot(skip_start=0, skip_end=0, return_fig=True)
    learn.recorder.plot(skip_start=0, skip_end=0, suggestion=True, return_fig=True)
    learn.recorder.plot_lr(show_moms=True, return_fig=True)
    learn.recorder.plot_losses(return_fig=True)
    learn.recorder.plot_metrics(return_fig=True)
    learn.recorder.to_frame()


LOOKS = [finds, fails_in_a_callback, is_interrupted, fails_in_the_model, runs_into_nan, lambda learn: learn.validate(),
         lambda learn: learn.get_preds(with_loss=True), lambda learn: learn.predict(torch.zeros(5)), plots_everything,
         lambda learn: learn.summary(), lambda learn: learn.show_callbacks(), lambda learn: learn.check()]
LOOK_NAMES = ["finds", "fails_in_a_callback", "is_interrupted", "fails_in_the_model", "runs_into_nan", "validate",
              "get_preds", "predict", "plots_everything", "summary", "show_callbacks", "check"]


def seed_or_drawn(setup, tmp_path):
    """A learner, everything about it settled by one number."""
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    learn = setup(tmp_path)
    learn.callback_fns = []
    return learn


@pytest.mark.parametrize("setup", SETUPS, ids=[setup.__name__ for setup in SETUPS])
@pytest.mark.parametrize("look", LOOKS, ids=LOOK_NAMES)
def test_whatever_only_looks_leaves_everything_as_it_was(tmp_path, setup, look):
    learn = seed_or_drawn(setup, tmp_path)
    learn.fit_one_cycle(1, 0.05)
    before = everything(learn)
    ways = getattr(learn.model[0], "calls", 0), list(learn.model[0].history)
    look(learn)
    # a count that the model keeps of its calls is the model's affair where nothing is trained
    learn.model[0].calls, learn.model[0].history[:] = ways
    after = everything(learn)
    assert {k: after[k] == before[k] for k in before} == dict.fromkeys(before, True)


@pytest.mark.parametrize("setup", SETUPS, ids=[setup.__name__ for setup in SETUPS])
@pytest.mark.parametrize("look", LOOKS, ids=LOOK_NAMES)
def test_a_fit_after_a_look_equals_a_fit_without_it(tmp_path, setup, look):
    fits = []
    for before in (look, lambda learn: None):
        learn = seed_or_drawn(setup, tmp_path)
        if look is not plots_everything:    # before a first fit there is nothing to plot
            before(learn)
        learn.fit(1, 0.05)
        before(learn)
        learn.fit_one_cycle(1, 0.1)
        fits.append((learn.recorder.raw_losses.tolist(), learn.recorder.val_losses, learn.recorder.metrics,
                     frozen(learn.model.state_dict()), [frozen(s) for s in learn.opt.opt.state.values()],
                     frozen([torch.get_rng_state(), np.random.get_state(), random.getstate()])))
    assert fits[0] == fits[1]


def test_a_loss_that_learns_or_counts_is_put_back_too():
    class Counting(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.register_buffer("n", torch.zeros(()))
            self.factor, self.calls = nn.Parameter(torch.ones(())), 0

        def forward(self, output, target):
            self.n += 1
            self.calls += 1
            return self.factor * super().forward(output, target)

    learn = fake_learner(loss_func=Counting())
    learn.lr_find(num_it=3)
    learn.validate()
    assert learn.loss_func.n == 0 and learn.loss_func.factor.grad is None


def test_the_callbacks_did_take_part():
    seen = []

    class Sees(Callback):
        def on_batch_end(self, iteration): seen.append(iteration)

    fake_learner(callbacks=Sees()).lr_find(num_it=3)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("first", [finds, fails_in_a_callback, fails_in_the_model, lambda learn: learn.validate(),
                                   lambda learn: learn.get_preds(), lambda learn: learn.predict(torch.zeros(5))])
def test_a_fit_after_it_equals_a_fit_without_it(tmp_path, first):
    fits = []
    for before in (first, lambda learn: None):
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        learn = noisy_learner(tmp_path)
        learn.callback_fns = []
        before(learn)
        learn.fit_one_cycle(2, 0.1)
        before(learn)
        learn.fit(1, 0.1)
        fits.append((learn.recorder.raw_losses.tolist(), learn.recorder.val_losses, learn.recorder.metrics,
                     frozen(learn.model.state_dict())))
    assert fits[0] == fits[1]


def test_what_a_callback_shares_with_others_stays_shared():
    log = []
    learn = fake_learner(callbacks=Counts(log))
    learn.lr_find(num_it=5)
    learn.validate()
    assert log == [] and learn.callbacks[0].shared is log
    learn.fit(1)
    assert log == [1, 2, 3]


def test_callbacks_that_watch_a_fit_sit_it_out():
    class Watches(Callback):
        only_in_fit = True
        def on_train_begin(self): raise AssertionError("this is no fit")

    learn = fake_learner(callbacks=Watches(), callback_fns=lambda learn: Watches())
    learn.lr_find(num_it=2)
    learn.validate()
    learn.get_preds()
    with pytest.raises(AssertionError, match="this is no fit"):
        learn.fit(1)


def test_layers_that_a_callback_unfreezes_are_frozen_again():
    class Unfreezes(LearnerCallback):
        def on_train_begin(self): self.learn.unfreeze()

    learn = fake_learner(layer_group_count=2, callback_fns=Unfreezes)
    learn.freeze()
    learn.lr_find(num_it=2)
    assert [p.requires_grad for p in learn.model.parameters()] == [False, False, True, True]


def test_a_misspelt_event_is_the_error_that_is_seen():
    class Odd(Callback):
        def on_bach_end(self): pass

    with pytest.raises(TypeError, match="Odd.on_bach_end is no event"):
        fake_learner(callbacks=Odd()).lr_find(num_it=2)


# ---- what it gives

def test_the_result_is_where_it_is_looked_for(capsys):
    learn = fake_learner(silent=False)
    found = learn.lr_find(num_it=20)
    assert learn.recorder.range_test is found and isinstance(learn.lr_finder, LRFinder)
    out = capsys.readouterr().out
    assert "learn.recorder.plot()" in out and "epoch" not in out
    figure = learn.recorder.plot(return_fig=True)
    assert len(figure.axes[0].get_lines()[0].get_xdata()) == 5


@pytest.mark.parametrize("sweep", [{}, {"wds": [0.1, 0.2]}])
def test_what_it_says_promises_a_suggestion_only_where_there_is_one(capsys, sweep):
    learn = fake_learner(train_length=200, batch_size=10, silent=False)
    learn.lr_find(**sweep)
    assert "plot(suggestion=True) also marks a suggestion" in capsys.readouterr().out
    learn.lr_find(num_it=3, **sweep)
    assert capsys.readouterr().out == ("LR finder is complete; learn.recorder.plot() draws it. No suggestion: too "
                                       "short: 3 finite losses where it takes 10; try more (num_it=)\n")


def test_it_is_quiet_when_the_learner_is(capsys):
    fake_learner().lr_find(num_it=3)
    assert capsys.readouterr().out == ""


def test_a_failed_test_keeps_the_last_result():
    learn = fake_learner()
    found = learn.lr_find(num_it=3)
    learn.callback_fns = [lambda learn: Raises(RuntimeError("stop"), 1)]
    with pytest.raises(RuntimeError):
        learn.lr_find(num_it=3)
    assert learn.recorder.range_test is found


@pytest.mark.parametrize("way", [finds, is_interrupted, fails_in_a_callback], ids=lambda way: way.__name__)
def test_why_the_last_fit_ended_is_still_known_after_it(tmp_path, way):
    learn = noisy_learner(tmp_path)
    learn.callback_fns = []
    learn.fit(2, 0.01, callbacks=StopAfterNBatches(3))
    way(learn)
    assert learn.stopped == "by a callback after epoch 0"
    learn.fit(1, 0.01)
    way(learn)
    assert learn.stopped is None


def test_the_function_is_the_method():
    assert lr_find(fake_learner(), num_it=4).lrs.tolist() == fake_learner().lr_find(num_it=4).lrs.tolist()


def test_accumulated_gradients_are_counted_in_steps():
    batches, found = [], []
    for n_step in (1, 3):
        counted = []
        learn = fake_learner(train_length=40, callback_fns=[
            partial(GradientAccumulation, n_step=n_step), partial(CountBatches, counted=counted)])
        found.append(learn.lr_find(num_it=10, stop_div=False))
        batches.append(len(counted))
    assert batches == [10, 27]      # of 8 batches in an epoch there are windows of 3, 3 and 2
    assert found[0].lrs.tolist() == found[1].lrs.tolist() and found[1].lrs[-1] == 10


class CountBatches(LearnerCallback):
    def __init__(self, learn, counted):
        super().__init__(learn)
        self.counted = counted

    def on_batch_end(self, iteration):
        self.counted.append(iteration)
