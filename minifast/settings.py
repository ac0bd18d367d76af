"""The hyper-parameters of a run as a plain dict: `learn.settings()`."""
from __future__ import annotations

from typing import Any

from .callback import Callback
from .columns import metric_name
from .layers import is_lazy
from .same_run import arguments_of, described_with, in_words, shapes_training
from .snapshot import plain
from .utils import camel2snake

__all__ = ["settings_of"]


def settings_of(learn: Any) -> dict[str, Any]:
    """The hyper-parameters of the fit in progress, or the last one, as a plain dict: of model, loss, optimizer, data
    and, under "callbacks", the arguments of those that shape training. Large values are fingerprints. Before the first
    fit the dict has no "epochs" and no "callbacks".

    >>> learn = fake_learner()
    >>> learn.fit_one_cycle(2, 1e-2)
    >>> learn.settings()["epochs"], learn.settings()["callbacks"]["OneCycleScheduler"]["lr_max"]
    (2, 0.01)
    """
    model, data, recorder = learn.model, learn.data, learn.recorder
    sizes = [] if is_lazy(model) else [(p.numel(), p.requires_grad) for p in model.parameters()]
    found: dict[str, Any] = {
        "model": type(model).__name__, "parameters": sum(n for n, _ in sizes),
        "trainable parameters": sum(n for n, trained in sizes if trained), "layer groups": len(learn.layer_groups),
        "loss": described_with(learn.loss_func), "metrics": [metric_name(m) for m in learn.metrics],
        "optimizer": learn.opt.name if learn.has_opt else metric_name(learn.opt_func)}
    for name in ("lr", "mom", "wd") if learn.has_opt else ():
        if getattr(learn.opt, name) is not None:
            values = learn.opt.values(name)
            found[name] = values[0] if all(v == values[0] for v in values) else values
    found |= {"wd": found.get("wd", learn.wd), "true_wd": learn.true_wd, "bn_wd": learn.bn_wd,
              "train_bn": learn.train_bn, "batch size": data.batch_size, "batches": data.train_dl.length,
              "training samples": _length(data.train_ds), "validation samples": _length(data.valid_ds),
              "device": str(data.device)}
    if learn.handler is not None and learn.handler.state.n_epochs or recorder.times:
        found["epochs"] = len(recorder.times) if learn.handler is None else learn.handler.state.n_epochs
        found["callbacks"] = _callbacks(learn)
    return {name: plain(in_words(value)) for name, value in found.items()}


def _callbacks(learn: Any) -> dict[str, Any]:
    """The arguments of the run's callbacks that shape the training, by name."""
    found: dict[str, Any] = {}
    of_run = learn.recorder.taking_part if learn.handler is None else learn.handler.callbacks
    for cb in of_run:
        held = cb if isinstance(cb, Callback) else vars(learn).get(camel2snake(cb.__name__))
        kind = cb if isinstance(cb, type) else type(cb)
        if shapes_training(kind):
            found[kind.__name__] = arguments_of(held, without=("learn",)) if type(held) is kind else {}
    return found


def _length(dataset: Any) -> int | None:
    return len(dataset) if hasattr(dataset, "__len__") else None
