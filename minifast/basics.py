"""The star module: `from minifast.basics import *` gives what a fastai v1 script expects, pictures apart."""
from __future__ import annotations

import contextlib
import gc
import gzip
import importlib
import json
import math
import os
import pickle
import random
import re
import shutil
from collections.abc import Collection
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset, TensorDataset

from . import (
    blocks,
    callback,
    callbacks,
    columns,
    confusion,
    core,
    data,
    datasets,
    denominators,
    device_loader,
    inference,
    interpret,
    layers,
    learner,
    loaders,
    losses,
    metrics,
    model_loss,
    optimizer,
    order,
    recorder,
    runs,
    scores,
    state,
    stepper,
    torch_core,
)
from .blocks import *
from .callback import *
from .callbacks import *
from .columns import *
from .confusion import *
from .core import *
from .data import *
from .datasets import *
from .denominators import *
from .device_loader import *
from .fused import AdamW, FusedAdam
from .inference import *
from .interpret import *
from .layers import *
from .learner import *
from .loaders import *
from .losses import *
from .metrics import *
from .model_loss import *
from .optimizer import *
from .order import *
from .recorder import *
from .runs import *
from .scores import *
from .state import *
from .stepper import *
from .torch_core import *


class _OnFirstUse:
    """A stand-in for a module, which is imported on its first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        module = importlib.import_module(self._name)
        if not hasattr(module, attribute) and hasattr(module, "__path__") and not attribute.startswith("_"):
            with contextlib.suppress(ModuleNotFoundError):  # as PIL.Image, which nobody has imported
                importlib.import_module(f"{self._name}.{attribute}")
        return getattr(module, attribute)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self._name))


plt, pd, models = _OnFirstUse("matplotlib.pyplot"), _OnFirstUse("pandas"), _OnFirstUse("torchvision.models")
PIL = _OnFirstUse("PIL")
Tuple: Any = tuple  # of typing, in v1's time

__all__ = ["np", "torch", "F", "nn", "optim", "Tensor", "partial", "Path", "Any", "plt", "pd", "models", "PIL", "os",
           "re", "gc", "gzip", "pickle", "random", "math", "json", "shutil", "itemgetter", "Collection", "Tuple",
           "Dataset", "DataLoader", "TensorDataset", "AdamW", "FusedAdam"]
for _module in (blocks, callback, callbacks, columns, confusion, core, data, datasets, denominators, device_loader,
                inference, interpret, layers, learner, loaders, losses, metrics, model_loss, optimizer, order, recorder,
                runs, scores, state, stepper, torch_core):
    __all__ += _module.__all__
