"""`Learner`: a model, its data, its optimizer and the callbacks of a run."""
from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import nn

from . import loop, schedules
from .callback import Callback, CallbackHandler, LearnerCallback, role_of
from .callbacks.channels_last import ChannelsLast
from .callbacks.checkpoint import Checkpoint
from .callbacks.distributed import join
from .callbacks.finite_guard import FiniteGuard
from .callbacks.flat_cos_anneal import FlatCosAnnealScheduler
from .callbacks.gradients import GradientClipping
from .callbacks.interruption import Interruption
from .callbacks.lr_finder import LRFinder, range_tests
from .callbacks.mixup import MixUpCallback
from .callbacks.one_cycle import OneCycleScheduler
from .callbacks.precision import MixedPrecision
from .callbacks.scheduler import ParamScheduler
from .callbacks.terminate import TerminateOnNaNCallback
from .check import Report, check
from .checks import as_path, file_name, positive_int
from .columns import as_metrics
from .data import DataBunch
from .export import export_learner
from .frames import frames_forgotten, one_run_at_a_time
from .fused import AdamW
from .layer_groups import DEFAULT_LR, LayerGroups, LearningRate, WeightDecay, weight_decay
from .layers import is_lazy
from .losses import LossFunction
from .one_cycle_forms import OF_FORM, Form
from .optimizer import DEFAULT_WD, OptimWrapper
from .predicting import Predicting
from .progress import OneBar, Progress, say
from .recorder import Recorder
from .report import write_report
from .settings import settings_of
from .snapshot import copied
from .state import State
from .suggestion import RangeTest, RangeTests
from .summary import Text, loop_with_callbacks, model_summary
from .torch_private import compile_in_place, uncompile
from .utils import listify
from .weights import load_weights, save_weights

__all__ = ["Learner", "fit_one_cycle", "lr_find"]


class Learner(LayerGroups, Predicting):
    """A model, its data, its loss and its optimizer: all that training needs, and the methods that train.

    `data`: a `DataBunch`. `model`: any module whose outputs the loss function accepts; it moves to the data's device.
    `opt_func`: makes a torch optimizer from parameter groups; default `AdamW`, Adam with betas (0.9, 0.99).
    `loss_func`: default the data's own. `metrics`: functions of (output, target), objects with a state, a dict that
    names them, or callbacks (see `columns.py`); none by default. `wd`: weight decay, 1e-2, or a list with one for
    each layer group; `true_wd`: it is decoupled from the gradient; `bn_wd`: it also applies to normalisation layers
    and biases. `train_bn`: normalisation layers of frozen groups go on training. `path`: the folder of files,
    default the data's; `model_dir`: the folder in it for saved models. `callbacks`: instances, in every run;
    `callback_fns`: functions of the learner that make one for each run. `layer_groups`: the parts of the model with
    a learning rate each, default one, see `split`. `add_time`: the table has a column of times. `silent`: no bars
    and no table. `check_finite`: end a fit whose loss is NaN or infinite, see `FiniteGuard`.

    Raises TypeError or ValueError if something given cannot work.

    >>> learn = Learner(fake_data(), nn.Linear(5, 4), metrics=[accuracy], silent=True)
    >>> learn.fit_one_cycle(1, 1e-2)
    >>> learn.recorder.names
    ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    """

    def __init__(self, data: DataBunch, model: nn.Module, opt_func: Callable[..., torch.optim.Optimizer] = AdamW,
                 loss_func: LossFunction | None = None, metrics: Any = None, true_wd: bool = True,
                 bn_wd: bool = True, wd: WeightDecay = DEFAULT_WD, train_bn: bool = True,
                 path: str | Path | None = None, model_dir: str | Path = "models", callback_fns: Any = None,
                 callbacks: Any = None, layer_groups: Sequence[nn.Module] | None = None,
                 add_time: bool = True, silent: bool = False, check_finite: bool = True) -> None:
        if not isinstance(data, DataBunch):
            raise TypeError(f"data must be a DataBunch, not {type(data).__name__}; "
                            "DataBunch(train_dl, valid_dl) wraps any two iterables of (inputs, targets) batches")
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
        self.data, self.model = data, model.to(data.device)
        self.loss_func: LossFunction = loss_func or data.loss_func    # type: ignore[assignment]
        if self.loss_func is None:
            raise ValueError("the data brings no loss function of its own: pass loss_func=, for example "
                             "CrossEntropyFlat() for classes, MSELossFlat() for quantities")
        self.opt_func, self.true_wd, self.bn_wd, self.train_bn = opt_func, true_wd, bn_wd, train_bn
        self.wd = weight_decay(wd)
        self.metrics = listify(metrics)
        as_metrics(self.metrics)    # a wrong one is named here, not in the middle of a run
        self.path, self.model_dir = as_path("path", path or data.path), as_path("model_dir", model_dir)
        self.callbacks, self.callback_fns = listify(callbacks), listify(callback_fns)
        for name, given in (("loss_func", self.loss_func), ("opt_func", opt_func),
                            *(("callback_fns", make) for make in self.callback_fns)):
            _check_function(name, given)
        self.silent, self.check_finite = silent, check_finite
        self._opt: OptimWrapper | None = None
        self._opt_before: OptimWrapper | None = None    # of the run in progress, where another one takes its place
        self.layer_groups = layer_groups
        self.recorder = Recorder(self, add_time)
        # of the run in progress; typed as a callback finds it, None outside of a run
        self.handler: CallbackHandler = None  # type: ignore[assignment]
        self.stopped: str | None = None     # why the last fit ended early, None if it did not
        self.parallel: Any = None           # the model of all processes, during a run of several
        self.interrupted = False            # Ctrl-C: the run in progress is to end after the batch at hand

    # ---- training

    @one_run_at_a_time
    def fit(self, epochs: int, lr: LearningRate = DEFAULT_LR, wd: WeightDecay | None = None, callbacks: Any = None,
            checkpoint: str | Path | None = None) -> None:
        """Train for `epochs` epochs at a constant learning rate. Afterwards `stopped` says why it ended early, or None.

        `lr`: a number, a list with one for each layer group, or a slice (see `lr_range`); default slice(3e-3). `wd`:
        weight decay, or such a list, default the learner's. The optimizer and its state stay from fit to fit; lr and
        wd are set each time. `callbacks`: for this fit only. `checkpoint`: the name of a file from which the same fit
        goes on exactly where it was cut off, see `Checkpoint`; default none.

        >>> fake_learner().fit(2, 1e-2)
        """
        epochs = positive_int("epochs", epochs)
        self._set_opt(self.lr_range(lr), None if wd is None else weight_decay(wd))
        if checkpoint is not None:
            callbacks = [*listify(callbacks), Checkpoint(self, checkpoint)]
        self._run(epochs, self.taking_part(callbacks))

    @one_run_at_a_time
    def fit_one_cycle(self, cyc_len: int, max_lr: LearningRate = DEFAULT_LR, moms: tuple[float, float] | None = OF_FORM,
                      div_factor: float = OF_FORM, pct_start: float = OF_FORM, final_div: float | None = None,
                      wd: WeightDecay | None = None, callbacks: Any = None, tot_epochs: int | None = None,
                      start_epoch: int | None = None, form: str | Form = "linear_cosine",
                      checkpoint: str | Path | None = None) -> None:
        """Train for `cyc_len` epochs by the 1cycle policy: the learning rate up, then down, momentum the other way.

        `max_lr`: the rate at the peak, in any form that `fit` takes; default slice(3e-3). `moms`: momentum at the ends
        and at the peak; None leaves it unchanged. `div_factor`: the cycle begins at `max_lr / div_factor`, by default a
        25th. `pct_start`: the rising part of the run, 0.3. `final_div`: it ends at `max_lr / final_div`; None: at the
        form's own end, for the default form 0. `wd`, `callbacks`, `checkpoint`: see `fit`. `tot_epochs`: the length of
        the whole cycle, where this run is only its first part. `start_epoch`: begin with that epoch of the cycle.
        `form`: the curve's name in `ONE_CYCLE_FORMS`, or a function as `linear_cosine` is. See `OneCycleScheduler`.

        >>> fake_learner().fit_one_cycle(2, 1e-2, form="fastai")
        """
        one_cycle = OneCycleScheduler(self, max_lr, moms, div_factor, pct_start, final_div, tot_epochs, start_epoch,
                                      form)
        self.fit(cyc_len, max_lr, wd, [*listify(callbacks), one_cycle], checkpoint)

    @one_run_at_a_time
    def fit_fc(self, tot_epochs: int = 1, lr: LearningRate = DEFAULT_LR,
               moms: tuple[float, float] | None = (0.95, 0.85), start_pct: float = 0.72, wd: WeightDecay | None = None,
               callbacks: Any = None, checkpoint: str | Path | None = None) -> None:
        """Train for `tot_epochs` epochs at a flat learning rate that falls to 0 as half a cosine at the end.

        `lr`: the flat rate, in any form that `fit` takes; default slice(3e-3). `moms`: momentum while it is flat, and
        after; None leaves it unchanged. `start_pct`: the flat part of the run, 0.72. `wd`, `callbacks`, `checkpoint`:
        see `fit`. The schedule is a `FlatCosAnnealScheduler`.

        >>> fake_learner().fit_fc(2, 1e-2)
        """
        flat_cos = FlatCosAnnealScheduler(self, lr, positive_int("tot_epochs", tot_epochs), moms, start_pct)
        self.fit(tot_epochs, lr, wd, [*listify(callbacks), flat_cos], checkpoint)

    @overload
    def lr_find(self, start_lr: float = ..., end_lr: float = ..., num_it: int = ..., stop_div: bool = ...,
                wd: float | None = ..., *, linear: bool = ..., valid_every: int | None = ...) -> RangeTest: ...

    @overload
    def lr_find(self, *args: Any, wds: Sequence[float], **kwargs: Any) -> RangeTests: ...

    @overload
    def lr_find(self, *args: Any, bss: Sequence[int], **kwargs: Any) -> RangeTests: ...

    # in the overloads *args and **kwargs are the arguments given here
    @one_run_at_a_time  # type: ignore[misc]
    def lr_find(
                self, start_lr: float = 1e-7, end_lr: float = 10, num_it: int = 100, stop_div: bool = True,
                wd: WeightDecay | None = None, wds: Sequence[float] = (), bss: Sequence[int] = (), linear: bool = False,
                valid_every: int | None = None) -> RangeTest | RangeTests:
        """Range test: train at growing learning rates, and leave the learner exactly as it was. See `LRFinder`.

        `start_lr`, `end_lr`: the first and the last rate, 1e-7 and 10. `num_it`: how many batches, 100. `stop_div`: end
        early when the loss diverges. `wd`: weight decay, default the learner's. `wds`, `bss`: weight decays and batch
        sizes to compare: one test for each combination, all from the same weights with the samples in the same order.
        `linear`: rates grow by equal steps, not by equal factors. `valid_every`: after so many batches each measure the
        validation loss, and keep that instead of the training loss; default never.

        Returns a `RangeTest`, or with `wds` or `bss` `RangeTests`; `recorder.plot()` draws it. Callbacks with the role
        "training" take part.

        >>> found = fake_learner(train_length=200).lr_find(num_it=30)
        >>> len(found.lrs) <= 30
        True
        """
        finder = partial(LRFinder, self, start_lr, end_lr, num_it, stop_div, linear, valid_every)
        # no function within this one: an exception would keep its variables, so this learner
        result = range_tests(self, partial(self._range_test, finder), wd, wds, bss)
        self.recorder.range_test = result
        if not self.silent:
            tests = [result] if isinstance(result, RangeTest) else list(result.values())
            why = dict.fromkeys(test.suggestion.reason for test in tests)
            say("LR finder is complete; learn.recorder.plot() draws it" + (
                ", learn.recorder.plot(suggestion=True) also marks a suggestion." if "" in why else
                f". No suggestion: {' / '.join(why)}"))
        return result

    def _range_test(self, finder: Callable[[], LRFinder], wd: float | None) -> RangeTest:
        self.lr_finder = finder()
        self._set_opt(self.opt.values("lr"), None if wd is None else weight_decay(wd))
        epochs = -(-self.lr_finder.num_it // len(self.data.train_dl))      # rounded up
        shown = OneBar(self.lr_finder.num_it, self.silent)
        self._run(epochs, [*self.taking_part(in_fit=False), self.lr_finder], shown)
        return self.lr_finder.result

    def taking_part(self, more: Any = None, in_fit: bool = True) -> list[Callback]:
        """The callbacks of a fit, with `more` of them; or with `in_fit=False` those of a range test or a validation."""
        every = [self.recorder, *listify(self.callbacks), *(make(self) for make in listify(self.callback_fns)),
                 *listify(more)]
        for cb in every:
            if isinstance(cb, LearnerCallback) and getattr(cb, "_learn", lambda: None)() is not self:
                raise ValueError(f"the {type(cb).__name__} is not one of this learner: make one for it, and if the "
                                 "class has an __init__, let that call super().__init__(learn)")
        every = list({id(cb): cb for cb in every}.values())  # one given twice is called once
        if not in_fit:
            return [cb for cb in every if role_of(cb) == "training"]
        if self.check_finite and not any(isinstance(cb, TerminateOnNaNCallback) for cb in every):
            every.append(FiniteGuard(self))
        return [*every, Interruption(self)]

    def _run(self, epochs: int, callbacks: Sequence[Callback], shown: Progress | None = None) -> None:
        with shown or Progress(epochs, self.silent) as pbar:
            n_updates = epochs * len(self.data.train_dl)
            state = State(n_epochs=epochs, n_updates=n_updates, metrics=listify(self.metrics), pbar=pbar)
            before, self.stopped = self.handler, None
            self.handler = CallbackHandler(callbacks, as_metrics(self.metrics, self.loss_func), state)
            try:
                loop.fit(self, self.handler)
                if state.epoch < state.n_epochs:
                    self.stopped = f"by a callback after epoch {state.epoch - 1}"
            except BaseException as e:
                self.stopped = f"by {type(e).__name__} in epoch {state.epoch}, batch {state.num_batch}"
                raise
            finally:
                self.handler = before

    @one_run_at_a_time
    def anneal_now(self, epochs: int = 1, callbacks: Any = None, checkpoint: str | Path | None = None) -> None:
        """End a run that was stopped early properly: train `epochs` more epochs, in which the learning rate falls from
        what its last batch used to 0 as half a cosine, and momentum goes back to what its first batch used."""
        rec, opt = self.recorder, self.opt
        if not rec.lrs:
            raise ValueError("there is nothing to anneal: no batch has been trained")
        lrs = [lr * rec.lrs[-1] / opt.lr for lr in opt.values("lr")]
        if not lrs[-1] > 0:
            raise ValueError("there is nothing to anneal: the last batch used a learning rate of 0")
        curves: dict[str, Any] = {"lr": schedules.cosine(lrs if len(lrs) > 1 else lrs[0])}
        if opt.mom:
            curves["mom"] = schedules.cosine(rec.moms[-1], rec.moms[0])
        annealing = ParamScheduler(self, **curves)
        wd = opt.values("wd")
        self.fit(epochs, lrs if len(lrs) > 1 else lrs[0], wd, [*listify(callbacks), annealing], checkpoint)

    @one_run_at_a_time
    def check(self, epochs: int = 1) -> Report:
        """A dry run in seconds, after which all is as it was; what it prints and returns: see `minifast.check`."""
        report = check(self, epochs)
        if not self.silent:
            say(str(report))
        return report

    # ---- callbacks and a look inside

    def mixup(self, alpha: float = 0.4, stack_x: bool = False, stack_y: bool = True) -> Learner:
        """Train on mixtures of samples from now on: see `MixUpCallback`. `mixup(0)` ends it."""
        return self._replace(MixUpCallback, MixUpCallback(self, alpha, stack_x, stack_y) if alpha else None)

    def clip_grad(self, clip: float | None = 0.1, by: str = "norm") -> Learner:
        """Clip gradients from now on: see `GradientClipping`. `clip_grad(None)` ends it."""
        return self._replace(GradientClipping, GradientClipping(self, clip, by) if clip else None)

    def to_fp16(self, init_scale: float = 2.0**16, *, loss_scale: float | None = None, dynamic: bool = True,
                clip: float | None = None) -> Learner:
        """Run the model in 16-bit floats from now on, with loss scaling: see `MixedPrecision`. For GPUs. v1's words:
        `loss_scale` for `init_scale`; `clip`, see `clip_grad`; `dynamic`: the scale adapts itself, always."""
        if not dynamic:
            raise ValueError("dynamic=False: the scale of the loss always adapts itself, so leave it out")
        callback = MixedPrecision(self, "fp16", init_scale if loss_scale is None else loss_scale)
        return (self if clip is None else self.clip_grad(clip))._replace(MixedPrecision, callback)

    def to_bf16(self) -> Learner:
        """Run the model in bfloat16 from now on: see `MixedPrecision`."""
        return self._replace(MixedPrecision, MixedPrecision(self, "bf16"))

    def to_fp32(self) -> Learner:
        """Run the model in 32-bit floats again."""
        return self._replace(MixedPrecision, None)

    def to_channels_last(self, on: bool = True) -> Learner:
        """Have weights and pictures lie in memory channels last (see `ChannelsLast`), or, with False, as usual."""
        self.model.to(memory_format=torch.channels_last if on else torch.contiguous_format)
        return self._replace(ChannelsLast, ChannelsLast(self) if on else None)

    def compile(self, on: bool = True, **options: Any) -> Learner:
        """Run the model through `torch.compile` from now on, or, with `on=False`, as written. `options` are
        torch's: `mode`, `backend`, ... Weights, their names and files stay the same, results too except for rounding.
        The first batch of each shape takes long, up to minutes. Compiled code calls no hooks: see `HookCallback`."""
        if on:
            compile_in_place(self.model, **options)
        else:
            uncompile(self.model)
        return self

    def to_distributed(self, shard: bool = False, timeout: float = 600.0, sync_bn: bool = False,
                       own_batches: bool = False) -> Learner:
        """Train together with the other processes that torchrun or `launch` has started; nothing happens without.

        `bs` stays the size of the whole batch, of which each process takes its part; losses, metrics and decisions are
        those of the whole. Every process calls the same methods in the same order; the first one prints and writes.

        shard: spread parameters, gradients and the optimizer's state over the processes (torch's `fully_shard`).
        timeout: the seconds that one process waits for another.
        sync_bn: batch norm takes its statistics over the whole batch; on GPUs only.
        own_batches: the training batches are this process's own part already.

        ValueError if `bs` is less than the number of processes, and, when a fit begins, if they train different things.

        >>> fake_learner().to_distributed().fit(1)
        """
        return join(self, shard, timeout, sync_bn, own_batches)

    def show_callbacks(self, callbacks: Any = None) -> Text:
        """The loop of a fit (with these `callbacks`), with the callbacks that are called at each event, in order."""
        before = dict(vars(self))
        try:
            metrics = as_metrics(self.metrics, self.loss_func)
            return loop_with_callbacks(CallbackHandler(self.taking_part(callbacks), metrics))
        finally:
            vars(self).update(before)   # making the `callback_fns` has replaced those of the last fit

    def settings(self) -> dict[str, Any]:
        """The hyper-parameters of the fit in progress, or the last one, as a plain dict: see `settings_of`."""
        return settings_of(self)

    def summary(self) -> Text:
        """The model's layers: output shapes for a training batch, parameters, whether they are trained, size."""
        return model_summary(self)

    def report(self, path: str | Path = "report.html", compare: Any = None, name: str = "this run") -> Path:
        """Write what the last fit did to one HTML file that opens anywhere; returns its path. See `write_report`."""
        return write_report(self, path, compare, name)

    def _replace(self, kind: type[Callback], callback: Callback | None) -> Learner:
        self.callbacks = [cb for cb in listify(self.callbacks) if type(cb) is not kind] + listify(callback)
        return self

    # ---- files

    def save(self, name: str | Path, with_opt: bool = True) -> Path:
        """Write the weights (and the optimizer's state) to `path/model_dir/name.pth`, whole or not at all."""
        return save_weights(self, self._file(name), with_opt)

    def load(self, name: str | Path, device: Any = None, strict: bool = True, with_opt: bool = True) -> Learner:
        """Read what `save` wrote, or a bare state dict; only tensors and plain values are accepted. Returns itself.

        If anything does not fit, an error says what (RuntimeError for the weights) and nothing is loaded.
        """
        load_weights(self, self._file(name), device, strict, with_opt)
        return self

    @frames_forgotten
    def export(self, file: str | Path | None = None, *, thresh: float | None = None, program: bool = True,
               format: str = "minifast") -> Path:
        """Write all that predictions need to one file: see `export_learner`, which has the arguments."""
        return export_learner(self, file, thresh, program, format)

    def _file(self, name: str | Path) -> Path:
        return self.path / self.model_dir / f"{file_name('a file', name)}.pth"

    def __deepcopy__(self, memo: dict[int, Any]) -> Learner:
        """A learner of its own, in no run, known to its own callbacks: else the copies would follow the old one."""
        new = memo[id(self)] = object.__new__(type(self))
        vars(new).update(copied(self, memo))
        for cb in (*vars(new).values(), *listify(new.callbacks)):
            if isinstance(cb, LearnerCallback):
                cb._learn = weakref.ref(new)
        return new

    def __copy__(self) -> Learner:
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a Learner cannot be pickled: learn.save(name) writes its weights and its optimizer's state, "
                        "learn.load(name) reads them into a learner that is made alike")

    if TYPE_CHECKING:   # a callback is an attribute by its name: `learn.one_cycle_scheduler`
        def __getattr__(self, name: str) -> Any: ...

    def __repr__(self) -> str:
        n = "unknown" if is_lazy(self.model) else f"{sum(p.numel() for p in self.model.parameters()):,}"
        return f"Learner({type(self.model).__name__} with {n} parameters, {self.data!r})"


def _check_function(name: str, given: Any) -> None:
    if name == "loss_func" and isinstance(given, type):
        raise TypeError(f"loss_func is the class {given.__name__}: make an instance of it, {given.__name__}()")
    if not callable(given):
        raise TypeError(f"{name} must be a function, not {given!r}" + (
            " (instances go to callbacks=)" if isinstance(given, Callback) else ""))


@frames_forgotten
def fit_one_cycle(learn: Learner, cyc_len: int, *args: Any, **kwargs: Any) -> None:
    """`learn.fit_one_cycle(cyc_len, ...)`.

    >>> fit_one_cycle(fake_learner(), 1, 1e-2)
    """
    learn.fit_one_cycle(cyc_len, *args, **kwargs)


@frames_forgotten
def lr_find(learn: Learner, *args: Any, **kwargs: Any) -> Any:
    """`learn.lr_find(...)`.

    >>> len(lr_find(fake_learner(train_length=100), num_it=10).lrs)
    10
    """
    return learn.lr_find(*args, **kwargs)
