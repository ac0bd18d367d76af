"""Runs kept, put together and compared, and their settings."""
import json
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from minifast.callback import Callback
from minifast.callbacks.gradients import GradientClipping
from minifast.callbacks.terminate import StopAfterNBatches
from minifast.fakes import fake_learner
from minifast.metrics import accuracy, error_rate
from minifast.runs import Run, compare


def test_settings_are_those_of_the_last_fit_and_plain():
    learn = fake_learner(metrics=[accuracy], train_length=100, opt_func=partial(torch.optim.SGD, momentum=0.9),
                         callbacks=[StopAfterNBatches(1000)], layer_group_count=3)
    before = learn.settings()
    assert before["optimizer"] == "SGD" and "epochs" not in before and "lr" not in before
    learn.fit_one_cycle(3, slice(1e-3, 1e-1), wd=0.2)
    found = learn.settings()
    assert json.loads(json.dumps(found)) == found
    assert found["epochs"] == 3 and found["wd"] == 0.2 and found["mom"] == 0.9 and found["metrics"] == ["accuracy"]
    assert found["lr"] == pytest.approx([1e-3, 1e-2, 1e-1]) and found["layer groups"] == 3
    assert found["parameters"] == sum(p.numel() for p in learn.model.parameters())
    assert found["training samples"] == 100 and found["batches"] == len(learn.data.train_dl)
    one_cycle = found["callbacks"]["OneCycleScheduler"]
    assert one_cycle["pct_start"] == 0.3 and one_cycle["div_factor"] == 25
    assert set(found["callbacks"]) == {"OneCycleScheduler", "StopAfterNBatches"}
    learn.fit(1, 1e-3)
    assert learn.settings()["lr"] == 1e-3 and "OneCycleScheduler" not in learn.settings()["callbacks"]


def test_settings_while_a_fit_is_in_progress():
    class Look(Callback):
        role = "watching"

        def on_train_begin(self):
            self.seen = learn.settings()
    learn, look = fake_learner().clip_grad(0.5), Look()
    learn.fit(4, 1e-2, callbacks=look)
    assert look.seen["epochs"] == 4 and look.seen["callbacks"] == {"GradientClipping": {"clip": 0.5, "by": "norm"}}
    assert look.seen == learn.settings() and isinstance(learn.gradient_clipping, GradientClipping)


def test_lazy_models_have_settings_too():
    learn = fake_learner(layers=[nn.LazyLinear(4)])
    assert learn.settings()["parameters"] == 0
    learn.fit(1)
    assert learn.settings()["parameters"] == 24


def test_stages_are_one_run():
    learn = fake_learner(train_length=30, metrics=[accuracy], layer_group_count=3)
    learn.freeze()
    learn.fit(1, 1e-2)
    frozen = Run.of(learn)
    learn.unfreeze()
    learn.metrics = [accuracy, error_rate]
    learn.fit_one_cycle(2, 1e-2)
    both = frozen + Run.of(learn)
    n = len(frozen.lrs)
    assert both.stages == [n] and both.at == [n, 2 * n, 3 * n] and len(both.losses) == 3 * n
    np.testing.assert_array_equal(both.losses[n:], learn.recorder.losses)
    assert both.columns["error_rate"][0] is None and both.columns["error_rate"][1:] == [
        row[1] for row in learn.recorder.metrics]
    assert Run.of([frozen, learn, learn]).stages == [n, 3 * n]
    assert both.settings == learn.settings()


def test_a_comparison_shows_each_run_in_each_panel():
    plain, cycle, other = (fake_learner(train_length=30, metrics=m) for m in ([accuracy], [accuracy], [error_rate]))
    plain.fit(2, 1e-2)
    stage = Run.of(plain)
    plain.fit(1, 1e-3)
    cycle.fit_one_cycle(2, 1e-2)
    other.fit(1, 1e-2)
    figure = compare({"two stages": [stage, plain], "1cycle": cycle, "other": other}, return_fig=True)
    axes = {axis.get_ylabel(): axis for axis in figure.axes}
    assert list(axes) == ["train_loss, smoothed", "valid_loss", "accuracy", "error_rate"]
    lines = {line.get_label(): line for line in axes["accuracy"].lines}
    np.testing.assert_allclose(lines["1cycle"].get_ydata(), [m[0] for m in cycle.recorder.metrics])
    assert len(lines["two stages"].get_xdata()) == 3 and len(lines["other"].get_xdata()) == 0
    assert lines["two stages"].get_color() != lines["1cycle"].get_color()
    assert [text.get_text() for text in figure.legends[0].texts] == ["two stages", "1cycle", "other"]
    dotted = [line for line in axes["valid_loss"].lines if line.get_linestyle() == ":"]
    assert [list(line.get_xdata()) for line in dotted] == [[len(stage.lrs)] * 2]
    plt.close("all")


def test_a_comparison_of_few_columns_and_many_runs():
    learn = fake_learner()
    learn.fit(1)
    figure = compare({str(i): learn for i in range(12)}, columns="valid_loss", return_fig=True)
    assert len(figure.axes) == 1
    assert len({line.get_color() for line in figure.axes[0].lines}) == 12
    plt.close("all")


@pytest.mark.parametrize("runs, columns, error, words", [
    ([], None, TypeError, "a dict of runs by name"),
    ({"a": 3}, None, TypeError, "a learner, a Run or a list"),
    ({"a": fake_learner()}, None, ValueError, "no fit behind it"),
])
def test_what_is_no_run_is_named(runs, columns, error, words):
    with pytest.raises(error, match=words):
        compare(runs, columns)


def test_a_column_that_no_run_has():
    learn = fake_learner()
    learn.fit(1)
    with pytest.raises(ValueError, match="no run has a column 'acc'; there are train_loss, valid_loss"):
        compare({"a": learn}, ["acc"])
