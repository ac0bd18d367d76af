"""Checks of what is given: each returns the value to use, or raises a TypeError or ValueError that names it.

`name` is what the error calls the value.
"""
from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["ListedPath", "anything", "as_path", "check_callable", "check_momenta", "check_one_each", "did_you_mean",
           "few_of", "figures", "file_name", "flag", "loss_or_none", "loss_value", "no_gradient", "number",
           "one_number", "positive_float", "positive_int", "short", "whole_number", "check_record"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest of the known names, or an empty string: the end of an error message."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def few_of(names: Iterable[str], what: str) -> str:
    """How many there are of `what`, and the first three names, for an error message.

    >>> few_of(["a", "b", "c", "d"], "weights")
    '4 weights (a, b, c, ...)'
    """
    every = list(names)
    return f"{len(every)} {what} ({', '.join([*every[:3], *(['...'] if len(every) > 3 else [])])})"


def positive_int(name: str, value: Any, or_zero: bool = False) -> int:
    """`value` if it is a whole number of at least 1 (or 0 with `or_zero`), else TypeError or
    ValueError."""
    try:
        x = int(value.__index__())
    except (AttributeError, TypeError):     # tensors and arrays have an __index__ and may refuse it
        x = None
    if x is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {short(value)} ({type(value).__name__})")
    if x < 1 - or_zero:
        raise ValueError(f"{name} must be at least {1 - or_zero}, not {short(x)}")
    if x > sys.maxsize:
        raise ValueError(f"{name} must be at most {sys.maxsize}, not {short(x)}")
    return x


def whole_number(name: str, value: Any) -> int:
    """`value` if it is a whole number of at least 0, else TypeError or ValueError."""
    return positive_int(name, value, or_zero=True)


def number(name: str, value: Any) -> float:
    """`value` as a float, else a TypeError."""
    if not isinstance(value, (bool, str, bytes, Sequence)) and hasattr(value, "__float__"):
        # several numbers in one tensor or array; a whole number that is larger than any float
        with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):
            return float(value)
    raise TypeError(f"{name} must be a number, not {short(value)} ({type(value).__name__})")


def short(value: Any) -> str:
    """`value` in an error message: on one line, and a tensor or an array without its numbers.

    >>> short(torch.zeros(2, 3))
    'a Tensor of shape (2, 3)'
    """
    if isinstance(value, int) and abs(value) > 1e99:  # Python refuses to write out very large ones
        return "one of more than 99 digits"
    if isinstance(value, (Tensor, np.ndarray)) and (value.ndim > 1 or value.ndim and len(value) > 8):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:100]}... ({type(value).__name__})"


def positive_float(name: str, value: Any, or_zero: bool = False) -> float:
    """`value` as a finite number above 0 (or 0 with `or_zero`), else TypeError or ValueError."""
    x = number(name, value)
    if not (0 < x < float("inf") or or_zero and x == 0):
        raise ValueError(f"{name} must be a finite number {'of at least' if or_zero else 'above'} 0, not {value}")
    return x


def check_momenta(moms: Any, what: str) -> None:
    """TypeError or ValueError unless `moms` are two momenta; `what` says which is which."""
    given = moms if isinstance(moms, (list, tuple)) else [moms]
    if [0 <= number("a momentum", m) < 1 for m in given] != [True, True]:
        raise ValueError(f"moms must be two momenta from 0 to below 1, {what}, not {moms}")


def as_path(name: str, value: Any) -> Path:
    """`value` as a Path with v1's `ls`, else a TypeError."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, a string or a Path, not {value!r}")
    return ListedPath(value)


class ListedPath(type(Path())):     # type: ignore[misc]
    """A Path with v1's `ls`; paths that are made from it, by `/` for example, have it too.

    >>> ListedPath(".").ls()
    []
    """

    def ls(self, pattern: str = "*") -> list[Path]:
        """What is in the folder, sorted; hidden names are left out unless `pattern` begins with a dot."""
        return sorted(p for p in self.glob(pattern) if pattern.startswith(".") or not p.name.startswith("."))

    def __repr__(self) -> str:
        return f"Path({str(self)!r})"


def file_name(name: str, value: Any) -> str | Path:
    """`value` if a file can be called so, else a ValueError."""
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError(f"{name} needs a name, not {value!r}: give a string")
    return value


def check_callable(name: str, value: Any) -> None:
    """TypeError unless `value` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, not {value!r}")


def anything(name: str, value: Any) -> Any:
    """`value`, of whatever type."""
    return value


def flag(name: str, value: Any) -> bool:
    """`value` if it is True or False (numpy's, or a tensor or array of one of them, too), else a TypeError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, Tensor) and value.dtype is torch.bool and value.numel() == 1:
        return bool(value)
    if isinstance(value, np.ndarray) and value.dtype == bool and value.size == 1:
        return bool(value.item())
    raise TypeError(f"{name} must be True or False, not {short(value)} ({type(value).__name__})")


def figures(name: str, value: Any) -> list[Any]:
    """`value` if it is a list of numbers (tensors of one number too) and None, else a TypeError."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list, not {value!r}: return {{{name!r}: {name} + [value]}}")
    for v in value:
        if isinstance(v, Tensor):
            if v.numel() != 1:
                raise TypeError(f"{name} must hold numbers, not a tensor of shape {tuple(v.shape)}")
        elif v is not None:
            number(f"a value in {name}", v)
    return list(value)


def loss_value(name: str, value: Any) -> Tensor:
    """`value` if it is a tensor of one number, else TypeError or ValueError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor of one number, not {value!r}")
    if value.numel() != 1:
        raise ValueError(f"{name} must be one number, not a tensor of shape {tuple(value.shape)}")
    return value


def loss_or_none(name: str, value: Any) -> Tensor | None:
    """`loss_value`, or None."""
    return None if value is None else loss_value(name, value)


def one_number(loss: Tensor) -> Tensor:
    """`loss` if it is a tensor of one number, else TypeError or ValueError."""
    if not isinstance(loss, Tensor):
        raise TypeError(f"the loss of a batch must be a tensor of one number, not {loss!r}: let the loss function "
                        "return one")
    if loss.numel() != 1:
        raise ValueError(f"the loss of a batch must be one number, not a tensor of shape {tuple(loss.shape)}: "
                         "return its mean (in torch's loss functions that is reduction='mean')")
    return loss


def check_one_each(names: list[str], values: list[Any]) -> None:
    """ValueError unless there is a value for the validation loss and one for each of the metrics `names`."""
    if len(values) != 1 + len(names):
        raise ValueError(f"the metrics {names} gave {len(values) - 1} values; on_epoch_end of each must return "
                         "{'last_metrics': last_metrics + [value]}")


def no_gradient(loss: Tensor, output: Any) -> RuntimeError:
    """The error for a loss that cannot be differentiated, which says whose fault that is: the loss function's, or that
    of the model that made `output`.

    >>> no_gradient(torch.tensor(3), torch.ones(2, requires_grad=True))
    RuntimeError('the loss has no gradient: it is of whole numbers (int64), ...')
    """
    parts = output if isinstance(output, (list, tuple)) else output.values() if isinstance(output, dict) else [output]
    if not any(getattr(t, "requires_grad", False) for t in parts):
        return RuntimeError("the model's output has no gradient, so nothing can be learned from its loss: is it "
                            "detached, or computed under torch.no_grad()?")
    whole = not (loss.is_floating_point() or loss.is_complex())
    why = (f"it is of whole numbers ({str(loss.dtype).removeprefix('torch.')}), which cannot be differentiated" if whole
           else "it is cut off from the model's output (by detach(), item() or torch.no_grad())")
    return RuntimeError(f"the loss has no gradient: {why}. Let the loss function return a float computed from the "
                        "output (and a callback that replaces it in on_backward_begin, too)")


def check_record(record: dict[str, Any], arrays: Sequence[str], lists: Sequence[str]) -> None:
    """TypeError or ValueError unless it is what a `Recorder` keeps: rows of numbers, and columns of one length."""
    for name in arrays:
        row = record[name]
        if not isinstance(row, Tensor) or row.ndim != 1 or row.is_complex():
            raise TypeError(f"{name} of the record must be a row of numbers, not {short(row)}")
    for name in lists:
        for value in (v for row in record[name] for v in row) if name == "metrics" else record[name]:
            if not isinstance(value, str if name == "names" else (int, float, type(None))):
                raise TypeError(f"{name} of the record holds {short(value)}")
    if len({len(record[name]) for name in lists if name != "names"}) > 1:
        raise ValueError("the columns of the record have different lengths")
    for name in ("first_epoch", "elapsed"):
        number(f"{name} of the record", record[name])
