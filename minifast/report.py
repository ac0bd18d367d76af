"""A run as a page: one HTML file that opens anywhere, with its table, pictures, settings and versions."""
from __future__ import annotations

import base64
import io
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch

from .checks import as_path, short
from .disk import whole_file
from .distributed import once
from .plots import plot_range_tests
from .progress import format_time
from .settings import settings_of

__all__ = ["write_report"]

ROWS = 400          # of a table; of a longer one the first and the last half as many
POINTS = 3000       # of a curve; a longer one is drawn as dots of colour, so that the file stays small
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto; max-width: 72rem;
       padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; }
td { overflow-wrap: anywhere; } .other td, .other th { background: #fff4d6; }
.wide { overflow-x: auto; } .beside section { min-width: 0; max-width: 100%; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 3rem; }
img { max-width: 100%; height: auto; background: #fff; } pre { overflow-x: auto; background: #f4f4f4; padding: .8rem; }
@media (prefers-color-scheme: dark) { body { color: #e8e8e8; background: #161616; } pre { background: #262626; }
  th, td { border-color: #444; } .other td, .other th { background: #4a3a00; } }
"""


def write_report(learn: Any, path: str | Path = "report.html", compare: Mapping[str, Any] | None = None,
                 name: str = "this run") -> Path:
    """Write what the learner's last fit did to one HTML file: the table, pictures of losses, metrics, learning rate and
    momentum, the last range test with its suggestions, settings, versions and time. The file needs no other file and
    no network. Returns its path.

    learn: a learner with a fit or a range test behind it.
    path: of the file; one that exists is replaced.
    compare: other learners by name, shown beside this one: pictures with a curve for each, and settings in which they
        differ marked. None: this one alone.
    name: what this learner is called beside others.

    TypeError or ValueError, and nothing is written, if there is nothing to show or `compare` is no such dict.

    >>> learn = fake_learner(metrics=[accuracy])
    >>> learn.fit_one_cycle(2, 1e-2)
    >>> write_report(learn).name
    'report.html'
    """
    path = as_path("path", path)
    runs = {name: learn, **_others(compare, name)}
    if empty := [n for n, one in runs.items() if not one.recorder.times and one.recorder.range_test is None]:
        raise ValueError(f"there is nothing to report of {empty[0]}: call fit, fit_one_cycle or lr_find first")
    page = _page(runs)

    def write() -> None:
        with whole_file(path) as file:
            file.write(page.encode())
    once(learn, write)
    return path


def _others(compare: Any, name: str) -> Mapping[str, Any]:
    if compare is None:
        return {}
    if not isinstance(compare, Mapping) or not all(isinstance(n, str) and hasattr(one, "recorder")
                                                   for n, one in compare.items()):
        raise TypeError(f"compare must be a dict of learners by name, {{'another run': learn}}, not {short(compare)}")
    if name in compare:
        raise ValueError(f"compare has a run of the name {name!r}, and so has this one: give it another, name=")
    return compare


def _page(runs: Mapping[str, Any]) -> str:
    fitted = {name: learn for name, learn in runs.items() if learn.recorder.times}
    title = "A run of minifast" if len(runs) == 1 else "Runs of minifast: " + ", ".join(runs)
    parts = [f"<h1>{escape(title)}</h1>", f"<p>Written on {time.strftime('%Y-%m-%d at %H:%M')}.</p>"]
    if fitted:
        parts += ["<h2>Table</h2>", _beside({name: _table(learn.recorder) for name, learn in fitted.items()})]
        parts += ["<h2>Pictures</h2>", *_pictures(fitted)]
    if tested := {name: learn for name, learn in runs.items() if learn.recorder.range_test is not None}:
        parts += ["<h2>Range test</h2>", _beside({name: _range_test(learn) for name, learn in tested.items()})]
    parts += ["<h2>Settings</h2>", _settings({name: _of_run(learn) for name, learn in runs.items()})]
    parts += ["<h2>Versions</h2>", _settings({"": _versions()})]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n<body><main>\n' + "\n".join(parts)
            + "\n</main></body></html>\n")


def _beside(blocks: Mapping[str, str]) -> str:
    if len(blocks) == 1:
        return "".join(blocks.values())
    return '<div class="beside">' + "".join(f"<section><h3>{escape(name)}</h3>{block}</section>"
                                            for name, block in blocks.items()) + "</div>"


def _rows(rows: Sequence[Sequence[str]], head: Sequence[str], marked: Sequence[bool] = ()) -> str:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [f"<tr{' class=other' if marked and marked[i] else ''}>"
             f'<th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
             for i, (first, *rest) in enumerate(rows)]
    return (f'<div class="wide" tabindex="0"><table>{f"<thead><tr>{top}</tr></thead>" if head else ""}<tbody>'
            + "\n".join(lines) + "</tbody></table></div>")


def _table(recorder: Any) -> str:
    rows = recorder.rows()
    cut = len(rows) > ROWS
    shown = [*rows[:ROWS // 2], *rows[-ROWS // 2:]] if cut else rows
    note = f"<p>The first and the last {ROWS // 2} of {len(rows)} epochs; recorder.to_frame() has all.</p>"
    return _rows(shown, recorder.names) + (note if cut else "")


def _picture(alt: str, draw: Callable[[Any], None], width: float = 9.6, height: float = 3.8) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    draw(figure)
    for axis in figure.axes:
        for line in axis.get_children():
            if len(getattr(line, "get_xdata", tuple)()) > POINTS:
                line.set_rasterized(True)
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "minifast"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    data = base64.b64encode(out.getvalue()).decode()
    return f'<p><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}"></p>'


def _pictures(runs: Mapping[str, Any]) -> list[str]:
    several = len(runs) > 1
    recorders = {name if several else "": learn.recorder for name, learn in runs.items()}
    columns = [_metrics(r) for r in recorders.values()]

    def losses(figure: Any) -> None:
        axis = figure.add_subplot()
        for name, r in recorders.items():
            r.plot_losses(ax=axis, label=name)

    def metrics(figure: Any) -> None:
        axes = figure.subplots(1, len(columns[0]), squeeze=False)[0]
        for name, r in recorders.items():
            r.plot_metrics(ax=axes, label=name)

    def lr_and_momentum(figure: Any) -> None:
        axes = figure.subplots(1, 2)
        for name, r in recorders.items():
            r.plot_lr(show_moms=True, ax=axes)
            axes[0].lines[-1].set_label(name)
        if several:
            axes[0].legend(frameon=False)

    of = " of " + " and ".join(runs) if several else ""
    found = [_picture(f"Training loss of each batch and validation loss of each epoch{of}", losses)]
    if columns[0] and columns.count(columns[0]) == len(columns):
        found.append(_picture(f"{', '.join(columns[0])} after each epoch{of}", metrics))
    return [*found, _picture(f"Learning rate and momentum of each batch{of}", lr_and_momentum)]


def _metrics(recorder: Any) -> list[str]:
    names: list[str] = recorder.names[3:len(recorder.names) - recorder.add_time]
    return names


def _range_test(learn: Any) -> str:
    result = learn.recorder.range_test
    tests = result if isinstance(result, Mapping) else {"": result}

    def draw(figure: Any) -> None:
        plot_range_tests(tests, suggestion=True, ax=figure.add_subplot())

    drawable = all(len(test.trimmed().lrs) for test in tests.values())
    picture = _picture("Loss against learning rate in the range test", draw, 6.4, 3.8) if drawable else ""
    return f'<pre tabindex="0">{escape(str(result))}</pre>{picture}'


def _settings(columns: Mapping[str, Mapping[str, str]]) -> str:
    keys = list(dict.fromkeys(key for column in columns.values() for key in column))
    rows = [[key, *(column.get(key, "") for column in columns.values())] for key in keys]
    several = len(columns) > 1
    return _rows(rows, ["", *columns] if several else [], [len(set(row[1:])) > 1 for row in rows] if several else ())


def _of_run(learn: Any) -> dict[str, str]:
    """The settings of the last fit, what it used, how long it took and how it ended, as texts."""
    r, found = learn.recorder, settings_of(learn)
    callbacks = found.pop("callbacks", {})
    rows = {"data": short(learn.data), **{name: _text(value) for name, value in found.items()}}
    rows |= {name: _text(arguments) for name, arguments in callbacks.items()}
    if r.times:
        others = [kind.__name__ for kind in r.taking_part if kind.__name__ not in callbacks]
        rows |= {"other callbacks": ", ".join(others), "batches trained": f"{len(r.lrs):,}",
                 "learning rates": f"{min(r.lrs):.3g} to {max(r.lrs):.3g}",
                 "momenta": f"{min(r.moms):.3g} to {max(r.moms):.3g}",
                 "time": f"{format_time(sum(r.times))} ({sum(r.times):.1f} s)",
                 "ended": learn.stopped or "as planned",
                 "last epoch": ", ".join(f"{n} {v}" for n, v in zip(r.names[1:], r.rows()[-1][1:], strict=True))}
    return rows


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(v)}" for name, v in value.items()) or "without arguments"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"
    gpu = {"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    own = sys.modules["minifast"].__version__   # what runs: what is installed may be an older checkout's
    return {"minifast": own, **{p: of(p) for p in ("torch", "torchvision", "numpy")},
            "Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
            "threads": str(torch.get_num_threads()), **gpu}
