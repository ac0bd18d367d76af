"""Changes files field by field and reads them: `python fuzzed_files.py --examples 500`.

A file of weights and a checkpoint in the middle of a run are written once; each example changes one to three of their
fields (another type, shape or number, a part that is missing or one too many), or their bytes, and a process of its own
loads the file and trains on, as a new program would or as the one that wrote the file. Right is: all goes on, or an
error that names the file, before the learner is changed (where only the user's own code can know what a value must be:
later). Where a field is gone, or is of another sort, going on is only right to the same end as with the file as it was,
or with a warning. Wrong is anything else, a crash of the interpreter before all.
"""
from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import sys
import tempfile
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from minifast import run_state
from minifast.callback import Callback
from minifast.callbacks import EMA, Checkpoint, MixUpCallback
from minifast.fakes import fake_learner
from minifast.files import load_file, save_file
from minifast.learner import Learner
from minifast.metrics import accuracy

__all__ = ["main"]

RIGHT, REFUSED, LATE, UNCLEAR, CHANGED, SILENT = range(6)   # what a process says by its exit status
WORDS = {UNCLEAR: "an error that does not name the file", CHANGED: "the learner is changed, then the file refused",
         SILENT: "it goes on otherwise, and nothing is said"}


class Cut(Exception):
    """Ends a run."""


class CutAt(Callback):
    """Ends a run in a batch."""

    role = "process"

    def __init__(self, at: int | None = None) -> None:
        self.when = at

    def state_dict(self) -> dict[str, Any]:
        return {}

    def on_batch_begin(self, iteration: int, train: bool) -> None:
        if train and iteration == self.when:
            raise Cut


def learner(folder: Path, at: int | None = None) -> Learner:
    """The learner whose files are changed."""
    torch.manual_seed(1)
    layers = [nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 4)]
    return fake_learner(batch_size=4, train_length=20, layers=layers, path=folder, metrics=[accuracy],
                        callbacks=CutAt(at), callback_fns=[MixUpCallback, EMA])


def train(learn: Learner) -> None:
    """The run that is gone on with."""
    learn.fit_one_cycle(2, 0.05, callbacks=[Checkpoint(learn, "run", every=3)])


def places(x: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each field of a nest, the nests among them."""
    items = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, (list, tuple)) else ()
    return [way for key, value in items for way in [(*at, key), *places(value, (*at, key))]]


def changed(x: Any, way: tuple[Any, ...], change: Any) -> Any:
    """A copy of the nest with `change(value)` at that place; the place is gone where it returns Ellipsis."""
    if not way:
        return change(x)
    pairs = [(k, changed(v, way[1:], change) if k == way[0] else v)
             for k, v in (x.items() if isinstance(x, dict) else enumerate(x))]
    pairs = [(k, v) for k, v in pairs if v is not ...]
    return dict(pairs) if isinstance(x, dict) else type(x)(v for _, v in pairs)


plain = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.just(2**70), st.just(-1), st.floats(),
                  st.text(max_size=3), st.just([]), st.just({}), st.just(()), st.just([{}]), st.just({"a": 1}),
                  st.binary(max_size=3))
shapes = st.lists(st.integers(0, 7), max_size=3)
tensors = st.builds(lambda shape, dtype: torch.ones(shape).to(dtype), shapes, st.sampled_from(
    [torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8, torch.bfloat16, torch.complex64]))
like = st.sampled_from([
    lambda t: t * float("nan") if t.is_floating_point() else t - 1, lambda t: t.flatten()[:-1], lambda t: t[None],
    lambda t: t.double() if t.is_floating_point() else t.float(), lambda t: torch.cat([t.flatten(), t.flatten()]),
    lambda t: t.to_sparse() if t.ndim else t, lambda t: t.new_zeros(()), lambda t: t.tolist(),
    lambda t: t.mT if t.ndim > 1 else t])


def renewed(new: Any, old: Any) -> Any:
    """What takes the place of a field: a value, or for tensors a function of the one that is there."""
    if not callable(new):
        return new
    return new(old) if isinstance(old, torch.Tensor) else None


def result(learn: Learner) -> str:
    """What must be equal after an exact continuation."""
    rec = learn.recorder
    return repr([[p.tolist() for p in learn.model.state_dict().values()], rec.raw_losses.tolist(), rec.val_losses,
                 rec.metrics, list(rec.lrs)])


def outcome(kind: str, folder: Path, new: bool, must_equal: str) -> int:
    """Read the file in a process of its own and train on; what came of it. `new`: as another program than the one that
    wrote it; `must_equal`: the result that it must have where it says nothing, if that is known."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stdout = sys.stderr = io.StringIO()
    status = UNCLEAR
    try:
        if new:
            run_state.PROCESS = "another"
        learn = learner(folder)
        before = copy.deepcopy(learn.model.state_dict())
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                if kind == "w.pth":
                    learn.load("w")
                    torch.manual_seed(3)
                    learn.fit(1, 0.01)
                else:
                    train(learn)
            status = RIGHT if said or not must_equal or result(learn) == must_equal else SILENT
            (folder / "result").write_text(result(learn))
        except FloatingPointError:      # the file's own numbers
            status = RIGHT
        except Exception as e:
            said_so = "\n".join([str(e), *getattr(e, "__notes__", [])])
            named, began = kind in said_so or "run.previous.ckpt" in said_so, "had been continued" in said_so
            same = all(map(torch.equal, before.values(), learn.model.state_dict().values()))
            status = UNCLEAR if not named else LATE if began else REFUSED if same else CHANGED
            (folder / "error").write_text(f"{type(e).__name__}: {e}")
    except BaseException as e:
        (folder / "error").write_text(f"{type(e).__name__}: {e}")
    finally:
        os._exit(status)


def sort(x: Any) -> str:
    return type(x).__name__ if isinstance(x, (type(None), bool, str, bytes)) else \
        "number" if isinstance(x, (int, float, torch.Tensor)) else "list" if isinstance(x, (list, tuple)) else "dict"


def field(x: Any, way: tuple[Any, ...]) -> Any:
    """The field at that place; None if it is not there."""
    for key in way:
        x = x[key] if isinstance(x, dict) and key in x or isinstance(x, (list, tuple)) and key < len(x) else None
    return x


def is_free(way: tuple[Any, ...], new: Any, old: Any) -> bool:
    """Whether a good file could have the new value there, so that going on with it is right."""
    if way in (("what",), ("opt",)) or way[:1] == ("changed",) or callable(new):
        return True
    return way[-2:-1] == ("state",) if new is ... else not way or old is None or sort(new) == sort(old)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--examples", type=int, default=500)
    args = p.parse_args(argv)
    folder = Path(tempfile.mkdtemp())
    with contextlib.suppress(Cut):
        train(learner(folder, at=7))
    learn = learner(folder)
    learn.fit(1, 0.01)
    files = {learn.save("w").name: folder / "models" / "w.pth", "run.ckpt": folder / "models" / "run.ckpt"}
    contents = {kind: (path.read_bytes(), load_file(path)) for kind, path in files.items()}
    (folder / "models" / "run.previous.ckpt").unlink(missing_ok=True)
    expected = {}
    for kind in files:
        outcome(kind, folder, True, "")
        expected[kind] = (folder / "result").read_text()
    counts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()

    @settings(max_examples=args.examples, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.data())
    def fuzz(data: Any) -> None:
        kind = data.draw(st.sampled_from(sorted(files)))
        raw, content = contents[kind]
        new, exact = data.draw(st.booleans()), True
        if data.draw(st.integers(0, 4)) == 0:
            at = data.draw(st.integers(0, len(raw) - 1))
            how = data.draw(st.sampled_from(["cut", "flip", "insert", "add"]))
            flipped = raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1:]
            bad = {"cut": raw[:at], "flip": flipped, "insert": raw[:at] + b"\0" + raw[at:], "add": raw + raw[:at]}[how]
            files[kind].write_bytes(bad)
            what = f"bytes, {how} at {at}"
        else:
            whats = []
            for _ in range(data.draw(st.integers(1, 3))):
                way = data.draw(st.sampled_from(places(content) or [()]))
                value = data.draw(st.one_of(plain, tensors, like, st.just(...)))
                exact = exact and not is_free(way, value, field(contents[kind][1], way))
                content = changed(content, way, partial(renewed, value))
                content = {} if content is ... else content
                whats.append(f"{'.'.join(map(str, way))}: {'another like it' if callable(value) else repr(value)[:40]}")
            try:
                save_file(content, files[kind])
            except TypeError:   # a field that cannot be in a file
                return
            what = "; ".join(whats)
        status = outcome(kind, folder, new, expected[kind] if exact else "")
        counts[kind] += 1
        counts["refused"] += status == REFUSED
        counts["late"] += status == LATE
        counts["crashes"] += status < 0
        if status not in (RIGHT, REFUSED, LATE):
            error = folder / "error"
            text = error.read_text().splitlines()[0][:150] if error.exists() and status > 0 else ""
            wrong[f"{kind}: {WORDS.get(status, f'signal {-status}')}: {text} <- {what}"] += 1
        (folder / "error").unlink(missing_ok=True)

    fuzz()
    print(f"{counts['w.pth']} files of weights, {counts['run.ckpt']} checkpoints: {counts['refused']} refused by name, "
          f"{counts['late']} named when training went on, {counts['crashes']} crashes, {sum(wrong.values())} wrong",
          *sorted(wrong), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
