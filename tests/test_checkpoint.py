"""Files are whole and safe; what is preserved is exact."""
import os
import pickle
import random
import stat

import numpy as np
import pytest
import torch
from torch import nn

from minifast.disk import previous_of
from minifast.fakes import fake_learner
from minifast.files import load_file, save_file
from minifast.snapshot import preserved
from minifast.utils import rng_state, set_rng_state

DATA = {"weights": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16),
        "plain": [1, 2.5, "text", None, True, (1, 2), {"deep": {"er": b"bytes"}}]}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


# ---- out and back

def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = save_file(DATA, tmp_path / "deep" / "er" / "file.pth")
    assert path == tmp_path / "deep" / "er" / "file.pth" and same(load_file(path), DATA)


def test_a_file_can_be_read_by_torch_alone(tmp_path):
    assert same(torch.load(save_file(DATA, tmp_path / "file.pth"), weights_only=True), DATA)


def test_a_bare_file_of_torch_can_be_read(tmp_path):
    torch.save(DATA, tmp_path / "file.pth")
    assert same(load_file(tmp_path / "file.pth"), DATA)


def test_the_file_is_as_readable_as_any_other(tmp_path):
    path, other = save_file(DATA, tmp_path / "file.pth"), tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_the_previous_file_is_kept_on_request(tmp_path):
    path = tmp_path / "run.ckpt"
    for i in range(3):
        save_file({"i": i}, path, keep_previous=True)
    assert (load_file(path), load_file(previous_of(path))) == ({"i": 2}, {"i": 1})
    assert sorted(os.listdir(tmp_path)) == ["run.ckpt", "run.previous.ckpt"]


# ---- whole or not at all

@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, error):
    path = save_file({"old": 1}, tmp_path / "file.pth")

    def fails(*args):
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(os, call, fails)
        save_file({"new": 2}, path)
    assert load_file(path) == {"old": 1} and os.listdir(tmp_path) == ["file.pth"]


def test_the_new_name_appears_only_when_all_is_written(tmp_path, monkeypatch):
    path, seen, replace = tmp_path / "file.pth", [], os.replace

    def looks(temporary, target):
        seen.append((os.path.exists(target), same(load_file(temporary), DATA)))
        replace(temporary, target)

    monkeypatch.setattr(os, "replace", looks)
    save_file(DATA, path)
    assert seen == [(False, True)]


@pytest.mark.parametrize("thing, name", [(np.float64(1.0), "numpy"), (np.ones(2), "numpy"),
                                         (nn.Linear(1, 1), "torch.nn.modules.linear.Linear")])
def test_what_could_not_be_read_again_is_not_written(tmp_path, thing, name):
    path = save_file({"old": 1}, tmp_path / "file.pth")
    with pytest.raises(TypeError, match=f"file.pth is not written.*{name}"):
        save_file({"deep": [thing]}, path)
    assert load_file(path) == {"old": 1}


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        save_file(DATA, tmp_path / "file" / "x.pth")    # its folder is a file


# ---- safe

class Evil:
    def __init__(self, target): self.target = target
    def __reduce__(self): return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, 2))])
def test_code_in_a_file_is_not_run(tmp_path, write):
    write({"model": Evil(tmp_path / "owned")}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth holds more than tensors and plain values.*could run code"):
        load_file(tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()


def test_a_missing_file_is_named_with_those_that_are_there(tmp_path):
    save_file(DATA, tmp_path / "b.pth")
    save_file(DATA, tmp_path / "a.pth")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no file .*c.pth; its folder holds a.pth, b.pth$"):
        load_file(tmp_path / "c.pth")
    with pytest.raises(FileNotFoundError, match="its folder holds no such files"):
        load_file(tmp_path / "nowhere" / "c.pth")


def test_another_format_says_who_can_read_it(tmp_path):
    path = save_file(DATA, tmp_path / "file.pth")
    content = path.read_bytes()
    assert content.count(b"minifast 0001") == 1
    path.write_bytes(content.replace(b"minifast 0001", b"minifast 0002"))
    with pytest.raises(ValueError, match="format 2.*update minifast"):
        load_file(path)


# torch warns of some foreign files before it refuses them
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_a_value_error_that_names_it_and_never_wrong_data(tmp_path):
    path, chance = save_file(DATA, tmp_path / "file.pth"), random.Random(0)
    good = path.read_bytes()
    torch.save(DATA, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pth").read_bytes()
    cut = [source[:chance.randrange(len(source))] for source in (good, old) for _ in range(40)]
    altered = []
    for _ in range(80):
        content = bytearray(good)
        content[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        altered.append(bytes(content))
    refused = 0
    for content in [*cut, *altered, b"", b"hello", pickle.dumps([1]), *(chance.randbytes(n) for n in range(1, 40))]:
        path.write_bytes(content)
        try:
            assert same(load_file(path), DATA)      # only the seal itself was hit
        except ValueError as e:
            assert "file.pth" in str(e)
            refused += 1
    assert refused > 0.95 * (len(cut) + len(altered) + 42)


# ---- random generators

def draw():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def test_generators_go_out_through_a_file_and_back(tmp_path):
    path = save_file(rng_state(), tmp_path / "rng.pth")
    first = draw()
    assert draw() != first
    set_rng_state(load_file(path))
    assert draw() == first


# ---- preserved (what lr_find, validate and the rest do with it stands in their own tests)

def test_tensors_and_containers_are_put_back_in_place():
    learn = fake_learner()
    learn.fit(1)
    group = learn.opt.opt.param_groups[0]
    weight, state = learn.model[0].weight, learn.opt.opt.state
    moment = state[weight]["exp_avg"]
    values = weight.detach().clone(), moment.clone()
    with preserved(learn):
        weight.data.zero_()     # a write that leaves no trace in the tensor's version
        moment.zero_()
        group["lr"] = 77
        state.clear()
        learn.model[0].weight = nn.Parameter(torch.ones(4, 5))
        learn.model.add_module("more", nn.Linear(4, 4))
        learn.opt = None
        learn.silent = learn.surprise = 3
        del learn.metrics
    assert learn.model[0].weight is weight and torch.equal(weight, values[0]) and len(learn.model) == 1
    assert learn.opt.opt.state is state and state[weight]["exp_avg"] is moment and torch.equal(moment, values[1])
    assert group["lr"] == learn.opt.lr == 3e-3
    assert learn.silent is True and learn.metrics == [] and not hasattr(learn, "surprise")


def test_a_graph_that_waits_for_its_backward_is_not_disturbed():
    learn = fake_learner()
    learn.kept = [(learn.model(torch.ones(1, 5)) ** 2).sum()]
    with preserved(learn, learn.callbacks):
        learn.model.eval()
    learn.kept[0].backward()
    assert learn.model[0].weight.grad.abs().sum() > 0


def test_a_container_that_holds_itself():
    learn = fake_learner()
    learn.ring = [1]
    learn.ring.append(learn.ring)
    with preserved(learn):
        learn.ring.clear()
    assert learn.ring[0] == 1 and learn.ring[1] is learn.ring
