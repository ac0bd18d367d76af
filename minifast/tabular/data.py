"""`TabularDataBunch`: the rows of a data frame as batches of (categories, numbers) and targets."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arrays import as_targets, batch_of_one, fitting_loss, rows_at_random
from ..data import DataBunch
from ..device_loader import DeviceDataLoader
from ..loaders import TensorLoader, require_batch, seed_or_drawn
from ..losses import task_of
from .procs import Categorify, FillMissing, Normalize, Preparation

__all__ = ["TabularDataBunch"]


class TabularDataBunch(DataBunch):
    """Rows of a data frame as inputs (categories, numbers), and their targets: see `from_df`."""

    prepare: Preparation    # learned from the training rows
    n_out: int              # how many outputs a model needs

    @classmethod
    def from_df(cls, df: Any, y: str | Sequence[str], cat_names: Sequence[str] | None = None,
                cont_names: Sequence[str] | None = None, procs: Sequence[Any] = (FillMissing, Categorify, Normalize),
                valid_idx: Sequence[int] | None = None, valid_pct: float = 0.2, seed: int | None = None, bs: int = 64,
                val_bs: int | None = None, test_df: Any = None, drop_last: bool = True, classes: Any = None,
                loss_func: Callable[..., Any] | None = None, **kwargs: Any) -> TabularDataBunch:
        """From a data frame with a row for each sample.

        df: the data frame; it is not changed.
        y: the column of the targets. Strings, truth values and whole numbers are classes, other numbers quantities (so
            are whole numbers with `loss_func=MSELossFlat()`). A list of columns: quantities, or labels if all are 0, 1.
        cat_names, cont_names: the columns of categories and of numbers; None: of the others than `y` those that hold no
            numbers (strings, truth values), and all that are left.
        procs: what prepares the columns: see `FillMissing`, `Categorify`, `Normalize`.
        valid_idx: the rows to validate on, by position; None: this part, drawn at random: `valid_pct` (0: none).
        test_df: rows to predict on, `y` apart; None: there are none.
        seed, bs, val_bs, drop_last, loss_func, classes, kwargs: see `DataBunch.from_arrays`.

        KeyError, TypeError or ValueError that names the column and what is wrong with it.

        >>> df = pd.DataFrame({"job": ["cook", "smith"] * 10, "age": range(20), "rich": ["no", "yes"] * 10})
        >>> data = TabularDataBunch.from_df(df, "rich", valid_idx=range(15, 20), bs=5)
        >>> data.classes, data.prepare.cat_names, data.prepare.cont_names, len(data.valid_ds)
        (['no', 'yes'], ['job'], ['age'], 5)
        """
        if not hasattr(df, "iloc"):
            raise TypeError(f"df must be a data frame, not a {type(df).__name__} (a folder for files is path=)")
        seed, val_bs = seed_or_drawn(seed), bs if val_bs is None else val_bs
        columns = [y] if isinstance(y, str) else list(y)
        cats, conts = _inputs(df, columns, cat_names, cont_names)
        train_rows, valid_rows = _split(len(df), valid_idx, valid_pct, seed)
        targets, classes = _targets(df[columns[0]] if isinstance(y, str) else df[columns], loss_func, classes)
        loss_func = loss_func or fitting_loss(targets)
        if targets.ndim > 1 and task_of(loss_func) == "labels":
            classes = columns
        prepare = Preparation(df.iloc[train_rows.tolist()], cats, conts, procs)
        x = prepare(df)
        train = require_batch(TensorLoader(x, targets, bs, True, drop_last, seed, rows=train_rows))
        fix, valid = (TensorLoader(x, targets, val_bs, seed=seed, rows=rows) for rows in (train_rows, valid_rows))
        data = cls(train, valid if len(valid_rows) else None, fix, loss_func=loss_func, classes=classes, **kwargs)
        data.prepare, data.n_out = prepare, targets.shape[1] if targets.ndim > 1 else len(classes or [0])
        data.test_dl = None if test_df is None else data.test_on(test_df, val_bs)
        return data

    def test_on(self, items: Any, bs: int | None = None) -> DeviceDataLoader:
        """Batches of new rows, a data frame, in their order; their targets are 0. bs: None: that of validation."""
        return super().test_on(self.prepare(items) if hasattr(items, "iloc") else items, bs)

    def recipe(self) -> dict[str, Any]:
        """How rows to predict on are prepared, in plain values: a part of an exported learner."""
        bs = self._as_for_validation.batch_size or 64
        return {"kind": "table", "classes": self.classes, "bs": bs, "n_out": self.n_out, **self.prepare.recipe()}

    def prepare_item(self, item: Any) -> Any:
        """One row, a Series or a dict of its columns, as a batch of one."""
        return self._prepared(batch_of_one(item) if isinstance(item, (tuple, list)) else self.prepare(item))


def _inputs(df: Any, y: list[str], cats: Sequence[str] | None, conts: Sequence[str] | None) -> tuple[list[str], ...]:
    from pandas.api import types
    others = [name for name in df.columns if name not in (*y, *(cats or ()), *(conts or ()))]
    if None in (cats, conts) and (times := [name for name in others if df[name].dtype.kind in "Mm"]):
        raise TypeError(f"the column {times[0]!r} holds times: make numbers of them (the year, the weekday, ...)")
    if cats is None:
        cats = [n for n in others if not types.is_numeric_dtype(df[n]) or types.is_bool_dtype(df[n])]
    conts = [name for name in others if name not in cats] if conts is None else conts
    named = [*y, *cats, *conts]
    if len(set(named)) < len(named) or len(named) == len(y) or not set(y) <= set(df.columns):
        raise ValueError(f"y={y}, cat_names={list(cats)}, cont_names={list(conts)} of the columns {list(df.columns)}: "
                         "none may be named twice, y must be among them, and at least one input")
    return list(cats), list(conts)


def _split(n: int, valid_idx: Sequence[int] | None, valid_pct: float, seed: int) -> tuple[Tensor, Tensor]:
    if valid_idx is None:
        return rows_at_random(n, valid_pct, seed) if valid_pct else (torch.arange(n), torch.arange(0))
    chosen = sorted(int(i) for i in valid_idx)
    if len(set(chosen)) < len(chosen) or chosen and not 0 <= chosen[0] <= chosen[-1] < n:
        raise ValueError(f"valid_idx must hold different positions from 0 to {n - 1}, not {chosen[:5]} to {chosen[-1]}")
    return torch.tensor(sorted({*range(n)} - {*chosen})), torch.tensor(chosen, dtype=torch.long)


def _targets(y: Any, loss_func: Any, classes: Sequence[Any] | None) -> tuple[Tensor, list[Any] | None]:
    if y.ndim == 2 or y.dtype.kind == "f" or task_of(loss_func) not in (None, "classes"):
        return as_targets(y.to_numpy("float32") if y.ndim == 2 else y, loss_func, classes)
    found, names = as_targets(y.astype(object), loss_func, classes)
    if classes is None and len(names or ()) > max(20, len(y) // 2):
        raise ValueError(f"{y.name!r} would be {len(names or ())} classes: for quantities give loss_func=MSELossFlat()")
    return found, names
