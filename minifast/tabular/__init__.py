"""The star module for tables: `from minifast.tabular import *` gives `minifast.basics` and what only tables need."""
from __future__ import annotations

from .. import basics
from ..basics import *
from . import data as _data
from . import model as _model
from .data import *
from .model import *
from .procs import Categorify, FillMissing, Normalize

__all__ = [*basics.__all__, *_data.__all__, *_model.__all__, "FillMissing", "Categorify", "Normalize"]
