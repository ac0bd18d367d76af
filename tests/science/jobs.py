"""Rows of the plan, run: what each trains, and what is kept of it."""
from __future__ import annotations

import gzip
import json
import math
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from minifast import schedules
from minifast.stepper import Stepper, annealing_exp
from minifast.suggestion import RangeTest
from minifast.vision import *

__all__ = ["CaffeSGD", "Files", "run"]

Row = dict[str, Any]
Result = dict[str, Any]
# where the data sets lie: name to folder. Without a folder small pictures are made up, for the tests
Files = Mapping[str, Path | None]
FINDER = Path(__file__).parents[1] / "bench" / "finder"
DEVICE: ContextVar[str] = ContextVar("device", default="cpu")     # where the networks of this row are trained
STATS = {"fashion": (0.2860, 0.3530), "mnist": (0.1307, 0.3081)}


# ---- data

def _idx(file: Path) -> Tensor:
    """A file of MNIST's format as bytes."""
    data = gzip.decompress(file.read_bytes())
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape).copy())


@cache
def pictures(folder: Path | None, part: str) -> tuple[Tensor, Tensor]:
    """All pictures (n, 1, 28, 28), bytes, and their classes. Without a folder: noisy pictures of ten patterns."""
    if folder is None:
        gen = torch.Generator().manual_seed(int(part == "train"))
        y = torch.arange(10).repeat(12)
        patterns = torch.randint(0, 200, (10, 1, 28, 28), generator=torch.Generator().manual_seed(7))
        return (patterns[y] + torch.randint(0, 56, (120, 1, 28, 28), generator=gen)).byte(), y
    x, y = (_idx(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return x.unsqueeze(1), y.long()


@cache
def tensors(folder: Path | None, name: str, part: str, n: int, pixels: int, scale: str) -> tuple[Tensor, Tensor]:
    """The first `n` pictures as floats. `scale`: "standard" (mean 0, sd 1), "unit" (0 to 1) or "caffe" (/ 256)."""
    x, y = pictures(folder, part)
    x = x[:n].float() / (256 if scale == "caffe" else 255)
    if pixels != 28:
        x = F.avg_pool2d(x, 28 // pixels)
    if scale == "standard":
        mean, std = STATS[name]
        x = (x - mean) / std
    return x, y[:n]


@cache
def sample(made_up: bool) -> tuple[TensorDataset, TensorDataset]:
    """MNIST_SAMPLE as the main job prepares it, decoded once for all rows; or two patterns in its place."""
    sets = []
    if made_up:
        for part in ("train", "t10k"):
            x, y = pictures(None, part)
            x, y = x[y < 2].float() / 255, y[y < 2]
            sets.append(TensorDataset(x.repeat(50, 3, 1, 1), y.repeat(50)))
    else:
        data = ImageDataBunch.from_folder(untar_data(URLs.MNIST_SAMPLE), device="cpu")
        for dl in (data.fix_dl, data.valid_dl):
            x, y = zip(*dl, strict=True)
            sets.append(TensorDataset(torch.cat(x), torch.cat(y)))
    return sets[0], sets[1]


def data_of(row: Row, files: Files) -> DataBunch:
    """The row's batches; its seed fixes their order."""
    scale = {"len": "caffe", "mlp": "unit"}.get(row["net"][:3], "standard")
    folder = files[row["data"]]
    train, valid = (TensorDataset(*tensors(folder, row["data"], part, row[n], row["pixels"], scale))
                    for part, n in (("train", "n"), ("t10k", "n_valid")))
    bs = min(row["bs"], len(train))
    return DataBunch.create(train, valid, bs=bs, val_bs=1000, device=DEVICE.get(), seed=row["seed"],
                            drop_last=row.get("drop_last", True), loss_func=nn.CrossEntropyLoss())


# ---- networks and optimizers

def lenet(init: str) -> nn.Module:
    """Caffe's LeNet: no ReLU after the convolutions; biases 0, weights uniform with variance 1 / fan_in ("xavier") or
    normal with variance 2 / fan_in ("msra")."""
    net = nn.Sequential(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))
    for layer in net:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan_in = layer.weight[0].numel()
            if init == "xavier":
                nn.init.uniform_(layer.weight, -math.sqrt(3 / fan_in), math.sqrt(3 / fan_in))
            else:
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
            nn.init.zeros_(layer.bias)
    return net


def mlp() -> nn.Module:
    """784-300-100-10 with ReLU, Glorot's uniform initialisation and biases 0, as Keras makes it."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(),
                        nn.Linear(100, 10))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


def cnn(a: int, b: int) -> nn.Module:
    """Two convolutions with batch norm that halve the picture (14 to 7 to 4), and a linear layer."""
    return nn.Sequential(conv_layer(1, a, stride=2), conv_layer(a, b, stride=2), nn.Flatten(), nn.Linear(b * 16, 10))


NETS: dict[str, Callable[[], nn.Module]] = {
    "cnn 16-32": partial(cnn, 16, 32), "cnn 8-16": partial(cnn, 8, 16), "mlp 300-100": mlp,
    "lenet xavier": partial(lenet, "xavier"), "lenet msra": partial(lenet, "msra")}


class CaffeSGD(torch.optim.Optimizer):
    """SGD with momentum as Caffe has it: the learning rate is inside the velocity, v = m v + lr g, w = w - v.

    `velocity="torch"`: outside of it, v = m v + g, w = w - lr v; the two differ where lr moves. `nesterov`: the step
    looks ahead, (1 + m) v - m v_before. `bias_lr`: parameters of one dimension learn at so many times the rate.
    """

    def __init__(self, params: Any, lr: float = 0.01, momentum: float = 0.9, velocity: str = "caffe",
                 nesterov: bool = False, bias_lr: float = 1.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "bias_lr": bias_lr})
        self.inside, self.nesterov = velocity == "caffe", nesterov

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for all parameters."""
        for g in self.param_groups:
            for p in g["params"]:
                lr = g["lr"] * (g["bias_lr"] if p.ndim == 1 else 1)
                grad = p.grad.add(p, alpha=g["weight_decay"])
                if p not in self.state:
                    self.state[p]["v"] = torch.zeros_like(p)
                v = self.state[p]["v"]
                before = v.clone() if self.nesterov else v
                v.mul_(g["momentum"]).add_(grad, alpha=lr if self.inside else 1)
                step = v * (1 + g["momentum"]) - before * g["momentum"] if self.nesterov else v
                p.sub_(step if self.inside else step * lr)


def optimizer_of(opt: Row) -> Callable[..., torch.optim.Optimizer]:
    options = {k: v for k, v in opt.items() if k != "name"}
    return partial(CaffeSGD if opt["name"] == "caffe" else torch.optim.SGD, **options)


# ---- schedules

def _exponential(lr: float) -> Any:
    return lambda n, per_epoch: Stepper((lr, lr / 100), n, annealing_exp)


def _inv(lr: float) -> Any:
    return lambda n, per_epoch: lambda i: lr * (1 + 1e-4 * i) ** -0.75


def curve_of(kind: str, lr: float, epochs: int) -> Any:
    """The learning rate over the run, as `PLAN.md` describes it."""
    drop = 0.316
    curves: dict[str, Callable[[], Any]] = {
        "linear": lambda: schedules.linear(lr), "cosine": lambda: schedules.cosine(lr),
        "exponential": lambda: _exponential(lr), "inv": lambda: _inv(lr),
        "step": lambda: schedules.piecewise([lr, lr / 10, lr / 100], [0.5 * epochs, 0.75 * epochs]),
        "smith_step": lambda: schedules.piecewise([lr, lr * drop, lr * drop**2, lr * drop**3, lr * drop**5],
                                                  [part * epochs for part in (0.5, 0.75, 0.875, 0.9375)]),
        "warm_cosine": lambda: schedules.warm_up(schedules.cosine(lr), epochs=0.1 * epochs),
        "flat_cosine": lambda: schedules.flat_cosine(lr),
        "restarts": lambda: schedules.restarts(lr, cycle_len=epochs / 3, cycle_mult=2),
        "triangular": lambda: schedules.triangular(lr / 10, lr, epochs / 4)}
    return curves[kind]()


def fit(learn: Learner, row: Row, lr: float, callbacks: list[Any], checkpoint: str | None) -> None:
    """Train the row's epochs by its schedule."""
    options = {k: v for k, v in row["schedule"].items() if k not in ("label", "kind")}
    kind, epochs = row["schedule"]["kind"], row["epochs"]
    if kind == "one_cycle":
        moms = options.pop("moms")
        learn.fit_one_cycle(epochs, lr, moms and tuple(moms), callbacks=callbacks, checkpoint=checkpoint, **options)
        return
    if kind == "plateau":
        callbacks = [*callbacks, ReduceLROnPlateauCallback(learn, patience=3, factor=0.2)]
    elif kind != "constant":
        callbacks = [*callbacks, ParamScheduler(learn, lr=curve_of(kind, lr, epochs))]
    learn.fit(epochs, lr, callbacks=callbacks, checkpoint=checkpoint)


# ---- rows

class FitLoss(LearnerCallback):
    """Measures the loss over the first 2,500 training samples after each epoch, with the weights as they are then."""

    def on_train_begin(self) -> None:
        self.losses: list[float] = []

    def on_epoch_end(self) -> None:
        learn = self.learn
        x, y = (t[:2500].to(learn.data.device) for t in learn.data.train_ds.tensors)
        learn.model.eval()      # each epoch of training begins with train()
        with torch.no_grad():
            self.losses.append(float(learn.loss_func(learn.model(x), y)))


def learner_of(row: Row, files: Files, path: Path) -> Learner:
    torch.manual_seed(row["seed"])
    return Learner(data_of(row, files), NETS[row["net"]](), optimizer_of(row["opt"]), metrics=[accuracy],
                   wd=row["wd"], true_wd=False, silent=True, check_finite=False, path=path)


def train(row: Row, results: Mapping[str, Result], files: Files, path: Path) -> Result:
    """A network trained from scratch: its losses and accuracies after each epoch."""
    row, lr = with_tuned_rate(row, results)
    learn = learner_of(row, files, path)
    extra = [FitLoss(learn)] if row.get("fit_loss") else []
    name = "".join(c if c.isalnum() else "-" for c in row["id"]) if row.get("checkpoint") else None
    fit(learn, row, lr, list(extra), name)
    recorder = learn.recorder
    result = {"lr": lr, "train_loss": recorder.train_losses, "valid_loss": recorder.val_losses,
              "accuracy": [float(m[0]) for m in recorder.metrics]}
    if extra:
        result["fit_loss"] = extra[0].losses
    if "schedule" in row and row["lr"] == "tuned":
        result["schedule"] = row["schedule"]["label"]
    if name:
        for file in (path / learn.model_dir).glob(f"{name}*"):
            file.unlink()
    return result


def with_tuned_rate(row: Row, results: Mapping[str, Result]) -> tuple[Row, float]:
    """The row and its learning rate; of a race, with what the tuning rows say: the schedule of that label (1cycle: of
    its forms) and the rate with the best mean accuracy at the end."""
    if row["lr"] != "tuned":
        return row, row["lr"]
    from .plan import PARTS

    wanted = row["schedule"]["label"]
    found: dict[tuple[str, float], list[float]] = {}
    tuning = [r for part in PARTS.values() for r in part.rows if r.get("experiment") == "tuning"]
    for r in tuning:
        label = r["schedule"]["label"]
        if label == wanted or row["schedule"]["kind"] == "tuned" and label.startswith(wanted):
            found.setdefault((label, r["lr"]), []).append(results[r["id"]]["accuracy"][-1])
    label, lr = max(found, key=lambda key: sum(found[key]) / len(found[key]))
    chosen = next(r["schedule"] for r in tuning if r["schedule"]["label"] == label)
    return {**row, "schedule": chosen}, lr


def page(row: Row, results: Mapping[str, Result], files: Files, path: Path) -> Result:
    """One arm of fastai's page, to the bit the main job's."""
    train_ds, valid_ds = sample(files["fashion"] is None)
    torch.manual_seed(row["seed"])
    data = DataBunch.create(train_ds, valid_ds, bs=64, device="cpu", loss_func=CrossEntropyFlat())
    learn = Learner(data, simple_cnn((3, 16, 16, 2)), metrics=[accuracy], silent=True, path=path)
    lr = row["lr"]
    if isinstance(lr, str):
        lr = learn.lr_find().suggest(lr.removeprefix("rule:")).lr or 3e-3   # without one: the learner's default
    getattr(learn, row["method"])(row["epochs"], lr)
    right, classes = learn.recorder.metrics[-1][0], learn.get_preds()[0].argmax(1).unique()
    return {"lr": lr, "valid_loss": learn.recorder.val_losses[-1], "errors": round((1 - float(right)) * len(valid_ds)),
            "classes": len(classes)}


def range_test(row: Row, results: Mapping[str, Result], files: Files, path: Path) -> Result:
    """The curve of a range test at one weight decay."""
    learn = learner_of(row, files, path)
    test = learn.lr_find(*row["lr"], num_it=row["n_it"])
    return {"lrs": test.lrs.tolist(), "losses": test.losses.tolist()}


def shoots_up(lrs: Any, losses: Any) -> float:
    """The first rate after the lowest loss at which the loss has risen by half of what it had fallen from its start, or
    is not finite; the last one tested if there is none."""
    losses = np.nan_to_num(np.asarray(losses, float), nan=np.inf)
    lowest = int(losses.argmin())
    risen = losses[lowest:] >= losses[lowest] + (losses[0] - losses[lowest]) / 2
    at = lowest + int(risen.argmax()) if risen.any() and losses[0] > losses[lowest] else len(losses) - 1
    return float(lrs[at])


def regrets(row: Row, results: Mapping[str, Result], files: Files, path: Path) -> Result:
    """Regret of every rule in each case of the finder's comparison, and of a tenth of where the loss shoots up."""
    sys.path.insert(0, str(FINDER))
    import regret
    sys.path.remove(str(FINDER))

    found: dict[str, list[float]] = {}
    for _, case in sorted(json.loads((FINDER / "results.json").read_text()).items()):
        test = RangeTest(*(np.array(case["ours"][k]) for k in ("lrs", "losses", "raw_losses")))
        lrs = {rule: said.lr for rule, said in test.suggestions.items()}
        lrs["a tenth of where it shoots up"] = shoots_up(test.lrs, test.losses) / 10
        for rule, lr in lrs.items():
            found.setdefault(rule, []).append(regret.regret(lr, case["ours"]["grid"]))
    return {"regret": found}


KINDS: dict[str, Callable[[Row, Mapping[str, Result], Files, Path], Result]] = {
    "train": train, "page": page, "range": range_test, "regret": regrets}


def run(row: Row, results: Mapping[str, Result], files: Files, path: Path, device: str = "cpu") -> Result:
    """What a row gives. `results`: those of the rows before it. `path`: where unfinished runs are kept."""
    start = time.perf_counter()
    token = DEVICE.set(device)
    try:
        result = KINDS[row["kind"]](row, results, files, path)
    finally:
        DEVICE.reset(token)
    on = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {**result, "seconds": time.perf_counter() - start, "on": f"{on}, torch {torch.__version__}"}
