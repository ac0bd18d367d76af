"""`python -m minifast`: the main job, end to end, on the MNIST sample."""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from .checks import positive_float, positive_int
from .datasets import URLs, untar_data
from .distributed import once
from .layers import simple_cnn
from .learner import Learner
from .metrics import accuracy
from .progress import say
from .report import write_report
from .vision.data import ImageDataBunch

__all__ = ["main"]


def argument(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """A checked argument type: what `check` says of a bad value is the one line that is printed."""
    def parse(text: str) -> Any:
        try:
            return check(text)
        except (TypeError, ValueError, RuntimeError) as e:
            raise argparse.ArgumentTypeError(str(e).splitlines()[0]) from None
    return parse


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def parser() -> Parser:
    p = Parser("python -m minifast", description="Train a small CNN on the MNIST sample (a 3 or a 7?) "
                                "by the 1cycle policy: LR finder, training, a table, three pictures, history.csv and "
                                "report.html.")
    p.add_argument("--epochs", type=argument(lambda t: positive_int("epochs", int(t))), default=2, help="default 2")
    p.add_argument("--lr", type=argument(lambda t: positive_float("lr", float(t))), default=5e-2,
                   help="the learning rate at the peak of the cycle; default 0.05")
    p.add_argument("--bs", type=argument(lambda t: positive_int("bs", int(t))), default=64,
                   help="batch size; default 64")
    p.add_argument("--seed", type=argument(int), default=0, help="same seed, same numbers; default 0")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written; default out/")
    p.add_argument("--device", type=argument(torch.device), help="cpu, cuda, ...; default: a GPU if there is one")
    p.add_argument("--nproc", type=argument(lambda t: positive_int("nproc", int(t))), default=1,
                   help="processes that share the work, started by torchrun; default 1")
    return p


def write_pictures(learn: Learner, out: Path) -> list[Path]:
    """Write three pictures and `history.csv` of the learner's last runs to `out`; returns their paths."""
    from matplotlib.figure import Figure

    recorder = learn.recorder
    history = out / "history.csv"
    recorder.to_frame().to_csv(history, index=False)

    def picture(draw: Callable[[Any], None], width: float = 6.4) -> Path:
        fig = Figure(figsize=(width, 4), layout="constrained")
        draw(fig)
        fig.savefig(out / f"{draw.__name__}.png", dpi=120)
        return out / f"{draw.__name__}.png"

    def lr_finder(fig: Any) -> None:
        recorder.plot(suggestion=True, ax=fig.add_subplot())

    def lr_and_momentum(fig: Any) -> None:
        recorder.plot_lr(show_moms=True, ax=fig.subplots(1, 2))

    def losses_and_metrics(fig: Any) -> None:
        left, right = fig.subplots(1, 2)
        recorder.plot_losses(ax=left)
        recorder.plot_metrics(ax=right)

    return [picture(lr_finder), picture(lr_and_momentum, 12), picture(losses_and_metrics, 12), history]


def main(argv: list[str] | None = None) -> int:
    """Run the main job; returns the exit status."""
    args = parser().parse_args(argv)
    if args.nproc > 1 and "RANK" not in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.nproc)]
        given = {name: value for name, value in vars(args).items() if name != "nproc" and value is not None}
        os.execv(sys.executable, [*start, "-m", "minifast", *(f"--{name}={value}" for name, value in given.items())])
    torch.manual_seed(args.seed)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        data = ImageDataBunch.from_folder(untar_data(URLs.MNIST_SAMPLE), bs=args.bs, device=args.device)
    except (OSError, ValueError, RuntimeError, AssertionError) as e:  # torch asserts that it was built for the device
        parser().error(str(e).splitlines()[0])
    learn = Learner(data, simple_cnn((3, 16, 16, 2)), metrics=[accuracy], path=args.out).to_distributed()
    say(str(learn))
    learn.lr_find()
    learn.fit_one_cycle(args.epochs, args.lr)
    written = [*once(learn, lambda: write_pictures(learn, args.out)), write_report(learn, args.out / "report.html")]
    say(f"Accuracy {learn.recorder.metrics[-1][0]:.2%}. Written to {args.out}/: {', '.join(p.name for p in written)}")
    return 0


def leave(status: int) -> NoReturn:
    """End the program. Python would report an output that cannot be written to (`| head`) once more, by its status."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(status)


if __name__ == "__main__":
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)    # two take 0.3 s off on a quiet machine, and five times as long on a busy one
    if "TORCHELASTIC_RUN_ID" in os.environ:     # torchrun then says which process has failed, and why
        from torch.distributed.elastic.multiprocessing.errors import record
        main = record(main)     # type: ignore[assignment]
    leave(main())
