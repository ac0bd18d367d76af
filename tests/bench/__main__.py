"""Measure minifast beside its peers: `make bench`, or `make bench PART=overhead,imports DEVICE=cuda`."""
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import augmentation
import bigger
import growth
import long_runs
import main_job
import memory
import optimizers
import overhead
import processes
import seeds
import transfer
from timing import Section, machine, names, version

HERE = Path(__file__).parent
RESULTS, PLOT, KEPT = HERE / "RESULTS.md", HERE / "results.png", HERE / "results.json"
GPU = HERE / "gpu.txt"      # what tests/bench/gpu.py printed where there was one
PARTS: dict[str, Callable[[str], list[Section]]] = {
    "overhead": overhead.run, "optimizers": optimizers.run, "warm": main_job.warm, "cold": main_job.cold,
    "imports": main_job.imports, "memory": memory.run, "augment": augmentation.run, "transfer": transfer.run,
    "growth": growth.run, "long": long_runs.run, "bigger": bigger.run, "processes": processes.run, "seeds": seeds.run}
PACKAGES = ["torch", "minifast", "fastai", "lightning", "pytorch-ignite", "skorch", "pytorch-accelerated", "keras",
            "accelerate", "kornia"]


def main() -> int:
    """Run the parts asked for, and write the table and the plot of all that has been measured so far."""
    p = argparse.ArgumentParser("tests/bench", description=__doc__)
    p.add_argument("--part", default="all", help=f"all (which leaves out the seeds), or some of {','.join(PARTS)}")
    p.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    p.add_argument("--rounds", type=int, help="a trial: so many rounds in turn; it is printed, and no file is written")
    args = p.parse_args()
    chosen = [part for part in PARTS if part != "seeds"] if args.part == "all" else args.part.split(",")
    if unknown := [part for part in chosen if part not in PARTS]:
        p.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    if args.device != "cpu":
        import torch
        if not torch.cuda.is_available():
            p.error("there is no GPU that torch can use here, so there is nothing to measure on it")
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    of_device = kept.setdefault(args.device, {})
    if args.part == "all":  # one run: no time of an earlier one stays (the seeds measure no time)
        of_device = kept[args.device] = {part: found for part, found in of_device.items() if part == "seeds"}
    run = {"date": time.strftime("%Y-%m-%d"), "machine": machine(args.device),
           "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES)}
    began = time.perf_counter()
    for part in chosen:
        print(f"{part} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        options = {"rounds": args.rounds} if args.rounds and part != "seeds" else {}
        sections = PARTS[part](args.device, **options)
        of_device[part] = {"sections": [asdict(s) for s in sections], **run}
        for section in sections:
            print(section.markdown(), flush=True)
        print(f"({part}: {time.perf_counter() - start:.0f} s)", file=sys.stderr)
        if not args.rounds:
            KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    print(f"(together: {(time.perf_counter() - began) / 60:.1f} minutes)", file=sys.stderr)
    if not args.rounds:
        write(kept)
    return 0


def write(kept: dict[str, dict[str, dict[str, object]]]) -> None:
    """RESULTS.md: for each device a table of all contenders, then each part's own; and results.png, for the CPU."""
    text = ["# minifast beside its peers",
            "Written by `make bench`. Times are medians of rounds in which the contenders take turns, each in a "
            "process of its own; smaller is better. The first table: how many times minifast's, in brackets the figure "
            "itself. The ratios further below are medians of the ratios within a round."]
    for device in ("cpu", *sorted(set(kept) - {"cpu"})):
        parts = {part: kept[device][part] for part in PARTS if part in kept.get(device, {})}
        sections = [Section(**s) for part in parts.values() for s in part["sections"]]
        if not sections:
            continue
        compared = [s for s in sections if s.bars]
        text += [f"## {'On the CPU' if device == 'cpu' else f'On {device}'}", summary(compared)]
        text += runs(parts)
        text += ["![Bars of the table above](results.png)"] if device == "cpu" else []
        text += [s.markdown().rstrip() for s in sections]
        if device == "cpu":
            draw(compared)
    if set(kept) <= {"cpu"}:
        text += ["## On a GPU", "The tables above are still to be measured there (`make bench DEVICE=cuda`)."]
    text += ["MNIST to 99 % (`tests/bench/gpu.py`: seconds of training three epochs):",
             "```\n" + GPU.read_text() + "```"]
    RESULTS.write_text("\n\n".join(text) + "\n")
    print(f"written: {RESULTS.name}, {PLOT.name}", file=sys.stderr)


def runs(parts: dict[str, Any]) -> list[str]:
    """When, where and with what the parts were measured: a paragraph for each run that there has been."""
    found: dict[str, list[str]] = {}
    for name, part in parts.items():
        date = part.get("date", "a date that was not kept")
        found.setdefault(f"{date}: {part['machine']}; {part['versions']}", []).append(name)
    return [f"{', '.join(names)}: measured on {run}." if len(found) > 1 else f"Measured on {run}."
            for run, names in found.items()]


def summary(sections: list[Section]) -> str:
    """A row for each contender, a column for each comparison: the ratio to minifast's, and in brackets the figure."""
    rows = []
    for name in names():
        cells = [f"{s.bars[name] / s.bars['minifast']:.2f} ({_short(s.bars[name])})" if name in s.bars else ""
                 for s in sections]
        rows.append([f"**{name}**" if name == "minifast" else name, *cells])
    return Section("", ["", *(s.axis for s in sections)], rows).markdown().split("\n\n", 1)[1].rstrip()


def draw(sections: list[Section]) -> None:
    """Bars of every comparison, minifast's in another colour."""
    from matplotlib.figure import Figure

    columns = min(3, len(sections))
    lines = -(-len(sections) // columns) if sections else 0
    if not lines:
        return
    figure = Figure(figsize=(5 * columns, 3.2 * lines), layout="constrained")
    for ax, section in zip(figure.subplots(lines, columns, squeeze=False).flat, sections, strict=False):
        bars = dict(sorted(section.bars.items(), key=lambda item: -item[1]))
        colours = ["tab:orange" if name == "minifast" else "tab:blue" for name in bars]
        shown = ax.barh(list(bars), list(bars.values()), color=colours)
        ax.bar_label(shown, [_short(v) for v in bars.values()], padding=3, fontsize=8)
        ax.set_xlabel(section.axis)
        ax.margins(x=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in figure.axes[len(sections):]:
        ax.remove()
    figure.savefig(PLOT, dpi=100)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
