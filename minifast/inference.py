"""What a trained model says: a validation outside of a fit, and predictions."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from . import loop
from .arrays import is_arrays
from .batches import merged
from .callback import Callback, CallbackHandler
from .checks import positive_int
from .columns import as_metrics, state_holders
from .data import DataBunch, DatasetType
from .denominators import unreduced
from .device_loader import DeviceDataLoader
from .exchange import in_turns
from .frames import frames_forgotten
from .losses import class_axis, loss_activation, task_of
from .progress import Progress
from .snapshot import preserved
from .state import Changes, State
from .utils import joined, listify, shape_of, tensors_in, to_detach

__all__ = ["Category", "MultiCategory", "predicted_classes"]


class Category(str):
    """The name of a class, with `obj`, the name, and `data`, its index, as a tensor.

    >>> cat = Category("cat", torch.tensor(3))
    >>> cat == "cat", cat.data
    (True, tensor(3))
    """

    obj: str
    data: Tensor

    def __new__(cls, name: str, data: Tensor) -> Category:
        new = super().__new__(cls, name)
        new.obj, new.data = name, data
        return new

    def __getnewargs__(self) -> tuple[str, Tensor]:     # type: ignore[override]
        return self.obj, self.data


class MultiCategory(list[Any]):
    """The names of several classes, with `obj`, the list, and `data`, (number of classes,) with 1 for each of them.

    >>> MultiCategory(["sea", "sun"], torch.tensor([1., 0., 1.]))
    ['sea', 'sun']
    """

    def __init__(self, names: Sequence[Any] = (), data: Tensor | None = None) -> None:
        super().__init__(names)
        self.obj, self.data = list(names), data


@frames_forgotten
def run_validation(learn: Any, dl: Any, metrics: Sequence[Any], callbacks: Any = None, view: Any = None,
                   n_batch: int | None = None) -> State:
    """One pass over `dl` in eval mode, with these callbacks too, and its state; the learner is left as it was.

    `view` takes the learner's place in the loop. `n_batch`: where several processes share the pass, how many batches.
    """
    kept = [*listify(learn.callbacks), *state_holders(as_metrics(metrics))]
    with preserved(learn, kept, weights=False):
        return _one_pass(learn, dl, metrics, callbacks, view, n_batch)


def _one_pass(learn: Any, dl: Any, metrics: Sequence[Any], callbacks: Any, view: Any, n_batch: int | None) -> State:
    state = State(metrics=list(metrics), train=False, pbar=Progress(1, silent=True))
    handler = CallbackHandler(learn.taking_part(callbacks, in_fit=False), as_metrics(metrics, learn.loss_func),
                              state)
    with in_turns(learn, handler, dl, n_batch), handler.running():
        loop.validate(view or learn, handler, dl)
    return state


def loader_for(data: DataBunch, ds_type: Any, dl: Any = None) -> DeviceDataLoader:
    """The batches to predict on: those of a kind of data, or of what is given as `dl`, also in the first place.

    Of the training data it is the loader that is in order and whole, where there is one. Of `dl`, loaders, data sets,
    functions and lists of pairs give batches; all else is new inputs: see `DataBunch.test_on`.
    """
    if dl is None and isinstance(ds_type, (DatasetType, str)):
        kind = DatasetType(ds_type)
        return data.dl(DatasetType.Fix if kind is DatasetType.Train and data.fix_dl is not None else kind)
    given = ds_type if dl is None else dl
    if isinstance(given, (list, tuple)):
        batches = len(given) > 0 and all(isinstance(part, (list, tuple)) and len(part) == 2 for part in given)
    else:
        inputs = isinstance(given, (str, Mapping, os.PathLike)) or is_arrays(given)
        batches = callable(given) or isinstance(given, (Iterable, Dataset)) and not inputs
    return data.wrap(given) if batches else data.test_on(given)


def predictions(learn: Any, dl: Any, activ: Callable[[Any], Any] | None = None, with_loss: bool = False,
                n_batch: int | None = None, run: Callable[..., State] = run_validation,
                with_outputs: bool = False) -> list[Any]:
    """[predictions, targets, losses, outputs] of every sample of `dl`, on the CPU.

    activ: makes predictions of a batch's outputs; None: what belongs to the loss, for outputs that are one tensor.
    with_loss: whether losses are wanted; else they are 0.
    n_batch: only of the first batches; None: of all.
    with_outputs: whether the outputs before `activ` are wanted; else they are 0, and take no memory.

    What differs in size from batch to batch comes as a list with one tensor for each sample. ValueError if there is not
    one batch.
    """
    if activ is None:
        own, known = loss_activation(learn.loss_func), task_of(learn.loss_func) is not None
        activ = lambda output: own(output) if isinstance(output, Tensor) or not known else output
    collect = _Collect(unreduced(learn.loss_func) if with_loss else _no_loss, activ,
                       None if n_batch is None else positive_int("n_batch", n_batch), with_outputs)
    bare = SimpleNamespace(model=learn.model, parallel=None, loss_func=_no_loss)  # the targets of test data are none
    run(learn, dl, [], collect, bare, collect.n_batch)
    kept = collect.kept if n_batch == 1 else merged(learn, collect.kept)
    if not kept:
        raise ValueError("there is not one batch to predict on")
    outputs, targets, losses, preds = joined(kept)
    return [preds, targets, losses, outputs]


def prediction(learn: Any, item: Any, thresh: float | None = None) -> tuple[Any, Any, Any]:
    """(value, value as a tensor, activated output) of one sample: see `Learner.predict`."""
    thresh = learn.data.thresh if thresh is None else thresh
    dl = learn.data.wrap([(learn.data.prepare_item(item), torch.zeros(1))])
    preds, _, _, outputs = predictions(learn, dl, n_batch=1, with_outputs=True)
    pred, output = _first(preds), _first(outputs)
    if not isinstance(pred, Tensor):
        return pred, pred, output
    value, index = _decoded(pred, learn.loss_func, learn.data.classes, thresh)
    return value, index, output if index is pred else pred


def predicted_classes(preds: Tensor, loss_func: Any, thresh: float = 0.5) -> Tensor:
    """The classes that activated outputs stand for, by the loss.

    preds: activated outputs (n, ...).
    loss_func: of a classifier's loss the largest output along the class axis; of a binary one's each output that is
        above `thresh`: (n,) of 0 and 1 for one output a sample, else 0 and 1 in the outputs' shape.
    thresh: see `loss_func`.

    ValueError where the loss is for quantities, or not known and the outputs are not (n, classes).

    >>> predicted_classes(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), CrossEntropyFlat())
    tensor([1, 0])
    >>> predicted_classes(torch.tensor([[0.3], [0.8]]), BCEWithLogitsFlat())
    tensor([0, 1])
    """
    task = task_of(loss_func)
    if not isinstance(preds, Tensor):
        raise ValueError(f"classes are read off outputs that are one tensor, not {shape_of(preds)}: give a model with "
                         "one output, or take learn.get_preds()")
    if task == "classes":
        return preds.argmax(class_axis(loss_func))
    if task == "labels":
        above = (preds > thresh).long()
        return above.reshape(len(preds)) if above.numel() == len(preds) else above
    if task is None and preds.ndim == 2 and preds.shape[1] > 1:
        return preds.argmax(1)
    name = getattr(loss_func, "__name__", type(loss_func).__name__)
    raise ValueError(f"the outputs, of shape {tuple(preds.shape)}, are "
                     f"{'quantities' if task else 'of an unknown kind'} (the loss is {name}) and no classes")


def _decoded(pred: Tensor, loss_func: Any, classes: Sequence[Any] | None, thresh: float) -> tuple[Any, Tensor]:
    """(value, value as a tensor) of one sample's activated output."""
    task = task_of(loss_func)
    if task == "quantities" or task is None and (classes is None or pred.shape != (len(classes),)):
        return (float(pred) if pred.numel() == 1 and not pred.is_complex() else pred), pred
    index = predicted_classes(pred[None], loss_func, thresh)[0]
    if task == "labels" and (index.ndim == 1 or index.ndim == 0 and classes is not None and len(classes) == 1):
        index = index.reshape(-1).float()
        _check_classes(classes, len(index))
        names = range(len(index)) if classes is None else classes
        return MultiCategory([name for name, yes in zip(names, index.tolist(), strict=True) if yes], index), index
    if index.ndim:
        return index, index     # a map: a class for each position
    _check_classes(classes, 2 if task == "labels" else pred.numel())
    name = int(index) if classes is None else classes[int(index)]
    return (Category(name, index) if isinstance(name, str) else name), index


def _check_classes(classes: Sequence[Any] | None, n: int) -> None:
    if classes is not None and len(classes) != n:
        raise ValueError(f"the model's outputs are for {n} classes, and the data has {len(classes)}: "
                         f"{list(classes)[:20]}")


def augmented_predictions(learn: Any, ds_type: Any, dls: Any, beta: float | None, activ: Any,
                          with_loss: bool) -> list[Any]:
    """Plain predictions averaged with those of other views of the same samples: see `Learner.TTA`."""
    if beta is not None and not 0 <= beta <= 1:
        raise ValueError(f"beta is the weight of the plain predictions, from 0 to 1, or None, not {beta}")
    plain, targets, losses, _ = predictions(learn, loader_for(learn.data, ds_type), activ, with_loss)
    if not isinstance(plain, Tensor):
        raise TypeError(f"predictions that are {shape_of(plain)} cannot be averaged: give activ=, a function that "
                        "makes one tensor of a batch's outputs")
    total, n = torch.zeros_like(plain), 0
    positions = [(dl, dl.state_dict()) for dl in dls]
    with preserved(learn, listify(learn.callbacks), weights=False):     # once, so that every pass draws on
        for dl in dls:
            found, its_targets, *_ = predictions(learn, dl, activ, run=_one_pass)
            if found.shape != plain.shape or not _equal(its_targets, targets):
                raise ValueError("the passes to average have other samples than the plain one, or another order: give "
                                 "loaders that do not shuffle")
            total, n = total + found, n + 1
    for dl, position in positions:
        dl.load_state_dict(position)
    mean = total / n
    averaged = [plain, mean] if beta is None else [torch.lerp(mean, plain, beta)]
    return [*averaged, targets, *[losses] * with_loss]


def _equal(a: Any, b: Any) -> bool:
    mine, theirs = tensors_in(a), tensors_in(b)
    return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))


def _first(x: Any) -> Any:
    """The first sample of a batch of outputs."""
    if isinstance(x, Tensor):
        return x[0] if x.ndim else x
    if isinstance(x, Mapping):
        return {key: _first(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        if isinstance(x, list) and x and isinstance(x[0], Mapping):
            return x[0]
        firsts = [_first(part) for part in x]
        return type(x)(*firsts) if hasattr(x, "_fields") else type(x)(firsts)
    return x


class _Collect(Callback):
    """Keeps outputs, targets, losses (by `loss_func`) and predictions of a validation, on the CPU."""

    def __init__(self, loss_func: Callable[..., Tensor], activ: Callable[[Any], Any], n_batch: int | None,
                 with_outputs: bool) -> None:
        self.loss_func, self.activ, self.n_batch, self.with_outputs = loss_func, activ, n_batch, with_outputs
        self.kept: list[Any] = []

    def on_batch_end(self, last_output: Any, last_target: Any) -> Changes | None:
        losses = self.loss_func(last_output, *listify(last_target))  # here, where a loss with weights has them
        output, target, losses = to_detach((last_output, last_target, losses))
        preds = to_detach(self.activ(output))
        self.kept.append((output if self.with_outputs else torch.zeros(()), target, losses, preds))
        return {"stop_epoch": len(self.kept) == self.n_batch}


def _no_loss(*args: Any) -> Tensor:
    return torch.zeros(())
