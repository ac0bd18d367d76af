"""Models that return their own losses."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor

from minifast.callbacks.loss_metrics import LossMetrics
from minifast.data import DataBunch
from minifast.learner import Learner
from minifast.model_loss import ModelLoss

X, Y = torch.randn(22, 3, generator=torch.Generator().manual_seed(0)), torch.arange(22) % 2


class TwoLosses(nn.Module):
    """Returns two losses and its outputs; in a validation, on request, no loss, as detection models do."""

    def __init__(self, in_validation=True, named=False):
        super().__init__()
        self.layer, self.in_validation, self.named = nn.Linear(3, 2), in_validation, named

    def forward(self, x, labels=None):
        out = self.layer(x)
        if labels is None or not (self.training or self.in_validation):
            return {"logits": out}
        losses = {"fit": F.cross_entropy(out, labels), "size": out.pow(2).mean()}
        return {"loss": losses["fit"] + 2 * losses["size"], "logits": out} if self.named else {**losses, "logits": out}


def learner(model, loss_func, **kwargs):
    def pair(batch):
        return {"x": batch["x"], "labels": batch["labels"]}, batch["labels"]
    batches = [{"x": x, "labels": y} for x, y in zip(X.split(8), Y.split(8), strict=True)]
    data = DataBunch(batches, batches, to_pair=pair, loss_func=loss_func)
    return Learner(data, model, silent=True, opt_func=torch.optim.SGD, wd=0, **kwargs)


def logits_accuracy(output, target):
    return (output["logits"].argmax(1) == target).float().mean()


def plain_loop(model, total, epochs):
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for x, y in zip(X.split(8), Y.split(8), strict=True):
            total(model(x, y)).backward()
            opt.step()
            opt.zero_grad()


@pytest.mark.parametrize("named", [False, True])
def test_training_is_that_of_the_plain_loop_and_the_means_are_over_samples(named):
    torch.manual_seed(0)
    model = TwoLosses(named=named)
    other = TwoLosses(named=named)
    other.load_state_dict(model.state_dict())
    loss = ModelLoss() if named else ModelLoss(parts=["fit", "size"], weights={"size": 2})
    learn = learner(model, loss, metrics=[logits_accuracy])
    learn.fit(2, 0.1)
    plain_loop(other, lambda out: out["loss"] if named else out["fit"] + 2 * out["size"], 2)
    torch.testing.assert_close(model.layer.weight, other.layer.weight)
    with torch.no_grad():
        out = other.layer(X)    # the batches are of 8, 8 and 6
    whole = F.cross_entropy(out, Y) + 2 * out.pow(2).mean()
    assert learn.validate() == pytest.approx([float(whole), float((out.argmax(1) == Y).float().mean())], rel=1e-5)


def test_several_losses_are_columns_of_training_or_validation():
    torch.manual_seed(0)
    learn = learner(TwoLosses(), ModelLoss(parts=["fit", "size"]))
    learn.fit(1, 1e-30, callbacks=LossMetrics(learn))
    in_validation = learn.recorder.metrics[-1]
    learn.fit(1, 1e-30, callbacks=LossMetrics(learn, train=True))
    with torch.no_grad():
        out = learn.model.layer(X)
    expected = [float(F.cross_entropy(out, Y)), float(out.pow(2).mean())]
    assert in_validation == pytest.approx(expected, rel=1e-5)
    assert learn.recorder.metrics[-1] == pytest.approx(expected, rel=1e-5)
    assert learn.recorder.names[3:5] == ["fit", "size"]
    assert learn.recorder.train_losses[0] == pytest.approx(sum(expected), rel=1e-5)


def test_where_a_validation_has_no_loss_the_table_says_so():
    learn = learner(TwoLosses(in_validation=False), ModelLoss(parts=["fit", "size"]), metrics=[logits_accuracy])
    learn.fit(2, 0.1, callbacks=LossMetrics(learn, train=True))
    assert learn.recorder.val_losses == [None, None] and learn.recorder.rows()[0][2] == "#na#"
    assert learn.recorder.metrics[0][0] > 0 and len(learn.recorder.metrics[0]) == 3
    preds, targets = learn.get_preds()
    assert preds["logits"].shape == (22, 2) and targets.tolist() == Y.tolist()


@pytest.mark.parametrize("output, expected", [
    (SimpleNamespace(loss=tensor(2.0), logits=torch.zeros(3)), 2.0),
    ({"a": tensor(1.0), "b": tensor(2.0)}, 3.0),
    ((tensor(4.0), torch.zeros(3)), 4.0),
    (tensor(5.0), 5.0),
    ({"loss": None, "a": tensor(1.0)}, None),
    (torch.zeros(3), None),
    ([{"boxes": torch.zeros(0, 4)}], None),
])
def test_where_the_loss_is_found(output, expected):
    loss = ModelLoss()
    if expected is not None:
        assert float(loss(output, torch.zeros(7))) == expected and loss.denominator(output, torch.zeros(7)) == 7
        return
    with torch.no_grad():
        assert float(loss(output)) == 0 and loss.denominator(output) == 0
    with pytest.raises(TypeError, match="no loss that ModelLoss finds"):
        loss(output)


def test_a_mean_over_tokens():
    def tokens(output, target):
        return (target != -100).sum()
    target = tensor([[1, -100, -100], [1, 1, 1]])
    assert ModelLoss(mean_over=tokens).denominator({"loss": tensor(1.0)}, target) == 4
    with pytest.raises(TypeError, match="a list of names"):
        ModelLoss(parts="fit")
