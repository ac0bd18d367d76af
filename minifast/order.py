"""The order in which the library's callbacks are called: smaller first. A callback's `_order` only sorts."""
from __future__ import annotations

from enum import IntEnum

__all__ = ["Order"]


class Order(IntEnum):
    """Named places; your own callbacks may use these or any number. The default is 0.

    >>> Order.COLUMNS < Order.RECORDER < 0 < Order.CLIPPING
    True
    """

    TIMER = -1000           # first, so that what other callbacks do counts as theirs
    TOGETHER = -500         # makes one batch of the processes' parts, before others read its figures
    TRAINING_DATA = -30     # replaces the training data, before others plan with its length
    BATCH_SIZE = -25        # changes the batch size of that data
    COLUMNS = -20           # adds columns, before the recorder begins its table
    RECORDER = -10          # records the epoch, before callbacks that read its figures
    ACCUMULATION = -5       # sets the number of optimizer steps, before schedules read it
    INPUTS = 50             # lays out inputs, after those that change them
    AVERAGE = 50            # puts the own weights back, after those that save the measured ones (0)
    PRECISION = 99          # scales the complete loss, and unscales the complete gradients
    CLIPPING = 100          # clips true gradients
    AGREEMENT = 998         # weighs a process's loss; looks whether all have decided alike, before a checkpoint
    GUARD = 999             # looks at the numbers, before a checkpoint would be written in vain
    CHECKPOINT = 1000       # writes what all the others have made of the batch
    INTERRUPTION = 1001     # ends the run, after the checkpoint is written
    PROBE = 2000            # looks at what all the others have made of the batch
