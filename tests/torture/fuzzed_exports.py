"""Changes exported learners field by field and loads them: `python fuzzed_exports.py --examples 500`.

A small network's file is written once; each example changes one to three of its fields (another type, shape, number or
operation, a part that is missing or one too many) and gives the file a new checksum, or changes its bytes. A process of
its own loads the file and predicts. Right is: it predicts, or a ValueError that names the file. Wrong is anything else,
a crash of the interpreter or a file that appears beside it before all.
"""
from __future__ import annotations

import argparse
import io
import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minifast.fakes import fake_data
from minifast.files import load_file, save_file
from minifast.vision import Learner, load_learner

__all__ = ["fuzz", "main"]

RIGHT, REFUSED, UNCLEAR = range(3)      # what a process says by its exit status
SECONDS = 60        # after which a process is ended by its alarm


def network() -> nn.Module:
    """One with the usual kinds of calls: convolution, batch norm, pooling, views, lists, sizes, a gain of its own."""
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, 1)
            x = torch.cat([a * self.gain[0], b.flip(-1)], 1)
            weights = torch.einsum("nct,ncu->ntu", x, x).softmax(-1)
            return (x @ weights).view(x.shape[0], -1) + torch.arange(20, device=x.device, dtype=x.dtype)

    return nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4),
                         nn.ReLU(inplace=True), Attend(), nn.Dropout(0.2), nn.Linear(20, 4))


def places(x: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each field of a nest, the nests among them."""
    items = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, (list, tuple)) else ()
    return [way for key, value in items for way in [(*at, key), *places(value, (*at, key))]]


def changed(x: Any, way: tuple[Any, ...], new: Any) -> Any:
    """A copy of the nest with `new(value)` at that place, which is gone where it returns Ellipsis."""
    if not way:
        return new(x)
    pairs = [(k, changed(v, way[1:], new) if k == way[0] else v)
             for k, v in (x.items() if isinstance(x, dict) else enumerate(x))]
    pairs = [(k, v) for k, v in pairs if v is not ...]
    return dict(pairs) if isinstance(x, dict) else type(x)(v for _, v in pairs)


def another(value: Any, draw: random.Random) -> Any:
    """What takes the place of a field."""
    if isinstance(value, torch.Tensor) and draw.random() < 0.6:
        return draw.choice([lambda t: t.flatten()[:-1], lambda t: t[None], lambda t: t.double(), lambda t: t.long(),
                            lambda t: t * float("nan") if t.is_floating_point() else t - 1, lambda t: t.tolist(),
                            lambda t: t.to_sparse() if t.ndim else t, lambda t: torch.cat([t.flatten()] * 2),
                            lambda t: t.new_zeros(()), lambda t: t.mT if t.ndim > 1 else t])(value)
    if isinstance(value, str) and draw.random() < 0.6:
        names = ("as_strided", "from_file", "conv2d", "view", "gather", "embedding", "linear", "zeros", "set_",
                 "max_pool2d", "unfold", "bincount", "one_hot", "upsample_nearest1d", "index_select", "take", "scatter")
        return draw.choice([f"aten.{draw.choice(names)}.default", "aten.index.Tensor", "aten.empty.memory_format",
                            "mul", "getitem", "os.system", "float64", "../../x"])
    if type(value) is int and draw.random() < 0.6:
        return draw.choice([value + 1, value - 1, -value, value * 1000, 0, 2**40, -2**63])
    return draw.choice([..., None, True, -1, 0, 3, 2**70, float("nan"), float("inf"), "", "x", b"x", [], {}, [[]],
                        {"result": 0}, {"result": 3}, {"result": 10**6}, {"device": ""}, {"dtype": "float64"},
                        {"dtype": "load"}, {"memory_format": "channels_last"}, torch.ones(2, 3), torch.zeros(0),
                        [1, 2, 3], [10**6, 10**6], (), [{"result": 1}] * 3])


def outcome(file: Path, x: torch.Tensor) -> int:
    """Load the file in a process of its own and predict; what came of it."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = UNCLEAR
    try:
        import resource
        import signal
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))     # a huge tensor is an error, as on a small machine
        sys.stdout = sys.stderr = io.StringIO()
        warnings.simplefilter("ignore")
        learn = load_learner(file, device="cpu")
        try:
            learn.get_preds(x)
            learn.predict(x[0])
            status = RIGHT
        except (ValueError, TypeError, RuntimeError, IndexError) as e:      # of data that the file describes otherwise
            status = RIGHT if str(e) else UNCLEAR
    except (ValueError, FileNotFoundError) as e:
        status = REFUSED if file.name in str(e) else UNCLEAR
        (file.parent / "error").write_text(f"{type(e).__name__}: {e}")
    except BaseException as e:
        (file.parent / "error").write_text(f"{type(e).__name__}: {e}")
    finally:
        os._exit(status)


def fuzz(examples: int, folder: Path, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """(how many of each outcome, what went wrong) of that many changed files."""
    torch.manual_seed(0)
    learn = Learner(fake_data(), network(), silent=True)
    good = learn.export(folder / "good.mf")
    raw, content = good.read_bytes(), load_file(good)
    file, x, draw = folder / "fuzzed.mf", torch.randn(3, 5), random.Random(seed)
    counts: Counter[str] = Counter()
    wrong = []
    ways = places(content)
    assert outcome(good, x) == RIGHT
    while counts["files"] < examples:
        if draw.random() < 0.2:
            at = draw.randrange(len(raw))
            flipped = raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1:]
            file.write_bytes(draw.choice([raw[:at], flipped, raw[:at] + b"\0" + raw[at:], raw + raw[:at]]))
            what = f"bytes at {at}"
        else:
            new, said = content, []
            for way in draw.sample(ways, draw.randint(1, 3)):
                try:
                    new = changed(new, way, lambda value: another(value, draw))
                except (TypeError, AttributeError):     # its place is gone already
                    continue
                said.append(".".join(map(str, way)))
            try:
                save_file(new, file)
            except TypeError:   # a field that cannot be in a file
                continue
            what = ", ".join(said)
        before = sorted(folder.iterdir())
        status = outcome(file, x)
        counts["files"] += 1
        counts["right"] += status == RIGHT
        counts["refused"] += status == REFUSED
        counts["crashes"] += status < 0
        error = folder / "error"
        if status not in (RIGHT, REFUSED):
            text = error.read_text().splitlines()[0][:200] if error.exists() else ""
            wrong.append(f"status {status}: {text} <- {what}")
        error.unlink(missing_ok=True)
        if strays := [path.name for path in folder.iterdir() if path not in before]:
            wrong.append(f"a file appeared: {strays} <- {what}")
    return counts, wrong


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--examples", type=int, default=500)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        counts, wrong = fuzz(args.examples, Path(folder), args.seed)
    print(f"{counts['files']} changed files: {counts['refused']} refused by name, {counts['right']} predicted, "
          f"{counts['crashes']} crashes, {len(wrong)} wrong", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
