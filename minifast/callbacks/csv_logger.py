"""The table as a file."""
from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..callback import LearnerCallback
from ..checks import file_name
from ..disk import check_folder, whole_file
from ..distributed import rank

if TYPE_CHECKING:
    import pandas as pd

    from ..learner import Learner

__all__ = ["CSVLogger"]


class CSVLogger(LearnerCallback):
    """Writes the table to `learn.path / f"{filename}.csv"` after each epoch, in full precision, time in seconds.

    It is what the recorder holds, and so it is right also for a run that goes on from a checkpoint. A value that was
    not computed is an empty cell.

    learn: the learner whose table it is.
    filename: of the file, without `.csv` (default "history").
    append: keep the rows that the file has when the run begins, below one header (default: the first epoch's end
        replaces them).

    ValueError before epoch 0 if the rows to keep have other columns or cannot be read. A file that cannot be written is
    a warning, once, and training goes on.

    >>> learn = fake_learner(callback_fns=CSVLogger)
    >>> learn.fit(2)
    >>> learn.csv_logger.read_logged_file().epoch.tolist()
    [0, 1]
    """

    role = "watching"

    def __init__(self, learn: Learner, filename: str = "history", append: bool = False) -> None:
        super().__init__(learn)
        self.filename, self.append = file_name("a file", filename), append
        self.path = (learn.path / f"{filename}.csv").absolute()     # once: a program may go to another folder
        self.kept = ""          # the rows from before the run, as text
        self.n_written = 0      # rows of this run that the file has; 0: it is to be written as a whole
        self.size = 0           # of the file then, in bytes
        self.warned = False

    def on_train_begin(self, **kwargs: Any) -> None:
        self.kept, self.n_written, self.warned = "", 0, False
        if self.append and self.path.exists():
            self.kept = "".join(map(_line, _rows_to_keep(self.path, self.learn.recorder.names)))
        try:
            check_folder(self.path.parent)
        except OSError as e:
            self._warn(e)

    def on_epoch_end(self, **kwargs: Any) -> None:
        if rank():
            return
        try:
            if not self._appended():
                with whole_file(self.path) as file:
                    file.write((_line(self.learn.recorder.names) + self.kept + self._rows(0)).encode())
                    self.size = file.tell()
            self.n_written = len(self.learn.recorder.times)
        except OSError as e:
            self.n_written = 0
            self._warn(e)

    def _appended(self) -> bool:
        """Whether the new rows are written behind the others: all of them each time would be quadratic in the epochs.
        Not if the file is not as it was left: it has been removed or changed, or a write has failed half way."""
        if not self.n_written or not self.path.is_file() or self.path.stat().st_size != self.size:
            return False
        with open(self.path, "ab") as file:
            file.write(self._rows(self.n_written).encode())
            self.size = file.tell()
        return True

    def state_dict(self) -> dict[str, Any]:
        """The rows from before the run; what the file has now, a run that goes on finds out by writing it."""
        return {"kept": self.kept}

    def read_logged_file(self) -> pd.DataFrame:
        """The file as a pandas DataFrame."""
        import pandas as pd
        return pd.read_csv(self.path)

    def _warn(self, error: OSError) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(f"{self.path} could not be written ({error}); training goes on")

    def _rows(self, start: int) -> str:
        r, lines = self.learn.recorder, ""
        for i in range(start, len(r.times)):
            lines += _line([r.first_epoch + i, r.train_losses[i], r.val_losses[i], *r.metrics[i],
                            *([r.times[i]] if r.add_time else [])])
        return lines


def _line(cells: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)     # by which it quotes both characters
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _rows_to_keep(path: Path, names: list[str]) -> list[list[str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")    # a spreadsheet may have put a mark in front
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as e:
        raise ValueError(f"{path} cannot be read, so no rows are appended to it ({e}): choose another filename") from e
    if not rows:
        return []
    header, *rows = rows
    if header != names:
        raise ValueError(f"{path} has the columns {_line(header).strip()}, this run has {_line(names).strip()}: choose "
                         "another filename")
    if rows and len(rows[-1]) < len(names) and not text.endswith("\n"):
        rows.pop()  # its process was killed while it wrote this row
    return rows
