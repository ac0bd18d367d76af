"""Several processes train as one: equal numbers, one set of files, failures that are named, runs that go on."""
from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from queue import Empty

import pytest
import torch
from callback_set import CLASSES, a_learner, make
from processes import free_port, run, start
from torch import nn
from torch.torch_version import TorchVersion
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

from minifast import distributed
from minifast.basics import *
from minifast.callback import Callback
from minifast.callbacks.checkpoint import Checkpoint
from minifast.callbacks.gradients import GradientAccumulation
from minifast.confusion import KappaScore
from minifast.exported import load_learner
from minifast.fakes import fake_learner
from minifast.sharded import whole
from minifast.vision import ImageDataBunch

# torch 2.8 warns of itself where its distributed checkpoints are written
pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="processes are forked"),
              pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")]
SPREAD = pytest.mark.skipif(torch.__version__ < TorchVersion("2.14"), reason="not exact to twelve digits in torch 2.8")

TINY = 1e-12


def dataset(n, seed=0):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=gen, dtype=torch.float64)
    return TensorDataset(x, x[:, :4].argmax(1))


def learner(bs=8, n=50, n_valid=23, dropout=0.0, timeout=60, own_batches=False,
            shard=False, **kwargs):
    """In float64: there sums in another order are equal to twelve digits at the end of a run."""
    torch.manual_seed(0)
    data = kwargs.pop("data", None) or DataBunch.create(dataset(n), dataset(n_valid, 1), bs=bs, val_bs=4, seed=0,
                                                        drop_last=False, loss_func=CrossEntropyFlat())
    layers = [nn.Linear(5, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4)]
    kwargs = {"metrics": [accuracy], "silent": True, **kwargs}
    return Learner(data, nn.Sequential(*layers).double(), **kwargs).to_distributed(
        timeout=timeout, own_batches=own_batches, shard=shard)


def weights(learn):
    return [p.detach().clone() for p in learn.model.state_dict().values()]


def apart(a, b):
    """The largest relative difference of two lists of tensors."""
    return max(float((p - q).abs().max() / q.abs().max()) for p, q in zip(a, b, strict=True))


def equal(a, b):
    return all(map(torch.equal, a, b))


# ---- a whole run

def a_run(bs, **kwargs):
    learn = learner(bs, **kwargs)
    found = learn.lr_find(num_it=30)
    learn.fit_one_cycle(3, 5e-2)
    r = learn.recorder
    return {"weights": weights(learn), "found": found.losses.tolist(), "suggested": found.suggestion.lr,
            "losses": [*r.raw_losses, *r.losses, *r.train_losses, *r.val_losses], "accuracies": r.metrics,
            "lrs": list(r.lrs)}


@pytest.mark.parametrize("bs", [8, 7])      # 50 samples: last batches of 2, and of 1, less than one for each process
def test_a_run_is_that_of_one_process(bs):
    one = a_run(bs)
    for nproc in (2, 3):
        many = run(a_run, nproc, bs)
        for other in many[1:]:
            assert equal(many[0]["weights"], other["weights"])
            assert {k: v for k, v in many[0].items() if k != "weights"} == {
                k: v for k, v in other.items() if k != "weights"}
        assert apart(many[0]["weights"], one["weights"]) < TINY
        assert many[0]["losses"] == pytest.approx(one["losses"], rel=TINY)
        assert many[0]["found"] == pytest.approx(one["found"], rel=1e-9)
        assert many[0]["suggested"] == pytest.approx(one["suggested"], rel=1e-9)
        assert many[0]["accuracies"] == one["accuracies"] and many[0]["lrs"] == one["lrs"]


class Counting(Callback):
    """A metric of one's own: how often each sample of the validation has been seen."""

    name = "seen"

    def on_epoch_begin(self):
        self.targets = []

    def on_batch_end(self, last_target):
        self.targets += last_target.tolist()

    def on_epoch_end(self, last_metrics):
        return {"last_metrics": [*last_metrics, len(self.targets) + sum(i * t for i, t in enumerate(self.targets))]}


def measured(val_bs, foreign):
    valid = dataset(23, 1)
    valid = DataLoader(valid, val_bs) if foreign else valid
    data = DataBunch.create(dataset(50), None if foreign else valid, bs=8, val_bs=val_bs, seed=0,
                            loss_func=CrossEntropyFlat())
    if foreign:
        data = DataBunch(data.train_dl, valid, loss_func=CrossEntropyFlat())
    learn = learner(data=data, metrics=[accuracy, whole_set(partial(largest)), KappaScore(), Counting()])
    preds, targets, losses = learn.get_preds(with_loss=True)
    first = learn.get_preds(n_batch=2)[0]
    value, _, _ = learn.predict(torch.ones(5, dtype=torch.float64))
    return learn.validate(), preds, targets, losses, first, value


def largest(output, target):
    return (output * torch.arange(len(output))[:, None]).max()


def test_validation_and_predictions_are_equal_to_the_last_bit():
    def several():      # with fewer batches than processes too
        return [measured(*case) for case in ((4, False), (20, False), (64, False), (5, True))]
    one = several()
    for nproc in (2, 3):
        for many in run(several, nproc):
            for (values, *tensors, value), (expected, *expected_tensors, expected_value) in zip(many, one, strict=True):
                assert values == expected and value == expected_value
                assert equal(tensors, expected_tensors)
    assert one[0][0][-1] == 23 + sum(i * t for i, t in enumerate(dataset(23, 1).tensors[1].tolist()))


# ---- every callback of the package

def with_each_callback(folder):
    found = {}
    opened = []
    sys.addaudithook(lambda event, args: opened.append(os.fsdecode(args[0])) if event == "open" and isinstance(
        args[0], (str, bytes, os.PathLike)) and args[2] & (os.O_WRONLY | os.O_RDWR) else None)
    warnings.filterwarnings("ignore", category=UserWarning, module="minifast")
    for cls in CLASSES:
        learn = a_learner(folder / cls.__name__, n_valid=9).to_distributed()
        opened.clear()
        sizes = cls.__name__ == "BatchSizeSchedule"     # batch norm takes no part of one sample
        learn.fit(2, 0.01, callbacks=[cls(learn, {1: 8}) if sizes else make(cls, learn)])
        files = sorted(name for name in set(opened) if str(folder) in name and not Path(name).is_dir())
        found[cls.__name__] = weights(learn), learn.recorder.losses.tolist(), learn.recorder.metrics, files
    return found


def test_every_callback_of_the_package_works_in_two_processes(tmp_path):
    first, second = run(with_each_callback, 2, tmp_path)
    assert [*first] == [c.__name__ for c in CLASSES]
    for name in first:
        assert equal(first[name][0], second[name][0]), name
        assert first[name][1] == second[name][1] and first[name][1], name
        assert "PeakMemory" in name or first[name][2] == second[name][2], name
        assert second[name][3] == [], name
    assert {name for name in first if first[name][3]} == {"CSVLogger", "Checkpoint", "SaveModelCallback", "TensorBoard"}


# ---- all train the same thing

def different(what):
    odd = distributed.local_device() == 1
    try:
        if what == "lr":
            learner().fit(1, 0.1 if odd else 0.2)
        elif what == "data":
            learner(data=DataBunch.create(dataset(50, seed=5 * odd), dataset(9, 1), bs=8, seed=0,
                                          loss_func=CrossEntropyFlat())).fit(1)
        elif what == "split":
            x, y = dataset(50).tensors
            torch.manual_seed(odd)
            learner(data=DataBunch.from_arrays(x.numpy(), y.numpy(), bs=8)).fit(1)
        elif what == "model":
            learner(dropout=0.5 * odd).fit(1)
        elif what == "callbacks":
            learn = learner()
            learn.fit(1, callbacks=[GradientAccumulation(learn, 1 + odd)])
        elif what == "checkpoint":
            learn = learner()
            learn.fit(1, callbacks=[Checkpoint(learn, "run", every=2 + odd)])
        elif what == "bs":
            learner(bs=1).fit(1)
        elif what == "own part":    # as a DistributedSampler cuts it
            learner().get_preds(Subset(dataset(24), range(odd, 24, 2)))
        elif what == "n_batch":
            learner().get_preds(n_batch=2 + odd)
    except ValueError as e:
        return str(e)


@pytest.mark.parametrize(("what", "says"), [
    ("lr", r"lr: \[0.2\] in process 0, \[0.1\] in process 1"), ("model", "Dropout"), ("data", "data's content"),
    ("split", "data's content"), ("callbacks", "GradientAccumulation.*n_step 1 in process 0, 2 in process 1"),
    ("checkpoint", "Checkpoint: every 2 in process 0, 3 in process 1"),
    ("bs", "bs=1 is the size of the whole batch, and 2 processes need a sample each"),
    ("own part", "process 1 validates or predicts on something else than process 0: its data's content.*all the data"),
    ("n_batch", "n_batch: 2 in process 0, 3 in process 1")])
def test_processes_that_train_different_things_are_refused(what, says):
    for text in run(different, 2, what):
        assert text is not None and re.search(says, text), text


# ---- what a mean is over, and what callbacks add

class Masked(nn.Module):
    """A loss with a denominator of its own, as a tensor."""

    def forward(self, output, target):
        counts = target > 1
        return (nn.functional.cross_entropy(output, target, reduction="none") * counts).sum() / counts.sum().clamp(1)

    def denominator(self, output, target):
        return (target > 1).sum()


class Counts(Callback):
    """Counts what is summed over the processes: gradients, by torch's own hook."""

    _order = 10

    def __init__(self, learn):
        self.learn, self.n = learn, 0

    def state_dict(self):
        return {}

    def on_train_begin(self):
        if self.learn.parallel is not None:
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

            def counted(state, bucket):
                self.n += 1
                return allreduce_hook(None, bucket)
            self.learn.parallel.register_comm_hook(None, counted)


class InPairs(Callback):
    """Adds up the gradients of two batches by hand, without a look at their weights."""

    def on_backward_end(self, num_batch):
        return {"skip_step": num_batch % 2 == 0, "skip_zero": num_batch % 2 == 0}


def with_losses():
    found = {}
    for n_step in (0, 1, 2, 3):
        # a batch in which nothing counts has a loss that is no number, unless gradients are accumulated
        classes = torch.tensor([1, 2, 3, 0 if n_step % 2 else 0.5], dtype=torch.float64)
        losses = {"mean": CrossEntropyFlat(), "ignored": nn.CrossEntropyLoss(ignore_index=0), "own": Masked(),
                  "sum": nn.CrossEntropyLoss(reduction="sum"), "weights": nn.CrossEntropyLoss(classes)}
        for name, loss_func in losses.items():
            learn = learner(bs=7, loss_func=loss_func)
            counts = Counts(learn)
            adds = [GradientAccumulation(learn, n_step)] if n_step % 2 else [InPairs()] if n_step else []
            learn.fit(2, 0.01 if name != "sum" else 0.001, callbacks=[*adds, counts])
            r = learn.recorder
            found[name, n_step] = (weights(learn), [*r.raw_losses, *r.losses, *r.train_losses, *r.val_losses],
                                   counts.n, learn.opt.opt.state[next(learn.model.parameters())]["step"].item())
    return found


def test_uneven_parts_and_losses_of_any_kind():
    one = with_losses()
    for nproc in (2, 3):
        first, *others = run(with_losses, nproc)
        for key, (expected, losses, _, n_steps) in one.items():
            assert apart(first[key][0], expected) < TINY, key
            assert key[0] != "own" or not any(map(math.isnan, first[key][1])), key
            found = [0.0 if math.isnan(x) else x for x in first[key][1]]    # where nothing counts it is no number
            assert found == pytest.approx([0.0 if math.isnan(x) else x for x in losses], rel=TINY), key
            # gradients are summed once for each optimizer step, or, where it is not known, once a batch
            assert first[key][2] == 2 * -(-8 // (key[1] if key[1] % 2 else 1)), key
            assert first[key][3] == n_steps, key
            assert all(equal(first[key][0], other[key][0]) for other in others), key


def foreign(shuffle):
    data = DataBunch(DataLoader(dataset(50), 8, shuffle=shuffle), DataLoader(dataset(9, 1), 4),
                     loss_func=CrossEntropyFlat())
    learn = learner(data=data, dropout=0.0)
    learn.fit(3, 0.05)
    return weights(learn), learn.recorder.raw_losses.tolist()


def test_batches_from_elsewhere():
    one = foreign(False)
    first, second = run(foreign, 2, False)
    assert apart(first[0], one[0]) < TINY and equal(first[0], second[0])
    assert first[1] == pytest.approx(one[1], rel=TINY)
    first, second = run(foreign, 2, True)       # the same order in both, another one in each epoch
    assert equal(first[0], second[0]) and first[1] == second[1]
    assert first[1] != pytest.approx(one[1], rel=1e-3)


def with_parts():
    class Parts(nn.CrossEntropyLoss):
        metric_names = ["size"]

        def forward(self, output, target):
            self.metrics = {"size": output.detach().abs().mean()}
            return super().forward(output, target)
    learn = learner(bs=7, loss_func=Parts(), metrics=[])
    learn.fit(2, 0.01, callbacks=[LossMetrics(learn, train=True)])
    valid = learn.recorder.metrics
    learn.fit(1, 0.01, callbacks=[LossMetrics(learn)])
    return [*sum(valid, []), *sum(learn.recorder.metrics, [])]


def test_parts_of_a_loss_are_those_of_the_whole():
    one = with_parts()
    for found in run(with_parts, 3):
        assert found == pytest.approx(one, rel=1e-9)


def own_batches(how):
    rank = distributed.local_device()
    rows = list(range(48))
    mine = [rows[b:b + 8][rank * 4:(rank + 1) * 4] for b in range(0, 48, 8)]
    x, y = dataset(48).tensors
    train = [(x[i], y[i]) for i in mine]
    if how == "sampler":    # the first of two, the second, the first, ...
        train = DataLoader(dataset(48), 4, sampler=DistributedSampler(dataset(48), 2, rank, shuffle=False))
    elif how == "set":
        train = DataLoader(TensorDataset(*(torch.cat(parts) for parts in zip(*train, strict=True))), 4)
    data = DataBunch(train, DataLoader(dataset(9, 1), 4), loss_func=CrossEntropyFlat())
    learn = learner(data=data, own_batches=True)
    learn.fit(2, 0.05)
    return weights(learn)


@pytest.mark.parametrize("how", ["list", "sampler", "set"])
def test_batches_that_the_user_has_divided(how):
    x, y = dataset(48).tensors
    data = DataBunch([(x[b:b + 8], y[b:b + 8]) for b in range(0, 48, 8)], DataLoader(dataset(9, 1), 4),
                     loss_func=CrossEntropyFlat())
    learn = learner(data=data)
    learn.fit(2, 0.05)
    first, second = run(own_batches, 2, how)
    assert apart(first, weights(learn)) < TINY and equal(first, second)


def spoiled():
    learn = learner(bs=8)

    class Spoil(Callback):
        def on_batch_begin(self, train, num_batch, last_input):
            if train and num_batch == 3 and distributed.rank() == 1:
                last_input[0, 0] = float("nan")
    try:
        learn.fit(2, 0.01, callbacks=[Spoil()])
    except FloatingPointError as e:
        return str(e)


def test_what_is_first_not_finite_is_named_with_its_process():
    for text in run(spoiled, 2):
        assert text.startswith("process 1, epoch 0, batch 3") and "the input was the first to be NaN" in text


def files(folder):
    learn = learner(path=folder, metrics=[accuracy])
    learn.fit(3, 0.05, callbacks=[SaveModelCallback(learn, name="best"), EMA(learn, 0.9)])
    learn.save("last")
    other = learner(path=folder).load("last")
    try:
        learn.save("a/b\0")
    except (OSError, ValueError) as e:
        failed = type(e).__name__
    learn.export()
    return weights(learn), weights(other), failed, load_learner(folder / "export.mf").predict(torch.ones(5).double())[2]


def test_files_are_written_once_and_read_by_all(tmp_path):
    first, second = run(files, 2, tmp_path)
    assert torch.equal(first[3], second[3])
    assert equal(first[0], second[0]) and equal(first[0], first[1]) and equal(second[0], second[1])
    assert first[2] == second[2]
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["best.pth", "last.pth"]


# ---- runs that go on

class Cut(Callback):
    """Ends process `rank` without a word at this iteration, or lets a signal reach it."""

    _order, role = 3500, "process"

    def __init__(self, rank, iteration, number=None):
        self.rank, self.iteration, self.number = rank, iteration, number

    def state_dict(self):
        return {}

    def on_batch_end(self, train, iteration):
        if train and distributed.rank() == self.rank and iteration == self.iteration:
            if self.number is None:
                os._exit(9)
            signal.raise_signal(self.number)


def resumable(folder, callbacks=(), every=1, dropout=0.3, n_step=1, **kwargs):
    learn = learner(bs=8, dropout=dropout, path=folder, **kwargs)
    added = [EMA(learn, 0.9), GradientAccumulation(learn, n_step), SaveModelCallback(learn)]
    saves = Checkpoint(learn, "run", every=every)
    try:
        learn.fit_one_cycle(3, 0.05, callbacks=[*added, saves, *callbacks])
        ended = ""
    except BaseException as e:
        ended = type(e).__name__
    r = learn.recorder
    return weights(learn), r.losses.tolist(), r.val_losses, r.metrics, ended, len(r.lrs)


def cut(folder, nproc, *callback):
    """A run of which one process dies: all of them end."""
    processes, _ = start(partial(resumable, folder, [Cut(*callback)]), nproc)
    until = time.monotonic() + 20
    while any(process.is_alive() for process in processes) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(process.is_alive() for process in processes)


def test_a_run_goes_on_byte_for_byte_after_a_kill(tmp_path):
    whole = run(resumable, 2, tmp_path / "whole")
    assert whole[0][1] == whole[1][1]
    cut(tmp_path / "cut", 2, 1, 10)
    cut(tmp_path / "cut", 2, 0, 16)
    continued = run(resumable, 2, tmp_path / "cut")
    for before, after in zip(whole, continued, strict=True):
        assert equal(before[0], after[0]) and before[1:] == after[1:]


def test_a_run_goes_on_in_another_number_of_processes(tmp_path, capfd):
    plain = partial(resumable, dropout=0.0, n_step=3)
    whole = plain(tmp_path / "whole")
    for first, then in ((2, 1), (1, 2), (2, 3)):
        folder = tmp_path / f"{first}{then}"
        stopped = run(partial(plain, callbacks=[Cut(0, 9, signal.SIGTERM)], silent=False), first, folder)
        assert [r[-2:] for r in stopped] == [("Preempted", 11)] * first
        for weights_, losses, valid, metrics, ended, _ in run(partial(plain, silent=False), then, folder):
            assert apart(weights_, whole[0]) < TINY and losses == pytest.approx(whole[1], rel=TINY)
            assert valid == pytest.approx(whole[2], rel=TINY) and metrics == whole[3] and ended == ""
        assert f"batch 4, in {then} process{'es' * (then > 1)} after {first}: the numbers are right" in (
            capfd.readouterr().err)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGUSR1, "Preempted")])
def test_a_signal_to_one_process_ends_all_after_the_same_batch(tmp_path, number, name):
    whole = run(partial(resumable, n_step=3), 2, tmp_path / "whole")
    for rank, iteration in ((1, 4), (0, 11)):   # within a window of three batches, where gradients are not added up yet
        stopped = run(partial(resumable, callbacks=[Cut(rank, iteration, number)], every=1000, n_step=3), 2,
                      tmp_path / "cut")
        assert stopped[0][-2:] == stopped[1][-2:] and stopped[0][-2] == name
        assert stopped[0][-1] in (iteration + 1, iteration + 2)     # of the batch at hand the sum may be done already
    continued = run(partial(resumable, n_step=3), 2, tmp_path / "cut")
    assert all(equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(whole, continued, strict=True))


# ---- parameters that are spread over the processes

def sharded_run(folder, shard=True, cut_at=None):
    learn = learner(bs=7, path=folder, shard=shard)
    try:
        cuts = [Cut(0, cut_at, signal.SIGTERM)] if cut_at else []
        added = [GradientClipping(learn, 0.5), EMA(learn, 0.9), Checkpoint(learn, "run", every=6)]
        learn.fit_one_cycle(3, 0.05, callbacks=[*added, *cuts])
    except BaseException as e:
        if type(e).__name__ != "Preempted" or cut_at is None:
            raise
    learn.validate()
    learn.save("last")
    if shard:
        with pytest.raises(ValueError, match="spread over processes.*learn.save"):
            learn.export()
    preds = learn.get_preds()[0]
    learn.load("last")
    r = learn.recorder
    return [whole(p).detach().clone() for p in learn.model.parameters()], r.losses.tolist(), r.val_losses, preds


@SPREAD
def test_parameters_spread_over_the_processes(tmp_path):
    one = sharded_run(tmp_path / "one", shard=False)
    first, second = run(sharded_run, 2, tmp_path / "two")
    assert apart(first[0], one[0]) < TINY and first[1] == pytest.approx(one[1], rel=TINY)
    assert first[2] == pytest.approx(one[2], rel=TINY) and torch.allclose(first[3], one[3], rtol=TINY, atol=TINY)
    assert equal(first[0], second[0]) and first[1:3] == second[1:3]
    plain = learner(path=tmp_path / "two").load("last")      # by a process that works alone
    assert equal(list(plain.model.parameters()), first[0])
    taken, expected = (learner(path=tmp_path / name).load("run.ckpt") for name in ("two", "one"))
    assert apart(weights(taken), weights(expected)) < TINY


@SPREAD
@pytest.mark.slow
def test_a_run_with_parameters_spread_goes_on(tmp_path):
    one = sharded_run(tmp_path / "one", shard=False)
    first = run(sharded_run, 2, tmp_path / "two")[0]
    run(sharded_run, 2, tmp_path / "cut", True, 9)
    for name in ("alone", "three", "damaged"):
        shutil.copytree(tmp_path / "cut", tmp_path / name)
    continued = run(sharded_run, 2, tmp_path / "cut")
    assert equal(continued[0][0], first[0]) and continued[0][1:3] == first[1:3]
    assert apart(run(sharded_run, 3, tmp_path / "three")[0][0], one[0]) < TINY
    assert apart(sharded_run(tmp_path / "alone", shard=False)[0], one[0]) < TINY
    shutil.rmtree(tmp_path / "damaged/models/run.parts")
    with pytest.raises(ValueError, match="needs the folder .*run.parts.* missing or damaged"):
        sharded_run(tmp_path / "damaged", shard=False)


# ---- what callbacks do to a batch

class Weighs(Callback):
    """Returns weights of its own, without a look at those of the batch."""

    def on_backward_begin(self, num_batch):
        return {"last_weight": 3 + num_batch}


class FirstLayerDropped(InPairs):
    """Adds up by hand, and drops what the first layer has."""

    def __init__(self, learn):
        self.learn = learn

    def on_batch_end(self):
        for p in self.learn.model[0].parameters():
            p.grad = None


class Thaws(Callback):
    """Begins to train the first layer within an epoch, and ends that in the next."""

    def __init__(self, learn):
        self.learn = learn

    def on_train_begin(self):
        self.learn.freeze()

    def on_batch_begin(self, train, epoch, num_batch):
        if train and num_batch == 3 and epoch < 2:
            self.learn.freeze() if epoch else self.learn.unfreeze()


class CountsLate(nn.Module):
    """A loss in whose first batch nothing counts."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, output, target):
        self.n += 1
        return nn.functional.cross_entropy(output, target) * (self.n > 1)

    def denominator(self, output, target):
        return len(target) * (self.n > 1)


def with_callbacks():
    found = []
    for adds in (lambda _: Weighs(), FirstLayerDropped, Thaws, None):
        learn = learner(bs=7, loss_func=None if adds else CountsLate())
        learn.split(lambda model: [model[3]])
        learn.fit(3, 0.02, callbacks=[adds(learn)] if adds else None)
        found.append((weights(learn), learn.recorder.train_losses))
    return found


def test_what_callbacks_do_to_a_batch_they_do_to_the_whole():
    one = with_callbacks()
    for nproc in (2, 3):
        first, *others = run(with_callbacks, nproc)
        for i, (ours, losses) in enumerate(first):
            assert apart(ours, one[i][0]) < TINY, i
            assert losses == pytest.approx(one[i][1], rel=TINY), i
            assert all(equal(ours, other[i][0]) for other in others), i


# ---- starting

def test_processes_that_have_not_joined_are_warned_of(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.warns(UserWarning, match="2 processes train the same thing.*to_distributed"):
        fake_learner().fit(1)


def test_without_torchrun_nothing_happens():
    learn = fake_learner()
    before = vars(learn).copy()
    assert learn.to_distributed() is learn and vars(learn) == before


def launched(fail):
    learn = fake_learner(silent=False, metrics=[accuracy]).to_distributed()
    learn.fit(1, callbacks=[InProcess1(lambda: 1 / 0, (0, 1))] if fail else None)
    return distributed.rank(), learn.recorder.val_losses


@pytest.mark.slow
def test_launch(capfd):
    rank, losses = distributed.launch(launched, 2, False)
    learn = fake_learner()
    learn.fit(1)
    assert rank == 0 and losses == pytest.approx(learn.recorder.val_losses, rel=1e-5)
    assert capfd.readouterr().out.count("train_loss") == 1
    with pytest.raises(RuntimeError, match="^process 1 ended.*: ZeroDivisionError"):
        distributed.launch(launched, 2, True)


def test_what_launch_returns_and_refuses():
    offset = 3
    assert distributed.launch(lambda f: f(offset) + distributed.local_device(), 2, lambda x: x + 1) == 4
    assert torch.equal(distributed.launch(lambda: torch.arange(100_000), 2), torch.arange(100_000))
    with pytest.raises(RuntimeError, match="process 1 ended: OSError: the disk is full") as e:
        distributed.launch(lambda: time.sleep(0.3) if distributed.local_device() == 0 else no_disk(), 2)
    assert "in no_disk" in e.value.__notes__[0]
    with pytest.raises(RuntimeError, match="must return what can be pickled, not a Learner.*learn.save"):
        distributed.launch(fake_learner, 2)
    # what an earlier launch has left is not taken apart in a later one's processes
    assert distributed.launch(lambda: gc.collect() >= 0, 2)
    for wrong in ((3, 2), (no_disk, 0), (no_disk, 1.5)):
        with pytest.raises(TypeError, match="takes a function and a number of processes"):
            distributed.launch(*wrong)


def no_disk():
    raise OSError("the disk is full")


def test_launch_in_a_thread_and_its_end_by_ctrl_c():
    found = []
    thread = threading.Thread(target=lambda: found.append(distributed.launch(distributed.local_device, 2)))
    thread.start()
    thread.join(60)
    assert found == [0]
    handler = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(2, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        distributed.launch(time.sleep, 2, 60)
    assert signal.getsignal(signal.SIGINT) is handler and not multiprocessing.active_children()
    assert distributed.launch(distributed.local_device, 2) == 0


JOB = """
from minifast.basics import *
from minifast.callback import Callback
from minifast.callbacks.checkpoint import Checkpoint
from minifast.distributed import rank
from minifast.fakes import fake_data
import os, sys

class Killed(Callback):
    role = "process"
    def on_batch_end(self, train, iteration):
        if train and iteration == 30 and rank() == 1 and os.path.exists("kill"):
            os.remove("kill")
            os.kill(os.getpid(), 9)

torch.manual_seed(0)
data = fake_data(train_length=400, valid_length=50, batch_size=10)
learn = Learner(data, nn.Linear(5, 4), path=".", metrics=[accuracy])
learn.to_distributed(timeout=30)
learn.fit(1, callbacks=[Killed(), Checkpoint(learn, "run", every=10)])
learn.save("last")
"""


@pytest.mark.slow
def test_two_agents_of_torchrun_and_a_worker_that_is_killed(tmp_path):
    for killed in (False, True):
        folder = tmp_path / str(killed)
        folder.mkdir()
        (folder / "job.py").write_text(JOB)
        if killed:
            (folder / "kill").touch()
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
                   "--max-restarts", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}",
                   "--monitor-interval", "0.5", "job.py"]
        agents = [subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True) for _ in range(2)]
        try:
            said = [agent.communicate(timeout=100) for agent in agents]
        finally:
            [agent.kill() for agent in agents]
        assert [agent.returncode for agent in agents] == [0, 0], said
        out = "".join(out for out, _ in said)
        assert len(re.findall(r"^0 +\d\.\d{6}", out, re.M)) == 1 and out.count("train_loss") == 1 + killed
        assert ("goes on in epoch 0 at batch 30" in "".join(err for _, err in said)) == killed
        assert not (folder / "kill").exists()
    before, after = nn.Linear(5, 4), nn.Linear(5, 4)
    for folder, model in (("False", before), ("True", after)):
        Learner(fake_learner().data, model, path=tmp_path / folder).load("last")
    assert equal(list(before.parameters()), list(after.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("nproc", [2, 3])
def test_the_main_job_by_one_option(nproc, tmp_path):
    command = [sys.executable, "-m", "minifast", "--nproc", str(nproc), "--epochs", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train_loss") == 1 and len(re.findall(r"^0 +0\.\d{6}", done.stdout, re.M)) == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix == ".csv") == ["history.csv"]


def main_job(bs):
    torch.manual_seed(0)
    data = ImageDataBunch.from_folder(untar_data(URLs.MNIST_SAMPLE), bs=bs, seed=0)
    data.train_dl.dl.drop_last = False
    data.train_dl.dl.x, data.valid_dl.dl.x = data.train_dl.dl.x.double(), data.valid_dl.dl.x.double()
    learn = Learner(data, simple_cnn((3, 16, 16, 2)).double(), metrics=[accuracy], silent=True).to_distributed()
    learn.lr_find()
    learn.fit_one_cycle(2, 5e-2)
    return weights(learn), [*learn.recorder.raw_losses, *learn.recorder.losses], learn.recorder.metrics


class Weights(Callback):
    """Keeps the weights after 50 batches, and ends the run."""

    role, _order = "process", 900

    def __init__(self, learn):
        self.learn = learn

    def on_batch_end(self, train, iteration):
        if train and iteration == 49:
            self.kept = weights(self.learn)
            return {"stop_epoch": True, "stop_training": True, "skip_validate": True}


def fifty_steps():
    torch.manual_seed(0)
    data = ImageDataBunch.from_folder(untar_data(URLs.MNIST_SAMPLE), bs=64, seed=0)
    learn = Learner(data, simple_cnn((3, 16, 16, 2)), silent=True).to_distributed()
    keeps = Weights(learn)
    learn.fit_one_cycle(2, 5e-2, callbacks=[keeps])
    return keeps.kept


@pytest.mark.slow
def test_the_main_job_in_float32_begins_alike():
    first, second = run(fifty_steps, 2)
    assert apart(first, fifty_steps()) < 1e-5 and equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("bs", [64, 333])
def test_the_main_job_in_float64(bs):
    one = main_job(bs)
    for nproc in (2, 3):
        first, *others = run(main_job, nproc, bs)
        assert apart(first[0], one[0]) < TINY and first[1] == pytest.approx(one[1], rel=TINY) and first[2] == one[2]
        assert all(equal(first[0], other[0]) for other in others)


# ---- failures

class InProcess1(Callback):
    """Does something odd in process 1, in epoch 1 at batch 2."""

    def __init__(self, what, at=(1, 2)):
        self.what, self.at = what, at

    def on_batch_end(self, train, epoch, num_batch):
        if train and distributed.rank() == 1 and (epoch, num_batch) == self.at:
            return self.what()


class BadMetric(Callback):
    """Raises in process 1, before or after all else of a run."""

    name = "bad"

    def __init__(self, event):
        setattr(self, event, self.fails)

    def fails(self):
        assert distributed.rank() == 0

    def on_epoch_end(self, last_metrics):
        return {"last_metrics": [*last_metrics, 0.0]}


class BadEnd(Callback):
    """Raises in process 1 when the run ends."""

    def on_train_end(self):
        assert distributed.rank() == 0


def odd_run(what, epochs=3):
    learn = learner(timeout=2)
    if what == "validates":
        learn.validate()
        learn.validate(metrics=[lambda output, target: 1 / (1 - distributed.rank())])
    if what in ("on_train_begin", "on_train_end"):
        learn.metrics = [BadMetric(what)]
    learn.fit(epochs, 0.01, callbacks=[InProcess1(what)] if callable(what) else [BadEnd()] * (what == "ends"))


def hang():
    time.sleep(60)


FAILURES = {
    "raises": (lambda: 1 / 0, "process 1 ended in epoch 1, batch 2: ZeroDivisionError: division by zero"),
    "exits": (lambda: sys.exit(0), "process 1 ended in epoch 1, batch 2: SystemExit: 0"),
    "is killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "process 1 is gone without .*epoch 1, batch 3"),
    "hangs": (hang, r"process 1 did not answer within 2 s \(a hang\?\); process 0 was in epoch 1, batch 3"),
    "raises at the beginning": ("on_train_begin", "process 1 ended in epoch 0, batch 0: AssertionError"),
    "raises at the end": ("on_train_end", "process 1 ended in epoch 3, batch 0: AssertionError"),
    "has a callback that raises at the end": ("ends", "process 1 ended in epoch 3, batch 0: AssertionError"),
    "raises in a validation": ("validates", "process 1 ended in a validation or prediction: ZeroDivisionError"),
    "stops alone": (lambda: {"stop_epoch": True}, "process 1: InProcess1 returned stop_epoch, epoch 1, batch 2"),
    "ends the run alone": (lambda: {"stop_training": True}, "process 1: InProcess1 returned stop_training, epoch 1, "),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_process_that_fails_ends_all_and_is_named(how):
    what, says = FAILURES[how]
    began = time.monotonic()
    processes, queue = start(odd_run, 2, what)
    try:
        told = {}
        while 0 not in told and time.monotonic() - began < 30:
            [process.is_alive() for process in processes]   # as a launcher does: else one that is dead stays a zombie
            with contextlib.suppress(Empty):
                rank, _, text = queue.get(timeout=0.1)
                told[rank] = text
        took = time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert re.search(says, told[0].strip().splitlines()[-1] if "alone" not in how else told[0]), told[0][-1500:]
    assert took < (12 if how == "hangs" else 8)


# ---- decisions

class Decides(Callback):
    """Returns a decision from an event, in some processes, in an epoch at a batch."""

    role = "process"    # so that a run goes on without it

    def __init__(self, event, decision, at, ranks):
        self.event, self.decision, self.at, self.ranks = event, decision, at, ranks

    def state_dict(self):
        return {}

    def _in(self, event, *place):
        if event == self.event and distributed.rank() in self.ranks and place == self.at[:len(place)]:
            return {self.decision: 1 if self.decision == "n_epochs" else True}

    def on_train_begin(self):
        return self._in("train_begin")

    def on_epoch_begin(self, epoch):
        return self._in("epoch_begin", epoch)

    def on_backward_begin(self, epoch, num_batch):
        return self._in("backward_begin", epoch, num_batch)

    def on_backward_end(self, epoch, num_batch):
        return self._in("backward_end", epoch, num_batch)

    def on_step_end(self, epoch, num_batch):
        return self._in("step_end", epoch, num_batch)

    def on_batch_end(self, train, epoch, num_batch):
        return self._in("batch_end", epoch, num_batch) if train else None

    def on_epoch_end(self, epoch):
        return self._in("epoch_end", epoch)


DECISIONS = [("backward_begin", "skip_bwd"), ("backward_begin", "skip_step"), ("backward_end", "skip_zero"),
             ("step_end", "skip_zero"), ("batch_end", "stop_epoch"), ("batch_end", "stop_training"),
             ("batch_end", "skip_validate")]
ALONE = [   # event, decision, where, and after how many batches there is a checkpoint
    *((*decision, (0, 2), 0) for decision in DECISIONS if "skip_" in decision[1] and decision[0] != "batch_end"),
    *((*decision, (0, 2), 3) for decision in DECISIONS),
    *((*decision, (0, 6), 7) for decision in DECISIONS), *((*decision, (1, 6), 0) for decision in DECISIONS),
    *(("epoch_begin", name, (1, 0), 0) for name in ("stop_training", "skip_validate")),
    *(("epoch_end", name, (at, 7), 7) for name in ("stop_training", "skip_validate") for at in (0, 1)),
    *(("train_begin", name, (0, 0), 7) for name in ("stop_training", "skip_validate", "n_epochs"))]


def alone(folder, shard):
    found = []
    for i, (event, decision, at, every) in enumerate(ALONE):
        learn = learner(timeout=20, path=folder / f"{i}", shard=shard)
        saves = [Checkpoint(learn, "run", every=every)] if every else []
        try:
            learn.fit(2, 0.01, callbacks=[Decides(event, decision, at, [1]), *saves])
            said = ""
        except RuntimeError as e:
            said = str(e)
        if every:
            learn = learner(path=folder / f"{i}", shard=shard)
            learn.fit(2, 0.01, callbacks=[Checkpoint(learn, "run", every=1000)])
        found.append((said, [whole(p).detach().clone() for p in learn.model.parameters()]))
    return found


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=[SPREAD, pytest.mark.slow])])
def test_a_decision_of_one_process_alone_is_an_error_and_in_no_file(tmp_path, shard):
    plain = learner()
    plain.fit(2, 0.01)
    for found in run(alone, 2, tmp_path, shard):
        for case, (said, weights_) in zip(ALONE, found, strict=True):
            _, decision, (epoch, batch), every = case
            expected = f"have not decided alike. process 1: Decides returned {decision}, epoch {epoch}, batch {batch}."
            assert expected in said and "process 0" not in said, (case, said)
            assert not every or apart(weights_, weights(plain)) < TINY, case


def all_skip():
    found = []
    for n_step in (1, 3):
        for at in ([(0, 0), (1, 2)], [(0, 6), (1, 5)]):
            learn = learner(bs=8, n=50)
            learn.fit(2, 0.05, callbacks=[GradientAccumulation(learn, n_step), *(
                Decides("backward_begin", "skip_bwd", place, range(3)) for place in at)])
            found.append((weights(learn), learn.recorder.losses.tolist()))
    return found


def test_a_backward_pass_that_all_processes_skip():
    one = all_skip()
    for nproc in (2, 3):
        for found in run(all_skip, nproc):
            for (ours, losses), (expected, expected_losses) in zip(found, one, strict=True):
                assert apart(ours, expected) < TINY and losses == pytest.approx(expected_losses, rel=TINY)
