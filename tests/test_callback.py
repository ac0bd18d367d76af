"""The bus: which handlers are called, what they may return, and what happens when something fails."""
import functools
import inspect
import re
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from minifast.callback import Callback, CallbackHandler, LearnerCallback, role_of
from minifast.state import EVENTS, LOOP, RETURNS, State


class Learner:  # all that a LearnerCallback needs to know
    pass


def handler_of(*callbacks, **state):
    return CallbackHandler(callbacks, state=State(**state))


def test_every_writable_field_is_in_the_state():
    assert {field for fields in RETURNS.values() for field in fields} <= set(vars(State()))


def test_the_drawing_shows_the_table():
    drawn, events = {}, []
    for line in LOOP.splitlines()[1:]:
        left, right = line[:WIDTH], line[WIDTH:]
        events = re.findall(r"on_(\w+)", left) or ([] if left.strip() else events)
        for event in events:
            drawn.setdefault(event, [])
            drawn[event] += [] if right == "as above" else re.findall(r"\w+", right)
    assert drawn == {event: list(fields) for event, fields in RETURNS.items()}
    assert list(drawn) == list(EVENTS)


WIDTH = LOOP.index("a callback may return")

TENSOR = torch.tensor(2.0)
RIGHT = {"n_epochs": 3, "n_updates": np.int64(7), "epoch": 1, "num_batch": 0, "iteration": 2, "update": 5,
         "smooth_loss": TENSOR, "last_loss": TENSOR, "last_metrics": [None, 1, TENSOR], "last_input": "x",
         "last_target": None, "last_output": {}, "last_weight": 4}
WRONG = {"n_epochs": (0, 1.5, True), "n_updates": (0, "x", None), "epoch": ("x", -1, 4), "num_batch": (-1,),
         "iteration": (-1, 0.5), "update": (-1, []), "smooth_loss": (1.0, torch.ones(2)),
         "last_loss": ("oops", 1.0, None, torch.ones(2)), "last_metrics": (1, "ab", ["x"], [torch.ones(2)])}
FLAGS = [True, np.True_, torch.tensor(True), torch.tensor([True]), np.array([True])]
NO_FLAGS = ["no", float("nan"), None, 1, torch.tensor([True, True]), torch.tensor(float("nan")), [True]]


@pytest.mark.parametrize(("event", "field"), [(e, f) for e in EVENTS for f in vars(State())])
def test_each_event_takes_what_the_table_says_and_nothing_else(event, field):
    def take(value):
        odd = type("Odd", (Callback,), {f"on_{event}": lambda self: {field: value}})()
        h = handler_of(odd, n_epochs=3)
        h.fire(event)
        return getattr(h.state, field)

    if field not in RETURNS[event]:
        belongs = [f"on_{e}" for e in EVENTS if field in RETURNS[e]]
        with pytest.raises(TypeError, match=f"Odd.on_{event} cannot return '{field}'.*{' and '.join(belongs)}"):
            take(RIGHT.get(field, True))
        return
    is_flag = field.startswith(("stop_", "skip_"))
    for right in FLAGS if is_flag else [RIGHT[field]]:
        assert take(right) is True if is_flag else take(right) == right
    for wrong in NO_FLAGS if is_flag else WRONG.get(field, ()):
        with pytest.raises((TypeError, ValueError), match=rf"Odd.on_{event} returned a wrong value: .*{field}"):
            take(wrong)


def test_what_on_train_end_returns_is_checked_and_the_others_are_called_all_the_same():
    log = []

    class Odd(Callback):
        def on_train_end(self): return {"stop_training": True}

    with pytest.raises(TypeError, match="Odd.on_train_end cannot return 'stop_training'"), \
            handler_of(Odd(), Ends(log)).running():
        pass
    assert len(log) == 1


def test_a_stop_iteration_is_an_error_of_its_callback():
    for event in ("train_begin", "train_end"):
        odd = type("Odd", (Callback,), {f"on_{event}": lambda self: next(iter(()))})()
        with pytest.raises(RuntimeError, match=f"Odd.on_{event} raised StopIteration"), handler_of(odd).running():
            pass


def test_a_handler_calls_its_bases_by_position_or_keyword():
    class A(Callback):
        def on_batch_end(self, train, last_loss):
            assert super().on_batch_end(train, last_loss) is None
            return super().on_batch_end(train=train, last_loss=last_loss)

    handler_of(A()).fire("batch_end")


def test_the_base_teaches_every_event():
    for event in EVENTS:
        text = inspect.getdoc(getattr(Callback, f"on_{event}"))
        assert text.startswith("Called ") and text.count(".") >= 2
        mentioned = set(re.findall(r"`(stop_\w+|skip_\w+)`", text))
        assert mentioned <= set(RETURNS[event])


def test_a_callbacks_role():
    class Watches(Callback):
        only_in_fit = True

    class Shapes(Watches):
        role = "fit"

    class Odd(Callback):
        role = "trainig"

    assert [role_of(c) for c in (Callback(), Watches(), Shapes())] == ["training", "watching", "fit"]
    with pytest.raises(TypeError, match="Odd.role must be one of training, fit, watching, process, not 'trainig'"):
        handler_of(Odd())


def test_fields_are_read_by_name():
    got = []

    class A(Callback):
        def on_batch_end(self, train, iteration): got.append((train, iteration))

    handler_of(A(), iteration=3, train=False).fire("batch_end")
    assert got == [(False, 3)]


def test_kwargs_get_everything_and_super_works():
    got = {}

    class A(Callback):
        def on_epoch_end(self, epoch, **kwargs):
            super().on_epoch_end(epoch=epoch, **kwargs)
            got.update(kwargs, epoch=epoch)

    h = handler_of(A(), epoch=2)
    h.fire("epoch_end")
    assert got == vars(h.state) and got["epoch"] == 2


def test_an_answer_is_in_the_state_before_the_next_callback():
    seen = []

    class Writes(Callback):
        def on_loss_begin(self): return {"last_output": "new"}

    class Reads(Callback):
        def on_loss_begin(self, last_output): seen.append(last_output)

    h = handler_of(Reads(), Writes(), Reads(), last_output="old")
    h.fire("loss_begin")
    assert seen == ["old", "new"] and h.state.last_output == "new"


def test_a_later_callback_cannot_take_a_decision_back():
    class Says(Callback):
        def __init__(self, stop): self.stop = stop
        def on_batch_end(self): return {"stop_epoch": self.stop, "skip_validate": self.stop}

    h = handler_of(Says(True), Says(False))
    h.fire("batch_end")
    assert h.state.stop_epoch is True and h.state.skip_validate is True


@pytest.mark.parametrize("answer", [True, 0, [], "stop"])
def test_an_answer_that_is_no_dict_is_named(answer):
    class Odd(Callback):
        def on_batch_end(self): return answer

    with pytest.raises(TypeError, match=r"Odd.on_batch_end returned .*None or a dict"):
        handler_of(Odd()).fire("batch_end")


@pytest.mark.parametrize("key, suggestion", [("stop_trainig", "stop_training"), ("end_epoch", ""), ("train", "")])
def test_an_unknown_key_in_an_answer_is_named(key, suggestion):
    class Odd(Callback):
        def on_batch_end(self): return {key: True}

    with pytest.raises(TypeError, match=f"Odd.on_batch_end cannot return '{key}'.*{suggestion}"):
        handler_of(Odd()).fire("batch_end")


def test_a_field_that_does_not_exist_is_an_error_before_training():
    class Odd(Callback):
        def on_batch_end(self, last_los): pass

    with pytest.raises(TypeError, match=r"Odd.on_batch_end reads 'last_los'.*Did you mean 'last_loss'"):
        handler_of(Odd())


def test_kwargs_do_not_hide_a_misspelt_field():
    class Odd(Callback):
        def on_batch_end(self, last_los, **kwargs): pass

    with pytest.raises(TypeError, match="Odd.on_batch_end reads 'last_los'"):
        handler_of(Odd())


def test_a_misspelt_event_is_an_error():
    class Odd(Callback):
        def on_bach_end(self): pass

    with pytest.raises(TypeError, match=r"Odd.on_bach_end is no event. Did you mean 'on_batch_end'"):
        handler_of(Odd())


@pytest.mark.parametrize("thing, what", [(Callback, "the class Callback: make an instance"), ([Callback()], r"\["),
                                         (print, "built-in function print")])
def test_what_is_no_callback_is_named(thing, what):
    with pytest.raises(TypeError, match=f"must be an instance of Callback, not .*{what}"):
        handler_of(thing)


def test_only_real_handlers_are_called():
    class Two(Callback):
        def on_epoch_end(self): pass

    two = Two()
    two.on_batch_end = lambda train: None           # an instance's lambda counts
    two.on_step_end = Mock(return_value=None)       # and so does a mock
    h = handler_of(two, Callback())
    assert {e for e in EVENTS if h.active[e]} == {"epoch_end", "batch_end", "step_end"}
    h.fire("step_end")
    assert two.on_step_end.call_args.kwargs == vars(h.state)


def test_the_signature_is_read_once():
    class A(Callback):
        def on_loss_begin(self, *, iteration, train=True): return {"last_output": (iteration, train)}

    a = A()
    h = handler_of(a, iteration=7, train=False)
    a.on_loss_begin = a.on_step_end = None
    h.fire("loss_begin")
    assert h.state.last_output == (7, False)
    assert h.active["step_end"] == []


def test_order_sorts_and_ties_keep_the_list():
    class C(Callback):
        def __init__(self, name, order): self.name, self._order = name, order
    h = handler_of(C("a", 0), C("b", -10), C("c", 0), C("d", -10), C("e", 999))
    assert [c.name for c in h.callbacks] == ["b", "d", "a", "c", "e"]


def test_an_error_in_a_callback_says_where():
    class Fails(Callback):
        def on_batch_end(self): raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken") as e:
        handler_of(Fails(), epoch=1, iteration=42).fire("batch_end")
    assert e.value.__notes__ == ["raised in Fails.on_batch_end, epoch 1, iteration 42"]


class Ends(Callback):
    def __init__(self, log, fails=None): self.log, self.fails = log, fails

    def on_train_end(self, exception):
        self.log.append(exception)
        if self.fails:
            raise self.fails


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_every_train_end_runs_and_knows_the_exception(error):
    log = []
    with pytest.raises(type(error)), handler_of(Ends(log), Ends(log)).running():
        raise error
    assert log == [error, error]


def test_an_error_in_train_begin_ends_the_run_too():
    log = []

    class Fails(Callback):
        def on_train_begin(self): raise RuntimeError("at once")

    with pytest.raises(RuntimeError, match="at once"), handler_of(Ends(log), Fails(), Ends(log)).running():
        raise AssertionError("the body must not run")
    assert [str(e) for e in log] == ["at once", "at once"]


def test_a_failing_train_end_does_not_hide_the_first_error():
    log, second = [], ValueError("second")
    with pytest.raises(RuntimeError, match="first") as e, handler_of(Ends(log, second), Ends(log)).running():
        raise RuntimeError("first")
    assert len(log) == 2 and any("ValueError('second') was raised in Ends.on_train_end" in n for n in e.value.__notes__)


def test_a_failing_train_end_alone_is_raised_after_all_have_run():
    log, error = [], ValueError("late")
    with pytest.raises(ValueError, match="late"), handler_of(Ends(log, error), Ends(log)).running():
        pass
    assert log == [None, error]


def test_metrics_sit_out_training_batches_and_go_first():
    log = []

    class Tells(Callback):
        def __init__(self, name): self.name = name
        def on_batch_end(self, train): log.append((self.name, train))

    h = CallbackHandler([Tells("callback")], [Tells("metric")])
    h.set_mode(training=True)
    h.fire("batch_end")
    h.set_mode(training=False)
    h.fire("batch_end")
    assert log == [("callback", True), ("metric", False), ("callback", False)]


def test_a_learner_callback_is_found_by_its_name():
    class LRWatcher(LearnerCallback):
        pass

    learn = Learner()
    cb = LRWatcher(learn)
    assert learn.lr_watcher is cb and cb.learn is learn
    del learn
    with pytest.raises(ReferenceError, match="learner of this LRWatcher"):
        cb.learn


def test_a_learner_callback_replaces_nothing_but_callbacks():
    class Data(LearnerCallback):
        pass

    learn = Learner()
    learn.data = 3
    with pytest.raises(ValueError, match="Data would replace learn.data"):
        Data(learn)
    assert learn.data == 3


def test_a_callback_does_not_answer_for_its_learner():
    learn = Learner()
    learn.model = 1
    with pytest.raises(AttributeError):
        LearnerCallback(learn).model


def test_plain_attributes_are_a_callbacks_state():
    class Counts(Callback):
        def __init__(self): self.n, self.names, self.file = 3, ["a"], open

    a, b = Counts(), Counts()
    a.n = 5
    assert a.state_dict() == {"n": 5, "names": ["a"]}
    b.load_state_dict(a.state_dict())
    assert b.n == 5 and b.file is open


def test_repr_shows_the_arguments():
    class Stops(Callback):
        def __init__(self, patience=3): self.patience = patience
    assert repr(Stops()) == "Stops(patience=3)"


def test_a_decorated_handler_is_called_as_its_decorator_is_written():
    def decorated(func):
        @functools.wraps(func)
        def handler(self, **kwargs):
            return func(self, **kwargs)
        return handler

    class A(Callback):
        @decorated
        def on_loss_begin(self, epoch, train):
            return {"last_output": (epoch, train)}

    h = handler_of(A(), epoch=3, train=False)
    h.fire("loss_begin")
    assert h.state.last_output == (3, False)
