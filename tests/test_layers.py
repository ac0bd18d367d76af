from __future__ import annotations

import math

import pytest
import torch
from torch import nn, tensor

from minifast.layers import (
    AdaptiveConcatPool2d,
    Flatten,
    Lambda,
    ParameterModule,
    PoolFlatten,
    conv_layer,
    flatten_model,
    simple_cnn,
    split_model,
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
    assert isinstance(layers[0], ParameterModule) and layers[0].val is model.scale     # as in named_parameters()
    assert layers[1:] == [model.first[0], model.first[1], model.last]
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
