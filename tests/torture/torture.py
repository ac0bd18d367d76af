"""Cuts training runs at random points and has them go on: `python torture.py --kills 200 --seed 0`.

Each run is cut once or twice: killed at an event of the loop, at a file call in the middle of a save or at any moment;
by SIGTERM, as a scheduler does it; by Ctrl-C at an event, validation batches included, or once or twice at any moment.
Then it is continued; weights, optimizer, records, table, history and random generators must be byte for byte those of
the run that nobody cut. One process loads torch and forks, so that a run costs milliseconds.
"""
from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import runs

from minifast.callbacks import Preempted

__all__ = ["main"]

CTRL_C = 130    # the exit status of a run that Ctrl-C has ended
CUTS = ("event", "file", "moment", "SIGTERM", "Ctrl-C at an event", "Ctrl-C", "Ctrl-C twice")
MOMENTS = {"moment": [signal.SIGKILL], "SIGTERM": [signal.SIGTERM], "Ctrl-C": [signal.SIGINT],
           "Ctrl-C twice": [signal.SIGINT, signal.SIGINT]}


def child(work: Callable[[], Any]) -> int:
    """A process that does `work` and nothing else; its id."""
    sys.stdout.flush()
    if (pid := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        except Preempted as e:
            os._exit(e.code)
        except KeyboardInterrupt:
            os._exit(CTRL_C)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def kill_in_save(at: int) -> None:
    """Let the process die at the `at`-th of its file calls in saving."""
    left = at

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return called
    os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)


def start(config: str, folder: Path, every: int, event: int = 0, file_call: int = 0,
          number: int = signal.SIGKILL) -> int:
    """Begin or continue the run in a child, its table in out.txt and its result in result.json."""
    def work() -> None:
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".* is a finished run")     # it was killed after its end
        warnings.simplefilter("ignore", ResourceWarning)  # what a killed process leaves open
        if file_call:
            kill_in_save(file_call)
        with open(folder / "out.txt", "w") as out, open(folder / "err.txt", "a") as err:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                found = runs.run(config, folder, event, every, number)
        (folder / "result.json").write_text(json.dumps(found))
    return child(work)


def finished(pid: int) -> bool:
    """Wait for the child; whether it came to its end. Other ends than that, a kill, Ctrl-C and SIGTERM (before the fit,
    or in it) are errors."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (0, -signal.SIGKILL, -signal.SIGTERM, 143, CTRL_C):
        raise RuntimeError(f"a run ended with status {status}")
    return status == 0


def outcome(folder: Path) -> dict[str, str]:
    """Everything that must be equal."""
    csv = folder / "history.csv"
    return {**json.loads((folder / "result.json").read_text()), "table": (folder / "out.txt").read_text(),
            "history.csv": csv.read_text() if csv.exists() else ""}


def one(config: str, rng: random.Random, expected: dict[str, str], seconds: float,
        cuts: Sequence[str]) -> tuple[int, list[str]]:
    """Kill and continue one run; the number of kills that struck, and what was not as expected."""
    folder, every, kills = Path(tempfile.mkdtemp()), rng.choice([1, 1, 2, 5]), 0
    for _ in range(rng.choice([1, 1, 2])):
        how = rng.choice(cuts)
        pid = start(config, folder, every, event=rng.randint(1, 110) if "event" in how else 0,
                    file_call=rng.randint(1, 40) if how == "file" else 0,
                    number=signal.SIGINT if "Ctrl-C" in how else signal.SIGKILL)
        if how in MOMENTS:
            for signal_number in MOMENTS[how]:
                time.sleep(rng.uniform(0.0, seconds) / len(MOMENTS[how]))
                os.kill(pid, signal_number)
        kills += not finished(pid)
    if not finished(start(config, folder, every)):
        return kills, ["it did not go on"]
    found = outcome(folder)
    wrong = [key for key in expected if found[key] != expected[key]]
    wrong += [f"left behind: {p.name}" for p in (folder / "models").glob(".*") if p.suffix != ".lock"]
    if not wrong:
        shutil.rmtree(folder)
    return kills, [f"{w} ({folder})" for w in wrong]


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--kills", type=int, default=200)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--configs", nargs="*", default=list(runs.CONFIGS), choices=list(runs.CONFIGS))
    p.add_argument("--cuts", nargs="*", default=list(CUTS), choices=CUTS)
    args = p.parse_args(argv)
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        runs.run("one cycle", Path(folder))     # what is imported at first use is imported here, once
    rng, expected, kills, wrong, n = random.Random(args.seed), {}, dict.fromkeys(args.configs, 0), [], 0
    seconds: dict[str, float] = {}
    while sum(kills.values()) < args.kills:
        config = args.configs[n % len(args.configs)]
        n += 1
        if config not in expected:
            folder, began = Path(tempfile.mkdtemp()), time.monotonic()
            if not finished(start(config, folder, 1)):
                raise RuntimeError("the run that nobody kills was killed")
            expected[config], seconds[config] = outcome(folder), time.monotonic() - began
        struck, bad = one(config, rng, expected[config], seconds[config], args.cuts)
        kills[config] += struck
        wrong += [f"{config}: {b}" for b in bad]
    for config, k in kills.items():
        print(f"{config:34} {k:4} kills")
    print(f"{sum(kills.values())} kills in {n} runs, {len(wrong)} not continued byte for byte", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
