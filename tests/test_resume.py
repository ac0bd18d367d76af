"""A run that was cut off goes on to exactly the end that it would have had."""
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from minifast.callback import Callback
from minifast.callbacks import EMA, Checkpoint, OneCycleScheduler
from minifast.data import DataBunch
from minifast.disk import previous_of
from minifast.fakes import fake_data, fake_learner
from minifast.files import load_file, save_file
from minifast.metrics import accuracy

HERE = Path(__file__).parent


class Crash(Exception):
    pass


class CrashAt(Callback):
    """Raises in one batch; counts all."""

    def __init__(self, at=None, error=Crash):
        self.when, self.error, self.batches = at, error, 0  # `at` by another name: it is no setting of the run

    def on_backward_end(self, iteration):
        if iteration == self.when:
            raise self.error
        self.batches += 1

    def state_dict(self):
        return {}


def learner(path, at=None, data=None, **kwargs):
    torch.manual_seed(4)
    layers = [nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4)]
    data = data or fake_data(batch_size=4, train_length=30, valid_length=10)
    return fake_learner(data=data, layers=layers, path=path, callbacks=[CrashAt(at)], metrics=[accuracy], **kwargs)


def fit(learn, every=3, epochs=3, **kwargs):
    torch.manual_seed(5)
    learn.fit_one_cycle(epochs, 0.05, callbacks=[Checkpoint(learn, "run", every=every, **kwargs)])
    return learn


def equal(a, b):
    """Whether two learners have come to the same, bit for bit."""
    tensors = [[*m.model.state_dict().values(), *(t for s in m.opt.opt.state.values() for t in s.values())]
               for m in (a, b)]
    records = [[m.recorder.losses.tolist(), list(m.recorder.lrs), list(m.recorder.moms), m.recorder.train_losses,
                m.recorder.val_losses, m.recorder.metrics, m.recorder.nb_batches] for m in (a, b)]
    return all(map(torch.equal, *tensors)) and records[0] == records[1]


def test_a_dozen_kills_at_random_points():
    """Processes that are killed outright: the long form, over many more configurations, is `make torture`."""
    command = [sys.executable, str(HERE / "torture" / "torture.py"), "--kills", "12", "--configs", "one cycle",
               "augmented items", "accumulation, clipping", "best model, early stop, CSV"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 not continued byte for byte" in done.stdout


@pytest.mark.parametrize("at", [0, 1, 6, 7, 13, 20])
def test_an_exception_costs_nothing(tmp_path, at):
    whole = fit(learner(tmp_path / "a"))
    with pytest.raises(Crash):
        fit(learner(tmp_path / "b", at))
    again = learner(tmp_path / "b")
    torch.manual_seed(99)  # what the new process draws before does not matter
    with torch.no_grad():
        again.model[0].weight.zero_()
    fit(again)
    assert equal(whole, again)
    assert again.callbacks[0].batches == 21 - at // 3 * 3  # from the last multiple of three on


def test_the_same_learner_can_go_on(tmp_path):
    whole, learn = fit(learner(tmp_path / "a")), learner(tmp_path / "b", 11)
    with pytest.raises(Crash):
        fit(learn)
    learn.callbacks[0].when = None
    assert equal(whole, fit(learn))


@pytest.mark.parametrize("with_generator", [True, False])
def test_loaders_of_torch_go_on_in_their_order(tmp_path, with_generator):
    def data():
        x = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
        train = TensorDataset(x, x[:, :4].argmax(1))
        generator = torch.Generator().manual_seed(2) if with_generator else None
        return DataBunch(DataLoader(train, 4, shuffle=True, drop_last=True, generator=generator), DataLoader(train, 4),
                         loss_func=nn.CrossEntropyLoss())
    whole = fit(learner(tmp_path / "a", data=data()))
    with pytest.raises(Crash):
        fit(learner(tmp_path / "b", 11, data=data()))
    assert equal(whole, fit(learner(tmp_path / "b", data=data())))


def test_it_is_written_every_so_often_and_the_one_before_is_kept(tmp_path):
    with pytest.raises(Crash):
        fit(learner(tmp_path, 11))
    path = tmp_path / "models" / "run.ckpt"
    position = load_file(path)["position"]
    assert (position["epoch"], position["num_batch"], position["iteration"], position["update"]) == (1, 2, 9, 9)
    assert load_file(previous_of(path))["position"]["iteration"] == 6
    assert sorted(p.name for p in path.parent.iterdir()) == [".run.ckpt.lock", "run.ckpt", "run.previous.ckpt"]


def test_a_damaged_file_is_told_and_the_one_before_it_used(tmp_path):
    whole = fit(learner(tmp_path / "a"))
    with pytest.raises(Crash):
        fit(learner(tmp_path / "b", 11))
    path = tmp_path / "b" / "models" / "run.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = learner(tmp_path / "b")
    with pytest.warns(UserWarning, match="run.ckpt is damaged.*going on from the one before it"):
        fit(again)
    assert equal(whole, again) and again.callbacks[0].batches == 21 - 6
    for p in (path, previous_of(path)):
        p.write_bytes(p.read_bytes()[:1000])
    with pytest.raises(ValueError, match="run.ckpt is damaged.*To train from the beginning, delete it"):
        fit(learner(tmp_path / "b"))


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path, capsys):
    whole = fit(learner(tmp_path, silent=False))
    table = capsys.readouterr().out
    again = learner(tmp_path, silent=False)
    with pytest.warns(UserWarning, match="run.ckpt is a finished run: it is loaded, and nothing is trained"):
        fit(again)
    assert equal(whole, again) and again.callbacks[0].batches == 0
    assert capsys.readouterr().out == table and "is a finished run" in again.stopped


def test_the_table_has_the_epochs_from_before(tmp_path, capsys):
    fit(learner(tmp_path / "a", silent=False, add_time=False))
    table = capsys.readouterr().out
    with pytest.raises(Crash):
        fit(learner(tmp_path / "b", 16, silent=False, add_time=False))
    capsys.readouterr()
    fit(learner(tmp_path / "b", silent=False, add_time=False))
    shown = capsys.readouterr()
    assert shown.out == table and len(table.splitlines()) == 4
    assert shown.err == f"{tmp_path / 'b' / 'models' / 'run.ckpt'} goes on in epoch 2 at batch 1\n"


@pytest.mark.parametrize("change, message", [
    (dict(epochs=4), "number of epochs: 3 then, 4 now. optimizer steps: 21 then, 28 now"),
    (dict(lr=0.01), r"lr: \[0.05\] then, \[0.01\] now"),
    (dict(div_factor=10.0), "OneCycleScheduler: div_factor 25.0 then, 10.0 now; its curve of lr .*allow=.'OneCycle"),
    (dict(more=[Callback()]), "Callback: not there then, there now"),
])
def test_other_settings_are_refused(tmp_path, change, message):
    def run(learn, epochs=3, lr=0.05, div_factor=25.0, more=()):
        learn.fit(epochs, lr, callbacks=[OneCycleScheduler(learn, lr, div_factor=div_factor), *more,
                                         Checkpoint(learn, "run", every=1)])
    with pytest.raises(Crash):
        run(learner(tmp_path, 10))
    again = learner(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(again, **change)
    assert again.callbacks[0].batches == 0
    with pytest.raises(ValueError, match=r"model: 0: Linear\(in_features=5, out_features=8, .*then, 0: Lin"):
        run(fake_learner(data=again.data, path=tmp_path, callbacks=[CrashAt()], metrics=[accuracy]))
    run(learner(tmp_path))  # and the run is none the worse


def test_extend_gives_a_run_more_epochs(tmp_path):
    first = fit(learner(tmp_path))
    longer = fit(learner(tmp_path), epochs=5, extend=True)
    lrs = list(longer.recorder.lrs)
    assert lrs[:21] == list(first.recorder.lrs) and len(lrs) == 35 and len(longer.recorder.train_losses) == 5
    whole = fit(learner(tmp_path / "b"), epochs=5)
    assert lrs[21:] == list(whole.recorder.lrs)[21:] and longer.opt.lr == 0.05


def test_checkpoint_by_name_and_two_fits_in_one_script(tmp_path):
    def script(at=None):
        torch.manual_seed(3)
        learn = learner(tmp_path / "b", at)
        learn.fit(1, 0.01, checkpoint="head")
        learn.fit_one_cycle(2, 0.05, checkpoint="body")
        return learn
    with pytest.raises(Crash):
        script(9)  # in the second fit: the first has seven batches
    with pytest.warns(UserWarning, match="head.ckpt is a finished run"):
        again = script()
    torch.manual_seed(3)
    whole = learner(tmp_path / "a")
    whole.fit(1, 0.01)
    whole.fit_one_cycle(2, 0.05)
    assert equal(whole, again) and again.callbacks[0].batches == 14


def test_only_one_process_at_a_time(tmp_path):
    (tmp_path / "models").mkdir()
    hold = ("import sys; from pathlib import Path; from minifast.disk import lock; "
            "held = lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()")
    command = [sys.executable, "-c", hold, str(tmp_path / "models" / "run.ckpt")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match="run.ckpt is being written by another run"):
            fit(learner(tmp_path))
        other.kill()
    fit(learner(tmp_path))


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "models").write_text("a file, where the folder should be")
    learn = learner(tmp_path)
    with pytest.raises(OSError):
        fit(learn)
    assert learn.callbacks[0].batches == 0


def test_a_disk_that_fills_up_later_is_a_warning(tmp_path, monkeypatch):
    def full(data, path, keep_previous=False):
        if keep_previous:  # not the first one
            raise OSError(28, "No space left on device")
        return save_file(data, path)
    monkeypatch.setattr("minifast.callbacks.checkpoint.save_file", full)
    with pytest.warns(UserWarning, match="run.ckpt could not be written .*No space left.*; training goes on"):
        learn = fit(learner(tmp_path / "b"))
    monkeypatch.undo()
    assert equal(learn, fit(learner(tmp_path / "a")))


def test_a_vanished_folder_is_made_anew(tmp_path):
    class Vanish(Callback):
        def on_batch_end(self, iteration, train):
            if iteration == 5 and train:
                for p in (tmp_path / "models").iterdir():
                    p.unlink()
                (tmp_path / "models").rmdir()
    learn = learner(tmp_path)
    learn.callbacks.append(Vanish())
    fit(learn)
    assert load_file(tmp_path / "models" / "run.ckpt")["position"]["epoch"] == 3


def test_what_cannot_be_kept_is_named_before_training(tmp_path):
    class Odd(Callback):
        def __init__(self): self.numbers, self.folder = iter([1]), tmp_path
    learn = learner(tmp_path)
    learn.callbacks.append(Odd())
    with pytest.raises(UserWarning, match=r"cannot keep.*: callback Odd, attribute numbers \(a list_iterator\)\. L"):
        fit(learn)
    assert learn.callbacks[0].batches == 0


def test_numpy_numbers_in_hyper_parameters_are_saved(tmp_path):
    learn = learner(tmp_path)
    learn.fit(1, 0.05, callbacks=[Checkpoint(learn, "run", every=2), NumpyRate(learn)])
    assert json.dumps(load_file(tmp_path / "models" / "run.ckpt")["learner"]["opt"]["param_groups"][0]["lr"]) == "0.25"


class NumpyRate(Callback):
    def __init__(self, learn):
        self.learn = learn

    def on_batch_begin(self):
        self.learn.opt.opt.param_groups[0]["lr"] = np.float64(0.25)


def test_two_layer_groups_and_other_trainable_parameters(tmp_path):
    class Unfreeze(Callback):
        """Frees the first layer in the second epoch."""

        def __init__(self, learn):
            self.learn = learn

        def on_epoch_begin(self, epoch):
            if epoch == 1:
                self.learn.unfreeze()
                self.learn.opt.lr = [0.01, 0.02]

    def make(path, at=None):
        learn = fake_learner(batch_size=4, train_length=28, layer_group_count=2, path=path, callbacks=[CrashAt(at)],
                             opt_func=partial(torch.optim.SGD, momentum=0.9))
        learn.freeze()
        learn.callbacks.append(Unfreeze(learn))
        return learn

    def train(learn):
        learn.fit(3, [0.01, 0.02], callbacks=[Checkpoint(learn, "run", every=2)])
        return learn
    whole = train(make(tmp_path / "a"))
    with pytest.raises(Crash):
        train(make(tmp_path / "b", 11))
    assert equal(whole, train(make(tmp_path / "b")))


@pytest.mark.parametrize("epoch, train, left", [(1, True, 10), (1, False, 7), (2, False, 0)])
def test_ctrl_c_loses_no_batch_in_training_nor_in_validation(tmp_path, epoch, train, left):
    class Interrupts(Callback):
        def __init__(self): self.seen = False
        def state_dict(self): return {}     # what a validation has changed is not in the file
        def on_batch_begin(self, **state):
            if not self.seen and (state["epoch"], state["train"]) == (epoch, train) and state["num_batch"] in (3, 7):
                self.seen = True
                os.kill(os.getpid(), signal.SIGINT)

    whole, cut = fit(learner(tmp_path / "a"), every=1000), learner(tmp_path / "b")
    cut.callbacks.append(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        fit(cut, every=1000)
    again = learner(tmp_path / "b")
    again.callbacks.append(Interrupts())
    again.callbacks[1].seen = True
    fit(again, every=1000)
    assert equal(whole, again)
    assert again.callbacks[0].batches == left


@pytest.mark.parametrize("batch", [1, 2])
def test_ctrl_c_in_a_validation_begins_it_again_as_it_was(tmp_path, batch):
    """With items that draw, a metric that draws, a callback that counts, and averaged weights in the model."""
    class Noise(torch.utils.data.Dataset):
        def __len__(self): return 12
        def __getitem__(self, i): return torch.rand(5), i % 4

    class Counts(Callback):
        def __init__(self): self.n, self.now = 0, False
        def state_dict(self): return {"n": self.n}
        def on_batch_end(self, train, num_batch, epoch):
            self.n += not train
            if self.now and not train and epoch == 1 and self.n == 3 + batch:
                os.kill(os.getpid(), signal.SIGINT)

    def drawn(output, target):
        return torch.rand(())

    def run(folder, now=False):
        torch.manual_seed(1)
        data = DataBunch.create(Noise(), Noise(), bs=4, seed=1, loss_func=nn.CrossEntropyLoss())
        learn, counts = fake_learner(data=data, metrics=[drawn], path=tmp_path / folder), Counts()
        counts.now = now
        torch.manual_seed(2)
        try:
            learn.fit(3, 0.1, callbacks=[EMA(learn), counts, Checkpoint(learn, "run", every=1000)])
        except KeyboardInterrupt:
            assert now
        return learn, counts.n

    (whole, n), (cut, _), (again, m) = run("a"), run("b", now=True), run("b")
    assert cut.stopped == "by KeyboardInterrupt in epoch 1, batch 3" and equal(whole, again) and (n, m) == (9, 9)
