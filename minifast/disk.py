"""Writing to the disk: files that are whole at every moment, folders that can be written, and locks."""
from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["check_folder", "lock", "previous_of", "whole_file"]

LEFTOVER = re.compile(r"\.[0-9a-f]{32}")    # how the name of a file that is being written ends

_being_written: set[Path] = set()       # by this process
_locks: dict[tuple[int, int], tuple[int, weakref.ref[IO[str]]]] = {}    # of this process, by device and inode
_locking = threading.Lock()


@contextlib.contextmanager
def whole_file(path: Path | str, keep_previous: bool = False) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` when the block ends well: a temporary one beside it, synced,
    then renamed. If `path` is a link, it stays one, and the file that it names is replaced.

    `keep_previous`: what `path` held before is kept at `previous_of(path)`. At every moment, also after kill -9,
    `path` holds the old content or the new one. What killed processes have left of their temporary files is removed.

    >>> with whole_file("a.txt") as file: file.write(b"whole")
    5
    """
    path = _resolved(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    _being_written.add(temporary)
    try:
        with open(temporary, "xb") as file:
            _has_lock(file)     # others can see that this one is no leftover
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":  # where an open file cannot be renamed
                file.close()
            if keep_previous:
                _keep(path)
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        _being_written.discard(temporary)


def previous_of(path: Path | str) -> Path:
    """Where `save_file` keeps what a file held before. ValueError if `path` itself has such a name.

    >>> previous_of("run.ckpt").name
    'run.previous.ckpt'
    """
    path = _resolved(path)
    if path.stem.lower().endswith(".previous"):
        raise ValueError(f"a name that ends in .previous, {path.stem!r}, is for the file before the last: choose "
                         "another one")
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _keep(path: Path) -> None:
    """Give what stands at `path` the name of the previous one too; it stays at `path`."""
    if not path.exists():
        return
    previous = previous_of(path)
    aside = previous.with_name(f".{previous.name}.{uuid.uuid4().hex}")
    try:
        try:
            os.link(path, aside)
        except OSError:     # a file system without links
            shutil.copyfile(path, aside)
        os.replace(aside, previous)
    finally:    # a rename onto another name of the same file leaves both
        aside.unlink(missing_ok=True)


def _resolved(path: Path | str) -> Path:
    return Path(os.path.realpath(path))


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of writes that were killed: those on which no living process has a lock."""
    for name in (path.name, f"{path.stem}.previous{path.suffix}"):
        for file in path.parent.glob(f".{glob.escape(name)}.*"):
            if LEFTOVER.fullmatch(file.suffix) and file not in _being_written:
                with contextlib.suppress(OSError), open(file, "r+b") as opened:
                    if _has_lock(opened):
                        file.unlink()


def _sync_folder(folder: Path) -> None:
    """Let the rename reach the disk; not every system has it (Windows opens no folders), and none needs it to go on."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_folder(folder: Path | str) -> None:
    """Make the folder if it is missing, and write to it: OSError, which names it, if that cannot be done.

    >>> check_folder("models")
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"\0" * 4096)
    except OSError as e:
        raise OSError(e.errno, f"nothing can be written to the folder {folder}: {e.strerror or e}") from e


def lock(path: Path | str) -> IO[str]:
    """Open a file beside `path` that only one run can hold, in this process or any other, until it is closed; the
    system closes it even after kill -9. RuntimeError if another run has it.

    >>> with lock("run.ckpt"): lock("run.ckpt")
    Traceback (most recent call last):
        ...
    RuntimeError: ...run.ckpt is being written by another run: choose another name, or wait for it
    """
    path = _resolved(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.lock")
    refusal = f"{path} is being written by another run: choose another name, or wait for it"
    with _locking:
        # not by opening it: a process that closes a file loses every lock that it has on it
        if name.exists() and _is_held(os.stat(name)):
            raise RuntimeError(refusal)
        file = open(name, "a")
        if _has_lock(file) is False:
            file.close()
            raise RuntimeError(refusal)
        status = os.fstat(file.fileno())
        _locks[status.st_dev, status.st_ino] = os.getpid(), weakref.ref(file)
    _remove_leftovers(path)
    return file


def _is_held(status: os.stat_result) -> bool:
    """Whether this process holds the lock; a process that was forked has not inherited it."""
    process, reference = _locks.get((status.st_dev, status.st_ino), (0, lambda: None))
    file = reference()
    return process == os.getpid() and file is not None and not file.closed


def _has_lock(file: IO[Any]) -> bool | None:
    """Whether this process has the file's lock now; None where there are no locks (Windows, some network disks)."""
    try:
        import fcntl
        # of the process: unlike flock's it is not handed on to loader workers, which outlive a kill by seconds
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except ImportError:
        return None
    except OSError as e:
        return False if e.errno in (errno.EACCES, errno.EAGAIN) else None
