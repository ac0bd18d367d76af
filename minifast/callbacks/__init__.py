"""The callbacks, one file a family. `from minifast.callbacks import *` gives them all."""
from .. import schedules
from . import (
    activations,
    averaging,
    batch_size,
    checkpoint,
    csv_logger,
    finite_guard,
    flat_cos_anneal,
    general_sched,
    gradients,
    hooks,
    interruption,
    loss_metrics,
    lr_finder,
    memory,
    mixup,
    one_cycle,
    precision,
    rnn,
    safety,
    sampling,
    scheduler,
    show_graph,
    summary,
    tensorboard,
    timer,
    torch_scheduler,
    tracker,
)
from .activations import *
from .averaging import *
from .batch_size import *
from .checkpoint import *
from .csv_logger import *
from .finite_guard import *
from .flat_cos_anneal import *
from .general_sched import *
from .gradients import *
from .hooks import *
from .interruption import *
from .loss_metrics import *
from .lr_finder import *
from .memory import *
from .mixup import *
from .one_cycle import *
from .precision import *
from .rnn import *
from .safety import *
from .sampling import *
from .scheduler import *
from .show_graph import *
from .summary import *
from .tensorboard import *
from .timer import *
from .torch_scheduler import *
from .tracker import *

__all__ = ["schedules"]     # the curves keep their module's name: `schedules.cosine`
for _module in (activations, averaging, batch_size, checkpoint, csv_logger, finite_guard, flat_cos_anneal,
                general_sched, gradients, hooks, interruption, loss_metrics, lr_finder, memory, mixup, one_cycle,
                precision, rnn, safety, sampling, scheduler, show_graph, summary, tensorboard, timer, torch_scheduler,
                tracker):
    __all__ += _module.__all__
