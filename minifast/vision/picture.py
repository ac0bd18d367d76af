"""A picture on its own: a tensor that looks like a picture, and how to draw one."""
from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..plots import finished

__all__ = ["Picture", "show_image", "plot_multi"]

SMALLEST = 160      # pixels that the longer side of a picture has at least where a notebook shows it


class Picture(Tensor):
    """A float tensor (3, H, W) in [0, 1] that a notebook shows as a picture; what is computed from it is plain.

    >>> picture = torch.zeros(3, 20, 30).as_subclass(Picture)
    >>> picture, type(picture + 1) is Tensor
    (Picture(3, 20, 30), True)
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs or {})

    def __repr__(self, **kwargs: Any) -> str:   # type: ignore[override]
        return f"Picture{tuple(self.shape)}"

    def _repr_png_(self) -> bytes | None:
        if self.ndim != 3 or self.shape[0] not in (1, 3) or not self.is_floating_point():
            return None     # a notebook shows the text then
        from PIL import Image
        pixels = self.detach().clamp(0, 1).mul(255).round().byte().cpu().expand(3, -1, -1)
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        by = max(1, round(SMALLEST / max(image.size)))
        buffer = io.BytesIO()
        image.resize((image.width * by, image.height * by), Image.Resampling.NEAREST).save(buffer, "png")
        return buffer.getvalue()

    def show(self, ax: Any = None, figsize: tuple[float, float] = (3, 3), title: str | None = None,
             return_fig: bool = False) -> Any:
        """Draw it: see `show_image`."""
        return show_image(self, ax, figsize, title, return_fig)


def show_image(x: Any, ax: Any = None, figsize: tuple[float, float] = (3, 3), title: str | None = None,
               return_fig: bool = False) -> Any:
    """Draw a picture (1 or 3, H, W), bytes or floats in [0, 1], or an array (H, W) or (H, W, 3).

    ax: axes to draw in; None: new ones, of `figsize` (inches).
    title: over it.
    return_fig: return the figure instead of showing it.

    ValueError for another shape.

    >>> show_image(torch.rand(3, 20, 30), title="noise", return_fig=True).axes[0].get_title()
    'noise'
    """
    import matplotlib.pyplot as plt
    pixels = torch.as_tensor(x).detach().cpu()
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.permute(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or pixels.ndim == 3 and pixels.shape[2] != 3:
        raise ValueError(f"a picture has the shape (1 or 3, height, width), not {tuple(pixels.shape)}")
    axis = plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax
    scaled = pixels.clamp(0, 1) if pixels.is_floating_point() else pixels
    axis.imshow(scaled.numpy(), cmap="gray", vmin=0, vmax=1 if pixels.is_floating_point() else 255)
    axis.axis("off")
    if title is not None:
        axis.set_title(title)
    return finished(axis.figure, ax, return_fig)


def plot_multi(func: Callable[[int, int, Any], Any], r: int = 1, c: int = 1, figsize: Sequence[float] | None = None,
               return_fig: bool = False) -> Any:
    """A grid of `r` x `c` axes, each drawn in by `func(row, column, axes)`.

    figsize: in inches; None: 2.4 for each.
    return_fig: return the figure instead of showing it.

    >>> picture = torch.rand(3, 8, 8)
    >>> len(plot_multi(lambda i, j, ax: show_image(picture, ax), 2, 3, return_fig=True).axes)
    6
    """
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(r, c, figsize=figsize or (2.4 * c, 2.4 * r), layout="constrained", squeeze=False)
    for i in range(r):
        for j in range(c):
            func(i, j, axes[i, j])
    return finished(figure, None, return_fig)
