"""The star module for tables: `from minifast.tabular import *` gives `minifast.basics` and what only tables need."""
from __future__ import annotations

from .. import basics
from ..basics import *
from ..exported import load_learner
from .data import TabularDataBunch
from .model import TabularModel, emb_sz_rule, tabular_learner
from .procs import Categorify, FillMissing, Normalize

__all__ = [*basics.__all__, "TabularDataBunch", "TabularModel", "emb_sz_rule", "tabular_learner", "Categorify",
           "FillMissing", "Normalize", "load_learner"]
