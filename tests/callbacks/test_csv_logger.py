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


@pytest.mark.parametrize("name", ["first\nsecond", "carriage\rreturn", "both\r\n", "semi;colon", " spaced ", "größe"])
def test_it_reads_what_it_wrote_and_appends_to_it(tmp_path, name):
    def metric(output, target):
        return output.mean()

    metric.__name__ = name
    learn = fake_learner(path=tmp_path, metrics=[metric])
    learn.fit(1, callbacks=[CSVLogger(learn)])
    learn.fit(2, callbacks=[log := CSVLogger(learn, append=True)])
    file = log.read_logged_file()
    assert list(file)[3] == name and file["epoch"].tolist() == [0, 0, 1]
    assert file[name].tolist()[1:] == [m[0] for m in learn.recorder.metrics]


@pytest.mark.parametrize("edit", [
    lambda raw: raw.rstrip(b"\n"), lambda raw: raw.replace(b"\n", b"\r\n"), lambda raw: raw + b"\n\n",
    lambda raw: b"\xef\xbb\xbf" + raw, lambda raw: raw + b"1,0.5", lambda raw: raw + b"\r\n"],
    ids=["no newline", "windows", "empty lines", "mark", "killed in a row", "windows' last line"])
def test_rows_are_never_glued_to_what_an_editor_or_a_kill_has_left(tmp_path, edit):
    learn = learner(tmp_path)
    learn.fit(1, callbacks=[log := CSVLogger(learn)])
    first = log.read_logged_file()["train_loss"].tolist()
    log.path.write_bytes(edit(log.path.read_bytes()))
    learn.fit(2, callbacks=[CSVLogger(learn, append=True)])
    file = log.read_logged_file()
    assert file["epoch"].tolist() == [0, 0, 1] and file["train_loss"].tolist() == first + learn.recorder.train_losses


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"epoch,\x00\n"])
def test_a_file_that_is_no_table_is_refused_before_epoch_0(tmp_path, content):
    learn = learner(tmp_path)
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(ValueError, match="history.csv .*choose another filename"):
        learn.fit(1, callbacks=[CSVLogger(learn, append=True)])
    assert (tmp_path / "history.csv").read_bytes() == content and not len(learn.recorder.lrs)


def test_its_time_grows_linearly(tmp_path, monkeypatch):
    """Counted in the lines that it makes, over 5,000 epochs."""
    from minifast.callbacks import csv_logger

    lines, own = [0], csv_logger._line
    monkeypatch.setattr(csv_logger, "_line", lambda cells: (lines.__setitem__(0, lines[0] + 1), own(cells))[1])
    learn = learner(tmp_path)
    log, r = CSVLogger(learn), learn.recorder
    r.names = ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    log.on_train_begin()
    for epoch in range(5000):
        r.train_losses.append(epoch / 3)
        r.val_losses.append(None)
        r.metrics.append([0.5])
        r.times.append(1.0)
        log.on_epoch_end()
    assert lines[0] <= 5010
    assert log.read_logged_file()["train_loss"].tolist() == r.train_losses


@pytest.mark.parametrize("change", ["removed", "longer", "shorter"])
def test_a_file_that_changes_in_the_run_is_written_again(tmp_path, change):
    class Changes(Callback):
        def on_epoch_begin(self, epoch):
            if epoch == 2 and change == "removed":
                log.path.unlink()
            elif epoch == 2:
                content = log.path.read_text()
                log.path.write_text(content + "more" if change == "longer" else content[:-3])

    learn = learner(tmp_path)
    learn.fit(4, callbacks=[log := CSVLogger(learn), Changes()])
    assert log.read_logged_file()["epoch"].tolist() == [0, 1, 2, 3]


def test_a_program_that_goes_to_another_folder_keeps_its_file(tmp_path, monkeypatch):
    class Goes(Callback):
        def on_epoch_begin(self, epoch):
            if epoch == 1:
                monkeypatch.chdir(tmp_path / "elsewhere")

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    learn = fake_learner(path=".")
    learn.fit(3, callbacks=[log := CSVLogger(learn), Goes()])
    assert log.read_logged_file()["epoch"].tolist() == [0, 1, 2] and log.path == tmp_path / "history.csv"
    assert list((tmp_path / "elsewhere").iterdir()) == []
