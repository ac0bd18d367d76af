"""What the recorder says is what happened: arrays, table, frame, plots."""
import re
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn, optim

from minifast.callback import Callback, LearnerCallback
from minifast.data import DataBunch
from minifast.fakes import fake_data, fake_learner
from minifast.metrics import accuracy

SGD = partial(optim.SGD, momentum=0.9)


class Witness(LearnerCallback):
    """Reads what each training batch really used at the moment of the step, and its loss."""

    _order = 1000

    def on_train_begin(self):
        self.lrs, self.moms, self.losses = [], [], []

    def on_backward_end(self, last_loss):
        group = self.learn.opt.opt.param_groups[-1]
        self.lrs.append(group["lr"])
        self.moms.append(group["momentum"])
        self.losses.append(last_loss.item())


class ColumnX(LearnerCallback):
    _order = -20

    def on_train_begin(self): self.learn.recorder.add_metric_names(["x"])
    def on_epoch_end(self, epoch, last_metrics): return {"last_metrics": last_metrics + [torch.tensor(10.0 + epoch)]}


def uneven(**kwargs):
    """Nine training samples in batches of five and four, and likewise in validation."""
    train, valid = fake_data(train_length=9).train_ds, fake_data(train_length=9, seed=1).train_ds
    data = DataBunch.create(train, valid, bs=5, seed=0, drop_last=False, loss_func=nn.CrossEntropyLoss())
    return fake_learner(data=data, **kwargs)


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


# ---- arrays

def test_what_is_recorded_is_what_the_batches_used():
    witness = partial(Witness)
    learn = fake_learner(train_length=20, opt_func=SGD, callback_fns=witness)
    learn.fit_one_cycle(3, 0.1)
    rec, saw = learn.recorder, learn.witness
    assert len(rec.lrs) == 12 and list(rec.lrs) == saw.lrs and list(rec.moms) == saw.moms
    assert rec.raw_losses.tolist() == saw.losses
    assert len(set(rec.lrs)) == 12


BATCH_EVENTS = ["batch_begin", "loss_begin", "backward_begin", "backward_end", "step_end", "batch_end"]


# between the step and the recorder (on_step_end, _order below -10) is the one place that the recorder cannot see
@pytest.mark.parametrize("event, order", [(e, o) for e in BATCH_EVENTS for o in (-30, 0, 30)
                                          if (e, o) != ("step_end", -30)])
def test_a_callback_that_changes_the_learning_rate_in_mid_run(event, order):
    class Changes(LearnerCallback):
        _order = order

    def change(train):
        if train:
            learn.opt.lr = learn.opt.lr * 2

    learn = fake_learner(train_length=20, opt_func=SGD, callback_fns=Witness)
    changes = Changes(learn)
    setattr(changes, f"on_{event}", change)
    learn.fit(1, 0.01, callbacks=changes)
    assert list(learn.recorder.lrs) == learn.witness.lrs
    first = 0.01 if event in ("step_end", "batch_end") else 0.02
    assert list(learn.recorder.lrs) == pytest.approx([first * 2**i for i in range(4)])


def test_losses_are_smoothed_as_stated_and_raw_ones_are_not():
    learn = fake_learner(train_length=50)
    learn.fit(2)
    raw, average = learn.recorder.raw_losses, 0.0
    for i, loss in enumerate(raw):
        average = 0.98 * average + 0.02 * loss
        assert learn.recorder.losses[i] == pytest.approx(average / (1 - 0.98 ** (i + 1)), rel=1e-5)
    assert len(raw) == 20


def test_train_loss_is_the_mean_over_the_epochs_samples():
    learn = uneven()
    learn.fit(2)
    raw = learn.recorder.raw_losses.reshape(2, 2)
    assert learn.recorder.train_losses == pytest.approx(((5 * raw[:, 0] + 4 * raw[:, 1]) / 9).tolist())
    assert learn.recorder.train_losses[0] != pytest.approx(learn.recorder.losses[1])      # it is not the smoothed one


def test_val_losses_and_metrics_are_those_of_each_epoch():
    learn = uneven(metrics=accuracy)
    figures = []

    class Looks(Callback):
        def on_epoch_end(self): figures.append(learn.validate())

    learn.fit(2, 0.05, callbacks=Looks())
    assert list(zip(learn.recorder.val_losses, *zip(*learn.recorder.metrics, strict=True), strict=True)) == \
        [tuple(f) for f in figures]
    output, target = learn.model(learn.data.valid_ds.tensors[0]).detach(), learn.data.valid_ds.tensors[1]
    assert figures[-1] == pytest.approx([float(nn.functional.cross_entropy(output, target)),
                                         float((output.argmax(1) == target).float().mean())], rel=1e-6)


def test_more_batches_than_a_chunk():
    learn = fake_learner(train_length=600, batch_size=1, valid_length=0, opt_func=SGD, callback_fns=Witness)
    learn.fit(1, 1e-3)
    assert learn.recorder.raw_losses.tolist() == learn.witness.losses and len(learn.recorder.losses) == 600
    assert learn.recorder.train_losses[0] == pytest.approx(np.mean(learn.witness.losses))


def test_a_long_epoch_keeps_few_tensors_alive():
    kept = []

    class Looks(LearnerCallback):
        def on_batch_end(self): kept.append(len(self.learn.recorder._chunk) + len(self.learn.recorder._pending))

    fake_learner(train_length=600, batch_size=1, valid_length=0, callback_fns=Looks).fit(1)
    assert max(kept) < 520      # of 1200 losses, raw and smoothed


def test_losses_can_be_read_in_the_middle_of_an_epoch():
    seen = []

    class Looks(LearnerCallback):
        def on_batch_end(self, train, iteration, last_loss):
            if train and iteration % 100 == 0:
                seen.append((self.learn.recorder.raw_losses[-1], last_loss.item(), len(self.learn.recorder.losses)))

    learn = fake_learner(train_length=600, batch_size=1, callback_fns=Looks)
    learn.fit(1)
    assert [(raw == loss, n) for raw, loss, n in seen] == [(True, i + 1) for i in range(0, 600, 100)]
    assert len(learn.recorder.losses) == 600


def test_the_losses_of_an_epoch_that_failed_are_there():
    class Fails(Callback):
        def on_batch_end(self, iteration):
            if iteration == 2:
                raise RuntimeError("no more")

    learn = fake_learner(train_length=20)
    with pytest.raises(RuntimeError, match="no more"):
        learn.fit(1, callbacks=Fails())
    assert len(learn.recorder.lrs) == len(learn.recorder.losses) == 3
    assert learn.recorder.plot_losses(return_fig=True) is not None and len(learn.recorder.to_frame()) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_losses_of_any_precision_are_recorded_exactly(dtype):
    batches = [(torch.randn(4, 5, dtype=dtype), torch.randint(4, (4,))) for _ in range(3)]
    data = DataBunch(batches, batches, loss_func=nn.CrossEntropyLoss())
    learn = fake_learner(data=data, layers=[nn.Linear(5, 4, dtype=dtype)], opt_func=SGD, callback_fns=Witness)
    learn.fit(1)
    assert learn.recorder.raw_losses.tolist() == learn.witness.losses
    assert learn.recorder.train_losses[0] == pytest.approx(np.mean(learn.witness.losses), rel=1e-15)


def test_an_optimizer_without_momentum_is_recorded():
    learn = fake_learner(opt_func=optim.Adagrad)
    learn.fit(1)
    assert list(learn.recorder.moms) == [0.0, 0.0]


def test_the_last_layer_groups_rate_is_recorded():
    learn = fake_learner(layer_group_count=3)
    learn.fit(1, slice(1e-4, 1e-2))
    assert list(learn.recorder.lrs) == [1e-2, 1e-2]


def test_batches_that_were_stopped_or_skipped():
    class Stops(Callback):
        def on_batch_end(self, num_batch): return {"stop_epoch": num_batch == 1}

    learn = fake_learner(train_length=20)
    learn.fit(2, callbacks=Stops())
    assert learn.recorder.nb_batches == [2, 2] and len(learn.recorder.lrs) == 4


# ---- the table

TIME = r"00:00\n"


def test_the_printed_table(capsys):
    learn = uneven(metrics=[accuracy], silent=False)
    learn.fit(2)
    rec = learn.recorder
    rows = [f"{i}         {rec.train_losses[i]:.6f}    {rec.val_losses[i]:.6f}    {rec.metrics[i][0]:.6f}  00:00\n"
            for i in range(2)]
    assert capsys.readouterr().out == "epoch     train_loss  valid_loss  accuracy  time\n" + "".join(rows)


def test_columns_stay_in_their_places_without_validation(capsys):
    learn = fake_learner(valid_length=0, metrics=[accuracy], silent=False, callback_fns=ColumnX)
    learn.fit(1)
    header, row = capsys.readouterr().out.splitlines()
    assert header == "epoch     train_loss  valid_loss  accuracy  x         time"
    assert row == f"0         {learn.recorder.train_losses[0]:.6f}    #na#        #na#      10.000000  00:00"
    assert learn.recorder.val_losses == [None] and learn.recorder.metrics == [[None, 10.0]]


def test_without_a_time_column(capsys):
    fake_learner(silent=False, add_time=False, metrics=accuracy).fit(1)
    header, row = capsys.readouterr().out.splitlines()
    assert header == "epoch     train_loss  valid_loss  accuracy"
    assert re.fullmatch(r"0 +\d\.\d{6} +\d\.\d{6} +\d\.\d{6}", row)


def test_added_columns_are_of_one_run():
    learn = fake_learner(metrics=accuracy, callback_fns=ColumnX)
    learn.validate()
    learn.get_preds()
    learn.lr_find(num_it=3)
    for _ in range(2):
        learn.fit(2)
        assert learn.recorder.names == ["epoch", "train_loss", "valid_loss", "accuracy", "x", "time"]
        assert [m[1] for m in learn.recorder.metrics] == [10.0, 11.0]
    learn.callback_fns = []
    learn.fit(1)
    assert learn.recorder.names == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]


def test_a_column_that_has_no_value_this_time_is_empty():
    class Named(LearnerCallback):
        _order = -20
        def on_train_begin(self): self.learn.recorder.add_metric_names(["sometimes"])
        def on_epoch_end(self, epoch, last_metrics): return {"last_metrics": [*last_metrics, 1.0]} if epoch else None

    learn = fake_learner(callback_fns=Named)
    learn.fit(2)
    assert learn.recorder.metrics == [[None], [1.0]]


def test_a_value_without_a_column_is_named():
    class Unnamed(Callback):
        _order = -20
        def on_epoch_end(self, last_metrics): return {"last_metrics": last_metrics + [1.0]}

    learn = fake_learner(callbacks=Unnamed())
    with pytest.raises(ValueError, match=r"2 values for the columns \['valid_loss'\].*add_metric_names"):
        learn.fit(1)


def test_a_column_that_comes_too_late_is_named_before_the_first_batch():
    class Late(ColumnX):
        _order = 0

    learn = fake_learner(callback_fns=Late)
    with pytest.raises(ValueError, match=r"begun without the columns \['x'\].*_order below -10"):
        learn.fit(1)
    assert len(learn.recorder.lrs) == 0
    learn.callback_fns = []
    learn.fit(1)
    assert "x" not in learn.recorder.names


# ---- the frame

def test_to_frame():
    learn = fake_learner(metrics=accuracy, callback_fns=ColumnX)
    learn.fit(2)
    frame, rec = learn.recorder.to_frame(), learn.recorder
    assert list(frame.columns) == rec.names == ["epoch", "train_loss", "valid_loss", "accuracy", "x", "time"]
    assert frame["train_loss"].tolist() == rec.train_losses and frame["valid_loss"].tolist() == rec.val_losses
    assert frame["x"].tolist() == [10.0, 11.0] and frame["epoch"].tolist() == [0, 1]
    assert set(frame.dtypes.astype(str)) == {"int64", "float64"}
    assert all(0 < t < 10 for t in frame["time"])


def test_epochs_are_numbered_as_they_are_printed(capsys):
    class Later(Callback):
        def on_train_begin(self): return {"epoch": 2}

    learn = fake_learner(silent=False)
    learn.fit(4, callbacks=Later())
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["epoch", "2", "3"]
    assert learn.recorder.to_frame()["epoch"].tolist() == [2, 3] and learn.recorder.nb_batches == [2, 2]


def test_to_frame_says_nan_where_the_table_says_na():
    learn = fake_learner(valid_length=0, metrics=accuracy)
    learn.fit(1)
    frame = learn.recorder.to_frame()
    assert frame[["valid_loss", "accuracy"]].isna().all(axis=None) and frame["train_loss"].notna().all()


def test_to_frame_of_nothing_is_empty():
    assert len(fake_learner().recorder.to_frame()) == 0


# ---- what leaves the record alone

@pytest.mark.parametrize("use", [lambda learn: learn.validate(), lambda learn: learn.get_preds(),
                                 lambda learn: learn.predict(torch.zeros(5)), lambda learn: learn.lr_find(num_it=4)])
def test_only_a_fit_writes(use):
    learn = fake_learner(metrics=accuracy, callback_fns=ColumnX)
    learn.callbacks = [learn.recorder]      # it is there anyway, and this must not change a thing
    learn.fit(2, 0.05)
    rec = learn.recorder
    before = [list(rec.lrs), list(rec.moms), rec.losses.tolist(), rec.raw_losses.tolist(), rec.train_losses[:],
              rec.val_losses[:], rec.metrics[:], rec.nb_batches[:], rec.times[:], rec.names[:]]
    use(learn)
    assert learn.recorder is rec
    assert [list(rec.lrs), list(rec.moms), rec.losses.tolist(), rec.raw_losses.tolist(), rec.train_losses,
            rec.val_losses, rec.metrics, rec.nb_batches, rec.times, rec.names] == before


def test_a_new_fit_begins_a_new_record():
    learn = fake_learner()
    learn.fit(3)
    learn.fit(1)
    assert len(learn.recorder.lrs) == 2 and len(learn.recorder.val_losses) == len(learn.recorder.to_frame()) == 1


# ---- plots

def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_plot_draws_the_range_test_even_after_a_fit():
    learn = fake_learner(train_length=50)
    found = learn.lr_find(num_it=30)
    learn.fit(1)
    [drawn] = learn.recorder.plot(return_fig=True).axes[0].get_lines()
    assert drawn.get_xdata().tolist() == found.lrs[10:-5].tolist()
    assert drawn.get_ydata().tolist() == found.losses[10:-5].tolist()


def test_plot_without_a_range_test_draws_the_fit():
    learn = fake_learner(train_length=100)
    learn.fit_one_cycle(1, 0.1)
    [drawn] = learn.recorder.plot(skip_start=2, skip_end=3, return_fig=True).axes[0].get_lines()
    assert drawn.get_ydata().tolist() == learn.recorder.losses[2:-3].tolist()


def test_plot_lr_draws_what_was_recorded():
    learn = fake_learner(train_length=100)
    learn.fit_one_cycle(1, 0.1)
    _, (left, right) = plt.subplots(1, 2)
    assert learn.recorder.plot_lr(show_moms=True, skip_start=3, skip_end=2, ax=[left, right]) is None
    assert left.get_lines()[0].get_ydata().tolist() == list(learn.recorder.lrs[3:-2])
    assert right.get_lines()[0].get_ydata().tolist() == list(learn.recorder.moms[3:-2])
    assert left.get_lines()[0].get_xdata().tolist() == list(range(3, 18))


def test_plot_losses_draws_what_was_recorded():
    learn = fake_learner(train_length=100)
    learn.fit(2)
    axes = learn.recorder.plot_losses(return_fig=True).axes[0]
    assert np.array(lines(axes)["Train, smoothed"])[:, 1].tolist() == learn.recorder.losses.tolist()
    assert lines(axes)["Validation"] == [[20, learn.recorder.val_losses[0]], [40, learn.recorder.val_losses[1]]]
    later = learn.recorder.plot_losses(skip_start=20, skip_end=1, return_fig=True).axes[0]
    assert np.array(lines(later)["Train, smoothed"])[:, 1].tolist() == learn.recorder.losses[20:-1].tolist()
    assert "Validation" not in lines(later)       # the first lies before, the second after what is drawn


def test_plot_metrics_draws_what_was_recorded():
    learn = fake_learner(train_length=20, metrics=accuracy, callback_fns=ColumnX)
    learn.fit(3)
    one, two = learn.recorder.plot_metrics(return_fig=True).axes
    assert (one.get_ylabel(), two.get_ylabel()) == ("accuracy", "x")
    assert one.get_lines()[0].get_xydata().tolist() == [[4 * (i + 1), learn.recorder.metrics[i][0]] for i in range(3)]
    assert two.get_lines()[0].get_ydata().tolist() == [10.0, 11.0, 12.0]


def test_plots_return_the_figure_only_when_asked():
    learn = fake_learner(train_length=100, metrics=accuracy)
    learn.fit(1)
    for plot in (learn.recorder.plot_lr, learn.recorder.plot_losses, learn.recorder.plot_metrics, learn.recorder.plot):
        assert plot() is None
        figure, axes = plt.subplots()
        assert plot(ax=axes, return_fig=True) is figure and len(axes.get_lines()) >= 1


def test_plots_without_a_run_say_so():
    rec = fake_learner(metrics=accuracy).recorder
    for plot in (rec.plot, rec.plot_lr, rec.plot_losses, rec.plot_metrics):
        with pytest.raises(ValueError, match="nothing to plot|no metrics to plot"):
            plot()
