"""`Callback`, and the `CallbackHandler` that calls each callback's handlers in order."""
from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from .checks import did_you_mean
from .frames import place_in_run
from .kinds import is_code
from .signatures import Listeners, check_callback, listeners
from .state import EVENTS, RETURNS, Changes, State
from .utils import camel2snake

if TYPE_CHECKING:
    from .learner import Learner

__all__ = ["Callback", "LearnerCallback", "CallbackHandler", "role_of"]


class Callback:
    """Base of every callback: override the events you need. Each method says when it is called and what it may return.

    A handler names the fields of `State` that it reads, or takes `**kwargs` for all of them.

    >>> class Ten(Callback):
    ...     def on_batch_end(self, iteration): return {"stop_epoch": iteration >= 9, "stop_training": iteration >= 9}
    >>> fake_learner(train_length=100).fit(1, callbacks=[Ten()])
    """

    _order: ClassVar[int] = 0           # smaller is called first, equal ones in the list's order: see order.py
    # its part in a run. "training" shapes the training: it is active in fit, lr_find, validate and get_preds. "fit"
    # shapes a fit (a schedule, early stopping): only active there. A resumed run must have both with equal settings,
    # and the finite guard repeats them. "watching" records or draws a fit, "process" looks after the process.
    role: ClassVar[str] = "training"
    only_in_fit: ClassVar[bool] = False     # True is an older way to say role = "watching"

    def on_train_begin(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called once, before the first epoch. May read `n_epochs`, `n_updates`, `pbar`; may return where the run
        begins (`epoch`, `num_batch`, ...), how long it is (`n_updates`), `stop_training` or `skip_validate`."""

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called before an epoch's first batch. May read `epoch`; may return `stop_training`, `skip_validate`."""

    def on_batch_begin(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called before a batch enters the model, also in a validation (`train` is False). May read and return
        `last_input` and `last_target`."""

    def on_loss_begin(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called after the model, before the loss, also in a validation. May read and return `last_output`."""

    def on_backward_begin(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called after the loss of a training batch. May read `last_loss` with its graph, and return another one to be
        differentiated (the recorded loss stays), `last_weight`, `skip_bwd` or `skip_step`."""

    def on_backward_end(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called when the gradients are there, before the optimizer's step. May return `last_weight`, `skip_step` or
        `skip_zero`."""

    def on_step_end(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called after the optimizer's step, before the gradients are dropped. May return `skip_zero`."""

    def on_batch_end(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called at the end of a batch, also in a validation (`train` is False). May read `last_loss` (detached),
        `smooth_loss`, `last_output`, `num_batch`, `iteration`; may return `stop_epoch`, `stop_training`."""

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called after an epoch's validation. May read `epoch` and `last_metrics`; may return `last_metrics` with
        values added, or `stop_training`."""

    def on_train_end(self, *args: Any, **kwargs: Any) -> Changes | None:
        """Called once when the run ends, however it ends: `exception` is what ended it, or None. Returns nothing."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: by default all attributes, of any type, but code, open files and the like."""
        return {k: v for k, v in vars(self).items() if not is_code(v)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned: the same values, of the same types."""
        vars(self).update(state)

    def __repr__(self) -> str:
        names = [n for n in inspect.signature(type(self)).parameters if n in vars(self)]
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"


class LearnerCallback(Callback):
    """A callback that has its learner as `self.learn`, and that the learner has as `learn.<snake_case_name>`.

    `learn`: the learner of its runs. ValueError if something else has that name (`Data` would replace `learn.data`).

    >>> learn = fake_learner()
    >>> timer = Timer(learn)
    >>> learn.timer is timer and timer.learn is learn
    True
    """

    def __init__(self, learn: Learner) -> None:
        name = camel2snake(type(self).__name__)
        if hasattr(learn, name) and not isinstance(getattr(learn, name), Callback):
            raise ValueError(f"the callback {type(self).__name__} would replace learn.{name}; rename the class")
        self._learn = weakref.ref(learn)    # weak, so that `del learn` frees the model at once
        setattr(learn, name, self)

    @property
    def learn(self) -> Learner:
        """The learner; ReferenceError if it is gone."""
        if (learn := self._learn()) is None:
            raise ReferenceError(f"the learner of this {type(self).__name__} does not exist any more")
        return learn


def role_of(callback: Callback | type[Callback]) -> str:
    """The callback's `role`; with the older `only_in_fit = True` it is "watching".

    >>> role_of(StopAfterNBatches(2)), role_of(Recorder(fake_learner()))
    ('training', 'watching')
    """
    return "watching" if callback.role == "training" and callback.only_in_fit else callback.role


class CallbackHandler:
    """The callbacks and metrics of one run, its `state`, and for each event the list of handlers to call.

    Callbacks are called in ascending `_order`. Metrics are callbacks too: they are called before the others, and only
    when a run begins and ends, and in a validation. `state`: where the run is (default: at its beginning).

    >>> CallbackHandler([StopAfterNBatches(3)]).of_callbacks["batch_end"][0][0]
    StopAfterNBatches(n_batches=3)
    """

    def __init__(self, callbacks: Sequence[Callback] = (), metrics: Sequence[Callback] = (),
                 state: State | None = None) -> None:
        for cb in (*metrics, *callbacks):
            check_callback(cb, Callback)
        self.state = state or State()
        self.fields = vars(self.state)
        self.callbacks = sorted(callbacks, key=lambda cb: cb._order)
        self.metrics = list(metrics)
        names = [n for m in metrics for n in getattr(m, "columns", [getattr(m, "name", camel2snake(type(m).__name__))])]
        self.state.metrics_names = [f"{n}_{names[:i + 1].count(n)}" if names.count(n) > 1 else n
                                    for i, n in enumerate(names)]
        self.of_callbacks = listeners(self.callbacks, Callback)
        self.of_metrics = listeners(self.metrics, Callback)
        self.of_all = {event: self.of_metrics[event] + self.of_callbacks[event] for event in EVENTS}
        self.active = self.of_callbacks

    def set_mode(self, training: bool) -> None:
        """What follows is training, which metrics have no part in, or a validation."""
        self.state.train = training
        self.active = self.of_callbacks if training else self.of_all

    def fire(self, event: str, listeners: Listeners | None = None) -> None:
        """Call the handlers of `event` in order; what one returns is in the state before the next one is called."""
        fields = self.fields
        for callback, handler, read in (listeners or self.active)[event]:
            try:
                changes = handler(*read(fields)) if read else handler()
            except Exception as e:
                e.add_note(self._where(callback, event))
                if isinstance(e, StopIteration):    # to a loop or a generator further out it would be an end
                    raise RuntimeError(f"{type(callback).__name__}.on_{event} raised StopIteration") from e
                raise
            if changes is not None:
                self._take(callback, event, changes)

    def _take(self, callback: Callback, event: str, changes: Changes) -> None:
        who, allowed = f"{type(callback).__name__}.on_{event}", RETURNS[event]
        if not isinstance(changes, dict):
            raise TypeError(f"{who} returned {changes!r}; a handler returns None or a dict of the fields it changes")
        for key, value in changes.items():
            if key not in allowed:
                events = [f"on_{e}" for e in EVENTS if key in RETURNS[e]]
                raise TypeError(f"{who} cannot return {key!r}" + (
                    f"; that belongs to {' and '.join(events)}" if events else
                    f", which no callback sets.{did_you_mean(key, {f for e in EVENTS for f in RETURNS[e]})}"))
            try:
                value = allowed[key](key, value)
                if key == "epoch" and value > self.state.n_epochs:
                    raise ValueError(f"epoch must be at most n_epochs, {self.state.n_epochs}, not {value}")
            except (TypeError, ValueError) as e:
                raise type(e)(f"{who} returned a wrong value: {e}") from None
            # flags add up: a later callback does not take back what an earlier one has decided
            self.fields[key] = self.fields[key] or value if key.startswith(("stop_", "skip_")) else value

    def _where(self, callback: Callback, event: str) -> str:
        s = self.state
        return f"raised in {type(callback).__name__}.on_{event}, epoch {s.epoch}, iteration {s.iteration}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """on_train_begin, the body, and then every on_train_end, which reads the exception if there was one."""
        try:
            self.fire("train_begin", self.of_all)
            yield
        except BaseException as e:
            s = self.state
            s.exception = e
            e.add_note(place_in_run(s, e))
            raise
        finally:
            self._end()

    def _end(self) -> None:
        s, first = self.state, self.state.exception
        for listener in self.of_all["train_end"]:
            try:
                self.fire("train_end", {"train_end": [listener]})
            except BaseException as e:
                # the first failure is the one to report, unless a signal that ends the process was behind it
                s.exception = e if isinstance(e, SystemExit) else s.exception or e
                if s.exception is not e:
                    s.exception.add_note(f"and then {e!r} was {self._where(listener[0], 'train_end')}")
        # a traceback may keep the state alive; the last batch and its graph need not stay with it
        s.last_input = s.last_target = s.last_output = s.last_loss = None
        if s.exception is not first and s.exception is not None:
            raise s.exception
