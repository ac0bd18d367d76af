"""Ctrl-C, and the signals of schedulers."""
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from minifast.callback import Callback
from minifast.callbacks import Checkpoint, MixUpCallback, Preempted
from minifast.data import DataBunch
from minifast.fakes import fake_learner
from minifast.files import load_file

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
HANDLERS = [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL]


class At(Callback):
    """Does something in one training batch."""

    def __init__(self, iteration, act): self.when, self.act = iteration, act
    def state_dict(self): return {}
    def on_batch_begin(self, train, iteration):
        if train and iteration == self.when:
            self.act()


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


def run(path, act=lambda: None, at=5, **kwargs):
    torch.manual_seed(3)
    layers = [nn.Linear(5, 8), nn.Dropout(0.3), nn.Linear(8, 4)]
    learn = fake_learner(batch_size=4, train_length=40, layers=layers, path=path, callbacks=At(at, act),
                         callback_fns=MixUpCallback, **kwargs)
    return learn, partial(learn.fit_one_cycle, 3, 0.05, checkpoint="run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_gets_a_checkpoint_and_a_status_of_its_own(tmp_path, number):
    learn, fit = run(tmp_path, lambda: signal.raise_signal(number))
    with pytest.raises(Preempted) as caught:
        fit()
    assert (caught.value.code, caught.value.signal_name) == (143, number.name)
    assert not isinstance(caught.value, Exception)      # `except Exception` does not swallow it
    assert learn.stopped == "by Preempted in epoch 0, batch 5" and handlers() == HANDLERS
    position = load_file(tmp_path / "models" / "run.ckpt")["position"]
    assert (position["num_batch"], position["iteration"]) == (6, 6)      # the batch at hand is not lost


def test_the_exit_status_of_a_program_is_143(tmp_path):
    program = """if True:
        import os, signal
        from minifast.callback import Callback
        from minifast.fakes import fake_learner
        class Term(Callback):
            def on_epoch_begin(self): os.kill(os.getpid(), signal.SIGTERM)
        try: fake_learner().fit(2, callbacks=Term(), checkpoint="run")
        except Exception: print("swallowed")
        """
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_several_signals_are_one(tmp_path):
    def several():
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
    learn, fit = run(tmp_path, several)
    with pytest.raises(Preempted, match="143"):
        fit()
    assert handlers() == HANDLERS


def test_ctrl_c_after_sigterm_acts_at_once_the_second_time(tmp_path):
    def all_of_them():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    learn, fit = run(tmp_path, all_of_them)
    with pytest.raises(KeyboardInterrupt):
        fit()
    assert handlers() == HANDLERS


@pytest.mark.parametrize("when", ["before", "during"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_handler_that_someone_else_has_set_is_left_alone(tmp_path, number, when):
    received = []

    def mine(*args):
        received.append(args[0])

    before = signal.getsignal(number)
    try:
        if when == "before":
            signal.signal(number, mine)
        learn, fit = run(tmp_path, lambda: (signal.signal(number, mine), signal.raise_signal(number)))
        fit()
        assert signal.getsignal(number) is mine and received == [number] and learn.stopped is None
    finally:
        signal.signal(number, before)
    assert handlers() == HANDLERS


def test_ignored_signals_stay_ignored(tmp_path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        learn, fit = run(tmp_path, lambda: signal.raise_signal(signal.SIGTERM))
        fit()
        assert learn.stopped is None and signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_in_a_thread_nothing_is_installed(tmp_path):
    seen = []
    learn, fit = run(tmp_path, lambda: seen.append(handlers()))
    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert seen == [HANDLERS] and learn.stopped is None


def test_a_run_that_fails_puts_the_handlers_back(tmp_path):
    learn, fit = run(tmp_path, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit()
    assert handlers() == HANDLERS


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_scheduler_that_preempts_at_random_changes_no_byte(tmp_path):
    """A job that gets SIGTERM at random batches, twenty times, and is started again until it is done."""
    def job(folder, at=None):
        act = (lambda: None) if at is None else lambda: os.kill(os.getpid(), signal.SIGTERM)
        if not (pid := os.fork()):
            try:
                learn, fit = run(tmp_path / folder, act, at)
                fit()
                learn.save("end")
                os._exit(0)
            except Preempted as e:
                os._exit(e.code)
            finally:
                os._exit(9)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def result(folder):
        return (tmp_path / folder / "models" / "end.pth").read_bytes()

    assert job("whole") == 0
    rng, ends = random.Random(0), []
    for number in range(4):
        at, folder = 0, f"cut {number}"
        while not ends or ends[-1] != 0:
            at += rng.randint(1, 7)
            ends.append(job(folder, at))
        assert result(folder) == result("whole")
        ends.append(None)
    assert ends.count(0) == 4 and ends.count(143) >= 12 and set(ends) == {0, 143, None}


# ---- one run at a time

@pytest.mark.parametrize("method", ["fit", "fit_one_cycle", "fit_fc", "lr_find", "anneal_now", "check"])
def test_a_run_within_a_run_is_refused_before_anything_is_changed(tmp_path, method):
    seen = []

    def inner():
        before = dict(vars(learn)), learn.opt.values("lr")
        with pytest.raises(RuntimeError, match=f"{method} within a run: this learner is being trained"):
            getattr(learn, method)(*([2] if method not in ("lr_find", "anneal_now") else []))
        seen.append((dict(vars(learn)), learn.opt.values("lr")) == before)

    learn, fit = run(tmp_path / "a", inner)
    fit()
    whole, fit = run(tmp_path / "b")
    fit()
    assert seen == [True] and all(map(torch.equal, whole.model.parameters(), learn.model.parameters()))
    assert len(learn.recorder.train_losses) == 3 and len(learn.recorder.lrs) == 30


def test_a_second_run_cannot_write_the_same_checkpoint(tmp_path):
    seen = []

    def other():
        with pytest.raises(RuntimeError, match="run.ckpt is being written by another run"):
            run(tmp_path)[1]()
        seen.append(1)

    def both():
        other()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    run(tmp_path, both)[1]()
    assert seen == [1, 1] and load_file(tmp_path / "models" / "run.ckpt")["position"]["epoch"] == 3


def test_checkpoints_of_two_names_can_be_written_at_once(tmp_path):
    inner, outer = run(tmp_path)[0], run(tmp_path)[0]
    outer.callbacks = [At(3, lambda: inner.fit(1, callbacks=[Checkpoint(inner, "inner")]))]
    outer.fit(1, checkpoint="outer")
    assert inner.stopped is outer.stopped is None


def test_a_signal_to_a_whole_group_is_no_error_of_the_loader(tmp_path):
    """It ends the workers too, and torch raises a RuntimeError for them wherever the program is."""
    class Group(Callback):
        def on_batch_end(self, iteration, train):
            if train and iteration == 2:
                workers = [p.pid for p in multiprocessing.active_children()]
                assert workers
                subprocess.run(["kill", "-TERM", *map(str, [*workers, os.getpid()])], check=True)
                time.sleep(0.3)

    dl = DataLoader(TensorDataset(torch.randn(400, 5), torch.arange(400) % 4), 4, num_workers=1)
    learn = fake_learner(data=DataBunch(dl, loss_func=nn.CrossEntropyLoss()), path=tmp_path)
    with pytest.raises(Preempted) as error:
        learn.fit(1, callbacks=[Group(), Checkpoint(learn, "run", every=1)])
    assert error.value.code == 143 and learn.stopped == "by Preempted in epoch 0, batch 2"
    run = load_file(tmp_path / "models" / "run.ckpt")
    assert run["position"]["num_batch"] >= 2
