"""Pictures of a batch with their labels, drawn."""
from __future__ import annotations

from typing import Any

from torch import Tensor

from ..plots import show
from .masks import SegmentationLabelList

__all__ = ["show_batch"]


def show_batch(data: Any, rows: int, ds_type: Any, figsize: tuple[float, float] | None, return_fig: bool) -> Any:
    """See `ImageDataBunch.show_batch`."""
    import matplotlib.pyplot as plt
    x, y = data.one_batch(ds_type)
    figsize = figsize or (1.6 * rows, 1.8 * rows)
    fig, axes = plt.subplots(rows, rows, figsize=figsize, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, target in zip(axes.flat, x.clamp(0, 1), y, strict=False):
        ax.imshow(image.permute(1, 2, 0).numpy())
        if isinstance(data.labels, SegmentationLabelList):
            ax.imshow(target.numpy(), alpha=0.5, cmap="tab20", vmin=0, vmax=max(1, data.c - 1))
        ax.set_title(_title(data, target))
    if return_fig:
        return fig
    show(fig)
    return None


def _title(data: Any, target: Tensor) -> str:
    if data.labels is not None:
        return str(data.labels.text(target))
    return str(target.tolist() if data.classes is None else data.classes[int(target)])
