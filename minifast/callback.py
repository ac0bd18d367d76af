"""`Callback` and the `CallbackHandler` that knows who listens to which event."""
from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, ClassVar

from .state import EVENTS, State, Update
from .utils import camel2snake, did_you_mean, is_plain, shape_of

__all__ = ["Callback", "LearnerCallback", "CallbackHandler"]

Handler = Callable[..., Update | None]
Listeners = dict[str, list[tuple["Callback", Callable[[dict[str, Any]], Any]]]]


def _nothing(self: Any, **kwargs: Any) -> None:
    """The handler of an event that a callback does not override; it is never called, only found."""


class Callback:
    """Base of all that listens to a run. Override the events you want; `state.py` says what each reads and answers."""

    _order: ClassVar[int] = 0            # smaller goes first; ties keep the order of the list
    only_in_fit: ClassVar[bool] = False  # True: it logs, saves or watches, and sits out lr_find, validate and get_preds

    on_train_begin: Handler = _nothing
    on_epoch_begin: Handler = _nothing
    on_batch_begin: Handler = _nothing
    on_loss_begin: Handler = _nothing
    on_backward_begin: Handler = _nothing
    on_backward_end: Handler = _nothing
    on_step_end: Handler = _nothing
    on_batch_end: Handler = _nothing
    on_epoch_end: Handler = _nothing
    on_train_end: Handler = _nothing

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: by default every attribute made of plain values and tensors."""
        return {k: v for k, v in vars(self).items() if is_plain(v)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        vars(self).update(state)

    def __repr__(self) -> str:
        names = [n for n in inspect.signature(type(self)).parameters if n in vars(self)]
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"


class LearnerCallback(Callback):
    """A callback that knows its learner as `self.learn` and is found at `learn.<snake_case_name>`.

    ValueError if something that is no callback has that name (a class `Data` would replace `learn.data`).
    """

    def __init__(self, learn: Any) -> None:
        name = camel2snake(type(self).__name__)
        if hasattr(learn, name) and not isinstance(getattr(learn, name), Callback):
            raise ValueError(f"the callback {type(self).__name__} would replace learn.{name}; rename the class")
        self._learn = weakref.ref(learn)    # weak, so that `del learn` frees the model at once
        setattr(learn, name, self)

    @property
    def learn(self) -> Any:
        """The learner; ReferenceError if it is gone."""
        if (learn := self._learn()) is None:
            raise ReferenceError(f"the learner of this {type(self).__name__} does not exist any more")
        return learn


def bind(callback: Callback, event: str) -> Callable[[dict[str, Any]], Any] | None:
    """`callback`'s handler of `event` as a function of the state's dict; None if it has none.

    The signature is read here, once, so that a call costs no more than its arguments. TypeError for an unknown field.
    """
    handler = getattr(callback, f"on_{event}")
    if getattr(handler, "__func__", None) is _nothing:
        return None
    params = inspect.signature(handler).parameters.values()
    names = [p.name for p in params if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for name in names:
        if name not in State.__dataclass_fields__:
            raise TypeError(f"{type(callback).__name__}.on_{event} asks for {name!r}, which the state does not have."
                            + did_you_mean(name, State.__dataclass_fields__))
    if any(p.kind is p.VAR_KEYWORD for p in params):
        return lambda memory: handler(**memory)
    if not names or hasattr(handler, "__wrapped__") or any(p.kind is p.KEYWORD_ONLY for p in params):
        return lambda memory: handler(**{n: memory[n] for n in names})
    get = itemgetter(*names)    # and by position: together half the time that keywords take
    return (lambda memory: handler(get(memory))) if len(names) == 1 else lambda memory: handler(*get(memory))


def check_callback(callback: Any) -> None:
    """TypeError unless `callback` is a `Callback` whose every `on_...` method is an event."""
    if not isinstance(callback, Callback):
        what = f"the class {callback.__name__}: make an instance" if isinstance(callback, type) else repr(callback)
        raise TypeError(f"a callback must be an instance of Callback, not {what}")
    known = [f"on_{event}" for event in EVENTS]
    for name in dir(callback):
        if name.startswith("on_") and name not in known and callable(getattr(callback, name)):
            raise TypeError(f"{type(callback).__name__}.{name} is no event."
                            + (did_you_mean(name, known) or f" The events are {', '.join(known)}."))


def listeners(callbacks: Sequence[Callback]) -> Listeners:
    """For each event, those of `callbacks` that handle it, in order, each with its handler made ready."""
    return {e: [(cb, call) for cb in callbacks if (call := bind(cb, e)) is not None] for e in EVENTS}


class CallbackHandler:
    """The callbacks and metrics of one run, its `state`, and the lists of who listens to which event.

    Callbacks are told by `_order`. Metrics are callbacks too: they come first, in their own order, and hear of the
    beginning and end of the run and of what belongs to a validation, not of training batches.
    """

    def __init__(self, callbacks: Sequence[Callback] = (), metrics: Sequence[Callback] = (),
                 state: State | None = None) -> None:
        for cb in (*metrics, *callbacks):
            check_callback(cb)
        self.state = state or State()
        self.memory = vars(self.state)
        self.callbacks, self.metrics = sorted(callbacks, key=lambda cb: cb._order), list(metrics)
        self.state.metrics_names = [getattr(m, "name", camel2snake(type(m).__name__)) for m in self.metrics]
        self.of_callbacks, self.of_metrics = listeners(self.callbacks), listeners(self.metrics)
        self.of_all = {event: self.of_metrics[event] + self.of_callbacks[event] for event in EVENTS}
        self.listeners = self.of_callbacks

    def begin(self, train: bool) -> None:
        """What follows belongs to training, or to a validation."""
        self.state.train = train
        self.listeners = self.of_callbacks if train else self.of_all

    def fire(self, event: str, listeners: Listeners | None = None) -> None:
        """Tell all who listen, in order; an answer is in the state before the next one reads it."""
        for callback, call in (listeners or self.listeners)[event]:
            try:
                answer = call(self.memory)
            except Exception as e:
                e.add_note(self._where(callback, event))
                raise
            if answer is not None:
                self._take(callback, event, answer)

    def _take(self, callback: Callback, event: str, answer: Any) -> None:
        who = f"{type(callback).__name__}.on_{event}"
        if not isinstance(answer, dict):
            raise TypeError(f"{who} answered {answer!r}; a handler answers None or a dict of the fields it changes")
        for key, value in answer.items():
            if key not in Update.__annotations__:
                raise TypeError(f"{who} answered {key!r}, which a callback cannot set."
                                + did_you_mean(key, Update.__annotations__))
            # decisions add up: whoever says stop is not overruled by a later callback
            self.memory[key] = bool(self.memory[key] or value) if key.startswith(("stop_", "skip_")) else value

    def _where(self, callback: Callback, event: str) -> str:
        s = self.state
        return f"raised in {type(callback).__name__}.on_{event}, epoch {s.epoch}, iteration {s.iteration}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """on_train_begin, the body, and then every on_train_end, which is told the exception if there was one."""
        try:
            self.fire("train_begin", self.of_all)
            yield
        except BaseException as e:
            s = self.state
            s.exception = e
            e.add_note(f"in epoch {s.epoch}, iteration {s.iteration}; input {shape_of(s.last_input)}, "
                       f"output {shape_of(s.last_output)}, target {shape_of(s.last_target)}")
            raise
        finally:
            self._end()

    def _end(self) -> None:
        s, first = self.state, self.state.exception
        for callback, call in self.of_all["train_end"]:
            try:
                call(self.memory)
            except BaseException as e:
                s.exception = s.exception or e  # the first failure is the one to report
                also = "" if s.exception is e else f"and then {e!r} was "
                s.exception.add_note(also + self._where(callback, "train_end"))
        # a traceback may keep the state alive; the last batch and its graph need not stay with it
        s.last_input = s.last_target = s.last_output = s.last_loss = None
        if first is None and s.exception is not None:
            raise s.exception
