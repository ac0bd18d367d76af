"""Bad input of many kinds: `python bad_input.py --examples 200`.

Each kind meets a learner that has been trained. What must come is the named error that is expected, before a batch is
trained, and weights, optimizer state, files and data must be as they were. Then hypothesis makes up values for every
number that a public constructor or fit takes.
"""
from __future__ import annotations

import argparse
import contextlib
import io
import math
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minifast.basics import *
from minifast.fakes import fake_data, fake_learner
from minifast.files import save_file
from minifast.losses import MSELossFlat
from minifast.vision import ImageDataBunch

__all__ = ["KINDS", "NUMBERS", "main", "trial", "try_number"]

NAN = float("nan")
X, Y = torch.zeros(6, 5), torch.zeros(6).long()
Act = Callable[[Learner, Path], Any]


class Began(Exception):
    """The input was taken: training begins."""


class Guard(Callback):
    """Lets no batch be trained once it is `armed`."""

    _order, armed = 500, False

    def on_batch_begin(self, train: bool) -> None:
        if train and self.armed:
            raise Began


def scene(folder: Path) -> Learner:
    """A learner with something to lose: trained, with a history and a saved file."""
    learn = fake_learner(path=folder, metrics=[accuracy], callbacks=[Guard()])
    learn.fit(1, 1e-2)
    learn.save("kept")
    learn.callbacks[0].armed = True
    return learn


def kept(learn: Learner) -> dict[str, Any]:
    """What bad input must not touch."""
    state = learn.opt.opt.state
    return {"weights": [p.tolist() for p in learn.model.parameters()],
            "optimizer": [[v.tolist() for v in state[p].values()] for p in learn.model.parameters()],
            "modes": [m.training for m in learn.model.modules()],
            "loaders": [dl.state_dict() for dl in learn.data.dls],
            "files": {p.name: p.read_bytes() for p in learn.path.rglob("kept.pth")}}


def trial(act: Act, kinds: Any, says: str, folder: Path) -> str:
    """Empty if `act` meets the error that it should and nothing is lost, else what was wrong."""
    learn = scene(folder)
    before = kept(learn)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            act(learn, folder)
    except kinds as e:
        said = " ".join([str(e), *getattr(e, "__notes__", [])])
        if not re.search(says, said, re.DOTALL):
            return f"it says {said!r}, not {says!r}"
    except BaseException as e:
        return f"{type(e).__name__} ({e}) in place of {kinds}"
    else:
        return "it was taken without a word"
    after = kept(learn)
    return ", ".join(f"{name} lost" for name in before if before[name] != after[name])


def fit(**kwargs: Any) -> Act:
    return lambda learn, folder: learn.fit(1, **kwargs)


def cycle(**kwargs: Any) -> Act:
    return lambda learn, folder: learn.fit_one_cycle(1, 1e-2, **kwargs)


def find(**kwargs: Any) -> Act:
    return lambda learn, folder: learn.lr_find(**kwargs)


def call(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Act:
    return lambda learn, folder: func(*args, **kwargs)


def made(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Act:
    """A callback that takes the learner, made and used."""
    return lambda learn, folder: learn.fit(1, callbacks=func(learn, *args, **kwargs))


def method(name: str, *args: Any, **kwargs: Any) -> Act:
    return lambda learn, folder: getattr(learn, name)(*args, **kwargs)


def other(**kwargs: Any) -> Act:
    """A new learner over the same data."""
    return lambda learn, folder: Learner(**{"data": learn.data, "model": learn.model, "silent": True, **kwargs}).fit(1)


def scheduled(**curves: Any) -> Act:
    return made(lambda learn: ParamScheduler(learn, **{name: make() for name, make in curves.items()}))


def pictures(**kwargs: Any) -> Act:
    """Two pictures of each of two classes, to train and to validate on, and what is asked of them."""
    def act(learn: Learner, folder: Path) -> None:
        from PIL import Image
        for part in ("train", "valid"):
            for name in ("a", "b"):
                (folder / part / name).mkdir(parents=True)
                for i in range(2):
                    Image.fromarray(np.full((4, 4), 9 * i, dtype=np.uint8)).save(folder / part / name / f"{i}.png")
        ImageDataBunch.from_folder(**{"path": folder, "bs": 2, **kwargs})
    return act


def broken_picture(learn: Learner, folder: Path) -> None:
    for part in ("train/a", "train/b", "valid/a"):
        (folder / part).mkdir(parents=True)
        (folder / part / "0.png").write_text("no picture")
    ImageDataBunch.from_folder(folder, bs=2)


def file_with(content: bytes) -> Act:
    def act(learn: Learner, folder: Path) -> None:
        (folder / "models" / "odd.pth").write_bytes(content)
        try:
            learn.load("odd")
        finally:
            (folder / "models" / "odd.pth").unlink()
    return act


def of_another_model(learn: Learner, folder: Path) -> None:
    fake_learner(n_in=7, path=folder / "other").save("x")
    learn.load(folder / "other" / "models" / "x")


def archive_of_another_kind(learn: Learner, folder: Path) -> None:
    (folder / "x.tgz").write_bytes(b"no archive")
    untar_data((folder / "x.tgz").as_uri(), dest=folder / "data")


def run_of_other_settings(learn: Learner, folder: Path) -> None:
    fake_learner(path=folder, metrics=[accuracy], callbacks=[Guard()]).fit(1, 1e-2, checkpoint="run")
    learn.fit(3, 1e-2, checkpoint="run")


def foreign_checkpoint(learn: Learner, folder: Path) -> None:
    save_file({"a": 1}, folder / "models" / "run.ckpt")
    learn.fit(1, checkpoint="run")


KINDS: dict[str, tuple[Act, Any, str]] = {
    # TensorLoader, DataBunch
    "loader of lists": (call(TensorLoader, [1], Y), TypeError, "x and y must be tensors, not list and Tensor"),
    "loader of scalars": (call(TensorLoader, torch.tensor(1.0), torch.tensor(1)), ValueError, r"row for each .* \(\)"),
    "loader of two lengths": (call(TensorLoader, X, Y[:3]), ValueError, "x has 6 samples and y has 3"),
    "bs half": (call(TensorLoader, X, Y, bs=2.5), TypeError, r"bs must be a whole number, not 2.5 \(float\)"),
    "bs text": (call(TensorLoader, X, Y, bs="64"), TypeError, r"bs must be a whole number, not '64' \(str\)"),
    "seed negative": (call(TensorLoader, X, Y, seed=-1), ValueError, "seed must be at least 0, not -1"),
    "start past the end": (call(lambda: TensorLoader(X, Y).batches(9)), ValueError, "start=9: a pass has 1 batches"),
    "no data set": (call(DataBunch.create, None), TypeError, "a NoneType cannot be indexed.*stream of batches goes"),
    "val_bs 0": (call(fake_data, val_bs=0), ValueError, "bs must be at least 1, not 0"),
    "workers": (call(DataBunch.create, [(X[0], 1)] * 4, bs=2, num_workers=-1), ValueError, "num_workers .* not -1"),
    "device misspelt": (call(DataBunch, [(X, Y)], device="gpu"), ValueError, "device 'gpu' cannot be used.*'cpu'"),
    "device not there": (call(DataBunch, [(X, Y)], device="cuda:99"), ValueError, "'?cuda:?.*cannot be used.*'cpu'"),
    "classes a number": (call(DataBunch, [(X, Y)], classes=3), TypeError, "classes must be a list of names, not 3"),
    "classes a text": (call(DataBunch, [(X, Y)], classes="ab"), TypeError, "classes must be a list.*'ab'"),
    "data path": (call(DataBunch, [(X, Y)], path=3), TypeError, "path must be a path, .*not 3"),
    "kind of data": (method("get_preds", "vaild"), ValueError, "no 'vaild' data.*Did you mean 'valid'"),
    "classes unknown": (lambda learn, folder: learn.data.c, AttributeError, "does not know its classes.*classes="),
    # pictures
    "no folder": (call(ImageDataBunch.from_folder, "/nowhere"), FileNotFoundError, "there is no folder /nowhere"),
    "folder None": (call(ImageDataBunch.from_folder, None), TypeError, "path must be a path, .*not None"),
    "no valid folder": (pictures(valid="vld"), FileNotFoundError, "no folder .*vld.*valid_pct=0.2"),
    "pictures empty": (pictures(train="valid/../models"), ValueError, "there are no pictures in .*models"),
    "picture broken": (broken_picture, ValueError, "0.png"),
    "one class": (pictures(train="train/a", valid="valid/a"), ValueError, "one class, 'a'"),
    "class unknown": (pictures(classes=["a", "c"]), ValueError, r"label 'b' is none of the classes.*\['a', 'c'\]"),
    "valid_pct 2": (pictures(valid_pct=2), ValueError, "valid_pct=2 of 8 pictures: it must be between 0 and 1"),
    "size -1": (pictures(size=-1), ValueError, r"size must be a whole number or \(height, width\), not -1"),
    "ds_tfms": (pictures(ds_tfms=[1]), ValueError, r"ds_tfms must be a pair.*not \[1\]"),
    "pictures' bs": (pictures(bs=99), ValueError, "4 training samples do not fill one batch of 99.*bs=4 or less"),
    # Learner
    "learner's path": (other(path=3), TypeError, "path must be a path, .*not 3"),
    "model_dir": (other(model_dir=None), TypeError, "model_dir must be a path, .*not None"),
    "layer groups": (other(layer_groups=[3]), TypeError, "layer_groups must be modules, not 3; learn.split"),
    "loss of the data": (lambda learn, folder: Learner(DataBunch([(X, Y)], loss_func=3), learn.model), TypeError,
                         "loss_func must be a function, not 3"),
    "callbacks a number": (other(callbacks=[3]), TypeError, "instance of Callback, not 3"),
    "anneal nothing": (lambda learn, folder: fake_learner().anneal_now(), ValueError, "no batch has been trained"),
    "anneal 0 epochs": (method("anneal_now", 0), ValueError, "epochs must be at least 1, not 0"),
    "check 0 epochs": (method("check", 0), ValueError, "epochs must be at least 1, not 0"),
    "lr of two": (fit(lr=np.array([1.0, 2.0])), ValueError, r"lr=\[1. 2.\] has 2 values for 1 layer group"),
    "wd of two": (fit(wd=torch.ones(2)), TypeError, r"wd must be a number, not tensor\(\[1., 1.\]\)"),
    "lr beyond floats": (fit(lr=10**400), TypeError, "learning rate must be a number, not one of more than 99 digits"),
    "epochs beyond": (method("fit", 10**5000), ValueError, "epochs must be at most .*more than 99 digits"),
    "opt.lr": (lambda learn, folder: setattr(learn.opt, "lr", -1), ValueError, "lr must be finite.*not -1"),
    "opt.mom": (lambda learn, folder: setattr(learn.opt, "mom", 2), ValueError, "mom must be .*below 1, not 2"),
    "opt.wd": (lambda learn, folder: setattr(learn.opt, "wd", NAN), ValueError, "wd must be finite .*not nan"),
    "opt.lrr": (lambda learn, folder: learn.opt.set("lrr", 1), KeyError, "no hyper-parameter 'lrr'.*Did you mean 'lr'"),
    # the 1cycle policy and fit_fc
    "form misspelt": (cycle(form="fastia"), ValueError, "no form 'fastia'.*there are .*Did you mean 'fastai'"),
    "form a list": (cycle(form=["fastai"]), ValueError, r"no form \['fastai'\]"),
    "final_div 0": (cycle(final_div=0), ValueError, "final_div must be a finite number above 0, not 0"),
    "tot_epochs 0": (cycle(tot_epochs=0), ValueError, "tot_epochs must be at least 1, not 0"),
    "start_epoch late": (cycle(start_epoch=1), ValueError, "start_epoch=1 leaves nothing of a run of 1 epochs"),
    "start_epoch text": (cycle(start_epoch=""), TypeError, "start_epoch must be a whole number, not ''"),
    "preview 0": (lambda learn, folder: OneCycleScheduler(learn, 0.1).preview(0), ValueError, "n_epochs .*not 0"),
    "fc pct": (method("fit_fc", 1, start_pct=2), ValueError, "flat part of the run, from 0 to 1, not 2"),
    "fc pct text": (method("fit_fc", 1, start_pct="a"), TypeError, "pct_start must be a number, not 'a'"),
    "fc one mom": (method("fit_fc", 1, moms=(0.9,)), ValueError, r"moms must be two momenta.*not \(0.9,\)"),
    "fc curve": (made(FlatCosAnnealScheduler, curve="sin"), ValueError, "'cosine' or 'linear', not 'sin'"),
    # other schedules
    "no curve": (made(ParamScheduler, lr=0.1), TypeError, r"lr must be a curve, such as schedules.cosine\(0.1\)"),
    "curve of nothing": (made(ParamScheduler, lr=lambda n, e: 3), TypeError, "curve of lr returns .*function, not 3"),
    "curve of None": (made(ParamScheduler, lr=lambda n, e: lambda i: None), TypeError, "lr must be a number, not None"),
    "curve's name": (scheduled(lrr=lambda: schedules.cosine(0.1)), KeyError, "'lrr'.*Did you mean 'lr'"),
    "curve NaN": (scheduled(lr=lambda: schedules.cosine(NAN)), ValueError, "values must be finite, not nan"),
    "curve text": (scheduled(lr=lambda: schedules.linear("a")), TypeError, "value must be a number, not 'a'"),
    "curve negative": (scheduled(lr=lambda: schedules.cosine(-1)), ValueError, "lr must be finite.*at least 0, not -1"),
    "curve to below 0": (scheduled(lr=lambda: schedules.linear(1, -9)), ValueError, "lr must be finite .*not -"),
    "curve of mom": (scheduled(mom=lambda: schedules.constant(1.5)), ValueError, "mom must be .*below 1, not 1.5"),
    "curve of groups": (scheduled(lr=lambda: schedules.cosine([1, 2])), ValueError, "2 values for 1 layer group"),
    "power": (call(schedules.polynomial, 1, power=-1), ValueError, "power must be a finite number above 0, not -1"),
    "every": (call(schedules.exponential, 1, 0.9, "step"), ValueError, "'epoch' or 'batch', not 'step'"),
    "levels": (call(schedules.piecewise, [1, 2, 3], [2, 1]), ValueError, r"epochs must ascend.*not \[2, 1\]"),
    "cycle_mult": (call(schedules.restarts, 1, cycle_mult=0.5), ValueError, "cycle_mult must be at least 1, not 0.5"),
    "step_size": (call(schedules.triangular, 1, 2, 0), ValueError, "step_size must be a finite number above 0, not 0"),
    "warm-up to what": (call(schedules.warm_up, 3), TypeError, "warmed up to must be a function, not 3"),
    "phase of 0": (call(TrainingPhase, 0), ValueError, "length must be at least 1, not 0"),
    "anneal by name": (call(TrainingPhase(3).schedule_hp, "lr", 1, "cos"), TypeError, "anneal .*function, not 'cos'"),
    "no phases": (made(GeneralScheduler, []), TypeError, r"phases must be TrainingPhases, at least one, not \[\]"),
    "torch scheduler": (made(TorchScheduler, 3), TypeError, "scheduler_func must be a function, not 3"),
    # the finder
    "wds a number": (find(wds=0.1), TypeError, "wds must be a list of values to compare, not 0.1"),
    "wds negative": (find(wds=[-1]), ValueError, "wd must be a finite number of at least 0, not -1"),
    "bss too large": (find(bss=[100]), ValueError, "bs=100 leaves no full batch: there are 10 training samples"),
    "valid_every 0": (find(valid_every=0), ValueError, "valid_every must be at least 1, not 0"),
    "num_it text": (find(num_it="10"), TypeError, "num_it must be a whole number, not '10'"),
    # callbacks
    "mixup": (method("mixup", -1), ValueError, "alpha must be a finite number above 0, not -1"),
    "clip by": (method("clip_grad", 0.1, "nrom"), ValueError, "by must be 'norm' or 'value', not 'nrom'"),
    "precision": (made(MixedPrecision, "fp8"), ValueError, "precision must be 'fp16' or 'bf16', not 'fp8'"),
    "decay text": (made(EMA, "a"), TypeError, "decay must be a number, not 'a'"),
    "SWA from 1": (made(SWA, 1), ValueError, "start is a part of the run, from 0 to below 1, not 1"),
    "monitor": (made(EarlyStoppingCallback, "vlid_loss"), ValueError, "'vlid_loss'.*Did you mean 'valid_loss'"),
    "monitor None": (made(EarlyStoppingCallback, None), ValueError, "monitors None, but the columns are"),
    "mode": (made(SaveModelCallback, mode="mni"), ValueError, "mode must be 'auto', 'min' or 'max', not 'mni'"),
    "every week": (made(SaveModelCallback, every="week"), ValueError, "'improvement' or 'epoch', not 'week'"),
    "best without name": (made(SaveModelCallback, name=""), ValueError, "a file needs a name, not ''"),
    "log without name": (made(CSVLogger, None), ValueError, "a file needs a name, not None"),
    "oversampling": (made(OverSamplingCallback, [1]), ValueError, "classes of the 10 training samples.*labels="),
    "batch size 0": (made(BatchSizeSchedule, {0: 0}), ValueError, "must be at least 1, not 0"),
    # metrics, layers, losses
    "metric a number": (call(AverageMetric, 3), TypeError, "a metric must be a function, not 3"),
    "metric of one output": (call(accuracy, X[:, :1], Y), ValueError, r"at least two classes.*\(6, 1\)"),
    "metric of two lengths": (call(accuracy, X, Y[:2]), ValueError, r"shape \(6,\) do not fit .*\(2,\)"),
    "k": (call(top_k_accuracy, X, Y, 9), ValueError, "k is 9, but the outputs have only 5 classes"),
    "channels": (call(simple_cnn, (3, -4)), ValueError, "nf must be at least 1, not -4"),
    "channels a number": (call(simple_cnn, 3), TypeError, r"needs a list of channels, such as \(3, .*not 3"),
    "one channel": (call(simple_cnn, (3,)), ValueError, r"at least one layer, not \[3\]"),
    "kernel sizes": (call(simple_cnn, (3, 4), (3, 3)), ValueError, r"kernel_szs \[3, 3\] must have 1 values"),
    "stride 0": (call(conv_layer, 3, 3, stride=0), ValueError, "stride must be at least 1, not 0"),
    "norm by name": (call(conv_layer, 3, 3, norm_type="bn"), TypeError, "norm_type must be a function, not 'bn'"),
    "lambda": (call(Lambda, 3), TypeError, "the function of a Lambda must be a function, not 3"),
    "smoothing": (call(LabelSmoothingCrossEntropy, 2), ValueError, "share of each target, from 0 to 1, not 2"),
    "float classes": (call(CrossEntropyFlat(), X, Y.float()), TypeError, "class numbers as targets, not torch.float32"),
    "shapes": (call(MSELossFlat(), X, Y), ValueError, r"shape \(6, 5\) do not fit targets of shape \(6,\)"),
    # files
    "name of bytes": (method("save", b"x"), ValueError, "a file needs a name, not b'x'"),
    "load to nowhere": (method("load", "kept", device="gpu"), ValueError, "device 'gpu' cannot be used.*'cpu'"),
    "empty file": (file_with(b""), ValueError, "odd.pth is damaged or is no file of saved tensors"),
    "text file": (file_with(b"hello"), ValueError, "odd.pth"),
    "another model": (of_another_model, RuntimeError, r"x.pth does not fit the model.*0.weight: \(4, 7\)"),
    "checkpoint's name": (fit(checkpoint=3), ValueError, "a checkpoint needs a name, not 3"),
    "other settings": (run_of_other_settings, ValueError, "number of epochs: 1 then, 3 now.*extend=True"),
    "foreign checkpoint": (foreign_checkpoint, ValueError, "run.ckpt is no checkpoint of a run.*delete it or choose"),
    # untar_data
    "url None": (call(untar_data, None), TypeError, "url must be a string, such as URLs.MNIST_SAMPLE, not None"),
    "url without name": (call(untar_data, "http://x/.."), ValueError, "'http://x/..' does not end in the name"),
    "no url": (lambda learn, folder: untar_data("nowhere", dest=folder), ConnectionError, "unpack the archive"),
    "no archive": (archive_of_another_kind, ValueError, "x.tgz cannot be unpacked"),
    "dest": (call(untar_data, URLs.MNIST_SAMPLE, dest=3), TypeError, "dest must be a path, .*not 3"),
}


# ---- numbers that hypothesis makes up

def is_number(v: Any) -> bool:
    return isinstance(v, Real) and not isinstance(v, bool) and abs(v) < 1e308


def within(low: float, high: float = math.inf, ends: str = "") -> Callable[[Any], bool]:
    """Whether a value is between the two; `ends` are those that are in: "low", "high"."""
    return lambda v: is_number(v) and (low < v < high or v == low and "low" in ends or v == high and "high" in ends)


def whole(least: int = 1) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, Integral) and not isinstance(v, bool) and least <= v <= sys.maxsize


def or_none(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: v is None or good(v)


ABOVE_0, AT_LEAST_0, SHARE = within(0), within(0, ends="low"), within(0, 1)
# by name: what is done with the value, which values are good, and how the message calls it
NUMBERS: dict[str, tuple[Callable[[Learner, Any], Any], Callable[[Any], bool], str]] = {
    "fit epochs": (lambda learn, v: learn.fit(v), whole(), "epochs"),
    "fit lr": (lambda learn, v: learn.fit(1, v), ABOVE_0, "learning rate|^lr="),
    "fit wd": (lambda learn, v: learn.fit(1, wd=v), or_none(AT_LEAST_0), "wd"),
    "fit_one_cycle cyc_len": (lambda learn, v: learn.fit_one_cycle(v), whole(), "epochs"),
    "fit_one_cycle max_lr": (lambda learn, v: learn.fit_one_cycle(1, v), ABOVE_0, "learning rate|^lr="),
    "fit_one_cycle pct_start": (lambda learn, v: learn.fit_one_cycle(1, pct_start=v), SHARE, "pct_start"),
    "fit_one_cycle div_factor": (lambda learn, v: learn.fit_one_cycle(1, div_factor=v), ABOVE_0, "div_factor"),
    "fit_one_cycle final_div": (lambda learn, v: learn.fit_one_cycle(1, final_div=v), or_none(ABOVE_0), "final_div"),
    "fit_one_cycle moms": (lambda learn, v: learn.fit_one_cycle(1, moms=(v, 0.9)), within(0, 1, "low"), "mom"),
    "fit_one_cycle tot_epochs": (lambda learn, v: learn.fit_one_cycle(1, tot_epochs=v), or_none(whole()), "tot_epochs"),
    "fit_one_cycle start_epoch": (lambda learn, v: learn.fit_one_cycle(9, start_epoch=v),
                                  or_none(lambda v: whole(0)(v) and v < 9), "start_epoch"),
    "fit_fc tot_epochs": (lambda learn, v: learn.fit_fc(v), whole(), "tot_epochs"),
    "fit_fc start_pct": (lambda learn, v: learn.fit_fc(1, start_pct=v), within(0, 1, "low high"), "pct_start"),
    "lr_find start_lr": (lambda learn, v: learn.lr_find(v, 1e308), ABOVE_0, "start_lr"),
    "lr_find end_lr": (lambda learn, v: learn.lr_find(1e-7, v), within(1e-7), "end_lr"),
    "lr_find num_it": (lambda learn, v: learn.lr_find(num_it=v), whole(), "num_it"),
    "lr_find valid_every": (lambda learn, v: learn.lr_find(valid_every=v), or_none(whole()), "valid_every"),
    "Learner wd": (lambda learn, v: Learner(learn.data, learn.model, wd=v), AT_LEAST_0, "wd"),
    "TensorLoader bs": (lambda learn, v: TensorLoader(X, Y, bs=v), whole(), "bs"),
    "TensorLoader seed": (lambda learn, v: TensorLoader(X, Y, seed=v), or_none(whole(0)), "seed"),
    "DataBunch num_workers": (lambda learn, v: DataBunch.create([(X, 1)] * 64, num_workers=v), whole(0), "num_workers"),
    "cosine": (lambda learn, v: schedules.cosine(v), within(-math.inf), "a schedule's value"),
    "flat_cosine pct_start": (lambda learn, v: schedules.flat_cosine(1, pct_start=v), within(0, 1, "low high"),
                              "pct_start"),
    "restarts cycle_len": (lambda learn, v: schedules.restarts(1, cycle_len=v), ABOVE_0, "cycle_len"),
    "TrainingPhase length": (lambda learn, v: TrainingPhase(v), whole(), "length"),
    "Checkpoint every": (lambda learn, v: Checkpoint(learn, "x", every=v), or_none(whole()), "every"),
    "Checkpoint seconds": (lambda learn, v: Checkpoint(learn, "x", seconds=v), ABOVE_0, "seconds"),
    "EarlyStopping patience": (lambda learn, v: EarlyStoppingCallback(learn, patience=v), whole(0), "patience"),
    "EarlyStopping min_delta": (lambda learn, v: EarlyStoppingCallback(learn, min_delta=v), AT_LEAST_0, "min_delta"),
    "ReduceLR factor": (lambda learn, v: ReduceLROnPlateauCallback(learn, factor=v), SHARE, "factor"),
    "ReduceLR min_lr": (lambda learn, v: ReduceLROnPlateauCallback(learn, min_lr=v), AT_LEAST_0, "min_lr"),
    "MixUp alpha": (lambda learn, v: MixUpCallback(learn, v), ABOVE_0, "alpha"),
    "GradientClipping clip": (lambda learn, v: GradientClipping(learn, v), ABOVE_0, "clip"),
    "Accumulate n_step": (lambda learn, v: AccumulateScheduler(learn, v), whole(), "n_step"),
    "EMA decay": (lambda learn, v: EMA(learn, v), SHARE, "decay"),
    "SWA start": (lambda learn, v: SWA(learn, v), within(0, 1, "low"), "start"),
    "RNNTrainer alpha": (lambda learn, v: RNNTrainer(learn, v), AT_LEAST_0, "alpha"),
    "MixedPrecision init_scale": (lambda learn, v: MixedPrecision(learn, "fp16", v), ABOVE_0, "init_scale"),
    "opt.lr": (lambda learn, v: setattr(learn.opt, "lr", v), AT_LEAST_0, "lr"),
    "opt.mom": (lambda learn, v: setattr(learn.opt, "mom", v), within(0, 1, "low"), "mom"),
    "conv_layer stride": (lambda learn, v: conv_layer(3, 3, stride=v), whole(), "stride"),
    "LabelSmoothing eps": (lambda learn, v: LabelSmoothingCrossEntropy(v), within(0, 1, "low high"), "eps"),
    "top_k_accuracy k": (lambda learn, v: top_k_accuracy(X, Y, v), lambda v: whole()(v) and v <= 5, "k"),
}
ODD = st.one_of(st.floats(), st.integers(), st.sampled_from([NAN, math.inf, -math.inf, 0, -1, 0.0, -0.0, 1, 1.0]),
                st.none(), st.booleans(), st.text(max_size=4), st.binary(max_size=3), st.complex_numbers(),
                st.integers(10**300, 10**310), st.just(10**5000), st.just(-10**5000), st.fractions(), st.decimals(),
                st.floats(width=32).map(np.float32), st.just(np.ones(2)), st.just(torch.ones(2)), st.just(object()))


def try_number(name: str, learn: Learner, value: Any) -> str:
    """Empty if a good value is taken and a bad one named, with nothing lost; else what was wrong."""
    act, good, called = NUMBERS[name]
    before, error = kept(learn), None
    try:
        act(learn, value)
    except Began:
        pass
    except (TypeError, ValueError) as e:
        error = e
    except Exception as e:
        return f"{name}: {type(e).__name__} ({e})"
    wrong = []
    if error is not None:
        after = kept(learn)
        wrong += [f"{part} lost" for part, old in before.items() if old != after[part]]
    plain = value is None or isinstance(value, (int, float))    # other libraries' numbers may be taken or not
    fine = plain and good(value)
    if error is None and not fine and (plain or not isinstance(value, (Real, Decimal, np.ndarray, torch.Tensor))):
        wrong.append("taken without a word")
    # good, but with the other numbers it makes a learning rate that no float holds
    extreme = "lr must be finite" in str(error) or "above start_lr" in str(error)
    if error is not None and fine and not extreme:
        wrong.append(f"refused: {error}")
    if error is not None and not re.search(called, str(error)) and not extreme:
        wrong.append(f"not named: {error}")
    return f"{name}: {', '.join(wrong)}" if wrong else ""


def try_numbers(name: str, examples: int, folder: Path) -> None:
    """AssertionError with the simplest value of `examples` that does not meet what it should."""
    learn = scene(folder)

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(ODD)
    def held(value: Any) -> None:
        assert (wrong := try_number(name, learn, value)) == "", wrong
    held()


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--examples", type=int, default=200)
    args = p.parse_args(argv)
    wrong = []
    for name, (act, kinds, says) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            if found := trial(act, kinds, says, Path(folder)):
                wrong.append(f"{name}: {found}")
    for name in NUMBERS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                try_numbers(name, args.examples, Path(folder))
            except AssertionError as e:
                wrong.append("\n".join([str(e), *getattr(e, "__notes__", [])]))
    print(f"{len(KINDS)} kinds of bad input and {len(NUMBERS)} numbers with {args.examples} values each: "
          f"{len(wrong)} without the named error", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
