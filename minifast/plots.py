"""Pictures of a run, drawn from plain arrays into the caller's axes or a new figure."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from .suggestion import RangeTest, Suggestion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_lr", "plot_range_test", "plot_range_tests", "plot_losses", "plot_metrics", "plot_matrix",
           "plot_pictures", "mask_colours", "LISTED", "show", "finished"]

WITHOUT_WINDOWS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
PER_ROW = 3  # metrics beside each other: three fill a notebook's width


def plot_lr(lrs: Iterable[Any], moms: Iterable[Any] | None = None, start: int = 0, ax: Any = None) -> list[Axes]:
    """Draw the learning rate of each batch, and in a second axes its momentum if `moms` is given.

    `start` is the number of the first batch. `ax` holds as many axes as are drawn (one alone needs no list), else
    they are new; they are returned. Raises ValueError where there is nothing to draw or the number of axes is wrong.
    """
    curves = {"Learning rate": _some(_numbers(lrs))}
    if moms is not None:
        curves["Momentum"] = _numbers(moms)
    axes = _axes(len(curves), ax)
    for axis, (label, ys) in zip(axes, curves.items(), strict=True):
        axis.plot(np.arange(start, start + len(ys)), ys)
        _label(axis, "Iterations", label)
    return axes


def plot_range_test(lrs: Iterable[Any], losses: Iterable[Any], points: Mapping[str, float] | None = None,
                    ax: Any = None, label: str = "", span: tuple[Any, Any] | None = None,
                    nth: tuple[int, int] = (0, 1)) -> Axes:
    """Draw the losses of a range test over their learning rates (log scale); returns the axes.

    `points` names learning rates to mark with a dot, their values in the legend; `label` names the curve there. `span`
    is an interval of learning rates to shade. `nth`, (i, n) with i from 0: this is one of n curves in these axes, which
    are drawn so that all are seen even where they coincide. The y limits keep the descent readable where the loss later
    explodes: all before the lowest loss is in view, of what follows as much as half that height. Raises ValueError
    where no loss is finite.
    """
    x, y = _numbers(lrs), _numbers(losses)
    finite = np.isfinite(y)
    x, y = x[finite], _some(y[finite])
    [axis] = _axes(1, ax)
    before = axis.get_ylim() if axis.has_data() else None  # another test's curve, which stays in view
    i, n = nth
    style: dict[str, Any] = {}
    if n > 1:  # wide and solid at the bottom, on it narrower ones with gaps: a dash, then 0, 1, 2, ... dots
        style = {"linestyle": (0, (5, 3) + (1, 3) * (i - 1)) if i else "-", "linewidth": 4 - 2.5 * i / (n - 1)}
    [line] = axis.plot(x, y, label=label or None, **style)
    axis.set_xscale("log")
    if span is not None:
        axis.axvspan(*span, color=line.get_color(), alpha=0.1, linewidth=0)
    for marker, (name, lr) in zip(cycle("oDs^"), (points or {}).items()):
        axis.plot(lr, np.interp(np.log(lr), np.log(x), y), marker, color=line.get_color(),
                  label=f"{name}: {lr:.2E}", zorder=3, **style)
    low, high = y.min(), max(y[: y.argmin() + 1].max(), np.median(y))
    height = high - low
    if height > 0 and y.max() > high + height / 2:
        limits = np.array([low - height / 10, high + height / 2])
        axis.set_ylim(*(limits if before is None else (min(before[0], limits[0]), max(before[1], limits[1]))))
    _label(axis, "Learning rate", "Loss")
    if points or label:
        axis.legend(frameon=False, handlelength=2 if n == 1 else 4)  # room for a dash with its dots
    return axis


def plot_range_tests(tests: Mapping[str, RangeTest], skip_start: int = 10, skip_end: int = 5, suggestion: bool = False,
                     ax: Any = None) -> tuple[Axes, RangeTest]:
    """Draw range tests by name into one picture; returns its axes and what was drawn of the last test.

    `skip_start` and `skip_end` batches are left out at the ends, none if that would leave fewer than three.
    `suggestion` marks what `basin` suggests, and for one test alone shades its interval.
    """
    axis = ax
    for i, (name, test) in enumerate(tests.items()):
        drawn, found = test.trimmed(skip_start, skip_end), test.suggestion if suggestion else Suggestion(None)
        if len(drawn.lrs) < 3:  # a test with few losses, such as one on validation losses: show what there is
            drawn = test.trimmed()
        points = {name or "Suggestion": found.lr} if found.lr else {}
        span = (found.low, found.high) if points and len(tests) == 1 else None
        axis = plot_range_test(drawn.lrs, drawn.losses, points, axis, "" if points else name, span, (i, len(tests)))
    return axis, drawn


def plot_losses(train: Iterable[Any], valid_at: Iterable[Any] = (), valid: Iterable[Any] = (),
                raw: Iterable[Any] | None = None, start: int = 0, ax: Any = None, label: str = "") -> Axes:
    """Draw the training loss of each batch and the validation losses; returns the axes.

    `train` is the smoothed loss, `raw` (faint, behind it) each batch's own; `valid_at` are the numbers of batches that
    were done when `valid` was measured, None or NaN in `valid` is left out. `start` batches came before the first of
    `train`. All but outliers among `raw` are in view. `label` names the run in the legend, where several are drawn into
    one picture. Raises ValueError where there is no training loss.
    """
    from matplotlib.lines import Line2D
    of_run = f"{label}: " if label else ""
    ys = _some(_numbers(train))
    done = np.arange(start + 1, start + 1 + len(ys))
    [axis] = _axes(1, ax)
    [line] = axis.plot(done, ys, label=f"{of_run}Train, smoothed", zorder=2)
    x, y = _measured(valid_at, valid)
    if len(y):
        axis.plot(x, y, "o-", label=f"{of_run}Validation", zorder=3)
    if raw is not None:
        each = _numbers(raw)
        # an artist leaves the limits alone: one outlier among the raw losses would flatten everything else
        axis.add_artist(Line2D(done, each, color=line.get_color(), alpha=0.35, linewidth=0.8, zorder=1,
                               label=f"{of_run}Train, each batch"))
        each = np.sort(each[np.isfinite(each)])
        few = max(1, len(each) // 50)  # so many at either end are outliers if they lie far from all the others
        limits = [*axis.get_ylim(), *each[few:-few][:1], *each[few:-few][-1:]]
        low, high = min(limits), max(limits)
        near = each[(each >= low - (high - low) / 2) & (each <= high + (high - low) / 2)]
        axis.update_datalim(np.column_stack([np.full(len(near), done[0]), near]))
        axis.autoscale_view()
    _label(axis, "Batches processed", "Loss", legend=True)
    return axis


def plot_metrics(names: Sequence[str], values: Sequence[Sequence[Any]], at: Iterable[Any] | None = None,
                 ax: Any = None, label: str = "") -> list[Axes]:
    """Draw each metric over the epochs in axes of its own; returns them. `label` names the run in a legend.

    `values` has a row an epoch with a value for each of `names` (None or NaN: not measured, left out); `at` are the
    numbers of batches that were done then, to draw over those. Raises ValueError where there is no metric.
    """
    from matplotlib.ticker import MaxNLocator
    if not names:
        raise ValueError("there are no metrics to plot: give the learner some, for example metrics=[accuracy]")
    axes = _axes(len(names), ax)
    for i, (axis, name) in enumerate(zip(axes, names, strict=True)):
        axis.plot(*_measured(range(len(values)) if at is None else at, [row[i] for row in values]), "o-",
                  label=label or None)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _label(axis, "Epoch" if at is None else "Batches processed", name, legend=bool(label))
    return axes


def show(figure: Figure) -> None:
    """Show a figure made here: once in a notebook, in a window where matplotlib has windows, else not at all."""
    import matplotlib.pyplot as plt
    backend = plt.get_backend().lower()
    if "inline" in backend:
        from IPython.display import display
        show_now: Any = display  # IPython's is untyped
        show_now(figure)
        plt.close(figure)  # or the notebook shows it again when the cell ends
    elif backend not in WITHOUT_WINDOWS:
        plt.show()


def finished(figure: Any, ax: Any, return_fig: bool) -> Figure | None:
    """Show a figure made here, or return it with `return_fig`; the caller shows one around an `ax` given."""
    import matplotlib.pyplot as plt
    if ax is None and return_fig:
        plt.close(figure)  # or a notebook shows it by itself, too
    elif ax is None:
        show(figure)
    return figure if return_fig else None


def plot_matrix(counts: Any, names: Sequence[str], x: str, y: str, ax: Any = None, title: str = "",
                cmap: str = "Blues", text: str = "{}", figsize: tuple[float, float] | None = None,
                dpi: float | None = None) -> Axes:
    """Draw a square matrix (rows downwards) with the number in each cell; returns the axes.

    `text` formats the numbers, "" leaves them out. `figsize` in inches, by default by the number of rows; `dpi`.
    """
    import matplotlib.pyplot as plt
    if ax is None:
        side = max(4.0, 0.45 * len(names) + 2)
        ax = plt.figure(figsize=figsize or (side, side), dpi=dpi, layout="constrained").add_subplot()
    [axis] = _axes(1, ax)
    axis.imshow(counts, cmap=cmap)
    for i, row in enumerate(counts):
        for j, n in enumerate(row):
            if text:
                axis.text(j, i, text.format(n), ha="center", va="center",
                          color="white" if n > np.max(counts) / 2 else "black")
    long = len(names) > 10 or max(map(len, names)) * len(names) > 40
    axis.set_xticks(range(len(names)), names, rotation=90 if long else 0)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title)
    return axis


LISTED = {"tab10": 10, "tab20": 20}     # matplotlib's lists of distinct colours, and how many they have


def mask_colours(n_classes: int) -> str:
    """The name of matplotlib's colours for masks of so many classes."""
    return "tab10" if n_classes <= LISTED["tab10"] else "tab20"


def plot_pictures(pictures: Any, titles: Sequence[str] | None = None, figsize: tuple[float, float] | None = None,
                  maps: Any = None, alpha: float = 0.6, cmap: str = "magma", head: str = "",
                  columns: int | None = None) -> Figure:
    """Draw pictures (n, 1 or 3, h, w), in [0, 1], in a grid; returns the figure.

    `titles` over each, `head` over all. `maps` (n, height, width) lie over them, with opacity `alpha`, colours `cmap`;
    with a `mask_colours` they are masks, and a class has the same colour in all.
    `columns`: default the root of n, rounded up.
    """
    import matplotlib.pyplot as plt
    columns = min(columns or math.ceil(len(pictures) ** 0.5), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figsize = figsize or (2.4 * columns, 2.7 * rows + 0.6 * bool(head))
    figure, axes = plt.subplots(rows, columns, figsize=figsize, layout="constrained", squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i >= len(pictures):
            continue
        h, w = pictures[i].shape[-2:]
        axis.imshow(np.asarray(pictures[i]).transpose(1, 2, 0).repeat(3 // len(pictures[i]), 2))
        if maps is not None:
            style: Any = ({"interpolation": "nearest", "vmin": 0, "vmax": LISTED[cmap] - 1} if cmap in LISTED else
                          {"interpolation": "bilinear"})
            axis.imshow(np.asarray(maps[i]), alpha=alpha, cmap=cmap, extent=(-0.5, w - 0.5, h - 0.5, -0.5), **style)
        if titles is not None:
            axis.set_title(titles[i], fontsize=9)
    figure.suptitle(head, fontsize=11)
    return figure


def _numbers(values: Iterable[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float("nan") if v is None else float(v) for v in values])


def _some(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if not len(values):
        raise ValueError("there is nothing to plot: no batch with a finite value is recorded, or all are skipped "
                         "(learn.lr_find() or a fit records some)")
    return values


def _measured(at: Iterable[Any], values: Iterable[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    y = _numbers(values)
    return _numbers(at)[~np.isnan(y)], y[~np.isnan(y)]


def _axes(n: int, ax: Any) -> list[Axes]:
    if ax is not None:
        axes = list(np.ravel(np.array(ax, dtype=object)))
        if len(axes) != n:
            raise ValueError(f"ax holds {len(axes)} axes, and {n} are drawn: plt.subplots(1, {n}) makes as many")
        return axes
    import matplotlib.pyplot as plt
    columns = min(n, PER_ROW)
    rows = -(-n // columns)
    size = (6.4, 4) if n == 1 else (4.5 * columns, 3.4 * rows)
    figure = plt.figure(figsize=size, layout="constrained")
    return [figure.add_subplot(rows, columns, i + 1) for i in range(n)]


def _label(axis: Axes, x: str, y: str, legend: bool = False) -> None:
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if legend:
        axis.legend(frameon=False)
