"""How pictures are prepared for a model, as plain values; and data without pictures, made from them."""
from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .. import device_loader
from ..checks import positive_float, positive_int
from ..device_loader import DeviceDataLoader
from ..loaders import NoData
from . import geometry, transform
from .augment import Augment, RandTransform
from .dataset import Normalizer, float_batch, split_transforms, transform_lists
from .image import as_size
from .labels import CategoryList, EmptyLabelList, FloatList, Labels, MultiCategoryList
from .masks import SegmentationLabelList
from .plan import ResizeMethod

__all__ = ["empty_bunch", "from_recipe", "picture_recipe"]

Bunch = TypeVar("Bunch")

LABELS = {kind.__name__: kind for kind in (CategoryList, MultiCategoryList, FloatList, EmptyLabelList,
                                           SegmentationLabelList)}
CHANGES = {f.__name__: f for module in (geometry, transform) for f in vars(module).values()
           if inspect.isfunction(f) and list(inspect.signature(f).parameters)[:2] == ["plan", "pick"]}


def picture_recipe(data: Any) -> dict[str, Any]:
    """How an `ImageDataBunch` prepares pictures to predict on, in plain values: what `from_recipe` takes.

    ValueError that names what is code of the user's, which no file holds.
    """
    like = data.valid_dl or data.fix_dl or data.train_dl
    if data.valid_tfms:
        raise ValueError("pictures go through functions for validation, which are code and cannot be in a file: "
                         f"{data.valid_tfms}. Those of get_transforms() can")
    augment = None
    for tfm in like.tfms:
        if isinstance(tfm, Augment):
            augment = {"tfms": [_written(one) for one in tfm.tfms], "size": _listed(tfm.size),
                       "resize_method": tfm.method.value, "padding_mode": tfm.padding}
        elif tfm is not float_batch and tfm is not data.norm:
            raise ValueError(f"batches go through a function of your own, {tfm!r}, which is code and cannot be in a "
                             "file: let the model do it")
    labels = data.labels
    options: dict[str, Any] = {}
    if isinstance(labels, FloatList):
        [width] = labels.width
        options = {"width": width, "log": labels.log}
    if isinstance(labels, SegmentationLabelList):
        options = {"div": labels.div, "ignore_index": labels.ignore_index}
    norm = data.norm
    return {"kind": "pictures", "classes": data.classes, "labels": type(labels).__name__, "label_options": options,
            "size": _listed(data.size), "shrinks": callable(data.fit), "augment": augment,
            "norm": None if norm is None else [norm.mean.flatten().tolist(), norm.std.flatten().tolist()],
            "bs": like.batch_size or 64}


def _listed(size: Any) -> list[int] | None:
    return None if size is None else list(size)


def _written(tfm: RandTransform) -> dict[str, Any]:
    return {"name": tfm.change.func.__name__, "stage": tfm.stage, "p": tfm.p, "enlarges": tfm.enlarges,
            "values": {key: list(v) if isinstance(v, tuple) else v for key, v in tfm.change.keywords.items()}}


def _read(written: Mapping[str, Any]) -> RandTransform:
    change = CHANGES.get(written["name"])
    if change is None:
        raise ValueError(f"there is no transform {written['name']!r}")
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in written["values"].items()}
    if set(values) != set(list(inspect.signature(change).parameters)[2:]):
        raise ValueError(f"{written['name']} does not take {', '.join(values)}")
    return RandTransform(positive_int("stage", written["stage"], or_zero=True), written["p"], change,
                         enlarges=positive_float("enlarges", written["enlarges"]), **values)


def from_recipe(cls: type[Bunch], recipe: Mapping[str, Any], path: Path | str, device: Any) -> Bunch:
    """Data without pictures that prepares new ones as `picture_recipe` says; ValueError or TypeError for another."""
    kind, options = LABELS[recipe["labels"]], dict(recipe["label_options"])
    if kind is FloatList:
        width = options.pop("width")
        samples: list[Any] = [1.0] if width is None else [[1.0] * positive_int("width", width)]
        labels: Labels = FloatList(samples, **options)
    else:
        labels = kind([], recipe["classes"], **options)
    augment = None
    if recipe["augment"] is not None:
        made = recipe["augment"]
        augment = Augment([_read(one) for one in made["tfms"]], made["size"], made["resize_method"],
                          made["padding_mode"], kind is SegmentationLabelList)
    return empty_bunch(cls, path, labels, recipe["size"], augment, recipe["shrinks"], recipe["norm"], recipe["bs"],
                       device)


def empty_bunch(cls: type[Bunch], path: Path | str, labels: Labels, size: Any, augment: Augment | None = None,
                shrinks: bool = True, norm: Sequence[Any] | None = None, bs: int = 64, device: Any = None) -> Bunch:
    """An `ImageDataBunch` (`cls`) without pictures, for predictions on new ones."""
    device = device_loader.default_device() if device is None else device_loader.concrete_device(device)
    make: Any = cls
    data = make(DeviceDataLoader(NoData(bs), device, [augment] if augment else []), device=device, path=path,
                loss_func=labels.loss_func, classes=labels.classes)
    data.size, data.labels = as_size(size), labels
    data.fit = data.size if augment is None else augment.shrink if data.size and shrinks else None
    data.add_tfm(float_batch)
    if norm is not None:
        mean, std = norm
        data.norm = Normalizer(mean, std, device)
        data.add_tfm(data.norm)
    return data     # type: ignore[no-any-return]


def single_from_classes(cls: type[Bunch], path: Path | str, classes: Sequence[Any], ds_tfms: Any = None,
                        size: Any = None, resize_method: ResizeMethod | str = ResizeMethod.CROP,
                        padding_mode: str = "reflection", bs: int = 64, device: Any = None) -> Bunch:
    """See `ImageDataBunch.single_from_classes`."""
    alone, last = split_transforms(transform_lists(ds_tfms)[1])
    augmented = bool(last) or ResizeMethod(resize_method) is not ResizeMethod.CROP
    augment = Augment(last, size, resize_method, padding_mode) if augmented else None
    data: Any = empty_bunch(cls, path, CategoryList([], classes), size, augment, bs=bs, device=device)
    data.valid_tfms = alone
    return data     # type: ignore[no-any-return]
