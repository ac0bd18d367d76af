from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor

from minifast.denominators import unreduced
from minifast.losses import (
    BCEWithLogitsFlat,
    CrossEntropyFlat,
    LabelSmoothingCrossEntropy,
    MSELossFlat,
    loss_activation,
)


def test_cross_entropy_equals_torch_in_every_shape():
    outputs, targets = torch.randn(4, 3, 5, 6), torch.randint(3, (4, 5, 6))
    expected = F.cross_entropy(outputs, targets).item()
    assert CrossEntropyFlat(axis=1)(outputs, targets).item() == pytest.approx(expected, rel=1e-5)
    assert CrossEntropyFlat(axis=1)(outputs, targets[:, None]).item() == pytest.approx(expected, rel=1e-5)
    assert CrossEntropyFlat()(outputs.movedim(1, -1), targets).item() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_a_batch_and_of_small_integers():
    outputs, targets = torch.randn(8, 3), torch.randint(3, (8,))
    assert torch.equal(CrossEntropyFlat()(outputs, targets), F.cross_entropy(outputs, targets))
    assert torch.equal(CrossEntropyFlat()(outputs, targets[:, None].int()), F.cross_entropy(outputs, targets))
    weight = tensor([1.0, 2.0, 3.0])
    assert torch.equal(CrossEntropyFlat(weight=weight)(outputs, targets), F.cross_entropy(outputs, targets, weight))


def test_label_smoothing_by_its_formula():
    outputs, targets, eps = torch.randn(8, 5), torch.randint(5, (8,)), 0.1
    logs = outputs.log_softmax(1)
    wanted = torch.full((8, 5), eps / 5).scatter_add_(1, targets[:, None], torch.full((8, 1), 1 - eps))
    each = -(wanted * logs).sum(1)
    assert LabelSmoothingCrossEntropy()(outputs, targets).item() == pytest.approx(each.mean().item(), rel=1e-5)
    assert torch.allclose(LabelSmoothingCrossEntropy(reduction="none")(outputs, targets), each)


def test_mse_and_bce_take_columns_and_whole_numbers():
    column, flat = tensor([[1.0], [2.0], [4.0]]), tensor([1, 2, 3])
    assert MSELossFlat()(column, flat) == pytest.approx(1 / 3)
    assert MSELossFlat()(column.double(), flat).dtype == torch.float64
    assert BCEWithLogitsFlat()(torch.zeros(3, 1), tensor([0, 1, 1])) == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs(dtype):
    outputs = torch.zeros(4, 2, dtype=dtype)
    assert CrossEntropyFlat()(outputs, tensor([0, 1, 1, 0])).item() == pytest.approx(math.log(2), rel=5e-3)
    assert MSELossFlat()(outputs, torch.ones(4, 2)) == 1
    assert BCEWithLogitsFlat()(outputs, torch.ones(4, 2)).item() == pytest.approx(math.log(2), rel=5e-3)


@pytest.mark.parametrize(("loss", "target", "error", "words"), [
    (CrossEntropyFlat(), tensor([0, 1, 2, 5]), ValueError, "3 outputs, for the classes 0 to 2, .* go from 0 to 5"),
    (CrossEntropyFlat(), tensor([0, 1, 2]), ValueError, r"\(4, 3\) .* axis -1 need 4 targets, .* \(3,\)"),
    (CrossEntropyFlat(), torch.zeros(4), TypeError, "class numbers as targets, not torch.float32; .* MSELossFlat"),
    (LabelSmoothingCrossEntropy(), torch.zeros(4), TypeError, "LabelSmoothingCrossEntropy needs class numbers"),
    (MSELossFlat(), torch.zeros(4), ValueError, r"MSELossFlat: .* \(4, 3\) do not fit targets of shape \(4,\)"),
    (BCEWithLogitsFlat(), torch.zeros(3), ValueError, r"BCEWithLogitsFlat: .* \(4, 3\) do not fit"),
])
def test_targets_that_do_not_fit_are_named(loss, target, error, words):
    with pytest.raises(error, match=words):
        loss(torch.zeros(4, 3), target)


def test_activations():
    x = torch.randn(4, 3, 2)
    assert torch.equal(loss_activation(CrossEntropyFlat(axis=1))(x), x.softmax(1))
    assert torch.equal(loss_activation(LabelSmoothingCrossEntropy())(x), x.softmax(-1))
    for loss in (F.cross_entropy, partial(F.cross_entropy, label_smoothing=0.1), nn.CrossEntropyLoss()):
        assert torch.equal(loss_activation(loss)(x), x.softmax(1))
    for loss in (BCEWithLogitsFlat(), nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits):
        assert torch.equal(loss_activation(loss)(x), x.sigmoid())
    for loss in (F.nll_loss, nn.NLLLoss()):
        assert torch.equal(loss_activation(loss)(x), x.exp())
    for loss in (MSELossFlat(), F.l1_loss, lambda output, target: output.mean()):
        assert torch.equal(loss_activation(loss)(x), x)


@pytest.mark.parametrize("loss", [CrossEntropyFlat(axis=1), nn.CrossEntropyLoss(), F.cross_entropy,
                                  partial(F.cross_entropy, label_smoothing=0.1)])
def test_unreduced_gives_one_loss_a_sample(loss):
    outputs, targets = torch.randn(4, 3, 5), torch.randint(3, (4, 5))
    losses = unreduced(loss)(outputs, targets)
    assert losses.shape == (4,)
    assert torch.allclose(losses[2], loss(outputs[2:3], targets[2:3]))
    assert loss(outputs, targets).ndim == 0     # the loss itself still reduces


def test_unreduced_of_quantities_and_of_a_loss_that_cannot():
    assert unreduced(MSELossFlat())(tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2)).tolist() == [5, 0]
    with pytest.raises(TypeError, match="cannot give one loss for each sample"):
        unreduced(lambda output, target: output.mean())
