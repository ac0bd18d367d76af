"""`DataBunch`: training, validation and test batches, and what is known of them."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from .checks import as_path, did_you_mean
from .device_loader import DeviceDataLoader, default_device, resolved
from .loaders import Batch, ItemLoader, Loader, TensorLoader, filled, generators_kept, settled
from .utils import to_detach
from .workers import Collate

__all__ = ["DatasetType", "DataBunch"]


class DatasetType(Enum):
    """Which data: `Fix` is the training data in order, whole, and prepared as for validation."""

    Train, Valid, Test, Fix = "train", "valid", "test", "fix"

    @classmethod
    def _missing_(cls, value: object) -> None:
        names = [kind.value for kind in cls]
        raise ValueError(f"there is no {value!r} data; there can be {', '.join(names)}."
                         + did_you_mean(str(value), names))


class DataBunch:
    """Training, validation and test batches, the device they go to, and what is known of them.

    Each `dl`: any iterable of (x, y) batches, see `DeviceDataLoader`. `path`: where a learner's files go. `loss_func`:
    the one that fits the targets. `classes`: their names, by index. `fix_dl`: see `DatasetType`. ValueError if there is
    not one training batch.
    """

    def __init__(self, train_dl: Any, valid_dl: Any = None, test_dl: Any = None,
                 device: torch.device | str | None = None, path: Path | str = ".",
                 loss_func: Callable[..., Any] | None = None, classes: Sequence[Any] | None = None,
                 fix_dl: Any = None) -> None:
        self.device = default_device() if device is None else resolved(device)
        self.train_dl: DeviceDataLoader = self.wrap(train_dl)
        self.valid_dl, self.test_dl, self.fix_dl = (None if dl is None else self.wrap(dl)
                                                    for dl in (valid_dl, test_dl, fix_dl))
        self.path, self.loss_func = as_path("path", path), loss_func
        if isinstance(classes, (str, bytes)) or not isinstance(classes, Iterable | None):
            raise TypeError(f"classes must be a list of names, not {classes!r}")
        self.classes = None if classes is None else [c.item() if isinstance(c, np.generic) else c for c in classes]
        if _length(self.train_dl) == 0:
            raise ValueError("the training data is empty: there is not one batch to train on")

    @classmethod
    def create(cls, train_ds: Any, valid_ds: Any = None, test_ds: Any = None, path: Path | str = ".", bs: int = 64,
               val_bs: int | None = None, num_workers: int = 0, device: torch.device | str | None = None,
               drop_last: bool = True, seed: int | None = None, loss_func: Callable[..., Any] | None = None,
               classes: Sequence[Any] | None = None, collate_fn: Collate | None = None) -> DataBunch:
        """From datasets: training data in a new order each pass, validation and test data in theirs.

        A TensorDataset of two tensors is cut by indexing, anything else collated item by item. `val_bs`: batch size
        where nothing is learned (default `bs`). `drop_last`: a last training batch that is not full is left out. `seed`
        fixes every order. ValueError if not one training batch is left.
        """
        seed = settled(seed)  # once: the order of training must not depend on which other sets there are

        def dl(dataset: Any, bs: int, train: bool = False) -> Loader:
            if type(dataset) is TensorDataset and len(dataset.tensors) == 2 and collate_fn is None:
                return TensorLoader(*dataset.tensors, bs, train, train and drop_last, seed, dataset)
            return ItemLoader(dataset, bs, train, train and drop_last, seed, num_workers, collate_fn)

        valid, test, fix = (None if ds is None else dl(ds, bs if val_bs is None else val_bs)
                            for ds in (valid_ds, test_ds, train_ds))
        return cls(filled(dl(train_ds, bs, train=True)), valid, test, device, path, loss_func, classes, fix)

    def wrap(self, dl: Any) -> DeviceDataLoader:
        """`dl` as a DeviceDataLoader (which is left as it is), without the transforms of this data's own batches."""
        return dl if isinstance(dl, DeviceDataLoader) else DeviceDataLoader(dl, self.device)

    @property
    def dls(self) -> list[DeviceDataLoader]:
        """Every loader there is."""
        return [dl for dl in (self.train_dl, self.valid_dl, self.test_dl, self.fix_dl) if dl is not None]

    def dl(self, ds_type: DatasetType = DatasetType.Valid) -> DeviceDataLoader:
        """The loader of that kind; ValueError if there is none."""
        kind = DatasetType(ds_type).value
        dl: DeviceDataLoader | None = getattr(self, f"{kind}_dl")
        if dl is None:
            raise ValueError(f"there is no {kind} data")
        return dl

    @property
    def train_ds(self) -> Any:
        """The training dataset, where the loader names one."""
        return self.train_dl.dataset

    @property
    def valid_ds(self) -> Any:
        """The validation dataset, or None."""
        return self.valid_dl.dataset if self.valid_dl else None

    @property
    def test_ds(self) -> Any:
        """The test dataset, or None."""
        return self.test_dl.dataset if self.test_dl else None

    @property
    def batch_size(self) -> int | None:
        """Samples in a full training batch, where the loader says so."""
        return self.train_dl.batch_size

    @property
    def c(self) -> int:
        """Number of classes; AttributeError where the data does not know them."""
        if self.classes is None:
            raise AttributeError("this data does not know its classes: give DataBunch the argument classes=")
        return len(self.classes)

    @property
    def prepares(self) -> dict[str, Any]:
        """What a model that was trained on this data relies on, in plain values: the classes."""
        return {"classes": self.classes}

    @property
    def empty_val(self) -> bool:
        """Whether there is nothing to validate on."""
        return self.valid_dl is None or _length(self.valid_dl) == 0

    def one_batch(self, ds_type: DatasetType = DatasetType.Train, detach: bool = True, denorm: bool = True,
                  cpu: bool = True) -> Batch:
        """The first batch (x, y) of the coming pass; the loader's position and the generators stay as they are."""
        dl = self.dl(ds_type)
        state = dl.state_dict()
        with generators_kept(), torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            x, y = next(iter(dl))
        dl.load_state_dict(state)
        if denorm:
            x = self.denorm(x)
        return to_detach((x, y), cpu) if detach else (x, y)

    def denorm(self, x: Any) -> Any:
        """Inputs as they were before they were normalised."""
        return x

    def prepare_item(self, item: Any) -> Tensor:
        """A single input, as the dataset gives it, as a batch of one that the model can take."""
        if not isinstance(item, Tensor):
            raise TypeError(f"one input must be a tensor, not {type(item).__name__}")
        return self._prepared(item)

    def _prepared(self, item: Tensor) -> Tensor:
        x: Tensor = (self.valid_dl or self.train_dl).prepare((item[None], torch.zeros(1, dtype=torch.long)))[0]
        return x

    def add_tfm(self, tfm: Callable[[Batch], Batch]) -> None:
        """All batches go through `tfm` too, a function of a batch (x, y) on the device."""
        for dl in self.dls:
            dl.add_tfm(tfm)

    def remove_tfm(self, tfm: Callable[[Batch], Batch]) -> None:
        """Undo `add_tfm`."""
        for dl in self.dls:
            dl.remove_tfm(tfm)

    def __repr__(self) -> str:
        train, valid = (0 if dl is None else _length(dl) or "unknown" for dl in (self.train_dl, self.valid_dl))
        told = f"batches to train on: {train}, to validate on: {valid}, on {self.device}"
        if self.classes is not None:
            told += f", {len(self.classes)} classes: {', '.join(map(str, self.classes[:9]))}{', ...' * (self.c > 9)}"
        return f"{type(self).__name__}({told})"


def _length(dl: DeviceDataLoader) -> int | None:
    """The number of batches, or None: a torch DataLoader over a stream has a `__len__` that raises."""
    try:
        return len(dl)
    except TypeError:
        return None
