"""`TabularModel`, embeddings and numbers through linear layers, and `tabular_learner`."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import did_you_mean
from ..learner import Learner
from .data import TabularDataBunch

__all__ = ["TabularModel", "emb_sz_rule", "tabular_learner"]


def emb_sz_rule(n_cat: int) -> int:
    """The size of the embedding for `n_cat` categories by fastai v1's rule, 1.6 * n_cat ** 0.56, at most 600.

    >>> [emb_sz_rule(n) for n in (2, 10, 1000, 10**6)]
    [2, 6, 77, 600]
    """
    return min(600, round(1.6 * math.pow(n_cat, 0.56)))


class TabularModel(nn.Module):
    """An embedding for each category column, beside the numbers, through linear layers with ReLU. The layout is v1's.

    emb_szs: (categories, size of the embedding) for each column.
    n_cont, out_sz: how many columns of numbers, and how many outputs. layers: the sizes of the hidden layers.
    ps: dropout after each hidden layer, a number or a list; None: none. emb_drop: that of the embeddings.
    y_range: (low, high): a sigmoid keeps outputs between these; None: nothing does.
    use_bn: whether batch norm follows each hidden layer. bn_final: whether it also follows the last one.

    >>> model = TabularModel([(3, 2)], n_cont=4, out_sz=1, layers=[8], y_range=(0, 5))
    >>> model(torch.zeros(6, 1, dtype=torch.long), torch.randn(6, 4)).shape
    torch.Size([6, 1])
    """

    def __init__(self, emb_szs: Sequence[tuple[int, int]], n_cont: int, out_sz: int, layers: Sequence[int],
                 ps: float | Sequence[float] | None = None, emb_drop: float = 0.0,
                 y_range: tuple[float, float] | None = None, use_bn: bool = True, bn_final: bool = False) -> None:
        super().__init__()
        drops = list(ps) if isinstance(ps, Sequence) else [ps or 0.0] * len(layers)
        if len(drops) != len(layers) or y_range is not None and not y_range[0] < y_range[1]:
            raise ValueError(f"ps={ps} needs a value for each of {len(layers)} layers, y_range={y_range} (low, high)")
        starts = [nn.init.trunc_normal_(torch.empty(shape), std=0.01, a=-0.02, b=0.02) for shape in emb_szs]
        self.embeds = nn.ModuleList(nn.Embedding(len(w), w.shape[1], _weight=w) for w in starts)
        self.emb_drop, self.y_range = nn.Dropout(emb_drop), y_range
        self.bn_cont = nn.BatchNorm1d(n_cont) if n_cont else None
        n_in, parts = sum(size for _, size in emb_szs) + n_cont, list[nn.Module]()
        for size, drop in zip(layers, drops, strict=True):
            parts += [nn.Linear(n_in, size), nn.ReLU(inplace=True), *[nn.BatchNorm1d(size)] * use_bn, nn.Dropout(drop)]
            n_in = size
        self.layers = nn.Sequential(*parts, nn.Linear(n_in, out_sz), *[nn.BatchNorm1d(out_sz)] * bn_final)

    def forward(self, x_cat: Tensor, x_cont: Tensor) -> Tensor:
        embedded = [self.emb_drop(embed(x_cat[:, i])) for i, embed in enumerate(self.embeds)]
        x: Tensor = self.layers(torch.cat([*embedded, x_cont if self.bn_cont is None else self.bn_cont(x_cont)], 1))
        return x if self.y_range is None else self.y_range[0] + (self.y_range[1] - self.y_range[0]) * x.sigmoid()


def tabular_learner(data: TabularDataBunch, layers: Sequence[int] = (200, 100),
                    emb_szs: Mapping[str, int] | None = None, metrics: Any = None,
                    ps: float | Sequence[float] | None = None, emb_drop: float = 0.0,
                    y_range: tuple[float, float] | None = None, use_bn: bool = True, **kwargs: Any) -> Learner:
    """A learner with a `TabularModel` that fits the data.

    emb_szs: sizes of embeddings by column; None, and for all others: `emb_sz_rule`.
    layers, ps, emb_drop, y_range, use_bn: see `TabularModel`. metrics, kwargs: see `Learner`.

    >>> df = pd.DataFrame({"job": ["cook", "smith"] * 10, "age": range(20), "rich": ["no", "yes"] * 10})
    >>> learn = tabular_learner(TabularDataBunch.from_df(df, "rich", bs=8), layers=[20], silent=True)
    >>> learn.fit_one_cycle(5, 0.1); learn.predict({"job": "smith", "age": 5})[0]
    'yes'
    """
    if not isinstance(data, TabularDataBunch):
        raise TypeError(f"data must be a TabularDataBunch, not a {type(data).__name__}")
    prepare, sizes = data.prepare, dict(emb_szs or {})
    if odd := [name for name in sizes if name not in prepare.cat_names]:
        raise ValueError(f"emb_szs: {odd[0]!r} is no column of categories.{did_you_mean(odd[0], prepare.cat_names)}")
    counts = {name: len(prepare.classes[name]) for name in prepare.cat_names}
    model = TabularModel([(n, sizes.get(name, emb_sz_rule(n))) for name, n in counts.items()],
                         len(prepare.cont_names), data.n_out, layers, ps, emb_drop, y_range, use_bn)
    return Learner(data, model, metrics=metrics, **kwargs)
