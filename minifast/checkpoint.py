"""Files that are whole and safe, and a run's full state: out, and back."""
from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .callback import Callback

__all__ = ["save_file", "load_file", "rng_state", "set_rng_state", "preserved"]


def save_file(data: Any, path: Path | str) -> Path:
    """Write tensors and plain values to `path`, whole or not at all: a temporary file beside it, synced, then renamed.

    OSError if the folder cannot be written; what stood at `path` before is then untouched.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(data, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(buffer.getbuffer())
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def load_file(path: Path | str, device: torch.device | str | None = None) -> Any:
    """Read what `save_file` wrote. Code in the file is not run: such a file is refused with a ValueError.

    FileNotFoundError if there is none (the files that are there are named), ValueError if it is damaged or foreign.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"there is no file {path}; its folder holds {', '.join(there) or 'no such files'}")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as e:
        raise ValueError(f"{path} holds more than tensors and plain values (or is damaged), so it is not read: that could "
                         "run code from the file") from e
    except (RuntimeError, EOFError, ValueError, KeyError) as e:
        raise ValueError(f"{path} is damaged or is no file of saved tensors: {e}") from e


def rng_state() -> dict[str, Any]:
    """The state of the global random generators: torch (CPU and every GPU in use), numpy, python."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": np.random.get_state(), "python": random.getstate()}


def set_rng_state(state: dict[str, Any]) -> None:
    """Take back what `rng_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


@contextlib.contextmanager
def preserved(learn: Any, callbacks: Sequence[Callback] = (), weights: bool = True) -> Iterator[None]:
    """Whatever happens inside, afterwards all is as before, bit for bit; everything is kept in memory, none on disk.

    That is: the attributes of the learner and of `callbacks`, train/eval flags, random generators, the positions of the
    loaders, and with `weights=True` also parameters, buffers, gradients and the optimizer.
    """
    model = learn.model
    tensors = [*model.parameters(), *model.buffers()] if weights else []
    saved = [(t, t.detach().clone(), None if t.grad is None else t.grad.clone()) for t in tensors]
    flags = [(m, m.training) for m in model.modules()]
    objects = [(vars(o), _copies(vars(o), deep=o is not learn)) for o in (learn, *callbacks)]
    loaders = [(dl, dl.state_dict()) for dl in learn.data.dls]
    opt = learn.opt.opt if weights and learn.has_opt else None
    opt_state = {p: _copies(s) for p, s in opt.state.items()} if opt else {}
    opt_groups = [dict(g) for g in opt.param_groups] if opt else []
    random_state = rng_state()
    try:
        yield
    finally:
        for attributes, values in objects:
            attributes.clear()
            attributes.update(values)
        with torch.no_grad():
            for t, value, grad in saved:
                t.copy_(value)
                t.grad = grad
        for m, training in flags:
            m.training = training
        for dl, state in loaders:
            dl.load_state_dict(state)
        if opt:
            opt.state.clear()
            opt.state.update(opt_state)
            for g, values in zip(opt.param_groups, opt_groups, strict=True):
                g.clear()
                g.update(values)
        set_rng_state(random_state)


def _copies(values: Any, deep: bool = True) -> Any:
    """The dict, with its tensors and plain containers copied (`deep`), other things as they are."""
    def copied(x: Any) -> Any:
        if isinstance(x, Tensor) and deep:
            return x.detach().clone() if not x.requires_grad else x
        if type(x) is dict:
            return {k: copied(v) for k, v in x.items()}
        return type(x)(map(copied, x)) if type(x) in (list, tuple, set) else x
    return {k: copied(v) for k, v in values.items()}
