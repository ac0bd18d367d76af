"""What a person sees of a run: in a file, in a terminal, in a notebook."""
import contextlib
import errno
import io
import os
import re
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from minifast import progress
from minifast.callbacks import Timer
from minifast.fakes import fake_learner
from minifast.progress import Progress, format_time

NAMES = ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
ROW = ["0", "0.100888", "0.058969", "0.978901", "00:03"]
HEADER_LINE = "epoch     train_loss  valid_loss  accuracy  time"
ROW_LINE = "0         0.100888    0.058969    0.978901  00:03"


class Terminal:
    """A pseudo-terminal: programs write to `out`, `raw` is what came through, `screen` what a person then sees."""

    def __init__(self, encoding="utf-8"):
        self.main, end = os.openpty()
        self.out = os.fdopen(end, "w", encoding=encoding)
        self.bytes = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while not self.bytes.endswith(b"\0"):
            self.bytes += os.read(self.main, 4096)

    def close(self):
        self.out.write("\0")
        self.out.close()
        self.reader.join(5)
        os.close(self.main)
        self.raw = self.bytes.rstrip(b"\0").decode().replace("\r\n", "\n")

    @property
    def screen(self):
        lines = []
        for line in self.raw.split("\n"):
            seen = []
            for part in line.split("\r"):
                seen[:len(part)] = part
            lines.append("".join(seen).rstrip())
        return lines


@pytest.fixture
def terminal():
    if not hasattr(os, "openpty"):
        pytest.skip("no pseudo-terminals here")
    made = Terminal()
    yield made
    if not made.out.closed:  # the test failed before it came to read
        made.close()


@pytest.fixture
def every_batch(monkeypatch):
    monkeypatch.setattr(progress, "REDRAW_EVERY", 0)


@pytest.mark.parametrize("seconds, text", [(0, "00:00"), (3.99, "00:03"), (61, "01:01"), (3599.9, "59:59"),
                                           (3600, "1:00:00"), (36_610, "10:10:10")])
def test_format_time(seconds, text):
    assert format_time(seconds) == text


# plain: files, pipes, pytest

def test_plain_is_whole_lines_without_control_characters_or_trailing_blanks():
    out = io.StringIO()
    with Progress(1, out=out) as bar:
        assert bar.face == "plain"
        bar.write(NAMES)
        bar.comment = lambda: pytest.fail("nobody sees a comment here")
        bar.start_epoch(0)
        assert list(bar.track([1, 2])) == [1, 2]
        bar.write(ROW)
    assert out.getvalue() == f"{HEADER_LINE}\n{ROW_LINE}\n"


def test_without_bars_the_loop_gets_the_bare_iterator():
    batches = iter([1, 2])
    assert Progress(1, out=io.StringIO()).track(batches) is batches
    assert Progress(1, silent=True).track(batches) is batches


def test_a_wide_value_moves_only_what_it_must():
    out = io.StringIO()
    bar = Progress(1, out=out)
    bar.write(["epoch", "train_loss", "f1", "time"])
    bar.write(["0", "123456.058969", "0.9", "00:03"])
    bar.write(["10", "1.0", "0.9", "1:00:03"])
    assert out.getvalue().splitlines() == ["epoch     train_loss  f1        time",
                                           "0         123456.058969  0.9    00:03",
                                           "10        1.0         0.9       1:00:03"]


def test_each_row_is_flushed(tmp_path):
    with (tmp_path / "log").open("w") as out:
        Progress(1, out=out).write(["epoch"])
        assert (tmp_path / "log").read_text() == "epoch\n"


def test_silent_prints_nothing(capsys):
    with Progress(1, silent=True) as bar:
        bar.write(NAMES)
        bar.start_epoch(0)
        list(bar.track([1]))
        bar.graph(None)
    assert capsys.readouterr() == ("", "")


def test_stdout_is_looked_up_when_a_run_starts(capsys):
    Progress(1).write(["epoch"])
    assert capsys.readouterr().out == "epoch\n"


def test_no_stdout_at_all_is_silent(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert Progress(1).face == "silent"


def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert Progress(1, out=terminal.out).face == "plain"
    terminal.close()


# terminal

def test_terminal_shows_a_bar_and_leaves_only_the_table(terminal, every_batch):
    with Progress(2, out=terminal.out) as bar:
        assert bar.face == "terminal"
        bar.write(NAMES)
        for epoch in range(2):
            bar.start_epoch(epoch)
            bar.comment = iter(["0.5000", "0.25"]).__next__
            assert list(bar.track([7, 8])) == [7, 8]
            bar.write(ROW)
    terminal.close()
    assert terminal.screen == [HEADER_LINE, ROW_LINE, ROW_LINE, ""]
    drawn = [s.rstrip() for s in terminal.raw.split("\r")]
    assert "Epoch 1/2 |████████████------------| 50.00% [1/2 00:00<00:00 0.5000]" in drawn
    assert "Epoch 2/2 |████████████████████████| 100.00% [2/2 00:00<00:00 0.25]" in drawn


def test_the_comment_is_asked_for_when_a_bar_is_drawn_and_not_per_batch(terminal):
    asked = []
    bar = Progress(1, out=terminal.out)
    bar.comment = lambda: asked.append(time.monotonic()) or "0.1"
    for _ in range(3):  # short passes share the clock
        for _ in bar.track(range(60)):
            time.sleep(0.002)
    terminal.close()
    assert 1 <= len(asked) <= 4
    assert all(b - a >= progress.REDRAW_EVERY for a, b in zip(asked, asked[1:], strict=False))


@pytest.mark.parametrize("how", ["break", "raise"])
def test_a_pass_that_is_cut_short_ends_its_source_and_its_line(terminal, every_batch, how):
    ended = []

    def batches():
        try:
            yield from range(5)
        finally:
            ended.append(True)

    bar = Progress(1, out=terminal.out)
    bar.write(NAMES)
    try:
        for i in bar.track(batches(), total=5):
            if i == 2:
                if how == "break":
                    break
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        bar.close(finished=False)
    assert ended
    terminal.out.write("Traceback")
    terminal.close()
    assert "60.00%" not in terminal.raw and "40.00% [2/5" in terminal.raw
    assert terminal.screen == [HEADER_LINE, "Traceback"]


def test_a_bar_stays_on_one_line_of_a_narrow_terminal(terminal, every_batch, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    bar = Progress(100, out=terminal.out)
    bar.comment = lambda: "a long comment behind it"
    bar.start_epoch(41)
    list(bar.track(range(3)))
    terminal.close()
    drawn = terminal.raw.split("\r")
    assert max(map(len, drawn)) < 30 and drawn[1].startswith("Epoch 42/100 0.00% [0/3")


def test_batches_without_a_length_are_counted(terminal, every_batch):
    list(Progress(1, out=terminal.out).track(c for c in "abcdefghijkl"))
    assert list(Progress(1, out=terminal.out).track([])) == []
    terminal.close()
    assert all(f"[{done}/?" in terminal.raw for done in range(13))


@pytest.mark.parametrize("train_length", [20, 100])     # epochs of 4 and 20 batches
def test_a_range_test_counts_its_own_batches(terminal, every_batch, monkeypatch, train_length):
    monkeypatch.setattr(sys, "stdout", terminal.out)
    fake_learner(train_length=train_length, silent=False).lr_find(num_it=6, stop_div=False)
    monkeypatch.undo()
    terminal.close()
    counts = re.findall(r"\[(\d+)/(\d+) ", terminal.raw)
    assert counts == [(str(done), "6") for done in range(6)]    # the sixth batch ends it
    assert terminal.screen[0].startswith("LR finder is complete")


def test_a_pass_that_goes_on_counts_from_where_it_was(terminal, every_batch):
    with Progress(2, out=terminal.out) as bar:
        bar.start_epoch(1)
        assert list(bar.track(iter(range(15)), total=20, start=5)) == list(range(15))
    terminal.close()
    counts = re.findall(r"(\d+)/20", terminal.raw)
    assert counts[0] == "5" and counts[-1] == "20" and "/15" not in terminal.raw


def test_characters_that_the_terminal_has(every_batch):
    terminal = Terminal(encoding="ascii")
    list(Progress(1, out=terminal.out).track(range(2)))
    terminal.close()
    assert "|############------------| 50.00%" in terminal.raw


# notebook

def test_notebook_grows_a_table_and_marks_a_failure():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    setup = """
        import sys
        from minifast import progress
        print("fastprogress" in sys.modules)
        progress.REDRAW_EVERY = 0
        def run(epochs, fail=False):
            with progress.Progress(5) as bar:
                bar.write(["epoch", "<lambda>"])
                for epoch in epochs:
                    bar.start_epoch(epoch)
                    for _ in bar.track(range(4)):
                        assert not (fail and epoch == 4)
                    bar.write([str(epoch), "#na#"])
            return bar.face
        print(run([0, 1]))
    """
    cells = [textwrap.dedent(setup), "run([3, 4], fail=True)"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(book, allow_errors=True, timeout=60).execute()

    imported, table, face = book.cells[0].outputs
    assert imported.text == "False\n"  # fastprogress is, when a bar is drawn
    assert face.text == "notebook\n"
    assert table.data["text/plain"] == "epoch     <lambda>\n0         #na#\n1         #na#"
    html = table.data["text/html"]
    assert html.count("<tr") == 3 and "<th>&lt;lambda&gt;</th>" in html and "<progress " not in html

    html = book.cells[1].outputs[0].data["text/html"]
    assert html.count("<tr") == 2 and html.count("class='progress-bar-interrupted'") == 2
    assert "50.00% [1/2" in html  # it resumed at epoch 3 of 5, and one of the two left is done
    assert html.index("<progress value='1'") < html.index("<table") < html.index("<progress value='0'")


# ---- an output that fails

class Broken:
    """A stream that can do `n` writes; then they raise `error`."""

    def __init__(self, error, n=0, **attributes):
        self.error, self.left, self.written = error, n, []
        vars(self).update(attributes)

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise self.error
        self.written.append(text)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


FAILING = [lambda n=n, e=e: Broken(e, n) for n in (0, 2) for e in (
    OSError(errno.EIO, "gone"), BrokenPipeError(errno.EPIPE, "gone"), OSError(errno.ENOSPC, "full"), ValueError("no"))]
FAILING += [closed, lambda: open("/dev/full", "w"),
            lambda: Broken(OSError(errno.EIO, "gone"), 1, isatty=lambda: True, encoding=None)]


@pytest.mark.parametrize("stream", FAILING)
def test_an_output_that_fails_is_one_warning_and_no_end_of_training(stream, monkeypatch, every_batch):
    quiet, loud = fake_learner(), fake_learner(silent=False, callback_fns=[Timer])
    quiet.fit(3)
    monkeypatch.setattr(sys, "stdout", stream())
    with pytest.warns(UserWarning, match="the output cannot be written to .*; all goes on without it") as caught:
        loud.fit(3)
    assert len(caught) == 1
    assert len(loud.recorder.train_losses) == 3 and loud.stopped is None
    assert all(map(torch.equal, quiet.model.parameters(), loud.model.parameters()))
    with contextlib.suppress(OSError, AttributeError):
        sys.stdout.close()


@pytest.mark.parametrize("call", [lambda learn: learn.lr_find(num_it=12), lambda learn: learn.check(),
                                  lambda learn: learn.recorder.plot(suggestion=True, return_fig=True)])
def test_other_prints_do_not_raise_either(call, monkeypatch):
    learn = fake_learner(train_length=60)
    learn.lr_find(num_it=30)
    learn.silent = False
    monkeypatch.setattr(sys, "stdout", Broken(OSError(errno.EIO, "gone")))
    with pytest.warns(UserWarning, match="the output cannot be written to"):
        call(learn)


@pytest.mark.parametrize("stream", [Broken(None, 99), Broken(None, 99, flush=lambda: None, encoding=None)])
def test_a_stream_needs_a_write_and_nothing_else(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    learn = fake_learner(silent=False, train_length=60)
    learn.fit(2)
    learn.lr_find(num_it=12)
    assert [line.split()[0] for line in "".join(stream.written).splitlines()] == ["epoch", "0", "1", "LR"]


def test_a_name_that_cannot_be_encoded_is_escaped(monkeypatch):
    def größe(output, target):
        return output.mean()
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    fake_learner(silent=False, metrics=[größe]).fit(1)
    text = stream.buffer.getvalue().decode()
    assert text.splitlines()[0].split()[:4] == ["epoch", "train_loss", "valid_loss", r"gr\xf6\xdfe"]
    assert len(text.splitlines()) == 2


def test_a_notebook_whose_display_fails_goes_on(monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("the kernel has lost its connection")
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress, "_display", fails)
    learn = fake_learner(silent=False)
    with pytest.warns(UserWarning, match="lost its connection.*all goes on without it") as caught:
        learn.fit(3)
    assert len(caught) == 1 and len(learn.recorder.train_losses) == 3


def test_what_a_notebook_is_sent_grows_linearly(monkeypatch):
    sent = []

    def display(handle, shown, **kwargs):
        sent.append(sum(map(len, shown.values())))
        return "handle"
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress, "_display", display)
    with Progress(5000) as shown:
        shown.write(NAMES)
        totals: list[int] = []
        for epoch in range(5000):
            shown.write([str(epoch), *ROW[1:]])
            totals.append(sum(sent))
            sent[:] = [totals[-1]]
    assert totals[4999] < 2.1 * totals[2499] and max(totals[i + 1] - totals[i] for i in range(4999)) < 20_000
    assert sent[-1] > 5000 * len(" ".join(ROW))     # at its end the whole table is shown, once


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("end", ["> /dev/full", "| head -c 1 > /dev/null", ">&-"])
def test_the_program_ends_well_where_its_output_does_not(tmp_path, end):
    program = ("import sys, minifast.__main__ as m; from minifast.progress import say; "
               "[say('a line') for _ in range(3000)]; m.leave(0)")
    done = subprocess.run(["bash", "-c", f"{sys.executable} -c \"{program}\" {end}; echo ${{PIPESTATUS[0]}} >&2"],
                          capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert lines[-1] == "0" and len([line for line in lines if "UserWarning" in line]) <= 1
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
