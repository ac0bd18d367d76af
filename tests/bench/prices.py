"""What it costs that nothing is lost, in CPU time on the main job: `python prices.py --base ../minifast-before`.

A checkpoint: the job with one every 0.5 seconds and without, in turn; from the difference, what one costs, and so its
part of the time with one every ten seconds. `lr_find`: here and in another checkout (`--base`), in turn, each in a
process of its own. Medians; exit status 1 where a checkpoint costs 2 % or more, or lr_find 10 % more than there.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[2]
LEARNER = """
import statistics, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from minifast.vision import *
torch.set_num_threads(1)
torch.manual_seed(0)
data = ImageDataBunch.from_folder(untar_data(URLs.MNIST_SAMPLE))
learn = Learner(data, simple_cnn((3, 16, 16, 2)), metrics=[accuracy], path=sys.argv[1], silent=True)
"""
FIND = LEARNER + """
learn.lr_find()
times = []
for _ in range(5):
    began = time.process_time()
    learn.lr_find()
    times.append(time.process_time() - began)
print(statistics.median(times))
"""
CHECKPOINT = LEARNER + """
from minifast.callbacks import Checkpoint
class Counted(Checkpoint):
    n = 0
    def _write(self, *args):
        Counted.n += 1
        return super()._write(*args)
learn.fit(1, 1e-2)
began = time.process_time()
learn.fit(4, 1e-2, callbacks=[Counted(learn, "run", seconds=0.5)] if sys.argv[2] == "with" else [])
print(time.process_time() - began, Counted.n)
"""


def run(code: str, root: Path, *args: str) -> list[float]:
    """The numbers that a program prints, with the minifast of `root`."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", code, folder, *args], env=env, capture_output=True, text=True,
                              cwd=folder)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return list(map(float, done.stdout.split()))


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--base", type=Path, help="a checkout to compare lr_find with")
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args(argv)
    pairs = [(run(CHECKPOINT, HERE, "with"), run(CHECKPOINT, HERE, "without")) for _ in range(args.rounds)]
    plain = median(without for _, (without, _) in pairs)
    n = median(n for (_, n), _ in pairs)
    each = (median(kept for (kept, _), _ in pairs) - plain) / n
    share = each / 10
    print(f"a checkpoint: {1000 * each:.1f} ms of CPU ({n:.0f} in {plain:.1f} s of training, medians of {args.rounds} "
          f"rounds), {share:.2%} of the time with one every ten seconds")
    wrong = share >= 0.02
    if args.base:
        found = [(run(FIND, HERE)[0], run(FIND, args.base.resolve())[0]) for _ in range(args.rounds)]
        now, then = (median(times) for times in zip(*found, strict=True))
        print(f"lr_find: {now:.3f} s of CPU here, {then:.3f} s there: {now / then - 1:+.1%}")
        wrong = wrong or now / then > 1.1
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
