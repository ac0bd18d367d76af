"""Runs that do not end well: NaN, Ctrl-C, exceptions."""
import gc
import os
import signal
import traceback
import weakref
from functools import partial

import pytest
import torch
from torch import nn, optim

from minifast.callback import Callback
from minifast.callbacks import Checkpoint, FiniteGuard, GradientAccumulation, MixUpCallback
from minifast.data import DataBunch
from minifast.fakes import fake_learner
from minifast.files import load_file
from minifast.learner import Learner, fit_one_cycle


class At(Callback):
    """Does something in one batch: `At(27, batch_begin=...)`, a function of the state."""

    def __init__(self, iteration, **actions):
        self.when = iteration
        for event, action in actions.items():
            setattr(self, f"on_{event}", partial(self.act, action))

    def act(self, action, iteration, train, **state):
        if iteration == self.when and train:
            return action(state)


def spoiled(state):
    x = state["last_input"].clone()
    x[0, 0] = float("nan")
    return {"last_input": x}


def overflow(module, grads):
    return tuple(g * float("inf") for g in grads)


class Overflows(nn.Module):
    """Its output is infinite from the `n`-th training batch on."""

    def __init__(self, n):
        super().__init__()
        self.register_buffer("left", torch.tensor(n))

    def forward(self, x):
        self.left -= int(self.training)
        return x * float("inf") if self.left < 0 else x


def learner(*callbacks, layers=None, **kwargs):
    layers = layers or [nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)]
    return fake_learner(batch_size=4, train_length=80, layers=layers, callbacks=list(callbacks), **kwargs)


def finite(learn):
    return all(bool(p.isfinite().all()) for p in learn.model.parameters())


def test_weights_that_the_last_step_has_spoiled_are_not_kept_as_good():
    def copy_at_each_epoch(state):
        learn.finite_guard.cost = 0.0

    def spoil(state):
        learn.model[0].weight.grad[0, 0] = float("inf")

    learn = learner(At(19, backward_end=spoil), At(20, epoch_begin=copy_at_each_epoch))     # epochs have 20 batches
    with pytest.raises(FloatingPointError, match="^epoch 0, batch 19, .*gradient of parameter 0.weight was the first"):
        learn.fit(2, 0.01)
    assert finite(learn)


def test_a_last_step_that_spoils_the_weights_ends_the_run_and_is_undone():
    def spoil(state):
        learn.model[0].weight.grad[0, 0] = float("inf")

    learn = learner(At(19, backward_end=spoil))
    with pytest.raises(FloatingPointError, match="^epoch 0, batch 19, .*gradient of parameter 0.weight was the first"):
        learn.fit(1, 0.01)
    assert finite(learn)


def test_a_parameter_that_is_not_trained_may_hold_infinity():
    learn = learner()
    learn.model.register_parameter("mask", nn.Parameter(torch.tensor([0.0, float("-inf")]), requires_grad=False))
    learn.fit(1, 0.01)
    assert learn.stopped is None and learn.recorder.nb_batches == [20]


@pytest.mark.parametrize("cut", [False, True])
def test_an_epoch_is_closed_once_however_it_ends(cut, monkeypatch):
    closed, close = [], FiniteGuard._check_epoch
    monkeypatch.setattr(FiniteGuard, "_check_epoch", lambda guard, loss: (closed.append(1), close(guard, loss)))
    learner(*([At(5, batch_end=lambda state: {"stop_epoch": True})] if cut else [])).fit(1, 0.01)
    assert closed == [1]


def test_a_metric_that_fails_over_nan_does_not_hide_where_it_came_from():
    def metric(output, target):
        if not output.isfinite().all():
            raise ValueError("not finite")
        return output.mean()

    learn = learner(At(17, batch_begin=spoiled), metrics=[metric])
    with pytest.raises(FloatingPointError, match="^epoch 0, batch 17, .*the input was the first to be NaN"):
        learn.fit(1, 0.01)


def test_a_resumed_run_repeats_its_own_batches(tmp_path):
    def run(*callbacks):
        learn = learner(*callbacks, path=tmp_path)
        learn.fit_one_cycle(2, 0.01, callbacks=Checkpoint(learn, "run", every=12))

    with pytest.raises(ZeroDivisionError):
        run(At(13, batch_begin=lambda state: 1 / 0))
    with pytest.raises(FloatingPointError, match="^epoch 0, batch 13, .*the input was the first to be NaN"):
        run(At(13, batch_begin=spoiled))


def test_a_spoiled_input_is_named_with_its_batch_and_rates():
    learn = learner(At(27, batch_begin=spoiled))
    with pytest.raises(FloatingPointError, match=r"^epoch 1, batch 7, lr 0.00891, momentum 0.861: the input was "
                                                 r"the first to be NaN\. The learner is as it was in epoch \d before"):
        learn.fit_one_cycle(3, 0.01)
    assert finite(learn) and learn.stopped == "by FloatingPointError in epoch 1, batch 8"
    assert len(learn.recorder.losses) == len(learn.recorder.lrs) == 28
    learn.recorder.plot_losses(return_fig=True)
    learn.callbacks = []
    learn.fit(1, 0.01)
    assert finite(learn) and learn.stopped is None


def test_the_first_layer_the_loss_and_the_step_are_told_apart():
    with pytest.raises(FloatingPointError, match=r"epoch 0, batch 5, .*: the output of layer 1 \(Overflows\) was the"):
        learner(layers=[nn.Linear(5, 5), Overflows(5), nn.Linear(5, 4)]).fit(1)
    with pytest.raises(FloatingPointError, match="epoch 0, batch 3, .*: the loss function's result was the first"):
        learner(At(3, backward_begin=lambda s: {"last_loss": s["last_loss"] * float("inf")})).fit(1)
    with pytest.raises(FloatingPointError, match=r"epoch 0, batch 0, lr 3e\+38.*after the optimizer's step"):
        big = At(0, backward_begin=lambda s: {"last_loss": s["last_loss"] * 1e3})
        learner(big, opt_func=optim.SGD).fit(1, 3e38)


def test_a_gradient_is_told_from_a_loss():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, grad):
            return grad * float("nan")

    class Bad(nn.Module):
        def forward(self, x):
            return Square.apply(x)

    learn = learner(layers=[nn.Linear(5, 6), Bad(), nn.Linear(6, 4)])
    with pytest.raises(FloatingPointError, match=r"batch 0.*: the gradient of the output of layer 0 \(Linear\) was"):
        learn.fit(1)
    assert finite(learn)


def test_the_weights_from_before_are_kept_and_the_run_repeats_exactly():
    """With what draws and what holds gradients back: where the copy was taken, training goes the same way again."""
    torch.manual_seed(1)
    learn = learner(At(13, batch_begin=spoiled), layers=[nn.Linear(5, 8), nn.Dropout(0.2), nn.Linear(8, 4)],
                    callback_fns=[MixUpCallback, partial(GradientAccumulation, n_step=3)])
    before = [p.clone() for p in learn.model.parameters()]
    with pytest.raises(FloatingPointError, match="epoch 0, batch 13"):
        learn.fit_one_cycle(1, 0.01)
    assert all(map(torch.equal, before, learn.model.parameters()))  # as it is over in milliseconds
    assert all(p.grad is None for p in learn.model.parameters())


def test_it_can_be_switched_off_and_watching_changes_nothing():
    torch.manual_seed(2)
    bad = learner(At(3, batch_begin=spoiled), check_finite=False)
    bad.fit(1)
    assert not finite(bad)
    runs = []
    for check in (True, False):
        torch.manual_seed(3)
        learn = learner(layers=[nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4)],
                        check_finite=check)
        learn.fit_one_cycle(2, 0.05)
        runs.append([*learn.model.state_dict().values(), torch.rand(3)])
    assert all(map(torch.equal, *runs))


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    learn = learner(At(3, batch_begin=spoiled), path=tmp_path, check_finite=False)
    with pytest.warns(UserWarning, match="not finite any more; .*run.ckpt keeps the last that were"):
        learn.fit(1, callbacks=[Checkpoint(learn, "run", every=1)])
    assert load_file(tmp_path / "models" / "run.ckpt")["position"]["iteration"] == 3


def interrupt(state):
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("event", ["batch_begin", "backward_end", "batch_end"])
def test_ctrl_c_ends_the_run_after_the_batch(tmp_path, event):
    ended = []
    end = Callback()
    end.on_train_end = lambda exception: ended.append(exception)
    learn = learner(At(5, **{event: interrupt}), end, path=tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(1, checkpoint="run")
    assert signal.getsignal(signal.SIGINT) is handler
    assert learn.stopped == "by KeyboardInterrupt in epoch 0, batch 5" and isinstance(ended[0], KeyboardInterrupt)
    assert len(learn.recorder.losses) == len(learn.recorder.lrs) == 6
    assert load_file(tmp_path / "models" / "run.ckpt")["position"]["num_batch"] == 6  # this batch is not lost
    learn.recorder.plot_losses(return_fig=True)
    whole = learner(seed=0, path=tmp_path / "b")
    learn.callbacks = []
    learn.fit_one_cycle(1)
    assert learn.stopped is None and len(whole.recorder.lrs) == 0


def test_a_second_ctrl_c_acts_at_once():
    def twice(state):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")
    with pytest.raises(KeyboardInterrupt):
        learner(At(5, batch_begin=twice)).fit(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *args: heard.append(1))
    try:
        learn = learner(At(5, batch_begin=interrupt))
        learn.fit(1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1] and learn.stopped is None


@pytest.mark.parametrize("event", ["batch_begin", "loss_begin", "backward_begin", "backward_end", "step_end",
                                   "batch_end"])
def test_an_exception_keeps_nothing_alive(event):
    seen = []

    def fail(state):
        seen.extend(weakref.ref(state[n]) for n in ("last_input", "last_output") if state[n] is not None)
        if event != "batch_end":    # then the loss is recorded
            seen.extend(weakref.ref(state[n]) for n in ("last_loss",) if state[n] is not None)
        raise RuntimeError("it broke")

    class Fails(Callback):
        def fail(self, iteration):
            if iteration == 5:
                fail(learn.handler.fields)

    setattr(Fails, f"on_{event}", Fails.fail)
    learn = learner(Fails())
    loss_func, train_dl = learn.loss_func, learn.data.train_dl
    with pytest.raises(RuntimeError, match="it broke") as kept:
        learn.fit(1)
    assert seen and [r() for r in seen] == [None] * len(seen)
    assert kept.value.__traceback__ is not None and learn.stopped == "by RuntimeError in epoch 0, batch 5"
    assert learn.handler is None and learn.loss_func is loss_func and learn.data.train_dl is train_dl
    learn.recorder.plot_losses(return_fig=True)
    learn.recorder.plot_lr(return_fig=True)
    learn.callbacks = []
    learn.fit(1)
    assert len(learn.recorder.losses) == 20


@pytest.mark.parametrize("train, args", [
    (Learner.fit, [1]), (Learner.fit_one_cycle, [1]), (Learner.fit_fc, [1]), (Learner.lr_find, []),
    (fit_one_cycle, [1]), (Learner.validate, []), (Learner.get_preds, [])])
def test_a_kept_exception_does_not_keep_the_learner(tmp_path, train, args):
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("it broke")

    learn = fake_learner(layers=[nn.Linear(5, 4), Fails()], path=tmp_path)
    alive, kept = weakref.ref(learn), None
    try:
        train(learn, *args)
    except RuntimeError as e:
        kept = e
    del learn
    gc.collect()
    assert kept is not None and alive() is None


def test_variables_of_the_users_functions_stay():
    """Those of the function that failed, and those of an exception that was being handled already."""
    def unrelated():
        precious = 42
        raise KeyError(precious)

    def failing(output, target):
        scale = 3.5
        raise ZeroDivisionError(scale)

    def variables(error):
        return {name: value for frame, _ in traceback.walk_tb(error.__traceback__)
                for name, value in frame.f_locals.items() if name in ("precious", "scale")}

    try:
        unrelated()
    except KeyError as first:
        with pytest.raises(ZeroDivisionError) as second:
            fake_learner(loss_func=failing).fit(1)
        assert (variables(first), variables(second.value)) == ({"precious": 42}, {"scale": 3.5})
    own = [frame for frame, _ in traceback.walk_tb(second.value.__traceback__)
           if frame.f_globals["__name__"] in ("minifast.loop", "minifast.learner")]
    assert len(own) > 2 and not any(frame.f_locals for frame in own)


def test_an_exception_in_the_model_keeps_nothing_alive():
    seen = []

    class Breaks(nn.Module):
        def forward(self, x):
            y = x * 2
            seen.extend([weakref.ref(x), weakref.ref(y)])
            del x, y    # what this function holds stays, for a debugger
            raise RuntimeError("it broke")
    learn = learner(layers=[nn.Linear(5, 5), Breaks()])
    for run in (lambda: learn.fit(1), learn.validate, learn.get_preds, learn.lr_find):
        with pytest.raises(RuntimeError, match="it broke") as kept:
            run()
        assert [r() for r in seen] == [None] * len(seen) and kept.value is not None
    assert len(seen) == 8


def test_what_ended_a_run_early_is_told():
    class Enough(Callback):
        def on_epoch_end(self):
            return {"stop_training": True}
    learn = learner(Enough())
    learn.fit(3)
    assert learn.stopped == "by a callback after epoch 0"


# ---- NaN: what was there before, and what takes no hooks

class Spare(nn.Module):
    """A layer, and a parameter that is not used."""

    def __init__(self, used=False):
        super().__init__()
        self.linear, self.spare = nn.Linear(5, 4), nn.Parameter(torch.full((3,), float("nan")))
        self.used = used

    def forward(self, x):
        return self.linear(x) + (self.spare.sum() if self.used else 0)


def test_nan_in_a_parameter_that_is_not_used_does_not_matter(tmp_path):
    learn = learner(layers=[Spare()], path=tmp_path)
    learn.fit(2, 0.01, callbacks=[Checkpoint(learn, "run", every=3)])
    assert learn.stopped is None and len(learn.recorder.lrs) == 40
    assert load_file(tmp_path / "models" / "run.ckpt")["position"]["epoch"] == 2
    assert not [w for w in learn.check().warnings if "values" in w or "NaN" in w]


def test_nan_from_before_that_is_used_is_named():
    with pytest.raises(FloatingPointError, match=r"^epoch 0, batch 0.*output of layer 0 \(Spare\) was the first to "
                                                 r"be NaN \(not finite before the run already: 0.spare\)\. The"):
        learner(layers=[Spare(used=True)]).fit(1)


def test_a_mask_that_is_infinite_does_not_hinder_a_checkpoint(tmp_path):
    learn = learner(path=tmp_path)
    learn.model.register_parameter("mask", nn.Parameter(torch.tensor([0.0, float("-inf")]), requires_grad=False))
    learn.fit(1, 0.01, callbacks=[Checkpoint(learn, "run", every=3)])
    assert load_file(tmp_path / "models" / "run.ckpt")["position"]["epoch"] == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("how", ["script", "trace"])
def test_nan_in_a_scripted_model_is_explained(how, whole):
    def scripted(module):
        return torch.jit.script(module) if how == "script" else torch.jit.trace(module, torch.randn(2, 5))
    linear = nn.Linear(5, 4)
    model = scripted(nn.Sequential(linear, nn.Tanh())) if whole else nn.Sequential(scripted(linear), nn.Tanh())
    data = learner().data
    learn = Learner(data, model, callbacks=At(7, batch_begin=spoiled), silent=True)
    with pytest.raises(FloatingPointError, match="^epoch 0, batch 7, .*: the input was the first to be NaN"):
        learn.fit(1, 0.01)
    assert finite(learn)
    learn.callbacks = [At(7, loss_begin=lambda s: {"last_output": s["last_output"] * float("nan")})]
    with pytest.raises(FloatingPointError, match="^epoch 0, batch 7, .*: the output of the model was the first"):
        learn.fit(1, 0.01)


def test_the_repetition_does_not_call_what_only_watches():
    class Watches(Callback):
        role = "watching"

        def __init__(self): self.batches = []
        def on_batch_begin(self, iteration): self.batches.append(iteration)
        def on_epoch_begin(self): self.batches.append("epoch")

    watches = Watches()
    with pytest.raises(FloatingPointError, match="batch 13"):
        learner(watches, At(13, batch_begin=spoiled)).fit(1, 0.01)
    assert watches.batches == ["epoch", *range(len(watches.batches) - 1)]


# ---- the note on an error

class Loader:
    """Three batches, and an error in place of the second one."""

    def __init__(self, at=1): self.at = at
    def __len__(self): return 3
    def __iter__(self):
        for i in range(3):
            if i == self.at:
                raise OSError("file 9 is broken")
            yield torch.randn(7, 5), torch.zeros(7).long()


@pytest.mark.parametrize("data", [DataBunch(Loader(), loss_func=nn.CrossEntropyLoss()),
                                  DataBunch([(torch.randn(7, 5), torch.zeros(7).long())], Loader(),
                                            loss_func=nn.CrossEntropyLoss())], ids=["training", "validation"])
def test_a_loader_s_error_does_not_show_the_batch_before(data):
    with pytest.raises(OSError, match="file 9 is broken") as caught:
        fake_learner(data=data).fit(1)
    assert caught.value.__notes__ == ["in epoch 0, iteration 1, between two batches"]


def test_an_error_in_a_batch_shows_that_batch():
    class Fails(Callback):
        def on_epoch_end(self): raise RuntimeError("after the batches")

    with pytest.raises(ZeroDivisionError) as caught:
        learner(At(3, loss_begin=lambda state: 1 / 0)).fit(1)
    assert caught.value.__notes__[-1] == ("in epoch 0, iteration 3; input float32 (4, 5), output float32 (4, 4), "
                                          "target int64 (4,) from 1 to 3")
    with pytest.raises(RuntimeError) as caught:
        learner(Fails()).fit(1)
    assert caught.value.__notes__[-1] == "in epoch 0, iteration 20, between two batches"
