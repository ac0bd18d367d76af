"""The star module for pictures: `from minifast.vision import *` gives `minifast.basics` and what only pictures need."""
from __future__ import annotations

from .. import basics
from ..basics import *
from ..exported import load_learner
from . import augment as _augment
from . import data as _data
from . import geometry as _geometry
from . import image as _image
from . import picture as _picture
from . import transfer as _transfer
from . import transform as _transform
from . import tta as _tta
from . import unet as _unet
from .augment import *
from .backbones import create_body
from .data import *
from .dataset import ImageDataset
from .folders import get_image_files
from .geometry import *
from .image import *
from .image_list import ImageList, SegmentationItemList
from .labels import CategoryList, EmptyLabelList, FloatList, MultiCategoryList
from .masks import SegmentationLabelList
from .picture import *
from .plan import ResizeMethod
from .transfer import *
from .transform import *
from .tta import *
from .unet import *

__all__ = [*basics.__all__, *_augment.__all__, *_data.__all__, *_geometry.__all__, *_image.__all__, *_picture.__all__,
           *_transfer.__all__, *_transform.__all__, *_tta.__all__, *_unet.__all__, "create_body", "load_learner",
           "ImageDataset", "get_image_files", "CategoryList", "MultiCategoryList", "FloatList", "EmptyLabelList",
           "SegmentationLabelList", "ResizeMethod", "ImageList", "SegmentationItemList"]
