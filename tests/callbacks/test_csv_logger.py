"""The table as a file: what it holds, to the last digit, whatever happens to the run or to the disk."""
import pandas as pd
import pytest

from minifast.callback import Callback, LearnerCallback
from minifast.callbacks.csv_logger import CSVLogger
from minifast.fakes import fake_learner
from minifast.metrics import accuracy


def learner(path, **kwargs):
    return fake_learner(path=path, metrics=[accuracy], **kwargs)


@pytest.mark.parametrize("kwargs", [{}, {"valid_length": 0}, {"add_time": False}])
def test_the_file_is_what_the_recorder_holds(tmp_path, kwargs):
    learn = learner(tmp_path, **kwargs)
    log = CSVLogger(learn)
    learn.fit(3, callbacks=[log])
    file, table = log.read_logged_file(), learn.recorder.to_frame()
    assert list(file) == learn.recorder.names
    pd.testing.assert_frame_equal(file, table.astype(file.dtypes), check_exact=True)
    assert (tmp_path / "history.csv").read_text().count("\n") == 4


def test_a_name_with_a_comma_stays_one_column(tmp_path):
    def metric(output, target):
        return output.sum() * 0 + 1

    metric.__name__ = 'a, "b"'
    learn = fake_learner(path=tmp_path, metrics=[metric])
    learn.fit(1, callbacks=[log := CSVLogger(learn, "sub/run")])
    assert log.path == tmp_path / "sub" / "run.csv"
    assert log.read_logged_file()['a, "b"'].tolist() == [1.0]


def test_a_new_run_replaces_the_file_and_append_adds_to_it(tmp_path):
    learn = learner(tmp_path)
    learn.fit(2, callbacks=[log := CSVLogger(learn)])
    learn.fit(1, callbacks=[log])
    first = log.path.read_text()
    assert first.count("\n") == 2
    learn.fit(2, callbacks=[more := CSVLogger(learn, append=True)])
    text = more.path.read_text()
    assert text.startswith(first) and text.count("epoch,") == 1
    assert more.read_logged_file()["epoch"].tolist() == [0, 0, 1]
    learn.fit(1, callbacks=[more])
    assert more.read_logged_file()["epoch"].tolist() == [0, 0, 1, 0]


def test_append_begins_a_file_where_there_is_none(tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, callbacks=[log := CSVLogger(learn, append=True)])
    assert log.read_logged_file()["epoch"].tolist() == [0]


def test_append_to_other_columns_is_an_error_before_epoch_0(tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, callbacks=[CSVLogger(learn)])
    before, trained = (tmp_path / "history.csv").read_text(), list(learn.recorder.lrs)
    learn.metrics = []
    with pytest.raises(ValueError, match="history.csv has the columns epoch,train_loss,valid_loss,accuracy,time, "
                                         "this run has epoch,train_loss,valid_loss,time: choose another filename"):
        learn.fit(1, callbacks=[CSVLogger(learn, append=True)])
    assert (tmp_path / "history.csv").read_text() == before
    assert trained and list(learn.recorder.lrs) == trained     # the record of the fit before


def test_a_run_that_goes_on_writes_each_epoch_once(tmp_path):
    """As a resumed run does: the log, its state and the recorder's are put back when the run begins, at epoch 1."""

    class Reads(LearnerCallback):
        _order = 1000

        def on_epoch_end(self, epoch):
            if epoch == 0:
                self.states = log.state_dict(), self.learn.recorder.state_dict()

    class GoesOn(LearnerCallback):
        _order = 1000

        def on_train_begin(self):
            again.load_state_dict(reads.states[0])
            self.learn.recorder.load_state_dict(reads.states[1])
            return {"epoch": 1}

    learn = learner(tmp_path)
    learn.fit(1, callbacks=[CSVLogger(learn)])
    log, reads = CSVLogger(learn, append=True), Reads(learn)
    learn.fit(2, callbacks=[log, reads])    # the file has both epochs, the state that is gone on from has one
    again = CSVLogger(learn, append=True)
    learn.fit(3, callbacks=[again, GoesOn(learn)])
    assert again.read_logged_file()["epoch"].tolist() == [0, 0, 1, 2]
    assert again.read_logged_file()["train_loss"].tolist()[1:] == learn.recorder.train_losses


def test_a_disk_that_fails_stops_nothing_and_is_told_once(tmp_path):
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    learn = learner(tmp_path)
    with pytest.warns(UserWarning, match="run.csv could not be written .*; training goes on") as told:
        learn.fit(3, callbacks=[CSVLogger(learn, "taken/run")])
    assert len(told) == 1 and len(learn.recorder.val_losses) == 3


def test_what_a_failing_disk_missed_is_made_up_for(tmp_path):
    class Frees(Callback):
        def on_epoch_begin(self, epoch):
            if epoch == 1:
                (tmp_path / "taken").unlink()

    (tmp_path / "taken").write_text("")
    learn = learner(tmp_path)
    with pytest.warns(UserWarning, match="could not be written"):
        learn.fit(2, callbacks=[log := CSVLogger(learn, "taken/run"), Frees()])
    assert log.read_logged_file()["epoch"].tolist() == [0, 1]


def test_it_sits_out_the_finder_and_leaves_no_other_files(tmp_path):
    learn = learner(tmp_path, callback_fns=[CSVLogger])
    learn.lr_find(num_it=12)
    learn.validate()
    assert list(tmp_path.iterdir()) == []
    learn.fit(1)
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]
    assert learn.csv_logger.read_logged_file().shape == (1, 5)
