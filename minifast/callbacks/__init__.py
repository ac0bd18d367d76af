"""The callbacks, one file a family. `from minifast.callbacks import *` gives them all."""
from . import flat_cos_anneal, general_sched, lr_finder, one_cycle, scheduler, schedules, torch_scheduler
from .flat_cos_anneal import *
from .general_sched import *
from .lr_finder import *
from .one_cycle import *
from .scheduler import *
from .torch_scheduler import *

__all__ = ["schedules"]     # the curves keep their module's name: `schedules.cosine`
for _module in (flat_cos_anneal, general_sched, lr_finder, one_cycle, scheduler, torch_scheduler):
    __all__ += _module.__all__
