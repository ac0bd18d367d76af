"""Kills and stops runs of two processes: `python processes.py --kills 50 --stops 100 --seed 0`.

A kill: one process or both die by SIGKILL, at an event of the loop or in the middle of a save, and torchrun's own agent
starts them again (`--max-restarts 3`). A stop: SIGINT, SIGTERM or SIGUSR1 at any moment, to one process or both; they
must end after the same batch, and the run is started again until it is done. Weights, optimizer, records, table and
generators of both processes must then be byte for byte those of the run that nobody disturbed.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import uuid
import warnings
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

sys.path.insert(0, str(Path(__file__).parents[1]))

import processes as forked
import runs
from torture import kill_in_save

from minifast.callback import Callback
from minifast.callbacks import Checkpoint
from minifast.distributed import rank

__all__ = ["main"]

CONFIGS = ["one cycle", "averages: EMA", "accumulation, clipping", "mixup", "autocast to bf16",
           "best model, early stop, CSV", "over-sampling", "averages: SWA"]
SECONDS = 60    # in which a run must end


class Begun(Callback):
    """Makes a file when training begins, and takes a little time for each batch."""

    role, _order = "process", 5000

    def __init__(self, folder: Path, pause: float) -> None:
        self.folder, self.pause = folder, pause

    def state_dict(self) -> dict[str, Any]:
        return {}

    def on_batch_end(self) -> None:
        (self.folder / f"begun {os.getpid()}").touch()
        time.sleep(self.pause)


def work(config: str, folder: Path, kills: dict[int, tuple[str, int]], pause: float = 0.0) -> dict[str, str]:
    """Train a configuration in this process, one of two. kills: for a process what it dies of, in the first attempt."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)   # the agent's handlers are not this process's
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    runs.np.random.seed(0)
    make, fit = runs.CONFIGS[config]
    learn = make(folder)
    learn.silent = True
    learn.to_distributed(timeout=30)
    kind, at = kills.get(rank(), ("", 0)) if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" else ("", 0)
    if kind == "save":
        kill_in_save(at)
    callbacks = [Begun(folder, pause)] if pause else []
    callbacks.append(runs.Kill(at if kind == "event" else 0))
    every = 1 if any(kind == "save" for kind, _ in kills.values()) else 3   # in all processes alike
    fit(learn, callbacks=[*callbacks, Checkpoint(learn, "run", every=every)])
    found = runs.result(learn)
    return {**found, "steps": str(len(learn.recorder.lrs))}


def kept(config: str, folder: Path, kills: dict[int, tuple[str, int]]) -> None:
    found = work(config, folder, kills)
    (folder / f"result {rank()}").write_bytes(pickle.dumps(found))


def under_torchrun(config: str, folder: Path, kills: dict[int, tuple[str, int]]) -> list[dict[str, str]]:
    """The results of both processes, started (again) by torchrun's agent."""
    launch = LaunchConfig(1, 1, 2, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                          max_restarts=3, monitor_interval=0.1, start_method="fork")
    elastic_launch(launch, kept)(config, folder, kills)
    return [pickle.loads((folder / f"result {i}").read_bytes()) for i in range(2)]


def stopped(config: str, folder: Path, chance: random.Random) -> tuple[list[dict[str, str]], int]:
    """The results of a run that is stopped by signals until it is done, and how many signals were sent."""
    n = 0
    while True:
        started, queue = forked.start(work, 2, config, folder, {}, 0.004)
        begun = time.monotonic()
        while len(list(folder.glob("begun *"))) < 2 and any(p.is_alive() for p in started):
            time.sleep(0.002)
        if n < 3:
            time.sleep(chance.random() * 0.2)
            number = chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
            to = chance.choice([[0, 1], [0], [1]])
            for i in to:
                if started[i].is_alive():
                    os.kill(started[i].pid, number)
            n += 1
        found, outside = {}, False
        while len(found) < 2 and not outside:
            if time.monotonic() - begun > SECONDS:
                raise AssertionError(f"{config}: a hang after {signal.Signals(number).name} to {to}")
            with contextlib.suppress(Empty):
                i, result, error = queue.get(timeout=0.1)
                found[i] = result, error
            # before the fit or after it a signal ends a process as it does any program
            outside = any(p.exitcode is not None and p.exitcode < 0 for p in started)
        for p in started:
            if outside:
                p.kill()
            p.join(10)
        for file in folder.glob("begun *"):
            file.unlink()
        if outside:
            continue
        ends = {str(error).strip().splitlines()[-1].split(":")[0] if error else "" for _, error in found.values()}
        if ends == {""}:
            return [pickle.loads(found[i][0]) for i in range(2)], n
        texts = [str(error) for _, error in found.values()]
        places = {line.split(";")[0] for text in texts for line in text.splitlines() if line.startswith("in epoch")}
        if len(places) > 1 or not all("KeyboardInterrupt" in text or "Preempted" in text for text in texts):
            raise AssertionError(f"{config}: the processes ended differently: {texts}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, failures, began = random.Random(args.seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root, whole = Path(name), {}

        def undisturbed(config: str) -> list[dict[str, str]]:
            if config not in whole:
                (root / config).mkdir()
                whole[config] = [{**found} for found in forked.run(work, 2, config, root / config, {})]
            return whole[config]

        def check(what: str, config: str, found: list[dict[str, str]]) -> None:
            nonlocal failures
            wrong = [f"process {i}: {key}" for i, (a, b) in enumerate(zip(found, undisturbed(config), strict=True))
                     for key in b if a[key] != b[key]]
            failures += bool(wrong)
            print(f"{what} {config}: {', '.join(wrong) or 'equal'}", flush=True)

        for i in range(args.kills):
            config, folder = CONFIGS[i % len(CONFIGS)], root / f"kill {i}"
            folder.mkdir()
            who = chance.choice([[0], [1], [0, 1]])
            kind = "save" if who == [0] and chance.random() < 0.5 else "event"
            kills = {r: (kind, chance.randint(2, 40)) for r in who}
            check(f"kill {i} {kills}", config, under_torchrun(config, folder, kills))
        sent = 0
        while sent < args.stops:
            config, folder = chance.choice(CONFIGS), root / f"stop {sent}"
            folder.mkdir()
            found, n = stopped(config, folder, chance)
            sent += n
            check(f"stop {sent}", config, found)
    print(f"{args.kills} kills, {sent} stops, {failures} failures, {time.monotonic() - began:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
