"""minifast: fastai v1's training loop for today's PyTorch. `python -m minifast` runs its main job."""
import gc

collecting = gc.isenabled()
gc.disable()    # it would look for garbage among torch's modules again and again: 6 % of their import
try:
    from . import basics
    from .basics import *
finally:
    if collecting:
        gc.enable()

__version__ = "0.2.0"
__all__ = basics.__all__
