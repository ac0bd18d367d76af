"""Runs in TensorBoard."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from .run_tracker import RunTracker

__all__ = ["TensorBoard"]


class TensorBoard(RunTracker):
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

    each_batch = True

    def __init__(self, learn: Any, log_dir: str | Path | None = None) -> None:
        super().__init__(learn)
        # absolute, once: a program may go to another folder
        self.log_dir = (Path(log_dir) if log_dir else learn.path / "tensorboard").absolute()
        self.folder: Path | None = None
        self._writer: Any = None

    def on_train_begin(self) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as e:
            raise ImportError("TensorBoard's package is not here: pip install 'minifast[tensorboard]'") from e
        super().on_train_begin()

    def begin(self, settings: dict[str, Any]) -> None:
        """A new folder."""
        from torch.utils.tensorboard import SummaryWriter
        taken = [int(p.name) for p in self.log_dir.glob("*") if p.name.isdigit()]
        self.folder = self.log_dir / f"{max(taken, default=0) + 1:03d}"
        self._writer = SummaryWriter(str(self.folder))
        self._writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()))

    def log(self, values: dict[str, float], step: int) -> None:
        """Write these values."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if any(name.startswith("epoch/") for name in values):
            self._writer.flush()

    def end(self, exception: BaseException | None) -> None:
        """Close the files."""
        self._writer.close()

    def on_train_end(self, exception: BaseException | None) -> None:
        super().on_train_end(exception)
        self._writer = None
