"""Callbacks that watch a column: which epoch is better, when they act, and what they load."""
from functools import partial

import pytest
import torch
from torch import nn

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks import (
    EarlyStoppingCallback,
    ReduceLROnPlateauCallback,
    SaveModelCallback,
    TrackerCallback,
)
from minifast.fakes import fake_learner
from minifast.metrics import accuracy


class Says(Callback):
    """A metric that says what it is told to, epoch by epoch."""

    def __init__(self, *values, name="score"):
        self.values, self.name = values, name

    def on_epoch_end(self, epoch, last_metrics):
        return {"last_metrics": [*last_metrics, self.values[epoch]]}


class Epochs(Callback):
    def __init__(self):
        self.n = 0

    def on_epoch_end(self):
        self.n += 1


def epochs_run(values, n=None, metric="score", **kwargs):
    learn, count = fake_learner(metrics=[Says(*values, name=metric)]), Epochs()
    learn.fit(n or len(values), callbacks=[EarlyStoppingCallback(learn, metric, **kwargs), count])
    return count.n


@pytest.mark.parametrize("patience, n", [(1, 3), (2, 6), (3, 7)])
def test_patience_is_the_number_of_epochs_in_a_row_without_an_improvement(patience, n):
    #                0  1  2  3  4  5  6  7
    assert epochs_run([1, 2, 2, 3, 1, 2, 1, 0], patience=patience) == n


def test_min_delta_must_be_exceeded():
    assert epochs_run([0.0, 0.5, 1.0, 1.25, 9.0], min_delta=0.25) == 4     # 1.25 is not more than 0.25 better than 1
    assert epochs_run([9.0, 8.0, 7.5, 7.0], mode="min", min_delta=0.5) == 3


def test_nan_is_no_improvement_and_what_is_not_computed_does_not_count():
    assert epochs_run([float("nan"), 1, 2]) == 1
    assert epochs_run([1, float("nan"), 2]) == 2
    assert epochs_run([1, None, None, 0, 5]) == 4


@pytest.mark.parametrize("name, values, n", [
    ("accuracy", [1, 2, 3, 2, 1], 4), ("my_loss", [3, 2, 1, 2, 1], 4), ("exp_rmspe", [3, 2, 1, 2, 1], 4),
    ("r2_score", [1, 2, 3, 2, 1], 4), ("error_rate", [3, 2, 1, 2, 1], 4)])
def test_auto_knows_the_direction(name, values, n):
    assert epochs_run(values, metric=name) == n


def test_a_name_that_does_not_tell_its_direction_must_be_given_one():
    with pytest.raises(ValueError, match="'quality', whose name does not say which way is better.*mode='max'"):
        epochs_run([1], metric="quality")
    with pytest.raises(ValueError, match="does not say"):
        epochs_run([1], metric="loss_score")
    assert epochs_run([1, 2, 1, 3], metric="quality", mode="max") == 3
    assert epochs_run([1, 2, 1, 3], metric="quality", mode="min") == 2


def test_an_unknown_column_is_an_error_before_epoch_0_that_lists_them():
    learn, count = fake_learner(metrics=[accuracy]), Epochs()
    with pytest.raises(ValueError, match="'acuracy', but the columns are train_loss, valid_loss, accuracy. "
                                         "Did you mean 'accuracy'"):
        learn.fit(1, callbacks=[EarlyStoppingCallback(learn, "acuracy"), count])
    assert count.n == 0 and len(learn.recorder.lrs) == 0


def test_without_validation_data_only_train_loss_can_be_watched():
    learn = fake_learner(valid_length=0)
    with pytest.raises(ValueError, match="no validation data: monitor 'train_loss'"):
        learn.fit(1, callbacks=[SaveModelCallback(learn)])
    tracker = TrackerCallback(learn, "train_loss")
    learn.fit(2, callbacks=[tracker])
    assert tracker.best == min(learn.recorder.train_losses)


@pytest.mark.parametrize("add_time", [True, False])
def test_every_column_can_be_watched(add_time):
    class Adds(LearnerCallback):
        _order = -20

        def on_train_begin(self):
            self.learn.recorder.add_metric_names(["extra_score"])

        def on_epoch_end(self, epoch, last_metrics):
            return {"last_metrics": [*last_metrics, epoch]}

    learn = fake_learner(metrics=[accuracy], add_time=add_time)
    trackers = [TrackerCallback(learn, name) for name in ("train_loss", "valid_loss", "accuracy", "extra_score")]
    learn.fit(3, callbacks=[Adds(learn), *trackers])
    r = learn.recorder
    assert [t.best for t in trackers] == [min(r.train_losses), min(r.val_losses), max(m[0] for m in r.metrics), 2]
    assert trackers[3].best_epoch == 2


def test_a_second_fit_starts_afresh():
    learn = fake_learner(metrics=[Says(5, 4, 3)])
    stop = EarlyStoppingCallback(learn, "score", patience=2)
    for _ in range(2):
        learn.fit(3, callbacks=[stop])
        assert (stop.best, stop.best_epoch, stop.wait) == (5, 0, 2)


def test_early_stopping_says_so(capsys):
    learn = fake_learner(metrics=[Says(5, 4, 3)], silent=False)
    learn.fit(3, callbacks=[EarlyStoppingCallback(learn, "score")])
    assert capsys.readouterr().out.endswith("early stopping after epoch 1: no better score in 1 epochs\n")
    learn.fit(2, callbacks=[EarlyStoppingCallback(learn, "score")])     # the run ends there anyway
    assert "early" not in capsys.readouterr().out and learn.stopped is None


def test_early_stopping_warns_of_a_lost_anneal():
    learn = fake_learner(metrics=[Says(5, 4, 3, 2, 1)])
    with pytest.warns(UserWarning, match=r"stopped early at lr=0.1: what OneCycle.* annealing to 0.005 is lost"):
        learn.fit_one_cycle(5, 0.1, callbacks=[EarlyStoppingCallback(learn, "score")])
    learn.fit(5, 0.1, callbacks=[EarlyStoppingCallback(learn, "score")])    # no schedule in this run, no warning
    learn.fit_one_cycle(2, 0.1, callbacks=[EarlyStoppingCallback(learn, "score")])     # the last epoch loses nothing


def weights(learn):
    return [p.detach().clone() for p in learn.model.parameters()]


class Keeps(LearnerCallback):
    """The weights after each epoch."""

    def on_train_begin(self):
        self.weights = []

    def on_epoch_end(self):
        self.weights.append(weights(self.learn))


def test_the_best_epoch_is_saved_and_loaded(tmp_path, capsys):
    learn = fake_learner(metrics=[Says(1, 5, 3)], path=tmp_path, silent=False)
    save, keep = SaveModelCallback(learn, "score"), Keeps(learn)
    learn.fit(3, 0.1, callbacks=[save, keep])
    assert all(map(torch.equal, weights(learn), keep.weights[1]))
    assert not torch.equal(keep.weights[1][0], keep.weights[2][0])
    assert capsys.readouterr().out.endswith("loaded bestmodel: epoch 1, score 5.000000\n")
    assert "opt" not in torch.load(tmp_path / "models" / "bestmodel.pth", weights_only=True)


def test_an_older_run_s_file_is_never_loaded(tmp_path):
    learn = fake_learner(metrics=[Says(float("nan"), float("nan"))], path=tmp_path)
    learn.save("bestmodel")
    keep = Keeps(learn)
    learn.fit(2, 0.1, callbacks=[SaveModelCallback(learn, "score"), keep])
    assert all(map(torch.equal, weights(learn), keep.weights[-1]))


def test_after_an_error_the_weights_stay_and_the_best_is_on_disk(tmp_path):
    class Fails(Callback):
        def on_epoch_begin(self, epoch):
            if epoch == 2:
                raise RuntimeError("enough")

    learn = fake_learner(metrics=[Says(5, 1, 1)], path=tmp_path)
    keep = Keeps(learn)
    with pytest.raises(RuntimeError, match="enough"):
        learn.fit(3, 0.1, callbacks=[SaveModelCallback(learn, "score", name="mine"), keep, Fails()])
    assert all(map(torch.equal, weights(learn), keep.weights[1]))
    learn.load("mine")
    assert all(map(torch.equal, weights(learn), keep.weights[0]))


def test_every_epoch_is_saved(tmp_path):
    learn = fake_learner(path=tmp_path, valid_length=0)
    keep = Keeps(learn)
    learn.fit(2, 0.1, callbacks=[SaveModelCallback(learn, every="epoch", name="e"), keep])
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["e_0.pth", "e_1.pth"]
    assert all(map(torch.equal, weights(learn), keep.weights[1]))
    learn.load("e_0")
    assert all(map(torch.equal, weights(learn), keep.weights[0]))


@pytest.mark.parametrize("every", ["improvement", "epoch"])
def test_a_folder_that_cannot_be_written_is_named_before_epoch_0(tmp_path, every):
    (tmp_path / "models").write_text("a file")
    learn, count = fake_learner(path=tmp_path), Epochs()
    with pytest.raises(OSError, match="nothing can be written to the folder .*models"):
        learn.fit(2, callbacks=[SaveModelCallback(learn, every=every), count])
    assert count.n == 0


def test_a_full_disk_is_a_warning_and_an_older_best_is_not_taken_for_the_best(tmp_path, monkeypatch):
    learn = fake_learner(metrics=[Says(1, 5, 3)], path=tmp_path)
    keep, save, n = Keeps(learn), learn.save, []

    def full(*args, **kwargs):
        n.append(1)
        if len(n) > 1:
            raise OSError(28, "No space left on device")
        return save(*args, **kwargs)
    monkeypatch.setattr(learn, "save", full)
    with pytest.warns(UserWarning) as caught:
        learn.fit(3, 0.1, callbacks=[SaveModelCallback(learn, "score"), keep])
    assert [str(w.message).split(" (")[0] for w in caught] == [
        f"the weights of epoch 1 could not be saved as {tmp_path / 'models' / 'bestmodel'}.pth",
        "the best epoch, 1, is not loaded"]
    assert all(map(torch.equal, weights(learn), keep.weights[2])) and learn.stopped is None


def test_a_best_file_that_is_gone_at_the_end_is_a_warning(tmp_path):
    class Removes(Callback):
        def on_epoch_end(self, epoch):
            if epoch == 2:
                (tmp_path / "models" / "bestmodel.pth").unlink()

    learn = fake_learner(metrics=[Says(1, 5, 3)], path=tmp_path)
    with pytest.warns(UserWarning, match="the best epoch, 1, is not loaded .*there is no file"):
        learn.fit(3, 0.1, callbacks=[SaveModelCallback(learn, "score"), Removes()])


def test_a_program_that_goes_to_another_folder_finds_its_best_weights(tmp_path, monkeypatch):
    class Goes(Callback):
        def on_epoch_begin(self, epoch):
            if epoch == 1:
                monkeypatch.chdir(tmp_path / "elsewhere")

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    learn = fake_learner(metrics=[Says(1, 5, 3)], path=".")
    keep = Keeps(learn)
    learn.fit(3, 0.1, callbacks=[SaveModelCallback(learn, "score"), keep, Goes()])
    assert all(map(torch.equal, weights(learn), keep.weights[1]))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_momentum_and_lr_of_the_best_epoch_do_not_come_back(tmp_path):
    learn = fake_learner(metrics=[Says(5, 1, 1)], path=tmp_path)
    before = learn.opt.mom
    learn.fit_one_cycle(3, 0.1, callbacks=[SaveModelCallback(learn, "score")])
    assert learn.opt.mom == before


def test_plateau_lowers_all_rates_by_the_same_factor_and_waits_anew():
    learn = fake_learner(metrics=[Says(5, 4, 4, 4, 6, 4, 4)], layer_group_count=3)
    reduce = ReduceLROnPlateauCallback(learn, "score", patience=2, factor=0.5)
    lrs = []

    class Reads(LearnerCallback):
        _order = 1

        def on_epoch_end(self):
            lrs.append(self.learn.opt.values("lr"))

    learn.fit(7, [1e-4, 1e-3, 1e-2], callbacks=[reduce, Reads(learn)])
    assert [lr[-1] for lr in lrs] == [1e-2, 1e-2, 5e-3, 5e-3, 5e-3, 5e-3, 2.5e-3]
    assert lrs[-1] == pytest.approx([2.5e-5, 2.5e-4, 2.5e-3], rel=1e-12)


def test_plateau_stops_at_min_lr_and_says_what_it_does(capsys):
    learn = fake_learner(metrics=[Says(5, 4, 4, 4)], layer_group_count=2, silent=False)
    learn.fit(4, [1e-3, 1e-2], callbacks=[ReduceLROnPlateauCallback(learn, "score", factor=0.5, min_lr=4e-3)])
    assert learn.opt.values("lr") == pytest.approx([4e-4, 4e-3], rel=1e-12)
    assert capsys.readouterr().out.count("lr is 0.00") == 2    # 0.005, 0.004, and nothing more


@pytest.mark.parametrize("make, message", [
    (partial(TrackerCallback, mode="least"), "mode must be 'auto', 'min' or 'max', not 'least'"),
    (partial(TrackerCallback, min_delta=-1), "min_delta must be a finite number of at least 0, not -1"),
    (partial(EarlyStoppingCallback, patience=-1), "patience must be at least 0, not -1"),
    (partial(SaveModelCallback, every="batch"), "every must be 'improvement' or 'epoch', not 'batch'"),
    (partial(ReduceLROnPlateauCallback, factor=1.0), "factor must be above 0 and below 1, not 1.0"),
    (partial(ReduceLROnPlateauCallback, min_lr=-1.0), "min_lr must be")])
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(fake_learner())


def test_a_tracker_in_fastai_v1_s_style_works():
    class Best(TrackerCallback):
        def on_train_begin(self, **kwargs):
            super().on_train_begin(**kwargs)
            self.seen = []

        def on_epoch_end(self, epoch, **kwargs):
            current = self.get_monitor_value()
            if current is not None and self.operator(current, self.best):
                self.best = current
                self.seen.append(epoch)

    learn = fake_learner(metrics=[Says(1, 3, 2, 4)])
    best = Best(learn, monitor="score", mode="max")
    learn.fit(4, callbacks=[best])
    assert best.seen == [0, 1, 3] and best.best == 4


def test_they_sit_out_the_finder_and_validation(tmp_path):
    learn = fake_learner(path=tmp_path)
    learn.callbacks = [SaveModelCallback(learn), EarlyStoppingCallback(learn)]
    learn.lr_find(num_it=12)
    learn.validate()
    assert not (tmp_path / "models").exists()


def test_losses_other_than_the_mean_are_watched_too():
    learn = fake_learner(loss_func=nn.CrossEntropyLoss(reduction="sum"))
    tracker = TrackerCallback(learn)
    learn.fit(2, callbacks=[tracker])
    assert tracker.best == min(learn.recorder.val_losses)


def test_a_fit_that_is_refused_costs_neither_the_last_record_nor_a_header(capsys):
    learn = fake_learner(train_length=20, silent=False, metrics=accuracy)
    learn.fit(2, 0.01)
    frame, losses = learn.recorder.to_frame(), learn.recorder.raw_losses.tolist()
    capsys.readouterr()
    with pytest.raises(ValueError, match="monitors 'acuracy'"):
        learn.fit(1, 0.01, callbacks=SaveModelCallback(learn, monitor="acuracy"))
    assert capsys.readouterr().out == ""
    assert learn.recorder.to_frame().equals(frame) and learn.recorder.raw_losses.tolist() == losses
    learn.fit(1, 0.01)
    assert len(learn.recorder.lrs) == 4 and capsys.readouterr().out.startswith("epoch ")
