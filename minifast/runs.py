"""`Run`, what a fit recorded as plain arrays, and `compare`: several runs in one figure."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .plots import PER_ROW, finished

__all__ = ["Run", "compare"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Run:
    """What a learner's recorder holds now, to keep it when the next fit begins. `a + b` is one run of two stages, such
    as with a frozen body and without.

    losses, raw_losses, lrs, moms: of each batch, (batches,): see `Recorder`.
    at: how many batches were done at the end of each epoch.
    columns: the table's columns by name, from train_loss on: a number or None for each epoch.
    stages: how many batches were done where a later stage began.
    settings: the run's hyper-parameters, of the last stage: see `Learner.settings`.

    >>> learn = fake_learner(metrics=[accuracy])
    >>> learn.fit(2); first = Run.of(learn)
    >>> learn.fit(1); both = first + Run.of(learn)
    >>> both.at, both.stages, len(both.columns["accuracy"])
    ([2, 4, 6], [4], 3)
    """

    losses: Array
    raw_losses: Array
    lrs: Array
    moms: Array
    at: list[int]
    columns: dict[str, list[Any]]
    stages: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Any) -> Run:
        """The last fit of a learner; a Run unchanged; a list of either as the stages of one.

        TypeError for anything else, ValueError for a learner without a fit.
        """
        if isinstance(run, Run):
            return run
        if isinstance(run, (list, tuple)) and run:
            stages = [cls.of(stage) for stage in run]
            return sum(stages[1:], stages[0])
        if not hasattr(run, "recorder"):
            raise TypeError(f"a run must be a learner, a Run or a list of these, not {run!r}")
        rec = run.recorder
        if not len(rec.lrs):
            raise ValueError("the learner has no fit behind it: there is no run")
        names = [name for name in rec.names[3:] if not (name == "time" and rec.add_time)]
        columns = {"train_loss": list(rec.train_losses), "valid_loss": list(rec.val_losses),
                   **{name: [row[i] for row in rec.metrics] for i, name in enumerate(names)}}
        losses, raw_losses, lrs, moms = map(np.array, (rec.losses, rec.raw_losses, rec.lrs, rec.moms))
        return cls(losses, raw_losses, lrs, moms, np.cumsum(rec.nb_batches).tolist(), columns, settings=run.settings())

    def __add__(self, other: Run) -> Run:
        done = len(self.lrs)
        losses, raw_losses, lrs, moms = (np.concatenate([getattr(self, name), getattr(other, name)])
                                         for name in ("losses", "raw_losses", "lrs", "moms"))
        columns = {name: [value for run in (self, other) for value in run.columns.get(name, [None] * len(run.at))]
                   for name in {**self.columns, **other.columns}}
        return Run(losses, raw_losses, lrs, moms, [*self.at, *(done + n for n in other.at)], columns,
                   [*self.stages, done, *(done + n for n in other.stages)], other.settings)


def compare(runs: Mapping[str, Any], columns: Any = None, return_fig: bool = False) -> Any:
    """Draw several runs into one figure: the smoothed training loss, the validation loss and each metric have axes of
    their own, in which each run is a line of one colour. Dotted lines mark where a later stage of a run began.

    runs: by name, each a learner (its last fit), a `Run`, or a list of these, which are the stages of one run.
    columns: the names of the columns to draw; None: all.
    return_fig: return the figure instead of showing it.

    TypeError or ValueError for what is no run, or has no such column.

    >>> a, b = fake_learner(metrics=[accuracy]), fake_learner(metrics=[accuracy])
    >>> a.fit(2, 1e-2); b.fit_one_cycle(2, 1e-1)
    >>> figure = compare({"flat": a, "1cycle": b}, return_fig=True)
    >>> [axis.get_ylabel() for axis in figure.axes]
    ['train_loss, smoothed', 'valid_loss', 'accuracy']
    """
    import matplotlib.pyplot as plt
    if not isinstance(runs, Mapping) or not runs:
        raise TypeError(f"runs must be a dict of runs by name, {{'flat': learn}}, not {runs!r}")
    found = {str(name): Run.of(run) for name, run in runs.items()}
    known = list(dict.fromkeys(name for run in found.values() for name in run.columns))
    names = known if columns is None else [columns] if isinstance(columns, str) else list(columns)
    if odd := [name for name in names if name not in known]:
        raise ValueError(f"no run has a column {odd[0]!r}; there are {', '.join(known)}")
    wide = min(len(names), PER_ROW)
    high = -(-len(names) // wide)
    figure = plt.figure(figsize=(4.5 * wide, 3.3 * high + 0.5), layout="constrained")
    colours = plt.get_cmap("tab10" if len(found) <= 10 else "viridis", len(found) if len(found) > 10 else None)
    for i, column in enumerate(names):
        axis = figure.add_subplot(high, wide, i + 1)
        for k, (name, run) in enumerate(found.items()):
            style: dict[str, Any] = {"color": colours(k), "linestyle": ["-", "--", "-."][k % 3], "label": name}
            if column == "train_loss":
                axis.plot(np.arange(1, len(run.losses) + 1), run.losses, **style)
            else:
                measured = [(x, y) for x, y in zip(run.at, run.columns.get(column, ()), strict=False) if y is not None]
                axis.plot([x for x, _ in measured], [y for _, y in measured], marker="o", markersize=4, **style)
            for stage in run.stages:
                axis.axvline(stage, color=colours(k), linestyle=":", alpha=0.5)
        axis.set_xlabel("Batches processed")
        axis.set_ylabel("train_loss, smoothed" if column == "train_loss" else column)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(found), 2 * wide), frameon=False)
    return finished(figure, None, return_fig)
