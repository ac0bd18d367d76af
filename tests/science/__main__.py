"""Run the experiments: `make science`, or `make science PART=1,3`. What is done is kept; the same command goes on."""
from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import minifast

from . import report
from .jobs import Files, run
from .plan import PARTS, Row

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCS = HERE.parents[1] / "docs"
FASHION = Path("/usr/share/datasets/fashion-mnist")     # of Debian's package dataset-fashion-mnist


def main(argv: list[str] | None = None, kept: Path = RESULTS, files: Files | None = None) -> int:
    """Run what is not done yet of the parts, then write what all that is done says: `report.write`."""
    p = argparse.ArgumentParser("science", description=__doc__)
    p.add_argument("--part", default="all", help=f"all (default), or some of {','.join(PARTS)}, in the order given")
    p.add_argument("--fashion", type=Path, default=FASHION, help="the folder with Fashion-MNIST's four files")
    p.add_argument("--mnist", type=Path, default=Path("data/mnist"), help="the folder with MNIST's four files")
    p.add_argument("--seeds", type=int, default=sys.maxsize, help="only the first so many seeds of each part")
    p.add_argument("--jobs", type=int, default=1, help="rows at the same time, each in a process of one thread")
    p.add_argument("--device", default="cpu", help="where the networks are trained: cpu (default) or cuda")
    p.add_argument("--minutes", type=float, default=math.inf,
                   help="begin no row after so many minutes; 0: only write the report again")
    args = p.parse_args(argv)
    files = files or {"fashion": args.fashion, "mnist": args.mnist}
    chosen = list(PARTS) if args.part == "all" else args.part.split(",")
    if unknown := [part for part in chosen if part not in PARTS]:
        p.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * args.minutes
    run_parts(chosen, kept, files, args.seeds, until, args.jobs, args.device)
    print("\n".join(status(kept)))
    report.write({part: load(part, kept) for part in PARTS}, status(kept), kept, DOCS if kept == RESULTS else kept)
    return 0


def run_parts(chosen: list[str], kept: Path, files: Files, n_seeds: int, until: float, jobs: int, device: str) -> None:
    """Run the rows that are not done yet, in the order of the plan, each written as soon as it is there."""
    results = {part: load(part, kept) for part in chosen}
    waiting = [(part, row) for part in chosen for row in rows_of(part, n_seeds) if row["id"] not in results[part]]
    running: dict[Future[Any], tuple[str, Row]] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) if jobs > 1 else InTurn() as pool:
        while True:
            while len(running) < jobs and time.monotonic() < until:
                ready = next((i for i, (part, row) in enumerate(waiting) if can_run(row, waiting, running)), None)
                if ready is None:
                    break
                part, row = waiting.pop(ready)
                so_far = results[part] if row.get("lr") == "tuned" else {}
                running[pool.submit(run, row, so_far, files, kept / "running", device)] = part, row
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                part, row = running.pop(done)
                results[part][row["id"]] = done.result()
                save(part, results[part], kept)
                print(f"{part}: {row['id']}: {results[part][row['id']]['seconds']:.1f} s", flush=True)


class InTurn(Executor):
    """Runs what it is given at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished call."""
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def rows_of(part: str, n_seeds: int) -> list[Row]:
    """The rows of the part, of its first seeds."""
    seeds = sorted({row["seed"] for row in PARTS[part].rows if counts(row)})[:n_seeds]
    return [row for row in PARTS[part].rows if not counts(row) or row["seed"] in seeds]


def can_run(row: Row, waiting: list[tuple[str, Row]], running: dict[Any, tuple[str, Row]]) -> bool:
    """Whether all that the row needs is done: a race needs what was tuned for it."""
    return row.get("lr") != "tuned" or not any(
        other.get("experiment") == "tuning" for _, other in (*waiting, *running.values()))


def counts(row: Row) -> bool:
    """Whether a row has a seed of the comparison (the tuning rows have others, and one row has none)."""
    return "seed" in row and row.get("experiment") != "tuning"


def load(part: str, kept: Path = RESULTS) -> dict[str, Any]:
    """The results of a part by the ids of its rows."""
    file = kept / f"part{part}.json"
    found: dict[str, Any] = json.loads(file.read_text())["rows"] if file.exists() else {}
    return found


def save(part: str, results: dict[str, Any], kept: Path = RESULTS) -> None:
    """Write all results of a part, one row a line, and what they were made with."""
    kept.mkdir(parents=True, exist_ok=True)
    results = {row["id"]: results[row["id"]] for row in PARTS[part].rows if row["id"] in results}
    made_with = {"minifast": minifast.__version__, "threads": 1}
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(short(v), allow_nan=False)}" for k, v in results.items())
    temporary = kept / f"part{part}.json.new"
    temporary.write_text(f'{{"with": {json.dumps(made_with)},\n"rows": {{\n{lines}\n}}}}\n')
    os.replace(temporary, kept / f"part{part}.json")


def short(x: Any) -> Any:
    """Numbers with seven digits; None for what is not finite."""
    if isinstance(x, dict):
        return {k: short(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [short(v) for v in x]
    return (float(f"{x:.7g}") if math.isfinite(x) else None) if isinstance(x, float) else x


def status(kept: Path = RESULTS) -> list[str]:
    """For each part how many of its rows are done, then what of the claim is not part of the plan."""
    lines = []
    for part in sorted(PARTS):
        done, plan = load(part, kept), PARTS[part]
        n = sum(row["id"] in done for row in plan.rows)
        lines.append(f"{part}. {plan.title}: {n} of {len(plan.rows)} rows"
                     + ("" if n == len(plan.rows) else ", the rest not run")
                     + f" (not planned: {'; '.join(plan.left_out)})" * bool(plan.left_out))
    return lines


if __name__ == "__main__":
    sys.exit(main())
