"""From a metric to a column: objects with a state, names, errors, and what a validation leaves behind."""
import pytest
import torch
from torch import nn, tensor

from minifast.basics import *
from minifast.fakes import fake_learner


class Log:
    """A metric that notes what is done with it; its value is how many samples it has had since the last reset."""

    def __init__(self):
        self.calls, self.n, self.best = [], 0, 0

    def reset(self):
        self.calls.append("reset")
        self.n = 0

    def update(self, output, target):
        assert not output.requires_grad
        self.calls.append("update")
        self.n += len(target)

    def compute(self):
        self.calls.append("compute")
        self.best = max(self.best, self.n)
        return self.n


class InModule(nn.Module):
    """One whose state is a module's: a buffer, and a list."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(()))
        self.seen = []

    def reset(self):
        self.total.zero_()
        self.seen = []

    def update(self, output, target):
        self.total += target.sum()
        self.seen.append(len(target))

    def compute(self):
        return self.total


def test_reset_for_each_validation_updated_per_batch_computed_once():
    log = Log()
    learn = fake_learner(valid_length=12, metrics=[log])      # three batches
    learn.fit(2)
    one = ["reset", "update", "update", "update", "compute"]
    assert log.calls == one * 2
    assert learn.recorder.names[3] == "log" and learn.recorder.metrics == [[12], [12]]


def test_validate_check_and_lr_find_leave_it_unchanged():
    for metric in (Log(), InModule()):
        learn = fake_learner(valid_length=12, metrics=[metric])
        learn.fit(1)
        before = repr(vars(metric))
        value = learn.validate(learn.data.train_dl)[1]
        learn.lr_find(num_it=5)
        learn.check()
        assert repr(vars(metric)) == before
        assert value == 10 if isinstance(metric, Log) else value >= 0


def test_its_state_is_in_a_checkpoint(tmp_path):
    class Cut(Callback):
        role = "watching"
        on = True

        def on_batch_end(self, iteration, train):
            if Cut.on and train and iteration == 3:
                raise RuntimeError("cut")

    ends = []
    for cut in (False, True):
        first = Log()
        first.best = 100
        Cut.on = cut
        name = f"run_{cut}"
        learn = fake_learner(metrics=[first], path=tmp_path)
        try:
            learn.fit(2, callbacks=[Cut(), Checkpoint(learn, name, every=1)])
        except RuntimeError:
            second, Cut.on = Log(), False
            learn = fake_learner(metrics=[second], path=tmp_path)
            learn.fit(2, callbacks=[Cut(), Checkpoint(learn, name, every=1)])
            assert second.best == 100
        ends.append(learn.recorder.metrics)
    assert ends[0] == ends[1]


def test_nothing_is_kept_from_epoch_to_epoch():
    metric = InModule()
    fake_learner(valid_length=12, metrics=[metric]).fit(5)
    assert metric.seen == [5, 5, 2]


def test_a_skipped_validation_has_no_value():
    class Skips(Callback):
        def on_train_begin(self):
            return {"skip_validate": True}

    learn = fake_learner(metrics=[Log(), {"a": InModule()}])
    learn.fit(1, callbacks=[Skips()])
    assert learn.recorder.metrics == [[None, None]]


def test_a_dict_names_its_metrics():
    learn = fake_learner(metrics={"right": accuracy, "wrong": error_rate})
    learn.fit(1)
    assert learn.recorder.names[3:5] == ["right", "wrong"]
    assert sum(learn.recorder.metrics[0]) == pytest.approx(1)
    assert [m.name for m in as_metrics([{"top": partial(top_k_accuracy, k=1)}, Log()])] == ["top", "log"]


def test_two_of_one_name_are_numbered():
    learn = fake_learner(metrics=[partial(top_k_accuracy, k=2), accuracy, partial(top_k_accuracy, k=1)])
    learn.fit(1)
    assert learn.recorder.names[3:6] == ["top_k_accuracy_1", "accuracy", "top_k_accuracy_2"]
    with pytest.raises(ValueError, match="monitors 'top_k_accuracy', but the columns are .*top_k_accuracy_1"):
        learn.fit(1, callbacks=[SaveModelCallback(learn, monitor="top_k_accuracy", mode="max")])


def test_a_column_of_the_table_s_own_name_is_refused_before_epoch_0():
    learn = fake_learner(metrics={"valid_loss": accuracy})
    with pytest.raises(ValueError, match="two columns have the name 'valid_loss': give one another name"):
        learn.fit(1)
    assert len(learn.recorder.lrs) == 0


@pytest.mark.parametrize("metric", [lambda output, target: output.nope, whole_set(lambda output, target: output.nope)])
def test_a_metric_that_raises_is_named(metric):
    metric.__name__ = "broken"
    with pytest.raises(AttributeError) as error:
        fake_learner(metrics=[accuracy, metric]).fit(1)
    assert "in the metric broken" in error.value.__notes__


def test_an_object_that_raises_is_named():
    class Broken(Log):
        def compute(self):
            raise KeyError("x")

    with pytest.raises(KeyError) as error:
        fake_learner(metrics={"mine": Broken()}).validate()
    assert "in the metric mine" in error.value.__notes__


@pytest.mark.parametrize("value, error, words", [
    ({"a": 1, "b": 2}, TypeError, "the metric log returned a dict of a, b, which is no number"),
    (torch.zeros(3), ValueError, r"the metric log returned a tensor of shape \(3,\) instead of one number"),
    ("much", TypeError, "the metric log returned 'much', which is no number"),
])
def test_a_value_that_is_no_number(value, error, words):
    log = Log()
    log.compute = lambda: value
    with pytest.raises(error, match=words):
        fake_learner(metrics=[log]).validate()


def test_classes_are_refused():
    for wrong in (Log, Precision, RMSE):
        with pytest.raises(TypeError, match="make an instance"):
            fake_learner(metrics=[wrong])


def test_v1_s_recipe_with_add_metrics():
    class Share(Callback):
        name = "share"

        def on_epoch_begin(self, **kwargs):
            self.n = self.right = 0

        def on_batch_end(self, last_output, last_target, **kwargs):
            self.right += (last_output.argmax(1) == last_target).sum()
            self.n += len(last_target)

        def on_epoch_end(self, last_metrics, **kwargs):
            return add_metrics(last_metrics, self.right / self.n)

    learn = fake_learner(valid_length=12, metrics=[accuracy, Share()])
    learn.fit(1)
    assert learn.recorder.names[3:5] == ["accuracy", "share"]
    assert learn.recorder.metrics[0][0] == pytest.approx(learn.recorder.metrics[0][1])
    assert add_metrics([1.0], [2.0, 3.0]) == {"last_metrics": [1.0, 2.0, 3.0]}


def test_a_metric_may_say_over_what_it_is_a_mean():
    @mean_over(lambda output, target: (target > 0).sum())
    def right_of_some(output, target):
        return (output.argmax(1) == target)[target > 0].float().mean()

    learn = fake_learner(valid_length=23, metrics=[right_of_some])
    x, y = (torch.cat(t) for t in zip(*learn.data.valid_dl, strict=True))
    with torch.no_grad():
        want = right_of_some(learn.model(x), y)
    assert learn.validate()[1] == pytest.approx(float(want), abs=1e-6)


def test_all_ignored_has_no_value():
    metric = AverageMetric(accuracy)
    metric.on_batch_end(torch.eye(2), tensor([-100, -100]))
    assert metric.compute() is None
    metric.on_batch_end(torch.eye(2), tensor([0, -100]))
    assert metric.compute() == 1
