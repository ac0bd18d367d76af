"""fastai v1's building blocks."""
import pytest
import torch
from torch import nn

from minifast.basics import *


def test_a_shortcut_adds_the_input_of_all():
    block = res_block(3)
    x = torch.rand(2, 3, 6, 6)
    inner = block[1](block[0](x))
    assert torch.equal(block.eval()(x), block[1](block[0](x)) + x) and inner.shape == x.shape and len(block) == 3
    dense = res_block(3, dense=True)(x)
    assert torch.equal(dense[:, 3:], x)


def test_pixel_shuffle_begins_without_checkerboards():
    up = PixelShuffle_ICNR(6, 4, scale=3)
    out = up(torch.randn(2, 6, 5, 5))
    assert out.shape == (2, 4, 15, 15)
    tiles = out.unfold(2, 3, 3).unfold(3, 3, 3)
    assert torch.equal(tiles, tiles[..., :1, :1].expand_as(tiles)) and out.std() > 0


def test_linear_layers_with_their_company():
    kinds = [type(m) for m in bn_drop_lin(4, 2, p=0.1, actn=nn.ReLU())]
    assert kinds == [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU]
    assert [type(m) for m in bn_drop_lin(4, 2, bn=False)] == [nn.Linear]
    with pytest.raises(ValueError, match="p is a probability, from 0 to below 1, not 1"):
        bn_drop_lin(4, 2, p=1)


def test_embeddings_begin_small():
    weight = embedding(1000, 8).weight
    assert weight.abs().max() <= 0.02 and 0.005 < weight.std() < 0.01
