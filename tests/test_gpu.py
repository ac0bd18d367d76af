"""What only a GPU can show: no waits, the same promises, the quicker paths. `pytest -m gpu`; skipped without one."""
from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn, optim
from torch.utils.data import TensorDataset

from minifast.callback import Callback
from minifast.callbacks import EMA, GradientAccumulation, GradientClipping
from minifast.confusion import FBeta
from minifast.data import DataBunch
from minifast.device_loader import default_device
from minifast.fused import FusedAdam
from minifast.learner import Learner
from minifast.losses import CrossEntropyFlat
from minifast.metrics import accuracy
from minifast.optimizer import OptimWrapper
from minifast.utils import to_device

# torch warns that to watch for waits is a prototype, and of itself when its compiler is imported
pytestmark = [pytest.mark.filterwarnings("ignore:Synchronization debug"), pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def a_learner(path, n=640, loss_func=None, device=None, **kwargs):
    """Two classes of small pictures, learned by convolutions and batch norm; on the GPU by default."""
    torch.manual_seed(0)
    x = torch.randn(n, 3, 8, 8)
    y = (x.mean((1, 2, 3)) > 0).long()
    data = DataBunch.create(TensorDataset(x, y), TensorDataset(x[:100], y[:100]), bs=32, device=device, path=path,
                            seed=0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    return Learner(data, model, loss_func=loss_func or CrossEntropyFlat(), metrics=[accuracy], silent=True, **kwargs)


def weights(learn):
    return [t.clone() for t in learn.model.state_dict().values()]


def test_a_learner_is_on_the_current_gpu_by_default(tmp_path):
    learn = a_learner(tmp_path)
    assert learn.data.device == torch.device("cuda", torch.cuda.current_device())
    x, y = next(iter(learn.data.train_dl))
    assert x.device == y.device == learn.data.device == next(learn.model.parameters()).device


class NoWaits(Callback):
    """Between the fifth batch of an epoch and its last one, whatever waits for the GPU is an error.

    In the first ones DDP, too, settles how it goes on."""

    _order = -10_000
    role = "process"    # a run may go on without it

    def on_batch_begin(self, train, num_batch):
        if train and num_batch == 4:
            torch.cuda.set_sync_debug_mode("error")
        if train and num_batch == 18 or not train:
            torch.cuda.set_sync_debug_mode("default")

    def on_train_end(self):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("case", ["plain", "SGD", "ignored targets", "callbacks", "bf16", "metrics"])
def test_a_batch_does_not_wait(case, tmp_path):
    options = {"SGD": dict(opt_func=partial(optim.SGD, momentum=0.9)),
               "ignored targets": dict(loss_func=nn.CrossEntropyLoss(ignore_index=7, weight=torch.ones(2).cuda()))}
    learn = a_learner(tmp_path, **options.get(case, {}))
    learn.fit(1)    # what is made at the first use may wait
    callbacks = [NoWaits()]
    if case == "callbacks":
        callbacks += [GradientAccumulation(learn, 2), GradientClipping(learn, 1.0), EMA(learn)]
    if case == "bf16":
        learn.to_bf16()
    if case == "metrics":
        learn.metrics = [accuracy, FBeta("macro")]
    learn.fit_one_cycle(1, 1e-3, callbacks=callbacks)
    assert len(learn.recorder.lrs) == 20


def test_a_wait_is_seen(tmp_path):
    class Waits(Callback):
        def on_batch_end(self, train, last_loss): last_loss.item()

    with pytest.raises(RuntimeError, match="synchroni"):
        a_learner(tmp_path).fit(1, callbacks=[NoWaits(), Waits()])
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("opt_func", [FusedAdam, optim.AdamW, partial(optim.SGD, momentum=0.9, nesterov=True)])
def test_steps_are_torch_s_own_to_the_bit(opt_func):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).cuda()
    theirs = copy.deepcopy(ours)
    opt = OptimWrapper(opt_func(ours.parameters(), lr=0.01))
    reference = getattr(opt_func, "func", opt_func)
    options = dict(momentum=0.9, nesterov=True) if reference is optim.SGD else {}
    if reference is FusedAdam:
        reference, options = optim.Adam, dict(betas=(0.9, 0.99))
    torchs = reference(theirs.parameters(), lr=0.01, fused=True, **options)
    for _ in range(50):
        x = torch.randn(8, 3, 8, 8, device="cuda")
        for net, step, zero in ((ours, opt.step, opt.zero_grad), (theirs, torchs.step, torchs.zero_grad)):
            net(x).square().mean().backward()
            step()
            zero()
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    assert opt.kernel.usable


class CutOff(Exception):
    pass


class Cut(Callback):
    role = "process"

    def on_batch_end(self, train, iteration):
        if train and iteration == 29:
            raise CutOff


def test_a_run_goes_on_exactly(tmp_path):
    torch.backends.cudnn.deterministic = True
    try:
        whole = a_learner(tmp_path / "whole")
        whole.fit_one_cycle(3, 1e-2)
        cut = a_learner(tmp_path / "cut")
        with pytest.raises(CutOff):
            cut.fit_one_cycle(3, 1e-2, callbacks=[Cut()], checkpoint="run")
        again = a_learner(tmp_path / "cut")
        again.fit_one_cycle(3, 1e-2, checkpoint="run")
    finally:
        torch.backends.cudnn.deterministic = False
    assert all(map(torch.equal, weights(whole), weights(again)))
    assert whole.recorder.raw_losses.tolist() == again.recorder.raw_losses.tolist()


def test_the_finder_leaves_no_trace(tmp_path):
    learn = a_learner(tmp_path)
    learn.fit(1, 1e-3)
    before, random = weights(learn), torch.cuda.get_rng_state()
    found = learn.lr_find(num_it=30)
    assert len(found.lrs) <= 30 and all(map(torch.equal, before, weights(learn)))
    assert torch.equal(random, torch.cuda.get_rng_state())


def test_files_go_to_the_cpu_and_back(tmp_path):
    learn = a_learner(tmp_path)
    learn.fit(1, 1e-3)
    learn.save("on-gpu")
    on_cpu = a_learner(tmp_path, device="cpu").load("on-gpu")
    assert next(on_cpu.model.parameters()).device.type == "cpu"
    assert all(torch.equal(a.cpu(), b) for a, b in zip(weights(learn), weights(on_cpu), strict=True))
    on_cpu.save("on-cpu")
    assert all(map(torch.equal, weights(learn), weights(a_learner(tmp_path).load("on-cpu"))))
    preds = [x.get_preds()[0] for x in (learn, on_cpu)]
    torch.testing.assert_close(*preds, rtol=1e-3, atol=1e-3)


def test_a_nan_is_found_and_explained(tmp_path):
    learn = a_learner(tmp_path)
    with pytest.raises(FloatingPointError, match="was the first to be"):
        learn.fit(2, 1e30)
    assert all(t.isfinite().all() for t in weights(learn))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_16_bits_come_near_32(precision, tmp_path):
    plain, half = a_learner(tmp_path), a_learner(tmp_path)
    getattr(half, f"to_{precision}")()
    for learn in (plain, half):
        learn.fit_one_cycle(3, 1e-2)
    assert abs(plain.recorder.val_losses[-1] - half.recorder.val_losses[-1]) < 0.1


@pytest.mark.filterwarnings("ignore")   # the compiler's own, about what else it could do
@pytest.mark.parametrize("case", ["plain", "callbacks", "accumulation"])
def test_cuda_graphs_see_the_schedule_and_keep_the_metrics(case, tmp_path, monkeypatch):
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: [replays.append(1), replay(graph)])
    plain, graphs = a_learner(tmp_path), a_learner(tmp_path).compile(mode="reduce-overhead")
    for learn in (plain, graphs):
        callbacks = {"callbacks": [GradientClipping(learn, 1.0), EMA(learn)],
                     "accumulation": [GradientAccumulation(learn, 2)]}.get(case, [])
        learn.fit_one_cycle(2, 1e-2, callbacks=callbacks)
    assert len(replays) > 60    # of forward and backward passes: 20 batches an epoch, the first ones are captured
    assert graphs.recorder.lrs == plain.recorder.lrs
    assert [float(m[0]) for m in plain.recorder.metrics] == pytest.approx(
        [float(m[0]) for m in graphs.recorder.metrics], abs=0.05)
    torch.testing.assert_close(graphs.recorder.losses, plain.recorder.losses, rtol=1e-2, atol=1e-2)
    assert torch.equal(graphs.get_preds()[0], graphs.get_preds()[0])


def test_workers_pin_their_batches(tmp_path):
    x = torch.randn(64, 3)
    data = DataBunch.create([(a, i % 2) for i, a in enumerate(x)], [(x[0], 0)] * 8, bs=16, num_workers=1, path=tmp_path)
    learn = Learner(data, nn.Linear(3, 2), loss_func=CrossEntropyFlat(), silent=True)
    learn.fit(2, 1e-2)
    assert len(learn.recorder.lrs) == 8 and learn.get_preds()[0].shape == (8, 2)


ONE_PROCESS = """
import sys, torch
sys.path.insert(0, "tests")
from pathlib import Path
from test_gpu import *
torch.backends.cudnn.deterministic = True
folder = Path(sys.argv[1])

def trained(learn, name, *callbacks):
    learn.fit(1, 1e-3)
    learn.fit_one_cycle(2, 1e-2, callbacks=[*callbacks, GradientAccumulation(learn, 2)], checkpoint=name)
    learn.save(name)
    return weights(learn), learn.recorder.val_losses, learn.get_preds()[0]

plain = trained(a_learner(folder), "plain")
joined = a_learner(folder).to_distributed()
assert torch.distributed.get_backend() and joined.data.device == torch.device("cuda", 0)
found = trained(joined, "joined", NoWaits())
assert all(torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6) for a, b in zip(plain[0], found[0]))
assert abs(plain[1][-1] - found[1][-1]) < 1e-5 and torch.allclose(plain[2], found[2], atol=1e-4)
again = a_learner(folder).to_distributed()
again.fit(1, 1e-3)
again.fit_one_cycle(2, 1e-2, callbacks=[GradientAccumulation(again, 2)], checkpoint="joined")   # it is finished: loaded
assert all(map(torch.equal, weights(again), found[0]))
synced = a_learner(folder).to_distributed(sync_bn=True)
assert any(isinstance(m, nn.SyncBatchNorm) for m in synced.model.modules())
sync = trained(synced, "sync")
assert all(torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6) for a, b in zip(plain[0], sync[0]))
shard = trained(a_learner(folder).to_distributed(shard=True), "shard")
assert abs(plain[1][-1] - shard[1][-1]) < 1e-4 and torch.allclose(plain[2], shard[2], atol=1e-3)
alone = a_learner(folder, device="cpu").load("shard")
assert next(alone.model.parameters()).device.type == "cpu"
print("all is well")
"""


def test_one_process_of_several(tmp_path):
    """The whole way of several processes, NCCL included, with one: in a process of its own."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    env = {**os.environ, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost",
           "MASTER_PORT": str(port)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ONE_PROCESS, str(tmp_path)], env=env,
                          cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("all is well\n"), done.stdout + done.stderr


def test_batches_are_pinned_before_they_go_to_the_gpu():
    x = torch.randn(1000)
    assert torch.equal(to_device({"x": x}, "cuda")["x"].cpu(), x)
    y = torch.randn(10**6, device="cuda").square()
    assert torch.equal(to_device(y, "cpu"), y.cpu())    # and what comes back has arrived


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_each_process_has_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert default_device() == torch.device("cuda", 1)


def test_the_device_is_that_of_the_local_rank(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert default_device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))    # of another launcher: it is not ours
    assert default_device() == torch.device("cuda", torch.cuda.current_device())
