import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from minifast.loaders import ItemLoader
from minifast.workers import Workers


class Items:
    """Item i is (its number, what it draws), and the process that made it is its target."""

    def __init__(self, n=12):
        self.n, self.shift = n, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == 99:
            raise ValueError("item 99 is broken")
        return torch.tensor([i + self.shift, int(torch.randint(1000, ())), np.random.randint(1000)]), os.getpid()


def loader(keep=True, workers=2, n=12, **kwargs):
    return ItemLoader(Items(n), 4, True, seed=3, num_workers=workers, keep_workers=keep, **kwargs)


def pids(dl):
    return {int(pid) for _, y in dl for pid in y}


def values(batches):
    return torch.cat([x for x, _ in batches]).tolist()


def test_the_processes_live_as_long_as_the_loader_and_give_what_this_one_gives():
    dl, alone = loader(), loader(workers=0)
    first = pids(dl)
    assert len(first) == 2 and os.getpid() not in first
    list(alone)
    for _ in range(2):
        assert values(dl) == values(alone)
    assert pids(dl) == first
    assert pids(loader(keep=False)) & first == set()


def test_a_pass_begins_anywhere_after_another_that_was_left_in_the_middle():
    dl, alone = loader(n=40), loader(n=40, workers=0)
    first = pids(dl)
    it = iter(dl)
    next(it), next(it)
    del it
    alone.passes = dl.passes
    assert values(dl.batches(7)) == values(alone.batches(7))
    assert pids(dl) == first


def test_a_pass_within_another_has_processes_of_its_own():
    dl, alone = loader(), loader(workers=0)
    pairs = [(values([a]), values([b])) for a, b in zip(dl, dl, strict=True)]
    assert pairs == [(values([a]), values([b])) for a, b in zip(alone, alone, strict=True)]
    first = pids(dl)
    it = iter(dl)
    next(it)
    assert pids(dl) & first == set()
    rest = list(it)
    assert len(rest) == 2 and pids(dl) == first


def test_a_changed_dataset_is_seen():
    dl = loader()
    first = pids(dl)
    dl.dataset.shift = 1000
    assert min(row[0] for row in values(dl)) == 1000
    dl.num_workers = 1
    assert len(pids(dl)) == 1 and not pids(dl) & first


def test_a_failure_is_told_and_the_next_pass_has_new_processes():
    dl = loader(n=100)
    with pytest.raises(ValueError, match="item 99 is broken"):
        list(dl)
    dl.n = 12
    first = pids(dl)
    os.kill(min(first), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="worker"):
        for _ in range(3):
            list(dl)
    assert len(pids(dl) - first) >= 1 and len(values(dl)) == 12


def test_ctrl_c_reaches_the_parent_alone():
    dl = loader()
    first = pids(dl)
    for pid in first:
        os.kill(pid, signal.SIGINT)
    assert pids(dl) == first


def test_a_copy_has_no_processes_yet():
    dl = loader()
    list(dl)
    for other in copy.deepcopy(dl), pickle.loads(pickle.dumps(dl)):
        assert other._workers._dl is None and other.passes == 1
        twin = copy.deepcopy(other)
        assert values(other) == values(twin)
    assert pickle.loads(pickle.dumps(Workers()))._busy is False


SPAWNED = """
import sys
import torch
from torch import multiprocessing
from test_workers import loader, pids, values

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    dl, alone = loader(), loader(workers=0)
    assert values(dl) == values(alone)
    first = pids(dl)
    assert pids(dl) == first and len(first) == 2
    dl.collate_fn = lambda items: items
    try:
        list(dl)
    except RuntimeError as e:
        print(e)
"""


@pytest.mark.skipif("spawn" not in multiprocessing.get_all_start_methods(), reason="this system starts none so")
@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_processes_that_are_not_forked(method, tmp_path):
    (tmp_path / "main.py").write_text(SPAWNED)
    path = os.pathsep.join([os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))])
    out = subprocess.run([sys.executable, "main.py", method], cwd=tmp_path, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": path})
    assert "num_workers=2 starts processes that do not share this one's memory" in out.stdout, out.stderr
    assert "Traceback" not in out.stderr
