"""`Checkpoint`: a run that can be cut off anywhere and goes on as if it had not been."""
from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from ..callback import LearnerCallback
from ..checks import file_name, positive_float, positive_int
from ..disk import lock, previous_of
from ..files import RUN, load_run, save_file
from ..order import Order
from ..same_run import check_same, named, settings
from ..snapshot import learner_state, load_learner_state, plain
from ..state import Changes
from ..utils import map_tensors
from .probe import not_finite

__all__ = ["Checkpoint"]

POSITION = ("n_epochs", "n_updates", "epoch", "num_batch", "iteration", "update", "smooth_loss", "last_metrics",
            "stop_training", "skip_validate")


class Checkpoint(LearnerCallback):
    """Writes the whole run to a file as it goes, and goes on from that file if there is one: at the very next batch, to
    exactly the end that the run would have had without the cut. A finished run is not trained again, only loaded.

    The file is `path/model_dir/NAME.ckpt` of the learner; the one before is kept as `NAME.previous.ckpt` and used if
    the last one is missing or damaged. It is written every `every` batches, or, without that, every `seconds` (less
    often where that would cost more than 2 % of the time), at the end of the run and after Ctrl-C; never with
    parameters that are not finite. `extend`: a run with another number of epochs may go on; its schedule is then the
    one of the new total from where the run stands.

    ValueError if the file belongs to a run with other settings, RuntimeError if another process is writing it, OSError
    if the folder cannot be written when the run begins; later failures to write are warnings, and training goes on.
    """

    _order = Order.CHECKPOINT
    role = "process"

    def __init__(self, learn: Any, name: str | Path, every: int | None = None, seconds: float = 10.0,
                 extend: bool = False) -> None:
        super().__init__(learn)
        path = learn.path / learn.model_dir / f"{file_name('a checkpoint', name)}.ckpt"
        self.path, self.previous = path.absolute(), previous_of(path)   # once: a program may go to another folder
        self.every = None if every is None else positive_int("every", every)
        self.seconds, self.extend = positive_float("seconds", seconds), extend
        self.lock: Any = None
        self.before_validation: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {}   # what it keeps is about the file

    def on_train_begin(self, **fields: Any) -> Changes | None:
        self.lock = lock(self.path)
        self.settings, self.cost, self.saved_at = settings(self.learn), 0.0, time.monotonic()
        self.pass_state = self.learn.data.train_dl.state_dict()
        self.not_finite_before = not_finite(self.learn.model)
        if (run := load_run(self.path)) is None:
            self.previous.unlink(missing_ok=True)   # of another run, whose file has been deleted
            save_file(self._run(fields), self.path)  # what cannot be written is told now, not after an hour
            return None
        check_same(self.path, run["settings"], self.settings, ("number of epochs", "optimizer steps") * self.extend)
        return self._go_on(run)

    def on_epoch_begin(self) -> None:
        self.pass_state = self.learn.data.train_dl.state_dict()  # a pass is repeated from the state before it

    def on_batch_end(self, train: bool, stop_epoch: bool, num_batch: int, iteration: int) -> None:
        # a pass that a callback has just ended is not one to go on with: the end of the epoch is the next chance
        if train and not stop_epoch and (self._due(iteration + 1) or self.learn.interrupted):
            self._save(num_batch=num_batch + 1, iteration=iteration + 1)
        if train and num_batch + 1 == len(self.learn.data.train_dl):
            self.before_validation = self._what_validation_changes()

    def on_epoch_end(self, epoch: int, n_epochs: int, iteration: int, stop_training: bool) -> None:
        self.pass_state = self.learn.data.train_dl.state_dict()
        if stop_training or epoch + 1 >= n_epochs or self._due(iteration) or self.learn.interrupted:
            self._save(epoch=epoch + 1, num_batch=0)

    def on_train_end(self, train: bool, num_batch: int) -> None:
        if self.lock:
            # not in the validation itself: there the model may hold averaged weights
            if not train and self.learn.interrupted and num_batch == len(self.learn.data.train_dl):
                self._save(self.before_validation)  # all batches are trained; the validation is to begin again
            self.lock.close()
            self.lock = None

    def _due(self, iteration: int) -> bool:
        if self.every:
            return iteration % self.every == 0
        return time.monotonic() - self.saved_at >= max(self.seconds, 50 * self.cost)

    def _save(self, before: dict[str, Any] | None = None, **position: int) -> None:
        began = time.monotonic()
        if not_finite(self.learn.model) - self.not_finite_before:
            warnings.warn(f"the parameters are not finite any more; {self.path} keeps the last that were")
        else:
            try:
                run = self._run({**self.learn.handler.fields, **position})
                for part, values in (before or {}).items():
                    run[part] = run[part] | values if isinstance(values, dict) else values
                save_file(run, self.path, keep_previous=True)
            except OSError as e:
                warnings.warn(f"{self.path} could not be written ({e}); training goes on")
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - began

    def _what_validation_changes(self) -> dict[str, Any]:
        run = self._run(self.learn.handler.fields)      # but for weights and record, which are large and do not change
        large = {"learner": ("model", "opt", "grads"), "callbacks": (type(self.learn.recorder).__name__,)}
        small = {part: {k: v for k, v in run[part].items() if k not in names} for part, names in large.items()}
        return {"loaders": run["loaders"], **map_tensors(small, torch.clone)}

    def _run(self, fields: dict[str, Any]) -> dict[str, Any]:
        learn = self.learn
        return {"what": RUN, "settings": self.settings,
                "loaders": [self.pass_state, *(dl.state_dict() for dl in learn.data.dls[1:])],
                "position": plain({name: fields[name] for name in POSITION}), "learner": learner_state(learn),
                "callbacks": {name: plain(cb.state_dict()) for name, cb in named(learn.handler).items()}}

    def _go_on(self, run: dict[str, Any]) -> Changes:
        learn, position = self.learn, run["position"]
        if self.extend:
            position |= {n: learn.handler.fields[n] for n in ("n_epochs", "n_updates", "stop_training")}
        try:
            load_learner_state(learn, run["learner"])
        except (RuntimeError, ValueError, KeyError) as e:
            raise ValueError(f"{self.path} belongs to another model or optimizer: {e}") from e
        for dl, state in zip(learn.data.dls, run["loaders"], strict=True):
            dl.load_state_dict(state)
        self.pass_state = run["loaders"][0]
        for name, cb in named(learn.handler).items():
            if name in run["callbacks"]:
                cb.load_state_dict(run["callbacks"][name])
        if position["smooth_loss"] is not None:
            position["smooth_loss"] = position["smooth_loss"].to(learn.data.device)
        self.before_validation = self._what_validation_changes()    # it may go on there
        learn.recorder.rewrite(position["epoch"], learn.handler.state.pbar)
        if not learn.silent:  # not on the standard output: there the table is to be as if nothing had happened
            finished = position["stop_training"] or position["epoch"] >= position["n_epochs"]
            print(self.path, "is a finished run: it is loaded, nothing is trained. To train anew, choose another name"
                  if finished else f"goes on in epoch {position['epoch']} at batch {position['num_batch']}",
                  file=sys.stderr)
        return position  # type: ignore[no-any-return]
