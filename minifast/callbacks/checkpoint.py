"""`Checkpoint`: a run that can be cut off anywhere and goes on as if it had not been."""
from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import distributed as processes
from .. import going_on
from ..callback import LearnerCallback
from ..checks import file_name, flag, positive_float, positive_int
from ..disk import lock, previous_of
from ..distributed import once
from ..files import RUN, load_run, save_file
from ..order import Order
from ..run_state import RunState
from ..same_run import named, settings
from ..sharded import load_parts, save_parts
from ..snapshot import plain
from ..state import Changes
from ..utils import listify
from .probe import not_finite

__all__ = ["Checkpoint"]


class Checkpoint(LearnerCallback):
    """Writes the whole run to a file as it trains. If there is such a file when a fit begins, the fit continues it at
    the very next batch, to exactly the end that the run would have had.

    learn: the learner.
    name: the file is `path/model_dir/NAME.ckpt` of the learner; the one before is kept as `NAME.previous.ckpt` and used
        if the last one is damaged. Without `NAME.ckpt` a run begins.
    every: batches after which it is written. None: it is written by `seconds`. It is also written at the end of the run
        and after Ctrl-C, and never with parameters that are not finite.
    seconds: the time between two files, more where writing would cost more than 2 % of the time.
    extend: whether a run with another number of epochs may continue, with the schedule of the new total.
    allow: names of settings that may be others than when the run began, as the error for them names them, such as
        `["lr"]`. What is new then holds from here on.

    A finished run is loaded and not trained again, with a warning. What callbacks, model, loss function, transforms and
    data sets keep in attributes is part of the run; a warning names what cannot be kept.

    ValueError if the file is no run, or one with other settings: nothing is loaded then. RuntimeError if another run is
    writing it, OSError if the folder cannot be written when the run begins. Later failures to write are warnings.

    >>> learn = fake_learner()
    >>> learn.fit(1, callbacks=[Checkpoint(learn, "run", every=5)])
    >>> learn.fit(2, callbacks=[Checkpoint(learn, "run", extend=True)])
    >>> len(learn.recorder.train_losses)
    2
    """

    _order = Order.CHECKPOINT
    role = "process"

    def __init__(self, learn: Any, name: str | Path, every: int | None = None, seconds: float = 10.0,
                 extend: bool = False, allow: Sequence[str] = ()) -> None:
        super().__init__(learn)
        path = learn.path / learn.model_dir / f"{file_name('a checkpoint', name)}.ckpt"
        self.path = path.absolute()     # once: a program may go to another folder
        self.previous, self.continued = previous_of(self.path), ""
        self.every = None if every is None else positive_int("every", every)
        self.seconds, self.extend = positive_float("seconds", seconds), flag("extend", extend)
        self.allow: list[str] = listify(allow)
        self.lock: Any = None
        self.trained: Any = None
        self.state: Any = None
        self.continued = ""     # where the run went on, if it did not begin here

    def state_dict(self) -> dict[str, Any]:
        return {}   # what it keeps is about the file

    def on_train_begin(self, **fields: Any) -> Changes | None:
        self.lock = once(learn := self.learn, lambda: lock(self.path), shared=False)    # process 0 writes
        self.settings, self.cost, self.saved_at = settings(learn), 0.0, processes.clock()
        self.state = RunState(learn, named(learn.handler))
        self.n_batches, self.not_finite_before = len(learn.data.train_dl), not_finite(learn.model)
        if (run := once(learn, lambda: load_run(self.path))) is not None:
            run = load_parts(learn, run, self.path)
            self.settings = going_on.accepted(run, self.settings, self.path, self.allow, self.extend)
        going_on.name_lost(self.state)
        if run is not None:
            return self._go_on(run, fields)
        run = save_parts(learn, self._run(fields), self.path)
        once(learn, lambda: self.previous.unlink(missing_ok=True))  # of another run, whose file has been deleted
        once(learn, lambda: save_file(run, self.path))      # what cannot be written is an error now, not in an hour
        return None

    def on_epoch_begin(self) -> None:
        self.state.begin_pass()

    def on_batch_end(self, train: bool, stop_epoch: bool, num_batch: int, iteration: int) -> None:
        position = {"num_batch": num_batch + 1, "iteration": iteration + 1}
        # a pass that a callback has just ended is not one to go on with: the end of the epoch is the next chance
        if train and not stop_epoch and (self._due(iteration + 1) or self.learn.interrupted):
            self._save(**position)
        if train and num_batch + 1 == self.n_batches:
            self.trained = going_on.before_validation(self._run({**self.learn.handler.fields, **position}))

    def on_epoch_end(self, epoch: int, n_epochs: int, iteration: int, stop_training: bool) -> None:
        self.trained = None
        self.state.begin_pass()
        if stop_training or epoch + 1 >= n_epochs or self._due(iteration) or self.learn.interrupted:
            self._save(epoch=epoch + 1, num_batch=0)

    def on_train_end(self, train: bool, exception: BaseException | None) -> None:
        going_on.note_end(self.learn, self.path, self.state and self.settings, self.continued, exception)
        # not in the validation itself: there the model may hold averaged weights
        if not train and self.learn.interrupted and self.trained:
            self._write(self.trained)   # all batches of the epoch are trained; its validation is to begin again
        if self.lock is not None:
            self.lock.close()
        self.lock = self.trained = self.state = None
        self.continued = ""

    def _due(self, iteration: int) -> bool:
        return (iteration % self.every == 0 if self.every
                else processes.clock() - self.saved_at >= max(self.seconds, 50 * self.cost))

    def _save(self, **position: int) -> None:
        began = time.monotonic()
        if not_finite(self.learn.model) - self.not_finite_before:
            warnings.warn(f"the parameters are not finite any more; {self.path} keeps the last that were")
        else:
            self._write(self._run({**self.learn.handler.fields, **position}))
            going_on.name_lost(self.state)
        self.saved_at, self.cost = processes.clock(), processes.from_first(time.monotonic() - began)

    def _write(self, run: dict[str, Any]) -> None:
        try:
            run = save_parts(self.learn, run, self.path)
            once(self.learn, lambda: save_file(run, self.path, keep_previous=True), shared=False)
        except (OSError, TypeError) as e:
            warnings.warn(f"{self.path} could not be written ({e}); training goes on")

    def _run(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {"what": RUN, "settings": self.settings, **self.state.state(), **going_on.of_each(self.learn),
                "position": plain({name: fields[name] for name in going_on.POSITION})}

    def _go_on(self, run: dict[str, Any], fields: dict[str, Any]) -> Changes:
        learn, given = self.learn, (self.path, self.settings, self.allow, self.extend)
        position, finished = going_on.take_back(learn, run, self.state, *given)
        if position["num_batch"] == self.n_batches:
            self.trained = going_on.before_validation(self._run({**fields, **position}))
        learn.recorder.rewrite(position["epoch"], learn.handler.state.pbar)
        self.continued = going_on.say_where(learn, self.path, position, run, finished)
        return position
