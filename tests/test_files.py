"""Files when the disk fails: each call that writes fails in its turn, and no file is lost."""
import errno
import hashlib
import io
import os
import pathlib
import shutil
import signal
import threading
import warnings
import zipfile

import pytest
import torch

from minifast.callback import Callback
from minifast.callbacks.checkpoint import Checkpoint
from minifast.disk import check_folder, lock, previous_of, whole_file
from minifast.fakes import fake_learner
from minifast.files import load_file, save_file

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

    monkeypatch.setattr("minifast.disk.open", opened, raising=False)
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

    _order, role = 2000, "process"

    def __init__(self, batch, act): self.batch, self.act = batch, act

    def state_dict(self): return {}

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
    with pytest.raises(ValueError, match=r"run.ckpt.*To train from the beginning, delete it or choose another name"):
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


# ---- what a file says of itself

def sealed(path):
    return save_file(OLD, path).read_bytes()


@pytest.mark.parametrize("behind", [b"\n", b"\0" * 100, b"\0" * 4096, b"PK", b"minifast 0001 \n"])
def test_bytes_behind_the_checksum_do_not_hide_it(tmp_path, behind):
    content = sealed(tmp_path / "run.ckpt")
    for bad in (content + behind, content.replace(b"minifast 0001", b"Minifast 0001") + behind):
        (tmp_path / "run.ckpt").write_bytes(bad)
        with pytest.raises(ValueError, match="run.ckpt is damaged"):
            load_file(tmp_path / "run.ckpt")


def test_a_checksum_that_is_missing_or_broken_is_seen(tmp_path):
    content, path = sealed(tmp_path / "run.ckpt"), tmp_path / "run.ckpt"
    at = content.rindex(b"minifast ")
    other = b"minifast 0001 " + b"0" * 64
    for seal in (b"", content[at:-1], b"x" * (len(content) - at), b"minifast one\n", other + b"\n", other + b" "):
        path.write_bytes(content[:at] + seal)
        with pytest.raises(ValueError, match="run.ckpt is damaged"):
            load_file(path)


def test_files_of_older_versions_are_read(tmp_path):
    """Their checksum stood behind the zip file, not in it."""
    content, path = bytearray(sealed(tmp_path / "old.pth")), tmp_path / "old.pth"
    at = content.rindex(b"minifast ")
    content[at - 2:at] = bytes(2)
    digest = hashlib.sha256(content[:at]).hexdigest()
    path.write_bytes(content[:at] + f"minifast 0001 {digest}\n".encode())
    assert is_one_of(load_file(path), OLD)
    path.write_bytes(content[:at] + f"minifast 0002 {digest}\n".encode())
    with pytest.raises(ValueError, match="old.pth has format 2, .* reads format 1: update minifast"):
        load_file(path)


def test_the_checksums_of_a_bare_file_are_looked_at(tmp_path):
    path, values = tmp_path / "bare.pth", torch.arange(100.0)
    torch.save({"w": values}, path)
    assert torch.equal(load_file(path)["w"], values)
    content = path.read_bytes()
    at = content.index(values.numpy().tobytes()) + 17
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
    assert not torch.equal(torch.load(path)["w"], values)     # torch itself does not look
    with pytest.raises(ValueError, match="bare.pth is damaged: its part bare/data/0"):
        load_file(path)


def test_a_file_without_checksums_and_one_of_the_old_kind_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(OLD, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert zipfile.ZipFile(tmp_path / "a.pth").testzip() is not None
    torch.save(OLD, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert is_one_of(load_file(tmp_path / "a.pth"), OLD) and is_one_of(load_file(tmp_path / "b.pth"), OLD)


def test_torch_and_zip_programs_read_our_files(tmp_path):
    path = save_file(OLD, tmp_path / "a.pth")
    assert is_one_of(torch.load(path, weights_only=True), OLD)
    assert zipfile.ZipFile(path).testzip() is None


# ---- what cannot be in a file

def test_tensors_that_are_spread_over_processes_are_refused_by_name(tmp_path):
    distributed = pytest.importorskip("torch.distributed.tensor")
    specs = distributed._dtensor_spec
    try:
        mesh = torch.distributed.device_mesh.DeviceMesh("cpu", [0], _init_backend=False, _rank=0)
    except TypeError:
        pytest.skip("this torch makes no mesh without a group of processes")
    meta = specs.TensorMeta(torch.Size([2]), (1,), torch.float32)
    spec = specs.DTensorSpec(mesh, (distributed.Shard(0),), meta)
    part = distributed.DTensor(torch.ones(2), spec, requires_grad=False)
    with pytest.raises(TypeError, match=r"a.pth is not written: 0.weight is a DTensor.*full_tensor"):
        save_file({"model": {"0.weight": part}}, tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()


def test_what_cannot_be_pickled_is_a_clear_error(tmp_path):
    with pytest.raises(TypeError, match="a.pth is not written: only tensors and plain values"):
        save_file({"f": lambda: 0}, tmp_path / "a.pth")


# ---- names, links and leftovers

def test_a_link_stays_one(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = save_file(OLD, tmp_path / "far" / "real.ckpt"), tmp_path / "run.ckpt"
    link.symlink_to(target)
    save_file(NEW, link, keep_previous=True)
    assert link.is_symlink() and is_one_of(load_file(target), NEW) and is_one_of(load_file(previous_of(link)), OLD)
    assert sorted(os.listdir(tmp_path)) == ["far", "run.ckpt"]
    assert sorted(os.listdir(tmp_path / "far")) == ["real.ckpt", "real.previous.ckpt"]


def test_a_name_that_is_another_ones_previous_is_refused(tmp_path):
    for name in ("run.previous", "Run.Previous"):
        with pytest.raises(ValueError, match="ends in .previous.*choose another"):
            Checkpoint(fake_learner(path=tmp_path), name)
    assert os.listdir(tmp_path) == []


def test_the_present_file_is_there_at_every_moment(tmp_path, monkeypatch):
    path, seen, replace = save_file(OLD, tmp_path / "run.ckpt"), [], os.replace

    def watched(source, target):
        seen.append(load_file(path)["n"])
        replace(source, target)
        seen.append(load_file(path)["n"])
    monkeypatch.setattr(os, "replace", watched)
    save_file(NEW, path, keep_previous=True)
    assert seen == ["old", "old", "old", "new"] and is_one_of(load_file(previous_of(path)), OLD)


def test_without_hard_links_the_previous_file_is_a_copy(tmp_path, monkeypatch):
    def no_links(*names):
        raise PermissionError("no links here")
    monkeypatch.setattr(os, "link", no_links)
    path = save_file(OLD, tmp_path / "run.ckpt", keep_previous=True)
    save_file(NEW, path, keep_previous=True)
    assert is_one_of(load_file(path), NEW) and is_one_of(load_file(previous_of(path)), OLD)
    assert sorted(os.listdir(tmp_path)) == ["run.ckpt", "run.previous.ckpt"]


def killed_while_writing(path, keep_previous=False):
    """A process that dies after it has written and before it has renamed."""
    if not (pid := os.fork()):
        os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
        save_file(NEW, path, keep_previous)
    os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_a_killed_write_leaves_is_removed_by_the_next(tmp_path):
    path = save_file(OLD, tmp_path / "run.ckpt")
    other = tmp_path / ".run.ckpt.notes"
    other.write_text("the user's own")
    for keep_previous in (False, True):
        killed_while_writing(path, keep_previous)
    assert len(os.listdir(tmp_path)) == 2 + 2 + 1 - 1   # files, leftovers; the second writer has removed the first's
    save_file(NEW, path)
    assert sorted(os.listdir(tmp_path)) == [".run.ckpt.notes", "run.ckpt"] and is_one_of(load_file(path), NEW)
    killed_while_writing(path)
    lock(path).close()
    assert sorted(os.listdir(tmp_path)) == [".run.ckpt.lock", ".run.ckpt.notes", "run.ckpt"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_file_that_another_process_is_writing_is_no_leftover(tmp_path):
    path, (ready, begun), (finish, done) = tmp_path / "a.pth", os.pipe(), os.pipe()
    if not (pid := os.fork()):
        with whole_file(path) as file:
            file.write(b"theirs")
            os.write(begun, b"x")
            os.read(finish, 1)
        os._exit(0)
    os.read(ready, 1)
    with whole_file(path) as file, whole_file(path) as inner:     # nor one of this process's own
        file.write(b"ours")
        inner.write(b"inner")
    assert path.read_bytes() == b"ours"
    os.write(done, b"x")
    assert os.waitpid(pid, 0)[1] == 0 and path.read_bytes() == b"theirs" and os.listdir(tmp_path) == ["a.pth"]


# ---- one writer at a time

def test_a_lock_is_held_within_a_process_too_and_outlives_a_refusal(tmp_path):
    path, link = tmp_path / "run.ckpt", tmp_path / "link.ckpt"
    link.symlink_to(path)
    refused = []

    def second(name):
        with pytest.raises(RuntimeError, match="run.ckpt is being written by another run"):
            lock(name)
        refused.append(name)

    def held_elsewhere():
        if not (pid := os.fork()):
            try:
                lock(path)
            except RuntimeError:
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    held = lock(path)
    for name in (path, link):
        second(name)
    thread = threading.Thread(target=second, args=[path])
    thread.start()
    thread.join()
    assert len(refused) == 3
    assert held_elsewhere() == 1        # the refusals have not given it up
    held.close()
    assert held_elsewhere() == 0
    lock(path).close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    check_folder(tmp_path / "new" / "deep")
    assert os.listdir(tmp_path / "new" / "deep") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="nothing can be written to the folder .*file/sub"):
        check_folder(tmp_path / "file" / "sub")
    if os.path.exists("/proc/self/fdinfo"):
        with pytest.raises(OSError, match="/proc/self/fdinfo"):
            check_folder("/proc/self/fdinfo")


def test_a_program_that_goes_to_another_folder_keeps_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    learn = fake_learner(path=".", train_length=20)
    goes = From(5, lambda: os.chdir("elsewhere"))
    learn.fit(3, 0.01, callbacks=[Checkpoint(learn, "run", every=1), goes])
    assert os.listdir(tmp_path / "elsewhere") == []
    assert load_file(tmp_path / "models" / "run.ckpt")["position"]["epoch"] == 3


def test_a_deleted_checkpoint_begins_again_and_forgets_the_one_before(tmp_path):
    class Cut(Exception):
        pass

    def cut():
        raise Cut

    expected = run(tmp_path / "a")
    with pytest.raises(Cut):
        run(tmp_path / "b", 7, cut)
    (tmp_path / "b" / "models" / "run.ckpt").unlink()
    assert (tmp_path / "b" / "models" / "run.previous.ckpt").exists()
    assert run(tmp_path / "b") == expected
    with pytest.raises(Cut):
        run(tmp_path / "c", 7, cut)
    path = tmp_path / "c" / "models" / "run.ckpt"
    path.unlink()
    with pytest.raises(Cut):    # at its first batch: no file of the old run is left to go on from
        run(tmp_path / "c", 1, cut)
    assert load_file(path)["position"]["iteration"] <= 1
    assert not previous_of(path).exists() or load_file(previous_of(path))["position"]["iteration"] == 0
