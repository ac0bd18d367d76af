"""What a batch costs, in numbers that do not depend on the machine: calls, operations of torch, memory that stays.

The most that each may be was counted when this was written. Whoever makes it less lowers the number here.
"""
import gc
import sys
from functools import partial

import pytest
import torch
from torch import nn, optim
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

import minifast
from minifast import loop
from minifast.callbacks import EMA, CSVLogger, EarlyStoppingCallback, GradientClipping, SaveModelCallback
from minifast.data import DataBunch
from minifast.learner import Learner
from minifast.losses import CrossEntropyFlat
from minifast.metrics import accuracy

HERE = minifast.__file__.removesuffix("__init__.py")
FIRST, LAST = 10, 30    # the batches that are counted
# calls of this package's functions, calls of functions written in C from these, and operations of torch, a batch
MOST = {"bare": (43, 47, 64), "one cycle": (52, 50, 64), "three groups": (60, 73, 66), "five callbacks": (66, 75, 73),
        "SGD": (51, 49, 65), "AdamW of torch": (52, 50, 64), "validation": (13, 30, 18)}


class Operations(TorchDispatchMode):
    """Counts the operations of torch."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += 1
        return func(*args, **(kwargs or {}))


def a_learner(path, n_batches=40, **kwargs):
    torch.manual_seed(0)
    x = torch.randn(8 * n_batches, 6)
    data = DataBunch.create(TensorDataset(x, x[:, 0].gt(0).long()), TensorDataset(x, x[:, 0].gt(0).long()), bs=8,
                            val_bs=8, path=path, device="cpu")
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    return Learner(data, model, loss_func=CrossEntropyFlat(), silent=True, **kwargs)


def run(case, path):
    """A fit of that kind, on a learner that has trained before."""
    options = {"SGD": dict(opt_func=partial(optim.SGD, momentum=0.9)), "AdamW of torch": dict(opt_func=optim.AdamW)}
    learn = a_learner(path, **options.get(case, {}))
    if case == "three groups":
        learn.split([learn.model[2], learn.model[4]])
    learn.fit(1)
    if case == "validation":
        return learn.validate
    if case == "bare":
        return partial(learn.fit, 1)
    lr = slice(1e-4, 1e-3) if case == "three groups" else 1e-3
    callbacks = []
    if case == "five callbacks":
        learn.metrics = [accuracy]
        callbacks = [cls(learn) for cls in (EarlyStoppingCallback, SaveModelCallback, CSVLogger, GradientClipping, EMA)]
    return partial(learn.fit_one_cycle, 1, lr, callbacks=callbacks)


def between(monkeypatch, fit, begin, end):
    """`begin()` before the batch FIRST of what `fit` does, `end()` before the batch LAST."""
    real, n = loop.forward, [0]

    def forward(*args):
        n[0] += 1
        if n[0] == LAST:
            end()
        if n[0] == FIRST:
            begin()
        return real(*args)

    monkeypatch.setattr(loop, "forward", forward)
    fit()
    assert n[0] >= LAST


@pytest.mark.parametrize("case", MOST)
def test_the_calls_of_a_batch(case, tmp_path, monkeypatch):
    ours = from_ours = 0

    def count(frame, event, arg):
        nonlocal ours, from_ours
        is_ours = frame.f_code.co_filename.startswith(HERE)
        ours += is_ours and event == "call"
        from_ours += is_ours and event == "c_call"

    between(monkeypatch, run(case, tmp_path), lambda: sys.setprofile(count), lambda: sys.setprofile(None))
    counted = ours / (LAST - FIRST), from_ours / (LAST - FIRST)
    assert counted[0] <= MOST[case][0] and counted[1] <= MOST[case][1], counted


@pytest.mark.skipif(torch.__version__ < TorchVersion("2.14"), reason="older torch makes more operations of a pass")
@pytest.mark.parametrize("case", MOST)
def test_the_operations_of_a_batch(case, tmp_path, monkeypatch):
    counter = Operations()
    between(monkeypatch, run(case, tmp_path), counter.__enter__, lambda: counter.__exit__(None, None, None))
    assert counter.n / (LAST - FIRST) <= MOST[case][2], counter.n / (LAST - FIRST)


@pytest.mark.parametrize("case", ["bare", "five callbacks"])
def test_what_stays_in_memory_after_a_batch(case, tmp_path, monkeypatch):
    blocks = []

    def look():
        gc.collect()
        blocks.append(sys.getallocatedblocks())

    between(monkeypatch, run(case, tmp_path), look, look)
    # the losses of the epoch are kept on the device until its end: two tensors and their weight a batch
    assert (blocks[1] - blocks[0]) / (LAST - FIRST) <= 8, blocks
