"""A trained learner as one file for use elsewhere: `Learner.export`; `load_learner` in `exported.py` reads it."""
from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .callbacks.channels_last import ChannelsLast
from .callbacks.precision import MixedPrecision
from .checks import as_path, few_of, number, short
from .data import DataBunch
from .distributed import once
from .files import save_file
from .layers import initialise_lazy
from .losses import class_axis, loss_activation, task_of
from .program import Program, filled
from .sharded import is_sharded
from .tracing import repeated, trace
from .utils import batch_length, is_plain, listify, run_model, tensors_in, to_device

__all__ = ["EXPORT", "VERSION", "ExportedLoss", "export_learner", "in_eval_mode", "probed"]

EXPORT = "a learner exported by minifast"   # what a file says it is
VERSION = 1     # goes up when an older minifast could not make sense of a new file
SUFFIXES = {"minifast": ".mf", "onnx": ".onnx"}

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {"none": lambda x, axis: x, "softmax": lambda x, axis: x.softmax(axis),
                                                 "sigmoid": lambda x, axis: x.sigmoid(), "exp": lambda x, axis: x.exp()}
TASKS = ("classes", "labels", "quantities", None)


class ExportedLoss:
    """In place of the loss of an exported learner: how outputs become predictions. It computes no loss.

    task: "classes", "labels", "quantities" or None, see `task_of`.
    axis: along which a batch's outputs have the classes.
    activation: "softmax", "sigmoid", "exp" or "none".

    >>> ExportedLoss("classes", 1, "softmax").activation(torch.zeros(1, 2))
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, task: str | None, axis: int, activation: str) -> None:
        if task not in TASKS or activation not in ACTIVATIONS or type(axis) is not int:
            raise ValueError(f"there is no loss of the task {short(task)}, axis {short(axis)}, activation "
                             f"{short(activation)}")
        self.task, self.axis = task, axis
        self.activation = partial(ACTIVATIONS[activation], axis=axis)

    def __call__(self, output: Any, target: Any) -> Tensor:
        raise ValueError(f"{self!r}: set learn.loss_func to one")

    def __repr__(self) -> str:
        return "the loss of an exported learner, which is not in its file"


def export_learner(learn: Any, file: Path | str | None = None, thresh: float | None = None, program: bool = True,
                   format: str = "minifast") -> Path:
    """Write all that predictions need to one file, which `load_learner(file)` reads without data and source code.

    learn: the learner.
    file: its path; None: `export.mf` in the learner's folder.
    thresh: the probability above which a label is given; None: 0.5.
    program: whether the model's computation is in it, as `torch.export` sees it in eval mode, for batches of any
        length; with False `load_learner` needs the `model`.
    format: "minifast"; or "onnx", for other programs (extra `minifast[onnx]`): the model without its data, checked with
        onnxruntime; what else there is goes into the file's metadata.

    In it are weights, classes, size and normalisation of pictures, and the threshold: tensors and plain values, with a
    checksum. Returns the path. Of several processes the first one writes. ValueError that names the part that cannot be
    in a file; nothing is written then.

    >>> fake_learner().export("a.mf").name
    'a.mf'
    """
    if format not in SUFFIXES:
        raise ValueError(f"format must be one of {', '.join(map(repr, SUFFIXES))}, not {format!r}")
    if any(map(is_sharded, learn.model.parameters())):
        raise ValueError("the model's parameters are spread over processes, and a file needs them whole: learn.save(), "
                         "and export from a learner of one process that loads it")
    path = Path(learn.path) / f"export{SUFFIXES[format]}" if file is None else as_path("file", file)
    initialise_lazy(learn)
    content, x = described(learn, thresh), _example(learn)
    if format == "onnx":
        from .onnx_file import write_onnx
        once(learn, lambda: write_onnx(learn, path, x, content), shared=False)
        return path
    content["weights"] = learn.model.state_dict()
    content["program"] = trace(learn.model, x) if program else None
    with in_eval_mode(learn.model):
        content["loss"] = _loss_in_words(learn.loss_func, run_model(learn.model, x))
        content["probe"] = _checked(learn.model, x, content) if program else None
    once(learn, lambda: save_file(content, path), shared=False)
    return path


def described(learn: Any, thresh: float | None) -> dict[str, Any]:
    """All that the file says but weights and program, in plain values; ValueError for what is code."""
    data = learn.data
    thresh = data.thresh if thresh is None else number("thresh", thresh)
    kinds = {type(cb) for cb in listify(learn.callbacks)}
    precision = next((cb.precision for cb in listify(learn.callbacks) if isinstance(cb, MixedPrecision)), None)
    content = {"what": EXPORT, "version": VERSION, "torch": str(torch.__version__), "data": _recipe(data),
               "thresh": thresh, "precision": precision, "channels_last": ChannelsLast in kinds}
    if not is_plain(content):
        raise ValueError(f"only plain values can be in a file, and the classes are {short(data.classes)}: make them "
                         "strings or numbers")
    return content


def _recipe(data: DataBunch) -> dict[str, Any]:
    own: Any = getattr(data, "recipe", None)
    if own is not None:
        recipe: dict[str, Any] = own()
        return recipe
    kind = type(data)
    if kind.test_on is not DataBunch.test_on or kind.prepare_item is not DataBunch.prepare_item:
        raise ValueError(f"a {kind.__name__} prepares samples by code of its own, which cannot be in a file: export "
                         "the learner of a plain DataBunch, or learn.save() and load it into a learner made alike")
    like = data._as_for_validation
    if like.tfms:
        raise ValueError(f"batches go through {few_of(map(str, like.tfms), 'functions')} of your own, which are code "
                         "and cannot be in a file: let the model do it")
    return {"kind": "arrays", "classes": data.classes, "bs": like.batch_size or 64}


def _example(learn: Any) -> Any:
    """Inputs of a batch, as the model gets them."""
    data = learn.data
    if data.train_dl.length == 0:
        if getattr(data, "size", None) is None:
            raise ValueError("data without samples does not say what the model takes: export from data that has some")
        x: Any = data.prepare_item(torch.zeros(3, *data.size))
    else:
        x, _ = data.one_batch("valid" if data.valid_dl is not None else "train", detach=False, denorm=False, cpu=False)
    for cb in listify(learn.callbacks):
        if isinstance(cb, ChannelsLast):
            x = cb.on_batch_begin(x)["last_input"]
    return x


@contextlib.contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode and there are no gradients; modes are as before afterwards."""
    flags = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in flags:
            m.training = training


def _checked(model: nn.Module, x: Any, content: dict[str, Any]) -> list[Tensor]:
    """Compute the program beside the model for one, two and more samples, and return its outputs for `probe`."""
    program, apart = content["program"], 0.0
    made = Program(program, content["weights"])
    for n in (1, 2, max(5, batch_length(x))):
        some = filled(program["example"], repeated(x, n))
        for mine, theirs in zip(*(tensors_in(run_model(m, some)) for m in (model, made)), strict=True):
            apart = max(apart, _apart(mine, theirs))
    if apart > 1e-3:
        raise ValueError(f"the exported program's outputs differ from the model's, by up to {apart:.2g} of their size: "
                         "does it draw random numbers, or go by the values of its inputs, in eval mode?")
    if apart:
        warnings.warn(f"the exported program rounds in other places than the model, by up to {apart:.1g} of the "
                      "outputs' size: torch computes some layers, such as MultiheadAttention, by a shortcut of which "
                      "torch.export knows nothing")
    return probed(program, content["weights"])


def probed(program: dict[str, Any], weights: dict[str, Any]) -> list[Tensor]:
    """What the program computes of `probe` on the CPU."""
    on_cpu = Program(to_device(program, "cpu"), {name: value.detach().cpu() for name, value in weights.items()})
    return [t.clone() for t in tensors_in(run_model(on_cpu, probe(program)))]


def _apart(a: Tensor, b: Tensor) -> float:
    """How far two tensors differ, by the largest value in them; 0 exactly if they are equal."""
    if a.shape != b.shape:
        return float("inf")
    if a.equal(b) or not a.numel():
        return 0.0
    a, b = a.double(), b.double()
    difference = (a - b).abs().nan_to_num(0, 0, 0).max()
    return max(float(difference / a.nan_to_num(0, 0, 0).abs().max().clamp_min(1e-12)), 1e-12)


def _loss_in_words(loss_func: Any, output: Any) -> dict[str, Any]:
    """The arguments of `ExportedLoss` for this loss; ValueError if its activation is other code."""
    own, axis, task = loss_activation(loss_func), class_axis(loss_func), task_of(loss_func)
    if not isinstance(output, Tensor):
        return {"task": task, "axis": axis, "activation": "none"}
    activated = own(output)
    for name, activation in ACTIVATIONS.items():
        if axis in range(-output.ndim, output.ndim) and torch.equal(activation(output, axis), activated):
            return {"task": task, "axis": axis, "activation": name}
    raise ValueError(f"the activation of the loss {short(loss_func)} is code of its own, which cannot be in a file: "
                     "let the model compute it")


def probe(program: dict[str, Any]) -> Any:
    """Inputs of two samples, the same everywhere: what a program computes of them is in the file, and is compared when
    it is read."""
    made = []
    for each in program["inputs"]:
        shape, dtype = (2, *each["shape"]), getattr(torch, each["dtype"])
        n = int(torch.Size(shape).numel())
        values = (torch.arange(n) % 23 - 11).double() / 11 if dtype.is_floating_point else torch.zeros(n)
        made.append(values.to(dtype).reshape(shape))
    return filled(program["example"], made)
