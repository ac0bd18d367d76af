"""Files that are whole and safe, and a run's full state: out, and back."""
from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .callback import Callback
from .utils import rng_state, set_rng_state

__all__ = ["save_file", "load_file", "previous_of", "lock", "load_run", "learner_state", "load_learner_state", "misfit",
           "plain", "preserved"]


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


def learner_state(learn: Any) -> dict[str, Any]:
    """All that training changes in a learner: model, optimizer, open gradients, and the global random generators.

    The tensors are the living ones, not copies.
    """
    model, params = learn.model, list(learn.model.parameters())
    state = model.state_dict()
    return {"model": state,
            "buffers": {name: b for name, b in model.named_buffers() if name not in state},  # those kept out of files
            "training": [m.training for m in model.modules()],
            "trainable": [p.requires_grad for p in params],
            "grads": {i: p.grad for i, p in enumerate(params) if p.grad is not None},  # an open accumulation window
            "opt": plain(learn.opt.state_dict()), "rng": rng_state()}


def load_learner_state(learn: Any, state: dict[str, Any]) -> None:
    """Take back what `learner_state` gave; RuntimeError or ValueError if it belongs to another model or optimizer."""
    model, params = learn.model, list(learn.model.parameters())
    model.load_state_dict(state["model"])
    buffers = dict(model.named_buffers())
    for name, value in state["buffers"].items():
        buffers[name].copy_(value)
    if [p.requires_grad for p in params] != state["trainable"]:
        for p, trainable in zip(params, state["trainable"], strict=True):
            p.requires_grad_(trainable)
        learn.opt = None  # the next one holds what is trainable now
    learn.opt.load_state_dict(state["opt"])
    for m, training in zip(model.modules(), state["training"], strict=True):
        m.training = training
    for i, p in enumerate(params):
        grad = state["grads"].get(i)
        p.grad = None if grad is None else torch.empty_like(p).copy_(grad)  # laid out as the parameter is
    set_rng_state(state["rng"])


def misfit(model: nn.Module, state: dict[str, Any]) -> str:
    """What of a state dict does not fit `model`, in short, and what to do; an empty string if all fits."""
    own = model.state_dict()
    shapes = {name: [tuple(getattr(s[name], "shape", ())) for s in (state, own)] for name in own if name in state}
    others = [f"{name}: {saved} in the file, {now} in the model" for name, (saved, now) in shapes.items()
              if saved != now]
    parts = [("of the model's weights are missing", [name for name in own if name not in state], ", "),
             ("are not in the model", [str(name) for name in state if name not in own], ", "),
             ("have other shapes", others, "; ")]
    found = [f"{len(names)} {what} ({comma.join([*names[:3], *(['...'] if len(names) > 3 else [])])})"
             for what, names, comma in parts if names]
    if not found:
        return ""
    rest = f", or load the {len(shapes)} that fit with strict=False" if shapes and not others else ""
    return f"{'; '.join(found)}. Make the learner with the model that was saved{rest}"


def plain(x: Any) -> Any:
    """`x` with numpy's numbers as Python's, however deep in lists, tuples and dicts."""
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return type(x)(map(plain, x)) if type(x) in (list, tuple) else x


@contextlib.contextmanager
def preserved(learn: Any, callbacks: Sequence[Callback] = (), weights: bool = True) -> Iterator[None]:
    """Whatever happens inside, afterwards all is as before, bit for bit; everything is kept in memory, none on disk.

    That is: the attributes of the learner, of its recorder and of `callbacks`, train/eval flags, random generators, the
    positions of the loaders, buffers, and with `weights=True` also the optimizer and all else that the modules of model
    and loss hold (parameters, gradients, attributes). Lists, dicts and tensors get their contents back in place,
    because somebody else may hold them too.
    """
    parts = [part for part in (learn.model, learn.loss_func) if isinstance(part, nn.Module)]
    modules = [m for part in parts for m in part.modules()]
    params = [p for part in parts for p in part.parameters()] if weights else []
    opt = learn.opt.opt if weights and learn.has_opt else None
    contents: Contents = {}
    for owner in (learn, learn.recorder):
        _keep(vars(owner), contents, tensors=False)
    for cb in callbacks:
        _keep(vars(cb), contents)
    for m in modules:  # without `weights` its attributes are left: they may be what the caller wants to see
        _keep(vars(m) if weights else m._buffers, contents)
    if opt:
        _keep([opt.state, opt.param_groups], contents)
    flags = [(m, m.training) for m in modules]
    grads = [(p, p.requires_grad, None if p.grad is None else p.grad.clone()) for p in params]
    loaders = [(dl, dl.state_dict()) for dl in learn.data.dls]
    random_state = rng_state()
    try:
        yield
    finally:
        _put_back(contents)
        for p, requires_grad, grad in grads:
            p.requires_grad_(requires_grad)
            p.grad = grad
        for m, training in flags:
            m.training = training
        for dl, state in loaders:
            dl.load_state_dict(state)
        set_rng_state(random_state)


Contents = dict[int, tuple[Any, Any]]  # by id: a container or tensor, and a copy of it


def _keep(x: Any, contents: Contents, tensors: bool = True) -> None:
    """Add to `contents` each dict, list, set and (with `tensors`) tensor in `x`, however deep, with a copy of it."""
    if id(x) in contents:
        return
    if isinstance(x, Tensor):
        if tensors and x.is_leaf and not x.is_inference():  # what has a graph behind it is computed, not written
            contents[id(x)] = x, x.detach().clone()
    elif isinstance(x, (dict, list, set)):
        contents[id(x)] = x, x.copy()
    if isinstance(x, (dict, list, tuple)):
        for value in x.values() if isinstance(x, dict) else x:
            _keep(value, contents, tensors)


@torch.no_grad()
def _put_back(contents: Contents) -> None:
    for x, copied in contents.values():
        if isinstance(x, Tensor):
            if not torch.equal(x, copied):  # a write, even of the same, forbids the backward of a graph that needs `x`
                x.copy_(copied)
        elif isinstance(x, list):
            x[:] = copied
        else:
            x.clear()
            x.update(copied)
