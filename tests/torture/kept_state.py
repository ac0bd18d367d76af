"""State of every kind in every place goes on with a run, or is named: `python kept_state.py`.

A thing that changes with each use (a number, a container, a generator of random numbers, a second network, ...) stands
in an attribute of a callback, a model, a loss, a batch transform or a data set, or in a function, and the training
depends on it. A run that is cut in mid-epoch and continued by new objects must end as the uncut one, and a run after
`lr_find` as the one without; or a warning must have said that it cannot. Then the same with loaders of many kinds.
"""
from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from minifast import run_state
from minifast.callback import Callback
from minifast.callbacks import Checkpoint
from minifast.learner import Learner

sys.path.insert(0, str(Path(__file__).parent))

from loaders_of_kinds import LOADERS
from state_of_kinds import KINDS, PLACES

__all__ = ["main", "resumed", "searched"]

Make = Callable[[Path], Learner]


class Cut(Exception):
    """Ends a run."""


class CutAt(Callback):
    """Ends a run in a batch, of training or of a validation."""

    role = "process"

    def __init__(self) -> None:
        self.at: tuple[int, bool] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def on_batch_end(self, iteration: int, train: bool) -> None:
        if (iteration, train) == self.at:
            raise Cut


def train(learn: Learner, **kwargs: Any) -> None:
    learn.fit(3, 0.02, callbacks=[Checkpoint(learn, "run", every=1)], **kwargs)


def result(learn: Learner) -> list[Any]:
    """What must be equal."""
    rec = learn.recorder
    return [rec.raw_losses.tolist(), rec.val_losses, [p.tolist() for p in learn.model.parameters()]]


def fresh(make: Make, folder: Path) -> Learner:
    torch.manual_seed(0)
    run_state.PROCESS = folder.name     # as a new program has another one
    learn = make(folder)
    learn.callbacks.append(CutAt())
    return learn


def resumed(make: Make, at: int, in_validation: bool = False) -> str:
    """Empty if the run goes on exactly, or what is said if it does not; else what is wrong."""
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b, \
            warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        whole = fresh(make, Path(a))
        train(whole)
        said.clear()
        cut = fresh(make, Path(b))
        cut.callbacks[-1].at = at, not in_validation
        try:
            train(cut)
            return "WRONG: it is not cut"
        except Cut:
            pass
        again = fresh(make, Path(b))
        train(again)
        return judged(result(again) == result(whole), said)


def searched(make: Make, at: int = 0) -> str:
    """The same for `lr_find`: the run after it."""
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b, \
            warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = []
        for folder in (Path(a), Path(b)):
            learn = fresh(make, folder)
            learn.fit(1, 0.02)      # there is something to lose
            if folder == Path(b):
                said.clear()
                learn.lr_find(num_it=7)
            learn.fit(1, 0.02)
            found.append(result(learn))
        return judged(found[0] == found[1], said)


def judged(exact: bool, said: list[Any]) -> str:
    text = " / ".join(str(w.message) for w in said)
    if exact:
        return f"exact, and yet it says: {text}" if text and "cannot" in text else ""
    return f"named: {text}" if "cannot" in text else f"WRONG: another end, and nothing is said ({text})"


def place(kind: str, where: str) -> Make:
    """A learner whose training depends on that kind of thing in that place."""
    return lambda folder: PLACES[where](KINDS[kind], folder)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", default="", help="part of a kind's, a place's or a loader's name")
    p.add_argument("-v", "--verbose", action="store_true", help="also what is named")
    args = p.parse_args(argv)
    cases: dict[str, Make] = {f"{kind} in {where}": place(kind, where) for kind in KINDS for where in PLACES}
    cases |= {f"loader: {name}": make for name, make in LOADERS.items()}
    torch.set_num_threads(1)
    counts = {"exact": 0, "named": 0, "wrong": 0}
    for name, make in cases.items():
        if args.only not in name:
            continue
        for how, trial in (("resumed in training", lambda m: resumed(m, 7)),
                           ("resumed in validation", lambda m: resumed(m, 10, in_validation=True)),
                           ("after lr_find", searched)):
            try:
                found = trial(make)
            except Exception as e:
                found = f"WRONG: {type(e).__name__}: {e}"
            gc.collect()    # loaders that are garbage would be inherited by worker processes
            sort = "wrong" if "WRONG" in found else "named" if found else "exact"
            counts[sort] += 1
            if sort == "wrong" or found and args.verbose:
                print(f"{name}, {how}: {found}", flush=True)
    print(f"{sum(counts.values())} runs with state of {len(KINDS)} kinds in {len(PLACES)} places and {len(LOADERS)} "
          f"kinds of loaders: {counts['exact']} exact, {counts['named']} with a warning, {counts['wrong']} wrong")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
