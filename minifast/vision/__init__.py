"""The star module for pictures: `from minifast.vision import *` gives `minifast.basics` and what only pictures need."""
from __future__ import annotations

from .. import basics
from ..basics import *
from . import data as _data
from . import image as _image
from . import transform as _transform
from .data import *
from .dataset import ImageDataset
from .folders import get_image_files
from .image import *
from .labels import CategoryList, FloatList, MultiCategoryList
from .transform import *

__all__ = [*basics.__all__, *_data.__all__, *_image.__all__, *_transform.__all__, "ImageDataset", "get_image_files",
           "CategoryList", "MultiCategoryList", "FloatList"]
