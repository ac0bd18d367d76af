"""`DataBunch`: training, validation and test batches, and what is known of them."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from .arrays import as_inputs, as_targets, batch_of_one, fitting_loss, rows_at_random
from .checks import as_path, did_you_mean
from .device_loader import DeviceDataLoader, concrete_device, default_device
from .loaders import Batch, Loader, TensorLoader, ToPair, generators_kept, make_loader, require_batch, seed_or_drawn
from .samplers import use_sampler
from .streams import StreamLoader
from .utils import batch_length, joined, to_detach, to_device
from .workers import Collate

__all__ = ["DatasetType", "DataBunch"]


class DatasetType(Enum):
    """Which data: `Fix` is the training data in order, whole, and prepared as for validation.

    >>> DatasetType("valid") is DatasetType.Valid
    True
    """

    Train, Valid, Test, Fix = "train", "valid", "test", "fix"

    @classmethod
    def _missing_(cls, value: object) -> None:
        names = [kind.value for kind in cls]
        raise ValueError(f"there is no {value!r} data; there can be {', '.join(names)}."
                         + did_you_mean(str(value), names))


class DataBunch:
    """Training, validation and test batches, the device they go to, and what is known of them.

    train_dl, valid_dl, fix_dl, test_dl: iterables of batches (inputs, targets), or functions that return one, such as
        generator functions: see `DeviceDataLoader`. `fix_dl` is the training data in order, see `DatasetType`; None:
        there is none.
    device: where batches go; None: the GPU if there is one.
    dl_tfms: functions of a batch (x, y) on the device that return one; all batches go through them.
    path: the folder of a learner's files.
    loss_func: the loss that fits the targets; None: the learner is given one.
    classes: the names of the classes, by index; None: not known, or there are none.
    to_pair: makes (inputs, targets) of a batch as the loaders give it; None: batches of two, or dicts with "labels".
    n_batches: the training batches of an epoch, which goes on where the last one stopped (see `StreamLoader`): for
        data without an end or a length; None: an epoch is a pass over `train_dl`.
    sampler: which training samples an epoch takes: "balanced", a weight for each, ... (see `use_sampler`); None: all.

    Inputs in a dict go to the model by name, those in a list or tuple by position: see `run_model`. TypeError or
    ValueError that says what to do for what gives no batches.

    >>> def stream():
    ...     while True: yield torch.randn(8, 2), torch.zeros(8, dtype=torch.long)
    >>> len(DataBunch(stream, n_batches=100).train_dl)
    100
    """

    thresh = 0.5    # the probability above which a label is given, where nothing else is said

    def __init__(self, train_dl: Any, valid_dl: Any = None, fix_dl: Any = None, test_dl: Any = None,
                 device: torch.device | str | None = None, dl_tfms: Any = None, *, path: Path | str = ".",
                 loss_func: Callable[..., Any] | None = None, classes: Sequence[Any] | None = None,
                 to_pair: ToPair | None = None, n_batches: int | None = None, sampler: Any = None) -> None:
        self.device = default_device() if device is None else concrete_device(device)

        def prepared(dl: Any) -> DeviceDataLoader:
            return dl if isinstance(dl, DeviceDataLoader) else DeviceDataLoader(dl, self.device, dl_tfms, to_pair)

        self.train_dl = prepared(train_dl)
        if sampler is not None:
            use_sampler(self.train_dl.dl, sampler)
        if n_batches is not None:
            self.train_dl.dl = StreamLoader(self.train_dl.dl, n_batches)
        self.valid_dl, self.fix_dl, self.test_dl = (None if dl is None else prepared(dl)
                                                    for dl in (valid_dl, fix_dl, test_dl))
        self.path, self.loss_func = as_path("path", path), loss_func
        if isinstance(classes, (str, bytes)) or not isinstance(classes, Iterable | None):
            raise TypeError(f"classes must be a list of names, not {classes!r}")
        self.classes = None if classes is None else [c.item() if isinstance(c, np.generic) else c for c in classes]
        if self.train_dl.length == 0 and not getattr(self.train_dl.dl, "may_be_empty", False):
            raise ValueError("the training data is empty: there is not one batch to train on")

    @classmethod
    def create(cls, train_ds: Any, valid_ds: Any = None, test_ds: Any = None, path: Path | str = ".", bs: int = 64,
               val_bs: int | None = None, num_workers: int = 0, device: torch.device | str | None = None,
               drop_last: bool = True, seed: int | None = None, loss_func: Callable[..., Any] | None = None,
               classes: Sequence[Any] | None = None, collate_fn: Collate | None = None, dl_tfms: Any = None,
               to_pair: ToPair | None = None, n_batches: int | None = None, sampler: Any = None) -> DataBunch:
        """From data sets: training data in a new order each pass, validation and test data in theirs.

        train_ds, valid_ds, test_ds: data sets of samples (inputs, target), or of dicts with "labels"; None: there is
            none. A TensorDataset, or a Subset of one, is cut by indexing, all other sets are collated sample by sample.
            Of a TensorDataset the last tensor holds the targets, several others several inputs of the model; for tests
            one tensor will do. An IterableDataset needs `n_batches`.
        bs, val_bs: samples in a batch for training, and where nothing is learned (None: `bs`).
        num_workers: processes that make the batches; 0: this process. (What is cut by indexing needs none.)
        drop_last: whether a last training batch that is not full is left out.
        seed: fixes every order; None draws one. collate_fn: makes a batch of samples; None: torch's default_collate.
        path, device, loss_func, classes, dl_tfms, to_pair, n_batches, sampler: see the class.

        ValueError if not one training batch is left, TypeError for what is no data set.

        >>> x, y = torch.randn(10, 3), torch.randn(10)
        >>> data = DataBunch.create(torch.utils.data.TensorDataset(x, x[:, :1], y), bs=4)
        >>> [part.shape for part in data.one_batch()[0]]
        [torch.Size([4, 3]), torch.Size([4, 1])]
        """
        seed = seed_or_drawn(seed)  # once: the order of training must not depend on which other sets there are

        def dl(dataset: Any, bs: int, train: bool = False) -> DeviceDataLoader:
            made = make_loader(dataset, bs, train, train and drop_last, seed, num_workers, collate_fn, to_pair)
            if train and isinstance(made, Loader):
                require_batch(made)
            return DeviceDataLoader(made, device, dl_tfms, None if isinstance(made, Loader) else to_pair)

        val_bs = bs if val_bs is None else val_bs
        stream = isinstance(train_ds, IterableDataset)
        if stream and n_batches is None:
            raise TypeError(f"a {type(train_ds).__name__} has no end that is known: give n_batches=, the number of "
                            "batches in an epoch")
        valid, test, fix = (None if ds is None else dl(ds, val_bs)
                            for ds in (valid_ds, test_ds, None if stream else train_ds))
        return cls(dl(train_ds, bs, train=True), valid, fix, test, device, path=path, loss_func=loss_func,
                   classes=classes, n_batches=n_batches, sampler=sampler)

    @classmethod
    def from_arrays(cls, x: Any, y: Any, valid: tuple[Any, Any] | None = None, test: Any = None, valid_pct: float = 0.2,
                    seed: int | None = None, bs: int = 64, val_bs: int | None = None, drop_last: bool = True,
                    loss_func: Callable[..., Any] | None = None, classes: Sequence[Any] | None = None,
                    **kwargs: Any) -> DataBunch:
        """From arrays, tensors or data frames in memory, as tensors of the types that a model and its loss need.

        x: the inputs, a row for each sample: see `as_inputs`. A tuple or dict holds several inputs of the model.
        y: the targets, a row for each sample: see `as_targets`. Strings become classes.
        valid: inputs and targets to validate on, (x, y); None: this part of the rows, drawn at random: `valid_pct` (0:
            there is none).
        test: inputs without targets; None: there are none.
        loss_func: None: cross entropy for classes and whole numbers, mean squared error for floats, binary cross
            entropy for rows of 0.0 and 1.0.
        seed, bs, val_bs, drop_last, classes, kwargs: see `create` and the class.

        TypeError or ValueError that names what holds no numbers, is missing or does not fit.

        >>> data = DataBunch.from_arrays(np.random.rand(50, 3), ["no", "yes"] * 25, bs=8)
        >>> data.classes, len(data.train_ds), len(data.valid_ds), data.one_batch()[0].dtype
        (['no', 'yes'], 40, 10, torch.float32)
        """
        seed, x = seed_or_drawn(seed), as_inputs(x)
        y, classes = as_targets(y, loss_func, classes)
        val_bs = bs if val_bs is None else val_bs
        train_rows = valid_rows = None
        if valid is None and valid_pct:
            train_rows, valid_rows = rows_at_random(batch_length(y), valid_pct, seed)
        train, fix = (TensorLoader(x, y, n, shuffle, shuffle and drop_last, seed, rows=train_rows)
                      for n, shuffle in ((bs, True), (val_bs, False)))
        valid_dl = test_dl = None
        if valid_rows is not None:
            valid_dl = TensorLoader(x, y, val_bs, seed=seed, rows=valid_rows)
        elif valid is not None:
            valid_x, valid_y = valid
            valid_dl = TensorLoader(as_inputs(valid_x), as_targets(valid_y, loss_func, classes)[0], val_bs, seed=seed)
        if test is not None:
            test = as_inputs(test)
            test_dl = TensorLoader(test, torch.zeros(batch_length(test)), val_bs, seed=seed)
        loss_func = loss_func or fitting_loss(y)
        return cls(require_batch(train), valid_dl, fix, test_dl, loss_func=loss_func, classes=classes, **kwargs)

    def wrap(self, dl: Any) -> DeviceDataLoader:
        """Batches of another origin as a DeviceDataLoader (one that is one already is left unchanged), without the
        transforms of this data's own batches. A data set is cut into batches as for validation."""
        if isinstance(dl, DeviceDataLoader):
            return dl
        if isinstance(dl, Dataset) and not isinstance(dl, IterableDataset):
            like = self._as_for_validation
            return DeviceDataLoader(make_loader(dl, like.batch_size or 64, seed=0), self.device, like.tfms)
        return DeviceDataLoader(dl, self.device)

    @property
    def _as_for_validation(self) -> DeviceDataLoader:
        return next(dl for dl in (self.valid_dl, self.fix_dl, self.train_dl) if dl is not None)

    def test_on(self, items: Any, bs: int | None = None) -> DeviceDataLoader:
        """Batches of new inputs, prepared as for validation, in their order; they have no targets, so these are 0.

        items: an array, tensor or data frame with a row for each sample, a tuple or dict of such, or a list of samples.
        bs: the batch size; None: that of validation.

        >>> preds, _ = fake_learner().get_preds(dl=np.zeros((3, 5)))
        >>> preds.shape
        torch.Size([3, 4])
        """
        if isinstance(items, list) and not items:
            raise ValueError("there is not one sample to predict on")
        x = joined([batch_of_one(item) for item in items]) if isinstance(items, list) else as_inputs(items)
        like = self._as_for_validation
        dl = TensorLoader(x, torch.zeros(batch_length(x), dtype=torch.long), bs or like.batch_size or 64, seed=0)
        return DeviceDataLoader(dl, self.device, like.tfms)

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
        return None if self.valid_dl is None else self.valid_dl.dataset

    @property
    def test_ds(self) -> Any:
        """The test dataset, or None."""
        return None if self.test_dl is None else self.test_dl.dataset

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
        return self.valid_dl is None or self.valid_dl.length == 0

    def one_batch(self, ds_type: DatasetType = DatasetType.Train, detach: bool = True, denorm: bool = True,
                  cpu: bool = True) -> Batch:
        """The first batch (x, y) of the coming pass; the loader's position and the generators stay as they are."""
        state = (dl := self.dl(ds_type)).state_dict()
        with generators_kept(), torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            x, y = next(iter(dl))
        dl.load_state_dict(state)
        batch = self.denorm(x) if denorm else x, y
        return to_detach(batch, cpu) if detach else batch

    def denorm(self, x: Any) -> Any:
        """Inputs as they were before they were normalised."""
        return x

    def prepare_item(self, item: Any) -> Any:
        """One sample's inputs, as the data set gives them, as a batch of one that the model can take."""
        return self._prepared(batch_of_one(item))

    def _prepared(self, x: Any) -> Any:
        y = torch.zeros(1, dtype=torch.long, device=self.device)
        return self._as_for_validation.transform(to_device(x, self.device), y)[0]

    def augmented_dls(self, ds_type: DatasetType, scale: float) -> list[DeviceDataLoader]:
        """The batches of that kind as several views of each sample, for `Learner.TTA`; ValueError if there are none."""
        raise ValueError("test-time augmentation needs pictures with transforms, an ImageDataBunch with ds_tfms=; or "
                         "give TTA loaders of your own, dls=[loader] * 8")

    def add_tfm(self, tfm: Callable[[Batch], Batch]) -> None:
        """All batches go through `tfm` too, a function of a batch (x, y) on the device."""
        for dl in self.dls:
            dl.add_tfm(tfm)

    def remove_tfm(self, tfm: Callable[[Batch], Batch]) -> None:
        """Undo `add_tfm`."""
        for dl in self.dls:
            dl.remove_tfm(tfm)

    def __repr__(self) -> str:
        n = [0 if dl is None else dl.length for dl in (self.train_dl, self.valid_dl)]
        train, valid = ("unknown" if length is None else length for length in n)
        text = f"batches to train on: {train}, to validate on: {valid}, on {self.device}"
        if self.classes is not None:
            text += f", {len(self.classes)} classes: {', '.join(map(str, self.classes[:9]))}{', ...' * (self.c > 9)}"
        return f"{type(self).__name__}({text})"
