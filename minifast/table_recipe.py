"""A `TabularDataBunch` for predictions, from the plain values in the file of an exported learner."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .device_loader import DeviceDataLoader
from .loaders import NoData
from .tabular.data import TabularDataBunch
from .tabular.procs import Categorify, FillMissing, Normalize, Preparation

__all__ = ["table_from_recipe"]

PROCS: dict[str, type] = {proc.__name__: proc for proc in (FillMissing, Categorify, Normalize)}
FORM = {"medians": (dict, float), "had_missing": (list, str), "stats": (dict, tuple), "classes": (dict, list)}


def table_from_recipe(recipe: dict[str, Any], path: Path, device: torch.device) -> TabularDataBunch:
    """Data without rows that prepares new ones as `TabularDataBunch.recipe` says; ValueError or TypeError for another.
    """
    data = TabularDataBunch(DeviceDataLoader(NoData(recipe["bs"]), device), device=device, path=path,
                            classes=recipe["classes"])
    prepare = object.__new__(Preparation)
    cats, conts = (_names(part) for part in recipe["given"])
    prepare.given = cats, conts
    prepare.cat_names, prepare.cont_names = _names(recipe["cat_names"]), _names(recipe["cont_names"])
    prepare.procs = [_proc(name, learned) for name, learned in recipe["procs"]]
    prepare.classes = _checked("classes", recipe["columns"])
    data.prepare, data.n_out = prepare, int(recipe["n_out"])
    prepare({name: None if name in cats else 0.0 for name in (*cats, *conts)})      # whatever does not fit is found now
    return data


def _names(names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names of columns must be a list of strings")
    return names


def _proc(name: str, learned: dict[str, Any]) -> Any:
    proc = PROCS[name]()
    for key, value in learned.items():
        setattr(proc, key, _checked(key, value))
    return proc


def _checked(key: str, value: Any) -> Any:
    """What a step has learned, if it has the form that it must have."""
    outer, inner = FORM[key]
    items = value.values() if isinstance(value, dict) else value
    if type(value) is not outer or not all(type(item) is inner for item in items):
        raise ValueError(f"{key} of a table's preparation is not what it must be")
    if key == "stats" and not all(len(pair) == 2 and all(type(x) is float for x in pair) for pair in items):
        raise ValueError("a mean and a standard deviation are needed for each column")
    return value
