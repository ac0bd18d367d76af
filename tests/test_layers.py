from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn, tensor

from minifast.layers import (
    AdaptiveConcatPool2d,
    BCEWithLogitsFlat,
    CrossEntropyFlat,
    Flatten,
    LabelSmoothingCrossEntropy,
    Lambda,
    MSELossFlat,
    ParameterModule,
    PoolFlatten,
    conv_layer,
    flatten_model,
    loss_activation,
    simple_cnn,
    split_model,
    unreduced,
)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# ---- layers

def test_simple_cnn_for_the_sample():
    model = simple_cnn((3, 16, 16, 2))
    assert size(model) == 3058
    assert model(torch.randn(5, 3, 28, 28)).shape == (5, 2)
    assert model[:3](torch.randn(5, 3, 28, 28)).shape == (5, 2, 4, 4)    # each convolution halves the picture
    assert (model(torch.randn(50, 3, 28, 28)) >= 0).all()                # the last convolution ends in a ReLU too


def test_simple_cnn_kernels_strides_and_batch_norm():
    model = simple_cnn((3, 8, 4), kernel_szs=(5, 1), strides=(1, 2), bn=True)
    assert [(c.kernel_size, c.stride, c.padding) for c in flatten_model(model) if isinstance(c, nn.Conv2d)] == [
        ((5, 5), (1, 1), (2, 2)), ((1, 1), (2, 2), (0, 0))]
    assert [type(m) for m in flatten_model(model)] == [
        nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.AdaptiveAvgPool2d, Flatten]


def test_conv_layer_bias_and_initialization():
    assert conv_layer(3, 8)[0].bias is None
    conv = conv_layer(64, 256, norm_type=None)[0]
    assert (conv.bias == 0).all()
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert conv_layer(3, 8, bias=True)[0].bias is not None
    assert [type(m) for m in conv_layer(3, 8, norm_type=nn.InstanceNorm2d, use_activ=False)] == [
        nn.Conv2d, nn.InstanceNorm2d]


def test_pools_and_flatten():
    x = tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    assert PoolFlatten()(x).tolist() == [[3, 1]]
    assert AdaptiveConcatPool2d()(x).flatten().tolist() == [6, 4, 3, 1]
    assert AdaptiveConcatPool2d(2)(x).shape == (1, 4, 2, 2)
    assert Flatten()(torch.zeros(2, 3, 4)).shape == (2, 12)
    assert Flatten(full=True)(torch.zeros(2, 3, 4)).shape == (24,)
    assert Lambda(lambda x: x + 1)(tensor(1)) == 2


@pytest.mark.parametrize(("arguments", "words"), [
    (dict(actns=(3,)), r"not \[3\]"),
    (dict(actns=(3, 16, 2), kernel_szs=[3]), r"kernel_szs \[3\] must have 2 values"),
    (dict(actns=(3, 16, 2), strides=[2, 2, 2]), r"strides \[2, 2, 2\] must have 2 values"),
])
def test_simple_cnn_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        simple_cnn(**arguments)


# ---- loss functions

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


# ---- a model as a list of layers

class Odd(nn.Module):
    """A module with a parameter of its own beside its layers, and one layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(7))
        self.first = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        self.again = nn.Sequential(self.first[0])
        self.last = nn.Linear(3, 2)


def test_flatten_model_finds_every_layer_and_parameter_once():
    model = Odd()
    layers = flatten_model(model)
    assert layers[:3] == [model.first[0], model.first[1], model.last]
    assert isinstance(layers[3], ParameterModule) and layers[3].val is model.scale
    assert size(nn.Sequential(*layers)) == size(model)
    assert flatten_model(nn.ReLU())[0].__class__ is nn.ReLU


def test_split_model_at_modules():
    model = simple_cnn((3, 4, 5, 2))
    assert [size(g) for g in split_model(model, [model[1], model[2]])] == [112, 185, 92]
    assert [size(g) for g in split_model(model, model[2])] == [297, 92]
    assert [size(g) for g in split_model(model, (model[2], model[0]))] == [297, 92]     # in the model's order


def test_split_model_into_listed_groups():
    model = simple_cnn((3, 4, 5, 2))
    assert [size(g) for g in split_model(model, [[model[2]], [model[0], model[1]]])] == [92, 297]
    with pytest.raises(ValueError, match=r"leave out 2 of the model's parameters.*: 1\.0\.weight, 1\.0\.bias"):
        split_model(model, [[model[0]], [model[2]]])


def test_split_model_at_a_stranger():
    with pytest.raises(ValueError, match="cannot split the model at Linear.*: it is not in the model"):
        split_model(simple_cnn((3, 2)), nn.Linear(2, 2))
