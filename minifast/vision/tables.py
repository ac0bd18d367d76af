"""Tables that name files and their labels."""
from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from ..checks import did_you_mean
from ..utils import listify

__all__ = ["read_table", "column", "file_names", "label_columns"]

NO_VALUE = {"", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "null", "NULL", "None"}   # what programs write for it
WHOLE = re.compile(r"0|-?[1-9]\d*")                                                # 007 is a name
NUMBER = re.compile(rf"{WHOLE.pattern}|-?(0|[1-9]\d*)(\.\d+([eE][+-]?\d+)?|[eE][+-]?\d+)")


def read_table(file: os.PathLike[str] | str, names: Any, header: Any = "infer", delimiter: str | None = None) -> Any:
    """A data frame of a text file. Columns of numbers or of True and False become such; in all others, and in the
    columns `names`, each value stays the text that it is: "NA" and "001" are names."""
    import pandas as pd
    try:
        df = pd.read_csv(file, dtype=str, keep_default_na=False, header=header, sep=delimiter or ",")
    except (ValueError, pd.errors.ParserError) as e:
        raise ValueError(f"{file} cannot be read as a table: {e}") from e
    as_text = [df.columns.get_loc(column(df, c).name) for c in (names if isinstance(names, list) else [names])]
    for i in range(df.shape[1]):
        if i not in as_text:
            df.isetitem(i, pd.array(_typed(df.iloc[:, i].tolist()), dtype=object))
    return df


def _typed(values: list[str]) -> list[Any]:
    """Text as whole numbers, floats or truth values where all are such, None for what is missing among these."""
    present = [v for v in values if v.strip() not in NO_VALUE]
    if not present:
        return values
    change: Callable[[str], Any]
    if all(WHOLE.fullmatch(v) for v in present):
        change = int
    elif all(NUMBER.fullmatch(v) for v in present):
        change = float
    elif all(v.lower() in ("true", "false") for v in present):
        change = lambda v: v.lower() == "true"
    else:
        return values
    return [None if v.strip() in NO_VALUE else change(v) for v in values]


def column(df: Any, which: Any) -> Any:
    """A column of a data frame by its name or its number; ValueError that names the columns that there are."""
    if not hasattr(df, "iloc") or not hasattr(df, "columns"):
        raise TypeError(f"a table must be a pandas DataFrame, not {type(df).__name__}")
    names = list(df.columns)
    if isinstance(which, int):
        if -len(names) <= which < len(names):
            return df.iloc[:, which]
    elif which in names:
        return df[which]
    raise ValueError(f"there is no column {which!r} in the table; it has {names}."
                     + did_you_mean(str(which), map(str, names)))


def file_names(df: Any, which: Any) -> list[Any]:
    """The file names in a column. ValueError that names a row without one."""
    names: list[Any] = column(df, which).tolist()
    for row, name in enumerate(names):
        if not isinstance(name, (str, int, os.PathLike)) or not str(name).strip():
            raise ValueError(f"row {row} of the table has no file name in column {which!r}, but {name!r}")
    return names


def label_columns(df: Any, which: Any) -> list[Any]:
    """The labels in a column, or in several: a list of them for each row."""
    columns = [column(df, c).tolist() for c in listify(which)]
    return columns[0] if len(columns) == 1 else [list(row) for row in zip(*columns, strict=True)]
