"""Files of tensors and plain values, with a checksum: what is written can be read again, and reading runs no code."""
from __future__ import annotations

import hashlib
import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .disk import previous_of, whole_file

__all__ = ["load_file", "load_run", "save_file", "RUN"]


RUN = "a run of minifast"     # what a checkpoint says it is
FORMAT = 1              # of the files; goes up when an older minifast could not make sense of a new one
SEAL = "minifast %04d %s\n"     # format and SHA-256 of all before it: the comment at the end of the zip file
SEAL_LENGTH = len(SEAL % (FORMAT, "0" * 64))
ZIP_START, ZIP_END = b"PK\3\4", struct.Struct("<4s16xH")    # the end: its signature, and the length of the comment


def save_file(data: Any, path: Path | str, keep_previous: bool = False) -> Path:
    """Write tensors and plain values to `path`, whole or not at all, with a checksum; returns the path.

    `keep_previous`: what `path` held before is kept at `previous_of(path)` (default: it is replaced). OSError if the
    folder cannot be written, TypeError if `data` holds other things, which could not be read again; `path` is then
    unchanged.

    >>> load_file(save_file({"w": torch.ones(2)}, "a.pth"))
    {'w': tensor([1., 1.])}
    """
    path = Path(path)
    if parts := _in_parts(data):
        raise TypeError(f"{path} is not written: {parts[0]} is a DTensor, of which this process holds only its part; "
                        "gather it with .full_tensor() first")
    buffer = io.BytesIO()
    try:
        torch.save(data, buffer)
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        raise TypeError(f"{path} is not written: only tensors and plain values could be read again: {e}") from e
    buffer.seek(0)
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(buffer)
    except pickle.UnpicklingError as e:     # a whole number of more than 2,000 bits
        raise TypeError(f"{path} is not written: there is a value in it that could not be read again: {e}") from e
    if foreign:
        raise TypeError(f"{path} is not written: only tensors and plain values could be read again, and there is "
                        f"{', '.join(foreign)} in it")
    content = buffer.getbuffer()
    struct.pack_into("<H", content, len(content) - 2, SEAL_LENGTH)  # with a comment: a file that lost it shows that
    with whole_file(path, keep_previous) as file:
        file.write(content)
        file.write((SEAL % (FORMAT, hashlib.sha256(content).hexdigest())).encode())
    return path


def _in_parts(x: Any, name: str = "the value") -> list[str]:
    """The names of the tensors that are spread over several processes."""
    if isinstance(x, Tensor):
        return [name] if type(x).__module__.startswith("torch.distributed") else []
    items = x.items() if isinstance(x, Mapping) else enumerate(x) if isinstance(x, (list, tuple)) else ()
    return [found for key, value in items for found in _in_parts(value, str(key))]


def load_file(path: Path | str, device: torch.device | str | None = None) -> Any:
    """Read what `save_file` wrote, or a bare file of `torch.save`. Code in the file is not run: such a file is refused
    with a ValueError.

    `device`: where the tensors go (default: where they were, or the CPU if there is no GPU here). FileNotFoundError if
    there is none (the files that are there are named), ValueError if it is damaged, foreign or of another format.

    >>> "model" in load_file(fake_learner().save("a"))
    True
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"there is no file {path}; its folder holds {', '.join(there) or 'no such files'}")
    content = path.read_bytes()
    _check_content(path, content)
    if device is None and not torch.cuda.is_available():
        device = "cpu"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Validating sparse")  # that it does
            return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except pickle.UnpicklingError as e:
        raise ValueError(f"{path} holds more than tensors and plain values (or is damaged), so it is not read: that "
                         "could run code from the file") from e
    except Exception as e:  # torch says it in a dozen ways: a damaged pickle may run into any error
        raise ValueError(f"{path} is damaged or is no file of saved tensors: {e}") from e


def _check_content(path: Path, content: bytes) -> None:
    """ValueError unless the file's own checksums say that it is whole."""
    if not content.startswith(ZIP_START):
        return  # of torch.save before it wrote zip files: without checksums
    seal = content[-SEAL_LENGTH:]
    comment = _comment_length(content, len(content) - SEAL_LENGTH)
    if comment in (0, SEAL_LENGTH) and seal.startswith(b"minifast "):   # 0: as older minifasts wrote it
        _check_seal(path, content[:-SEAL_LENGTH], seal.split())
    elif _comment_length(content, len(content)) == 0:
        _check_bare(path, content)
    else:
        raise ValueError(f"{path} is damaged: what stands at its end is not what was written there")


def _comment_length(content: bytes, end: int) -> int | None:
    """The length of the comment behind a zip file that ends at `end`, None if none ends there."""
    if end < ZIP_END.size:
        return None
    signature, length = ZIP_END.unpack_from(content, end - ZIP_END.size)
    return int(length) if signature == b"PK\5\6" else None


def _check_seal(path: Path, sealed: bytes, seal: list[bytes]) -> None:
    if len(seal) != 3 or not seal[1].isdigit():
        raise ValueError(f"{path} is damaged: its checksum cannot be read")
    if (version := int(seal[1])) != FORMAT:
        raise ValueError(f"{path} has format {version}, and this minifast reads format {FORMAT}: "
                         + ("update minifast" if version > FORMAT else "read it with the minifast that wrote it"))
    if hashlib.sha256(sealed).hexdigest().encode() != seal[2]:
        raise ValueError(f"{path} is damaged: its content is not what its checksum says")


def _check_bare(path: Path, content: bytes) -> None:
    """The checksums of the zip file that torch.save wrote; torch itself does not look at them."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            if not any(part.CRC for part in file.infolist()):
                return  # written without checksums: torch.serialization.set_crc32_options(False)
            bad = file.testzip()
    except Exception as e:  # a damaged index may run into any error
        raise ValueError(f"{path} is damaged: {e}") from e
    if bad is not None:
        raise ValueError(f"{path} is damaged: its part {bad} is not what its checksum says")


def load_run(path: Path) -> dict[str, Any] | None:
    """The run that stands at `path`, or, with a warning, the one kept from before if that is damaged; None if there is
    no file at `path`. ValueError if there is none that can be read."""
    if not path.is_file():
        return None
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
    raise ValueError("; ".join(problems) + ". To train from the beginning, delete it or choose another name")
