"""The callbacks, one file a family. `from minifast.callbacks import *` gives them all."""
from . import lr_finder, one_cycle
from .lr_finder import *
from .one_cycle import *

__all__ = lr_finder.__all__ + one_cycle.__all__
