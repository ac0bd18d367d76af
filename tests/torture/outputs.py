"""Broken standard outputs: `python outputs.py`.

Each is what a program may find in place of its standard output: without `isatty` or `flush`, closed, full, gone, a pipe
that nobody reads, one that cannot encode a name. A fit, `lr_find` and `check` must come to the same numbers as with a
good one, and where something could not be shown, a warning says so.
"""
from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from minifast.callbacks import Checkpoint, CSVLogger, EarlyStoppingCallback, SaveModelCallback
from minifast.fakes import fake_learner
from minifast.learner import Learner
from minifast.metrics import accuracy

__all__ = ["OUTPUTS", "main", "trial"]


class OnlyWrite:
    """Has a `write` and nothing else."""

    def write(self, text: str) -> int:
        return len(text)


class WriteAndFlush(OnlyWrite):
    def flush(self) -> None:
        pass


class Failing(io.StringIO):
    """Raises after some writes, or in flush, or says that it is a terminal and raises."""

    def __init__(self, error: BaseException, after: int = 0, in_flush: bool = False, tty: bool = False) -> None:
        super().__init__()
        self.error, self.left, self.in_flush, self.tty = error, after, in_flush, tty

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0 and not self.in_flush:
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.left < 0 and self.in_flush:
            raise self.error


class NoIsatty(io.StringIO):
    def isatty(self) -> bool:
        raise AttributeError("isatty")


class OddNumber(io.StringIO):
    """Returns something else than a number of characters, and has an encoding that is none."""

    encoding: Any = 3

    def write(self, text: str) -> Any:
        super().write(text)


def closed() -> io.StringIO:
    out = io.StringIO()
    out.close()
    return out


@contextlib.contextmanager
def held(file: Any) -> Iterator[Any]:
    """A file that cannot be closed without an error."""
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):
            file.close()


def full() -> Any:
    return held(open("/dev/full", "w"))


def unread_pipe() -> Any:
    read, write = os.pipe()
    os.close(read)
    return held(os.fdopen(write, "w"))


def closed_descriptor() -> Any:
    read, write = os.pipe()
    file = os.fdopen(write, "w")
    os.close(write)
    os.close(read)
    return held(file)


def lost_terminal() -> Any:
    master, slave = os.openpty()
    file = os.fdopen(slave, "w")
    os.close(master)
    return held(file)


def encoded(name: str, errors: str = "strict") -> Callable[[], Any]:
    return lambda: io.TextIOWrapper(io.BytesIO(), encoding=name, errors=errors)


def failing(number: int, **kwargs: Any) -> Callable[[], Any]:
    return lambda: Failing(OSError(number, os.strerror(number)), **kwargs)


OUTPUTS: dict[str, Callable[[], Any]] = {
    "none": lambda: None, "only write": OnlyWrite, "write and flush": WriteAndFlush, "isatty raises": NoIsatty,
    "write returns nothing": OddNumber, "closed": closed, "full": full, "a pipe that nobody reads": unread_pipe,
    "closed descriptor": closed_descriptor, "a terminal that is gone": lost_terminal,
    "EIO": failing(errno.EIO), "EPIPE": failing(errno.EPIPE), "ENOSPC in flush": failing(errno.ENOSPC, in_flush=True),
    "EAGAIN after two lines": failing(errno.EAGAIN, after=2),
    "EIO of a terminal": failing(errno.EIO, after=3, tty=True),
    "a terminal's ValueError": lambda: Failing(ValueError("I/O operation on closed file"), tty=True),
    "an error of another kind": lambda: Failing(RuntimeError("the kernel is gone"), after=1),
    "ascii": encoded("ascii"), "latin-1": encoded("latin-1"), "utf-16": encoded("utf-16"),
    "ascii, ignored": encoded("ascii", "ignore"),
}
MAY_WARN = {name for name in OUTPUTS if name not in ("none", "only write", "write and flush", "isatty raises", "ascii",
                                                     "write returns nothing", "latin-1", "utf-16", "ascii, ignored")}


def work(folder: Path) -> list[Any]:
    """Everything that writes to the standard output; returns numbers that must not depend on it."""
    torch.manual_seed(0)

    def genauigkeit_ü(output: Any, target: Any) -> Any:
        return accuracy(output, target)
    genauigkeit_ü.__name__ = "genauigkeit ü €"
    learn: Learner = fake_learner(batch_size=4, train_length=20, path=folder, metrics=[genauigkeit_ü], silent=False)
    learn.check()
    learn.lr_find(num_it=6)
    learn.recorder.plot(suggestion=True, return_fig=True)
    callbacks = [SaveModelCallback(learn), EarlyStoppingCallback(learn, patience=9), CSVLogger(learn),
                 Checkpoint(learn, "run", every=2)]
    learn.fit_one_cycle(3, 0.01, callbacks=callbacks)
    learn.validate()
    learn.get_preds()
    return [learn.recorder.raw_losses.tolist(), learn.recorder.val_losses,
            [p.tolist() for p in learn.model.parameters()], (folder / "history.csv").read_text().count("\n")]


def trial(name: str, expected: list[Any] | None = None) -> str:
    """Empty if all is as with a good output, else what is wrong."""
    before = sys.stdout
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack, \
            warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = OUTPUTS[name]() if name in OUTPUTS else io.StringIO()
        out = stack.enter_context(made) if isinstance(made, contextlib.AbstractContextManager) and not hasattr(
            made, "write") else made
        sys.stdout = out
        try:
            found = work(Path(folder))
        except Exception as e:
            return f"{type(e).__name__}: {e}"
        finally:
            sys.stdout = before
    if expected is None:
        return repr(found)
    texts = [str(w.message) for w in said]
    if odd := [t for t in texts if "cannot be written to" not in t]:
        return f"it warns of {odd[0]}"
    if texts and name not in MAY_WARN:
        return f"it warns: {texts[0]}"
    if name in MAY_WARN and not texts:
        return "nothing is said"
    if repr(found) != repr(expected):
        return "other numbers"
    return ""


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        expected = work(Path(folder))
    wrong = {name: found for name in OUTPUTS if (found := trial(name, expected))}
    print(f"{len(OUTPUTS)} broken standard outputs: {len(wrong)} that changed a training or hid that nothing is shown")
    for name, found in wrong.items():
        print(f"{name}: {found}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
