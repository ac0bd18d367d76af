"""Files when the disk fails: each call that writes fails in its turn, and no file is lost."""
import errno
import io
import os
import pathlib
import shutil
import warnings

import pytest
import torch

from minifast.callback import Callback
from minifast.callbacks.checkpoint import Checkpoint
from minifast.fakes import fake_learner
from minifast.files import load_file, previous_of, save_file

OLD, NEW = {"w": torch.zeros(3), "n": "old"}, {"w": torch.ones(3), "n": "new"}
ERRORS = [OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO)]
CALLS = ["mkdir", "open", "write", "write seal", "flush", "fsync", "replace previous", "replace", "fsync folder"]


class FailingFile(io.FileIO):
    """A file whose `call` fails; `write` writes half of what it is given first, as a full disk does."""

    call, error, writes = "", OSError(), 0

    def write(self, data):
        self.writes += 1
        if (self.call, self.writes) in (("write", 1), ("write seal", 2)):
            super().write(bytes(data)[:len(data) // 2])
            raise self.error
        return super().write(data)

    def flush(self):
        if self.call == "flush" and self.writes == 2 and not self.closed:
            self.writes += 1    # once: closing flushes too
            raise self.error
        super().flush()


def break_disk(monkeypatch, call, error):
    """Let one of the calls of `save_file` fail, for good."""
    def failing(kind, when):
        own = getattr(kind, when[0])

        def called(*args, **kwargs):
            if when[1](*args):
                raise error
            return own(*args, **kwargs)
        monkeypatch.setattr(kind, when[0], called)

    def opened(path, mode="r", *args, **kwargs):
        if "x" not in mode:
            return open(path, mode, *args, **kwargs)
        if call == "open":
            raise error
        file = FailingFile(path, mode)
        file.call, file.error = call, error
        return file

    monkeypatch.setattr("minifast.checkpoint.open", opened, raising=False)
    if call == "mkdir":
        failing(pathlib.Path, ("mkdir", lambda *args: True))
    elif call.startswith("replace"):
        failing(os, ("replace", lambda source, target: (".previous." in str(target)) == ("previous" in call)))
    elif call.startswith("fsync"):
        failing(os, ("fsync", lambda handle: os.path.isdir(f"/proc/self/fd/{handle}") == ("folder" in call)))


def is_one_of(data, *wanted):
    return any(data["n"] == w["n"] and torch.equal(data["w"], w["w"]) for w in wanted)


def last_good(path):
    return load_file(path if path.exists() else previous_of(path))


# ---- save_file

@pytest.mark.parametrize("keep_previous", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=[errno.errorcode[e.errno] for e in ERRORS])
@pytest.mark.parametrize("call", CALLS)
def test_whichever_call_fails_a_whole_file_is_there(tmp_path, monkeypatch, call, error, keep_previous):
    path = save_file(OLD, tmp_path / "run.ckpt")
    fails = call != "fsync folder" and (keep_previous or call != "replace previous")
    with monkeypatch.context() as patch:
        break_disk(patch, call, error)
        if fails:
            with pytest.raises(OSError, match=os.strerror(error.errno)):
                save_file(NEW, path, keep_previous)
        else:   # the folder's own sync is more than many systems can do
            save_file(NEW, path, keep_previous)
    assert is_one_of(last_good(path), OLD if fails else NEW)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    save_file(NEW, path, keep_previous)     # and when the disk is well again, all goes on
    assert is_one_of(load_file(path), NEW)


def test_what_cannot_be_removed_hides_nothing(tmp_path, monkeypatch):
    path = save_file(OLD, tmp_path / "run.ckpt")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        break_disk(patch, "fsync", OSError(errno.ENOSPC, "No space left on device"))
        patch.setattr(pathlib.Path, "unlink", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
        save_file(NEW, path)
    assert is_one_of(load_file(path), OLD)


def test_a_folder_that_vanished_is_made_again(tmp_path):
    path = save_file(OLD, tmp_path / "models" / "run.ckpt")
    shutil.rmtree(path.parent)
    assert is_one_of(load_file(save_file(NEW, path, keep_previous=True)), NEW)


# ---- a file that was cut or altered, at every position of some hundred

@pytest.mark.parametrize("damage", ["cut", "flipped", "zeroed", "longer"])
def test_damage_anywhere_is_named_or_harmless(tmp_path, damage):
    path = save_file(OLD, tmp_path / "run.ckpt")
    content, named = path.read_bytes(), 0
    places = range(0, len(content), max(1, len(content) // 150))
    for at in places:
        bad = bytearray(content)
        if damage == "cut":
            del bad[at:]
        elif damage == "flipped":
            bad[at] ^= 0xFF
        elif damage == "zeroed":
            bad[at:at + 64] = bytes(len(bad[at:at + 64]))
        else:
            bad[at:at] = b"\x00" * 7
        path.write_bytes(bad)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)    # torch's, about foreign formats
                assert is_one_of(load_file(path), OLD)
        except ValueError as e:
            assert "run.ckpt" in str(e)
            named += 1
    assert named >= 0.85 * len(places)


# ---- runs

class From(Callback):
    """From a batch on, do something (to the disk)."""

    _order = 2000

    def __init__(self, batch, act): self.batch, self.act = batch, act

    def on_batch_end(self, train, iteration):
        if train and iteration + 1 == self.batch:
            self.act()


def run(folder, batch=0, act=lambda: None, epochs=3):
    learn = fake_learner(path=folder, train_length=20)
    learn.fit_one_cycle(epochs, 0.05, callbacks=[Checkpoint(learn, "run", every=1), From(batch, act)])
    return [p.tolist() for p in learn.model.parameters()]


@pytest.mark.parametrize("call", [c for c in CALLS if c != "fsync folder"])
def test_training_goes_on_while_the_disk_fails(tmp_path, monkeypatch, call):
    expected = run(tmp_path / "a")
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match=r"run.ckpt could not be written.*goes on"):
        assert run(tmp_path / "b", 5, lambda: break_disk(patch, call, ERRORS[0])) == expected
    # what it had written before is whole, and the run goes on from there to the same end
    assert run(tmp_path / "b") == expected


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "replace"])
def test_a_disk_that_fails_from_the_start_is_an_error_before_training(tmp_path, monkeypatch, call):
    learn = fake_learner(path=tmp_path)
    before = learn.model[0].weight.tolist()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        break_disk(patch, call, OSError(errno.ENOSPC, "No space left on device"))
        learn.fit(1, checkpoint="run")
    assert learn.model[0].weight.tolist() == before
    learn.fit(1, checkpoint="run")      # the lock is free again
    assert learn.model[0].weight.tolist() != before


def test_a_folder_that_vanishes_in_the_run_is_made_again(tmp_path):
    expected = run(tmp_path / "a")
    assert run(tmp_path / "b", 5, lambda: shutil.rmtree(tmp_path / "b" / "models")) == expected
    assert load_file(tmp_path / "b" / "models" / "run.ckpt")["position"]["epoch"] == 3


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, keep):
    class Cut(Exception):
        pass

    def cut():
        raise Cut

    expected = run(tmp_path / "a")
    with pytest.raises(Cut):
        run(tmp_path / "b", 7, cut)
    path = tmp_path / "b" / "models" / "run.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[:int(keep * len(content))] + bytes(99))
    with pytest.warns(UserWarning, match=r"run.ckpt .*damaged.*going on from the one before it"):
        assert run(tmp_path / "b") == expected


def test_two_damaged_checkpoints_are_an_error_that_says_what_to_do(tmp_path):
    run(tmp_path)
    for name in ("run.ckpt", "run.previous.ckpt"):
        (tmp_path / "models" / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"run.ckpt.*To train anew, delete it or choose another name"):
        run(tmp_path)


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "flush", "fsync", "replace"])
def test_save_says_why_it_failed_and_the_last_save_loads(tmp_path, monkeypatch, call):
    learn = fake_learner(path=tmp_path)
    learn.save("x")
    saved = learn.model[0].weight.tolist()
    learn.fit(1, 0.1)
    trained = learn.model[0].weight.tolist()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        break_disk(patch, call, OSError(errno.ENOSPC, "No space left on device"))
        learn.save("x")
    assert learn.model[0].weight.tolist() == trained != saved
    assert learn.load("x").model[0].weight.tolist() == saved
