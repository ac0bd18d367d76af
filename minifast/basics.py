"""The star module: `from minifast.basics import *` gives what a fastai v1 script expects, pictures apart."""
from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim, tensor

from . import (
    callback,
    callbacks,
    columns,
    confusion,
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
)
from .callback import *
from .callbacks import *
from .columns import *
from .confusion import *
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


class _OnFirstUse:
    """A stand-in for a module, which is imported on its first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self._name))


plt, pd, models = _OnFirstUse("matplotlib.pyplot"), _OnFirstUse("pandas"), _OnFirstUse("torchvision.models")

__all__ = ["np", "torch", "F", "nn", "optim", "Tensor", "tensor", "partial", "Path", "Any", "plt", "pd", "models",
           "AdamW", "FusedAdam"]
for _module in (callback, callbacks, columns, confusion, data, datasets, denominators, device_loader, inference,
                interpret, layers, learner, loaders, losses, metrics, model_loss, optimizer, order, recorder, runs,
                scores, state, stepper):
    __all__ += _module.__all__
