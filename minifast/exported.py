"""`load_learner`: a learner from the file that `Learner.export` wrote, without its data and its model's source."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import device_loader
from .checks import as_path, flag, number, short
from .data import DataBunch
from .device_loader import DeviceDataLoader
from .export import EXPORT, VERSION, ExportedLoss, probed
from .files import RUN, load_file
from .frames import frames_forgotten
from .learner import Learner
from .loaders import NoData
from .program import Program
from .weights import misfit

__all__ = ["load_learner"]

CLOSE = 1e-2    # a probe on another processor, or with another torch, differs by rounding: far less than this


@frames_forgotten
def load_learner(path: Path | str, file: Path | str | None = None, test: Sequence[Any] | None = None,
                 model: nn.Module | None = None, device: torch.device | str | None = None) -> Learner:
    """A learner for predictions from a file that `Learner.export` wrote; it has no data and cannot be trained.

    path: the file; or a folder, with `file` in it (None: "export.mf").
    test: new samples to be the test data, see `DataBunch.test_on`; None: there are none.
    model: that gets the weights, for a file that was written with `program=False`.
    device: to predict on; None: the GPU if there is one.

    `predict` and `get_preds(files)` give what the exported learner gave: on the same machine, device and number of
    threads bit for bit. (`TTA` varies pictures by zooms and flips alone: the transforms for training are not in the
    file.) Reading runs no code from the file. What the program computes of a few numbers is compared with what it did
    when it was written.

    FileNotFoundError if there is no such file; ValueError that names it if it is damaged, of a newer minifast, or
    something else; RuntimeError if its weights do not fit `model`.

    >>> learn = fake_learner()
    >>> loaded = load_learner(learn.export("a.mf"))
    >>> torch.equal(loaded.predict(torch.ones(5))[2], learn.predict(torch.ones(5))[2])
    True
    """
    path = as_path("path", path)
    if file is not None or path.is_dir():
        path = path / (file or "export.mf")
    content = load_file(path, "cpu")
    if not isinstance(content, dict) or content.get("what") != EXPORT:
        raise ValueError(f"{path} is no exported learner{_instead(content)}")
    if content.get("version") != VERSION:
        raise ValueError(f"{path} has version {short(content.get('version'))} of exported learners, and this minifast "
                         f"reads version {VERSION}: update minifast, or export the learner again")
    try:
        device = device_loader.default_device() if device is None else device_loader.concrete_device(device)
        data = _data(content["data"], path.parent, device)
        data.thresh = number("thresh", content["thresh"])
        loss = content["loss"]
        loss_func = ExportedLoss(loss["task"], loss["axis"], loss["activation"])
        program, weights, precision = content["program"], content["weights"], content["precision"]
        if program is not None:
            _compare(probed(program, weights), content["probe"])
            found: nn.Module = Program(program, weights)
        channels_last = flag("channels_last", content["channels_last"])
        if precision not in (None, "fp16", "bf16"):
            raise ValueError(f"there is no precision {short(precision)}")
    except Exception as e:  # whatever is in the file
        raise ValueError(f"{path} is damaged or was not written by minifast: {type(e).__name__}: {e}") from e
    if program is None:
        if model is None:
            raise ValueError(f"{path} holds no program, only weights: give load_learner a model= that is made as the "
                             "one that was exported")
        found = _loaded(model, weights, path)
    elif model is not None:
        raise ValueError(f"{path} holds its program, and needs no model=")
    learn = Learner(data, found, loss_func=loss_func, silent=True)
    learn.model.eval()
    if precision is not None:
        learn.to_fp16() if precision == "fp16" else learn.to_bf16()
    if channels_last:
        learn.to_channels_last()
    if test is not None:
        data.test_dl = data.test_on(test)
    return learn


def _instead(content: Any) -> str:
    """What a file holds that is something else."""
    if isinstance(content, dict) and content.get("what") == RUN:
        return ": it is the checkpoint of a run, which goes on with learn.fit(..., checkpoint=)"
    if isinstance(content, dict) and ("model" in content or all(isinstance(v, Tensor) for v in content.values())):
        return ": it holds weights, which learn.load reads into a learner that is made alike"
    return ""


def _data(recipe: Any, path: Path, device: torch.device) -> DataBunch:
    # imported here: their packages give `load_learner` too, and neither needs the other
    if recipe["kind"] == "pictures":
        from .vision.data import ImageDataBunch
        from .vision.recipe import from_recipe
        return from_recipe(ImageDataBunch, recipe, path, device)
    if recipe["kind"] == "table":
        from .table_recipe import table_from_recipe
        return table_from_recipe(recipe, path, device)
    if recipe["kind"] != "arrays":
        raise ValueError(f"this minifast knows no data of the kind {short(recipe['kind'])}")
    return DataBunch(DeviceDataLoader(NoData(recipe["bs"]), device), device=device, path=path,
                     classes=recipe["classes"])


def _compare(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """ValueError if outputs differ by more than rounding."""
    same = len(found) == len(expected) and all(a.shape == b.shape and a.dtype == b.dtype
                                               for a, b in zip(found, expected, strict=True))
    for a, b in zip(found, expected, strict=True) if same else ():
        size = float(b.double().nan_to_num(0, 0, 0).abs().max()) if b.numel() else 0.0
        same &= torch.allclose(a.double(), b.double(), rtol=CLOSE, atol=CLOSE * size, equal_nan=True)
    if not same:
        raise ValueError("the program does not compute here what it computed where it was written")


def _loaded(model: nn.Module, weights: Any, path: Path) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {short(model)}")
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise RuntimeError(f"{path} does not fit the model: {misfit(model, weights)}") from None
    return model
