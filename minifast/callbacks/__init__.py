"""The callbacks, one file a family; `from minifast.callbacks import *` gives them all.

| family | files |
|---|---|
| schedules of hyper-parameters | one_cycle, flat_cos_anneal, general_sched, scheduler (any curve), torch_scheduler |
| the learning-rate finder | lr_finder |
| watching a column of the table | tracker, save_model |
| ending a run, and safety | terminate, finite_guard (with its probe), interruption, checkpoint |
| gradients and precision | gradients, precision, channels_last |
| regularisation and averages | mixup, averaging, swa, rnn, bn_freeze |
| the training data | sampling, batch_size |
| a look inside | hook_callback, activations, loss_metrics |
| several processes | distributed, agreement |
| logs, time and memory | csv_logger, show_graph, timer, peak_memory |
| trackers of runs | run_tracker (their base), tensorboard, trackers (MLflow, W&B), pruning (Optuna) |

A new family is a new file here with an `__all__`, and one line below; a test fails for a file without its line.
"""
import sys as _sys
from pkgutil import iter_modules as _iter_modules

from .. import hooks as _hooks
from .. import schedules
from ..hooks import *
from .activations import *
from .agreement import *
from .averaging import *
from .batch_size import *
from .bn_freeze import *
from .channels_last import *
from .checkpoint import *
from .csv_logger import *
from .distributed import *
from .finite_guard import *
from .flat_cos_anneal import *
from .general_sched import *
from .gradients import *
from .hook_callback import *
from .interruption import *
from .loss_metrics import *
from .lr_finder import *
from .mixup import *
from .one_cycle import *
from .peak_memory import *
from .precision import *
from .probe import *
from .pruning import *
from .rnn import *
from .run_tracker import *
from .sampling import *
from .save_model import *
from .scheduler import *
from .show_graph import *
from .swa import *
from .tensorboard import *
from .terminate import *
from .timer import *
from .torch_scheduler import *
from .tracker import *
from .trackers import *

# the curves keep their module's name: `schedules.cosine`
__all__ = ["schedules", *_hooks.__all__, *(_name for _file in _iter_modules(__path__)
                          for _name in _sys.modules[f"{__name__}.{_file.name}"].__all__)]
