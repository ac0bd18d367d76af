"""Pure helpers without state."""
from __future__ import annotations

import contextlib
import copy
import dataclasses
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .distributed import world

__all__ = ["listify", "camel2snake", "map_tensors", "run_model", "joined", "tensors_in", "params_of", "to_device",
           "to_detach", "first_tensor", "batch_length", "wide", "on_host", "even_mults", "is_plain", "shape_of",
           "read_numbers", "weighted_mean", "smoothed", "rng_state", "set_rng_state", "one_thread"]


def listify(x: Any = None) -> list[Any]:
    """`x` as a list: None is empty, a list or tuple is its items, any other thing (a string, a tensor) is one item."""
    if x is None:
        return []
    return list(x) if isinstance(x, (list, tuple)) else [x]


def camel2snake(name: str) -> str:
    """`OneCycleScheduler` to `one_cycle_scheduler`, `LRFinder` to `lr_finder`, `CSVLogger` to `csv_logger`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def map_tensors(x: Any, change: Callable[[Tensor], Any]) -> Any:
    """The nest of lists, tuples, dicts and dataclasses `x` with `change(t)` in place of each tensor."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, Mapping):
        return {k: map_tensors(v, change) for k, v in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(map_tensors(v, change) for v in x))
    if isinstance(x, (list, tuple)):
        return type(x)(map_tensors(v, change) for v in x)
    if _is_record(x):
        changed = copy.copy(x)
        for name, value in _fields(x).items():
            object.__setattr__(changed, name, map_tensors(value, change))   # a frozen one's too
        return changed
    return x


def params_of(learn: Any) -> list[Tensor]:
    """The parameters that the learner's optimizer holds, in the order of its groups."""
    return [p for group in learn.opt.opt.param_groups for p in group["params"]]


def to_device(x: Any, device: torch.device | str) -> Any:
    """Every tensor in a nest of lists, tuples and dicts, on `device`; what is there already is not copied. An object
    with a `to` of its own, such as a PackedSequence, is moved by that."""
    if not isinstance(x, (Tensor, Mapping)) and hasattr(x, "to"):
        return x.to(device)
    if torch.device(device).type != "cuda":     # what comes from a GPU is waited for: it may be read at once
        return map_tensors(x, lambda t: t.to(device))
    return map_tensors(x, lambda t: _pinned(t).to(device, non_blocking=True))


def _pinned(t: Tensor) -> Tensor:
    """In memory from which a GPU copies while the program goes on."""
    return t.pin_memory() if t.device.type == "cpu" and t.layout == torch.strided else t


def to_detach(x: Any, cpu: bool = True) -> Any:
    """Every tensor in a nest, cut from its graph and (by default) on the CPU."""
    return map_tensors(x, lambda t: t.detach().cpu() if cpu else t.detach())


def first_tensor(x: Any) -> Tensor | None:
    """The first tensor in a nest of lists, tuples and dicts, or None."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, Mapping):
        x = list(x.values())
    if _is_record(x):
        x = list(_fields(x).values())
    if isinstance(x, (list, tuple)):
        return next((t for t in map(first_tensor, x) if t is not None), None)
    return None


def run_model(model: Callable[..., Any], x: Any) -> Any:
    """What `model` returns for a batch of inputs: the items of a list or tuple are its arguments by position, those of
    a dict (any Mapping, or the fields of a dataclass) its arguments by name, all else is its one argument."""
    if isinstance(x, Tensor):
        return model(x)
    if isinstance(x, (list, tuple)) and not hasattr(x, "to"):   # a PackedSequence is a tuple, and one argument
        return model(*x)
    if isinstance(x, Mapping):
        return model(**x)
    if _is_record(x):
        return model(**_fields(x))
    return model() if x is None else model(x)


def _is_record(x: Any) -> bool:
    return dataclasses.is_dataclass(x) and not isinstance(x, type)


def _fields(x: Any) -> dict[str, Any]:
    return {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}


def joined(parts: Sequence[Any]) -> Any:
    """Batches as one: tensors joined along the samples, in nests of lists, tuples and dicts too. Tensors whose other
    dimensions differ come as a list with one for each sample, and so do lists of dicts; other values as a list of them.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        if not first.ndim:
            return torch.stack(list(parts))
        same = len({part.shape[1:] for part in parts}) == 1
        return torch.cat(list(parts)) if same else [row for part in parts for row in part]
    if isinstance(first, Mapping):
        return {key: joined([part[key] for part in parts]) for key in first}
    if isinstance(first, (list, tuple)):
        if isinstance(first, list) and (len({len(part) for part in parts}) > 1
                                        or first and isinstance(first[0], Mapping)):
            return [sample for part in parts for sample in part]
        columns = [joined(column) for column in zip(*parts, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else type(first)(columns)
    return None if all(part is None for part in parts) else list(parts)


def tensors_in(x: Any) -> list[Tensor]:
    """Every tensor in a nest of lists, tuples and dicts."""
    found: list[Tensor] = []
    map_tensors(x, found.append)
    return found


def pass_gradients_if(counts: Tensor, outputs: Any) -> None:
    """Let the backward pass end in a model's outputs where `counts`, one truth value, is False: of a loss in which
    nothing counts the gradient is no number, and what a GPU knows need not be read for it."""
    for t in tensors_in(outputs):
        if t.requires_grad:
            t.register_hook(lambda grad: torch.where(counts, grad, 0.0))  # type: ignore[no-untyped-call]


def batch_length(*parts: Any) -> int:
    """Number of samples in a batch: what the first of `parts` (its targets, then its inputs) that holds samples says.

    A tensor or an array says its length, a list of several dicts (one for each sample, as in detection) its own, any
    other nest what the first tensor in it says. 1 where nothing says it (scalars, strings), 0 if all that is there is
    empty. A list of one dict may be a sample or an argument: an argument, if the other parts say its tensors' length.

    >>> batch_length([{"boxes": torch.zeros(5, 4)}] * 2), batch_length((), torch.ones(9))
    (2, 9)
    """
    if isinstance(parts[0], Tensor) and parts[0].ndim and len(parts[0]):
        return len(parts[0])
    first, *others = [_length(part) for part in parts]
    if first and _holds_dicts(parts[0]) and len(parts[0]) == 1 and others and first not in others:
        return 1
    said = [n for n in (first, *others) if n is not None]
    return next((n for n in said if n), 0 if said else 1)


def _holds_dicts(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and bool(x) and all(isinstance(sample, Mapping) for sample in x)


def _length(x: Any, nested: bool = False) -> int | None:
    if isinstance(x, (Tensor, np.ndarray)):
        return len(x) if x.ndim else None
    if _holds_dicts(x) and (nested or len(x) > 1):
        return len(x)
    parts = list(x.values()) if isinstance(x, Mapping) else x if isinstance(x, (list, tuple)) else []
    return next((n for part in parts if (n := _length(part, nested=True)) is not None), None)


def wide(x: Tensor) -> Tensor:
    """`x` in at least 32 bits: a sum in 16 has two or three digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def on_host(total: Tensor) -> Any:
    """A tensor of one number as a number, if that need not wait for a GPU; else the tensor."""
    return total.numpy().item() if total.device.type == "cpu" else total


def even_mults(start: float, stop: float, n: int) -> list[float]:
    """`n` values from `start` to `stop`, each the same multiple of the one before (one value: `stop`)."""
    if n == 1:
        return [stop]
    step = (stop / start) ** (1 / (n - 1))
    return [start * step**i for i in range(n - 1)] + [stop]


def is_plain(x: Any) -> bool:
    """Whether `x` is a number, a string, a tensor, None, or a nest of lists, tuples and dicts of these."""
    if isinstance(x, dict):
        return all(isinstance(k, (str, int)) and is_plain(v) for k, v in x.items())
    if type(x) in (list, tuple):
        return all(map(is_plain, x))
    return isinstance(x, (type(None), bool, int, float, str, bytes, Tensor))


def shape_of(x: Any) -> str:
    """What a batch looks like, for an error message: `float32 (64, 3, 28, 28)`; whole numbers also say their range."""
    if isinstance(x, (list, tuple)):
        return "[" + ", ".join(map(shape_of, x)) + "]"
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key!r}: {shape_of(value)}" for key, value in x.items()) + "}"
    if not isinstance(x, Tensor):
        return str(x) if x is None else type(x).__name__
    # the range is not worth a question to a device that may just have failed
    whole = x.numel() and x.device.type == "cpu" and not x.is_floating_point() and not x.is_complex()
    return (f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
            + (f" from {int(x.min())} to {int(x.max())}" if whole else ""))


def read_numbers(values: Sequence[Any]) -> Tensor:
    """Numbers and tensors of one number (None: NaN) in float64 on the CPU; the tensors are read in one go."""
    tensors = [v.detach().reshape(()) for v in values if isinstance(v, Tensor)]
    read = iter(torch.stack(tensors).cpu().double().tolist() if tensors else [])
    return torch.tensor([next(read) if isinstance(v, Tensor) else float("nan") if v is None else v for v in values],
                        dtype=torch.float64)


def weighted_mean(values: Sequence[Any] | Tensor, weights: Sequence[Any] | Tensor) -> float | None:
    """The loss of all batches at once, in float64, from the losses of batches and over how much each is a mean.

    Both are numbers, tensors of one number, or one tensor of them all. Weights of None (NaN): the losses are sums, and
    are added. A batch of weight 0 does not count; None if there is no other.

    >>> weighted_mean([1.0, 4.0], [2, 1])
    2.0
    """
    v, w = (x.cpu().double() if isinstance(x, Tensor) else read_numbers(x) for x in (values, weights))
    if w.isnan().any():
        return float(v.sum())
    v, w = v[w != 0], w[w != 0]
    return float((v * w).sum() / w.sum()) if len(w) else None


def smoothed(mean: Tensor | None, loss: Tensor, i: int, weight: Any = 1) -> Tensor | None:
    """Loss `i` joins the mean with debiased weights 0.98**age (as in Adam's moments), without a host read.

    A loss of weight 0 is taken to be the mean so far. Before the first that counts the mean is None; to know whether
    that is so takes one read of a weight that is a tensor.
    """
    if mean is None:
        return loss.float() if weight is None or bool(weight) else None
    if isinstance(weight, Tensor):
        loss = torch.where(weight != 0, loss, mean)
    elif weight == 0:
        return mean
    return torch.lerp(mean, loss.float(), 0.02 / (1 - 0.98 ** (i + 1)))


def rng_state(cuda: bool = True) -> dict[str, Any]:
    """The state of the global random generators: torch (CPU, and with `cuda` every GPU in use; of several processes
    each has its own GPU only), numpy, python."""
    in_use = cuda and torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    numpys: Any = np.random.get_state()
    name, keys, *rest = numpys
    version, words, gauss = random.getstate()
    return {"torch": torch.get_rng_state(), "cuda": _cuda_states() if in_use else [],
            # tensors, because torch.save takes a hundred times as long for lists of numbers
            "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
            "python": (version, torch.tensor(words), gauss)}


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if world() == 1 else [torch.cuda.get_rng_state()]


def set_rng_state(state: dict[str, Any]) -> None:
    """Take back what `rng_state` gave."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count() and world() == 1:
        torch.cuda.set_rng_state_all(state["cuda"])
    elif state["cuda"] and torch.cuda.is_available():   # of a machine with another number of GPUs
        torch.cuda.set_rng_state(state["cuda"][0])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch works on one thread inside: many small steps would wait for each other's threads on a busy machine, by
    milliseconds a step."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
