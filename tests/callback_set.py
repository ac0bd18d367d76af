"""Every callback class of the package, found by reflection, and what a learner must look like when a run has ended."""
from __future__ import annotations

import importlib
import pkgutil
from functools import partial
from types import SimpleNamespace

import torch
from torch import nn, optim

import minifast.callbacks
from minifast.callback import Callback, LearnerCallback
from minifast.callbacks import schedules
from minifast.callbacks.general_sched import TrainingPhase
from minifast.callbacks.run_tracker import RunTracker
from minifast.callbacks.scheduler import ScheduleCallback
from minifast.fakes import fake_learner
from minifast.metrics import accuracy

ABSTRACT = {ScheduleCallback, RunTracker}   # made to be derived from: they have no schedule, no tracker of their own


class Client:
    """What `MLflow` needs of an MlflowClient."""

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="1")

    def create_run(self, experiment_id, run_name=None):
        return SimpleNamespace(info=SimpleNamespace(run_id="2"))

    def log_param(self, run_id, key, value):
        assert run_id == "2"

    def log_metric(self, run_id, key, value, timestamp, step):
        assert run_id == "2" and type(value) is float

    def set_terminated(self, run_id, status):
        assert run_id == "2"


class Run:
    """What `WandB` needs of a run of W&B."""

    id, config = "3", SimpleNamespace(update=lambda settings, allow_val_change: None)

    def log(self, values, step, commit):
        assert all(type(value) is float for value in values.values())


class Trial:
    """What `OptunaPruning` needs of a trial of Optuna."""

    def report(self, value, step):
        assert type(value) is float

    def should_prune(self):
        return False


# arguments of those that have no defaults for them; everything else must construct without
ARGUMENTS = {
    "OneCycleScheduler": dict(lr_max=0.01),
    "GeneralScheduler": dict(phases=[TrainingPhase(3).schedule_hp("lr", (0.01, 0.1))]),
    "ParamScheduler": dict(lr=schedules.cosine(0.1)),
    "TorchScheduler": dict(scheduler_func=partial(optim.lr_scheduler.StepLR, step_size=1)),
    "BatchSizeSchedule": dict(sizes={0: 2, 1: 4}),
    "Checkpoint": dict(name="run"),
    "MLflow": dict(client=Client()),
    "WandB": dict(run=Run()),
    "OptunaPruning": dict(trial=Trial()),
}


def _found() -> list[type[Callback]]:
    modules = [importlib.import_module(f"minifast.callbacks.{m.name}")
               for m in pkgutil.iter_modules(minifast.callbacks.__path__)]
    public = [vars(m)[name] for m in modules for name in m.__all__]
    classes = {c for c in public if isinstance(c, type) and issubclass(c, Callback)} - ABSTRACT
    return sorted(classes, key=lambda c: c.__name__)


CLASSES = _found()


def make(cls, learn):
    """A callback of that class, for that learner."""
    arguments = ARGUMENTS.get(cls.__name__, {})
    return cls(learn, **arguments) if issubclass(cls, LearnerCallback) else cls(**arguments)


class SumLoss(nn.CrossEntropyLoss):
    """Reports a part of itself, as `LossMetrics` wants it."""

    metric_names = ["part"]

    def forward(self, output, target):
        loss = super().forward(output, target)
        self.metrics = {"part": loss.detach() / 2}
        return loss


def a_learner(path, n_batches=4, n_valid=8, **kwargs):
    """Small, but with all that a callback may leave behind: buffers, modes, momentum, a loss with parts, metrics."""
    torch.manual_seed(0)
    layers = [nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)]
    return fake_learner(batch_size=4, train_length=4 * n_batches, valid_length=n_valid, layers=layers, path=path,
                        loss_func=SumLoss(), metrics=[accuracy], opt_func=partial(optim.SGD, momentum=0.9), **kwargs)


def furniture(learn):
    """What a run must leave as it was: compared before and after."""
    opt, dls = learn.opt, learn.data.dls
    return {
        "loss function": learn.loss_func, "callbacks": list(learn.callbacks), "data": learn.data,
        "loaders": [(dl, dl.dl, dl.batch_size, len(dl), list(dl.tfms)) for dl in dls],
        "hooks": [(h, len(getattr(m, h))) for m in learn.model.modules() for h in
                  ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")],
        "optimizer": (opt, opt.opt, type(opt), "step" in vars(opt), opt.mom, opt.wd,
                      len(opt.opt._optimizer_step_pre_hooks), len(opt.opt._optimizer_step_post_hooks)),
        "model": (learn.model, "forward" in vars(learn.model)),
        "parameters": [(id(p), p.dtype, p.requires_grad, p.stride()) for p in learn.model.parameters()],
        "torch": (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_default_dtype()),
    }
