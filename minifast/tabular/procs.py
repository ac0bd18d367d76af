"""Steps from a data frame to numbers. `fit` learns from training rows (and may add the names of new columns), `apply`
changes any rows in place; attributes are plain values."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import did_you_mean

__all__ = ["FillMissing", "Categorify", "Normalize", "Preparation"]


class FillMissing:
    """Missing numbers become the training rows' median; a column `NAME_na` says where, if some were missing there.

    >>> df, cats, fill = pd.DataFrame({"age": [20.0, None, 60.0, 40.0]}), [], FillMissing()
    >>> fill.fit(df, cats, ["age"]); fill.apply(df); df["age"].tolist(), cats
    ([20.0, 40.0, 60.0, 40.0], ['age_na'])
    """

    def fit(self, df: Any, cat_names: list[str], cont_names: list[str]) -> None:
        if empty := [name for name in cont_names if df[name].isna().all()]:
            raise ValueError(f"the column {empty[0]!r} has no value in the training rows: leave it out")
        self.medians = {name: float(df[name].median()) for name in cont_names}
        self.had_missing = [name for name in cont_names if df[name].isna().any()]
        cat_names += [f"{name}_na" for name in self.had_missing]

    def apply(self, df: Any) -> None:
        for name in self.had_missing:
            df[f"{name}_na"] = df[name].isna()
        for name, median in self.medians.items():
            df[name] = df[name].fillna(median)


class Categorify:
    """Categories become numbers: 0 for what is missing or was not met in training, from 1 on the training rows' values,
    sorted, or in the order of a pandas Categorical. `classes[column]` lists them.

    >>> df, new, cat = pd.DataFrame({"size": ["S", "L"]}), pd.DataFrame({"size": ["L", "XXL", None]}), Categorify()
    >>> cat.fit(df, ["size"], []); cat.apply(new); cat.classes["size"], new["size"].tolist()
    (['#na#', 'L', 'S'], [1, 0, 0])
    """

    def fit(self, df: Any, cat_names: list[str], cont_names: list[str]) -> None:
        self.classes = {name: ["#na#", *_values(df[name])] for name in cat_names}

    def apply(self, df: Any) -> None:
        for name, classes in self.classes.items():
            met, index = df[name].dropna().tolist(), {value: i for i, value in enumerate(classes) if i}
            if met and index and isinstance(met[0], str) != isinstance(classes[1], str):
                raise TypeError(f"the column {name!r} holds {met[0]!r}, and in training it held {classes[1]!r}")
            df[name] = [index.get(value, 0) for value in df[name].tolist()]


class Normalize:
    """Numbers become (x - mean) / standard deviation, both of the training rows; a constant column becomes 0.

    >>> df, norm = pd.DataFrame({"x": [1.0, 2.0, 3.0]}), Normalize()
    >>> norm.fit(df, [], ["x"]); norm.apply(df); df["x"].tolist()
    [-1.0, 0.0, 1.0]
    """

    def fit(self, df: Any, cat_names: list[str], cont_names: list[str]) -> None:
        self.stats = {name: (float(df[name].mean()), float(df[name].std()) or 1.0) for name in cont_names}

    def apply(self, df: Any) -> None:
        for name, (mean, std) in self.stats.items():
            df[name] = (df[name] - mean) / std


class Preparation:
    """The way from rows to a model's inputs: categories (n, columns), int64, and numbers (n, columns), float32.

    df: the training rows. cat_names, cont_names: their columns. procs: the steps. `classes`: the categories by column.

    >>> df = pd.DataFrame({"job": ["cook", "smith"], "age": [30, 50]})
    >>> Preparation(df, ["job"], ["age"], [Categorify, Normalize])({"job": "cook", "age": 40})
    (tensor([[1]]), tensor([[0.]]))
    """

    def __init__(self, df: Any, cat_names: Sequence[str], cont_names: Sequence[str],
                 procs: Sequence[Any]) -> None:
        self.given = [*cat_names], [*cont_names]     # the columns of the data frame; the steps may add others
        self.cat_names, self.cont_names = [*cat_names], [*cont_names]
        self.procs: list[Any] = [proc() if isinstance(proc, type) else proc for proc in procs]
        if odd := [proc for proc in self.procs if not hasattr(proc, "apply")]:
            raise TypeError(f"procs must be FillMissing, Categorify, Normalize, not {odd[0]!r}")
        rows = self._chosen(df)
        for proc in self.procs:
            proc.fit(rows, self.cat_names, self.cont_names)
            proc.apply(rows)
        self.classes: dict[str, list[Any]] = {n: c for p in self.procs for n, c in getattr(p, "classes", {}).items()}
        if self.cat_names and not self.classes:
            raise ValueError(f"the columns {self.cat_names} hold categories: procs= needs Categorify")

    def __call__(self, rows: Any) -> tuple[Tensor, Tensor]:
        """The inputs for a data frame, or one row (a Series or a dict); errors name the column that does not fit."""
        import pandas as pd
        df = self._chosen(pd.DataFrame([dict(rows)]) if isinstance(rows, (Mapping, pd.Series)) else rows)
        for proc in self.procs:
            proc.apply(df)
        if holes := [name for name in self.cont_names if df[name].isna().any()]:
            raise ValueError(f"the column {holes[0]!r} has missing values, which FillMissing among procs= would fill")
        return (torch.tensor(df[self.cat_names].to_numpy(np.int64).reshape(len(df), -1)),
                torch.tensor(df[self.cont_names].to_numpy(np.float32).reshape(len(df), -1)))

    def recipe(self) -> dict[str, Any]:
        """All that it has learned, in plain values: see `table_from_recipe`."""
        if own := [p for p in self.procs if type(p) not in (FillMissing, Categorify, Normalize)]:
            raise ValueError(f"{own[0]!r} among procs= is code, which cannot be in a file")
        return {"given": list(self.given), "cat_names": self.cat_names, "cont_names": self.cont_names,
                "columns": self.classes, "procs": [[type(p).__name__, vars(p)] for p in self.procs]}

    def _chosen(self, df: Any) -> Any:
        """A copy of the columns that are needed, numbers as float64."""
        if gone := [name for name in sum(self.given, []) if name not in df.columns]:
            raise KeyError(f"there is no column {gone[0]!r}.{did_you_mean(gone[0], map(str, df.columns))}")
        found = df[sum(self.given, [])].copy()
        for name in self.given[1]:
            try:
                found[name] = values = df[name].to_numpy(dtype=np.float64, na_value=np.nan)
            except (TypeError, ValueError) as e:
                raise TypeError(f"the column {name!r} holds no numbers ({e}): it belongs into cat_names") from e
            if np.isinf(values).any():
                raise ValueError(f"the column {name!r} has infinite values: replace them")
        return found


def _values(column: Any) -> list[Any]:
    found = set(column.dropna())
    if hasattr(column, "cat"):
        return [value for value in column.cat.categories if value in found]
    return sorted(found, key=str if len(set(map(type, found))) > 1 else None)
