"""Progress bars and the printed table, for a terminal, a notebook, or anything else (one plain line an epoch)."""
from __future__ import annotations

import html
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from operator import length_hint
from typing import Any, TextIO

from .distributed import rank
from .utils import listify

__all__ = ["Progress", "OneBar", "format_time", "say"]

REDRAW_EVERY = 0.2  # seconds; a redraw reads the loss off the device, which waits for everything queued there
BAR_LENGTH = 24     # columns; leaves room in a terminal of 80 for epoch, counts, times and loss
LINE_END = 3        # columns that stay free behind a bar: a full line would wrap, and Ctrl-C puts its "^C" there
ROWS_SENT = 50      # of the table, with each redraw in a notebook; all of them would be quadratic in the epochs


def format_time(seconds: float) -> str:
    """`seconds`, cut to whole ones, as `mm:ss`, or `h:mm:ss` from an hour on."""
    minutes, s = divmod(int(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}" if h else f"{m:02d}:{s:02d}"


def say(text: str, *out: Any) -> None:
    """Print a line to `out`, by default the standard output. Where that cannot be written to (closed, full, gone), a
    warning says so.

    >>> say("all is well")
    all is well
    """
    to = out[0] if out else sys.stdout
    if to is not None and not rank():   # a Python without a console has none
        try:
            _put(to, f"{text}\n")
        except Exception as e:
            _warn(e)


def _put(out: Any, text: str) -> None:
    """Write to anything that has a `write`; what its encoding does not have is written as an escape."""
    try:
        out.write(text)
    except UnicodeEncodeError as e:
        out.write(text.encode(e.encoding, "backslashreplace").decode(e.encoding))
    if (flush := getattr(out, "flush", None)) is not None:
        flush()


def _warn(error: Exception) -> None:
    warnings.warn(f"the output cannot be written to ({type(error).__name__}: {error}); all goes on without it")


def _is_terminal(out: Any) -> bool:
    try:
        return bool(out.isatty()) and os.environ.get("TERM") != "dumb"
    except Exception:   # it has no such method, or is closed
        return False


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a kernel has imported it long ago; others should not pay for it
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def _counter(total: int | None, draw: Callable[[int, str], object], start: int = 0) -> Any:
    from fastprogress.fastprogress import ProgressBar  # type: ignore[import-untyped]
    bar = ProgressBar(None, total=total or "noinfer")
    bar.update_every = 0  # it would space its redraws by batches; `Progress` does it by the clock
    bar.update(0)  # starts its clock
    bar.on_update = draw
    bar.update(start)
    return bar


def _bar_line(head: str, done: int, total: int | None, text: str, columns: int, fill: str) -> str:
    room = min(BAR_LENGTH, columns - len(head + text) - 3)
    if total and room > 0:
        head += "|" + (fill * (room * min(done, total) // total)).ljust(room, "-") + "| "
    return (head + text)[:columns]


def _table_line(names: Sequence[str], cells: Sequence[str]) -> str:
    line, edge = "", 0
    for name, cell in zip_longest(names, cells, fillvalue=""):
        edge += max(8, len(name)) + 2
        line = f"{line}{cell}  ".ljust(edge)  # a value wider than its column moves the next ones only as far as it must
    return line.rstrip()


class Progress:
    """What a fit shows while it runs: a table row an epoch, and bars where someone may be watching.

    `face` is "notebook" in an IPython kernel, "terminal" where `out` (by default `sys.stdout`) is one, "silent" on
    request, else "plain": whole lines, no control characters. Counts and estimates are fastprogress'; where to draw is
    decided here, because its own test takes every file for a terminal. As a context manager it closes itself.

    n_epochs: of the run.
    silent: show nothing (default False).
    out: what to write to; a `write` is all that it needs (default: the standard output). Where it cannot be written to
        any more (closed, full, gone; a notebook's display that fails), there is one warning, and then silence.

    `comment` is the text behind a bar (the loss): a function, called when a bar is redrawn, so at most five times a
    second and never where there are no bars.

    >>> with Progress(1) as progress: progress.write(["epoch", "train_loss"])
    epoch     train_loss
    """

    def __init__(self, n_epochs: int, silent: bool = False, out: TextIO | None = None) -> None:
        self.n_epochs = n_epochs
        self.out: Any = sys.stdout if out is None else out
        if silent or rank() or self.out is None:    # one process speaks; a Python without a console has no stdout
            self.face = "silent"
        elif out is None and _in_notebook():
            self.face = "notebook"
        else:
            self.face = "terminal" if _is_terminal(self.out) else "plain"
        self.comment: Callable[[], str] = str
        self.epoch: int | None = None  # stays None outside a fit: validation alone has no epochs
        self._rows: list[list[str]] = []
        self._redraw_at = 0.0  # shared by all bars: many short epochs draw no more often than one long one
        self._line_length = 0  # of the bar in the terminal
        self._epochs: Any = None  # a notebook's outer counter
        self._bars: dict[str, tuple[int, int | None, str]] = {}  # a notebook's: done, total, text
        self._output: Any = None  # IPython's handles of what it displays
        self._figure: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(finished=kind is None)

    def track(self, batches: Iterable[Any], total: int | None = None, start: int = 0) -> Iterator[Any]:
        """Iterate over `batches` under a bar; with no bar to draw this is `iter(batches)` itself.

        `total` is the number of batches where `batches` has no length, with the `start` that came before them.
        """
        if self.face in ("plain", "silent"):
            return iter(batches)
        return self._track(batches, total or length_hint(batches) or None, start)

    def _track(self, batches: Iterable[Any], total: int | None, start: int) -> Iterator[Any]:
        bar, began = _counter(total, lambda done, text: self._draw(done, total, text), start), time.time()
        try:
            for done, batch in enumerate(batches, start + 1):
                yield batch
                if time.monotonic() >= self._redraw_at:
                    bar.comment = self.comment()
                    # as if those before `start` had taken as long each: else what is left would seem quick
                    bar.start_t = (now := time.time()) - (now - began) * done / (done - start)
                    bar.update(done)
        finally:
            self._erase()
            if time.time() - began > REDRAW_EVERY:
                self._redraw_at = 0.0  # after a long pass the next bar appears at once

    def start_epoch(self, epoch: int) -> None:
        """Let the bars say that `epoch` (from 0) begins; the first call may name any epoch, where a run resumes."""
        self.epoch, left = epoch, self.n_epochs - epoch
        if self.face == "notebook":
            if self._epochs is None:
                self._epochs = _counter(left, lambda done, text: self._bars.update(outer=(done, left, text)))
            else:
                self._epochs.update(self._epochs.total - left)

    def write(self, cells: Sequence[str]) -> None:
        """Print one row of the table at once; the first row is its header and sets the columns."""
        if self.face == "silent":
            return
        self._rows.append([str(c) for c in listify(cells)])
        if self.face == "notebook":
            return self._show()
        self._erase()
        self._write(_table_line(self._rows[0], self._rows[-1]) + "\n")

    def graph(self, figure: Any) -> None:
        """Show a matplotlib figure under the table, replaced in place at every call; nothing outside a notebook."""
        if self.face == "notebook":
            self._figure = self._display(self._figure, figure)

    def close(self, finished: bool = True) -> None:
        """Take the bars away, so that the table remains; a notebook keeps them after a failure: they show where."""
        self._erase()
        if self.face == "notebook" and self._output is not None:
            if finished:
                self._bars.clear()
            self._show(interrupted=not finished, whole=True)

    def _draw(self, done: int, total: int | None, text: str) -> None:
        if time.monotonic() < self._redraw_at:
            return
        if self.face == "notebook":
            self._bars["inner"] = done, total, text
            self._show()
        else:
            head = "" if self.epoch is None else f"Epoch {self.epoch + 1}/{self.n_epochs} "
            columns = shutil.get_terminal_size().columns - LINE_END
            fill = "█" if "utf" in str(getattr(self.out, "encoding", "")).lower() else "#"
            line = _bar_line(head, done, total, text, columns, fill)
            line, self._line_length = line.ljust(min(self._line_length, columns)), len(line)
            self._write("\r" + line)
        self._redraw_at = time.monotonic() + REDRAW_EVERY

    def _erase(self) -> None:
        if self._line_length:
            self._write("\r" + " " * (self._line_length + LINE_END - 1) + "\r")
            self._line_length = 0

    def _write(self, text: str) -> None:
        self._try(lambda: _put(self.out, text))

    def _display(self, handle: Any, shown: Any, **kwargs: bool) -> Any:
        return self._try(lambda: _display(handle, shown, **kwargs))

    def _try(self, show: Callable[[], Any]) -> Any:
        """What `show` returns. If it fails, training goes on, and nothing is shown any more."""
        if self.face == "silent":
            return None
        try:
            return show()
        except Exception as e:
            self.face = "silent"
            _warn(e)

    def _show(self, interrupted: bool = False, whole: bool = False) -> None:
        from fastprogress.core import (  # type: ignore[import-untyped]
            html_progress_bar,
            html_progress_bar_styles,
            text2html_table,
        )
        # a metric may be called <lambda>, which HTML would not show
        bars = [html_progress_bar(*bar[:2], html.escape(bar[2]), interrupted) for bar in self._bars.values()]
        rows = self._rows
        if len(rows) > ROWS_SENT and not whole:
            rows = [rows[0], ["..."], *rows[2 - ROWS_SENT:]]
        table = text2html_table([[html.escape(c) for c in row] for row in rows]) if rows else ""
        styles = html_progress_bar_styles if bars else ""
        plain = "\n".join(_table_line(rows[0], row) for row in rows)
        shown = {"text/html": "\n".join([styles, *bars[:1], table, *bars[1:]]), "text/plain": plain}
        self._output = self._display(self._output, shown, raw=True)


class OneBar(Progress):
    """One bar over all `n_batches` of a run, however many epochs they take: a range test's.

    silent, out: see `Progress`.

    >>> list(OneBar(3).track([1, 2, 3]))
    [1, 2, 3]
    """

    def __init__(self, n_batches: int, silent: bool = False, out: TextIO | None = None) -> None:
        super().__init__(1, silent, out)
        self.n_batches, self.done = n_batches, 0
        self._bar: Any = None

    def _track(self, batches: Iterable[Any], total: int | None, start: int) -> Iterator[Any]:
        if self._bar is None:
            self._bar = _counter(self.n_batches, lambda done, text: self._draw(done, self.n_batches, text))
        for batch in batches:  # at the end of an epoch the bar stays where it is
            yield batch
            self.done += 1
            if time.monotonic() >= self._redraw_at:
                self._bar.comment = self.comment()
                self._bar.update(self.done)


def _display(handle: Any, shown: Any, **kwargs: bool) -> Any:
    from IPython.display import display
    if handle is None:
        show: Any = display  # IPython's is untyped
        return show(shown, display_id=True, **kwargs)
    handle.update(shown, **kwargs)
    return handle
