"""Several processes train as one: equal numbers, one set of files, failures that are named, runs that go on."""
from __future__ import annotations

import os
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from callback_set import CLASSES, a_learner, make
from processes import run
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from minifast.basics import *
from minifast.callback import Callback
from minifast.confusion import KappaScore

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")

TINY = 1e-12


def dataset(n, seed=0):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=gen, dtype=torch.float64)
    return TensorDataset(x, x[:, :4].argmax(1))


def learner(bs=8, n=50, n_valid=23, dropout=0.0, **kwargs):
    """In float64: there sums in another order are equal to twelve digits at the end of a run."""
    torch.manual_seed(0)
    data = kwargs.pop("data", None) or DataBunch.create(dataset(n), dataset(n_valid, 1), bs=bs, val_bs=4, seed=0,
                                                        drop_last=False, loss_func=CrossEntropyFlat())
    layers = [nn.Linear(5, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4)]
    kwargs = {"metrics": [accuracy], "silent": True, **kwargs}
    return Learner(data, nn.Sequential(*layers).double(), **kwargs).to_distributed()


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
