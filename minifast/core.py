"""fastai v1's small helpers that many of its scripts use: tensors, arrays, lists and folders."""
from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .checks import ListedPath, as_path, positive_int
from .datasets import data_folder

__all__ = ["tensor", "array", "listify", "ls", "Config", "is_listy", "is_tuple", "ifnone", "noop", "range_of", "chunks",
           "arrays_split", "partition", "index_row", "one_hot", "to_int", "to_np"]

T = TypeVar("T")


# ---- tensors, arrays and lists

def tensor(x: Any, *rest: Any, **kwargs: Any) -> Tensor:
    """`torch.tensor(x)`; several numbers or rows are taken together: `tensor(1, 2)`.

    kwargs: of `torch.tensor`. A tensor is copied.

    >>> tensor(1, 2), tensor([0.5, 1]).dtype
    (tensor([1, 2]), torch.float32)
    """
    values = [x, *rest] if rest else x
    if isinstance(values, Tensor):
        trained = kwargs.pop("requires_grad", False)
        return values.detach().clone().to(**kwargs).requires_grad_(trained)
    if rest and all(isinstance(v, Tensor) for v in values):
        return torch.stack([v.detach() for v in values])
    return torch.tensor(values, **kwargs)


def array(x: Any, dtype: Any = None, **kwargs: Any) -> np.ndarray[Any, Any]:
    """`np.array`, also of a generator.

    >>> array(i * 2 for i in range(3))
    array([0, 2, 4])
    """
    return np.array(x if isinstance(x, Collection) or not hasattr(x, "__iter__") else list(x), dtype=dtype, **kwargs)


def listify(p: Any = None, q: Any = None) -> list[Any]:
    """`p` as a list; one item is repeated to the length of `q`.

    p: None is empty, a string or one thing is one item, all else that can be iterated over its items.
    q: None; a number, or a list of the length that is wanted. ValueError if `p` has another.

    >>> listify(0.5, [1, 2, 3]), listify("ab"), listify(None)
    ([0.5, 0.5, 0.5], ['ab'], [])
    """
    one = isinstance(p, (str, bytes)) or not hasattr(p, "__iter__") or isinstance(p, Tensor) and not p.ndim
    items = [] if p is None else [p] if one else list(p)
    if q is None:
        return items
    n = q if isinstance(q, int) else len(q)
    if len(items) == 1:
        return items * n
    if len(items) != n:
        raise ValueError(f"a list of {len(items)} items is given, and {n} are needed: {items!r:.200}")
    return items


def is_listy(x: Any) -> bool:
    """Whether `x` is a list or a tuple.

    >>> is_listy((1, 2)), is_listy("ab")
    (True, False)
    """
    return isinstance(x, (tuple, list))


def is_tuple(x: Any) -> bool:
    """Whether `x` is a tuple.

    >>> is_tuple((1, 2)), is_tuple([1, 2])
    (True, False)
    """
    return isinstance(x, tuple)


def ifnone(a: T | None, b: T) -> T:
    """`b` if `a` is None, else `a`.

    >>> ifnone(None, 3), ifnone(0, 3)
    (3, 0)
    """
    return b if a is None else a


def noop(x: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Its first argument, unchanged.

    >>> noop(3)
    3
    """
    return x


def range_of(x: Any) -> list[int]:
    """The indices of a list.

    >>> range_of("abc")
    [0, 1, 2]
    """
    return list(range(len(x)))


def chunks(items: Sequence[T], n: int) -> Iterator[Sequence[T]]:
    """Parts of `n` items each, the last one with what is left.

    >>> list(chunks([1, 2, 3, 4, 5], 2))
    [[1, 2], [3, 4], [5]]
    """
    n = positive_int("n", n)
    return (items[i:i + n] for i in range(0, len(items), n))


def partition(items: Sequence[T], sz: int) -> list[Sequence[T]]:
    """A list of parts of `sz` items each, see `chunks`.

    >>> partition("abcde", 2)
    ['ab', 'cd', 'e']
    """
    return list(chunks(items, sz))


def arrays_split(mask: Any, *arrs: Any) -> list[tuple[Any, ...]]:
    """Of each array the rows where `mask` is true, and the others: [(rows of each), (the other rows of each)].

    ValueError if the arrays have other lengths than the mask.

    >>> arrays_split([True, False, True], [1, 2, 3])
    [(array([1, 3]),), (array([2]),)]
    """
    mask = np.asarray(mask, bool)
    given = [np.asarray(a) for a in arrs]
    if wrong := [len(a) for a in given if len(a) != len(mask)]:
        raise ValueError(f"the mask has {len(mask)} rows, and an array {wrong[0]}")
    return [tuple(a[mask] for a in given), tuple(a[~mask] for a in given)]


def index_row(a: Any, idxs: Any) -> Any:
    """Rows of a table (a data frame or series: by position) or of an array.

    >>> index_row([5, 6, 7], 1)
    6
    """
    return a.iloc[idxs] if hasattr(a, "iloc") else a[idxs]


def one_hot(x: Sequence[int], c: int) -> np.ndarray[Any, Any]:
    """An array of `c` zeros with ones at the places `x`, float32.

    >>> one_hot([0, 2], 4)
    array([1., 0., 1., 0.], dtype=float32)
    """
    row = np.zeros(positive_int("c", c), np.float32)
    row[list(x)] = 1
    return row


def to_int(x: Any) -> Any:
    """`x` as a whole number, in lists too.

    >>> to_int([1.0, "2"])
    [1, 2]
    """
    return [to_int(v) for v in x] if is_listy(x) else int(x)


def to_np(x: Any) -> np.ndarray[Any, Any]:
    """A tensor as a numpy array on the CPU, without its graph.

    >>> to_np(torch.ones(2))
    array([1., 1.], dtype=float32)
    """
    found: np.ndarray[Any, Any] = x.detach().cpu().numpy()
    return found


# ---- folders

def ls(path: Path | str = ".", pattern: str = "*") -> list[Path]:
    """What is in a folder, sorted. (v1's `path.ls()` works too for what `untar_data`, `Config` and a learner's `path`
    return.)

    pattern: only names like it, such as "*.jpg"; hidden ones are left out unless it begins with a dot.

    >>> Path("b.txt").touch()
    >>> [p.name for p in ls()]
    ['b.txt']
    """
    return ListedPath(as_path("path", path)).ls(pattern)


class Config:
    """Where data sets and models are kept, as v1's class said; see `data_folder`.

    >>> Config.data_path().name, Config.get_path("model_path").name
    ('data', 'models')
    """

    @classmethod
    def data_path(cls) -> Path:
        """Of data sets: where `untar_data` puts them."""
        return ListedPath(data_folder())

    @classmethod
    def data_archive_path(cls) -> Path:
        """Of archives: they are not kept, so that of data sets."""
        return cls.data_path()

    @classmethod
    def model_path(cls) -> Path:
        """Of models, beside that of data sets."""
        return ListedPath(data_folder().parent / "models")

    @classmethod
    def get_path(cls, path: str) -> Path:
        """That one, by its name: "data_path", "data_archive_path" or "model_path"; else a ValueError."""
        if path not in ("data_path", "data_archive_path", "model_path"):
            raise ValueError(f"there is no path {path!r}: there are data_path, data_archive_path and model_path")
        found: Path = getattr(cls, path)()
        return found
