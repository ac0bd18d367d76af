"""The rows of the seven experiments: `PLAN.md` says in words what is run, and why, and how it is analysed.

A row is a dict that says all about one run, and its `id` names it. Rows are run in the order of the list.
"""
from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

__all__ = ["PARTS", "Part", "Row"]

Row = dict[str, Any]
Schedule = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """An experiment. `left_out`: what the claim would need and this plan does not run at all."""

    title: str
    left_out: tuple[str, ...]
    rows: tuple[Row, ...]


def rows(of: list[Row]) -> tuple[Row, ...]:
    """The rows with their ids, made of the fields that `vary` names: what sets a row apart from the others."""
    def word(key: str, value: Any) -> str:
        return value["label"] if key == "schedule" else value if isinstance(value, str) else f"{key} {value}"

    found = [{"id": ", ".join(word(k, row[k]) for k in row["vary"]), **{k: v for k, v in row.items() if k != "vary"}}
             for row in of]
    assert len({row["id"] for row in found}) == len(found)
    return tuple(found)


def schedule(label: str, kind: str | None = None, **options: Any) -> Schedule:
    return {"label": label, "kind": kind or label, **options}


# ---- the small picture job that several parts share

SGD = {"name": "sgd", "momentum": 0.9}
# a network with batch norm, as in the articles: two stride-2 convolutions (16, 32 channels) and a linear layer
JOB: Row = {"kind": "train", "data": "fashion", "pixels": 14, "n": 10_000, "n_valid": 10_000, "net": "cnn 16-32",
            "opt": SGD, "wd": 5e-4, "bs": 100}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
CYCLE = schedule("one_cycle", form="linear_cosine", moms=[0.95, 0.85])

# ---- 1. fastai's page

PAGE_ARMS: dict[str, Row] = {
    "fit 5e-2": {"method": "fit", "lr": 5e-2}, "fit 5e-3": {"method": "fit", "lr": 5e-3},
    "fit_one_cycle 5e-2": {"method": "fit_one_cycle", "lr": 5e-2},
    "fit 1e-2": {"method": "fit", "lr": 1e-2}, "fit 1e-3": {"method": "fit", "lr": 1e-3},
    "fit 1": {"method": "fit", "lr": 1.0},
    "fit steepest": {"method": "fit", "lr": "rule:steepest"}, "fit basin": {"method": "fit", "lr": "rule:basin"}}
PAGE = Part(
    "fastai's 1cycle and LR finder pages",
    (),
    rows([{"kind": "page", "arm": arm, "epochs": 2, "seed": seed, "vary": ["arm", "seed"], **fields}
          for seed in range(20) for arm, fields in PAGE_ARMS.items()]))

# ---- 3. how fast

BUDGETS = (2, 3, 4, 6, 8, 12, 16)
PLANNED = (CYCLE, schedule("one_cycle_three", "one_cycle", form="three_phase", pct_start=0.45, div_factor=10,
                           moms=[0.95, 0.85]),
           schedule("exponential"), schedule("step"), schedule("cosine"), schedule("warm_cosine"))
OPEN = (schedule("constant"), schedule("plateau"))
FAST = Part(
    "How fast is 1cycle?",
    ("full-size pictures, all 60,000 of them", "Smith's networks and lengths (CIFAR-10, 64,000 iterations)"),
    rows([{**JOB, "experiment": "tuning", "schedule": s, "lr": lr, "epochs": 8, "seed": seed,
            "vary": ["experiment", "schedule", "lr", "seed"]}
          for seed, s, lr in product((100, 101), (*PLANNED, *OPEN), RATES)]
         + [{**JOB, "experiment": "race", "schedule": s, "lr": "tuned", "epochs": n, "seed": seed,
             "vary": ["experiment", "schedule", "epochs", "seed"]}
            for seed in range(5)
            for s, n in (*product(({"label": "one_cycle", "kind": "tuned"}, *PLANNED[2:]), BUDGETS),
                         *product(OPEN, (32,)))]))

# ---- 5. cyclical momentum

MOMENTA: dict[str, Any] = {"0.95 to 0.85": [0.95, 0.85], "0.85 to 0.95": [0.85, 0.95],
                           **{f"always {m}": m for m in (0.8, 0.85, 0.9, 0.95)}}
MOMENTUM = Part(
    "Cyclical momentum",
    ("other optimizers than SGD", "weight decays other than 5e-4"),
    rows([{**JOB, "arm": arm, "schedule": {**CYCLE, "moms": moms if isinstance(moms, list) else None},
           "opt": {"name": "sgd", "momentum": 0.9 if isinstance(moms, list) else moms}, "lr": lr, "epochs": 5,
           "seed": seed, "vary": ["arm", "lr", "seed"]}
          for seed in range(10) for arm, moms in MOMENTA.items() for lr in RATES]))

# ---- 7. the schedules' regret

FORMS = ("linear_cosine", "fastai", "three_phase", "smith", "keras", "pytorch", "pytorch_linear", "pytorch_three_phase",
         "pytorch_three_phase_linear")
STRAIGHT = {"three_phase", "smith", "pytorch_three_phase", "pytorch_three_phase_linear"}     # up and down equally long
ALL = (*(schedule(f"1cycle {form}", "one_cycle", form=form, moms=[0.95, 0.85],
                  **({"pct_start": 0.45} if form in STRAIGHT else {})) for form in FORMS),
       *(schedule(s) for s in ("constant", "linear", "cosine", "exponential", "step", "warm_cosine", "flat_cosine",
                               "restarts", "triangular")))
REGRET = Part(
    "The schedules compared at equal length",
    ("longer runs than three epochs", "Adam"),
    rows([{**JOB, "data": data, "n": 5000, "n_valid": 5000, "net": "cnn 8-16", "bs": 50, "schedule": s,
           "lr": lr, "epochs": 3, "seed": seed, "vary": ["data", "schedule", "lr", "seed"]}
          for data in ("fashion", "mnist") for seed in range(5) for s in ALL for lr in RATES]))

# ---- 4. the pictures of the article

OVERFIT: Row = {**JOB, "n": 5000, "wd": 1e-4, "fit_loss": True}
ARTICLE_ARMS: dict[str, tuple[float, int, float]] = {  # peak rate, epochs, part of the run that is annihilation
    "long cycle": (0.1, 40, 0.137), "long annihilation": (0.1, 40, 0.5), "short cycle, high rate": (0.3, 20, 0.1)}
WDS = (1e-2, 1e-3, 1e-4)
ARTICLE = Part(
    "The pictures of the 1cycle article",
    ("the article's own network and data (ResNet-56, CIFAR-10)",),
    rows([{**OVERFIT, "experiment": "cycle", "arm": arm, "lr": lr, "epochs": epochs, "seed": seed,
           "vary": ["arm", "seed"],
           "schedule": {"kind": "one_cycle", "form": "three_phase", "pct_start": round((1 - last) / 2, 4),
                        "div_factor": 10, "moms": [0.95, 0.85]}}
          for seed in range(5) for arm, (lr, epochs, last) in ARTICLE_ARMS.items()]
         + [{**OVERFIT, "kind": "range", "experiment": "range", "data": data, "wd": wd, "lr": [1e-4, 10],
             "n_it": 200, "seed": seed, "vary": ["experiment", "data", "wd", "seed"]}
            for seed in range(5) for data in ("fashion", "mnist") for wd in WDS]))

# ---- 6. the Keras article

KERAS: Row = {"kind": "train", "data": "fashion", "pixels": 28, "n": 20_480, "n_valid": 10_000, "net": "mlp 300-100",
              "opt": {"name": "sgd", "momentum": 0.0}, "wd": 0.0}
KERAS_PART = Part(
    "The Keras article",
    ("the housing table: its data comes with none of the packages that minifast or its tests use",),
    rows([{"kind": "regret", "experiment": "rules", "vary": ["experiment"]}]
         + [{**KERAS, "experiment": "NaN", "schedule": schedule("constant"), "bs": bs, "lr": lr, "epochs": 2,
             "seed": seed, "vary": ["experiment", "bs", "lr", "seed"]}
            for seed in range(3) for bs in (2048, 32) for lr in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)]
         + [{**KERAS, "experiment": "versus", "schedule": s, "bs": bs, "lr": lr, "epochs": 4, "seed": seed,
             "vary": ["experiment", "schedule", "bs", "lr", "seed"]}
            for seed in range(5) for bs in (2048, 32)
            for s in (schedule("one_cycle", form="keras", div_factor=10, moms=None), schedule("constant"))
            for lr in (0.03, 0.1, 0.3, 1.0, 3.0)]))

# ---- 2. Smith's table

SMITH_ROWS: dict[str, Row] = {   # "cycle": half a cycle in epochs
    "S1": {"epochs": 85, "lr": 0.01, "schedule": schedule("inv")},
    "S2": {"epochs": 85, "lr": 0.01, "schedule": schedule("smith_step")},
    "S3": {"epochs": 12, "lr": 0.1, "cycle": 5}, "S4": {"epochs": 25, "lr": 0.1, "cycle": 12},
    "S5": {"epochs": 50, "lr": 0.1, "cycle": 23}, "S6": {"epochs": 85, "lr": 0.2, "cycle": 40}}


def smith(table_row: str, experiment: str, seed: int, bs: int, init: str, velocity: str = "caffe",
          nesterov: bool = False) -> Row:
    fields = dict(SMITH_ROWS[table_row])
    cycle = fields.pop("cycle", None)
    if cycle:
        # rounded up, for a step less would be lost when the form cuts to whole steps
        fields["schedule"] = schedule("smith", "one_cycle", form="smith", div_factor=10, moms=[0.95, 0.80],
                                      pct_start=round(cycle / fields["epochs"] + 5e-7, 6))
    return {"kind": "train", "data": "mnist", "pixels": 28, "n": 60_000, "n_valid": 10_000, "net": f"lenet {init}",
            "opt": {"name": "caffe", "momentum": 0.9, "velocity": velocity, "nesterov": nesterov, "bias_lr": 2.0},
            "wd": 5e-4, "bs": bs, "checkpoint": True, "drop_last": False, "seed": seed, "experiment": experiment,
            "arm": f"{table_row} {init} {'nesterov' if nesterov else 'sgd'} {velocity}",
            "vary": ["experiment", "arm", "bs", "seed"], **fields}


def in_his_style(table_row: str, k: int) -> Row:
    return smith(table_row, "style", k, 512 + 4 * k, ("xavier", "msra")[k % 2])


SMITH = Part(
    "Smith's table",
    ("the order of the file in each epoch", "the prose form and the two-phase form for the same rows"),
    rows([smith(r, "seeds", 0, 512, "xavier") for r in ("S3", "S1")]
         + [in_his_style(r, k) for k in range(4) for r in ("S3", "S1")]
         + [smith("S3", "conventions", k, 512, "xavier", v, n) for k in range(4)
            for v, n in (("torch", False), ("caffe", True), ("torch", True))]
         + [smith(r, "seeds", k, 512, "xavier") for k in range(1, 20) for r in ("S3", "S1")]
         + [in_his_style(r, k) for k in range(4) for r in ("S2", "S4", "S5", "S6")]))

PARTS: dict[str, Part] = {"1": PAGE, "3": FAST, "5": MOMENTUM, "7": REGRET, "4": ARTICLE, "6": KERAS_PART, "2": SMITH}
