"""The parts of a loss as columns: means over the validation's samples."""
import pytest
import torch
from torch import nn

from minifast.callback import Callback
from minifast.callbacks.loss_metrics import LossMetrics
from minifast.fakes import fake_learner
from minifast.metrics import accuracy


class Parts(nn.Module):
    metric_names = ["entropy", "size"]

    def forward(self, output, target):
        entropy = nn.functional.cross_entropy(output, target)
        size = output.pow(2).mean()
        self.metrics = {"entropy": entropy, "size": size}
        return entropy + 0.1 * size


def test_each_part_is_a_mean_over_the_validation_s_samples():
    learn = fake_learner(loss_func=Parts(), metrics=[accuracy], valid_length=8)     # batches of 5 and 3
    learn.fit(2, 0.1, callbacks=[LossMetrics(learn)])
    assert learn.recorder.names == ["epoch", "train_loss", "valid_loss", "accuracy", "entropy", "size", "time"]
    x, y = (torch.cat(t) for t in zip(*learn.data.valid_dl, strict=True))
    with torch.no_grad():
        output = learn.model(x)
    _, entropy, size = learn.recorder.metrics[-1]
    assert entropy == pytest.approx(float(nn.functional.cross_entropy(output, y)), rel=1e-6)
    assert size == pytest.approx(float(output.pow(2).mean()), rel=1e-6)
    assert entropy + 0.1 * size == pytest.approx(learn.recorder.val_losses[-1], rel=1e-6)


def test_parts_may_be_plain_numbers_and_a_skipped_validation_has_none():
    class Counts(nn.CrossEntropyLoss):
        metric_names = ["n"]

        def forward(self, output, target):
            self.metrics = {"n": len(target)}
            return super().forward(output, target)

    learn = fake_learner(loss_func=Counts(), valid_length=8)
    learn.fit(1, callbacks=[LossMetrics(learn)])
    assert learn.recorder.metrics == [[(5 * 5 + 3 * 3) / 8]]

    class Skips(Callback):
        def on_train_begin(self):
            return {"skip_validate": True}

    learn.fit(1, callbacks=[LossMetrics(learn), Skips()])
    assert learn.recorder.metrics == [[None]]


def test_a_loss_without_parts_is_an_error_before_epoch_0():
    learn = fake_learner()
    with pytest.raises(TypeError, match=r"names its parts in `metric_names`; CrossEntropyLoss\(\) does not"):
        learn.fit(1, callbacks=[LossMetrics(learn)])
    assert len(learn.recorder.lrs) == 0
