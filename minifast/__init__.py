"""minifast: fastai v1's training loop for today's PyTorch. `python -m minifast` runs its main job."""
from . import basics
from .basics import *

__version__ = "0.2.0"
__all__ = basics.__all__
