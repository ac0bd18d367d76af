"""Timer, TensorBoard and ShowGraph say what happened; RNNTrainer what a recurrent model needs."""
import time
import types

import pytest
import torch
from torch import nn

from minifast.callback import Callback
from minifast.callbacks import CSVLogger, RNNTrainer, ShowGraph, TensorBoard, Timer
from minifast.fakes import fake_learner


class Sleeps(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.linear, self.seconds = nn.Linear(5, 4), seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return self.linear(x)


class SleepsInCallback(Callback):
    def on_batch_end(self, train):
        if train:
            time.sleep(0.01)


def test_timer_knows_where_the_time_went(capsys):
    learn = fake_learner(layers=[Sleeps(0.02)], train_length=15)
    learn.data.train_dl.add_tfm(lambda batch: (time.sleep(0.03), batch)[1])
    learn.silent = False
    learn.fit(2, callbacks=[SleepsInCallback(), Timer(learn)])
    for spent, seconds in zip(learn.timer.times, learn.recorder.times, strict=True):
        # sleeping takes at least as long as asked for; everything else here is a matter of milliseconds
        assert 0.09 <= spent["data"] and 0.06 <= spent["forward"] and 0.03 <= spent["rest"]
        assert 0.02 <= spent["validation"]
        assert sum(spent.values()) == pytest.approx(seconds, rel=0.5)
    assert capsys.readouterr().out.strip().splitlines()[-1] == learn.timer.report()
    assert not learn.model._forward_hooks and not learn.opt.opt._optimizer_step_pre_hooks


def test_timer_has_nothing_to_report_before_a_fit():
    with pytest.raises(ValueError, match="no epoch has been timed"):
        Timer(fake_learner()).report()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")   # tensorboard's own
def test_tensorboard_holds_what_the_recorder_holds(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    learn = fake_learner(path=tmp_path, metrics=[lambda o, t: (o.argmax(1) == t).float().mean()])
    board = TensorBoard(learn)
    for n in (1, 2):
        learn.fit(3, 0.1, callbacks=board)
        assert board.folder == tmp_path / "tensorboard" / f"00{n}"
        events = accumulator.EventAccumulator(str(board.folder))
        events.Reload()
        r = learn.recorder
        for tag, steps, values in [("batch/loss", range(1, 7), r.losses), ("batch/lr", range(1, 7), r.lrs),
                                   ("batch/mom", range(1, 7), r.moms), ("epoch/train_loss", (2, 4, 6), r.train_losses),
                                   ("epoch/valid_loss", (2, 4, 6), r.val_losses),
                                   ("epoch/<lambda>", (2, 4, 6), [m[0] for m in r.metrics])]:
            scalars = events.Scalars(tag if tag in events.Tags()["scalars"] else "epoch/_lambda_")
            assert [s.step for s in scalars] == list(steps)
            assert [s.value for s in scalars] == pytest.approx(list(values), rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_that_cannot_write_warns_once_and_the_run_goes_on(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("in the way")
    learn = fake_learner(path=tmp_path)
    with pytest.warns(UserWarning, match="cannot be written, the run goes on") as told:
        learn.fit(3, callbacks=TensorBoard(learn, tmp_path / "file"))
    assert len(told) == 1 and len(learn.recorder.train_losses) == 3


def test_show_graph_draws_in_a_notebook_and_nothing_elsewhere():
    learn = fake_learner()
    shown = []
    pbar = types.SimpleNamespace(face="notebook", graph=lambda figure: shown.append(len(figure.axes[0].lines)))

    class Draw(Callback):   # after the recorder has this epoch
        def on_epoch_end(self, epoch):
            graph.on_epoch_end(epoch, pbar)

    graph = ShowGraph(learn)
    learn.fit(2, callbacks=Draw())
    assert shown == [3, 3]      # smoothed, raw, validation; drawn anew, not on top
    graph.on_train_end(pbar)
    learn.fit(1, callbacks=graph)
    assert graph.figure is None


def test_what_a_notebook_is_sent_grows_linearly(monkeypatch, tmp_path):
    """A picture takes as long as the run has points, a redraw of the table has some rows: a limit to both for each
    epoch."""
    drawn = sent = 0

    def draw(graph):
        nonlocal drawn
        drawn += len(graph.learn.recorder.lrs)

    def display(handle, shown, **kwargs):
        nonlocal sent
        sent += sum(map(len, shown.values())) if isinstance(shown, dict) else 50_000
        return "handle"

    monkeypatch.setattr(ShowGraph, "_draw", draw)
    monkeypatch.setattr("minifast.progress._in_notebook", lambda: True)
    monkeypatch.setattr("minifast.progress._display", display)
    found = []
    for n_epochs in (500, 1000):
        drawn = sent = 0
        learn = fake_learner(batch_size=10, train_length=10, valid_length=0, callback_fns=[ShowGraph, CSVLogger],
                             path=tmp_path, silent=False)
        learn.fit(n_epochs)
        assert len((tmp_path / "history.csv").read_text().splitlines()) == 1 + n_epochs
        assert drawn <= 100 * n_epochs
        found.append(sent)
    assert found[1] <= 2.1 * found[0]


def test_a_picture_of_the_last_epoch(monkeypatch):
    monkeypatch.setattr("minifast.progress._in_notebook", lambda: True)
    monkeypatch.setattr("minifast.progress._display", lambda *args, **kwargs: "handle")
    drawn = []
    monkeypatch.setattr(ShowGraph, "_draw", lambda graph: drawn.append(len(graph.learn.recorder.times)))
    learn = fake_learner(batch_size=10, train_length=10, valid_length=0, callback_fns=[ShowGraph], silent=False)
    learn.fit(302)
    assert drawn[:101] == [*range(1, 102)] and drawn[101:104] == [103, 105, 107] and drawn[-1] == 302


def test_a_graph_that_cannot_be_drawn_is_one_warning(monkeypatch):
    learn = fake_learner(callback_fns=[ShowGraph])
    monkeypatch.setattr(type(learn.recorder), "plot_losses", lambda *args, **kwargs: 1 / 0)
    monkeypatch.setattr("minifast.progress._in_notebook", lambda: True)
    monkeypatch.setattr("minifast.progress._display", lambda *args, **kwargs: "handle")
    learn.silent = False
    with pytest.warns(UserWarning, match="the losses cannot be drawn .*training goes on") as caught:
        learn.fit(3)
    assert len(caught) == 1 and len(learn.recorder.train_losses) == 3


class Recurrent(nn.Module):
    """Returns (output, raw, dropped) and counts its resets."""

    def __init__(self):
        super().__init__()
        self.linear, self.resets = nn.Linear(5, 4), []

    def reset(self):
        self.resets.append(self.training)

    def forward(self, x):
        self.raw = self.linear(x)[:, None] * torch.tensor([1.0, 2.0])[:, None]      # (batch, 2, 4)
        return self.linear(x), [self.raw], [self.raw * 2]


def test_rnn_trainer_regularises_what_is_differentiated_and_not_what_is_recorded():
    learn, model = fake_learner(batch_size=10, train_length=10), Recurrent()
    learn.model = model
    learn.layer_groups = [model]
    seen = {}

    class Watch(Callback):
        _order = 10

        def on_backward_begin(self, last_loss):
            seen["loss"], seen["raw"] = last_loss.detach(), model.raw.detach()

    learn.fit(1, callbacks=[RNNTrainer(learn, alpha=2.0, beta=3.0), Watch()])
    raw = seen["raw"]
    penalty = 2 * (2 * raw).pow(2).mean() + 3 * (raw[:, 1] - raw[:, 0]).pow(2).mean()
    assert float(seen["loss"]) == pytest.approx(learn.recorder.raw_losses[0] + float(penalty), rel=1e-5)


def test_rnn_trainer_resets_before_each_pass_and_says_what_the_model_lacks():
    learn = fake_learner()
    learn.model = Recurrent()
    learn.layer_groups = [learn.model]
    learn.fit(2, callbacks=RNNTrainer(learn))
    assert learn.model.resets == [True, False, True, False]     # whether it was in training mode
    with pytest.raises(ValueError, match="needs? a model that returns"):
        fake = fake_learner()
        fake.fit(1, callbacks=RNNTrainer(fake, alpha=1.0))
    with pytest.raises(ValueError, match="beta must be a finite number"):
        RNNTrainer(learn, beta=-1)
