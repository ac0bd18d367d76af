"""What every callback of the package keeps, whatever it does: the classes are found by reflection."""
from __future__ import annotations

import warnings

import pytest
import torch
from callback_set import CLASSES, a_learner, furniture, make
from host_reads import HostReads

from minifast.callback import Callback, CallbackHandler
from minifast.callbacks.checkpoint import Checkpoint
from minifast.files import load_file, save_file
from minifast.keeping import Kept
from minifast.restoring import put_back
from minifast.state import EVENTS
from minifast.utils import map_tensors

every = pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)

# these read a value in each batch and say so: the loss, to know whether to stop; whether fp16's gradients overflowed
SYNCHRONISES = {"MixedPrecision"}     # LRFinder too, but always in its own number of batches, however long an epoch
STOPS = {"LRFinder", "StopAfterNBatches"}   # end a run before its time with their defaults


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)    # the tensors are tiny, and waking a second thread costs more than their arithmetic
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def tolerant():
    # what a callback has to say about an odd run (stopped early, past a schedule's end) is not the point here
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="minifast")
        yield


def fit(learn, callbacks, epochs=2):
    learn.fit(epochs, 0.01, callbacks=callbacks)


def test_reflection_finds_the_callbacks():
    names = {c.__name__ for c in CLASSES}
    assert {"EMA", "MixUpCallback", "OneCycleScheduler", "LRFinder", "OverSamplingCallback", "Timer"} <= names


@every
def test_trains_twice_and_leaves_the_learner_as_it_was(cls, tmp_path):
    learn = a_learner(tmp_path)
    before, cb = furniture(learn), make(cls, learn)
    for run in range(2):
        if cls.__name__ == "Checkpoint":
            cb = cls(learn, f"run{run}")    # a finished run is not trained again
        start = [p.detach().clone() for p in learn.model.parameters()]
        fit(learn, cb)
        assert furniture(learn) == before
        assert any(not torch.equal(p, q) for p, q in zip(learn.model.parameters(), start, strict=True)) \
            or cls.__name__ == "SaveModelCallback"  # it may well load what the first run found best
        assert all(p.isfinite().all() for p in learn.model.parameters())
        if cls.__name__ not in STOPS:
            assert len(learn.recorder.train_losses) == 2
            assert len(learn.recorder.metrics[-1]) == len(learn.recorder.names) - 4


class Raises(Callback):
    def __init__(self, event, order):
        self._order = order
        setattr(self, f"on_{event}", self.fail)

    def fail(self):
        raise ZeroDivisionError("a neighbour")


@every
def test_survives_a_neighbour_that_fails_in_any_event(cls, tmp_path):
    learn = a_learner(tmp_path, n_batches=2)
    before, cb = furniture(learn), make(cls, learn)
    for event in EVENTS:
        for order in (-2000, 2000):     # the neighbour goes first, or last
            if cls.__name__ == "Checkpoint":
                cb = cls(learn, f"{event}{order}")
            with pytest.raises(ZeroDivisionError, match="a neighbour"):
                fit(learn, [Raises(event, order), cb], 1)
            assert furniture(learn) == before, (event, order)
    fit(learn, cb if cls.__name__ != "Checkpoint" else None, 1)     # the same one again, in a run that goes well
    assert furniture(learn) == before
    assert learn.recorder.train_losses


def copied(cb):
    """A callback's state in plain values and tensors, as a file has it."""
    return map_tensors(Kept(cb.state_dict()).value, torch.clone)


class Peek(Callback):
    """Takes another's state in the middle of a run, as a checkpoint does."""

    _order = 3000

    def __init__(self, cb):
        self.cb, self.seen = cb, None

    def on_batch_end(self, train, iteration):
        if train and iteration <= 5:
            self.seen = copied(self.cb)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b


@every
def test_state_goes_through_a_file_and_back(cls, tmp_path):
    learn = a_learner(tmp_path)
    cb = make(cls, learn)
    peek = Peek(cb)
    fit(learn, [cb, peek])
    state = load_file(save_file(peek.seen, tmp_path / "state.pth"))     # tensors and plain values, or it is refused
    assert same(state, peek.seen)
    another = a_learner(tmp_path)
    other = make(cls, another)

    class Load(Callback):
        _order = 3000   # where a checkpoint does it: after everybody's on_train_begin
        back = None

        def on_train_begin(self):
            other.load_state_dict({**other.state_dict(), **put_back(other.state_dict(), state)})
            self.back = copied(other)

    load = Load()
    if cls.__name__ == "Checkpoint":
        assert state == {}
        return
    fit(another, [other, load])
    assert same(load.back, state)


def reads(cls, path, n_batches):
    learn = a_learner(path, n_batches)
    cb = [] if cls is None else [make(cls, learn)]
    with HostReads() as counted:
        fit(learn, cb, 2)
    return counted.n


@every
def test_reads_no_value_per_batch(cls, tmp_path):
    few, many, few_without, many_without = (reads(c, tmp_path / f"{c}{n}", n) for c in (cls, None) for n in (3, 9))
    assert many_without - few_without <= 4      # what a fit itself reads, every so many batches
    more_batches = 2 * (9 - 3)
    assert (many - few - (many_without - few_without) > more_batches / 2) == (cls.__name__ in SYNCHRONISES)


def test_the_counter_of_reads_counts():
    with HostReads() as counted:
        float(torch.ones(3).sum())
    assert counted.n == 1


@every
def test_is_told_only_of_the_events_that_it_overrides(cls, tmp_path):
    learn = a_learner(tmp_path)
    cb = make(cls, learn)
    handler = CallbackHandler([cb])
    for event in EVENTS:
        overrides = getattr(cls, f"on_{event}") is not getattr(Callback, f"on_{event}")
        assert [c for c, *_ in handler.of_all[event]] == [cb] * overrides


def tensors(learn):
    moments = [v for held in learn.opt.opt.state.values() for v in held.values()]
    return [t.clone() for t in (*learn.model.state_dict().values(), *moments)]


@pytest.mark.parametrize("cls", [c for c in CLASSES if c.__name__ != "LRFinder"], ids=lambda c: c.__name__)
def test_has_no_lasting_effect_in_lr_find_and_inference(cls, tmp_path):
    learn, plain = a_learner(tmp_path), a_learner(tmp_path)
    for each in (learn, plain):
        each.fit(1, 0.01)
    learn.callbacks = [make(cls, learn)]
    before, weights, state = furniture(learn), tensors(learn), copied(learn.callbacks[0])
    if cls.__name__ != "MixedPrecision":    # it is meant to change them
        assert learn.validate() == plain.validate()
        assert torch.equal(learn.get_preds()[0], plain.get_preds()[0])
    learn.lr_find(num_it=6)
    assert furniture(learn) == before
    assert all(map(torch.equal, weights, tensors(learn)))
    assert same(copied(learn.callbacks[0]), state)


@every
def test_works_made_anew_for_each_run(cls, tmp_path):
    learn = a_learner(tmp_path)
    learn.callback_fns = [lambda learn: make(cls, learn)]
    before = furniture(learn)
    fit(learn, None, 1)
    assert furniture(learn) == before
    assert learn.recorder.lrs


class Cut(Callback):
    """Ends a run in its second epoch's second batch, if there is to be an end."""

    cut = True

    def state_dict(self):
        return {}   # whether to cut is not part of the run

    def on_batch_begin(self, train, epoch, num_batch):
        if train and self.cut and (epoch, num_batch) == (1, 1):
            raise ZeroDivisionError("cut")


@pytest.mark.parametrize("cls", [c for c in CLASSES if c.__name__ not in {"Checkpoint", *STOPS}],
                         ids=lambda c: c.__name__)
def test_a_run_that_is_cut_goes_on_exactly(cls, tmp_path, capsys):
    def run(name, cut):
        learn = a_learner(tmp_path / name, seed=0)
        torch.manual_seed(1)    # what it draws its own seed from
        neighbour = Cut()
        neighbour.cut = cut
        learn.fit(3, 0.05, callbacks=[make(cls, learn), neighbour, Checkpoint(learn, "whole", every=1)])
        return learn

    whole = run("whole", False)
    with pytest.raises(ZeroDivisionError, match="cut"):
        run("cut", True)
    continued = run("cut", False)
    assert all(map(torch.equal, tensors(whole), tensors(continued)))
    assert (whole.recorder.losses == continued.recorder.losses).all()
    assert whole.recorder.val_losses == continued.recorder.val_losses
    assert whole.recorder.lrs == continued.recorder.lrs
