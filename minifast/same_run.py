"""What belongs to a run: whether one can be the continuation of another."""
from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .callback import Callback, role_of
from .snapshot import plain
from .state import State
from .utils import is_plain

__all__ = ["check_same", "named", "settings", "shapes_training"]


def named(handler: Any) -> dict[str, Callback]:
    """The run's callbacks and metrics by name: the class, numbered from the second one of a class on."""
    seen: Counter[str] = Counter()

    def names(callbacks: Iterable[Callback], kind: str) -> Iterable[tuple[str, Callback]]:
        for cb in callbacks:
            name = kind + type(cb).__name__
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name} {seen[name]}"), cb
    return dict([*names(handler.callbacks, ""), *names(handler.metrics, "metric ")])


def shapes_training(cb: Callback) -> bool:
    """Whether it is part of the training itself: a run that goes on must have it with equal settings."""
    return role_of(cb) in ("training", "fit")


def settings(learn: Any) -> dict[str, Any]:
    """What a run must have in common with the one that it continues."""
    s: State = learn.handler.state
    found = {"number of epochs": s.n_epochs, "optimizer steps": s.n_updates,
             "batches in an epoch": len(learn.data.train_dl), "batch size": learn.data.batch_size,
             "metrics": s.metrics_names, "optimizer": learn.opt.name, "lr": learn.opt.values("lr"),
             "wd": learn.opt.values("wd")}
    if items := getattr(learn.data.train_ds, "items", None):
        names = "\n".join("/".join(Path(item).parts[-2:]) for item in items)
        found["training pictures (a random part needs seed=)"] = hashlib.sha256(names.encode()).hexdigest()[:8]
    for name, cb in named(learn.handler).items():
        if shapes_training(cb):
            values = {p: vars(cb).get(p) for p in inspect.signature(type(cb)).parameters if p != "seed"}
            values = {p: v.tolist() if isinstance(v, np.ndarray) else v for p, v in values.items()}
            found[name] = {p: v for p, v in values.items() if is_plain(v) and not isinstance(v, torch.Tensor)}
    return plain(found)  # type: ignore[no-any-return]


def check_same(path: Path, before: dict[str, Any], now: dict[str, Any], but: Sequence[str] = ()) -> None:
    """ValueError, which names the file and what has changed, unless these settings are equal; those in `but` may
    differ."""
    wrong = [f"{key}: {before.get(key)} then, {now.get(key)} now" for key in {**before, **now}
             if before.get(key) != now.get(key) and key not in but]
    if wrong:
        raise ValueError(
            f"{path} is a run that was begun with other settings, so it cannot be continued exactly ("
            + "; ".join(wrong) + "). Set them back, or choose another name to train anew. (More or fewer epochs: "
            "ask for it with Checkpoint(learn, name, extend=True) among the callbacks.)")
