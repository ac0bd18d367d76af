"""How good are rules for choosing a learning rate? The regret of the short 1cycle run that follows each suggestion.

    python tests/bench/finder/regret.py measure FASHION   the range tests and the grid of runs (half an hour on a core)
    python tests/bench/finder/regret.py peers FASHION     the peers' suggestions (fastai, lightning, torch-lr-finder)
    python tests/bench/finder/regret.py table             the table, from what the two have written

FASHION holds Fashion-MNIST as it is published: {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz. A case is a data set,
a model, an optimizer with its batch size, and a seed, which fixes the initial weights and the order of the batches.
Regret is the validation loss after the run at the suggested learning rate minus that after the best run of the grid;
between the learning rates of the grid the validation loss is read off a line in log lr. No suggestion counts as the
learner's default. The constants of minifast's own rule were chosen on the seeds 0 and 1; 2 and 3 were looked at later.
"""
from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import struct
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from minifast.data import DataBunch
from minifast.datasets import URLs, untar_data
from minifast.layers import conv_layer, simple_cnn
from minifast.learner import Learner
from minifast.suggestion import RangeTest
from minifast.vision.data import ImageDataBunch

__all__ = ["CASES", "GRID", "learner", "load", "measure", "peers", "regret", "table"]

RESULTS = Path(__file__).with_name("results.json")
GRID = [1e-5, *(float(f"{lr:.3g}") for lr in np.logspace(-4, 1, 16))]
N_TRAIN, N_VALID = 2048, 1000
DEFAULT_LR = 3e-3

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "cnn": lambda c: simple_cnn((1, 16, 16, c)),
    "cnn+bn": lambda c: nn.Sequential(conv_layer(1, 8, stride=2), conv_layer(8, 16, stride=2), nn.Flatten(),
                                      nn.Linear(16 * 49, c)),
    "mlp": lambda c: nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, c)),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, betas=(0.9, 0.99)), "sgd": partial(torch.optim.SGD, momentum=0.9)}
RUNS = [("adam", 32, 2), ("adam", 256, 6), ("sgd", 64, 3)]  # optimizer, batch size, epochs
CASES = [(*rest, seed) for seed, *rest in product(range(4), ("mnist sample", "fashion"), MODELS, RUNS)]
Case = tuple[str, str, tuple[str, int, int], int]


def name_of(case: Case) -> str:
    dataset, model, (opt, bs, _), seed = case
    return f"{dataset}, {model}, {opt} {bs}, seed {seed}"


@cache
def tensors(dataset: str, fashion: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and validation images (n, 1, 28, 28) from 0 to 1, and their labels."""
    if dataset == "fashion":
        parts = [_idx(fashion / f"{part}-{kind}-ubyte.gz") for part in ("train", "t10k")
                 for kind in ("images-idx3", "labels-idx1")]
        xs, ys = [p.unsqueeze(1).float() / 255 for p in parts[::2]], [p.long() for p in parts[1::2]]
    else:
        data = ImageDataBunch.from_folder(untar_data(URLs.MNIST_SAMPLE), device="cpu")
        both = [list(zip(*dl, strict=True)) for dl in (data.fix_dl, data.valid_dl)]
        xs, ys = ([torch.cat(part[i]) for part in both] for i in (0, 1))
    gen = torch.Generator().manual_seed(0)
    rows = [torch.randperm(len(y), generator=gen)[:n] for y, n in zip(ys, (N_TRAIN, N_VALID), strict=True)]
    return xs[0][rows[0], :1], ys[0][rows[0]], xs[1][rows[1], :1], ys[1][rows[1]]


def _idx(file: Path) -> Tensor:
    data = gzip.decompress(file.read_bytes())
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape).copy())


def learner(case: Case, fashion: Path) -> Learner:
    """A new learner of the case: equal weights and equal batches each time."""
    dataset, model, (opt, bs, _), seed = case
    x, y, valid_x, valid_y = tensors(dataset, fashion)
    torch.manual_seed(seed)
    data = DataBunch.create(TensorDataset(x, y), TensorDataset(valid_x, valid_y), bs=bs, val_bs=1000, device="cpu",
                            seed=seed)
    net = MODELS[model](int(y.max()) + 1)
    return Learner(data, net, OPTIMIZERS[opt], nn.CrossEntropyLoss(), silent=True, check_finite=False)


def valid_loss(case: Case, fashion: Path, lr: float) -> float:
    """The validation loss after the case's 1cycle run with its peak at `lr`; 1000 where it is not finite or larger."""
    learn = learner(case, fashion)
    learn.fit_one_cycle(case[2][2], lr)
    loss = learn.recorder.val_losses[-1]
    return min(loss, 1000.0) if np.isfinite(loss) else 1000.0


# ---- what is measured once and kept

def measure(fashion: Path) -> None:
    """The range test and the grid of each case."""
    def of(case: Case) -> dict[str, Any]:
        test = learner(case, fashion).lr_find()
        return {"lrs": test.lrs.tolist(), "losses": test.losses.tolist(), "raw_losses": test.raw_losses.tolist(),
                "grid": [valid_loss(case, fashion, lr) for lr in GRID]}
    _each_case("ours", of)


def peers(fashion: Path) -> None:
    """What each peer suggests for each case, asked in the way that its documentation shows."""
    finders = {"fastai 2": fastai_2, "Lightning": lightning, "torch-lr-finder": torch_lr_finder}

    def of(case: Case) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, finder in finders.items():
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                found |= {f"{name} {rule}".strip(): lr for rule, lr in finder(learner(case, fashion), case).items()}
        return found
    _each_case("peers", of)


def _each_case(key: str, of: Callable[[Case], dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    for case in CASES:
        results = load()
        mine = results.setdefault(name_of(case), {})
        if key not in mine:
            start = time.perf_counter()
            mine[key] = of(case)
            results = load()  # the other measurement may have written meanwhile
            results.setdefault(name_of(case), {})[key] = mine[key]
            lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(_short(v))}" for k, v in sorted(results.items()))
            temporary = RESULTS.with_suffix(f".{key}")
            temporary.write_text("{" + lines + "}\n")
            os.replace(temporary, RESULTS)
            print(f"{name_of(case)}: {time.perf_counter() - start:.1f} s", flush=True)


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _short(x: Any) -> Any:
    """Numbers with five digits: the file stays small."""
    if isinstance(x, dict):
        return {k: _short(v) for k, v in x.items()}
    return [_short(v) for v in x] if isinstance(x, list) else float(f"{x:.5g}") if isinstance(x, float) else x


def fastai_2(learn: Learner, case: Case) -> dict[str, float | None]:
    from fastai.callback import schedule  # also gives its Learner lr_find
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner as FastaiLearner
    from fastai.optimizer import OptimWrapper

    dls = DataLoaders(*_torch_loaders(learn, case))
    opt = partial(OptimWrapper, opt=OPTIMIZERS[case[2][0]])
    theirs = FastaiLearner(dls, learn.model, loss_func=learn.loss_func, opt_func=opt)
    rules = (schedule.valley, schedule.slide, schedule.minimum, schedule.steep)
    with theirs.no_bar():
        return theirs.lr_find(suggest_funcs=rules, show_plot=False)._asdict()


def lightning(learn: Learner, case: Case) -> dict[str, float | None]:
    import lightning as L
    from lightning.pytorch.tuner import Tuner

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.lr = learn.model, DEFAULT_LR

        def training_step(self, batch: Any, i: int) -> Tensor:
            return learn.loss_func(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return OPTIMIZERS[case[2][0]](self.parameters(), lr=self.lr)

    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                        max_epochs=100, default_root_dir=tempfile.gettempdir())
    found = Tuner(trainer).lr_find(Module(), train_dataloaders=_torch_loaders(learn, case)[0])
    return {"": None if found is None else found.suggestion()}


def torch_lr_finder(learn: Learner, case: Case) -> dict[str, float | None]:
    from matplotlib.figure import Figure
    from torch_lr_finder import LRFinder

    opt = OPTIMIZERS[case[2][0]](learn.model.parameters(), lr=1e-7)
    finder = LRFinder(learn.model, opt, learn.loss_func, device="cpu")
    finder.range_test(_torch_loaders(learn, case)[0], end_lr=100, num_iter=100)
    found = finder.plot(ax=Figure().add_subplot())
    return {"": float(found[1]) if isinstance(found, tuple) else None}


def _torch_loaders(learn: Learner, case: Case) -> list[Any]:
    from torch.utils.data import DataLoader

    gen = torch.Generator().manual_seed(case[3])
    return [DataLoader(learn.data.train_ds, case[2][1], shuffle=True, drop_last=True, generator=gen),
            DataLoader(learn.data.valid_ds, 1000)]


# ---- the table

def regret(lr: float | None, grid: list[float]) -> float:
    """Validation loss at `lr`, read off the grid, minus the best on the grid."""
    lr = DEFAULT_LR if lr is None or not np.isfinite(lr) or lr <= 0 else lr
    return float(np.interp(np.log(lr), np.log(GRID), grid)) - min(grid)


def table(results: dict[str, Any], seeds: str = "0123") -> dict[str, dict[str, float]]:
    """For every rule: mean, median and worst regret, and the share of the cases in which it suggested nothing."""
    found: dict[str, list[tuple[float, bool]]] = {}
    for name, case in results.items():
        if name[-1] in seeds and case.keys() >= {"ours", "peers"}:
            test = RangeTest(*(case["ours"][k] for k in ("lrs", "losses", "raw_losses")))
            lrs = {f"minifast {rule}": said.lr for rule, said in test.suggestions.items()} | case["peers"]
            for rule, lr in (lrs | {f"always {lr}": lr for lr in (DEFAULT_LR, 0.01, 0.03)}).items():
                found.setdefault(rule, []).append((regret(lr, case["ours"]["grid"]), lr is None))
    rows = {rule: {"mean": float(np.mean([r for r, _ in of])), "median": float(np.median([r for r, _ in of])),
                   "worst": max(r for r, _ in of), "no answer": float(np.mean([n for _, n in of])), "cases": len(of)}
            for rule, of in found.items()}
    return dict(sorted(rows.items(), key=lambda row: row[1]["mean"]))


def print_table(rows: dict[str, dict[str, float]]) -> None:
    print(f"{'rule':20}{'mean':>9}{'median':>9}{'worst':>9}{'no answer':>11}{'cases':>7}")
    for rule, row in rows.items():
        print(f"{rule:20}{row['mean']:9.3f}{row['median']:9.3f}{row['worst']:9.2f}{row['no answer']:11.0%}"
              f"{row['cases']:7}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("measure", "peers", "table"))
    parser.add_argument("fashion", type=Path, nargs="?", help="the folder with Fashion-MNIST")
    args = parser.parse_args()
    if args.what == "table":
        for seeds, of in ("0123", "all cases"), ("01", "those that basin was chosen on"), ("23", "the others"):
            print(f"Regret, {of}:")
            print_table(table(load(), seeds))
        return
    if args.fashion is None:
        parser.error(f"{args.what} needs the folder with Fashion-MNIST")
    warnings.simplefilter("ignore")
    (measure if args.what == "measure" else peers)(args.fashion)


if __name__ == "__main__":
    main()
