"""The golden order of events with their arguments, and what the loop does between them."""
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from minifast import loop
from minifast.callback import Callback, CallbackHandler
from minifast.optimizer import OptimWrapper
from minifast.progress import Progress
from minifast.state import EVENTS, State


class Batches(list):
    def batches(self, start=0):
        return iter(self[start:])


def a_run(n_train=2, n_valid=1, epochs=1, callbacks=(), metrics=(), **state):
    model = nn.Linear(2, 1)
    batch = lambda i: (torch.full((3, 2), float(i + 1)), torch.zeros(3, 1))
    data = SimpleNamespace(train_dl=Batches(map(batch, range(n_train))), valid_dl=Batches(map(batch, range(n_valid))),
                           empty_val=n_valid == 0)
    learn = SimpleNamespace(model=model, parallel=None, loss_func=nn.functional.mse_loss, data=data,
                            opt=OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)))
    s = State(n_epochs=epochs, pbar=Progress(1, silent=True), **state)
    return learn, CallbackHandler(callbacks, metrics, s)


class Log(Callback):
    """Writes down every event with the figures that tell where the run is; answers what it is told to."""

    def __init__(self, **answers):
        self.log, self.answers = [], answers
        for event in EVENTS:
            setattr(self, f"on_{event}", partial(self.hear, event))

    def hear(self, event, epoch, num_batch, iteration, train, **kwargs):
        self.log.append(f"{event} {epoch} {num_batch} {iteration} {'train' if train else 'valid'}")
        answer = self.answers.get(event)
        return answer(iteration=iteration, train=train, epoch=epoch) if callable(answer) else answer


def batch(epoch, num_batch, iteration):
    events = ["batch_begin", "loss_begin", "backward_begin", "backward_end", "step_end", "batch_end"]
    return [f"{e} {epoch} {num_batch} {iteration} train" for e in events]


def valid(epoch, num_batch, iteration):
    return [f"{e} {epoch} {num_batch} {iteration} valid" for e in ("batch_begin", "loss_begin", "batch_end")]


def test_golden_order():
    log = Log()
    loop.fit(*a_run(epochs=2, callbacks=[log]))
    assert log.log == [
        "train_begin 0 0 0 train",
        "epoch_begin 0 0 0 train", *batch(0, 0, 0), *batch(0, 1, 1), *valid(0, 2, 2), "epoch_end 0 2 2 train",
        "epoch_begin 1 0 2 train", *batch(1, 0, 2), *batch(1, 1, 3), *valid(1, 2, 4), "epoch_end 1 2 4 train",
        "train_end 2 0 4 train",
    ]


def test_golden_order_of_a_metric():
    metric = Log(epoch_end=lambda **kw: {"last_metrics": [0.0, 1.0]})
    learn, handler = a_run(metrics=[metric])
    loop.fit(learn, handler)
    assert metric.log == ["train_begin 0 0 0 train", "epoch_begin 0 2 2 valid", *valid(0, 2, 2),
                          "epoch_end 0 2 2 valid", "train_end 1 0 2 train"]


def test_stop_epoch_ends_the_pass_but_not_the_epoch():
    log = Log(batch_end=lambda train, **kw: {"stop_epoch": train})
    loop.fit(*a_run(callbacks=[log]))
    assert log.log == ["train_begin 0 0 0 train", "epoch_begin 0 0 0 train", *batch(0, 0, 0), *valid(0, 1, 1),
                       "epoch_end 0 1 1 train", "train_end 1 0 1 train"]


def test_stop_epoch_in_validation_ends_the_validation():
    log = Log(batch_end=lambda train, **kw: {"stop_epoch": not train})
    loop.fit(*a_run(n_valid=3, callbacks=[log]))
    assert len([e for e in log.log if e.endswith("valid")]) == 3


def test_stop_training_finishes_the_epoch():
    log = Log(batch_end=lambda iteration, **kw: {"stop_training": iteration == 0})
    loop.fit(*a_run(epochs=3, callbacks=[log]))
    assert log.log[-2:] == ["epoch_end 0 2 2 train", "train_end 1 0 2 train"]


def test_skip_validate_and_no_validation_data_give_empty_columns():
    columns = []

    class Reads(Callback):
        def on_epoch_end(self, last_metrics): columns.append(last_metrics)

    class Metric(Callback):
        def on_epoch_end(self): raise AssertionError("no validation, no metric")

    for run in (a_run(metrics=[Metric()], callbacks=[Log(train_begin={"skip_validate": True}), Reads()]),
                a_run(n_valid=0, metrics=[Metric()], callbacks=[Reads()])):
        loop.fit(*run)
    assert columns == [[None, None], [None, None]]


def test_an_exception_ends_the_run_with_its_figures():
    log = Log(backward_end=lambda iteration, **kw: 1 / (1 - iteration))
    with pytest.raises(TypeError, match=r"returned 1.0") as e:
        loop.fit(*a_run(callbacks=[log]))
    assert log.log[-1] == "train_end 0 0 0 train"
    where = "in epoch 0, iteration 0; input float32 (3, 2), output float32 (3, 1), target float32 (3, 1)"
    assert where in e.value.__notes__


def test_the_state_lets_the_batch_go():
    learn, handler = a_run()
    loop.fit(learn, handler)
    assert handler.state.last_input is handler.state.last_output is handler.state.last_target is None


def test_skipping_backward_step_and_zero():
    learn, handler = a_run(n_train=1, n_valid=0, callbacks=[Log(backward_begin={"skip_bwd": True})])
    loop.fit(learn, handler)
    assert learn.model.weight.grad is None

    learn, handler = a_run(n_train=1, n_valid=0, callbacks=[Log(backward_end={"skip_step": True})])
    before = learn.model.weight.detach().clone()
    loop.fit(learn, handler)
    assert torch.equal(learn.model.weight, before) and handler.state.update == 0 and handler.state.iteration == 1

    learn, handler = a_run(n_train=1, n_valid=0, callbacks=[Log(step_end={"skip_zero": True})])
    loop.fit(learn, handler)
    assert learn.model.weight.grad.abs().sum() > 0


def test_decisions_last_one_batch():
    learn, handler = a_run(n_train=3, n_valid=0,
                           callbacks=[Log(backward_end=lambda iteration, **kw: {"skip_step": iteration == 0})])
    loop.fit(learn, handler)
    assert handler.state.update == 2


def test_an_answer_to_backward_begin_is_differentiated_but_not_recorded():
    losses = []

    class Doubles(Callback):
        def on_backward_begin(self, last_loss): return {"last_loss": 2 * last_loss}
        def on_backward_end(self): self.grad = learn.model.bias.grad.clone()
        def on_batch_end(self, last_loss, last_output):
            losses.append((float(last_loss), float((last_output.detach() ** 2).mean())))
            assert not last_loss.requires_grad
            assert self.grad == pytest.approx(2 * 2 * float(last_output.detach().mean()), rel=1e-5)

    learn, handler = a_run(n_train=1, n_valid=0, callbacks=[Doubles()])
    loop.fit(learn, handler)
    assert losses[0][0] == pytest.approx(losses[0][1])


def test_gradients_left_behind_are_dropped():
    learn, handler = a_run(n_train=1, n_valid=0)
    twin, twin_handler = a_run(n_train=1, n_valid=0)
    twin.model.load_state_dict(learn.model.state_dict())
    learn.model.weight.grad = torch.full((1, 2), 1e3)
    loop.fit(learn, handler)
    loop.fit(twin, twin_handler)
    assert torch.equal(learn.model.weight, twin.model.weight)


def test_a_run_can_begin_in_the_middle():
    log = Log(train_begin={"epoch": 1, "num_batch": 1, "iteration": 3, "update": 3})
    loop.fit(*a_run(epochs=2, callbacks=[log]))
    assert log.log == ["train_begin 0 0 0 train", *batch(1, 1, 3), *valid(1, 2, 4), "epoch_end 1 2 4 train",
                       "train_end 2 0 4 train"]


def test_the_valid_loss_is_a_mean_over_samples():
    learn, handler = a_run()
    xs = [torch.ones(4, 2), torch.full((1, 2), 7.0)]
    dl = [(x, torch.zeros(len(x), 1)) for x in xs]
    with handler.running():
        loop.validate(learn, handler, dl)
    with torch.no_grad():
        everything = float((learn.model(torch.cat(xs)) ** 2).mean())
    assert handler.state.last_metrics == [pytest.approx(everything, rel=1e-6)]


def test_smooth_loss_is_the_debiased_average_of_fastai_v1():
    losses, smooth, average = torch.rand(50, dtype=torch.float64), None, 0.0
    for i, loss in enumerate(losses):
        smooth = loop.smoothed(smooth, loss, i)
        average = 0.98 * average + 0.02 * float(loss)
        assert float(smooth) == pytest.approx(average / (1 - 0.98 ** (i + 1)), rel=1e-5)


def test_the_models_mode_follows_the_phase():
    modes = []

    class Watches(Callback):
        def on_batch_begin(self, train): modes.append((train, learn.model.training))

    learn, handler = a_run(n_train=1, n_valid=1, epochs=2, callbacks=[Watches()])
    loop.fit(learn, handler)
    assert modes == [(True, True), (False, False)] * 2
