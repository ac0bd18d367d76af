"""`simulate`: a callback is driven by the real loop over scripted numbers."""
import pytest

from minifast.callback import Callback
from minifast.callbacks import Timer
from minifast.fakes import simulate


def test_simulate_tells_what_was_answered_and_when():
    class Count(Callback):
        def on_batch_end(self, train, iteration):
            return {"stop_epoch": True, "stop_training": True} if train and iteration == 4 else None

    run = simulate(Count(), n_epochs=5, n_batches=3)
    assert [(a.event, a.epoch, a.batch, a.train) for a in run.answers] == [("batch_end", 1, 1, True)]
    assert run.answers[0].answer == {"stop_epoch": True, "stop_training": True}
    assert run.state.epoch == 2 and run.learn.recorder.nb_batches == [3, 2]


def test_simulate_scripts_losses_and_metrics():
    class See(Callback):
        def __init__(self):
            self.losses, self.metrics = [], []

        def on_batch_end(self, train, last_loss):
            self.losses += [float(last_loss)] * train

        def on_epoch_end(self, last_metrics):
            self.metrics.append(last_metrics)

    run = simulate(See(), n_epochs=3, n_batches=1, losses=[5, 4], valid_losses=[3, 2], metrics={"acc": [0.1, 0.2, 0.3]})
    see = run.callback
    assert see.losses == [5, 4, 4] and see.metrics == [[3, 0.1], [2, 0.2], [2, 0.3]]


def test_simulate_makes_callbacks_of_a_learner_and_lets_their_errors_out():
    run = simulate(Timer, n_epochs=2)
    assert run.callback is run.learn.timer and len(run.callback.times) == 2

    class Wrong(Callback):
        def on_epoch_end(self):
            return {"stop_traning": True}

    with pytest.raises(TypeError, match="stop_training"):
        simulate(Wrong())
