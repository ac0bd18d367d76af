"""What all callbacks that send a run to a tracker share: when to begin, what to send, and that trouble ends no run."""
from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ..callback import LearnerCallback
from ..distributed import rank

__all__ = ["RunTracker"]


class RunTracker(LearnerCallback):
    """Base of callbacks that send what the recorder holds to a tracker, at the end of each epoch.

    To derive, write `log(values, step)`, and what is needed of `begin(settings)` and `end(exception)`. Names of values
    are `epoch/COLUMN`, and with `each_batch` also `batch/loss`, `batch/lr` and `batch/mom`; a step is the number of
    batches done. An exception of the kinds in `troubles` is one warning, and the run goes on without the tracker.

    >>> class Notes(RunTracker):
    ...     def begin(self, settings): self.notes = [settings["optimizer"]]
    ...     def log(self, values, step): self.notes.append((step, sorted(values)))
    >>> learn = fake_learner()
    >>> learn.fit(1, callbacks=Notes(learn))
    >>> learn.notes.notes
    ['FusedAdam', (2, ['epoch/train_loss', 'epoch/valid_loss'])]
    """

    role = "watching"
    each_batch: ClassVar[bool] = False
    troubles: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, learn: Any) -> None:
        super().__init__(learn)
        self.done = 0           # batches that have been sent
        self.begun = False      # in this process, in this run
        self.given_up = False

    # to derive

    def begin(self, settings: dict[str, Any]) -> None:
        """A run begins, or goes on: `settings` is `learn.settings()` with one level, as `callbacks.CLASS.ARGUMENT`."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Send these values."""
        raise NotImplementedError

    def end(self, exception: BaseException | None) -> None:
        """The run has ended; `exception` is what ended it early, or None."""

    # the events

    def on_train_begin(self) -> None:
        self.done, self.begun = 0, False
        self.given_up = rank() > 0      # of several processes the first one sends

    def on_epoch_begin(self) -> None:
        self._begin()   # not in on_train_begin: a checkpoint, which is read there, may say which run goes on

    def on_epoch_end(self) -> None:
        self._begin()
        self._try(self._send)

    def on_train_end(self, exception: BaseException | None) -> None:
        if self.begun:
            self._try(lambda: self.end(exception))
        self.begun = False

    def state_dict(self) -> dict[str, Any]:
        """How much has been sent."""
        return {"done": self.done}

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            self._try(lambda: self.begin(flat(self.learn.settings())))

    def _send(self) -> None:
        recorder = self.learn.recorder
        if self.each_batch:
            columns: dict[str, Any] = {"loss": recorder.losses, "lr": recorder.lrs, "mom": recorder.moms}
            for i in range(self.done, len(recorder.lrs)):
                self.log({f"batch/{name}": float(values[i]) for name, values in columns.items()}, i + 1)
        self.done = len(recorder.lrs)
        values = [recorder.train_losses[-1], recorder.val_losses[-1], *recorder.metrics[-1]]
        self.log({f"epoch/{name}": float(value) for name, value in zip(recorder.names[1:], values, strict=False)
                  if value is not None}, self.done)

    def _try(self, action: Callable[[], None]) -> None:
        if self.given_up:
            return
        try:
            action()
        except self.troubles as e:
            self.given_up = True
            warnings.warn(f"{type(self).__name__} cannot be written, the run goes on without: {e}")


def extra(package: str, title: str) -> Any:
    """The module of an optional package; ImportError that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as e:
        raise ImportError(f"the package of {title} is not here: pip install 'minifast[{package}]'") from e


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A dict of one level, names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found
