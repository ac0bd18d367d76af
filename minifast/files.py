"""Files that are whole and safe."""
from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import uuid
import warnings
from pathlib import Path
from typing import Any

import torch

__all__ = ["save_file", "load_file", "previous_of", "lock", "load_run", "RUN"]


RUN = "a run of minifast"     # what a checkpoint says it is
FORMAT = 1              # of the files; goes up when an older minifast could not make sense of a new one
SEAL = "minifast %04d %s\n"  # stands behind the data: format and SHA-256. A zip file's readers overlook it, torch's too
SEAL_LENGTH = len(SEAL % (FORMAT, "0" * 64))


def save_file(data: Any, path: Path | str, keep_previous: bool = False) -> Path:
    """Write tensors and plain values to `path`, whole or not at all: a temporary file beside it, synced, then renamed.

    Behind the data stand the format's version and a checksum. With `keep_previous` what stood at `path` before is kept
    at `previous_of(path)`. OSError if the folder cannot be written, TypeError if `data` holds other things, which could
    not be read again; what stood at `path` before is then untouched.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(data, buffer)
    buffer.seek(0)
    if foreign := torch.serialization.get_unsafe_globals_in_checkpoint(buffer):
        raise TypeError(f"{path} is not written: only tensors and plain values could be read again, and there is "
                        f"{', '.join(foreign)} in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        with open(temporary, "xb") as f:
            f.write(buffer.getbuffer())
            f.write((SEAL % (FORMAT, hashlib.sha256(buffer.getbuffer()).hexdigest())).encode())
            f.flush()
            os.fsync(f.fileno())
        if keep_previous:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, previous_of(path))  # cut off right here, there is the previous one still
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return path


def previous_of(path: Path) -> Path:
    """Where `save_file` keeps what a file held before: `run.ckpt` at `run.previous.ckpt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _sync_folder(folder: Path) -> None:
    """Let the rename reach the disk; not every system has it (Windows opens no folders), and none needs it to go on."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_file(path: Path | str, device: torch.device | str | None = None) -> Any:
    """Read what `save_file` wrote, or a bare file of `torch.save`. Code in the file is not run: such a file is refused
    with a ValueError.

    `device`: where the tensors go (default: where they were, or the CPU if there is no GPU here). FileNotFoundError if
    there is none (the files that are there are named), ValueError if it is damaged, foreign or of another format.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"there is no file {path}; its folder holds {', '.join(there) or 'no such files'}")
    content = path.read_bytes()
    _check_seal(path, content)
    if device is None and not torch.cuda.is_available():
        device = "cpu"
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except pickle.UnpicklingError as e:
        raise ValueError(f"{path} holds more than tensors and plain values (or is damaged), so it is not read: that "
                         "could run code from the file") from e
    except Exception as e:  # torch says it in a dozen ways: a damaged pickle may run into any error
        raise ValueError(f"{path} is damaged or is no file of saved tensors: {e}") from e


def _check_seal(path: Path, content: bytes) -> None:
    seal = content[-SEAL_LENGTH:].split()
    if len(seal) != 3 or seal[0] != b"minifast" or not seal[1].isdigit():
        return  # a bare file of torch.save; or one of ours cut short, which torch cannot read: its index is at the end
    if (version := int(seal[1])) != FORMAT:
        raise ValueError(f"{path} has format {version}, and this minifast reads format {FORMAT}: "
                         + ("update minifast" if version > FORMAT else "read it with the minifast that wrote it"))
    if hashlib.sha256(content[:-SEAL_LENGTH]).hexdigest().encode() != seal[2]:
        raise ValueError(f"{path} is damaged: its content is not what its checksum says")


def load_run(path: Path) -> dict[str, Any] | None:
    """The run that stands at `path`, or, with a warning, the one kept from before if that is damaged; None if there is
    neither. ValueError if there is none that can be read."""
    problems = []
    for file in (path, previous_of(path)):
        try:
            run = load_file(file)
            if not isinstance(run, dict) or run.get("what") != RUN:
                raise ValueError(f"{file} is no checkpoint of a run")
        except FileNotFoundError:
            continue
        except ValueError as e:
            problems.append(str(e))
            continue
        if problems:
            warnings.warn(f"{problems[0]}; going on from the one before it, {file}")
        return run
    if problems:
        raise ValueError("; ".join(problems) + ". To train anew, delete it or choose another name")
    return None


def lock(path: Path) -> Any:
    """Open a file beside `path` that only one process can hold; the system lets go of it even after kill -9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path.with_name(f".{path.name}.lock"), "a")
    with contextlib.suppress(ImportError):  # Windows has no such locks
        import fcntl
        try:
            # of the process: unlike flock's it is not handed on to loader workers, which outlive a kill by seconds
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            file.close()
            raise RuntimeError(f"{path} is being written by another run: choose another name, or wait for it") from e
    return file
