"""The best weights of a run, kept in a file."""
from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import file_name
from ..disk import check_folder
from .tracker import TrackerCallback

if TYPE_CHECKING:
    from ..learner import Learner

__all__ = ["SaveModelCallback"]


class SaveModelCallback(TrackerCallback):
    """Saves the weights as `name` whenever `monitor` improves, and loads the best ones when the run ends well.

    learn: the learner; the files are at `learn.path / learn.model_dir / f"{name}.pth"`.
    monitor, mode: the column that is watched, see `TrackerCallback` (default: the validation loss).
    every: "improvement" (the default), or "epoch": each epoch is saved, as `f"{name}_{epoch}"`, and nothing is watched
        or loaded.
    name: of the file, without `.pth` (default "bestmodel").

    Only what this run has saved is loaded, never an older file of that name. After an error or Ctrl-C the weights stay
    those of the last batch; `learn.load(name)` gets the best. OSError before epoch 0 if the folder cannot be written;
    a later failure to save or load is a warning, and training goes on.

    >>> learn = fake_learner()
    >>> learn.fit(3, callbacks=SaveModelCallback(learn, name="best"))
    >>> Path("models/best.pth").exists()
    True
    """

    def __init__(self, learn: Learner, monitor: str = "valid_loss", mode: str = "auto", every: str = "improvement",
                 name: str = "bestmodel") -> None:
        super().__init__(learn, monitor, mode)
        if every not in ("improvement", "epoch"):
            raise ValueError(f"every must be 'improvement' or 'epoch', not {every!r}")
        self.every, self.name = every, file_name("a file", name)
        self.saved_epoch = -1       # whose weights the file has
        self.stem = ""              # of the files' names

    def on_train_begin(self, **kwargs: Any) -> None:
        if self.every == "improvement":
            super().on_train_begin()
        self.saved_epoch = -1
        # once: a program may go to another folder
        self.stem = str((self.learn.path / self.learn.model_dir / self.name).absolute())
        check_folder(Path(self.stem).parent)

    def on_epoch_end(self, epoch: int, **kwargs: Any) -> None:
        if self.every == "improvement":
            super().on_epoch_end(epoch)
        if self.every == "epoch" or self.improved:
            name = f"{self.stem}_{epoch}" if self.every == "epoch" else self.stem
            try:
                # without the optimizer, whose file would bring this epoch's lr and momentum back into later fits
                self.learn.save(name, with_opt=False)
                self.saved_epoch = epoch
            except OSError as e:
                warnings.warn(f"the weights of epoch {epoch} could not be saved as {name}.pth ({e}); training goes on")

    def on_train_end(self, exception: BaseException | None, pbar: Any, **kwargs: Any) -> None:
        if exception is not None or self.every == "epoch" or self.best_epoch < 0:
            return
        try:
            if self.saved_epoch != self.best_epoch:
                raise OSError("it could not be saved")
            self.learn.load(self.stem, with_opt=False)
        except (OSError, ValueError) as e:
            warnings.warn(f"the best epoch, {self.best_epoch}, is not loaded ({e}); the weights are the last epoch's")
        else:
            pbar.write([f"loaded {self.name}: epoch {self.best_epoch}, {self.monitor} {self.best:.6f}"])
