"""Runs in TensorBoard."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..callback import LearnerCallback

__all__ = ["TensorBoard"]


class TensorBoard(LearnerCallback):
    """Writes what the recorder holds for TensorBoard at the end of each epoch: the batches' smoothed losses, learning
    rates and momenta, and the epoch's row of the table, each against the number of batches done.

    Each fit gets a folder of its own, `log_dir/001` and so on, found as `folder`. A file that cannot be written, which
    is tried before epoch 0, ends the logging with one warning, not the run.

    learn: the learner whose fits are logged.
    log_dir: the folder of all its fits (default: `tensorboard` in the learner's path).

    ImportError without the package, which `pip install 'minifast[tensorboard]'` brings.

    >>> TensorBoard(fake_learner(), "logs").log_dir.name
    'logs'
    """

    role = "watching"

    def __init__(self, learn: Any, log_dir: str | Path | None = None) -> None:
        super().__init__(learn)
        # absolute, once: a program may go to another folder
        self.log_dir = (Path(log_dir) if log_dir else learn.path / "tensorboard").absolute()
        self.folder: Path | None = None
        self.done = 0
        self._writer: Any = None

    def on_train_begin(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise ImportError("TensorBoard's package is not here: pip install 'minifast[tensorboard]'") from e
        self.done = 0

        def begin() -> None:
            taken = [int(p.name) for p in self.log_dir.glob("*") if p.name.isdigit()]
            self.folder = self.log_dir / f"{max(taken, default=0) + 1:03d}"
            self._writer = SummaryWriter(str(self.folder))

        self._try(begin)

    def on_epoch_end(self) -> None:
        if self._writer is not None:
            self._try(self._write)

    def on_train_end(self) -> None:
        if self._writer is not None:
            self._try(lambda: self._writer.close())
        self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """How much has been written."""
        return {"done": self.done}

    def _write(self) -> None:
        recorder, add = self.learn.recorder, self._writer.add_scalar
        columns: dict[str, Any] = {"loss": recorder.losses, "lr": recorder.lrs, "mom": recorder.moms}
        for i in range(self.done, len(recorder.lrs)):
            for name, values in columns.items():
                add(f"batch/{name}", values[i], i + 1)
        self.done = len(recorder.lrs)
        values = [recorder.train_losses[-1], recorder.val_losses[-1], *recorder.metrics[-1]]
        for name, value in zip(recorder.names[1:], values, strict=False):
            if value is not None:
                add(f"epoch/{name}", float(value), self.done)
        self._writer.flush()

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as e:
            self._writer = None
            warnings.warn(f"TensorBoard's files in {self.log_dir} cannot be written, the run goes on without: {e}")
