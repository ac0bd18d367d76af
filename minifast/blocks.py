"""fastai v1's building blocks of networks: shortcuts, linear layers with their company, embeddings, upsampling."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .checks import number, positive_int
from .layers import conv_layer

__all__ = ["MergeLayer", "SequentialEx", "res_block", "bn_drop_lin", "embedding", "PixelShuffle_ICNR"]


class SequentialEx(nn.Module):
    """Layers one after the other, of which a `MergeLayer` sees the input of them all.

    >>> SequentialEx(nn.Identity(), MergeLayer())(torch.ones(2)).tolist()
    [2.0, 2.0]
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Any) -> Any:
        out = x
        for layer in self.layers:
            out = layer(out, x) if isinstance(layer, MergeLayer) else layer(out)
        return out

    def __getitem__(self, i: int) -> nn.Module:
        return self.layers[i]

    def __len__(self) -> int:
        return len(self.layers)


class MergeLayer(nn.Module):
    """In a `SequentialEx`: adds the input of them all to what has become of it; with `dense` puts it behind it, channel
    by channel.

    >>> SequentialEx(nn.Identity(), MergeLayer(dense=True))(torch.ones(1, 3, 2, 2)).shape
    torch.Size([1, 6, 2, 2])
    """

    def __init__(self, dense: bool = False) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, x: Tensor, first: Tensor) -> Tensor:
        return torch.cat([x, first], 1) if self.dense else x + first


def res_block(nf: int, dense: bool = False, **conv_kwargs: Any) -> SequentialEx:
    """Two `conv_layer`s with a shortcut around them (He et al. 2016): (n, nf, h, w) to the same, with `dense` to (n,
    2 nf, h, w).

    conv_kwargs: of `conv_layer`.

    >>> res_block(4)(torch.ones(2, 4, 5, 5)).shape
    torch.Size([2, 4, 5, 5])
    """
    return SequentialEx(conv_layer(nf, nf, **conv_kwargs), conv_layer(nf, nf, **conv_kwargs), MergeLayer(dense))


def bn_drop_lin(n_in: int, n_out: int, bn: bool = True, p: float = 0.0,
                actn: nn.Module | None = None) -> list[nn.Module]:
    """A linear layer after batch norm (`bn`) and dropout with probability `p`, before the activation `actn`: the layers
    as a list, those that are not wanted left out.

    >>> [type(layer).__name__ for layer in bn_drop_lin(4, 2, p=0.5, actn=nn.ReLU())]
    ['BatchNorm1d', 'Dropout', 'Linear', 'ReLU']
    """
    if not 0 <= number("p", p) < 1:
        raise ValueError(f"p is a probability, from 0 to below 1, not {p}")
    n_in, n_out = positive_int("n_in", n_in), positive_int("n_out", n_out)
    return [*([nn.BatchNorm1d(n_in)] if bn else []), *([nn.Dropout(p)] if p else []), nn.Linear(n_in, n_out),
            *([] if actn is None else [actn])]


def embedding(ni: int, nf: int) -> nn.Embedding:
    """A table of `ni` vectors of `nf` numbers, drawn from a normal distribution of deviation 0.01, cut off at two.

    >>> embedding(10, 3)(torch.tensor([1, 2])).shape
    torch.Size([2, 3])
    """
    table = nn.Embedding(positive_int("ni", ni), positive_int("nf", nf))
    nn.init.trunc_normal_(table.weight, std=0.01, a=-0.02, b=0.02)
    return table


class PixelShuffle_ICNR(nn.Sequential):
    """Upsampling by `scale`: a convolution makes scale² channels for each of `nf`, which become pixels (Shi et al.
    2016). It begins such that all pixels that come from one are equal, so there are no checkerboards (Aitken et al.
    2017, "ICNR").

    ni, nf: channels of input and result; `nf` None: as many as `ni`.

    >>> PixelShuffle_ICNR(8, 4)(torch.ones(2, 8, 5, 5)).shape
    torch.Size([2, 4, 10, 10])
    """

    def __init__(self, ni: int, nf: int | None = None, scale: int = 2) -> None:
        ni, scale = positive_int("ni", ni), positive_int("scale", scale)
        nf = ni if nf is None else positive_int("nf", nf)
        conv = nn.Conv2d(ni, nf * scale**2, 1)
        kernel = nn.init.kaiming_normal_(torch.empty(nf, ni, 1, 1))
        with torch.no_grad():
            conv.weight.copy_(kernel.repeat_interleave(scale**2, 0))
        nn.init.zeros_(conv.bias)   # type: ignore[arg-type]
        super().__init__(conv, nn.ReLU(inplace=True), nn.PixelShuffle(scale))
