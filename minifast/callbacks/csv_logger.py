"""The table as a file."""
from __future__ import annotations

import csv
import io
import os
import warnings
from typing import TYPE_CHECKING, Any

from ..callback import LearnerCallback
from ..checks import file_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CSVLogger"]


class CSVLogger(LearnerCallback):
    """Writes the table to `learn.path / f"{filename}.csv"` after each epoch, in full precision, time in seconds.

    It is what the recorder holds, written anew each time, whole or not at all, and so it is right also for a run that
    goes on from a checkpoint. `append` keeps the rows that the file has when the run begins, below one header;
    otherwise the first epoch's end replaces them. A value that was not computed is an empty cell. ValueError before
    epoch 0 if the rows to keep have other columns; a file that cannot be written is a warning, once, and training goes
    on.
    """

    role = "watching"

    def __init__(self, learn: Any, filename: str = "history", append: bool = False) -> None:
        super().__init__(learn)
        self.filename, self.append = file_name("a file", filename), append
        self.path = learn.path / f"{filename}.csv"

    def on_train_begin(self, **kwargs: Any) -> None:
        self.kept, self.told = "", False
        if self.append and self.path.exists():
            header, _, self.kept = self.path.read_text(encoding="utf-8").partition("\n")
            now = _line(self.learn.recorder.names).strip()
            if header not in ("", now):
                raise ValueError(f"{self.path} has the columns {header}, this run has {now}: choose another filename")

    def on_epoch_end(self, **kwargs: Any) -> None:
        text = _line(self.learn.recorder.names) + self.kept + "".join(map(_line, self._rows()))
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self.path)
        except OSError as e:
            if not self.told:
                self.told = True
                warnings.warn(f"{self.path} could not be written ({e}); training goes on")

    def read_logged_file(self) -> pd.DataFrame:
        """The file as a pandas DataFrame."""
        import pandas as pd
        return pd.read_csv(self.path)

    def _rows(self) -> list[list[Any]]:
        r = self.learn.recorder
        rows = zip(r.train_losses, r.val_losses, r.metrics, r.times, strict=True)
        return [[r.first_epoch + i, t, v, *m, *([s] if r.add_time else [])] for i, (t, v, m, s) in enumerate(rows)]


def _line(cells: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
